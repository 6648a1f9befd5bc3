//! A pass of usage as bytes: of each sample only what changed since the pass before on this connection, as differences.
//!
//! A sample names its container by its place in the pass before, or says its names in full when it was not there. So both ends hold
//! one pass and nothing else, and a container that is gone is forgotten by both at the same moment.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Timestamp;
use crate::model::link::{NetworkTotals, UsageBatch, UsageSample};

/// A name longer than this is no container's.
const LONGEST_NAME: u64 = 1_024;
/// More than any host runs: a frame of a few megabytes may not become gigabytes.
const MOST_SAMPLES: usize = 10_000;
/// Reserved at most before it is seen that so many samples are there.
const EXPECTED: usize = 1_024;

const INTERVAL: u64 = 1 << 0;
const CORES: u64 = 1 << 1;
/// Not a change: the sample has network totals.
const NETWORK: u64 = 1 << 2;
const FIRST_TOTAL: u32 = 3;
const TOTALS: usize = 16;
const FIRST_NETWORK: u32 = FIRST_TOTAL + TOTALS as u32;
const NETWORK_TOTALS: usize = 8;

fn totals(s: &UsageSample) -> [u64; TOTALS] {
    [
        s.cpu_total_ns,
        s.cpu_user_ns,
        s.cpu_system_ns,
        s.throttled_periods,
        s.periods,
        s.throttled_ns,
        s.memory_bytes,
        s.memory_usage_bytes,
        s.memory_working_set_bytes,
        s.memory_rss_bytes,
        s.memory_cache_bytes,
        s.memory_limit_bytes,
        s.processes,
        s.block_read_bytes,
        s.block_write_bytes,
        s.oom_events,
    ]
}

fn network_totals(n: &NetworkTotals) -> [u64; NETWORK_TOTALS] {
    [
        n.receive_bytes,
        n.receive_packets,
        n.receive_errors,
        n.receive_dropped,
        n.transmit_bytes,
        n.transmit_packets,
        n.transmit_errors,
        n.transmit_dropped,
    ]
}

#[derive(Default)]
pub struct Writer {
    at: i64,
    before: Vec<Arc<UsageSample>>,
}

impl Writer {
    pub fn write(&mut self, batch: &UsageBatch, out: &mut Vec<u8>) {
        put(out, zigzag(batch.at.0.wrapping_sub(self.at)));
        put(out, batch.cost_us);
        put(out, batch.samples.len() as u64);
        let mut places: Option<HashMap<&str, usize>> = None;
        let nothing = UsageSample::default();
        for (n, sample) in batch.samples.iter().enumerate() {
            // Containers come in the same order in each pass, mostly.
            let place = match self.before.get(n).is_some_and(|before| same(before, sample)) {
                true => Some(n),
                false => places
                    .get_or_insert_with(|| self.before.iter().enumerate().map(|(n, s)| (&*s.runtime_id, n)).collect())
                    .get(&*sample.runtime_id)
                    .copied()
                    .filter(|place| same(&self.before[*place], sample)),
            };
            match place {
                Some(place) => put(out, place as u64 + 1),
                None => {
                    put(out, 0);
                    for name in [&sample.task, &sample.container, &sample.runtime_id, &sample.runtime_name] {
                        put(out, name.len() as u64);
                        out.extend_from_slice(name.as_bytes());
                    }
                }
            }
            write_sample(place.map_or(&nothing, |place| &self.before[place]), sample, out);
        }
        (self.at, self.before) = (batch.at.0, batch.samples.clone());
    }
}

fn same(a: &UsageSample, b: &UsageSample) -> bool {
    (&a.runtime_id, &a.task, &a.container, &a.runtime_name) == (&b.runtime_id, &b.task, &b.container, &b.runtime_name)
}

fn write_sample(before: &UsageSample, sample: &UsageSample, out: &mut Vec<u8>) {
    let (earlier, now) = (totals(before), totals(sample));
    let earlier_network = network_totals(&before.network.unwrap_or_default());
    let network = network_totals(&sample.network.unwrap_or_default());
    let mut mask = 0;
    let mut mark = |bit: u64, differs: bool| mask |= if differs { bit } else { 0 };
    mark(INTERVAL, before.interval_ms != sample.interval_ms);
    mark(CORES, before.cpu_cores.to_bits() != sample.cpu_cores.to_bits());
    mark(NETWORK, sample.network.is_some());
    (0..TOTALS).for_each(|n| mark(1 << (FIRST_TOTAL + n as u32), earlier[n] != now[n]));
    if sample.network.is_some() {
        (0..NETWORK_TOTALS).for_each(|n| mark(1 << (FIRST_NETWORK + n as u32), earlier_network[n] != network[n]));
    }
    put(out, mask);
    if mask & INTERVAL != 0 {
        put(out, zigzag(sample.interval_ms.wrapping_sub(before.interval_ms)));
    }
    if mask & CORES != 0 {
        out.extend_from_slice(&sample.cpu_cores.to_le_bytes());
    }
    let pairs = earlier.into_iter().zip(now).chain(earlier_network.into_iter().zip(network));
    for (n, (earlier, now)) in pairs.enumerate() {
        if mask & (1 << (FIRST_TOTAL + n as u32)) != 0 {
            put(out, zigzag(now.wrapping_sub(earlier) as i64));
        }
    }
}

#[derive(Default)]
pub struct Reader {
    at: i64,
    before: Vec<Arc<UsageSample>>,
}

impl Reader {
    /// None: no writer wrote this.
    pub fn read(&mut self, bytes: &[u8]) -> Option<UsageBatch> {
        let mut input = Input(bytes);
        let at = self.at.wrapping_add(unzigzag(input.varint()?));
        let cost_us = input.varint()?;
        let count = usize::try_from(input.varint()?).ok().filter(|count| *count <= MOST_SAMPLES)?;
        let mut samples = Vec::with_capacity(count.min(EXPECTED));
        for _ in 0..count {
            let mut sample = match input.varint()? {
                0 => UsageSample {
                    task: input.name()?,
                    container: input.name()?,
                    runtime_id: input.name()?,
                    runtime_name: input.name()?,
                    ..UsageSample::default()
                },
                place => UsageSample::clone(self.before.get(usize::try_from(place - 1).ok()?)?),
            };
            read_sample(&mut sample, &mut input)?;
            samples.push(Arc::new(sample));
        }
        if !input.0.is_empty() {
            return None;
        }
        self.at = at;
        self.before.clone_from(&samples);
        Some(UsageBatch { at: Timestamp(at), samples, cost_us })
    }
}

fn read_sample(s: &mut UsageSample, input: &mut Input) -> Option<()> {
    let mask = input.varint()?;
    if mask & INTERVAL != 0 {
        s.interval_ms = s.interval_ms.wrapping_add(unzigzag(input.varint()?));
    }
    if mask & CORES != 0 {
        s.cpu_cores = f64::from_le_bytes(input.take(8)?.try_into().ok()?);
    }
    let fields: [&mut u64; TOTALS] = [
        &mut s.cpu_total_ns,
        &mut s.cpu_user_ns,
        &mut s.cpu_system_ns,
        &mut s.throttled_periods,
        &mut s.periods,
        &mut s.throttled_ns,
        &mut s.memory_bytes,
        &mut s.memory_usage_bytes,
        &mut s.memory_working_set_bytes,
        &mut s.memory_rss_bytes,
        &mut s.memory_cache_bytes,
        &mut s.memory_limit_bytes,
        &mut s.processes,
        &mut s.block_read_bytes,
        &mut s.block_write_bytes,
        &mut s.oom_events,
    ];
    add(fields, FIRST_TOTAL, mask, input)?;
    if mask & NETWORK == 0 {
        s.network = None;
        return Some(());
    }
    let n = s.network.get_or_insert_default();
    let fields: [&mut u64; NETWORK_TOTALS] = [
        &mut n.receive_bytes,
        &mut n.receive_packets,
        &mut n.receive_errors,
        &mut n.receive_dropped,
        &mut n.transmit_bytes,
        &mut n.transmit_packets,
        &mut n.transmit_errors,
        &mut n.transmit_dropped,
    ];
    add(fields, FIRST_NETWORK, mask, input)
}

fn add<const N: usize>(fields: [&mut u64; N], first: u32, mask: u64, input: &mut Input) -> Option<()> {
    for (n, field) in fields.into_iter().enumerate() {
        if mask & (1 << (first + n as u32)) != 0 {
            *field = field.wrapping_add(unzigzag(input.varint()?) as u64);
        }
    }
    Some(())
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn name(&mut self) -> Option<Arc<str>> {
        let length = self.varint().filter(|length| *length <= LONGEST_NAME)?;
        std::str::from_utf8(self.take(length as usize)?).ok().map(Arc::from)
    }
}
