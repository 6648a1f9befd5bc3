//! PutMetricAlarm and DeleteAlarms. An update replaces the whole configuration and keeps the state; the control loop sees either as
//! a commit and evaluates at once.

use std::collections::BTreeSet;

use super::metric::{check_dimensions, key, short};
use super::shapes::{AlarmNamesInput, PutMetricAlarmInput, Tag};
use super::{Cx, errors, tags, update};
use crate::decide::alarm::history::{self, Configuration};
use crate::decide::alarm::{self as rules, INITIAL_STATE_REASON};
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmState, MissingData};
use crate::model::metric::Statistic;
use crate::store::Change;
use crate::wire::decode::{Unknown, decode};
use crate::wire::fault::{Fault, SERIALIZATION};
use crate::wire::json;
use crate::wire::node::Malformed;

/// CloudWatch's quota is 5,000 a region; ours bounds what is evaluated every ten seconds.
const MOST_ALARMS: usize = 50_000;
const MOST_NAMES: usize = 100;

pub async fn put(cx: Cx, input: PutMetricAlarmInput) -> Result<(), Fault> {
    let given_tags = input.tags.clone();
    let alarm = configuration(input, cx.app.clock.now())?;
    let tags = tags::checked(given_tags.unwrap_or_default())?;
    update(&cx, "PutMetricAlarm", move |tx, app| {
        let now = tx.now;
        let existing = tx.state().alarms.get(&alarm.name).cloned();
        let (kind, alarm) = match existing {
            Some(before) => {
                let updated = updated(alarm, &before, now);
                (Configuration::Updated, updated)
            }
            None if tx.state().alarms.len() >= MOST_ALARMS => {
                return Err(errors::limit(format!("There are {MOST_ALARMS} alarms, and may not be more.")));
            }
            None => (Configuration::Created, Alarm { tags, ..at(alarm, now) }),
        };
        tx.alarm_history(history::configuration_update(kind, &alarm, &app.home, now));
        tx.put(alarm);
        Ok(())
    })
    .await
}

/// An alarm that nobody puts: PutMetricAlarm's input, with its checks and its words, for those who ask what it would do.
pub fn read(body: &[u8], now: Timestamp) -> Result<Alarm, Fault> {
    let node = json::parse(body).map_err(|Malformed(why)| Fault::new(&SERIALIZATION, why))?;
    let input: PutMetricAlarmInput = decode(node, &Unknown::default()).map_err(|e| errors::refuse(&e))?;
    configuration(input, now)
}

fn at(alarm: Alarm, now: Timestamp) -> Alarm {
    Alarm { state_updated_at: now, state_transitioned_at: now, configuration_updated_at: now, ..alarm }
}

/// PutMetricAlarm: "its state is left unchanged, but the update completely overwrites the previous configuration"; tags of an
/// existing alarm are ignored. A policy's own alarm stays the policy's, and goes with it.
fn updated(alarm: Alarm, before: &Alarm, now: Timestamp) -> Alarm {
    Alarm {
        state: before.state,
        state_reason: before.state_reason.clone(),
        state_reason_data: before.state_reason_data.clone(),
        recent: before.recent.clone(),
        state_updated_at: before.state_updated_at,
        state_transitioned_at: before.state_transitioned_at,
        configuration_updated_at: now,
        owned_by_policy: before.owned_by_policy.clone(),
        tags: before.tags.clone(),
        trace: before.trace.clone(),
        ..alarm
    }
}

fn configuration(input: PutMetricAlarmInput, now: Timestamp) -> Result<Alarm, Fault> {
    refuse_unserved(&input)?;
    let required = |text: Option<String>, member: &str| {
        text.filter(|t| !t.is_empty()).ok_or_else(|| errors::validation(format!("{member} must not be null")))
    };
    let (namespace, name) = (required(input.namespace.clone(), "Namespace")?, required(input.metric_name.clone(), "MetricName")?);
    let dimensions = input.dimensions.as_deref().unwrap_or_default();
    check_dimensions(dimensions, "Dimensions").map_err(|fault| errors::validation(fault.message))?;
    let absent = |member: &str| errors::validation(format!("{member} must not be null"));
    let comparison = input.comparison_operator.ok_or_else(|| absent("ComparisonOperator"))?;
    let comparison = comparison.of_a_threshold().ok_or_else(anomaly)?;
    let missing = input.treat_missing_data.as_deref().map(missing_data).transpose()?;
    let statistic = statistic(&input)?;
    let alarm = Alarm {
        name: input.alarm_name,
        description: input.alarm_description,
        actions_enabled: input.actions_enabled.unwrap_or(true),
        ok_actions: input.ok_actions.unwrap_or_default(),
        alarm_actions: input.alarm_actions.unwrap_or_default(),
        insufficient_data_actions: input.insufficient_data_actions.unwrap_or_default(),
        metric: key(&namespace, &name, dimensions),
        statistic,
        period_s: unsigned(input.period.ok_or_else(|| absent("Period"))?),
        unit: input.unit.map(|unit| unit.as_str().to_owned()),
        evaluation_periods: unsigned(input.evaluation_periods.ok_or_else(|| absent("EvaluationPeriods"))?),
        datapoints_to_alarm: input.datapoints_to_alarm.map(unsigned),
        threshold: input.threshold.ok_or_else(|| absent("Threshold"))?,
        comparison,
        missing: missing.unwrap_or_default(),
        missing_given: missing.is_some(),
        owned_by_policy: None,
        state: AlarmState::InsufficientData,
        state_reason: INITIAL_STATE_REASON.to_owned(),
        state_reason_data: None,
        recent: Vec::new(),
        state_updated_at: now,
        state_transitioned_at: now,
        configuration_updated_at: now,
        tags: Vec::new(),
        trace: None,
        external: None,
    };
    rules::validate(&alarm).map_err(|rules::Invalid(message)| errors::validation(message))?;
    Ok(alarm)
}

/// Negative numbers are refused by the rules as 0 is.
fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// What CloudWatch knows and this release does not.
fn refuse_unserved(input: &PutMetricAlarmInput) -> Result<(), Fault> {
    let anomaly_operator = input.comparison_operator.is_some_and(|c| c.of_a_threshold().is_none());
    if input.threshold_metric_id.is_some() || anomaly_operator {
        return Err(anomaly());
    }
    if input.metrics.is_some() {
        if input.statistic.is_some() || input.extended_statistic.is_some() {
            return Err(errors::validation("Statistic should not be set if list of Metrics is set."));
        }
        return Err(errors::validation(
            "Alarms on metric math (Metrics) are not served in this release; name one metric with MetricName, Namespace and Statistic.",
        ));
    }
    for (given, member) in [
        (input.evaluation_criteria.is_some(), "EvaluationCriteria"),
        (input.evaluation_window.is_some(), "EvaluationWindow"),
        (input.warm_up_configuration.is_some(), "WarmUpConfiguration"),
    ] {
        if given {
            return Err(errors::validation(format!("{member} is not served in this release.")));
        }
    }
    match input.evaluate_low_sample_count_percentile.as_deref() {
        None | Some("evaluate") => Ok(()),
        Some("ignore") => Err(errors::validation("EvaluateLowSampleCountPercentile ignore is not served in this release.")),
        Some(other) => Err(errors::validation(format!(
            "Option {} is not supported. Supported options for parameter EvaluateLowSampleCountPercentile are evaluate and ignore.",
            short(other)
        ))),
    }
}

fn anomaly() -> Fault {
    errors::validation("Anomaly detection alarms are not served in this release; compare with a Threshold.")
}

fn missing_data(text: &str) -> Result<MissingData, Fault> {
    Ok(match text {
        "breaching" => MissingData::Breaching,
        "notBreaching" => MissingData::NotBreaching,
        "ignore" => MissingData::Ignore,
        "missing" => MissingData::Missing,
        _ => {
            return Err(errors::validation(format!(
                "The value {} is not supported for TreatMissingData parameter. \
                 Supported values are [breaching, notBreaching, ignore, missing].",
                short(text)
            )));
        }
    })
}

fn statistic(input: &PutMetricAlarmInput) -> Result<Statistic, Fault> {
    match (input.statistic, &input.extended_statistic) {
        (Some(_), Some(_)) => {
            Err(errors::validation("Statistic and ExtendedStatistic are mutually exclusive and you have specified both."))
        }
        (Some(statistic), None) => Ok(statistic.into()),
        (None, Some(text)) => percentile(text)
            .ok_or_else(|| errors::value(format!("The value {} for parameter ExtendedStatistic is not supported.", short(text)))),
        (None, None) => Err(errors::validation("Either Statistic or ExtendedStatistic must be specified.")),
    }
}

pub fn percentile(text: &str) -> Option<Statistic> {
    Statistic::parse(text).filter(|s| matches!(s, Statistic::Percentile(_)))
}

/// DeleteAlarms: unknown names are passed over.
pub async fn delete(cx: Cx, input: AlarmNamesInput) -> Result<(), Fault> {
    let names = checked_names(input)?;
    update(&cx, "DeleteAlarms", move |tx, app| {
        for name in names {
            if let Some(alarm) = tx.state().alarms.get(&name).cloned() {
                tx.alarm_history(history::configuration_update(Configuration::Deleted, &alarm, &app.home, tx.now));
                tx.put(Change::Alarm(name, None));
            }
        }
        Ok(())
    })
    .await
}

pub fn checked_names(input: AlarmNamesInput) -> Result<BTreeSet<String>, Fault> {
    if input.alarm_names.len() > MOST_NAMES {
        let shown = short(&input.alarm_names.join(", "));
        let rule = format!("Member must have length less than or equal to {MOST_NAMES}");
        return Err(errors::constraint("alarmNames", &format!("[{shown}]"), &rule));
    }
    Ok(input.alarm_names.into_iter().collect())
}

/// Tags as a new alarm gets them.
pub fn shown_tags(alarm: &Alarm) -> Vec<Tag> {
    alarm.tags.iter().map(|tag| Tag { key: tag.key.clone(), value: tag.value.clone().unwrap_or_default() }).collect()
}
