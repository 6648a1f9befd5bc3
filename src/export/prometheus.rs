//! `/metrics`: containers under cAdvisor's names and labels, services, deployments, instances, alarms and ourselves as `beaufort_*`.

use std::sync::Arc;

use super::families::{Kind, Page, labels};
use crate::api::App;
use crate::model::link::UsageSample;
use crate::model::service::{Rollout, Service, ServiceStatus};
use crate::observe;
use crate::store::State;
use crate::telemetry::ingest::Latest;

pub fn render(app: &App) -> String {
    let state = app.store.snapshot();
    for service in state.services.values().filter(|s| s.status != ServiceStatus::Inactive) {
        observe::service_known(&service.key);
    }
    for policy in state.policies.values() {
        observe::policy_known(&policy.service, &policy.name);
    }
    let mut page = Page::default();
    containers(&mut page, app, &state);
    services(&mut page, &state);
    instances(&mut page, &state);
    alarms(&mut page, &state);
    ourselves(&mut page, app, &state);
    page.text.push_str(&observe::render());
    page.text
}

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

fn containers(page: &mut Page, app: &App, state: &State) {
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
}

fn container_labels(state: &State, latest: &Latest) -> String {
    let (facts, sample) = (&latest.facts, &latest.sample);
    let task = state.tasks.get(sample.task.as_str());
    let image =
        task.and_then(|t| t.containers.iter().find(|c| c.name.as_str() == sample.container)).map_or("", |c| c.image.as_str());
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

fn services(page: &mut Page, state: &State) {
    let live: Vec<(String, &Arc<Service>)> = state
        .services
        .values()
        .filter(|s| s.status != ServiceStatus::Inactive)
        .map(|s| (labels([("cluster", s.key.cluster.as_str()), ("service", s.key.service.as_str())]), s))
        .collect();
    let mut gauge = |name: &str, help: &str, read: &dyn Fn(&Service) -> Option<f64>| {
        page.family(name, Kind::Gauge, help, live.iter().filter_map(|(labels, s)| Some((labels, read(s)?))));
    };
    let count = |n: u32| Some(f64::from(n));
    gauge("beaufort_service_desired_tasks", "Tasks wanted.", &|s| count(s.desired_count));
    gauge("beaufort_service_running_tasks", "Tasks RUNNING.", &|s| count(state.counts(&s.key).running));
    gauge("beaufort_service_pending_tasks", "Tasks on their way to RUNNING.", &|s| count(state.counts(&s.key).pending));
    gauge("beaufort_service_stopping_tasks", "Tasks on their way to STOPPED.", &|s| count(state.counts(&s.key).stopping));
    gauge("beaufort_service_min_tasks", "Least capacity that scaling may set.", &|s| {
        Some(f64::from(state.targets.get(&s.key)?.min))
    });
    gauge("beaufort_service_max_tasks", "Most capacity that scaling may set.", &|s| {
        Some(f64::from(state.targets.get(&s.key)?.max))
    });
    gauge("beaufort_service_unplaceable_tasks", "Tasks wanted that neither run nor are on their way.", &|s| {
        let counts = state.counts(&s.key);
        count(s.desired_count.saturating_sub(counts.running + counts.pending))
    });
    gauge("beaufort_service_steady", "1 while the service is in its steady state.", &|s| Some(f64::from(u8::from(s.steady))));
    gauge("beaufort_deployment_in_progress", "1 while a deployment of the service goes on.", &|s| {
        Some(f64::from(u8::from(s.deployments.iter().any(|d| d.rollout == Rollout::InProgress) || s.deployments.len() > 1)))
    });
    gauge("beaufort_deployment_failed_tasks", "Tasks in a row of the newest deployment that did not reach RUNNING.", &|s| {
        Some(f64::from(s.primary()?.failed_tasks))
    });
    gauge("beaufort_deployment_last_progress_timestamp_seconds", "When the newest deployment last moved.", &|s| {
        Some(s.primary()?.updated_at.seconds())
    });
}

fn instances(page: &mut Page, state: &State) {
    let rows: Vec<_> = state
        .instances
        .values()
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

fn alarms(page: &mut Page, state: &State) {
    let rows: Vec<(String, &str)> = state
        .alarms
        .values()
        .map(|a| {
            let dimension = |name: &str| a.metric.dimension(name).unwrap_or("").to_owned();
            (
                labels([
                    ("alarm", a.name.as_str()),
                    ("cluster", &dimension("ClusterName")),
                    ("service", &dimension("ServiceName")),
                ]),
                a.state.as_str(),
            )
        })
        .collect();
    let states = ["OK", "ALARM", "INSUFFICIENT_DATA"];
    page.family(
        "beaufort_alarm_state",
        Kind::Gauge,
        "1 for the state that the alarm is in.",
        rows.iter().flat_map(|(labels, now)| {
            states.iter().map(move |state| (format!("{labels},state=\"{state}\""), f64::from(u8::from(now == state))))
        }),
    );
}

fn ourselves(page: &mut Page, app: &App, state: &State) {
    page.family(
        "beaufort_info",
        Kind::Gauge,
        "This Beaufort.",
        [(
            labels([
                ("version", env!("CARGO_PKG_VERSION")),
                ("installation", app.store.installation()),
                ("region", &app.home.region),
            ]),
            1.0,
        )],
    );
    let uptime = app.clock.now().since(app.started_at) as f64 / 1000.0;
    page.family("beaufort_uptime_seconds", Kind::Gauge, "Time since the start.", [("", uptime)]);
    let store = app.store.stats();
    page.family("beaufort_store_updates_total", Kind::Counter, "Changes asked of the state.", [("", store.updates as f64)]);
    page.family(
        "beaufort_store_commits_total",
        Kind::Counter,
        "Durable commits, each of one or more changes.",
        [("", store.commits as f64)],
    );
    page.family(
        "beaufort_store_failed_commits_total",
        Kind::Counter,
        "Commits that could not be made durable.",
        [("", store.failed_commits as f64)],
    );
    page.family("beaufort_store_commit_seconds_total", Kind::Counter, "Time spent on commits.", [("", store.commit_seconds)]);
    let (metrics, logs) = (app.metrics.stats(), app.logs.stats());
    let dropped = [
        ("usage_samples", app.ingest.unknown_samples()),
        ("metric_points", metrics.dropped_points + metrics.refused_series_limit),
        ("log_lines", logs.lost_lines + logs.refused_lines),
    ];
    page.family(
        "beaufort_dropped_total",
        Kind::Counter,
        "What was dropped because a bound was passed or nobody knew whose it was.",
        dropped.iter().map(|(what, n)| (labels([("what", *what)]), *n as f64)),
    );
    page.family("beaufort_log_events_total", Kind::Counter, "Log events stored.", [("", logs.events_stored as f64)]);
    let sizes = [
        ("tasks", state.tasks.len()),
        ("services", state.services.len()),
        ("task_definitions", state.definitions.len()),
        ("alarms", state.alarms.len()),
    ];
    page.family(
        "beaufort_state_rows",
        Kind::Gauge,
        "Things that the state holds.",
        sizes.iter().map(|(kind, n)| (labels([("kind", *kind)]), *n as f64)),
    );
}
