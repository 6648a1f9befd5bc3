//! What PutMetricAlarm refuses, in CloudWatch's words where these are known.

use crate::model::alarm::Alarm;

/// Answered as `ValidationError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

const DAY_S: u64 = 86_400;
const WEEK_S: u64 = 7 * DAY_S;

pub fn validate(alarm: &Alarm) -> Result<(), Invalid> {
    name(&alarm.name)?;
    if let Some(text) = alarm.description.as_ref().filter(|text| text.chars().count() > 1024) {
        return refuse(constraint("alarmDescription", text, "Member must have length less than or equal to 1024"));
    }
    if alarm.metric.name.is_empty() {
        return refuse("MetricName must not be null");
    }
    if alarm.metric.namespace.is_empty() {
        return refuse("Namespace must not be null");
    }
    if alarm.metric.dimensions.len() > 30 {
        let names: Vec<&str> = alarm.metric.dimensions.iter().map(|(name, _)| &**name).collect();
        let value = format!("[{}]", names.join(", "));
        return refuse(constraint("dimensions", &value, "Member must have length less than or equal to 30"));
    }
    for (member, actions) in [
        ("oKActions", &alarm.ok_actions),
        ("alarmActions", &alarm.alarm_actions),
        ("insufficientDataActions", &alarm.insufficient_data_actions),
    ] {
        if actions.len() > 5 {
            let value = format!("[{}]", actions.join(", "));
            return refuse(constraint(member, &value, "Member must have length less than or equal to 5"));
        }
    }
    if !alarm.threshold.is_finite() {
        return refuse("Threshold must be a finite number");
    }
    periods(alarm)
}

fn name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return refuse(constraint("alarmName", name, "Member must have length greater than or equal to 1"));
    }
    if name.chars().count() > 255 {
        return refuse(constraint("alarmName", name, "Member must have length less than or equal to 255"));
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return refuse("AlarmName must not contain ASCII control characters");
    }
    Ok(())
}

fn periods(alarm: &Alarm) -> Result<(), Invalid> {
    // CloudWatch: 10, 20, 30 or a multiple of 60. 1 and 5 are ours: every container is measured once a second.
    if !matches!(alarm.period_s, 1 | 5 | 10 | 20 | 30) && (alarm.period_s == 0 || !alarm.period_s.is_multiple_of(60)) {
        return refuse("Period must be 1, 5, 10, 20, 30 or a multiple of 60");
    }
    for (member, value) in
        [("evaluationPeriods", Some(alarm.evaluation_periods)), ("datapointsToAlarm", alarm.datapoints_to_alarm)]
    {
        if value == Some(0) {
            return refuse(constraint(member, "0", "Member must have value greater than or equal to 1"));
        }
    }
    if alarm.datapoints_to_alarm.is_some_and(|count| count > alarm.evaluation_periods) {
        return refuse("DatapointsToAlarm must be less than or equal to EvaluationPeriods");
    }
    let looked_back_s = u64::from(alarm.period_s) * u64::from(alarm.evaluation_periods);
    if alarm.period_s < 3600 && looked_back_s > DAY_S {
        return refuse(
            "Metrics cannot be checked across more than a day (EvaluationPeriods * Period must be <= 86400) for alarms using period < 3600",
        );
    }
    if looked_back_s > WEEK_S {
        return refuse(
            "Metrics cannot be checked across more than a week (EvaluationPeriods * Period must be <= 604800) for alarms using period >= 3600",
        );
    }
    Ok(())
}

fn refuse<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
}

/// The sentence of AWS's own shape checks.
fn constraint(member: &str, value: &str, rule: &str) -> String {
    format!("1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {rule}")
}
