//! CloudWatch: three protocols over one table.

use std::collections::BTreeMap;

use super::{App, Cx, now};
use crate::shapes;
use crate::wire::decode::{self, Reason};
use crate::wire::fault::{self, Code, Fault};
use crate::wire::service::Service;
use crate::wire::types::Timestamp;

pub fn service() -> Service<App> {
    Service::new("monitoring")
        .target("GraniteServiceVersion20100801")
        .json10()
        .query("2010-08-01", "http://monitoring.amazonaws.com/doc/2010-08-01/")
        .query_compatible()
        .refuse(refuse)
        .op("PutMetricData", put_metric_data)
        .op("GetMetricData", get_metric_data)
        .op("PutMetricAlarm", put_metric_alarm)
        .op("DescribeAlarms", describe_alarms)
        .op("DeleteAlarms", delete_alarms)
        .op("GetDashboard", get_dashboard)
}

const RESOURCE_NOT_FOUND: Code = Code::new("ResourceNotFound", 404);
const DASHBOARD_NOT_FOUND: Code = Code::new("DashboardNotFoundError", 404).query("ResourceNotFound");
const INVALID_NEXT_TOKEN: Code = Code::new("InvalidNextToken", 400);
const INVALID_VALUE: Code = Code::new("InvalidParameterValueException", 400).query("InvalidParameterValue");
/// Not `MissingRequiredParameterException`: most operations do not declare that shape.
const MISSING: Code = Code::new("MissingParameter", 400);

fn refuse(e: &decode::Error) -> Fault {
    match e.reason() {
        Reason::Missing(_) => Fault::new(&MISSING, format!("The parameter {} is required.", e.path())),
        Reason::NotOneOf { .. } => Fault::new(&INVALID_VALUE, e.to_string()),
        Reason::WrongType(_) => Fault::new(&fault::SERIALIZATION, e.to_string()),
    }
}

shapes! { "PascalCase";
    shape Dimension { name: String, value: String }
    shape Tag { key: String, value: String }
    shape Metric { namespace: Option<String>, metric_name: Option<String>, dimensions: Option<Vec<Dimension>> }
    shape MetricStat { metric: Metric, period: i32, stat: String, unit: Option<Unit> }
    shape MetricDataQuery {
        id: String, metric_stat: Option<MetricStat>, expression: Option<String>, label: Option<String>,
        return_data: Option<bool>, period: Option<i32>, account_id: Option<String>,
    }
    shape PromQlCriteria { query: String, pending_period: Option<i32>, recovery_period: Option<i32> }
    input StatisticSet { sample_count: f64, sum: f64, minimum: f64, maximum: f64 }
    input MetricDatum {
        metric_name: String, dimensions: Option<Vec<Dimension>>, timestamp: Option<Timestamp>, value: Option<f64>,
        statistic_values: Option<StatisticSet>, values: Option<Vec<f64>>, counts: Option<Vec<f64>>,
        unit: Option<Unit>, storage_resolution: Option<i32>,
    }
    input Entity { key_attributes: Option<BTreeMap<String, String>>, attributes: Option<BTreeMap<String, String>> }
    input EntityMetricData { entity: Option<Entity>, metric_data: Option<Vec<MetricDatum>> }
    input PutMetricDataInput {
        namespace: String, metric_data: Option<Vec<MetricDatum>>, entity_metric_data: Option<Vec<EntityMetricData>>,
        strict_entity_validation: Option<bool>,
    }
    input GetMetricDataInput {
        metric_data_queries: Vec<MetricDataQuery>, start_time: Timestamp, end_time: Timestamp, next_token: Option<String>,
        scan_by: Option<ScanBy>, max_datapoints: Option<i32>,
    }
    output MetricDataResult { id: String, label: String, timestamps: Vec<Timestamp>, values: Vec<f64>, status_code: StatusCode }
    output GetMetricDataOutput { metric_data_results: Vec<MetricDataResult>, next_token: Option<String>, messages: Vec<MessageData> }
    output MessageData { code: String, value: String }
    input PutMetricAlarmInput {
        alarm_name: String, alarm_description: Option<String>, actions_enabled: Option<bool>,
        #[serde(rename = "OKActions")] ok_actions: Option<Vec<String>>, alarm_actions: Option<Vec<String>>,
        insufficient_data_actions: Option<Vec<String>>, metric_name: Option<String>, namespace: Option<String>,
        statistic: Option<Statistic>, extended_statistic: Option<String>, dimensions: Option<Vec<Dimension>>,
        period: Option<i32>, unit: Option<Unit>, evaluation_periods: Option<i32>, datapoints_to_alarm: Option<i32>,
        threshold: Option<f64>, comparison_operator: Option<ComparisonOperator>, treat_missing_data: Option<String>,
        metrics: Option<Vec<MetricDataQuery>>, tags: Option<Vec<Tag>>, threshold_metric_id: Option<String>,
        evaluation_criteria: Option<EvaluationCriteria>,
    }
    shape MetricAlarm {
        alarm_name: String, alarm_arn: String, alarm_description: Option<String>, alarm_configuration_updated_timestamp: Timestamp,
        actions_enabled: bool, #[serde(rename = "OKActions")] ok_actions: Vec<String>, alarm_actions: Vec<String>,
        insufficient_data_actions: Vec<String>, state_value: StateValue, state_reason: String,
        state_updated_timestamp: Timestamp, metric_name: Option<String>, namespace: Option<String>,
        statistic: Option<Statistic>, extended_statistic: Option<String>, dimensions: Vec<Dimension>,
        period: Option<i32>, unit: Option<Unit>, evaluation_periods: Option<i32>, datapoints_to_alarm: Option<i32>,
        threshold: Option<f64>, comparison_operator: Option<ComparisonOperator>, treat_missing_data: Option<String>,
        metrics: Option<Vec<MetricDataQuery>>, threshold_metric_id: Option<String>, evaluation_criteria: Option<EvaluationCriteria>,
    }
    input DescribeAlarmsInput {
        alarm_names: Option<Vec<String>>, alarm_name_prefix: Option<String>, alarm_types: Option<Vec<AlarmType>>,
        state_value: Option<StateValue>, action_prefix: Option<String>, max_records: Option<u16>, next_token: Option<String>,
    }
    output DescribeAlarmsOutput { composite_alarms: Vec<MessageData>, metric_alarms: Vec<MetricAlarm>, next_token: Option<String> }
    input DeleteAlarmsInput { alarm_names: Vec<String> }
    input GetDashboardInput { dashboard_name: String }
    output GetDashboardOutput { dashboard_name: String, dashboard_body: String }
    values AlarmType { CompositeAlarm, MetricAlarm, LogAlarm }
    values ComparisonOperator {
        GreaterThanOrEqualToThreshold, GreaterThanThreshold, LessThanThreshold, LessThanOrEqualToThreshold,
        LessThanLowerOrGreaterThanUpperThreshold, LessThanLowerThreshold, GreaterThanUpperThreshold,
    }
    values ScanBy { TimestampDescending, TimestampAscending }
    values Statistic { SampleCount, Average, Sum, Minimum, Maximum }
    values StatusCode { Complete, InternalError, PartialData, Forbidden }
    values StateValue {
        #[serde(rename = "OK")] Ok, #[serde(rename = "ALARM")] Alarm, #[serde(rename = "INSUFFICIENT_DATA")] InsufficientData,
    }
    values Unit {
        Seconds, Microseconds, Milliseconds, Bytes, Kilobytes, Megabytes, Gigabytes, Terabytes, Bits, Kilobits, Megabits,
        Gigabits, Terabits, Percent, Count, #[serde(rename = "Bytes/Second")] BytesPerSecond,
        #[serde(rename = "Count/Second")] CountPerSecond, None,
    }
}

/// A union of AWS's: exactly one member.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum EvaluationCriteria {
    #[serde(rename = "PromQLCriteria")]
    PromQl(PromQlCriteria),
}

async fn put_metric_data(cx: Cx, input: PutMetricDataInput) -> Result<(), Fault> {
    let mut data = cx.app.data.lock().unwrap();
    for d in input.metric_data.into_iter().flatten() {
        let points = data.entry(format!("{}/{}", input.namespace, d.metric_name)).or_default();
        let at = d.timestamp.unwrap_or_else(now);
        let once = d.value.or(d.statistic_values.map(|s| s.sum / s.sample_count));
        points.extend(once.into_iter().chain(d.values.into_iter().flatten()).map(|v| (at, v)));
        if points.len() > 10_000 {
            points.drain(..5_000);
        }
    }
    Ok(())
}

async fn get_metric_data(cx: Cx, input: GetMetricDataInput) -> Result<GetMetricDataOutput, Fault> {
    let data = cx.app.data.lock().unwrap();
    let mut results = Vec::new();
    for q in input.metric_data_queries {
        let Some(stat) = q.metric_stat else { continue };
        let name = stat.metric.metric_name.unwrap_or_default();
        let points = data.get(&format!("{}/{name}", stat.metric.namespace.unwrap_or_default()));
        let mut points: Vec<_> =
            points.into_iter().flatten().filter(|(t, _)| (input.start_time..input.end_time).contains(t)).collect();
        points.sort_by_key(|(t, _)| *t);
        if input.scan_by != Some(ScanBy::TimestampAscending) {
            points.reverse();
        }
        let (timestamps, values) = points.into_iter().copied().unzip();
        results.push(MetricDataResult {
            id: q.id,
            label: q.label.unwrap_or(name),
            timestamps,
            values,
            status_code: StatusCode::Complete,
        });
    }
    Ok(GetMetricDataOutput { metric_data_results: results, next_token: None, messages: Vec::new() })
}

async fn put_metric_alarm(cx: Cx, input: PutMetricAlarmInput) -> Result<(), Fault> {
    let now = now();
    let alarm = MetricAlarm {
        alarm_arn: format!("arn:aws:cloudwatch:{}:000000000000:alarm:{}", cx.region, input.alarm_name),
        alarm_name: input.alarm_name.clone(),
        alarm_description: input.alarm_description,
        alarm_configuration_updated_timestamp: now,
        actions_enabled: input.actions_enabled.unwrap_or(true),
        ok_actions: input.ok_actions.unwrap_or_default(),
        alarm_actions: input.alarm_actions.unwrap_or_default(),
        insufficient_data_actions: input.insufficient_data_actions.unwrap_or_default(),
        state_value: StateValue::InsufficientData,
        state_reason: "Unchecked: Initial alarm creation".to_owned(),
        state_updated_timestamp: now,
        metric_name: input.metric_name,
        namespace: input.namespace,
        statistic: input.statistic,
        extended_statistic: input.extended_statistic,
        dimensions: input.dimensions.unwrap_or_default(),
        period: input.period,
        unit: input.unit,
        evaluation_periods: input.evaluation_periods,
        datapoints_to_alarm: input.datapoints_to_alarm,
        threshold: input.threshold,
        comparison_operator: input.comparison_operator,
        treat_missing_data: input.treat_missing_data,
        metrics: input.metrics,
        threshold_metric_id: input.threshold_metric_id,
        evaluation_criteria: input.evaluation_criteria,
    };
    cx.app.alarms.lock().unwrap().insert(input.alarm_name, alarm);
    Ok(())
}

async fn describe_alarms(cx: Cx, input: DescribeAlarmsInput) -> Result<DescribeAlarmsOutput, Fault> {
    let from: usize = match &input.next_token {
        Some(token) => token.parse().map_err(|_| Fault::new(&INVALID_NEXT_TOKEN, "The next token is not valid."))?,
        None => 0,
    };
    let alarms = cx.app.alarms.lock().unwrap();
    let wanted = |a: &&MetricAlarm| {
        input.alarm_names.as_ref().is_none_or(|names| names.contains(&a.alarm_name))
            && input.alarm_name_prefix.as_ref().is_none_or(|p| a.alarm_name.starts_with(p))
            && input.state_value.is_none_or(|s| s == a.state_value)
    };
    let size = input.max_records.map_or(50, usize::from);
    let page: Vec<_> = alarms.values().filter(wanted).skip(from).take(size + 1).cloned().collect();
    let next_token = (page.len() > size).then(|| (from + size).to_string());
    Ok(DescribeAlarmsOutput { composite_alarms: Vec::new(), metric_alarms: page.into_iter().take(size).collect(), next_token })
}

async fn delete_alarms(cx: Cx, input: DeleteAlarmsInput) -> Result<(), Fault> {
    let mut alarms = cx.app.alarms.lock().unwrap();
    match input.alarm_names.iter().find(|name| !alarms.contains_key(*name)) {
        Some(name) => Err(Fault::new(&RESOURCE_NOT_FOUND, format!("Alarm <{name}> & others do not exist."))),
        None => {
            input.alarm_names.iter().for_each(|name| drop(alarms.remove(name)));
            Ok(())
        }
    }
}

async fn get_dashboard(_: Cx, input: GetDashboardInput) -> Result<GetDashboardOutput, Fault> {
    Err(Fault::new(&DASHBOARD_NOT_FOUND, format!("Dashboard {} does not exist", input.dashboard_name)))
}
