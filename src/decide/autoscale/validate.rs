//! What PutScalingPolicy refuses.

use super::managed::PREDEFINED;
use crate::model::scaling::{AdjustmentType, PolicyKind, Step, StepScaling, TargetTracking, TrackedMetric};

/// Answered as `ValidationException`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Steps in one policy (Application Auto Scaling quotas).
const STEPS_AT_MOST: usize = 20;

const ALB: &str = "ALBRequestCountPerTarget";

pub fn validate(policy: &PolicyKind) -> Result<(), Invalid> {
    match policy {
        PolicyKind::TargetTracking(policy) => target_tracking(policy),
        PolicyKind::Step(policy) => step_scaling(policy),
    }
}

/// Whether two policies track the same metric, which one service may do only once: "Only one TargetTrackingScaling policy for a
/// given metric specification is allowed."
pub fn same_metric(a: &TrackedMetric, b: &TrackedMetric) -> bool {
    use TrackedMetric::{Custom, Predefined};
    match (a, b) {
        (Predefined { name, resource_label }, Predefined { name: name_b, resource_label: label_b }) => {
            name == name_b && resource_label == label_b
        }
        (Custom { metric, statistic, unit, .. }, Custom { metric: metric_b, statistic: statistic_b, unit: unit_b, .. }) => {
            metric == metric_b && statistic == statistic_b && unit == unit_b
        }
        _ => false,
    }
}

fn target_tracking(policy: &TargetTracking) -> Result<(), Invalid> {
    if !(policy.target.is_finite() && policy.target > 0.0) {
        return refuse(format!("Target value must be greater than zero: {}", policy.target));
    }
    for (name, cooldown) in [("ScaleOutCooldown", policy.out_cooldown_ms), ("ScaleInCooldown", policy.in_cooldown_ms)] {
        not_negative(name, cooldown)?;
    }
    match &policy.metric {
        TrackedMetric::Predefined { name, resource_label } if name == ALB => {
            if resource_label.is_none() {
                return refuse(format!("Resource label should be specified for predefined metric type {ALB}"));
            }
            refuse(format!(
                "Predefined metric type {ALB} is not served: there are no load balancer metrics here. Track a metric of your own with a customized metric specification"
            ))
        }
        TrackedMetric::Predefined { name, resource_label } => {
            let known = PREDEFINED.map(|(name, ..)| name);
            if !known.contains(&name.as_str()) {
                return refuse(format!(
                    "1 validation error detected: Value '{name}' at 'targetTrackingScalingPolicyConfiguration.predefinedMetricSpecification.predefinedMetricType' failed to satisfy constraint: Member must satisfy enum value set: [{}]",
                    known.join(", ")
                ));
            }
            match resource_label {
                Some(_) => refuse(format!("Resource label should not be specified for predefined metric type {name}")),
                None => Ok(()),
            }
        }
        TrackedMetric::Custom { metric, period_s, .. } => {
            if metric.name.is_empty() || metric.namespace.is_empty() {
                return refuse("A customized metric specification needs a metric name and a namespace");
            }
            // AWS: 10, 30 or 60. The others are ours.
            if !matches!(period_s, 1 | 5 | 10 | 20 | 30 | 60) {
                return refuse("The period of a customized metric specification must be 1, 5, 10, 20, 30 or 60");
            }
            Ok(())
        }
    }
}

fn step_scaling(policy: &StepScaling) -> Result<(), Invalid> {
    not_negative("Cooldown", policy.cooldown_ms)?;
    if policy.steps.is_empty() {
        return refuse("At least one step adjustment must be specified");
    }
    if policy.steps.len() > STEPS_AT_MOST {
        return refuse(format!("A step scaling policy can have at most {STEPS_AT_MOST} step adjustments"));
    }
    if policy.min_adjustment_magnitude.is_some() && policy.adjustment != AdjustmentType::PercentChangeInCapacity {
        return refuse("MinAdjustmentMagnitude can only be specified for the adjustment type PercentChangeInCapacity");
    }
    if policy.adjustment == AdjustmentType::ExactCapacity && policy.steps.iter().any(|step| step.adjustment < 0) {
        return refuse("ScalingAdjustment must not be negative for the adjustment type ExactCapacity");
    }
    intervals(&policy.steps)
}

/// The rules of StepAdjustment: together the intervals cover one unbroken range, and each value lies in one of them.
fn intervals(steps: &[Step]) -> Result<(), Invalid> {
    let without = |bound: fn(&Step) -> Option<f64>| steps.iter().filter(|s| bound(s).is_none()).count();
    if without(|s| s.lower) > 1 || without(|s| s.upper) > 1 {
        return refuse("At most one step adjustment may have no lower bound, and at most one no upper bound");
    }
    for step in steps {
        if step.lower.is_none() && step.upper.is_none() {
            return refuse("A step adjustment must have a lower bound or an upper bound");
        }
        if [step.lower, step.upper].into_iter().flatten().any(|bound| !bound.is_finite()) {
            return refuse("A step adjustment's bounds must be finite numbers");
        }
        if let (Some(lower), Some(upper)) = (step.lower, step.upper)
            && lower >= upper
        {
            return refuse("A step adjustment's upper bound must be greater than its lower bound");
        }
    }
    let mut sorted: Vec<(f64, f64)> =
        steps.iter().map(|s| (s.lower.unwrap_or(f64::NEG_INFINITY), s.upper.unwrap_or(f64::INFINITY))).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    for pair in sorted.windows(2) {
        // Equal in value is what counts, and -0.0 == 0.0.
        if pair[0].1 > pair[1].0 {
            return refuse("Step adjustment intervals must not overlap");
        }
        if pair[0].1 < pair[1].0 {
            return refuse("Step adjustment intervals must not have a gap between them");
        }
    }
    if steps.iter().any(|s| s.lower.is_some_and(|bound| bound < 0.0)) && without(|s| s.lower) == 0 {
        return refuse("If one step adjustment has a negative lower bound, there must be one without a lower bound");
    }
    if steps.iter().any(|s| s.upper.is_some_and(|bound| bound > 0.0)) && without(|s| s.upper) == 0 {
        return refuse("If one step adjustment has a positive upper bound, there must be one without an upper bound");
    }
    Ok(())
}

fn not_negative(name: &str, cooldown_ms: Option<i64>) -> Result<(), Invalid> {
    if cooldown_ms.is_some_and(|ms| ms < 0) {
        return refuse(format!("{name} must not be negative"));
    }
    Ok(())
}

fn refuse<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
}
