//! What an alert that Alertmanager tells of does to the alarm that stands for it: opens, keeps or closes it, or nothing.
//!
//! Alertmanager says the same thing many times: it repeats what goes on, retries what we did not answer, and a pair of them says everything
//! twice. So each message is judged by what is known already, and one that brings nothing new changes nothing. Start at [`hear`].

mod breach;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::alarm::{Alarm, AlarmState, Comparison, External, MissingData};
use crate::model::decision::{Reason, ReasonCode};
use crate::model::metric::{MetricKey, Statistic};
use crate::model::scaling::{PolicyKind, ScalingPolicy};
use crate::model::{Millis, Timestamp};

pub use breach::{Breach, Direction};

/// The namespace of the metrics that such alarms are shown with.
pub const NAMESPACE: &str = "Prometheus";

/// A policy is asked again so often while an alert goes on; its cooldowns say when that does anything.
const ASK_EVERY_MS: Millis = 1_000;

/// So many repeats that do not come mean that Prometheus or Alertmanager is gone, not that one message was late.
const MISSED_REPEATS: i64 = 3;

/// The second Alertmanager of a pair waits 15 s for the first (its default `--cluster.peer-timeout`) and may then tell of an alert that
/// has meanwhile been resolved. What fires on after that was lost on the way to Alertmanager and has come back.
const STRAGGLERS_MS: Millis = 15_000;

/// Two messages of the same content within this are one message, said twice.
const TWICE_MS: Millis = 1_000;

/// One alert of a message, as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub firing: bool,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub starts_at: Timestamp,
    /// Of one that does not fire any more.
    pub ends_at: Option<Timestamp>,
    pub fingerprint: String,
    pub group_key: String,
    pub generator_url: String,
    pub repeat_ms: Millis,
}

impl Alert {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub fn rule(&self) -> &str {
        self.label("alertname").unwrap_or("unnamed")
    }
}

/// What a message was to us.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The alarm went into ALARM.
    Opened { alarm: Alarm, reason: Reason },
    /// It goes on: a repeat, perhaps with a newer value.
    Refreshed(Alarm),
    /// The alarm went to OK.
    Closed { alarm: Alarm, reason: Reason },
    /// Nothing that is not known already.
    Duplicate,
}

/// The alarm's name: one for each policy and each set of labels.
pub fn alarm_name(policy: &ScalingPolicy, fingerprint: &str) -> String {
    format!("Prometheus-{}-{}-{fingerprint}", policy.service.resource_id(), policy.name)
}

/// `before` is the alarm of that name as it is known. An alert is told apart by its fingerprint, and its life by `starts_at`: together with
/// whether it fires they say whether a message is news.
///
/// Alertmanager may move `starts_at` back within one life: of two Prometheus that tell it the same it keeps the earlier start. So an
/// earlier start alone makes no message an old one.
pub fn hear(before: Option<&Alarm>, alert: &Alert, policy: &ScalingPolicy, now: Timestamp) -> Heard {
    // An alarm that somebody has made anew with PutMetricAlarm is no longer Alertmanager's; the alert takes it back.
    let Some((before, known)) = before.and_then(|alarm| Some((alarm, alarm.external.as_ref()?))) else {
        return if alert.firing { opened(None, alert, policy, now) } else { Heard::Duplicate };
    };
    let known_life = alert.starts_at <= known.starts_at;
    match (alert.firing, before.state) {
        (true, AlarmState::Alarm) => {
            let again = external(alert, now);
            let same = (again.starts_at, &again.value, &again.threshold) == (known.starts_at, &known.value, &known.threshold);
            let twice = same && now.since(known.heard_at) < TWICE_MS;
            if twice { Heard::Duplicate } else { Heard::Refreshed(raised(before, alert, policy, now)) }
        }
        (true, _) => {
            let straggler = known_life && known.resolved_at.is_some_and(|at| now.since(at) < STRAGGLERS_MS);
            if straggler { Heard::Duplicate } else { opened(Some(before), alert, policy, now) }
        }
        (false, AlarmState::Ok) if known_life => Heard::Duplicate,
        // The end of a life before the one that goes on.
        (false, _) if alert.starts_at < known.starts_at && alert.ends_at.is_some_and(|at| at <= known.starts_at) => {
            Heard::Duplicate
        }
        (false, _) => closed(before, alert, now),
    }
}

fn external(alert: &Alert, now: Timestamp) -> External {
    let annotation = |name: &str| alert.annotations.get(name).cloned();
    External {
        rule: alert.rule().to_owned(),
        group_key: alert.group_key.clone(),
        fingerprint: alert.fingerprint.clone(),
        starts_at: alert.starts_at,
        labels: alert.labels.clone(),
        value: annotation("value"),
        threshold: annotation("threshold"),
        generator_url: alert.generator_url.clone(),
        repeat_ms: alert.repeat_ms,
        heard_at: now,
        resolved_at: None,
        reopened: false,
    }
}

/// The alarm with what the message says, in whatever state it was.
fn raised(before: &Alarm, alert: &Alert, policy: &ScalingPolicy, now: Timestamp) -> Alarm {
    let breach = Breach::of(alert);
    let reopened = before.external.as_ref().is_some_and(|known| known.reopened && alert.starts_at <= known.starts_at);
    Alarm {
        alarm_actions: vec![policy.arn.clone()],
        threshold: breach.threshold,
        comparison: breach.comparison(),
        recent: vec![breach.value],
        external: Some(External { reopened, ..external(alert, now) }),
        ..before.clone()
    }
}

fn opened(before: Option<&Alarm>, alert: &Alert, policy: &ScalingPolicy, now: Timestamp) -> Heard {
    let fresh = || fresh(alert, policy, now);
    let mut alarm = raised(&before.map_or_else(fresh, Alarm::clone), alert, policy, now);
    let known_life = before.and_then(|b| b.external.as_ref()).is_some_and(|known| alert.starts_at <= known.starts_at);
    alarm.external = alarm.external.map(|told| External { reopened: known_life, ..told });
    let reason = text::fires(alert, &Breach::of(alert), now);
    let data = text::reason_data(alert, &alarm, now);
    Heard::Opened {
        alarm: Alarm {
            state: AlarmState::Alarm,
            state_reason: reason.sentence.clone(),
            state_reason_data: Some(data),
            state_updated_at: now,
            state_transitioned_at: now,
            // What the alarm is about came with the message, too.
            configuration_updated_at: now,
            ..alarm
        },
        reason,
    }
}

fn closed(before: &Alarm, alert: &Alert, now: Timestamp) -> Heard {
    let reason = text::resolved(alert, now);
    let known = External { resolved_at: Some(now), ..external(alert, now) };
    Heard::Closed {
        alarm: Alarm {
            state: AlarmState::Ok,
            state_reason: reason.sentence.clone(),
            state_reason_data: Some(text::reason_data(alert, before, now)),
            state_updated_at: now,
            state_transitioned_at: if before.state == AlarmState::Ok { before.state_transitioned_at } else { now },
            external: Some(known),
            ..before.clone()
        },
        reason,
    }
}

fn fresh(alert: &Alert, policy: &ScalingPolicy, now: Timestamp) -> Alarm {
    let key = &policy.service;
    let dimensions = [("ClusterName", key.cluster.as_str()), ("ServiceName", key.service.as_str())];
    Alarm {
        name: alarm_name(policy, &alert.fingerprint),
        description: Some(format!("The alert {} of Prometheus, as Alertmanager tells of it.", alert.rule())),
        actions_enabled: true,
        ok_actions: Vec::new(),
        alarm_actions: Vec::new(),
        insufficient_data_actions: Vec::new(),
        metric: MetricKey::new(NAMESPACE, alert.rule(), dimensions),
        statistic: Statistic::Average,
        period_s: 1,
        unit: None,
        evaluation_periods: 1,
        datapoints_to_alarm: None,
        threshold: 0.0,
        comparison: Comparison::GreaterThanOrEqualToThreshold,
        missing: MissingData::Missing,
        missing_given: false,
        owned_by_policy: None,
        state: AlarmState::InsufficientData,
        state_reason: String::new(),
        state_reason_data: None,
        recent: Vec::new(),
        state_updated_at: now,
        state_transitioned_at: now,
        configuration_updated_at: now,
        tags: Vec::new(),
        trace: None,
        external: None,
    }
}

/// What is to be done about an alarm of an alert when no message comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// It goes on: ask its policy, and look again then.
    Ask { again: Timestamp },
    /// Nobody has spoken of it for too long.
    Expired { alarm: Box<Alarm>, reason: Reason },
    /// It is not raised.
    Rest,
}

/// When a raised alarm is given up, if nothing more is heard of its alert.
pub fn expires_at(known: &External) -> Timestamp {
    known.heard_at + known.repeat_ms.saturating_mul(MISSED_REPEATS)
}

pub fn look(alarm: &Alarm, known: &External, now: Timestamp) -> Look {
    if alarm.state != AlarmState::Alarm {
        return Look::Rest;
    }
    let until = expires_at(known);
    if now < until {
        return Look::Ask { again: until.min(now + ASK_EVERY_MS) };
    }
    let reason = text::silent(known, now);
    let alarm = Alarm {
        state: AlarmState::InsufficientData,
        state_reason: reason.sentence.clone(),
        state_updated_at: now,
        state_transitioned_at: now,
        ..alarm.clone()
    };
    Look::Expired { alarm: Box::new(alarm), reason }
}

/// Which of its own alarms a target-tracking policy is to look through: its metric decides, not the alert's value. None: a step policy,
/// which takes the alert's.
pub fn own_metric(alarm: &Alarm, known: &External, policy: &ScalingPolicy) -> Option<(String, Comparison)> {
    let PolicyKind::TargetTracking(_) = policy.kind else { return None };
    let direction = Direction::of(known.labels.get("direction").map(String::as_str)).ok().flatten();
    let out = direction.map_or(alarm.comparison.upward(), |d| d == Direction::Out);
    let comparison = if out { Comparison::GreaterThanThreshold } else { Comparison::LessThanThreshold };
    // A policy that does not scale in has no low alarm; its high one looks at the same metric.
    let name = policy.alarms.get(usize::from(!out)).or(policy.alarms.first())?;
    Some((name.clone(), comparison))
}

/// Why an alert is none of ours.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unusable {
    #[error("the alert has no label {0}; a scaling rule needs cluster, service and policy (alerts/README.md)")]
    LabelMissing(&'static str),
    #[error("the label direction is {0:?}; it is out, in or absent")]
    Direction(String),
}

/// The service and policy that an alert names.
pub fn addressed(alert: &Alert) -> Result<(&str, &str, &str), Unusable> {
    let need = |name: &'static str| alert.label(name).ok_or(Unusable::LabelMissing(name));
    let named = (need("cluster")?, need("service")?, need("policy")?);
    Direction::of(alert.label("direction")).map_err(Unusable::Direction)?;
    Ok(named)
}

pub(crate) fn code(state: AlarmState) -> ReasonCode {
    match state {
        AlarmState::Ok => ReasonCode::AlarmOk,
        AlarmState::Alarm => ReasonCode::AlarmRaised,
        AlarmState::InsufficientData => ReasonCode::AlarmNoData,
    }
}
