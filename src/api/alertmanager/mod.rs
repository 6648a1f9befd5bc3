//! `POST /alertmanager/v2/scale`: alerts of Prometheus that scale services. Each opens, keeps or closes an alarm; what the alarm then does
//! is the alarms' loop's, as for every other alarm.
//!
//! Alertmanager repeats a 4xx at every group interval for ever and retries a 5xx with growing pauses. So an alert that can never work is
//! answered 200, counted and shown (`/api/alerts`, `beaufort alerts`), 503 means "not now", and only what is no message of Alertmanager's is
//! refused.

mod payload;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::native::{Answer, Refusal, bad, ok, unavailable};
use super::{App, same_secret};
use crate::decide::alarm::history;
use crate::decide::alert::{self, Alert, Heard};
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::decision::{Decision, Reason, Subject};
use crate::model::scaling::ScalingPolicy;
use crate::model::{Millis, ServiceKey};
use crate::observe::{self, AlertOutcome};
use crate::schedule::scaling::service_of;
use crate::store::{self, Change, State, Tx};

use payload::Message;
pub use seen::Seen;

pub const PATH: &str = "/alertmanager/v2/scale";

/// Alertmanager gives up on an answer after 10 s and holds the group meanwhile; so long we try, and then it may come again.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// Alarms of alerts that one service may have; one that is over makes room for a new one. A rule that keeps a label per task or instance
/// makes one for each of them.
const MOST_OPEN: usize = 100;
/// When the webhook's URL does not say how often its route repeats.
const REPEAT_MS: Millis = 30_000;
const REPEAT_AT_LEAST_MS: Millis = 1_000;
const REPEAT_AT_MOST_MS: Millis = 7 * 24 * 3_600_000;

pub async fn receive(app: &Arc<App>, authorization: Option<&str>, query: &str, body: &[u8]) -> Result<Answer, Refusal> {
    let received = match admit(app, authorization, query, body) {
        Ok(message) => take_in(app, message).await,
        Err(refusal) => Err(refusal),
    };
    observe::webhook_post(received.as_ref().map_or_else(|refusal| refusal.status, |answer| answer.status), app.clock.now());
    received
}

fn admit(app: &App, authorization: Option<&str>, query: &str, body: &[u8]) -> Result<Message, Refusal> {
    let refuse = |error: &str, hint| Refusal { status: 401, error: error.to_owned(), hint };
    let Some(token) = &app.webhook_token else {
        return Err(refuse(
            "this Beaufort takes no alerts",
            "start it with --webhook-token-file FILE, and let Alertmanager's http_config.authorization send what the file holds",
        ));
    };
    let given = authorization.and_then(|given| given.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if !given.is_some_and(|(_, given)| same_secret(given.trim(), token)) {
        return Err(refuse(
            "the webhook token is missing or wrong",
            "send `Authorization: Bearer TOKEN` with the token of --webhook-token-file",
        ));
    }
    payload::read(body, repeat_interval(query)?).map_err(bad)
}

/// `?repeat_interval=30s`: stands in the receiver's URL, beside the route's repeat_interval that it copies.
fn repeat_interval(query: &str) -> Result<Millis, Refusal> {
    let given = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "repeat_interval");
    let Some((_, text)) = given else { return Ok(REPEAT_MS) };
    let wrong = || bad(format!("repeat_interval={text} is no time between 1s and 7d, as in 30s, 5m or 4h"));
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let unit = match &text[digits..] {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let ms = text[..digits].parse::<Millis>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
    (REPEAT_AT_LEAST_MS..=REPEAT_AT_MOST_MS).contains(&ms).then_some(ms).ok_or_else(wrong)
}

/// All that a message says is one change: it is answered when that is durable, and acted upon by the loop that watches the store.
async fn take_in(app: &Arc<App>, message: Message) -> Result<Answer, Refusal> {
    let span = tracing::info_span!("alertmanager.webhook", alerts = message.alerts.len(), otel.name = "alertmanager.webhook");
    let trace = span.in_scope(observe::traceparent);
    let inner = app.clone();
    let alerts = message.alerts;
    let stored = app.store.update("alerts", move |tx| {
        let outcomes: Vec<Outcome> = alerts.into_iter().map(|alert| one(tx, alert, trace.as_deref())).collect();
        Ok::<_, store::Error>(outcomes)
    });
    let outcomes = match tokio::time::timeout(ANSWER_WITHIN, stored).await {
        Ok(Ok(outcomes)) => outcomes,
        Ok(Err(error)) => return Err(unavailable(error)),
        Err(_) => return Err(unavailable("the alerts could not be stored within a second")),
    };
    if message.truncated > 0 {
        tracing::warn!(
            alerts = message.truncated,
            "Alertmanager left alerts out of its message: its receiver's max_alerts is too small"
        );
        observe::webhook_truncated(message.truncated);
    }
    let mut counts = BTreeMap::<&str, u64>::new();
    for outcome in outcomes {
        observe::webhook_alert(outcome.word);
        if let Some(turn) = &outcome.turn {
            observe::alarm_transition(turn.to.as_str());
            tracing::info!(alarm = %turn.alarm, from = turn.from, to = turn.to.as_str(), reason = %turn.why, "alarm changed");
        }
        *counts.entry(outcome.word.as_str()).or_default() += 1;
        if outcome.word == AlertOutcome::Heartbeat {
            observe::webhook_heartbeat(inner.clock.now());
        }
        if let Some((alert, why)) = outcome.unusable {
            tracing::debug!(alert = alert.rule(), %why, "an alert changes nothing");
            inner.alerts.unusable(&alert, why, inner.clock.now());
        }
    }
    Ok(ok(&json!({ "alerts": counts, "truncated": message.truncated })))
}

struct Outcome {
    word: AlertOutcome,
    /// The alert that changes nothing, and why.
    unusable: Option<(Alert, String)>,
    /// The alarm that went into another state: told once that is durable.
    turn: Option<Turn>,
}

struct Turn {
    alarm: String,
    from: &'static str,
    to: AlarmState,
    why: String,
}

impl Outcome {
    fn of(word: AlertOutcome) -> Outcome {
        Outcome { word, unusable: None, turn: None }
    }
    fn unusable(word: AlertOutcome, alert: Alert, why: String) -> Outcome {
        Outcome { unusable: Some((alert, why)), ..Outcome::of(word) }
    }
}

fn one(tx: &mut Tx, alert: Alert, trace: Option<&str>) -> Outcome {
    if alert.label("beaufort_action") == Some("heartbeat") {
        // Resolved, it tells that Prometheus is gone.
        let word = if alert.firing { AlertOutcome::Heartbeat } else { AlertOutcome::Closed };
        return Outcome::of(word);
    }
    let policy = match policy_of(tx.state(), &alert) {
        Ok(policy) => policy,
        Err(why) => return Outcome::unusable(AlertOutcome::Unknown, alert, why),
    };
    let name = alert::alarm_name(&policy, &alert.fingerprint);
    let before = tx.state().alarms.get(&name).cloned();
    if before.is_none() && alert.firing && !make_room(tx, &policy.service) {
        let why = format!(
            "the service has {MOST_OPEN} alerts already; does the rule keep a label of each task or instance? aggregate by (cluster, service)"
        );
        return Outcome::unusable(AlertOutcome::Refused, alert, why);
    }
    match alert::hear(before.as_deref(), &alert, &policy, tx.now) {
        Heard::Duplicate => Outcome::of(AlertOutcome::Duplicate),
        Heard::Refreshed(alarm) => {
            tx.put(alarm);
            Outcome::of(AlertOutcome::Refreshed)
        }
        Heard::Opened { alarm, reason } => turn(tx, AlertOutcome::Opened, before.as_deref(), alarm, reason, trace),
        Heard::Closed { alarm, reason } => turn(tx, AlertOutcome::Closed, before.as_deref(), alarm, reason, trace),
    }
}

/// False: all the alarms that a service may have are raised.
fn make_room(tx: &mut Tx, service: &ServiceKey) -> bool {
    if alarms_of(tx.state(), service).count() < MOST_OPEN {
        return true;
    }
    let over = alarms_of(tx.state(), service).filter(|alarm| alarm.state != AlarmState::Alarm);
    let Some(name) = over.min_by_key(|alarm| alarm.state_updated_at).map(|alarm| alarm.name.clone()) else { return false };
    tx.put(Change::Alarm(name, None));
    true
}

fn policy_of(state: &State, alert: &Alert) -> Result<Arc<ScalingPolicy>, String> {
    let (cluster, service, policy) = alert::addressed(alert).map_err(|why| why.to_string())?;
    let key = ServiceKey::new(cluster, service);
    if !state.services.contains_key(&key) {
        return Err(format!("there is no service {key}"));
    }
    state.policies.get(&(key.clone(), policy.to_owned())).cloned().ok_or_else(|| {
        format!("service {key} has no scaling policy {policy}; aws application-autoscaling put-scaling-policy makes one")
    })
}

/// The alarms of alerts that a service has.
pub fn alarms_of<'a>(state: &'a State, service: &'a ServiceKey) -> impl Iterator<Item = &'a Arc<Alarm>> {
    // Their names begin with the service's, so few others are looked at: those of services whose names go on after a dash.
    let prefix = format!("Prometheus-{}-", service.resource_id());
    state
        .alarms
        .range(prefix.clone()..)
        .take_while(move |(name, _)| name.starts_with(&prefix))
        .map(|(_, alarm)| alarm)
        .filter(|alarm| alarm.external.is_some() && service_of(alarm).as_ref() == Some(service))
}

fn turn(tx: &mut Tx, word: AlertOutcome, before: Option<&Alarm>, alarm: Alarm, reason: Reason, trace: Option<&str>) -> Outcome {
    let now = tx.now;
    let alarm = Alarm { trace: trace.map(str::to_owned), ..alarm };
    let turn = Turn {
        alarm: alarm.name.clone(),
        from: before.map_or("none", |b| b.state.as_str()),
        to: alarm.state,
        why: reason.sentence.clone(),
    };
    // The history of a new alarm begins as that of any other.
    let unraised = Alarm { state: AlarmState::InsufficientData, ..alarm.clone() };
    let shown = before.unwrap_or(&unraised);
    tx.alarm_history(history::state_set(shown, alarm.state, &alarm.state_reason, alarm.state_reason_data.as_deref(), now));
    tx.decide(Decision {
        at: now,
        subject: Subject::Alarm { name: alarm.name.clone(), service: service_of(&alarm) },
        action: format!("alarm {} -> {}", turn.from, turn.to.as_str()),
        reason,
        trace: alarm.trace.clone(),
    });
    tx.put(alarm);
    Outcome { turn: Some(turn), ..Outcome::of(word) }
}

/// `GET /api/alerts`: what stands, what could not be used, and when Alertmanager was last heard of.
pub fn list(app: &App) -> Answer {
    let state = app.store.snapshot();
    // Their names share a beginning, so this walks over no other alarm.
    let alarms = state.alarms.range("Prometheus-".to_owned()..).take_while(|(name, _)| name.starts_with("Prometheus-"));
    let rows: Vec<_> = alarms
        .filter_map(|(name, alarm)| {
            let known = alarm.external.as_ref()?;
            Some(json!({
                "alarm": name, "state": alarm.state.as_str(), "reason": alarm.state_reason, "rule": known.rule,
                "cluster": alarm.metric.dimension("ClusterName"), "service": alarm.metric.dimension("ServiceName"),
                "policy": known.labels.get("policy"), "labels": known.labels, "value": known.value, "threshold": known.threshold,
                "startsAt": known.starts_at.iso(), "heardAt": known.heard_at.iso(), "resolvedAt": known.resolved_at.map(|t| t.iso()),
                "expiresAt": (alarm.state == AlarmState::Alarm).then(|| alert::expires_at(known).iso()), "expression": known.generator_url,
            }))
        })
        .collect();
    let (last_post, heartbeat) = observe::webhook_times();
    ok(&json!({
        "accepts": app.webhook_token.is_some(), "lastPostAt": last_post.map(|t| t.iso()), "lastHeartbeatAt": heartbeat.map(|t| t.iso()),
        "alerts": rows, "unusable": app.alerts.list(),
    }))
}
