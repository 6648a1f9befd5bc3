//! Usage batches in, `AWS/ECS` and `ECS/ContainerInsights` metrics out: per cluster, service, task and container.
//!
//! Also keeps each container's newest sample, for the Prometheus exporter and `top`, and when each instance was last heard.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::metrics::{MetricStore, Series};
use crate::model::link::{NetworkTotals, UsageBatch, UsageSample};
use crate::model::metric::{MetricKey, StatisticSet};
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
    state: Mutex<State>,
    unknown: AtomicU64,
    /// One entry for each instance since the start, until it is forgotten.
    heard: Mutex<HashMap<InstanceId, Timestamp>>,
}

#[derive(Default)]
struct State {
    tasks: HashMap<String, Task>,
    groups: HashMap<(ClusterName, Option<ServiceName>), Arc<Group>>,
    /// The second of our clock in which the clusters' utilization was last put.
    clusters_put: Timestamp,
}

/// One task, with its series resolved, so that a second costs no work with strings.
struct Task {
    facts: Arc<TaskFacts>,
    utilization: Utilization,
    cluster: Arc<Group>,
    service: Option<Arc<Group>>,
    containers: HashMap<String, Container>,
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

/// The series of a cluster or of a service.
struct Group {
    utilization: Utilization,
    insights: [Option<Arc<Series>>; INSIGHTS.len()],
}

/// Container Insights' standard metrics by cluster and by service, with their units.
const INSIGHTS: [(&str, &str); 8] = [
    ("CpuUtilized", "None"),
    ("CpuReserved", "None"),
    ("MemoryUtilized", "Megabytes"),
    ("MemoryReserved", "Megabytes"),
    ("NetworkRxBytes", "Bytes/Second"),
    ("NetworkTxBytes", "Bytes/Second"),
    ("StorageReadBytes", "Bytes"),
    ("StorageWriteBytes", "Bytes"),
];

/// Without a sample for this long a container counts as gone.
const STALE_MS: Millis = 5_000;
const CPU_UNITS: f64 = 1024.0;
const MIB: f64 = 1_048_576.0;

type Put = Vec<(Arc<Series>, Timestamp, StatisticSet)>;

impl Ingest {
    pub fn new(store: Arc<MetricStore>) -> Ingest {
        Ingest { store, state: Mutex::default(), unknown: AtomicU64::new(0), heard: Mutex::default() }
    }

    /// Puts one pass of one agent. The samples describe the time since the pass before, which is the second that just ended, so
    /// their bucket starts one second before the one in which the pass was made: a bucket never holds what happened after it.
    ///
    /// A service's metrics get one sample from each task, so that several agents' batches for one second merge, the SampleCount
    /// of one second is the number of running tasks, and percentiles over tasks are known.
    pub fn usage(&self, batch: &UsageBatch, lookup: &dyn Fn(&str) -> Option<TaskFacts>) {
        let now = self.store.clock().now();
        let at = bucket(batch.at);
        let mut state = self.state();
        let mut put = Put::with_capacity(batch.samples.len() * 12);
        state.forget_stale(now);
        state.put_clusters(now, &mut put);

        let mut by_task: HashMap<&str, Vec<&UsageSample>> = HashMap::new();
        for sample in &batch.samples {
            by_task.entry(&sample.task).or_default().push(sample);
        }
        for (id, samples) in by_task {
            let Some(facts) = lookup(id) else {
                state.tasks.remove(id);
                self.unknown.fetch_add(samples.len() as u64, Ordering::Relaxed);
                continue;
            };
            let task = state.task(&self.store, id, facts);
            task.admit(&self.store, id, &samples, batch.at, now);
            let totals = task.measure(&samples, batch.at, now, &mut put);
            task.put(&totals, at, &mut put);
        }
        // What is for one series becomes visible at once, as the store puts it under one lock.
        put.sort_by_key(|(series, ..)| series.number());
        if self.store.put_resolved(&put).refused_series_limit > 0 {
            // The store was reset: these handles are dead, and the next batch makes new ones.
            *state = State::default();
        }
    }

    /// Every container with a sample in the last 5 seconds.
    pub fn latest(&self) -> Vec<Latest> {
        let now = self.store.clock().now();
        let state = self.state();
        let mut latest: Vec<Latest> = state
            .tasks
            .values()
            .flat_map(|task| task.containers.values().map(move |container| (task, container)))
            .filter(|(_, container)| now.since(container.received) <= STALE_MS)
            .map(|(task, c)| Latest { facts: task.facts.clone(), sample: c.sample.clone(), at: c.at })
            .collect();
        latest.sort_by(|a, b| (&a.sample.task, &a.sample.container).cmp(&(&b.sample.task, &b.sample.container)));
        latest
    }

    /// Samples of tasks that the control plane does not know (any more).
    pub fn unknown_samples(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// An agent has said something.
    pub fn heard(&self, instance: &InstanceId, now: Timestamp) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.get_mut(instance) {
            Some(at) => *at = now,
            None => drop(heard.insert(instance.clone(), now)),
        }
    }

    /// When the instance's agent last said something, if it did since the start.
    pub fn heard_at(&self, instance: &InstanceId) -> Option<Timestamp> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(instance).copied()
    }

    pub fn forget_instance(&self, instance: &InstanceId) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_stale(&mut self, now: Timestamp) {
        for task in self.tasks.values_mut() {
            task.containers.retain(|_, container| now.since(container.received) <= STALE_MS);
        }
        self.tasks.retain(|_, task| now.since(task.received) <= STALE_MS);
        self.groups.retain(|_, group| Arc::strong_count(group) > 1);
    }

    /// A cluster's utilization is one sample a second over all of its agents: the newest of each task, so that neither an agent's
    /// jitter nor its clock makes a dent. What came during the second before describes the one before that.
    fn put_clusters(&mut self, now: Timestamp, put: &mut Put) {
        let second = now.floor(1000);
        if second <= self.clusters_put && now.since(self.clusters_put) > -STALE_MS {
            return;
        }
        self.clusters_put = second;
        let mut sums: HashMap<*const Group, (&Task, f64, f64, bool)> = HashMap::new();
        for task in self.tasks.values() {
            let (newest, cpu, memory, cpu_known) = sums.entry(Arc::as_ptr(&task.cluster)).or_insert((task, 0.0, 0.0, false));
            *cpu += task.cpu_units.unwrap_or(0.0);
            *memory += task.memory_bytes;
            *cpu_known |= task.cpu_units.is_some();
            if task.received > newest.received {
                *newest = task;
            }
        }
        let at = second - 2000;
        for (task, cpu, memory, cpu_known) in sums.into_values() {
            let series = &task.cluster.utilization;
            let cpu = cpu_known.then(|| percent(cpu, task.facts.cluster_cpu_registered as f64)).flatten();
            add(put, &series.cpu, at, cpu);
            add(put, &series.memory, at, percent(memory, task.facts.cluster_memory_registered as f64 * MIB));
        }
    }

    fn task(&mut self, store: &MetricStore, id: &str, facts: TaskFacts) -> &mut Task {
        let State { tasks, groups, .. } = self;
        let same_series = |task: &Task| {
            (&task.facts.cluster, &task.facts.service, &task.facts.family) == (&facts.cluster, &facts.service, &facts.family)
        };
        if tasks.get(id).is_some_and(|task| !same_series(task)) {
            tasks.remove(id);
        }
        match tasks.entry(id.to_string()) {
            Entry::Occupied(known) => {
                let task = known.into_mut();
                if *task.facts != facts {
                    task.facts = Arc::new(facts);
                }
                task
            }
            Entry::Vacant(new) => {
                let mut group = |service: Option<&ServiceName>| {
                    let key = (facts.cluster.clone(), service.cloned());
                    groups.entry(key).or_insert_with(|| Arc::new(Group::new(store, &facts.cluster, service))).clone()
                };
                new.insert(Task {
                    cluster: group(None),
                    service: facts.service.as_ref().map(|service| group(Some(service))),
                    utilization: Utilization::new(store, &dimensions(&facts, id)),
                    containers: HashMap::new(),
                    received: Timestamp::ZERO,
                    cpu_units: None,
                    memory_bytes: 0.0,
                    facts: Arc::new(facts),
                })
            }
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
    fn admit(&mut self, store: &MetricStore, id: &str, samples: &[&UsageSample], at: Timestamp, now: Timestamp) {
        self.received = now;
        for sample in samples {
            if !self.containers.contains_key(&sample.container) {
                let mut dimensions = dimensions(&self.facts, id);
                dimensions.push(("ContainerName", &sample.container));
                let utilization = Utilization::new(store, &dimensions);
                let first = Arc::new(UsageSample { runtime_id: String::new(), ..UsageSample::default() });
                self.containers.insert(sample.container.clone(), Container { utilization, sample: first, at, received: now });
            }
        }
    }

    fn measure(&mut self, samples: &[&UsageSample], pass: Timestamp, now: Timestamp, put: &mut Put) -> Totals {
        let at = bucket(pass);
        let (cpu_capacity, memory_capacity) = (self.cpu_capacity(), self.memory_capacity());
        let mut totals = Totals::default();
        for sample in samples {
            let Some(container) = self.containers.get_mut(&sample.container) else { continue };
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
            container.sample = Arc::new(UsageSample::clone(sample));
            (container.at, container.received) = (pass, now);
        }
        (self.cpu_units, self.memory_bytes) = (totals.cpu_units.or(self.cpu_units), totals.memory_bytes);
        totals
    }

    fn put(&self, totals: &Totals, at: Timestamp, put: &mut Put) {
        let cpu = totals.cpu_units.and_then(|units| percent(units, self.cpu_capacity()));
        let memory = percent(totals.memory_bytes, self.memory_capacity());
        for series in std::iter::once(&self.utilization).chain(self.service.iter().map(|s| &s.utilization)) {
            add(put, &series.cpu, at, cpu);
            add(put, &series.memory, at, memory);
        }
        let insights = [
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
            for (series, value) in group.insights.iter().zip(insights) {
                add(put, series, at, value);
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

impl Group {
    fn new(store: &MetricStore, cluster: &ClusterName, service: Option<&ServiceName>) -> Group {
        let mut dimensions = vec![("ClusterName", cluster.as_str())];
        dimensions.extend(service.map(|service| ("ServiceName", service.as_str())));
        let insight =
            |(name, unit)| store.series(&MetricKey::new("ECS/ContainerInsights", name, dimensions.iter().copied()), unit);
        Group { utilization: Utilization::new(store, &dimensions), insights: INSIGHTS.map(insight) }
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
        put.push((series.clone(), at, StatisticSet::of(value)));
    }
}
