//! Our own telemetry. Every observable moment is a function here that counts it, and logs or marks the span it happens in where a
//! person would want that. Owns the names `beaufort_*`; what containers and services do is exported by `export`.
//!
//! Metrics are an interface: every name starts at zero when Beaufort does, so that the first of anything is an increase.

mod counters;
pub mod otlp;
mod trace;

use std::time::Duration;

use crate::model::decision::ReasonCode;
use crate::model::scaling::Stage;
use crate::model::task::StopCode;
use crate::model::{ClusterName, Millis, ServiceKey, ServiceName, Timestamp};

pub use counters::render;
pub use trace::{call_span, link, request_answered, request_span, set_parent, traceparent};

use counters::COUNTERS;

const STOP_CODES: [StopCode; 5] = [
    StopCode::TaskFailedToStart,
    StopCode::EssentialContainerExited,
    StopCode::UserInitiated,
    StopCode::ServiceSchedulerInitiated,
    StopCode::TerminationNotice,
];

/// An AWS call was answered.
pub fn api_call(service: &str, operation: &str, status: u16, took: Duration) {
    let code = match status {
        200..300 => "2xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    COUNTERS.api_requests.with_label_values(&[service, operation, code]).inc();
    COUNTERS.api_seconds.with_label_values(&[service, operation]).observe(took.as_secs_f64());
}

/// An operation is served: its counters start at zero.
pub fn operation_known(service: &str, operation: &str) {
    for code in ["2xx", "4xx", "5xx"] {
        COUNTERS.api_requests.with_label_values(&[service, operation, code]);
    }
}

/// A service is there: its counters start at zero.
pub fn service_known(key: &ServiceKey) {
    let labels = [key.cluster.as_str(), key.service.as_str()];
    COUNTERS.log_events.with_label_values(&labels);
    COUNTERS.log_bytes.with_label_values(&labels);
    for outcome in ["completed", "failed"] {
        COUNTERS.deployments.with_label_values(&[labels[0], labels[1], outcome]);
    }
    for code in STOP_CODES {
        COUNTERS.task_stops.with_label_values(&[key.cluster.as_str(), key.service.as_str(), code.as_str()]);
    }
}

/// A service is forgotten: its series go, or every service that ever was would be told at each scrape.
pub fn service_forgotten(key: &ServiceKey) {
    counters::forget(&COUNTERS.task_stops, key);
    counters::forget(&COUNTERS.deployments, key);
    counters::forget(&COUNTERS.scaling_decisions, key);
    counters::forget(&COUNTERS.scaling_reaction, key);
    counters::forget(&COUNTERS.log_events, key);
    counters::forget(&COUNTERS.log_bytes, key);
    counters::forget(&COUNTERS.oom_kills, key);
}

/// A container of a service is there: its counter starts at zero.
pub fn container_known(key: &ServiceKey, container: &str) {
    COUNTERS.oom_kills.with_label_values(&[key.cluster.as_str(), key.service.as_str(), container]);
}

/// The kernel has ended a container because of its memory.
pub fn container_oom_killed(cluster: &ClusterName, service: Option<&ServiceName>, container: &str) {
    COUNTERS.oom_kills.with_label_values(&[cluster.as_str(), service.map_or("", |s| s.as_str()), container]).inc();
}

/// A scaling policy is there: its counters start at zero.
pub fn policy_known(service: &ServiceKey, policy: &str) {
    for stage in Stage::ALL {
        reaction_of(service, stage);
    }
    for (direction, outcome) in [("out", "applied"), ("out", "at_max"), ("in", "applied"), ("in", "at_min"), ("none", "cooldown")]
    {
        let labels = [service.cluster.as_str(), service.service.as_str(), policy, direction, outcome];
        COUNTERS.scaling_decisions.with_label_values(&labels);
    }
}

/// A task has reached STOPPED.
pub fn task_stopped(cluster: &ClusterName, service: Option<&ServiceName>, code: &str) {
    COUNTERS.task_stops.with_label_values(&[cluster.as_str(), service.map_or("", |s| s.as_str()), code]).inc();
}

/// Tasks were placed, or found no place.
pub fn placements(placed: usize, refused: usize) {
    COUNTERS.placements.with_label_values(&["placed"]).inc_by(placed as u64);
    COUNTERS.placements.with_label_values(&["refused"]).inc_by(refused as u64);
}

/// One look at one service.
pub fn reconciled(took: Duration) {
    COUNTERS.reconcile_seconds.observe(took.as_secs_f64());
}

/// A deployment ended (`completed`, `failed`).
pub fn deployment_ended(service: &ServiceKey, outcome: &str) {
    COUNTERS.deployments.with_label_values(&[service.cluster.as_str(), service.service.as_str(), outcome]).inc();
}

/// A control loop came round.
pub fn loop_lives(name: &str, now: Timestamp) {
    COUNTERS.loops.with_label_values(&[name]).set(now.seconds());
}

/// A hop of a scale-out has been made.
pub fn scaling_reaction(service: &ServiceKey, stage: Stage, took: Millis) {
    reaction_of(service, stage).observe(took as f64 / 1e3);
}

fn reaction_of(service: &ServiceKey, stage: Stage) -> prometheus::Histogram {
    let labels = [service.cluster.as_str(), service.service.as_str(), stage.as_str()];
    COUNTERS.scaling_reaction.with_label_values(&labels)
}

/// Why a connection is no agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// A wrong token, or none.
    Token,
    /// Nothing that introduces an agent came in time.
    NoHello,
    /// No version of the link that both speak.
    Version,
    /// Another agent with the same identity is connected.
    Rival,
    /// The cluster is not there, or not the agent's.
    Registration,
    /// A frame that is no message.
    Unreadable,
    /// A frame larger than any agent sends.
    Oversized,
}

impl Turned {
    pub const ALL: [Turned; 7] = [
        Turned::Token,
        Turned::NoHello,
        Turned::Version,
        Turned::Rival,
        Turned::Registration,
        Turned::Unreadable,
        Turned::Oversized,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Turned::Token => "token",
            Turned::NoHello => "no_hello",
            Turned::Version => "version",
            Turned::Rival => "rival",
            Turned::Registration => "registration",
            Turned::Unreadable => "unreadable",
            Turned::Oversized => "oversized",
        }
    }
}

/// A connection of an agent was refused or ended for what it said.
pub fn agent_turned_away(why: Turned) {
    COUNTERS.agents_turned_away.with_label_values(&[why.as_str()]).inc();
}

/// An agent says more than any agent should: it is read more slowly.
pub fn agent_paced() {
    COUNTERS.agent_pauses.inc();
}

/// An agent sent more passes of usage than one a second.
pub fn usage_passes_dropped() {
    COUNTERS.agent_passes_dropped.inc();
}

/// A session was so far behind, or its agent had missed something, that it looks at all of its tasks.
pub fn session_resynced() {
    COUNTERS.agent_resyncs.with_label_values(&["session"]).inc();
}

/// The dispatcher was so far behind that every session looks at all of its tasks.
pub fn dispatcher_lagged() {
    COUNTERS.agent_resyncs.with_label_values(&["all"]).inc();
}

/// Log events were stored: an agent's lines of a service's task, or what came by the API (both empty).
pub fn log_stored(cluster: &str, service: &str, events: u64, bytes: u64) {
    COUNTERS.log_events.with_label_values(&[cluster, service]).inc_by(events);
    COUNTERS.log_bytes.with_label_values(&[cluster, service]).inc_by(bytes);
}

/// An alarm was looked at.
pub fn alarm_evaluated() {
    COUNTERS.alarm_evaluations.inc();
}

/// An alarm went into this state.
pub fn alarm_transition(state: &str) {
    COUNTERS.alarm_transitions.with_label_values(&[state]).inc();
}

/// A scaling policy answered an alarm.
pub fn scaling_decision(service: &ServiceKey, policy: &str, code: ReasonCode) {
    let direction = match code {
        ReasonCode::ScaledOut | ReasonCode::AlreadyAtMax => "out",
        ReasonCode::ScaledIn | ReasonCode::AlreadyAtMin | ReasonCode::ScaleInNotReady | ReasonCode::ScaleInDisabled => "in",
        _ => "none",
    };
    let outcome = match code {
        ReasonCode::ScaledOut | ReasonCode::ScaledIn => "applied".to_owned(),
        ReasonCode::AlreadyAtMax => "at_max".to_owned(),
        ReasonCode::AlreadyAtMin => "at_min".to_owned(),
        ReasonCode::InCooldown => "cooldown".to_owned(),
        other => other.as_str(),
    };
    let labels = [service.cluster.as_str(), service.service.as_str(), policy, direction, &outcome];
    COUNTERS.scaling_decisions.with_label_values(&labels).inc();
}

/// What became of one alert that Alertmanager told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertOutcome {
    Opened,
    Refreshed,
    Closed,
    Duplicate,
    /// It names no service or policy that there is.
    Unknown,
    /// More alerts than a service may have.
    Refused,
    /// The alert that fires always, so that its absence tells of a broken path.
    Heartbeat,
    /// Nobody spoke of it any more.
    Expired,
    /// Alertmanager left it out of its message, which had too many.
    Truncated,
}

impl AlertOutcome {
    pub const ALL: [AlertOutcome; 9] = [
        AlertOutcome::Opened,
        AlertOutcome::Refreshed,
        AlertOutcome::Closed,
        AlertOutcome::Duplicate,
        AlertOutcome::Unknown,
        AlertOutcome::Refused,
        AlertOutcome::Heartbeat,
        AlertOutcome::Expired,
        AlertOutcome::Truncated,
    ];
    pub fn as_str(self) -> &'static str {
        match self {
            AlertOutcome::Opened => "opened",
            AlertOutcome::Refreshed => "refreshed",
            AlertOutcome::Closed => "closed",
            AlertOutcome::Duplicate => "duplicate",
            AlertOutcome::Unknown => "unknown",
            AlertOutcome::Refused => "refused",
            AlertOutcome::Heartbeat => "heartbeat",
            AlertOutcome::Expired => "expired",
            AlertOutcome::Truncated => "truncated",
        }
    }
}

/// A message of Alertmanager's was answered. Only what we took counts as having heard of it.
pub fn webhook_post(status: u16, now: Timestamp) {
    COUNTERS.webhook_posts.with_label_values(&[&status.to_string()]).inc();
    if status == 200 {
        COUNTERS.webhook_last_post.set(now.seconds());
    }
}

pub fn webhook_alert(outcome: AlertOutcome) {
    COUNTERS.webhook_alerts.with_label_values(&[outcome.as_str()]).inc();
}

/// So many alerts were left out of a message.
pub fn webhook_truncated(alerts: u64) {
    COUNTERS.webhook_alerts.with_label_values(&[AlertOutcome::Truncated.as_str()]).inc_by(alerts);
}

/// The heartbeat came the whole way from Prometheus.
pub fn webhook_heartbeat(now: Timestamp) {
    COUNTERS.webhook_heartbeat.set(now.seconds());
}

/// When Alertmanager's last message and its last heartbeat came, since the start.
pub fn webhook_times() -> (Option<Timestamp>, Option<Timestamp>) {
    let at = |gauge: &prometheus::Gauge| Some(gauge.get()).filter(|s| *s > 0.0).map(|s| Timestamp((s * 1000.0).round() as i64));
    (at(&COUNTERS.webhook_last_post), at(&COUNTERS.webhook_heartbeat))
}

/// A call to the container engine ended.
pub fn engine_call(operation: &str, ok: bool, took: Duration) {
    let outcome = if ok { "ok" } else { "error" };
    COUNTERS.engine_calls.with_label_values(&[operation, outcome]).inc();
    COUNTERS.engine_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_forgotten_leaves_no_series_and_no_other_service_loses_any() {
        let (gone, kept) = (ServiceKey::new("forgetting", "gone"), ServiceKey::new("forgetting", "kept"));
        for key in [&gone, &kept] {
            service_known(key);
            container_known(key, "app");
            policy_known(key, "cpu");
            container_oom_killed(&key.cluster, Some(&key.service), "app");
        }
        let lines = |name: &str| render().lines().filter(|line| line.contains(&format!("service=\"{name}\""))).count();
        let before = lines("kept");
        assert!(before > 20 && lines("gone") == before);
        service_forgotten(&gone);
        assert_eq!((lines("gone"), lines("kept")), (0, before));
    }
}
