//! What a scaling policy makes of an alarm that is in ALARM: a new desired count, or why not (yet).

use crate::model::Timestamp;
use crate::model::alarm::Alarm;
use crate::model::decision::Reason;
use crate::model::scaling::{NotScaledReason, ScalableTarget, ScalingPolicy};

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
    todo!("{} {now}", inputs.desired)
}
