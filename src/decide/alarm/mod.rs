//! What state an alarm is in, given what its metric did: CloudWatch's rules for M of N and for missing data, to the word.
//!
//! Owns the window that an alarm looks at, its cadence, its state and the texts that say why. Never fetches a datapoint, stores
//! a state or runs an action. Start reading at [`evaluate`]; the rules themselves are in [`judge`], the texts in [`reason`].

pub mod history;
pub mod judge;
pub mod reason;
mod validate;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

use serde_json::json;

use crate::model::alarm::{Alarm, AlarmState};
use crate::model::decision::{Reason, ReasonCode};
use crate::model::metric::Datapoint;
use crate::model::{Millis, Timestamp};

pub use validate::{Invalid, validate};

/// The StateReason that PutMetricAlarm leaves behind until the first evaluation (there is no StateReasonData then).
pub const INITIAL_STATE_REASON: &str = "Unchecked: Initial alarm creation";

/// How many of the newest values an alarm remembers.
pub const RECENT_AT_MOST: usize = 100;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// Evaluation happens at least this often, unless the alarm looks back over more than a day. CloudWatch evaluates 10, 20 and
/// 30 s periods every 10 s too, but longer ones only once a minute: a minute to notice what a second of data showed.
const CADENCE_AT_MOST: Millis = 10_000;

/// Namespaces that Beaufort fills itself, one point a second. Windows of whole minutes may begin at any second there; elsewhere a
/// point may stand for its whole minute, and a window that ended inside that minute would take a part of it for all of it.
const MEASURED_EVERY_SECOND: [&str; 2] = ["AWS/ECS", "ECS/ContainerInsights"];

/// What an alarm looks at: `periods` consecutive periods of `period_ms` from `start`, the last of them complete.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub start: Timestamp,
    pub end: Timestamp,
    pub period_ms: Millis,
    pub periods: u32,
}

/// The range to fetch for an evaluation now. `settle_ms` is how long after a period's end its data may still arrive.
///
/// It slides (CloudWatch, EvaluationWindow: SlidingWindow, the default): a 5-minute period covers minutes 1 to 5, then 2 to 6.
/// It holds more periods than the alarm asks for, so that a gap can be bridged with older points ("evaluation range"; its length
/// is not published beyond "5 for N=3", which N + max(N/3, 2) gives).
pub fn range(alarm: &Alarm, now: Timestamp, settle_ms: Millis) -> Range {
    let period_ms = period_ms(alarm);
    let wanted = alarm.evaluation_periods.max(1);
    let periods = wanted.saturating_add((wanted / 3).max(2));
    let end = (now - settle_ms).floor(window_step(alarm));
    Range { start: end - period_ms.saturating_mul(i64::from(periods)), end, period_ms, periods }
}

/// When to look again: when the next period is complete, at the latest.
pub fn next_evaluation(alarm: &Alarm, now: Timestamp, settle_ms: Millis) -> Timestamp {
    let cadence = cadence(alarm);
    (now - settle_ms).floor(cadence) + cadence + settle_ms
}

fn period_ms(alarm: &Alarm) -> Millis {
    i64::from(alarm.period_s.max(1)) * 1_000
}

/// Every period up to 10 s, every 10 s above; once an hour over more than a day (CloudWatch does the same, and reading a week of
/// points every 10 s would buy nothing).
fn cadence(alarm: &Alarm) -> Millis {
    if over_a_day(alarm) { HOUR } else { period_ms(alarm).min(CADENCE_AT_MOST) }
}

/// The grid on which the window's end lies. A window on whole minutes is still evaluated at the cadence: data that comes late
/// counts within seconds.
fn window_step(alarm: &Alarm) -> Millis {
    let every_second = MEASURED_EVERY_SECOND.contains(&&*alarm.metric.namespace);
    match cadence(alarm) {
        HOUR => HOUR,
        _ if period_ms(alarm) >= MINUTE && !every_second => MINUTE,
        cadence => cadence,
    }
}

fn over_a_day(alarm: &Alarm) -> bool {
    period_ms(alarm).saturating_mul(i64::from(alarm.evaluation_periods)) > DAY
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

/// `points` are the range's datapoints that exist, oldest first. None: keep the state as it is (ignored missing data, or too early
/// to tell).
pub fn evaluate(alarm: &Alarm, range: Range, points: &[Datapoint], now: Timestamp) -> Option<Verdict> {
    let judgement = judge::judge(alarm, range, points);
    let state = judgement.state?;
    let state_reason = reason::state_reason(alarm, &judgement, state);
    let state_reason_data = reason::state_reason_data(alarm, &judgement, now);
    let recent = judgement.recent(RECENT_AT_MOST);
    let code = match state {
        AlarmState::Ok => ReasonCode::AlarmOk,
        AlarmState::Alarm => ReasonCode::AlarmRaised,
        AlarmState::InsufficientData => ReasonCode::AlarmNoData,
    };
    let reason = Reason::new(code, state_reason.clone())
        .with("metric", alarm.metric.to_string())
        .with("statistic", alarm.statistic.to_string())
        .with("period_s", alarm.period_s)
        .with("evaluation_periods", alarm.evaluation_periods)
        .with("datapoints_to_alarm", judge::datapoints_to_alarm(alarm))
        .with("comparison", alarm.comparison.as_str())
        .with("threshold", alarm.threshold)
        .with("datapoints_received", judgement.received)
        .with("datapoints_breaching", judgement.breaching)
        .with("treat_missing_data", judge::missing_mode(alarm).as_str())
        .with("rule", judgement.rule.as_str())
        .with("recent", json!(recent))
        .with("window_start", range.start.iso())
        .with("window_end", range.end.iso())
        .with("state_before", alarm.state.as_str());
    Some(Verdict { state, state_reason, state_reason_data, recent, transition: state != alarm.state, reason })
}
