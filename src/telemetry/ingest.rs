//! Usage batches in, `AWS/ECS` and `ECS/ContainerInsights` metrics out: per cluster, service, task and container.
//!
//! Also keeps each container's newest sample, for the Prometheus exporter and `top`, and when each instance was last heard.

#[cfg(test)]
mod tests;

mod group;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::group::{Group, Groups, Row};
use super::metrics::{MetricStore, Series};
use crate::model::link::{NetworkTotals, UsageBatch, UsageSample};
use crate::model::metric::{MetricKey, Observed};
use crate::model::{ClusterName, InstanceId, Millis, ServiceName, Timestamp};

/// What the control plane knows of a task and a sample does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFacts {
    pub cluster: ClusterName,
    pub service: Option<ServiceName>,
    pub family: Arc<str>,
    /// CPU units: 1024 are a core. 0: nothing is reserved.
    pub cpu_reserved: u32,
    pub memory_reserved_mib: u32,
    /// CPU units and MiB of the cluster's ACTIVE and DRAINING instances.
    pub cluster_cpu_registered: u32,
    pub cluster_memory_registered: u32,
}

/// The newest sample of one container.
#[derive(Clone, Debug)]
pub struct Latest {
    pub facts: Arc<TaskFacts>,
    pub sample: Arc<UsageSample>,
    /// When the agent made the pass, by its clock.
    pub at: Timestamp,
}

pub struct Ingest {
    store: Arc<MetricStore>,
    /// An instance's tasks are in one lane, so that agents seldom wait for each other.
    lanes: [Mutex<Lane>; LANES],
    groups: Mutex<Groups>,
    /// The second of our clock in which the clusters' utilization was last put, in milliseconds.
    clusters_put: AtomicI64,
    /// Something is held back for [`Ingest::flush`].
    held: Notify,
    unknown: AtomicU64,
    /// One entry for each instance since the start, until it is forgotten.
    hearings: Mutex<HashMap<InstanceId, Arc<Hearing>>>,
}

const LANES: usize = 16;

type Lane = HashMap<Arc<str>, Task>;

/// What is known of an instance because its agent speaks. Whoever takes the agent's messages keeps this handle.
#[derive(Default)]
pub struct Hearing {
    at: AtomicI64,
    skew_ms: AtomicI64,
}

impl Hearing {
    /// The agent has said something.
    pub fn heard(&self, now: Timestamp) {
        self.at.store(now.0, Ordering::Relaxed);
    }

    /// How far its clock is ahead of ours.
    pub fn skewed(&self, by: Millis) {
        self.skew_ms.store(by, Ordering::Relaxed);
    }
}

/// One task, with its series resolved, so that a second costs no work with strings.
struct Task {
    facts: Arc<TaskFacts>,
    utilization: Utilization,
    cluster: Arc<Group>,
    service: Option<Arc<Group>>,
    containers: Vec<Container>,
    received: Timestamp,
    /// CPU units and bytes, as of the newest batch.
    cpu_units: Option<f64>,
    memory_bytes: f64,
}

struct Container {
    utilization: Utilization,
    sample: Arc<UsageSample>,
    at: Timestamp,
    received: Timestamp,
}

struct Utilization {
    cpu: Option<Arc<Series>>,
    memory: Option<Arc<Series>>,
}

/// Without a sample for this long a container counts as gone.
const STALE_MS: Millis = 5_000;
const CPU_UNITS: f64 = 1024.0;
const MIB: f64 = 1_048_576.0;

type Put = Vec<(Arc<Series>, Timestamp, Observed)>;

impl Ingest {
    pub fn new(store: Arc<MetricStore>) -> Ingest {
        Ingest {
            store,
            lanes: Default::default(),
            groups: Mutex::default(),
            clusters_put: AtomicI64::new(0),
            held: Notify::new(),
            unknown: AtomicU64::new(0),
            hearings: Mutex::default(),
        }
    }

    /// Puts one pass of one agent. The samples describe the time since the pass before, which is the second that just ended, so
    /// their bucket starts one second before the one in which the pass was made: a bucket never holds what happened after it.
    ///
    /// A service's metrics get one sample from each task, so that several agents' batches for one second merge, the SampleCount
    /// of one second is the number of running tasks, and percentiles over tasks are known. Where many agents speak, what is for
    /// a service or a cluster is held back for a moment and put together: [`Ingest::flush`] is to follow soon after
    /// [`Ingest::holds_back`].
    pub fn usage(&self, from: &InstanceId, batch: &UsageBatch, lookup: &mut dyn FnMut(&str) -> Option<Arc<TaskFacts>>) {
        let now = self.store.clock().now();
        let at = bucket(batch.at);
        self.each_second(now);
        let mut put = Put::with_capacity(batch.samples.len() * 4);
        let mut touched: Vec<Arc<Group>> = Vec::new();
        let mut samples: Vec<&Arc<UsageSample>> = batch.samples.iter().collect();
        samples.sort_by(|a, b| a.task.cmp(&b.task));
        {
            let mut lane = lock(&self.lanes[lane_of(from)]);
            for samples in samples.chunk_by(|a, b| a.task == b.task) {
                let id = &samples[0].task;
                let Some(facts) = lookup(id) else {
                    lane.remove(id);
                    self.unknown.fetch_add(samples.len() as u64, Ordering::Relaxed);
                    continue;
                };
                let task = self.task(&mut lane, id, facts);
                task.admit(&self.store, samples, batch.at, now);
                let totals = task.measure(samples, batch.at, now, &mut put);
                task.put(&totals, at, &mut put, &mut touched);
            }
        }
        // Each is settled, whatever the ones before it said.
        let held = touched.iter().filter(|group| group.settle(now, &mut put)).count();
        if held > 0 {
            self.held.notify_one();
        }
        self.put(put);
    }

    fn put(&self, mut put: Put) {
        // What is for one series becomes visible at once, as the store puts it under one lock.
        put.sort_by_key(|(series, ..)| series.number());
        if self.store.put_observed(&put).refused_series_limit > 0 {
            // The store was reset: these handles are dead, and the next batch makes new ones.
            self.lanes.iter().for_each(|lane| lock(lane).clear());
            lock(&self.groups).clear();
        }
    }

    /// Returns when something is held back.
    pub async fn holds_back(&self) {
        self.held.notified().await;
    }

    /// Puts what is held back.
    pub fn flush(&self) {
        let groups: Vec<Arc<Group>> = lock(&self.groups).values().cloned().collect();
        let mut put = Put::new();
        groups.iter().for_each(|group| group.drain(&mut put));
        self.put(put);
    }

    /// Every container with a sample in the last 5 seconds.
    pub fn latest(&self) -> Vec<Latest> {
        let now = self.store.clock().now();
        let mut latest: Vec<Latest> = Vec::new();
        for lane in &self.lanes {
            let lane = lock(lane);
            let containers = lane.values().flat_map(|task| task.containers.iter().map(move |container| (task, container)));
            latest.extend(
                containers.filter(|(_, container)| now.since(container.received) <= STALE_MS).map(|(task, c)| Latest {
                    facts: task.facts.clone(),
                    sample: c.sample.clone(),
                    at: c.at,
                }),
            );
        }
        latest.sort_by(|a, b| (&a.sample.task, &a.sample.container).cmp(&(&b.sample.task, &b.sample.container)));
        latest
    }

    /// Samples of tasks that the control plane does not know (any more).
    pub fn unknown_samples(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    pub fn hearing(&self, instance: &InstanceId) -> Arc<Hearing> {
        lock(&self.hearings).entry(instance.clone()).or_default().clone()
    }

    /// When the instance's agent last said something, if it did since the start.
    pub fn heard_at(&self, instance: &InstanceId) -> Option<Timestamp> {
        let heard = lock(&self.hearings).get(instance)?.at.load(Ordering::Relaxed);
        (heard != 0).then_some(Timestamp(heard))
    }

    /// How far the clock of the instance's agent is ahead of ours, if it has spoken since the start.
    pub fn skew_of(&self, instance: &InstanceId) -> Option<Millis> {
        let hearings = lock(&self.hearings);
        let hearing = hearings.get(instance).filter(|h| h.at.load(Ordering::Relaxed) != 0)?;
        Some(hearing.skew_ms.load(Ordering::Relaxed))
    }

    pub fn forget_instance(&self, instance: &InstanceId) {
        lock(&self.hearings).remove(instance);
    }

    /// Once a second: what is stale goes, and each cluster's utilization is one sample over all of its agents, the newest of each
    /// task, so that neither an agent's jitter nor its clock makes a dent. What came during the second before describes the one
    /// before that.
    fn each_second(&self, now: Timestamp) {
        let (second, before) = (now.floor(1000), self.clusters_put.load(Ordering::Relaxed));
        if second.0 <= before && now.since(Timestamp(before)) > -STALE_MS {
            return;
        }
        // Of several agents in one moment, one does it.
        if self.clusters_put.compare_exchange(before, second.0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let mut sums: HashMap<*const Group, ClusterSum> = HashMap::new();
        for lane in &self.lanes {
            let mut lane = lock(lane);
            lane.retain(|_, task| {
                task.containers.retain(|container| now.since(container.received) <= STALE_MS);
                now.since(task.received) <= STALE_MS
            });
            for task in lane.values() {
                sums.entry(Arc::as_ptr(&task.cluster)).or_insert_with(|| ClusterSum::new(task)).add(task);
            }
        }
        lock(&self.groups).retain(|_, group| Arc::strong_count(group) > 1 || group.holds());
        let (at, mut put) = (second - 2000, Put::new());
        for sum in sums.into_values() {
            let (cpu, memory) = sum.group.utilization();
            let used = sum.cpu_known.then(|| percent(sum.cpu, sum.facts.cluster_cpu_registered as f64)).flatten();
            add(&mut put, cpu, at, used);
            add(&mut put, memory, at, percent(sum.memory, sum.facts.cluster_memory_registered as f64 * MIB));
        }
        self.put(put);
    }

    fn task<'a>(&self, lane: &'a mut Lane, id: &Arc<str>, facts: Arc<TaskFacts>) -> &'a mut Task {
        let same_series = |task: &Task| {
            Arc::ptr_eq(&task.facts, &facts)
                || (&task.facts.cluster, &task.facts.service, &task.facts.family)
                    == (&facts.cluster, &facts.service, &facts.family)
        };
        if lane.get(id).is_some_and(|task| !same_series(task)) {
            lane.remove(id);
        }
        let task = lane.entry(id.clone()).or_insert_with(|| Task {
            cluster: self.group(&facts.cluster, None),
            service: facts.service.as_ref().map(|service| self.group(&facts.cluster, Some(service))),
            utilization: Utilization::new(&self.store, &dimensions(&facts, id)),
            containers: Vec::new(),
            received: Timestamp::ZERO,
            cpu_units: None,
            memory_bytes: 0.0,
            facts: facts.clone(),
        });
        task.facts = facts;
        task
    }

    fn group(&self, cluster: &ClusterName, service: Option<&ServiceName>) -> Arc<Group> {
        let new = || Arc::new(Group::new(&self.store, cluster, service));
        lock(&self.groups).entry((cluster.clone(), service.cloned())).or_insert_with(new).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lane_of(instance: &InstanceId) -> usize {
    let mut hasher = DefaultHasher::new();
    instance.hash(&mut hasher);
    hasher.finish() as usize % LANES
}

struct ClusterSum {
    group: Arc<Group>,
    /// Of the task that was measured last: what is registered changes.
    facts: Arc<TaskFacts>,
    received: Timestamp,
    cpu: f64,
    memory: f64,
    cpu_known: bool,
}

impl ClusterSum {
    fn new(task: &Task) -> ClusterSum {
        let (group, facts) = (task.cluster.clone(), task.facts.clone());
        ClusterSum { group, facts, received: task.received, cpu: 0.0, memory: 0.0, cpu_known: false }
    }

    fn add(&mut self, task: &Task) {
        self.cpu += task.cpu_units.unwrap_or(0.0);
        self.memory += task.memory_bytes;
        self.cpu_known |= task.cpu_units.is_some();
        if task.received > self.received {
            (self.facts, self.received) = (task.facts.clone(), task.received);
        }
    }
}

/// What a task's containers used together over one pass. None: not known yet.
#[derive(Default)]
struct Totals {
    cpu_units: Option<f64>,
    memory_bytes: f64,
    network: Option<(f64, f64)>,
    storage: Option<(f64, f64)>,
}

impl Task {
    /// Containers that are new in this batch get their series; they have no rate before their second sample.
    fn admit(&mut self, store: &MetricStore, samples: &[&Arc<UsageSample>], at: Timestamp, now: Timestamp) {
        self.received = now;
        for sample in samples {
            if self.containers.iter().all(|c| c.sample.container != sample.container) {
                let mut dimensions = dimensions(&self.facts, &sample.task);
                dimensions.push(("ContainerName", &sample.container));
                let utilization = Utilization::new(store, &dimensions);
                let first = Arc::new(UsageSample { container: sample.container.clone(), ..UsageSample::default() });
                self.containers.push(Container { utilization, sample: first, at, received: now });
            }
        }
    }

    fn measure(&mut self, samples: &[&Arc<UsageSample>], pass: Timestamp, now: Timestamp, put: &mut Put) -> Totals {
        let at = bucket(pass);
        let (cpu_capacity, memory_capacity) = (self.cpu_capacity(), self.memory_capacity());
        let mut totals = Totals::default();
        for sample in samples {
            let Some(container) = self.containers.iter_mut().find(|c| c.sample.container == sample.container) else { continue };
            let memory = sample.memory_bytes as f64;
            totals.memory_bytes += memory;
            // A container is measured against its own hard limit where it has one.
            let limit = if sample.memory_limit_bytes > 0 { sample.memory_limit_bytes as f64 } else { memory_capacity };
            add(put, &container.utilization.memory, at, percent(memory, limit));
            if sample.interval_ms > 0 {
                let units = sample.cpu_cores * CPU_UNITS;
                *totals.cpu_units.get_or_insert(0.0) += units;
                add(put, &container.utilization.cpu, at, percent(units, cpu_capacity));
                let before = &container.sample;
                // Another runtime id is another container: its totals began anew.
                if before.runtime_id == sample.runtime_id {
                    totals.add_rates(before, sample);
                }
            }
            container.sample = Arc::clone(sample);
            (container.at, container.received) = (pass, now);
        }
        (self.cpu_units, self.memory_bytes) = (totals.cpu_units.or(self.cpu_units), totals.memory_bytes);
        totals
    }

    fn put(&self, totals: &Totals, at: Timestamp, put: &mut Put, touched: &mut Vec<Arc<Group>>) {
        let cpu = totals.cpu_units.and_then(|units| percent(units, self.cpu_capacity()));
        let memory = percent(totals.memory_bytes, self.memory_capacity());
        add(put, &self.utilization.cpu, at, cpu);
        add(put, &self.utilization.memory, at, memory);
        let row: Row = [
            cpu,
            memory,
            totals.cpu_units,
            // Container Insights: reserved falls back to the instance's capacity when the task definition has none.
            Some(self.cpu_capacity()),
            Some(totals.memory_bytes / MIB),
            Some(self.memory_capacity() / MIB),
            totals.network.map(|n| n.0),
            totals.network.map(|n| n.1),
            totals.storage.map(|s| s.0),
            totals.storage.map(|s| s.1),
        ];
        for group in std::iter::once(&self.cluster).chain(&self.service) {
            group.offer(at, row);
            if !touched.iter().any(|known| Arc::ptr_eq(known, group)) {
                touched.push(group.clone());
            }
        }
    }

    /// Utilization is of what the task reserved; where it reserved nothing, of what the cluster has, as there is no smaller
    /// promise to measure it by.
    fn cpu_capacity(&self) -> f64 {
        match self.facts.cpu_reserved {
            0 => self.facts.cluster_cpu_registered as f64,
            reserved => reserved as f64,
        }
    }

    fn memory_capacity(&self) -> f64 {
        MIB * match self.facts.memory_reserved_mib {
            0 => self.facts.cluster_memory_registered as f64,
            reserved => reserved as f64,
        }
    }
}

impl Totals {
    fn add_rates(&mut self, before: &UsageSample, sample: &UsageSample) {
        let gained = |total: u64, earlier: u64| total.saturating_sub(earlier) as f64;
        let storage = self.storage.get_or_insert((0.0, 0.0));
        storage.0 += gained(sample.block_read_bytes, before.block_read_bytes);
        storage.1 += gained(sample.block_write_bytes, before.block_write_bytes);
        if let (Some(earlier), Some(total)) = (&before.network, &sample.network) {
            let per_second = 1000.0 / sample.interval_ms as f64;
            let rate = |of: fn(&NetworkTotals) -> u64| gained(of(total), of(earlier)) * per_second;
            let network = self.network.get_or_insert((0.0, 0.0));
            network.0 += rate(|n| n.receive_bytes);
            network.1 += rate(|n| n.transmit_bytes);
        }
    }
}

impl Utilization {
    fn new(store: &MetricStore, dimensions: &[(&str, &str)]) -> Utilization {
        let series = |name| store.series(&MetricKey::new("AWS/ECS", name, dimensions.iter().copied()), "Percent");
        Utilization { cpu: series("CPUUtilization"), memory: series("MemoryUtilization") }
    }
}

fn dimensions<'a>(facts: &'a TaskFacts, task: &'a str) -> Vec<(&'static str, &'a str)> {
    let owner = match &facts.service {
        Some(service) => ("ServiceName", service.as_str()),
        None => ("TaskDefinitionFamily", &*facts.family),
    };
    vec![("ClusterName", facts.cluster.as_str()), owner, ("TaskId", task)]
}

/// The second that ended before the pass.
fn bucket(pass: Timestamp) -> Timestamp {
    pass.floor(1000) - 1000
}

fn percent(used: f64, capacity: f64) -> Option<f64> {
    (capacity > 0.0).then(|| used / capacity * 100.0)
}

fn add(put: &mut Put, series: &Option<Arc<Series>>, at: Timestamp, value: Option<f64>) {
    if let (Some(series), Some(value)) = (series, value) {
        put.push((series.clone(), at, Observed::Value(value)));
    }
}
