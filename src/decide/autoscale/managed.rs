//! The two alarms that a target-tracking policy makes for itself.

use super::Inputs;
use super::cooldown;
use crate::decide::alarm::INITIAL_STATE_REASON;
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmState, Comparison, MissingData};
use crate::model::arn::Home;
use crate::model::metric::{MetricKey, Statistic};
use crate::model::scaling::{PolicyKind, ScalableTarget, Scaled, ScalingPolicy, TrackedMetric};

/// The predefined metrics that are served: name, metric, and the period. AWS's high-resolution forms use 20 s; ours are as fine as
/// our samples.
pub(super) const PREDEFINED: [(&str, &str, u32); 4] = [
    ("ECSServiceAverageCPUUtilization", "CPUUtilization", 60),
    ("ECSServiceAverageMemoryUtilization", "MemoryUtilization", 60),
    ("ECSServiceAverageCPUUtilizationHighResolution", "CPUUtilization", 1),
    ("ECSServiceAverageMemoryUtilizationHighResolution", "MemoryUtilization", 1),
];

/// Scale in only well below the target, so that the two alarms are never raised in turn by the same load.
const LOW_SHARE: f64 = 0.9;

/// Three periods above the target; below it fifteen minutes, or thirty of the short periods, as AWS has them.
const HIGH_PERIODS: u32 = 3;
const LOW_PERIODS: u32 = 15;
const LOW_PERIODS_SHORT: u32 = 30;

/// High first. A policy that does not scale in has only that one, a step policy has none, and so has a predefined metric that is
/// not served (`validate` refuses it).
pub fn policy_alarms(policy: &ScalingPolicy, _home: &Home, new_uuid: &mut dyn FnMut() -> String, now: Timestamp) -> Vec<Alarm> {
    let PolicyKind::TargetTracking(tracking) = &policy.kind else { return Vec::new() };
    let Some(tracked) = tracked(policy, &tracking.metric) else { return Vec::new() };
    let low_periods = if tracked.period_s < 60 { LOW_PERIODS_SHORT } else { LOW_PERIODS };
    let mut sides = vec![("AlarmHigh", Comparison::GreaterThanThreshold, tracking.target, HIGH_PERIODS)];
    if !tracking.disable_scale_in {
        sides.push(("AlarmLow", Comparison::LessThanThreshold, low_threshold(tracking.target), low_periods));
    }
    let action = format!("{}:createdBy/{}", policy.arn, new_uuid());
    let resource = policy.service.resource_id();
    sides
        .into_iter()
        .map(|(side, comparison, threshold, evaluation_periods)| Alarm {
            name: format!("TargetTracking-{resource}-{side}-{}", new_uuid()),
            description: Some(format!("DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {action}.")),
            actions_enabled: true,
            ok_actions: Vec::new(),
            alarm_actions: vec![action.clone()],
            insufficient_data_actions: Vec::new(),
            metric: tracked.metric.clone(),
            statistic: tracked.statistic.clone(),
            period_s: tracked.period_s,
            unit: tracked.unit.clone(),
            evaluation_periods,
            datapoints_to_alarm: None,
            threshold,
            comparison,
            missing: MissingData::Missing,
            missing_given: true,
            owned_by_policy: Some(policy.arn.clone()),
            state: AlarmState::InsufficientData,
            state_reason: INITIAL_STATE_REASON.to_owned(),
            state_reason_data: None,
            recent: Vec::new(),
            state_updated_at: now,
            state_transitioned_at: now,
            configuration_updated_at: now,
            tags: Vec::new(),
            trace: None,
            external: None,
        })
        .collect()
}

/// 70 gives 63.0, not 62.99999999999999: fifteen digits are what a double surely holds.
fn low_threshold(target: f64) -> f64 {
    format!("{:.14e}", target * LOW_SHARE).parse().unwrap_or(target * LOW_SHARE)
}

struct Tracked {
    metric: MetricKey,
    statistic: Statistic,
    unit: Option<String>,
    period_s: u32,
}

fn tracked(policy: &ScalingPolicy, metric: &TrackedMetric) -> Option<Tracked> {
    match metric {
        TrackedMetric::Custom { metric, statistic, unit, period_s } => {
            Some(Tracked { metric: metric.clone(), statistic: statistic.clone(), unit: unit.clone(), period_s: *period_s })
        }
        TrackedMetric::Predefined { name, .. } => {
            let (_, metric, period_s) = PREDEFINED.into_iter().find(|(known, ..)| known == name)?;
            let service = &policy.service;
            let dimensions = [("ClusterName", service.cluster.as_str()), ("ServiceName", service.service.as_str())];
            Some(Tracked {
                metric: MetricKey::new("AWS/ECS", metric, dimensions),
                statistic: Statistic::Average,
                unit: Some("Percent".to_owned()),
                period_s,
            })
        }
    }
}

/// The target after a policy's decision was carried out: what the next cooldown counts from. A scale-out inside the cooldown of the
/// one before goes on from where that began, else every further evaluation would add the same step again.
pub fn remember(inputs: &Inputs, to: u32, now: Timestamp) -> ScalableTarget {
    let mut target = inputs.target.clone();
    let policy = inputs.policy.name.clone();
    if to > inputs.desired {
        let cooldown_ms = cooldown::of(&inputs.policy.kind, false);
        let from = cooldown::scale_out(inputs, cooldown_ms, now).map_or(inputs.desired, |last| last.from);
        target.last_out = Some(Scaled { at: now, from, to, policy });
    } else if to < inputs.desired {
        target.last_in = Some(Scaled { at: now, from: inputs.desired, to, policy });
    }
    target
}
