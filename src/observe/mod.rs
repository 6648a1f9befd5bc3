//! Our own telemetry: spans, counters and what is exported by OTLP.

/// The W3C traceparent of the span we are in, for what is to hang below it later.
pub fn traceparent() -> Option<String> {
    None
}

/// Hangs `span` below the span that a traceparent names.
pub fn set_parent(_span: &tracing::Span, _traceparent: Option<&str>) {}

/// Links `span` to the span that a traceparent names.
pub fn link(_span: &tracing::Span, _traceparent: Option<&str>) {}

/// A task has reached STOPPED.
pub fn task_stopped(_cluster: &crate::model::ClusterName, _service: Option<&crate::model::ServiceName>, _code: &str) {}

/// An alarm was looked at.
pub fn alarm_evaluated() {}

/// An alarm went into this state.
pub fn alarm_transition(_state: &str) {}

/// A scaling policy answered an alarm.
pub fn scaling_decision(_service: &crate::model::ServiceKey, _policy: &str, _code: crate::model::decision::ReasonCode) {}
