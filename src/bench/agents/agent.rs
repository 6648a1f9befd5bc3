//! The driver's agents: each keeps its link as a real one does (`agent::link`), reports its tasks as running at once, and tells what
//! twenty containers use each second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio_util::sync::CancellationToken;

use crate::agent::link::{self, Link};
use crate::clock::{Clock, SystemClock};
use crate::model::link::{
    Assignment, ContainerReport, FromAgent, Hello, LINK_NEWEST, LINK_OLDEST, NetworkTotals, Phase, TaskReport, ToAgent,
    UsageBatch, UsageSample,
};
use crate::model::task::{Health, Resources};
use crate::model::{TaskId, Timestamp};

pub const TASKS: usize = 20;
/// CPU units and MiB of one task.
pub const UNITS: u32 = 64;
/// The rate, though nothing but silence asks for it: usage says as much.
const HEARTBEAT: u32 = 5;
/// So many reports go in one message.
const REPORTS: usize = 256;

/// How far all of them are.
#[derive(Default)]
pub struct Fleet {
    pub connected: AtomicUsize,
    /// Agents whose first Assign of this connection came.
    pub assigned: AtomicUsize,
    pub tasks: AtomicUsize,
    pub passes: AtomicU64,
}

impl Fleet {
    pub fn reset(&self) {
        self.assigned.store(0, Ordering::Relaxed);
    }

    pub async fn until(&self, what: &str, all: usize, read: impl Fn(&Fleet) -> usize, patience: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while read(self) < all {
            ensure!(begun.elapsed() < patience, "only {} of {all} are {what} after {} s", read(self), patience.as_secs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// That their connections are gone.
    pub async fn until_all_know(&self, all: usize, patience: Duration) -> anyhow::Result<()> {
        self.until("cut off", all, |f| all - f.connected.load(Ordering::Relaxed).min(all), patience).await
    }
}

pub fn start(fleet: &Arc<Fleet>, url: &str, token: &str, agents: usize, stop: &CancellationToken) {
    for number in 0..agents {
        let mut seed = number as u64 + 1;
        let state = std::sync::Mutex::new(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        });
        let numbers: link::Numbers = Arc::new(move || state.lock().map(|mut next| next()).unwrap_or(0));
        let link = link::connect_forever(url, token, numbers, stop.clone());
        tokio::spawn(Agent::new(number, fleet.clone()).run(link));
    }
}

struct Agent {
    number: usize,
    fleet: Arc<Fleet>,
    tasks: BTreeMap<TaskId, Arc<str>>,
    meter: Meter,
    here: bool,
    welcomed: bool,
    generation: Option<u64>,
}

impl Agent {
    fn new(number: usize, fleet: Arc<Fleet>) -> Agent {
        Agent { number, fleet, tasks: BTreeMap::new(), meter: Meter::default(), here: false, welcomed: false, generation: None }
    }

    async fn run(mut self, mut link: Link) {
        let mut second = tokio::time::interval_at(next_second(), Duration::from_secs(1));
        let mut beats = self.number as u32 % HEARTBEAT;
        loop {
            tokio::select! {
                changed = link.connection.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let number = *link.connection.borrow_and_update();
                    self.is_here(number > 0);
                    self.welcomed = false;
                    if number > 0 && link.to.send(FromAgent::Hello(Box::new(self.hello()))).await.is_err() {
                        return;
                    }
                }
                message = link.from.recv() => {
                    let Some(message) = message else { return };
                    for reports in self.hear(message).chunks(REPORTS) {
                        if link.to.send(FromAgent::Status(reports.to_vec())).await.is_err() {
                            return;
                        }
                    }
                }
                _ = second.tick() => {
                    if !self.welcomed {
                        continue;
                    }
                    let now = SystemClock.now();
                    let pass = self.meter.pass(now.0, self.tasks.values());
                    if link.to.try_send(FromAgent::Usage(pass)).is_ok() {
                        self.fleet.passes.fetch_add(1, Ordering::Relaxed);
                    }
                    beats += 1;
                    if beats.is_multiple_of(HEARTBEAT) {
                        let _ = link.to.try_send(FromAgent::Heartbeat { at: now, engine_up: true, generation: self.generation });
                    }
                }
            }
        }
    }

    fn is_here(&mut self, here: bool) {
        if here != self.here {
            self.here = here;
            match here {
                true => self.fleet.connected.fetch_add(1, Ordering::Relaxed),
                false => self.fleet.connected.fetch_sub(1, Ordering::Relaxed),
            };
        }
    }

    /// What is to be reported for it.
    fn hear(&mut self, message: ToAgent) -> Vec<TaskReport> {
        if let ToAgent::Assign { generation, .. } | ToAgent::Update { generation, .. } = &message {
            self.generation = Some(*generation);
        }
        let (put, forget) = match message {
            ToAgent::Welcome { .. } => {
                self.welcomed = true;
                return Vec::new();
            }
            ToAgent::Assign { tasks, .. } => {
                self.fleet.assigned.fetch_add(1, Ordering::Relaxed);
                (tasks, Vec::new())
            }
            ToAgent::Update { put, forget, .. } => (put, forget),
            _ => return Vec::new(),
        };
        let before = self.tasks.len();
        for task in &forget {
            self.tasks.remove(task);
        }
        let reports = put.iter().map(|task| self.report(task)).collect();
        match self.tasks.len() >= before {
            true => self.fleet.tasks.fetch_add(self.tasks.len() - before, Ordering::Relaxed),
            false => self.fleet.tasks.fetch_sub(before - self.tasks.len(), Ordering::Relaxed),
        };
        reports
    }

    fn report(&mut self, task: &Assignment) -> TaskReport {
        let now = SystemClock.now();
        if task.run {
            self.tasks.entry(task.task.clone()).or_insert_with(|| Arc::from(task.task.as_str()));
        }
        let container = |name: &str| ContainerReport {
            name: name.into(),
            phase: if task.run { Phase::Running } else { Phase::Stopped },
            runtime_id: Some(runtime_id(task.task.as_str())),
            image_digest: None,
            started_at: Some(now),
            finished_at: (!task.run).then_some(now),
            exit_code: (!task.run).then_some(0),
            reason: None,
            health: Health::Unknown,
            bindings: vec![],
            address: None,
            network: None,
            restart_count: 0,
        };
        TaskReport {
            task: task.task.clone(),
            containers: task.containers.iter().map(|c| container(&c.name)).collect(),
            address: None,
            pull_started_at: Some(now),
            pull_stopped_at: Some(now),
            ending: None,
            finished: !task.run,
            at: now,
        }
    }

    fn hello(&self) -> Hello {
        let room = UNITS * TASKS as u32;
        Hello {
            link_version: LINK_OLDEST,
            link_newest: LINK_NEWEST,
            process: format!("bench-{}", self.number),
            instance: Some(format!("{:032x}", self.number + 1).into()),
            cluster: "default".into(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            docker_version: "bench".to_owned(),
            host_name: format!("host-{}", self.number),
            host_address: format!("10.{}.{}.1", self.number / 250, self.number % 250),
            registered: Resources { cpu: room, memory: room, ..Resources::default() },
            reserved_tcp_ports: vec![22, 2375, 2376, 51678, 51679],
            attributes: BTreeMap::from([(
                "ecs.availability-zone".to_owned(),
                Some(format!("us-east-1{}", ['a', 'b', 'c'][self.number % 3])),
            )]),
            at: SystemClock.now(),
        }
    }
}

/// Real agents make their passes at the turn of the second.
fn next_second() -> tokio::time::Instant {
    let into = SystemClock.now().0.rem_euclid(1_000) as u64;
    tokio::time::Instant::now() + Duration::from_millis(1_000 - into)
}

/// As long as Docker's.
fn runtime_id(task: &str) -> String {
    format!("{task}{task}")
}

/// Containers that serve requests now and then: most counters move in each second.
#[derive(Default)]
pub struct Meter {
    seconds: u64,
    before: BTreeMap<Arc<str>, Arc<UsageSample>>,
}

impl Meter {
    pub fn pass<'a>(&mut self, at: i64, tasks: impl Iterator<Item = &'a Arc<str>>) -> UsageBatch {
        self.seconds += 1;
        let mut samples = Vec::with_capacity(TASKS);
        let mut kept = BTreeMap::new();
        for (n, task) in tasks.enumerate() {
            let before = self.before.remove(task);
            let sample = Arc::new(next(before.as_deref(), task, self.seconds.wrapping_mul(31).wrapping_add(n as u64 * 17)));
            kept.insert(task.clone(), sample.clone());
            samples.push(sample);
        }
        self.before = kept;
        UsageBatch { at: Timestamp(at), samples, cost_us: 500 }
    }
}

fn next(before: Option<&UsageSample>, task: &Arc<str>, dice: u64) -> UsageSample {
    let used = 1_000_000 + dice.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 400_000_000;
    let grown = |n: u64| n.wrapping_mul(used) % 100_000;
    let Some(before) = before else {
        return UsageSample {
            task: task.clone(),
            container: "app".into(),
            runtime_id: runtime_id(task).into(),
            runtime_name: format!("ecs-bench-1-app-{}", task.get(..20).unwrap_or(task)).into(),
            memory_bytes: 40 << 20,
            memory_limit_bytes: 64 << 20,
            processes: 5,
            network: Some(NetworkTotals::default()),
            ..UsageSample::default()
        };
    };
    let network = before.network.unwrap_or_default();
    let memory = (40 << 20) + grown(3) * 64;
    UsageSample {
        interval_ms: 1_000 + (dice % 3) as i64,
        cpu_cores: used as f64 / 1e9,
        cpu_total_ns: before.cpu_total_ns + used,
        cpu_user_ns: before.cpu_user_ns + used / 2,
        cpu_system_ns: before.cpu_system_ns + used / 2,
        memory_bytes: memory,
        memory_usage_bytes: memory + (1 << 20),
        memory_working_set_bytes: memory,
        memory_rss_bytes: memory - (1 << 20),
        network: Some(NetworkTotals {
            receive_bytes: network.receive_bytes + grown(5),
            receive_packets: network.receive_packets + grown(5) / 100,
            transmit_bytes: network.transmit_bytes + grown(7),
            transmit_packets: network.transmit_packets + grown(7) / 100,
            ..network
        }),
        ..before.clone()
    }
}
