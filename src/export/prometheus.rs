//! `/metrics`: containers under cAdvisor's names and labels, services, deployments, scaling, instances, alarms and ourselves as
//! `beaufort_*`. One file for each subject; this one puts them together, and has alarms and ourselves.

use super::families::{Kind, Page, labels};
use super::{containers, discovered, instances, process, services};
use crate::api::App;
use crate::model::service::ServiceStatus;
use crate::observe;
use crate::store::State;

pub fn render(app: &App) -> String {
    let state = app.store.snapshot();
    for service in state.services.values().filter(|s| s.status != ServiceStatus::Inactive) {
        observe::service_known(&service.key);
        let definition = service.primary().and_then(|d| state.definitions.get(&d.definition));
        for container in definition.iter().flat_map(|d| &d.containers) {
            observe::container_known(&service.key, &container.name);
        }
    }
    for policy in state.policies.values() {
        observe::policy_known(&policy.service, &policy.name);
    }
    let mut page = Page::default();
    containers::write(&mut page, app, &state);
    services::write(&mut page, app, &state);
    instances::write(&mut page, app, &state);
    discovered::write(&mut page, &state);
    alarms(&mut page, &state);
    ourselves(&mut page, app, &state);
    process::write(&mut page);
    page.text.push_str(&observe::render());
    page.text
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
                    ("source", if a.external.is_some() { "prometheus" } else { "cloudwatch" }),
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
    let failing = [("state", store.failing), ("metrics", metrics.degraded), ("logs", logs.failing)];
    page.family(
        "beaufort_write_failing",
        Kind::Gauge,
        "1 while what is told cannot be written to disk: it is answered from memory, and changes are refused.",
        failing.iter().map(|(what, failing)| (labels([("what", *what)]), f64::from(u8::from(*failing)))),
    );
    let errors = [
        ("state", store.failed_commits),
        ("metrics", metrics.wal_errors + metrics.checkpoint_errors),
        ("logs", logs.write_errors),
    ];
    page.family(
        "beaufort_write_errors_total",
        Kind::Counter,
        "Writes that the disk did not take; each is tried again or was refused to whoever asked.",
        errors.iter().map(|(what, n)| (labels([("what", *what)]), *n as f64)),
    );
    let damaged = [
        ("metrics", metrics.torn_bytes + metrics.damaged_bytes + metrics.damaged_chunks + metrics.damaged_parts),
        ("logs", logs.torn_bytes + logs.damaged_bytes + logs.read_errors),
    ];
    page.family(
        "beaufort_damage_total",
        Kind::Counter,
        "What was found damaged in the files: torn bytes at a start, and pieces that could not be read since. Our log names the files.",
        damaged.iter().map(|(what, n)| (labels([("what", *what)]), *n as f64)),
    );
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
    let dropped_events = [("lost", logs.lost_lines), ("refused", logs.refused_lines), ("rejected", logs.rejected_events)];
    page.family(
        "beaufort_log_dropped_events_total",
        Kind::Counter,
        "Log events not stored: lost before they were read, refused by the store (the agent says them again), rejected for their time.",
        dropped_events.iter().map(|(reason, n)| (labels([("reason", *reason)]), *n as f64)),
    );
    page.family("beaufort_metric_series", Kind::Gauge, "Series that the metrics store knows.", [("", metrics.series as f64)]);
    let metric_bytes = (metrics.part_bytes + metrics.wal_bytes) as f64;
    page.family(
        "beaufort_metric_bytes",
        Kind::Gauge,
        "Bytes of metrics at rest, the write-ahead log included.",
        [("", metric_bytes)],
    );
    let log_bytes = (logs.segment_bytes + logs.wal_bytes) as f64;
    page.family(
        "beaufort_log_stored_bytes",
        Kind::Gauge,
        "Bytes of logs at rest, the write-ahead log included.",
        [("", log_bytes)],
    );
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
