//! Scalable targets, scaling policies and their activities, in Application Auto Scaling's sense; only ECS services scale.

use serde::{Deserialize, Serialize};

use super::metric::{MetricKey, Statistic};
use super::tag::Tag;
use super::{Millis, ServiceKey, Timestamp};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalableTarget {
    pub service: ServiceKey,
    /// The last part of the target's ARN.
    pub id: String,
    pub min: u32,
    pub max: u32,
    pub suspend_in: bool,
    pub suspend_out: bool,
    pub suspend_scheduled: bool,
    pub tags: Vec<Tag>,
    pub created_at: Timestamp,
    /// When capacity was last added or removed by a policy, and by how much: what cooldowns count from.
    pub last_out: Option<Scaled>,
    pub last_in: Option<Scaled>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaled {
    pub at: Timestamp,
    pub from: u32,
    pub to: u32,
    pub policy: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalingPolicy {
    pub service: ServiceKey,
    pub name: String,
    /// The policy's ARN holds it.
    pub uuid: String,
    pub arn: String,
    pub kind: PolicyKind,
    /// Names of the alarms that the policy made for itself (high first), or that name it as an action.
    pub alarms: Vec<String>,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PolicyKind {
    TargetTracking(TargetTracking),
    Step(StepScaling),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetTracking {
    pub target: f64,
    pub metric: TrackedMetric,
    /// None: 300 s, ECS's default.
    pub out_cooldown_ms: Option<Millis>,
    pub in_cooldown_ms: Option<Millis>,
    pub disable_scale_in: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TrackedMetric {
    /// `ECSServiceAverageCPUUtilization`, `...Memory...`, and their `HighResolution` forms.
    Predefined {
        name: String,
        resource_label: Option<String>,
    },
    Custom {
        metric: MetricKey,
        statistic: Statistic,
        unit: Option<String>,
        period_s: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepScaling {
    pub adjustment: AdjustmentType,
    pub steps: Vec<Step>,
    pub min_adjustment_magnitude: Option<u32>,
    pub cooldown_ms: Option<Millis>,
    pub aggregation: Aggregation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdjustmentType {
    ChangeInCapacity,
    PercentChangeInCapacity,
    ExactCapacity,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregation {
    #[default]
    Average,
    Minimum,
    Maximum,
}

/// Bounds are relative to the alarm's threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub adjustment: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalingActivity {
    pub id: String,
    pub service: ServiceKey,
    pub description: String,
    pub cause: String,
    pub status: ActivityStatus,
    pub status_message: Option<String>,
    /// What the activity set the desired count to; None for one that did not scale.
    pub desired: Option<u32>,
    pub not_scaled: Vec<NotScaledReason>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Of a scale-out by a policy: how far it has come. Clients of Application Auto Scaling do not see it.
    #[serde(default)]
    pub reaction: Option<Reaction>,
}

/// When a scale-out was asked for, and when what it asked for was there. The desired count was set at the activity's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reaction {
    pub policy: String,
    pub alarm: String,
    pub from: u32,
    pub to: u32,
    /// Tasks that had to be made: fewer than the step where others were on their way already.
    pub tasks: u32,
    /// When the breach began and when the alarm opened. None for a further answer to the same breach, which waited for a cooldown
    /// and not for the alarm.
    pub breach_at: Option<Timestamp>,
    pub alarm_at: Option<Timestamp>,
    pub placed_at: Option<Timestamp>,
    pub running_at: Option<Timestamp>,
    pub healthy_at: Option<Timestamp>,
    /// Nothing more is awaited: all is there, or it will not come.
    pub over: bool,
}

/// A hop of a scale-out, each counted from the end of the one before, or all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// From the breach (or the firing of a rule) to the open alarm.
    Alert,
    /// To the desired count that is set.
    Decision,
    /// To the last new task that has its place.
    Placed,
    /// To the last one that runs.
    Running,
    /// To the last one that is healthy; without a health check it is so when it runs.
    Healthy,
    /// From the breach to the end.
    Total,
}

impl Stage {
    pub const ALL: [Stage; 6] = [Stage::Alert, Stage::Decision, Stage::Placed, Stage::Running, Stage::Healthy, Stage::Total];

    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Alert => "alert",
            Stage::Decision => "decision",
            Stage::Placed => "placed",
            Stage::Running => "running",
            Stage::Healthy => "healthy",
            Stage::Total => "total",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityStatus {
    Pending,
    InProgress,
    Successful,
    Overridden,
    Unfulfilled,
    Failed,
}

impl ActivityStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            ActivityStatus::Pending => "Pending",
            ActivityStatus::InProgress => "InProgress",
            ActivityStatus::Successful => "Successful",
            ActivityStatus::Overridden => "Overridden",
            ActivityStatus::Unfulfilled => "Unfulfilled",
            ActivityStatus::Failed => "Failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotScaledReason {
    pub code: NotScaledCode,
    pub max: Option<u32>,
    pub min: Option<u32>,
    pub current: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotScaledCode {
    AutoScalingAnticipatedFlapping,
    TargetServicePutResourceAsUnscalable,
    AlreadyAtMaxCapacity,
    AlreadyAtMinCapacity,
    AlreadyAtDesiredCapacity,
}

impl NotScaledCode {
    pub fn as_str(self) -> &'static str {
        match self {
            NotScaledCode::AutoScalingAnticipatedFlapping => "AutoScalingAnticipatedFlapping",
            NotScaledCode::TargetServicePutResourceAsUnscalable => "TargetServicePutResourceAsUnscalable",
            NotScaledCode::AlreadyAtMaxCapacity => "AlreadyAtMaxCapacity",
            NotScaledCode::AlreadyAtMinCapacity => "AlreadyAtMinCapacity",
            NotScaledCode::AlreadyAtDesiredCapacity => "AlreadyAtDesiredCapacity",
        }
    }
}
