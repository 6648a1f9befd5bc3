//! What a scaling policy makes of an alarm that is in ALARM: a new desired count, or why not (yet).
//!
//! Owns the arithmetic of target tracking and step scaling, their cooldowns, bounds and texts. Never sets a desired count and never
//! reads a metric: the alarm brings the values it was raised by. Start reading at [`decide`].
//!
//! Two rules hold everything together, both Amazon ECS's. The base of every calculation is the *running* count: the metric was
//! measured on what runs. The result is compared with the *desired* count: what is ordered but not yet running is not ordered twice.

pub mod activity;
pub mod bounds;
pub mod cooldown;
mod managed;
pub mod reaction;
pub mod recorded;
mod step;
mod target_tracking;
mod validate;
mod verdict;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::model::Timestamp;
use crate::model::alarm::Alarm;
use crate::model::decision::Reason;
use crate::model::scaling::{NotScaledReason, PolicyKind, ScalableTarget, ScalingPolicy};

pub use managed::{policy_alarms, remember};
pub use validate::{Invalid, same_metric, validate};

/// The action of a decision that leaves the desired count as it is.
pub const NO_CHANGE: &str = "scaling: no change";

pub struct Inputs<'a> {
    pub policy: &'a ScalingPolicy,
    pub target: &'a ScalableTarget,
    /// The alarm that asks, in ALARM.
    pub alarm: &'a Alarm,
    pub desired: u32,
    pub running: u32,
    /// Scale-in waits while a deployment runs; scale-out does not.
    pub deployment_in_progress: bool,
    /// The service's other target-tracking policies with scale-in enabled, each with its low alarm: scale-in needs all of them.
    pub siblings: &'a [(&'a ScalingPolicy, Option<&'a Alarm>)],
}

#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Set the desired count.
    To { desired: u32, reason: Reason },
    /// Nothing to do, with the code that DescribeScalingActivities shows.
    Not { reason: Reason, not_scaled: NotScaledReason },
    /// Nothing to do yet; look again at `until`, or when something changes.
    Wait { until: Option<Timestamp>, reason: Reason },
}

pub fn decide(inputs: &Inputs, now: Timestamp) -> Scaling {
    match &inputs.policy.kind {
        PolicyKind::TargetTracking(policy) => target_tracking::decide(inputs, policy, now),
        PolicyKind::Step(policy) => step::decide(inputs, policy, now),
    }
}
