//! What state an alarm is in, given what its metric did: CloudWatch's rules for M of N and for missing data, to the word.

use crate::model::alarm::{Alarm, AlarmState};
use crate::model::decision::Reason;
use crate::model::metric::Datapoint;
use crate::model::{Millis, Timestamp};

/// What an alarm looks at: `periods` consecutive periods of `period_ms` from `start`, the last of them complete.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub start: Timestamp,
    pub end: Timestamp,
    pub period_ms: Millis,
    pub periods: u32,
}

/// The range to fetch for an evaluation now. `settle_ms` is how long after a period's end its data may still arrive.
pub fn range(alarm: &Alarm, now: Timestamp, settle_ms: Millis) -> Range {
    todo!("{alarm:?} {now} {settle_ms}")
}

/// When to look again: when the next period is complete, at the latest.
pub fn next_evaluation(alarm: &Alarm, now: Timestamp, settle_ms: Millis) -> Timestamp {
    todo!("{alarm:?} {now} {settle_ms}")
}

#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub state: AlarmState,
    /// CloudWatch's StateReason.
    pub state_reason: String,
    /// CloudWatch's StateReasonData, JSON text.
    pub state_reason_data: String,
    /// The newest values, oldest first (the reason data's recentDatapoints).
    pub recent: Vec<f64>,
    /// The state is another than before.
    pub transition: bool,
    pub reason: Reason,
}

/// `points` are the range's datapoints that exist, oldest first. None: keep the state as it is (ignored missing data).
pub fn evaluate(alarm: &Alarm, range: Range, points: &[Datapoint], now: Timestamp) -> Option<Verdict> {
    todo!("{alarm:?} {range:?} {points:?} {now}")
}
