//! Scaling policies, as they are shown.

use super::errors::invalid;
use super::page::page;
use super::policies::shown_alarm;
use super::shapes::{
    Alarm as ShownAlarm, CustomizedMetric, DescribeScalingPoliciesInput, DescribeScalingPoliciesOutput, MetricDimension,
    PolicyType, PredefinedMetricSpecification, ScalingPolicy, StepAdjustment, StepScaling, TargetTracking,
};
use super::{Cx, DIMENSION, NAMESPACE, check_kind};
use crate::model::alarm::Alarm;
use crate::model::arn::Home;
use crate::model::scaling::{
    PolicyKind, ScalingPolicy as Policy, StepScaling as Step, TargetTracking as Tracking, TrackedMetric,
};
use crate::schedule::scaling::names_policy;
use crate::store::State;
use crate::wire::fault::Fault;
use crate::wire::types::Timestamp;

pub async fn describe(cx: Cx, input: DescribeScalingPoliciesInput) -> Result<DescribeScalingPoliciesOutput, Fault> {
    check_kind(&input.service_namespace, input.scalable_dimension.as_deref())?;
    if input.scalable_dimension.is_some() && input.resource_id.is_none() {
        return Err(invalid("If you specify a scalable dimension, you must also specify a resource ID."));
    }
    if input.policy_names.as_ref().is_some_and(|names| names.len() > 50) {
        return Err(invalid("At most 50 policy names may be specified."));
    }
    let page = page(input.next_token.as_deref(), input.max_results)?;
    let state = cx.app.store.snapshot();
    let wanted = |policy: &Policy| {
        input.resource_id.as_ref().is_none_or(|id| *id == policy.service.resource_id())
            && input.policy_names.as_ref().is_none_or(|names| names.is_empty() || names.contains(&policy.name))
    };
    let policies = state
        .policies
        .iter()
        .filter(|(key, policy)| page.after.as_ref().is_none_or(|after| *key > after) && wanted(policy))
        .map(|(key, policy)| (key.clone(), shown(&state, policy, &cx.app.home)));
    let (scaling_policies, next_token) = page.of(policies);
    Ok(DescribeScalingPoliciesOutput { scaling_policies, next_token })
}

/// The alarms that a policy made, high first; of a step policy those that name it.
pub fn alarms_of(state: &State, policy: &Policy, home: &Home) -> Vec<ShownAlarm> {
    match &policy.kind {
        PolicyKind::TargetTracking(_) => policy.alarms.iter().map(|name| shown_alarm(name, home)).collect(),
        PolicyKind::Step(_) => state
            .alarms
            .values()
            .filter(|alarm| actions(alarm).any(|action| names_policy(action, policy)))
            .map(|alarm| shown_alarm(&alarm.name, home))
            .collect(),
    }
}

pub fn actions(alarm: &Alarm) -> impl Iterator<Item = &String> {
    alarm.ok_actions.iter().chain(&alarm.alarm_actions).chain(&alarm.insufficient_data_actions)
}

fn shown(state: &State, policy: &Policy, home: &Home) -> ScalingPolicy {
    let (policy_type, tracking, step) = match &policy.kind {
        PolicyKind::TargetTracking(tracking) => (PolicyType::TargetTrackingScaling, Some(shown_tracking(tracking)), None),
        PolicyKind::Step(step) => (PolicyType::StepScaling, None, Some(shown_step(step))),
    };
    ScalingPolicy {
        policy_arn: policy.arn.clone(),
        policy_name: policy.name.clone(),
        service_namespace: NAMESPACE.to_owned(),
        resource_id: policy.service.resource_id(),
        scalable_dimension: DIMENSION.to_owned(),
        policy_type,
        step,
        tracking,
        alarms: alarms_of(state, policy, home),
        creation_time: Timestamp(policy.created_at.0),
    }
}

fn shown_tracking(tracking: &Tracking) -> TargetTracking {
    let (predefined, customized) = match &tracking.metric {
        TrackedMetric::Predefined { name, resource_label } => {
            let label = resource_label.clone();
            (Some(PredefinedMetricSpecification { predefined_metric_type: name.clone(), resource_label: label }), None)
        }
        TrackedMetric::Custom { metric, statistic, unit, .. } => {
            let dimension = |(name, value): &(std::sync::Arc<str>, std::sync::Arc<str>)| MetricDimension {
                name: name.to_string(),
                value: value.to_string(),
            };
            let custom = CustomizedMetric {
                metric_name: metric.name.to_string(),
                namespace: metric.namespace.to_string(),
                dimensions: metric.dimensions.iter().map(dimension).collect(),
                statistic: statistic.to_string(),
                unit: unit.clone(),
            };
            (None, Some(custom))
        }
    };
    TargetTracking {
        target_value: tracking.target,
        predefined_metric_specification: predefined,
        customized_metric_specification: customized,
        scale_out_cooldown: tracking.out_cooldown_ms.map(|ms| ms / 1_000),
        scale_in_cooldown: tracking.in_cooldown_ms.map(|ms| ms / 1_000),
        disable_scale_in: tracking.disable_scale_in,
    }
}

fn shown_step(step: &Step) -> StepScaling {
    let adjustment = |s: &crate::model::scaling::Step| StepAdjustment {
        metric_interval_lower_bound: s.lower,
        metric_interval_upper_bound: s.upper,
        scaling_adjustment: s.adjustment,
    };
    StepScaling {
        adjustment_type: Some(step.adjustment.into()),
        step_adjustments: Some(step.steps.iter().map(adjustment).collect()),
        min_adjustment_magnitude: step.min_adjustment_magnitude.and_then(|m| i32::try_from(m).ok()),
        cooldown: step.cooldown_ms.and_then(|ms| i32::try_from(ms / 1_000).ok()),
        metric_aggregation_type: Some(step.aggregation.into()),
    }
}
