//! How long a scaling step is given to take effect.

use super::Inputs;
use crate::model::scaling::{PolicyKind, ScalableTarget, Scaled, ScalingPolicy};
use crate::model::{Millis, Timestamp};

/// ECS's default for a cooldown that is not given (Application Auto Scaling, "Cooldown period": 300 s for ECS services).
pub const DEFAULT_MS: Millis = 300_000;

/// A cooldown begins when the new capacity runs. Capacity that is not there by then (no room, or tasks that fail) is waited for no
/// longer, and tasks that are missing later were not lost to that step.
const FULFILMENT_MS: Millis = 300_000;

/// What was scaled out last and still counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Out {
    /// Capacity before that step: what the next one starts from.
    pub from: u32,
    pub to: u32,
    /// When the cooldown ends. None: the capacity is still being started, and the cooldown counts from when it is not.
    pub until: Option<Timestamp>,
}

/// A step that is still to come was made before the clock was set back: nothing of it is waited for.
fn is_past(scaled: &Scaled, now: Timestamp) -> bool {
    scaled.at <= now
}

/// "While the scale-out cooldown period is in effect, the capacity added by the initiating scale-out activity is calculated as part
/// of the desired capacity for the next scale-out activity": add 2, then a step of 3, makes 1 more.
pub fn scale_out(inputs: &Inputs, cooldown_ms: Option<Millis>, now: Timestamp) -> Option<Out> {
    let last = inputs.target.last_out.as_ref().filter(|last| is_past(last, now))?;
    let until = last.at + cooldown_ms.unwrap_or(DEFAULT_MS);
    let starting = inputs.desired == last.to && inputs.running < last.to && now < last.at + FULFILMENT_MS;
    // Set back since, by a scale-in or by hand: nothing of that step is left to wait for.
    let undone = inputs.desired < last.to;
    match (undone, now < until, starting) {
        (true, _, _) | (false, false, false) => None,
        (false, true, _) => Some(Out { from: last.from, to: last.to, until: Some(until) }),
        (false, false, true) => Some(Out { from: last.from, to: last.to, until: None }),
    }
}

/// Until when scale-in is blocked by the scale-in before; a scale-out in between cancels that.
pub fn scale_in(inputs: &Inputs, cooldown_ms: Option<Millis>, now: Timestamp) -> Option<Timestamp> {
    let last = inputs.target.last_in.as_ref().filter(|last| is_past(last, now))?;
    if inputs.target.last_out.as_ref().is_some_and(|out| out.at > last.at) {
        return None;
    }
    let until = last.at + cooldown_ms.unwrap_or(DEFAULT_MS);
    (now < until).then_some(until)
}

/// What a policy says of its cooldown: a step policy has one for both directions.
pub fn of(policy: &PolicyKind, inward: bool) -> Option<Millis> {
    match policy {
        PolicyKind::TargetTracking(tracking) if inward => tracking.in_cooldown_ms,
        PolicyKind::TargetTracking(tracking) => tracking.out_cooldown_ms,
        PolicyKind::Step(step) => step.cooldown_ms,
    }
}

/// What is left of the cooldowns of a target, out and in, each by the policy that scaled last; for people who wait for them.
pub fn remaining(target: &ScalableTarget, desired: u32, policies: &[&ScalingPolicy], now: Timestamp) -> (Millis, Millis) {
    let until = |scaled: &Scaled, inward: bool| {
        let policy = policies.iter().find(|policy| policy.name == scaled.policy)?;
        Some(scaled.at + of(&policy.kind, inward).unwrap_or(DEFAULT_MS))
    };
    let left = |until: Option<Timestamp>| until.map_or(0, |until| until.since(now).max(0));
    let out = target.last_out.as_ref().filter(|last| desired >= last.to && is_past(last, now));
    let cancelled = |last: &Scaled| target.last_out.as_ref().is_some_and(|out| out.at > last.at);
    let inward = target.last_in.as_ref().filter(|last| !cancelled(last) && is_past(last, now));
    (left(out.and_then(|last| until(last, false))), left(inward.and_then(|last| until(last, true))))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, policy, target, tracking};
    use super::*;

    #[test]
    fn what_is_left_is_told_by_direction() {
        let cpu = policy("cpu", PolicyKind::TargetTracking(tracking()));
        let scaled = |ago: Millis, from, to| Some(Scaled { at: NOW - ago, from, to, policy: "cpu".to_owned() });
        for (name, last_out, last_in, desired, expected) in [
            ("never scaled", None, None, 3, (0, 0)),
            ("out 4 s ago", scaled(4_000, 1, 3), None, 3, (6_000, 0)),
            ("out, and set back since", scaled(4_000, 1, 3), None, 2, (0, 0)),
            ("in 1 s ago", None, scaled(1_000, 3, 2), 2, (0, 9_000)),
            ("in, then out", scaled(1_000, 2, 3), scaled(2_000, 3, 2), 3, (9_000, 0)),
            ("long ago", scaled(20_000, 2, 3), None, 3, (0, 0)),
            ("before the clock was set back", scaled(-600_000, 2, 3), scaled(-500_000, 3, 2), 3, (0, 0)),
        ] {
            let target = ScalableTarget { last_out, last_in, ..target(1, 9) };
            assert_eq!(remaining(&target, desired, &[&cpu], NOW), expected, "{name}");
            assert_eq!(remaining(&target, desired, &[], NOW), (0, 0), "{name}: its policy is gone");
        }
    }
}
