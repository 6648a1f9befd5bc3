//! What is said of an alert: the sentences, and the evidence that `why` shows.

use serde_json::json;

use super::{Alert, Breach, code};
use crate::model::alarm::{Alarm, AlarmState, External};
use crate::model::decision::Reason;
use crate::model::{Millis, Timestamp};

pub fn fires(alert: &Alert, breach: &Breach, now: Timestamp) -> Reason {
    let measured = if breach.given {
        format!("its value is {}, the threshold {}", annotation(alert, "value"), annotation(alert, "threshold"))
    } else {
        "its annotations value and threshold are not both numbers, so the breach counts as the smallest".to_owned()
    };
    let sentence = format!("Prometheus' rule {} fires since {}: {measured}", alert.rule(), alert.starts_at.iso());
    evidence(AlarmState::Alarm, sentence, alert, now)
}

pub fn resolved(alert: &Alert, now: Timestamp) -> Reason {
    let sentence =
        format!("Prometheus' rule {} does not fire any more, after {}", alert.rule(), long(now.since(alert.starts_at)));
    evidence(AlarmState::Ok, sentence, alert, now)
}

pub fn silent(known: &External, now: Timestamp) -> Reason {
    let silence = now.since(known.heard_at);
    let sentence = format!(
        "nothing was heard of the alert {} for {}, and it is repeated every {}: Prometheus or Alertmanager is away, or repeat_interval is longer there",
        known.rule,
        long(silence),
        long(known.repeat_ms)
    );
    Reason::new(code(AlarmState::InsufficientData), sentence)
        .with("rule", known.rule.clone())
        .with("silent_ms", silence)
        .with("repeat_ms", known.repeat_ms)
        .with("labels", json!(known.labels))
}

fn evidence(state: AlarmState, sentence: String, alert: &Alert, now: Timestamp) -> Reason {
    Reason::new(code(state), sentence)
        .with("rule", alert.rule())
        .with("value", annotation(alert, "value"))
        .with("threshold", annotation(alert, "threshold"))
        .with("labels", json!(alert.labels))
        .with("starts_at", alert.starts_at.iso())
        .with("told_after_ms", now.since(alert.starts_at))
        .with("expression_at", alert.generator_url.clone())
        .with("group_key", alert.group_key.clone())
        .with("fingerprint", alert.fingerprint.clone())
}

fn annotation<'a>(alert: &'a Alert, name: &str) -> &'a str {
    alert.annotations.get(name).map_or("", String::as_str)
}

/// In the manner of CloudWatch's StateReasonData, so that what reads that reads this.
pub fn reason_data(alert: &Alert, alarm: &Alarm, now: Timestamp) -> String {
    json!({
        "version": "1.0",
        "queryDate": now.in_reason_data(),
        "startDate": alert.starts_at.in_reason_data(),
        "recentDatapoints": alarm.recent,
        "threshold": alarm.threshold,
        "labels": alert.labels,
    })
    .to_string()
}

fn long(ms: Millis) -> String {
    let seconds = format!("{:.1}", ms as f64 / 1000.0);
    format!("{} s", seconds.trim_end_matches(".0"))
}
