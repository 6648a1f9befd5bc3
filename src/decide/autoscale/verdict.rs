//! From a proposed capacity to the answer: suspension, bounds, cooldown, deployment, and the reason with all its numbers.

use serde_json::Value;

use super::cooldown::{self, Out};
use super::{Inputs, Scaling};
use crate::model::decision::{Evidence, Reason, ReasonCode};
use crate::model::scaling::{NotScaledCode, NotScaledReason};
use crate::model::{Millis, Timestamp};

/// What every reason of one decision carries, and the words that say what was measured.
#[derive(Clone, Debug)]
pub struct Facts {
    pub evidence: Evidence,
    /// `CPUUtilization averages 143.2 over 3 datapoints, target 50`.
    pub measured: String,
}

impl Facts {
    pub fn new(inputs: &Inputs, measured: impl Into<String>) -> Facts {
        let mut facts = Facts { evidence: Evidence::new(), measured: measured.into() };
        facts.add("policy", inputs.policy.name.clone());
        facts.add("alarm", inputs.alarm.name.clone());
        facts.add("running", inputs.running);
        facts.add("desired", inputs.desired);
        facts.add("min", inputs.target.min);
        facts.add("max", inputs.target.max);
        facts
    }

    pub fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.evidence.insert(name.to_owned(), value.into());
    }

    pub fn reason(&self, code: ReasonCode, conclusion: impl std::fmt::Display) -> Reason {
        let sentence = if self.measured.is_empty() { conclusion.to_string() } else { format!("{}: {conclusion}", self.measured) };
        Reason { code, sentence, evidence: self.evidence.clone() }
    }

    pub fn wait(&self, until: Option<Timestamp>, code: ReasonCode, conclusion: impl std::fmt::Display) -> Scaling {
        Scaling::Wait { until, reason: self.reason(code, conclusion) }
    }

    pub fn not(&self, inputs: &Inputs, not_scaled: NotScaledCode, conclusion: impl std::fmt::Display) -> Scaling {
        let (code, max, min, current) = match not_scaled {
            NotScaledCode::AlreadyAtMaxCapacity => (ReasonCode::AlreadyAtMax, Some(inputs.target.max), None, None),
            NotScaledCode::AlreadyAtMinCapacity => (ReasonCode::AlreadyAtMin, None, Some(inputs.target.min), None),
            NotScaledCode::AlreadyAtDesiredCapacity => (ReasonCode::AlreadyAtDesired, None, None, Some(inputs.desired)),
            NotScaledCode::AutoScalingAnticipatedFlapping => (ReasonCode::AnticipatedFlapping, None, None, None),
            NotScaledCode::TargetServicePutResourceAsUnscalable => (ReasonCode::DeploymentInProgress, None, None, None),
        };
        let reason = self.reason(code, conclusion);
        Scaling::Not { reason, not_scaled: NotScaledReason { code: not_scaled, max, min, current } }
    }
}

/// The values that the alarm was raised by; None when there are none to act on.
pub fn recent<'a>(inputs: &Inputs<'a>) -> Option<&'a [f64]> {
    let values = inputs.alarm.recent.as_slice();
    (!values.is_empty() && values.iter().all(|v| v.is_finite())).then_some(values)
}

pub fn no_values(inputs: &Inputs) -> Scaling {
    let conclusion = format!("alarm {} carries no datapoints to scale by", inputs.alarm.name);
    Facts::new(inputs, "").wait(None, ReasonCode::NoData, conclusion)
}

/// Scale out by so many tasks more than run now: `change` says how many, of a capacity. Inside the cooldown of the scale-out before,
/// both the start and a share of it are of the capacity before that step: a share of what the step has added meanwhile would grow with
/// every evaluation, and the cooldown would damp nothing.
pub fn out_by(
    inputs: &Inputs,
    facts: Facts,
    change: impl Fn(u32) -> u32,
    cooldown_ms: Option<Millis>,
    now: Timestamp,
) -> Scaling {
    let last = cooldown::scale_out(inputs, cooldown_ms, now);
    let base = last.map_or(inputs.running, |last| last.from.min(inputs.running));
    let grown = |capacity: u32| capacity.saturating_add(change(capacity));
    out(inputs, facts, grown(inputs.running), grown(base), last, now)
}

/// Scale out to a capacity that was named as such, whatever runs.
pub fn out_to(inputs: &Inputs, facts: Facts, capacity: u32, now: Timestamp) -> Scaling {
    out(inputs, facts, capacity, capacity, None, now)
}

/// `wanted` is what the metric asks for; `counted` the same with the capacity of the last step counted in.
fn out(inputs: &Inputs, mut facts: Facts, wanted: u32, counted: u32, last: Option<Out>, now: Timestamp) -> Scaling {
    let Inputs { target, desired, .. } = *inputs;
    // A clamp with min above max, which registration refuses, must not panic here.
    let bounded = |count: u32| count.max(target.min).min(target.max);
    facts.add("proposed", wanted);
    if let Some(last) = last {
        facts.add("last_scale_out_from", last.from);
        facts.add("last_scale_out_to", last.to);
        facts.add("cooldown_remaining_ms", last.until.map_or(0, |until| until.since(now).max(0)));
    }
    if target.suspend_out {
        return facts.wait(None, ReasonCode::Suspended, format!("{wanted} tasks are needed, but scaling out is suspended"));
    }
    // Above the maximum, a scale-out does nothing (ECS, "Service auto scaling": desired count outside the bounds).
    if desired > target.max || (desired == target.max && wanted > desired) {
        let conclusion = format!("{wanted} tasks are needed, but {desired} are desired and the maximum is {}", target.max);
        return facts.not(inputs, NotScaledCode::AlreadyAtMaxCapacity, conclusion);
    }
    let to = bounded(counted);
    if to > desired {
        let limit = if to < counted { format!(", held at the maximum {}", target.max) } else { String::new() };
        let credit = if counted < wanted { ", the last scale-out's capacity counted in" } else { "" };
        let conclusion = format!("{wanted} tasks are needed; desired {desired} -> {to}{credit}{limit}");
        return Scaling::To { desired: to, reason: facts.reason(ReasonCode::ScaledOut, conclusion) };
    }
    if let Some(last) = last.filter(|_| bounded(wanted) > desired) {
        let conclusion = match last.until {
            Some(until) => {
                format!("the scale-out {} -> {} still has {} to take effect", last.from, last.to, seconds(until.since(now)))
            }
            None => format!("the tasks of the scale-out {} -> {} are still being started", last.from, last.to),
        };
        return facts.wait(last.until, ReasonCode::InCooldown, conclusion);
    }
    let conclusion = format!("{wanted} tasks are needed and {desired} are desired already, {} of them running", inputs.running);
    facts.not(inputs, NotScaledCode::AlreadyAtDesiredCapacity, conclusion)
}

/// What forbids every scale-in just now.
pub fn in_blocked(inputs: &Inputs, facts: &Facts, cooldown_ms: Option<Millis>, now: Timestamp) -> Option<Scaling> {
    let Inputs { target, desired, .. } = *inputs;
    if target.suspend_in {
        return Some(facts.wait(None, ReasonCode::Suspended, "scaling in is suspended"));
    }
    // Below the minimum, a scale-in does nothing either.
    if desired <= target.min {
        let conclusion = format!("{desired} tasks are desired and the minimum is {}", target.min);
        return Some(facts.not(inputs, NotScaledCode::AlreadyAtMinCapacity, conclusion));
    }
    // "Application Auto Scaling turns off scale-in processes while Amazon ECS deployments are in progress" (ECS).
    if inputs.deployment_in_progress {
        let conclusion = "a deployment is in progress, and until it ends nothing is scaled in";
        return Some(facts.not(inputs, NotScaledCode::TargetServicePutResourceAsUnscalable, conclusion));
    }
    let until = cooldown::scale_in(inputs, cooldown_ms, now)?;
    let mut facts = facts.clone();
    facts.add("cooldown_remaining_ms", until.since(now));
    let conclusion = format!("the scale-in before still has {} to take effect", seconds(until.since(now)));
    Some(facts.wait(Some(until), ReasonCode::InCooldown, conclusion))
}

/// Scale in to a capacity; `in_blocked` was asked before.
pub fn in_to(inputs: &Inputs, mut facts: Facts, capacity: u32, how: &str) -> Scaling {
    let Inputs { target, desired, .. } = *inputs;
    facts.add("proposed", capacity);
    let to = capacity.max(target.min).min(target.max);
    if to >= desired {
        let conclusion = format!("{capacity} tasks are needed and {desired} are desired, so none can go");
        return facts.not(inputs, NotScaledCode::AlreadyAtDesiredCapacity, conclusion);
    }
    let limit = match () {
        _ if to > capacity => format!(", held at the minimum {}", target.min),
        _ if to < capacity => format!(", brought back to the maximum {}", target.max),
        _ => String::new(),
    };
    let conclusion = format!("{how}; desired {desired} -> {to}{limit}");
    Scaling::To { desired: to, reason: facts.reason(ReasonCode::ScaledIn, conclusion) }
}

/// A number for a sentence: two decimals at most.
pub fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub fn seconds(ms: Millis) -> String {
    format!("{} s", number(ms as f64 / 1000.0))
}
