//! Step scaling: how far the metric is beyond the alarm's threshold picks the step, and the step says by how much to scale.

use super::verdict::{self, Facts, number};
use super::{Inputs, Scaling};
use crate::model::Timestamp;
use crate::model::decision::ReasonCode;
use crate::model::scaling::{AdjustmentType, Aggregation, NotScaledCode, Step, StepScaling};

pub fn decide(inputs: &Inputs, policy: &StepScaling, now: Timestamp) -> Scaling {
    let Some(values) = verdict::recent(inputs) else { return verdict::no_values(inputs) };
    let metric = aggregate(values, policy.aggregation);
    let threshold = inputs.alarm.threshold;
    let beyond = metric - threshold;
    let mut facts = Facts::new(
        inputs,
        format!(
            "{} is {}, {} from the threshold {}",
            inputs.alarm.metric.name,
            number(metric),
            number(beyond),
            number(threshold)
        ),
    );
    facts.add("metric", metric);
    facts.add("threshold", threshold);
    facts.add("beyond_threshold", beyond);
    let upward = inputs.alarm.comparison.upward();
    let Some(index) = select(&policy.steps, beyond, upward) else {
        return facts.wait(
            None,
            ReasonCode::NoStepMatches,
            format!("none of the policy's {} steps covers that", policy.steps.len()),
        );
    };
    let step = &policy.steps[index];
    facts.add("step", index + 1);
    facts.add("step_interval", interval(step, upward));
    facts.add("adjustment", step.adjustment);
    facts.measured.push_str(&format!(" (step {} of {}, {})", index + 1, policy.steps.len(), interval(step, upward)));

    if policy.adjustment == AdjustmentType::ExactCapacity {
        let capacity = u32::try_from(step.adjustment.max(0)).unwrap_or(u32::MAX);
        return exact(inputs, policy, facts, capacity, now);
    }
    let change = change(policy, inputs.running, step.adjustment);
    facts.add("change", change);
    let by = u32::try_from(change.unsigned_abs()).unwrap_or(u32::MAX);
    match change.signum() {
        1 => {
            let more = |capacity: u32| u32::try_from(self::change(policy, capacity, step.adjustment).max(0)).unwrap_or(u32::MAX);
            verdict::out_by(inputs, facts, more, policy.cooldown_ms, now)
        }
        -1 => verdict::in_blocked(inputs, &facts, policy.cooldown_ms, now).unwrap_or_else(|| {
            let how = format!("the step takes {by} of {} running tasks", inputs.running);
            verdict::in_to(inputs, facts, inputs.running.saturating_sub(by), &how)
        }),
        _ => facts.not(inputs, NotScaledCode::AlreadyAtDesiredCapacity, "the step changes nothing"),
    }
}

/// ExactCapacity says where to go, so the way there depends on what is desired, not on what runs.
fn exact(inputs: &Inputs, policy: &StepScaling, facts: Facts, capacity: u32, now: Timestamp) -> Scaling {
    match capacity.cmp(&inputs.desired) {
        std::cmp::Ordering::Greater => verdict::out_to(inputs, facts, capacity, now),
        std::cmp::Ordering::Less => verdict::in_blocked(inputs, &facts, policy.cooldown_ms, now)
            .unwrap_or_else(|| verdict::in_to(inputs, facts, capacity, &format!("the step asks for {capacity} tasks"))),
        std::cmp::Ordering::Equal => {
            let conclusion = format!("the step asks for the {capacity} tasks that are desired already");
            facts.not(inputs, NotScaledCode::AlreadyAtDesiredCapacity, conclusion)
        }
    }
}

fn aggregate(values: &[f64], aggregation: Aggregation) -> f64 {
    match aggregation {
        Aggregation::Average => values.iter().sum::<f64>() / values.len() as f64,
        Aggregation::Minimum => values.iter().copied().fold(f64::INFINITY, f64::min),
        Aggregation::Maximum => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// "If the metric value is above the breach threshold, the lower bound is inclusive and the upper bound is exclusive. If it is
/// below, the lower bound is exclusive and the upper bound is inclusive" (StepAdjustment). The alarm's operator says which side.
pub(super) fn select(steps: &[Step], beyond: f64, upward: bool) -> Option<usize> {
    steps.iter().position(|step| {
        let lower = step.lower.unwrap_or(f64::NEG_INFINITY);
        let upper = step.upper.unwrap_or(f64::INFINITY);
        if upward { lower <= beyond && beyond < upper } else { lower < beyond && beyond <= upper }
    })
}

/// `[0, 20)` or `(-20, 0]`.
fn interval(step: &Step, upward: bool) -> String {
    let bound = |value: Option<f64>, without: &str| value.map_or(without.to_owned(), number);
    let (open, close) = if upward { ('[', ')') } else { ('(', ']') };
    format!("{open}{}, {}{close}", bound(step.lower, "-infinity"), bound(step.upper, "+infinity"))
}

/// By how many tasks, counted from a capacity.
pub(super) fn change(policy: &StepScaling, running: u32, adjustment: i64) -> i64 {
    match policy.adjustment {
        AdjustmentType::PercentChangeInCapacity => percent(running, adjustment, policy.min_adjustment_magnitude),
        AdjustmentType::ChangeInCapacity | AdjustmentType::ExactCapacity => adjustment,
    }
}

/// "Values greater than 1 are rounded down, between 0 and 1 to 1, between -1 and 0 to -1, less than -1 up" (Step scaling policies),
/// then at least MinAdjustmentMagnitude. Of nothing every share is nothing: there, the least that can be added is one task.
fn percent(running: u32, adjustment: i64, least: Option<u32>) -> i64 {
    let sign = adjustment.signum();
    let share = (i128::from(running) * i128::from(adjustment.unsigned_abs()) / 100).min(i128::from(u32::MAX)) as i64;
    let share = if share == 0 && (running > 0 || sign > 0) { 1 } else { share };
    sign * share.max(i64::from(least.unwrap_or(0)))
}
