//! What many tasks say of the service or the cluster that they belong to: a sample from each task, put together for a moment where
//! many agents speak, so that the store has one merge for hundreds of samples.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{Put, Utilization, lock};
use crate::model::metric::{MetricKey, Observed};
use crate::model::{ClusterName, Millis, ServiceName, Timestamp};
use crate::telemetry::metrics::{MetricStore, Series};

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

/// One task's second: CPU and memory utilization, then [`INSIGHTS`].
pub(super) type Row = [Option<f64>; 2 + INSIGHTS.len()];

pub(super) type Groups = HashMap<(ClusterName, Option<ServiceName>), Arc<Group>>;

/// In one window, so many batches are put as they come; what more of them say waits for its end.
const AT_ONCE: u32 = 4;
const WINDOW_MS: Millis = 100;

/// The series of a cluster or of a service.
pub(super) struct Group {
    utilization: Utilization,
    insights: [Option<Arc<Series>>; INSIGHTS.len()],
    /// A cluster's own is no mean over tasks.
    is_cluster: bool,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Since when, and how many batches since then.
    window: Timestamp,
    batches: u32,
    rows: Vec<(Timestamp, Row)>,
}

impl Group {
    pub fn new(store: &MetricStore, cluster: &ClusterName, service: Option<&ServiceName>) -> Group {
        let mut dimensions = vec![("ClusterName", cluster.as_str())];
        dimensions.extend(service.map(|service| ("ServiceName", service.as_str())));
        let insight =
            |(name, unit)| store.series(&MetricKey::new("ECS/ContainerInsights", name, dimensions.iter().copied()), unit);
        Group {
            utilization: Utilization::new(store, &dimensions),
            insights: INSIGHTS.map(insight),
            is_cluster: service.is_none(),
            held: Mutex::default(),
        }
    }

    pub fn utilization(&self) -> (&Option<Arc<Series>>, &Option<Arc<Series>>) {
        (&self.utilization.cpu, &self.utilization.memory)
    }

    pub fn offer(&self, at: Timestamp, row: Row) {
        lock(&self.held).rows.push((at, row));
    }

    pub fn holds(&self) -> bool {
        !lock(&self.held).rows.is_empty()
    }

    /// A batch has offered what it has. True: it is held back.
    pub fn settle(&self, now: Timestamp, put: &mut Put) -> bool {
        let mut held = lock(&self.held);
        if !(0..WINDOW_MS).contains(&now.since(held.window)) {
            (held.window, held.batches) = (now, 0);
        }
        held.batches += 1;
        if held.batches > AT_ONCE {
            return !held.rows.is_empty();
        }
        self.write(std::mem::take(&mut held.rows), put);
        false
    }

    pub fn drain(&self, put: &mut Put) {
        self.write(std::mem::take(&mut lock(&self.held).rows), put);
    }

    fn write(&self, mut rows: Vec<(Timestamp, Row)>, put: &mut Put) {
        rows.sort_by_key(|(at, _)| *at);
        let (cpu, memory) = self.utilization();
        for rows in rows.chunk_by(|a, b| a.0 == b.0) {
            let of_tasks = [cpu, memory].into_iter().chain(&self.insights).enumerate();
            for (n, series) in of_tasks.skip(if self.is_cluster { 2 } else { 0 }) {
                let values = distinct(rows.iter().filter_map(|(_, row)| row[n]));
                if let (Some(series), Some(values)) = (series, values) {
                    put.push((series.clone(), rows[0].0, values));
                }
            }
        }
    }
}

/// Values with how often each came in a row: what is reserved, and what is idle, is the same for most tasks.
fn distinct(values: impl Iterator<Item = f64>) -> Option<Observed> {
    let mut found: Vec<(f64, f64)> = Vec::new();
    for value in values {
        match found.last_mut() {
            Some((last, count)) if *last == value => *count += 1.0,
            _ => found.push((value, 1.0)),
        }
    }
    match found.as_slice() {
        [] => None,
        [(value, 1.0)] => Some(Observed::Value(*value)),
        _ => Some(Observed::Values(found)),
    }
}
