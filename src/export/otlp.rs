//! The gauges that leave by OTLP: how services stand and what containers use, read from the same places as `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::App;
use crate::model::service::ServiceStatus;
use crate::observe::otlp::Gauge;

/// Names and units, as the exporter must know them beforehand.
pub const GAUGES: &[(&str, &str)] = &[
    ("beaufort.service.desired_tasks", "{task}"),
    ("beaufort.service.running_tasks", "{task}"),
    ("beaufort.service.pending_tasks", "{task}"),
    ("container.cpu.usage", "{cpu}"),
    ("container.memory.usage", "By"),
];

pub fn gauges(app: &Arc<App>) -> Vec<Gauge> {
    let state = app.store.snapshot();
    let mut gauges = Vec::new();
    for service in state.services.values().filter(|s| s.status != ServiceStatus::Inactive) {
        let counts = state.counts(&service.key);
        let labels = BTreeMap::from([
            ("aws.ecs.cluster.name", service.key.cluster.to_string()),
            ("service.name", service.key.service.to_string()),
        ]);
        let values = [service.desired_count, counts.running, counts.pending];
        gauges.extend(GAUGES.iter().zip(values).map(|((name, unit), value)| Gauge {
            name,
            unit,
            value: value.into(),
            labels: labels.clone(),
        }));
    }
    for latest in app.ingest.latest() {
        let mut labels = BTreeMap::from([
            ("aws.ecs.cluster.name", latest.facts.cluster.to_string()),
            ("aws.ecs.task.family", latest.facts.family.to_string()),
            ("aws.ecs.task.id", latest.sample.task.to_string()),
            ("container.name", latest.sample.container.to_string()),
            ("container.id", latest.sample.runtime_id.to_string()),
        ]);
        labels.extend(latest.facts.service.as_ref().map(|s| ("service.name", s.to_string())));
        let values = [latest.sample.cpu_cores, latest.sample.memory_bytes as f64];
        gauges.extend(GAUGES[3..].iter().zip(values).map(|((name, unit), value)| Gauge {
            name,
            unit,
            value,
            labels: labels.clone(),
        }));
    }
    gauges
}
