//! How long a scaling step is given to take effect.

use super::Inputs;
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

/// "While the scale-out cooldown period is in effect, the capacity added by the initiating scale-out activity is calculated as part
/// of the desired capacity for the next scale-out activity": add 2, then a step of 3, makes 1 more.
pub fn scale_out(inputs: &Inputs, cooldown_ms: Option<Millis>, now: Timestamp) -> Option<Out> {
    let last = inputs.target.last_out.as_ref()?;
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
    let last = inputs.target.last_in.as_ref()?;
    if inputs.target.last_out.as_ref().is_some_and(|out| out.at > last.at) {
        return None;
    }
    let until = last.at + cooldown_ms.unwrap_or(DEFAULT_MS);
    (now < until).then_some(until)
}
