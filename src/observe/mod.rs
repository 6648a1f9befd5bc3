//! Our own telemetry. Every observable moment is a function here that counts it, and logs or marks the span it happens in where a
//! person would want that. Owns the names `beaufort_*`; what containers and services do is exported by `export`.
//!
//! Metrics are an interface: every name starts at zero when Beaufort does, so that the first of anything is an increase.

mod counters;
pub mod otlp;
mod trace;

use std::time::Duration;

use crate::model::decision::ReasonCode;
use crate::model::task::StopCode;
use crate::model::{ClusterName, ServiceKey, ServiceName};

pub use counters::render;
pub use trace::{call_span, link, set_parent, traceparent};

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
    for code in STOP_CODES {
        COUNTERS.task_stops.with_label_values(&[key.cluster.as_str(), key.service.as_str(), code.as_str()]);
    }
}

/// A scaling policy is there: its counters start at zero.
pub fn policy_known(service: &ServiceKey, policy: &str) {
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
pub fn deployment_ended(outcome: &str) {
    COUNTERS.deployments.with_label_values(&[outcome]).inc();
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

/// A call to the container engine ended.
pub fn engine_call(operation: &str, ok: bool, took: Duration) {
    let outcome = if ok { "ok" } else { "error" };
    COUNTERS.engine_calls.with_label_values(&[operation, outcome]).inc();
    COUNTERS.engine_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
}
