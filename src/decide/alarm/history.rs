//! What DescribeAlarmHistory shows of a transition, a change of configuration and an action.

use serde_json::{Value, json};

use super::Verdict;
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmHistory, AlarmState, HistoryKind};
use crate::model::arn::Home;

/// The evaluation moved the alarm. `before` is the alarm as it was.
pub fn state_update(before: &Alarm, verdict: &Verdict, now: Timestamp) -> AlarmHistory {
    state_set(before, verdict.state, &verdict.state_reason, Some(&verdict.state_reason_data), now)
}

/// Someone moved the alarm by SetAlarmState.
pub fn state_set(before: &Alarm, state: AlarmState, reason: &str, reason_data: Option<&str>, now: Timestamp) -> AlarmHistory {
    let old = state_text(before.state, &before.state_reason, before.state_reason_data.as_deref());
    let new = state_text(state, reason, reason_data);
    AlarmHistory {
        alarm: before.name.clone(),
        at: now,
        kind: HistoryKind::StateUpdate,
        summary: format!("Alarm updated from {} to {}", before.state.as_str(), state.as_str()),
        data: format!(r#"{{"version":"1.0","oldState":{old},"newState":{new}}}"#),
    }
}

/// Written by hand because the reason data, JSON text already, goes in as it is, its members in their order.
fn state_text(state: AlarmState, reason: &str, reason_data: Option<&str>) -> String {
    let mut text = format!(r#"{{"stateValue":"{}","stateReason":{}"#, state.as_str(), json!(reason));
    if let Some(data) = reason_data {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok();
        let data = if is_json { data.to_owned() } else { json!(data).to_string() };
        text.push_str(r#","stateReasonData":"#);
        text.push_str(&data);
    }
    text.push('}');
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    Created,
    Updated,
    Deleted,
}

/// `alarm` as it is after the change, or as it was before its deletion.
pub fn configuration_update(kind: Configuration, alarm: &Alarm, home: &Home, now: Timestamp) -> AlarmHistory {
    let (done, act, member) = match kind {
        Configuration::Created => ("created", "Create", "createdAlarm"),
        Configuration::Updated => ("updated", "Update", "updatedAlarm"),
        Configuration::Deleted => ("deleted", "Delete", "deletedAlarm"),
    };
    AlarmHistory {
        alarm: alarm.name.clone(),
        at: now,
        kind: HistoryKind::ConfigurationUpdate,
        summary: format!("Alarm \"{}\" {done}", alarm.name),
        data: json!({"version": "1.0", "type": act, member: configuration(alarm, home)}).to_string(),
    }
}

/// The alarm's settings under DescribeAlarms' names in lower camel case; what was not given is absent.
fn configuration(alarm: &Alarm, home: &Home) -> Value {
    let dimensions: Vec<Value> =
        alarm.metric.dimensions.iter().map(|(name, value)| json!({"name": &**name, "value": &**value})).collect();
    let mut all = json!({
        "alarmName": alarm.name,
        "alarmArn": home.alarm(&alarm.name),
        "alarmDescription": alarm.description,
        "alarmConfigurationUpdatedTimestamp": alarm.configuration_updated_at.in_reason_data(),
        "actionsEnabled": alarm.actions_enabled,
        "okActions": alarm.ok_actions,
        "alarmActions": alarm.alarm_actions,
        "insufficientDataActions": alarm.insufficient_data_actions,
        "stateValue": alarm.state.as_str(),
        "stateUpdatedTimestamp": alarm.state_updated_at.in_reason_data(),
        "metricName": &*alarm.metric.name,
        "namespace": &*alarm.metric.namespace,
        "statistic": alarm.statistic.to_string(),
        "dimensions": dimensions,
        "period": alarm.period_s,
        "unit": alarm.unit,
        "evaluationPeriods": alarm.evaluation_periods,
        "datapointsToAlarm": alarm.datapoints_to_alarm,
        "threshold": alarm.threshold,
        "comparisonOperator": alarm.comparison.as_str(),
        "treatMissingData": alarm.missing_given.then(|| alarm.missing.as_str()),
    });
    if let Value::Object(members) = &mut all {
        members.retain(|_, value| !value.is_null());
    }
    all
}

/// An action ran for the alarm's current state: `outcome` is what it sent, or the error it met.
pub fn action(alarm: &Alarm, arn: &str, outcome: Result<Option<&str>, &str>, now: Timestamp) -> AlarmHistory {
    let (summary, state, message, error) = match outcome {
        Ok(message) => (format!("Successfully executed action {arn}"), "Succeeded", message, None),
        Err(why) => (format!("Failed to execute action {arn}. Received error: \"{why}\""), "Failed", None, Some(why)),
    };
    let data = json!({
        "actionState": state,
        "stateUpdateTimestamp": alarm.state_updated_at.0,
        "notificationResource": arn,
        "publishedMessage": message,
        "error": error,
    });
    AlarmHistory { alarm: alarm.name.clone(), at: now, kind: HistoryKind::Action, summary, data: data.to_string() }
}
