//! Container instances: whether they are heard, what they have and what of it is left.

use super::families::{Kind, Page, labels};
use crate::api::App;
use crate::model::instance::InstanceStatus;
use crate::store::State;

pub fn write(page: &mut Page, app: &App, state: &State) {
    let rows: Vec<_> = state
        .instances
        .values()
        // One that was deregistered is remembered for a while, and is nobody's trouble any more.
        .filter(|i| i.status != InstanceStatus::Inactive)
        .map(|i| {
            let pairs = [
                ("cluster", i.cluster.as_str()),
                ("container_instance", i.id.as_str()),
                ("zone", i.zone()),
                ("host", &i.host_name),
            ];
            (labels(pairs), i, state.load(&i.id))
        })
        .collect();
    let mib = |n: u32| f64::from(n) * 1_048_576.0;
    page.family(
        "beaufort_instance_connected",
        Kind::Gauge,
        "1 while the agent is connected.",
        rows.iter().map(|(l, i, _)| (l, f64::from(u8::from(i.agent_connected)))),
    );
    page.family(
        "beaufort_instance_last_heartbeat_timestamp_seconds",
        Kind::Gauge,
        "When the agent last said something; nothing for one that has not since the server's start.",
        rows.iter().filter_map(|(l, i, _)| Some((l, app.ingest.heard_at(&i.id)?.seconds()))),
    );
    page.family(
        "beaufort_instance_clock_skew_seconds",
        Kind::Gauge,
        "How far the clock of the agent's host is ahead of the server's; nothing for one that was not heard since the server's start.",
        rows.iter().filter_map(|(l, i, _)| Some((l, app.ingest.skew_of(&i.id)? as f64 / 1e3))),
    );
    page.family(
        "beaufort_instance_docker_up",
        Kind::Gauge,
        "1 while the agent reaches its Docker.",
        rows.iter().map(|(l, i, _)| (l, f64::from(u8::from(i.engine_away_since.is_none())))),
    );
    page.family(
        "beaufort_instance_tasks",
        Kind::Gauge,
        "Tasks that have not stopped.",
        rows.iter().map(|(l, _, load)| (l, f64::from(load.tasks))),
    );
    page.family(
        "beaufort_instance_registered_cpu_units",
        Kind::Gauge,
        "CPU units of the host.",
        rows.iter().map(|(l, i, _)| (l, f64::from(i.registered.cpu))),
    );
    page.family(
        "beaufort_instance_remaining_cpu_units",
        Kind::Gauge,
        "CPU units that no task has reserved.",
        rows.iter().map(|(l, i, load)| (l, f64::from(i.registered.cpu.saturating_sub(load.cpu)))),
    );
    page.family(
        "beaufort_instance_registered_memory_bytes",
        Kind::Gauge,
        "Memory of the host that tasks may reserve.",
        rows.iter().map(|(l, i, _)| (l, mib(i.registered.memory))),
    );
    page.family(
        "beaufort_instance_remaining_memory_bytes",
        Kind::Gauge,
        "Memory that no task has reserved.",
        rows.iter().map(|(l, i, load)| (l, mib(i.registered.memory.saturating_sub(load.memory)))),
    );
}
