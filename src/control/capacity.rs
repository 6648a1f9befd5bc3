//! Writes down what each service has, once a second: Container Insights' DesiredTaskCount, RunningTaskCount and PendingTaskCount,
//! with the retention of every metric. What a back-test compares its own curve with.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Control;
use crate::model::metric::{MetricKey, StatisticSet};
use crate::model::service::{Service, ServiceStatus};
use crate::model::{Millis, ServiceKey, Timestamp};
use crate::store::State;
use crate::telemetry::metrics::{MetricStore, Series};

const SECOND: Millis = 1_000;
const NAMES: [&str; 3] = ["DesiredTaskCount", "RunningTaskCount", "PendingTaskCount"];

type OfService = [Option<Arc<Series>>; NAMES.len()];

pub async fn run(control: Arc<Control>, stop: CancellationToken) {
    let (mut known, mut next) = (BTreeMap::new(), control.clock.now().floor(SECOND) + SECOND);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = super::until(&control.clock, super::alive(&control, "capacity", Some(next))) => {}
        }
        let now = control.clock.now();
        // A clock that was set back must not end the record until it has caught up.
        if now < next && next.since(now) <= SECOND {
            continue;
        }
        put(&control.metrics, &mut known, &control.store.snapshot(), now.floor(SECOND));
        next = now.floor(SECOND) + SECOND;
    }
}

fn put(metrics: &MetricStore, known: &mut BTreeMap<ServiceKey, OfService>, state: &State, at: Timestamp) {
    known.retain(|key, _| state.services.get(key).is_some_and(|service| counts(service)));
    let mut put = Vec::with_capacity(known.len() * NAMES.len());
    for (key, service) in state.services.iter().filter(|(_, service)| counts(service)) {
        let series = known.entry(key.clone()).or_insert_with(|| NAMES.map(|name| series(metrics, key, name)));
        let now = state.counts(key);
        for (series, value) in series.iter().zip([service.desired_count, now.running, now.pending]) {
            put.extend(series.iter().map(|series| (series.clone(), at, StatisticSet::of(f64::from(value)))));
        }
    }
    put.sort_by_key(|(series, ..)| series.number());
    if metrics.put_resolved(&put).refused_series_limit > 0 {
        // The store was reset: these handles are dead, and the next second makes new ones.
        known.clear();
    }
}

fn counts(service: &Service) -> bool {
    service.status != ServiceStatus::Inactive
}

fn series(metrics: &MetricStore, key: &ServiceKey, name: &str) -> Option<Arc<Series>> {
    let dimensions = [("ClusterName", key.cluster.as_str()), ("ServiceName", key.service.as_str())];
    metrics.series(&MetricKey::new("ECS/ContainerInsights", name, dimensions), "Count")
}
