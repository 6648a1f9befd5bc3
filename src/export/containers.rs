//! What containers use, under cAdvisor's names and labels, and how they stand, as `beaufort_container_*`.

use super::families::{Kind, Page, labels};
use crate::api::App;
use crate::decide::task::has_health_check;
use crate::model::link::UsageSample;
use crate::model::task::{Container, Task};
use crate::store::State;
use crate::telemetry::ingest::Latest;

type Read = fn(&UsageSample) -> f64;

/// Seconds from nanoseconds.
fn s(ns: u64) -> f64 {
    ns as f64 / 1e9
}

const CONTAINER_COUNTERS: &[(&str, &str, Read)] = &[
    ("container_cpu_usage_seconds_total", "CPU time used.", |u| s(u.cpu_total_ns)),
    ("container_cpu_user_seconds_total", "CPU time used in user mode.", |u| s(u.cpu_user_ns)),
    ("container_cpu_system_seconds_total", "CPU time used in the kernel.", |u| s(u.cpu_system_ns)),
    ("container_cpu_cfs_periods_total", "Periods in which the container could run.", |u| u.periods as f64),
    ("container_cpu_cfs_throttled_periods_total", "Periods in which it was throttled.", |u| u.throttled_periods as f64),
    ("container_cpu_cfs_throttled_seconds_total", "Time it was throttled.", |u| s(u.throttled_ns)),
    ("container_fs_reads_bytes_total", "Bytes read from block devices.", |u| u.block_read_bytes as f64),
    ("container_fs_writes_bytes_total", "Bytes written to block devices.", |u| u.block_write_bytes as f64),
    ("container_oom_events_total", "Times the kernel killed it for memory.", |u| u.oom_events as f64),
];

const CONTAINER_GAUGES: &[(&str, &str, Read)] = &[
    ("container_memory_usage_bytes", "Memory used, page cache included.", |u| u.memory_usage_bytes as f64),
    ("container_memory_working_set_bytes", "Memory used without inactive page cache.", |u| u.memory_working_set_bytes as f64),
    ("container_memory_rss", "Anonymous memory.", |u| u.memory_rss_bytes as f64),
    ("container_memory_cache", "Page cache.", |u| u.memory_cache_bytes as f64),
    ("container_spec_memory_limit_bytes", "Memory limit, 0 for none.", |u| u.memory_limit_bytes as f64),
    ("container_processes", "Processes.", |u| u.processes as f64),
];

pub fn write(page: &mut Page, app: &App, state: &State) {
    let latest = app.ingest.latest();
    let rows: Vec<(String, &Latest)> = latest.iter().map(|l| (container_labels(state, l), l)).collect();
    for (name, help, read) in CONTAINER_COUNTERS {
        page.family(name, Kind::Counter, help, rows.iter().map(|(labels, l)| (labels, read(&l.sample))));
    }
    for (name, help, read) in CONTAINER_GAUGES {
        page.family(name, Kind::Gauge, help, rows.iter().map(|(labels, l)| (labels, read(&l.sample))));
    }
    page.family(
        "container_last_seen",
        Kind::Gauge,
        "When it was last measured.",
        rows.iter().map(|(labels, l)| (labels, l.at.seconds())),
    );
    page.family(
        "container_spec_cpu_shares",
        Kind::Gauge,
        "CPU units reserved by its task.",
        rows.iter().map(|(labels, l)| (labels, f64::from(l.facts.cpu_reserved))),
    );
    // Of a container that was measured: its start is its host's word, which the state keeps.
    let started = |l: &Latest| container_of(state, l).and_then(|c| c.started_at);
    page.family(
        "container_start_time_seconds",
        Kind::Gauge,
        "When its process started.",
        rows.iter().filter_map(|(labels, l)| Some((labels, started(l)?.seconds()))),
    );
    type Net = fn(&crate::model::link::NetworkTotals) -> u64;
    let network: [(&str, &str, Net); 8] = [
        ("container_network_receive_bytes_total", "Bytes received.", |n| n.receive_bytes),
        ("container_network_receive_packets_total", "Packets received.", |n| n.receive_packets),
        ("container_network_receive_errors_total", "Errors while receiving.", |n| n.receive_errors),
        ("container_network_receive_packets_dropped_total", "Packets dropped while receiving.", |n| n.receive_dropped),
        ("container_network_transmit_bytes_total", "Bytes sent.", |n| n.transmit_bytes),
        ("container_network_transmit_packets_total", "Packets sent.", |n| n.transmit_packets),
        ("container_network_transmit_errors_total", "Errors while sending.", |n| n.transmit_errors),
        ("container_network_transmit_packets_dropped_total", "Packets dropped while sending.", |n| n.transmit_dropped),
    ];
    // Counters of the whole network namespace: only the one container that stands for it has them.
    let networked: Vec<(String, _)> =
        rows.iter().filter_map(|(l, latest)| Some((format!("{l},interface=\"all\""), latest.sample.network?))).collect();
    for (name, help, read) in network {
        page.family(name, Kind::Counter, help, networked.iter().map(|(labels, n)| (labels, read(n) as f64)));
    }
    standing(page, state);
}

/// How the containers of tasks that have not stopped stand, whether they were measured or not.
fn standing(page: &mut Page, state: &State) {
    let live = state.tasks.values().filter(|task| !task.is_stopped());
    let rows: Vec<(String, &Task, &Container)> = live
        .flat_map(|task| task.containers.iter().map(move |container| (task, container)))
        .map(|(task, container)| {
            let pairs = [
                ("cluster", task.cluster.as_str()),
                ("service", task.service.as_ref().map_or("", |s| s.as_str())),
                ("task", task.id.as_str()),
                ("container", container.name.as_str()),
            ];
            (labels(pairs), &**task, container)
        })
        .collect();
    page.family(
        "beaufort_container_restarts",
        Kind::Gauge,
        "Times that its restart policy has started it again.",
        rows.iter().map(|(labels, _, c)| (labels, f64::from(c.restart_count))),
    );
    let checked = |task: &Task, container: &Container| {
        let definition = state.definitions.get(&task.definition);
        has_health_check(definition.and_then(|d| d.container(container.name.as_str())))
    };
    page.family(
        "beaufort_container_health",
        Kind::Gauge,
        "1, with the state of health that it is in; only containers with a health check.",
        rows.iter().filter(|(_, task, container)| checked(task, container)).map(|(labels, _, container)| {
            // One series and not three: a thousand tasks would otherwise pass what a scrape should cost.
            (format!("{labels},state=\"{}\"", container.health.as_str()), 1.0)
        }),
    );
}

fn container_of<'a>(state: &'a State, latest: &Latest) -> Option<&'a Container> {
    let task = state.tasks.get(&*latest.sample.task)?;
    task.containers.iter().find(|c| c.name.as_str() == &*latest.sample.container)
}

fn container_labels(state: &State, latest: &Latest) -> String {
    let (facts, sample) = (&latest.facts, &latest.sample);
    let task = state.tasks.get(&*sample.task);
    let image = task.and_then(|t| t.containers.iter().find(|c| c.name.as_str() == &*sample.container)).map_or("", |c| &*c.image);
    let zone = task.and_then(|t| state.instances.get(&t.instance)).map_or("", |i| i.zone());
    let revision = task.map(|t| t.definition.revision.to_string()).unwrap_or_default();
    labels([
        ("id", format!("/docker/{}", sample.runtime_id).as_str()),
        ("name", &sample.runtime_name),
        ("image", image),
        ("cluster", facts.cluster.as_str()),
        ("service", facts.service.as_ref().map_or("", |s| s.as_str())),
        ("family", &facts.family),
        ("revision", &revision),
        ("task", &sample.task),
        ("container", &sample.container),
        ("zone", zone),
    ])
}
