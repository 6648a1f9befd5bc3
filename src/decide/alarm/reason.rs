//! The texts that clients parse and people read: StateReason and StateReasonData, letter for letter as CloudWatch writes them.

use serde::Serialize;

use super::RECENT_AT_MOST;
use super::judge::{Evaluated, Judgement, Rule, datapoints_to_alarm, missing_mode};
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmState, MissingData};

/// SetAlarmState accepts no longer StateReasonData, and so writes none.
pub const REASON_DATA_AT_MOST: usize = 4_000;

/// How many datapoints a sentence lists inside itself, and how many behind itself.
const LISTED_INLINE: usize = 3;
const LISTED_BEHIND: usize = 5;

pub fn state_reason(alarm: &Alarm, judgement: &Judgement, state: AlarmState) -> String {
    match (state, judgement.rule) {
        (AlarmState::InsufficientData, _) => {
            let (count, are) = (alarm.evaluation_periods, plural(alarm.evaluation_periods, "was", "were"));
            format!("Insufficient Data: {} {are} unknown.", datapoints(count))
        }
        (_, Rule::Empty | Rule::Filled) => filled(alarm, judgement, state),
        (_, Rule::Complete | Rule::Partial | Rule::Premature) => crossed(alarm, judgement, state),
    }
}

/// `no datapoints were received for 2 periods and 2 missing datapoints were treated as [NonBreaching].`
fn filled(alarm: &Alarm, judgement: &Judgement, state: AlarmState) -> String {
    let periods = alarm.evaluation_periods;
    let missing = periods - judgement.received.min(periods);
    let received = match judgement.received {
        0 => "no datapoints were".to_owned(),
        count => format!("{} {}", datapoints(count), plural(count, "was", "were")),
    };
    // CloudWatch says NonBreaching here, not its own notBreaching.
    let treated = if missing_mode(alarm) == MissingData::Breaching { "Breaching" } else { "NonBreaching" };
    format!(
        "Threshold Crossed: {received} received for {periods} {} and {missing} missing {} treated as [{treated}]{}.",
        plural(periods, "period", "periods"),
        plural(missing, "datapoint was", "datapoints were"),
        minimum(alarm, state),
    )
}

/// What the datapoints themselves say.
fn crossed(alarm: &Alarm, judgement: &Judgement, state: AlarmState) -> String {
    let raised = state == AlarmState::Alarm;
    let satisfying: Vec<&Evaluated> =
        judgement.evaluated.iter().filter(|e| e.point.is_some_and(|p| p.breaches == raised)).collect();
    let count = satisfying.len() as u32;
    let verdict = format!(
        "{}{} {} the threshold ({})",
        plural(count, "was", "were"),
        if raised { "" } else { " not" },
        alarm.comparison.words(),
        decimal(alarm.threshold),
    );
    let newest: Vec<&Evaluated> = satisfying.iter().copied().take(LISTED_BEHIND).collect();

    if alarm.datapoints_to_alarm.is_none() {
        return match satisfying.as_slice() {
            [only] => format!("Threshold Crossed: 1 datapoint [{}] {verdict}.", dated(&[only])),
            _ if raised => format!(
                "Threshold Crossed: {count} datapoints {verdict}. The most recent datapoints which crossed the threshold: [{}].",
                dated(&newest)
            ),
            _ => {
                // The OK sentence is an older one: without times, oldest first.
                let values: Vec<String> = newest.iter().rev().filter_map(|e| e.point).map(|p| decimal(p.value)).collect();
                let values = values.join(", ");
                format!("Threshold Crossed: {count} datapoints {verdict}. The most recent datapoints: [{values}].")
            }
        };
    }
    let of = judgement.received;
    let minimum = minimum(alarm, state);
    if satisfying.len() <= LISTED_INLINE {
        return format!(
            "Threshold Crossed: {count} out of the last {of} datapoints [{}] {verdict}{minimum}.",
            dated(&satisfying)
        );
    }
    let which = if raised { " which crossed the threshold" } else { "" };
    format!(
        "Threshold Crossed: {count} out of the last {of} datapoints {verdict}. The most recent datapoints{which}: [{}]{minimum}.",
        dated(&newest)
    )
}

/// ` (minimum 3 datapoints for OK -> ALARM transition)`, where DatapointsToAlarm is set: M to raise it, N-M+1 to end it.
fn minimum(alarm: &Alarm, state: AlarmState) -> String {
    let Some(_) = alarm.datapoints_to_alarm else { return String::new() };
    let to_alarm = datapoints_to_alarm(alarm);
    let (count, transition) = match state {
        AlarmState::Alarm => (to_alarm, "OK -> ALARM"),
        _ => (alarm.evaluation_periods.saturating_sub(to_alarm) + 1, "ALARM -> OK"),
    };
    format!(" (minimum {} for {transition} transition)", datapoints(count))
}

fn datapoints(count: u32) -> String {
    format!("{count} {}", plural(count, "datapoint", "datapoints"))
}

fn plural<'a>(count: u32, one: &'a str, more: &'a str) -> &'a str {
    if count == 1 { one } else { more }
}

/// `21.5 (20/11/26 10:00:00), 20.0 (...)`.
fn dated(entries: &[&Evaluated]) -> String {
    let texts: Vec<String> =
        entries.iter().filter_map(|e| e.point.map(|p| format!("{} ({})", decimal(p.value), e.at.in_state_reason()))).collect();
    texts.join(", ")
}

/// A number as Java's Double.toString writes it: `70.0`, `1.0E7`, `5.0E-4`.
pub fn decimal(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e7).contains(&size) || !value.is_finite() {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => text,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReasonData<'a> {
    version: &'static str,
    query_date: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_date: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    statistic: String,
    period: u32,
    recent_datapoints: Vec<f64>,
    threshold: f64,
    evaluated_datapoints: Vec<EvaluatedDatapoint>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EvaluatedDatapoint {
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_count: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
}

/// JSON text of at most 4,000 characters: where it would be longer, the oldest datapoints go.
pub fn state_reason_data(alarm: &Alarm, judgement: &Judgement, now: Timestamp) -> String {
    let mut keep = judgement.evaluated.len().min(RECENT_AT_MOST);
    loop {
        let text = reason_data_of(alarm, judgement, now, keep);
        if text.len() <= REASON_DATA_AT_MOST || keep == 0 {
            return text;
        }
        keep = keep * 3 / 4;
    }
}

fn reason_data_of(alarm: &Alarm, judgement: &Judgement, now: Timestamp, keep: usize) -> String {
    let data = ReasonData {
        version: "1.0",
        query_date: now.in_reason_data(),
        // No data: no startDate.
        start_date: judgement.evaluated.iter().rfind(|e| e.point.is_some()).map(|e| e.at.in_reason_data()),
        unit: alarm.unit.as_deref(),
        statistic: alarm.statistic.to_string(),
        period: alarm.period_s,
        recent_datapoints: judgement.recent(keep),
        threshold: alarm.threshold,
        evaluated_datapoints: judgement
            .evaluated
            .iter()
            .take(keep)
            .map(|e| EvaluatedDatapoint {
                timestamp: e.at.in_reason_data(),
                sample_count: e.point.map(|p| p.sample_count),
                value: e.point.map(|p| p.value),
            })
            .collect(),
    };
    // Strings and finite numbers only: serialising them cannot fail.
    serde_json::to_string(&data).unwrap_or_default()
}
