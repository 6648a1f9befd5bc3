//! Target tracking: capacity in proportion to how far the metric is from its target.

use super::verdict::{self, Facts, number};
use super::{Inputs, Scaling};
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::decision::ReasonCode;
use crate::model::scaling::{NotScaledCode, PolicyKind, ScalingPolicy, TargetTracking};

/// How many of the newest datapoints the policy's high alarm needs to be raised: what these would be on less capacity tells whether
/// a scale-in would be taken back at once.
const RAISED_BY: usize = 3;

pub fn decide(inputs: &Inputs, policy: &TargetTracking, now: Timestamp) -> Scaling {
    let Some(values) = verdict::recent(inputs).filter(|_| policy.target.is_finite() && policy.target > 0.0) else {
        return verdict::no_values(inputs);
    };
    let metric = average(values);
    let name = &inputs.alarm.metric.name;
    let mut facts = Facts::new(
        inputs,
        format!("{name} averages {} over {} datapoints, target {}", number(metric), values.len(), number(policy.target)),
    );
    facts.add("metric", metric);
    facts.add("target", policy.target);
    facts.add("datapoints", values.len());
    if inputs.alarm.comparison.upward() {
        // "If no task is running, Service Auto Scaling waits for a datapoint and then adds the minimum" (ECS): one task.
        let needed = required(inputs.running, metric, policy.target).max(1);
        let missing = needed.saturating_sub(inputs.running);
        verdict::out_by(inputs, facts, |_| missing, policy.out_cooldown_ms, now)
    } else {
        scale_in(inputs, policy, facts, values, now)
    }
}

/// `ceil(running x metric / target)`: what brings the metric to its target. Rounded up both ways, so that availability wins.
fn required(running: u32, metric: f64, target: f64) -> u32 {
    let exact = f64::from(running) * metric / target;
    // 3 x 70 / 70 must not become 4 by the last bit of a division. A negative metric needs nobody.
    (exact - exact.abs() * 1e-12).ceil().max(0.0) as u32
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What one policy needs at least: by its window, and by its newest datapoints.
struct Need<'a> {
    policy: &'a str,
    by_window: u32,
    by_newest: u32,
}

fn need<'a>(policy: &'a str, running: u32, values: &[f64], target: f64) -> Need<'a> {
    let newest = &values[values.len().saturating_sub(RAISED_BY)..];
    Need { policy, by_window: required(running, average(values), target), by_newest: required(running, average(newest), target) }
}

fn scale_in(inputs: &Inputs, policy: &TargetTracking, mut facts: Facts, values: &[f64], now: Timestamp) -> Scaling {
    if policy.disable_scale_in {
        return facts.wait(None, ReasonCode::ScaleInDisabled, "the policy does not scale in (DisableScaleIn)");
    }
    if let Some(blocked) = verdict::in_blocked(inputs, &facts, policy.in_cooldown_ms, now) {
        return blocked;
    }
    if inputs.running == 0 {
        return facts.wait(None, ReasonCode::NoData, "no task is running, so the datapoints say nothing about what is needed");
    }
    let mut needs = vec![need(&inputs.policy.name, inputs.running, values, policy.target)];
    match sibling_needs(inputs) {
        Ok(others) => needs.extend(others),
        Err(waiting_for) => {
            facts.add("waiting_for_policy", waiting_for);
            let conclusion = format!("policy {waiting_for} is not ready to scale in (its low alarm is not in ALARM)");
            return facts.wait(None, ReasonCode::ScaleInNotReady, conclusion);
        }
    }
    shrink(inputs, facts, &needs)
}

/// The others' needs, or the name of one that is not ready: capacity goes only when every target-tracking policy could spare it
/// (Application Auto Scaling, "Multiple scaling policies"). Without data a policy is not ready.
fn sibling_needs<'a>(inputs: &Inputs<'a>) -> Result<Vec<Need<'a>>, &'a str> {
    let mut needs = Vec::new();
    for (sibling, alarm) in inputs.siblings {
        let PolicyKind::TargetTracking(tracking) = &sibling.kind else { continue };
        if tracking.disable_scale_in || sibling.name == inputs.policy.name {
            continue;
        }
        let Some(values) = ready(*alarm).filter(|_| tracking.target > 0.0) else { return Err(name_of(sibling)) };
        needs.push(need(name_of(sibling), inputs.running, values, tracking.target));
    }
    Ok(needs)
}

fn name_of(policy: &ScalingPolicy) -> &str {
    &policy.name
}

fn ready(alarm: Option<&Alarm>) -> Option<&[f64]> {
    alarm
        .filter(|alarm| alarm.state == AlarmState::Alarm && !alarm.recent.is_empty())
        .filter(|alarm| alarm.recent.iter().all(|v| v.is_finite()))
        .map(|alarm| alarm.recent.as_slice())
}

/// The largest need wins. Two things make a scale-in gradual; AWS says only that it is, so both are ours:
/// the newest datapoints on the new capacity must stay within the target, and one step takes at most half of the tasks. The
/// next step has a window of its own, measured on what is left.
fn shrink(inputs: &Inputs, mut facts: Facts, needs: &[Need]) -> Scaling {
    let desired = inputs.desired;
    let by_window = needs.iter().map(|n| n.by_window).max().unwrap_or(desired);
    let by_newest = needs.iter().map(|n| n.by_newest).max().unwrap_or(desired);
    if let Some(largest) = needs.iter().max_by_key(|n| n.by_window.max(n.by_newest)) {
        facts.add("deciding_policy", largest.policy);
    }
    facts.add("needed_by_window", by_window);
    facts.add("needed_by_newest", by_newest);
    let bounded = |count: u32| count.max(inputs.target.min).min(inputs.target.max);
    if bounded(by_window) < desired && bounded(by_newest) >= desired {
        let conclusion = format!(
            "{by_window} tasks would do for the whole window, but by its newest datapoints {by_newest} are needed and a scale-in would be taken back"
        );
        return facts.not(inputs, NotScaledCode::AutoScalingAnticipatedFlapping, conclusion);
    }
    let needed = by_window.max(by_newest);
    let at_once = desired.div_ceil(2).min(desired.saturating_sub(1));
    let how = if needed < at_once {
        facts.add("held_by", "at most half at a time");
        format!("{needed} tasks are needed; at most half go at a time")
    } else if by_newest > by_window {
        facts.add("held_by", "newest datapoints");
        format!("{by_window} tasks would do, {by_newest} by the newest datapoints")
    } else {
        format!("{needed} tasks are needed")
    };
    verdict::in_to(inputs, facts, needed.max(at_once), &how)
}
