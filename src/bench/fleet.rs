//! The usage of a small fleet, second by second, with as much chance in it as a real one has: what the metrics store is measured with.
//!
//! Forty services of one to ten tasks, a container each. Half of them serve: processor time to the nanosecond that is another one every
//! second, memory that moves by pages, packets that come as they like. Half of them wait: a timer now and then, and nothing else, as
//! most containers of most fleets do. Or all of them serve.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Timestamp;
use crate::model::link::{NetworkTotals, UsageBatch, UsageSample};
use crate::telemetry::ingest::TaskFacts;

const SIZES: [usize; 5] = [1, 2, 3, 5, 10];
const SERVICES: usize = 40;
/// No host has only powers of two.
const LIMITS_MIB: [u32; 4] = [256, 300, 512, 750];
const PAGE: u64 = 4096;

pub struct Fleet {
    tasks: Vec<UsageSample>,
    facts: HashMap<String, Arc<TaskFacts>>,
    serves: Vec<bool>,
    dice: Dice,
    second: u64,
}

/// Weyl's sequence, mixed: the same numbers in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    /// The sum of four: mostly near the middle of 0 to `n`.
    pub fn around(&mut self, n: u64) -> u64 {
        (0..4).map(|_| self.below(n / 4 + 1)).sum()
    }
}

impl Fleet {
    pub fn new(all_serve: bool) -> Fleet {
        let mut fleet = Fleet { tasks: Vec::new(), facts: HashMap::new(), serves: Vec::new(), dice: Dice::new(4), second: 0 };
        for service in 0..SERVICES {
            for _ in 0..SIZES[service % SIZES.len()] {
                fleet.add(service, all_serve);
            }
        }
        fleet
    }

    fn add(&mut self, service: usize, all_serve: bool) {
        let id = format!("{:032x}", self.tasks.len() as u128 * 0x9e37_79b9_7f4a_7c15_u128);
        // By size in turn, so that services of every size serve and wait.
        let serves = all_serve || (service / SIZES.len()).is_multiple_of(2);
        let memory_mib = LIMITS_MIB[service % LIMITS_MIB.len()];
        let name = format!("service-{service}");
        let facts = TaskFacts {
            cluster: "fleet".into(),
            service: Some(name.as_str().into()),
            family: name.as_str().into(),
            cpu_reserved: if serves { 512 } else { 128 },
            memory_reserved_mib: memory_mib,
            cluster_cpu_registered: 65_536,
            cluster_memory_registered: 262_144,
        };
        self.facts.insert(id.clone(), Arc::new(facts));
        self.serves.push(serves);
        self.tasks.push(UsageSample {
            task: id.as_str().into(),
            container: "app".into(),
            runtime_id: format!("{id}{id}").into(),
            memory_bytes: (u64::from(memory_mib) << 20) / 100 * (30 + self.dice.below(40)) / PAGE * PAGE,
            memory_limit_bytes: u64::from(memory_mib) << 20,
            network: Some(NetworkTotals::default()),
            ..UsageSample::default()
        });
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn facts(&self, task: &str) -> Option<Arc<TaskFacts>> {
        self.facts.get(task).cloned()
    }

    /// The next second's pass over everything.
    pub fn pass(&mut self, at: Timestamp) -> UsageBatch {
        self.second += 1;
        let (second, dice) = (self.second, &mut self.dice);
        for (number, (sample, serves)) in self.tasks.iter_mut().zip(&self.serves).enumerate() {
            if *serves {
                serve(sample, second, dice)
            } else {
                wait(sample, second + number as u64, dice)
            }
            // The sampler looks on the second, a little late by chance.
            let interval_ns = 1_000_000_000 + dice.around(120_000) - 60_000;
            sample.interval_ms = (interval_ns as f64 / 1e6).round() as i64;
            sample.cpu_cores = sample.cpu_user_ns as f64 / interval_ns as f64;
            sample.cpu_total_ns += sample.cpu_user_ns;
        }
        UsageBatch { at, samples: self.tasks.iter().cloned().map(Arc::new).collect(), cost_us: 0 }
    }
}

/// `cpu_user_ns` is what was used since the pass before.
fn serve(sample: &mut UsageSample, second: u64, dice: &mut Dice) {
    // A load that rises and falls in ten minutes.
    let load = 200 + (150.0 * (second as f64 / 95.0).sin()) as u64;
    let requests = dice.around(load);
    sample.cpu_user_ns = 900_000 + requests * 1_100_000 + dice.below(3_000_000);
    if dice.below(2) == 0 {
        let pages = dice.around(40);
        sample.memory_bytes =
            (sample.memory_bytes + pages * PAGE).saturating_sub(20 * PAGE).clamp(PAGE, sample.memory_limit_bytes);
    }
    if let Some(network) = &mut sample.network {
        network.receive_bytes += requests * 420 + dice.around(2_000);
        network.transmit_bytes += requests * 1_900 + dice.around(20_000);
    }
    // The kernel's counters of blocks are read every five seconds.
    if second.is_multiple_of(5) {
        sample.block_write_bytes += dice.below(8) * PAGE;
    }
}

fn wait(sample: &mut UsageSample, second: u64, dice: &mut Dice) {
    let wakes = second.is_multiple_of(10);
    sample.cpu_user_ns = if wakes { 1_500_000 + dice.below(900_000) } else { 0 };
    if wakes && dice.below(6) == 0 {
        sample.memory_bytes = (sample.memory_bytes + PAGE).min(sample.memory_limit_bytes);
    }
    if let (Some(network), true) = (&mut sample.network, second.is_multiple_of(30)) {
        network.receive_bytes += 60 + dice.below(300);
    }
}
