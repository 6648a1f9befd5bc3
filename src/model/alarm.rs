//! Metric alarms in CloudWatch's sense.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metric::{MetricKey, Statistic};
use super::tag::Tag;
use super::{Millis, Timestamp};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    pub name: String,
    pub description: Option<String>,
    pub actions_enabled: bool,
    pub ok_actions: Vec<String>,
    pub alarm_actions: Vec<String>,
    pub insufficient_data_actions: Vec<String>,
    pub metric: MetricKey,
    pub statistic: Statistic,
    /// Seconds: 1, 5, 10, 20, 30 or a multiple of 60.
    pub period_s: u32,
    pub unit: Option<String>,
    pub evaluation_periods: u32,
    /// M of N; None: all N.
    pub datapoints_to_alarm: Option<u32>,
    pub threshold: f64,
    pub comparison: Comparison,
    pub missing: MissingData,
    /// Whether the client named TreatMissingData: an answer echoes it only then.
    pub missing_given: bool,
    /// Made by a target-tracking policy and deleted with it.
    pub owned_by_policy: Option<String>,
    pub state: AlarmState,
    pub state_reason: String,
    /// JSON text, or None before the first evaluation.
    pub state_reason_data: Option<String>,
    /// The newest values that led to the state, oldest first: what a scaling policy takes its metric from.
    pub recent: Vec<f64>,
    /// Reason or state last changed.
    pub state_updated_at: Timestamp,
    pub state_transitioned_at: Timestamp,
    pub configuration_updated_at: Timestamp,
    pub tags: Vec<Tag>,
    /// The traceparent of the span of the last transition.
    pub trace: Option<String>,
    /// Raised by an alert of Prometheus. None: evaluated here, on a metric of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// What Alertmanager last said of the alert that raises an alarm. Alertmanager decides when it opens and closes; we only see to it that
/// it does not stay open when nobody speaks of it any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct External {
    /// The alert's name: the Prometheus rule.
    pub rule: String,
    pub group_key: String,
    /// Alertmanager's hash of the alert's labels.
    pub fingerprint: String,
    /// When the rule began to fire. An alert that fires anew has a new one.
    pub starts_at: Timestamp,
    pub labels: BTreeMap<String, String>,
    /// The annotations that the breach is read from, as they were sent.
    pub value: Option<String>,
    pub threshold: Option<String>,
    /// Where Prometheus shows the rule's expression.
    pub generator_url: String,
    /// How often Alertmanager repeats an alert that goes on.
    pub repeat_ms: Millis,
    pub heard_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    /// It was taken for over, and fires on: how long it has fired says nothing of how fast anybody was told.
    #[serde(default)]
    pub reopened: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AlarmState {
    Ok,
    Alarm,
    InsufficientData,
}

impl AlarmState {
    pub fn as_str(self) -> &'static str {
        match self {
            AlarmState::Ok => "OK",
            AlarmState::Alarm => "ALARM",
            AlarmState::InsufficientData => "INSUFFICIENT_DATA",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    GreaterThanOrEqualToThreshold,
    GreaterThanThreshold,
    LessThanThreshold,
    LessThanOrEqualToThreshold,
}

impl Comparison {
    pub fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Comparison::GreaterThanOrEqualToThreshold => value >= threshold,
            Comparison::GreaterThanThreshold => value > threshold,
            Comparison::LessThanThreshold => value < threshold,
            Comparison::LessThanOrEqualToThreshold => value <= threshold,
        }
    }
    /// Whether a breach lies above the threshold.
    pub fn upward(self) -> bool {
        matches!(self, Comparison::GreaterThanOrEqualToThreshold | Comparison::GreaterThanThreshold)
    }
    /// `greater than or equal to`, as a StateReason says it.
    pub fn words(self) -> &'static str {
        match self {
            Comparison::GreaterThanOrEqualToThreshold => "greater than or equal to",
            Comparison::GreaterThanThreshold => "greater than",
            Comparison::LessThanThreshold => "less than",
            Comparison::LessThanOrEqualToThreshold => "less than or equal to",
        }
    }
    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::GreaterThanOrEqualToThreshold => "GreaterThanOrEqualToThreshold",
            Comparison::GreaterThanThreshold => "GreaterThanThreshold",
            Comparison::LessThanThreshold => "LessThanThreshold",
            Comparison::LessThanOrEqualToThreshold => "LessThanOrEqualToThreshold",
        }
    }
}

/// TreatMissingData.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MissingData {
    #[default]
    Missing,
    Ignore,
    Breaching,
    NotBreaching,
}

impl MissingData {
    pub fn as_str(self) -> &'static str {
        match self {
            MissingData::Missing => "missing",
            MissingData::Ignore => "ignore",
            MissingData::Breaching => "breaching",
            MissingData::NotBreaching => "notBreaching",
        }
    }
}

/// An entry of DescribeAlarmHistory; outlives its alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmHistory {
    pub alarm: String,
    pub at: Timestamp,
    pub kind: HistoryKind,
    pub summary: String,
    /// JSON text.
    pub data: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HistoryKind {
    ConfigurationUpdate,
    StateUpdate,
    Action,
}
