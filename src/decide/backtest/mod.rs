//! What scaling policies would have made of what was recorded: the alarms are judged and the policies asked as the control loops
//! do it, by the same functions, over a simulated service whose tasks come and go as the policies say.
//!
//! Owns the simulated service and the model of what a metric would have been on another capacity; both say what they assume.
//! Never reads a metric: the record is given. Start reading at [`run`]; [`model`] is where the counterfactual is made.
//!
//! Open for other kinds of scaling: whatever may ask for another capacity is an [`Actor`]. Alarms with their policies are one
//! ([`reactive`]); a schedule or a forecast would be others, in the same list.

pub mod figures;
pub mod model;
mod reactive;
mod service;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::model::alarm::Alarm;
use crate::model::decision::Reason;
use crate::model::scaling::{ScalableTarget, ScalingPolicy};
use crate::model::{Millis, Timestamp};

pub use figures::{Figures, Move, Yardstick};
pub use model::{Model, Record, Series};
pub use service::Simulated;

const SECOND: Millis = 1_000;

/// A policy and the alarms that run it.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    pub policy: ScalingPolicy,
    pub alarms: Vec<Alarm>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// The policies' answers are carried out in the simulated service, and the metric follows its capacity.
    Closed,
    /// Capacity and metric stay as they were recorded: what would have been said at each moment of what was.
    Open,
}

#[derive(Clone, Debug)]
pub struct Setup {
    /// Whole seconds; the record begins earlier, so that the first evaluation has datapoints.
    pub start: Timestamp,
    pub end: Timestamp,
    /// How long after a period's end its data may still arrive.
    pub settle_ms: Millis,
    /// From a new desired count to tasks that run.
    pub start_delay_ms: Millis,
    pub feedback: Feedback,
    /// What was done, for [`Feedback::Open`].
    pub moves: Vec<Move>,
    /// Bounds and what is suspended; what was scaled last, if that is known.
    pub target: ScalableTarget,
    pub contenders: Vec<Contender>,
}

/// Something that may ask for another capacity.
pub trait Actor {
    /// When it looks next.
    fn next(&self) -> Timestamp;
    /// It looks, and may change what the service desires.
    fn look(&mut self, record: &Record, service: &mut Simulated, now: Timestamp);
}

/// An answer of a policy; one that is the same as before, and changes nothing, is not told again.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    pub at: Timestamp,
    pub policy: String,
    pub alarm: String,
    pub from: u32,
    /// None: nothing changes.
    pub to: Option<u32>,
    pub reason: Reason,
    /// Of a scale-out that is the first answer to a breach: when the breach began.
    pub breach_at: Option<Timestamp>,
    /// When its tasks run.
    pub ready_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub start: Timestamp,
    /// One entry a second.
    pub desired: Vec<u32>,
    pub running: Vec<u32>,
    /// The first contender's metric, as it would have been. None: no data.
    pub metric: Vec<Option<f64>>,
    pub decided: Vec<Decided>,
    /// Seconds in which the load was more than the metric can show.
    pub saturated_s: u64,
}

/// One second of the past at a time, from the start to the end.
pub fn run(setup: &Setup, record: &Record) -> Outcome {
    let mut service = Simulated::new(setup, record);
    let mut actors: Vec<Box<dyn Actor>> = vec![Box::new(reactive::Reactive::new(setup))];
    loop {
        let next = actors.iter().map(|actor| actor.next()).min().filter(|next| *next < setup.end);
        let Some(now) = next else { break };
        service.pass(record, now);
        for actor in actors.iter_mut().filter(|actor| actor.next() <= now) {
            actor.look(record, &mut service, now);
        }
    }
    service.pass(record, setup.end);
    service.outcome(setup, record)
}
