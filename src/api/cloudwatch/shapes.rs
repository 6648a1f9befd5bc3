//! CloudWatch's shapes, exactly with AWS's names: only what is supported.

use std::collections::BTreeMap;

use crate::model::alarm::{AlarmState, Comparison};
use crate::model::metric::Statistic as ModelStatistic;
use crate::shapes;
use crate::wire::types::Timestamp;

shapes! { "PascalCase";
    shape Dimension { name: String, value: String }
    shape Tag { key: String, value: String }
    input DimensionFilter { name: String, value: Option<String> }
    output Metric { namespace: String, metric_name: String, dimensions: Vec<Dimension> }
    output Nothing {}

    input StatisticSet { sample_count: f64, sum: f64, minimum: f64, maximum: f64 }
    input MetricDatum {
        metric_name: String, dimensions: Option<Vec<Dimension>>, timestamp: Option<Timestamp>, value: Option<f64>,
        statistic_values: Option<StatisticSet>, values: Option<Vec<f64>>, counts: Option<Vec<f64>>,
        unit: Option<Unit>, storage_resolution: Option<i32>,
    }
    input EntityMetricData { metric_data: Option<Vec<MetricDatum>> }
    input PutMetricDataInput {
        namespace: String, metric_data: Option<Vec<MetricDatum>>, entity_metric_data: Option<Vec<EntityMetricData>>,
    }

    input MetricOf { namespace: Option<String>, metric_name: Option<String>, dimensions: Option<Vec<Dimension>> }
    input MetricStat { metric: MetricOf, period: i32, stat: String, unit: Option<Unit> }
    input MetricDataQuery {
        id: String, metric_stat: Option<MetricStat>, expression: Option<String>, label: Option<String>, return_data: Option<bool>,
    }
    input GetMetricDataInput {
        metric_data_queries: Vec<MetricDataQuery>, start_time: Timestamp, end_time: Timestamp, next_token: Option<String>,
        scan_by: Option<ScanBy>, max_datapoints: Option<i32>,
    }
    output MetricDataResult { id: String, label: String, timestamps: Vec<Timestamp>, values: Vec<f64>, status_code: StatusCode }
    output MessageData { code: String, value: String }
    output GetMetricDataOutput { metric_data_results: Vec<MetricDataResult>, next_token: Option<String>, messages: Vec<MessageData> }

    input GetMetricStatisticsInput {
        namespace: String, metric_name: String, dimensions: Option<Vec<Dimension>>, start_time: Timestamp, end_time: Timestamp,
        period: i32, statistics: Option<Vec<Statistic>>, extended_statistics: Option<Vec<String>>, unit: Option<Unit>,
    }
    output Datapoint {
        timestamp: Timestamp, sample_count: Option<f64>, average: Option<f64>, sum: Option<f64>, minimum: Option<f64>,
        maximum: Option<f64>, unit: String, extended_statistics: Option<BTreeMap<String, f64>>,
    }
    output GetMetricStatisticsOutput { label: String, datapoints: Vec<Datapoint> }

    input ListMetricsInput {
        namespace: Option<String>, metric_name: Option<String>, dimensions: Option<Vec<DimensionFilter>>,
        next_token: Option<String>, recently_active: Option<RecentlyActive>,
    }
    output ListMetricsOutput { metrics: Vec<Metric>, next_token: Option<String> }

    input AlarmMetricQuery { id: String }
    input Given {}
    input PutMetricAlarmInput {
        alarm_name: String, alarm_description: Option<String>, actions_enabled: Option<bool>,
        #[serde(rename = "OKActions")] ok_actions: Option<Vec<String>>, alarm_actions: Option<Vec<String>>,
        insufficient_data_actions: Option<Vec<String>>, metric_name: Option<String>, namespace: Option<String>,
        statistic: Option<Statistic>, extended_statistic: Option<String>, dimensions: Option<Vec<Dimension>>,
        period: Option<i32>, unit: Option<Unit>, evaluation_periods: Option<i32>, datapoints_to_alarm: Option<i32>,
        threshold: Option<f64>, comparison_operator: Option<ComparisonOperator>, treat_missing_data: Option<String>,
        evaluate_low_sample_count_percentile: Option<String>, metrics: Option<Vec<AlarmMetricQuery>>, tags: Option<Vec<Tag>>,
        threshold_metric_id: Option<String>, evaluation_criteria: Option<Given>, evaluation_window: Option<Given>,
        warm_up_configuration: Option<Given>,
    }
    output MetricAlarm {
        alarm_name: String, alarm_arn: String, alarm_description: Option<String>, alarm_configuration_updated_timestamp: Timestamp,
        actions_enabled: bool, #[serde(rename = "OKActions")] ok_actions: Vec<String>, alarm_actions: Vec<String>,
        insufficient_data_actions: Vec<String>, state_value: StateValue, state_reason: String, state_reason_data: Option<String>,
        state_updated_timestamp: Timestamp, metric_name: String, namespace: String, statistic: Option<Statistic>,
        extended_statistic: Option<String>, dimensions: Vec<Dimension>, period: u32, unit: Option<String>,
        evaluation_periods: u32, datapoints_to_alarm: Option<u32>, threshold: f64, comparison_operator: ComparisonOperator,
        treat_missing_data: Option<String>, state_transitioned_timestamp: Timestamp,
    }
    input DescribeAlarmsInput {
        alarm_names: Option<Vec<String>>, alarm_name_prefix: Option<String>, alarm_types: Option<Vec<AlarmType>>,
        children_of_alarm_name: Option<String>, parents_of_alarm_name: Option<String>, state_value: Option<StateValue>,
        action_prefix: Option<String>, max_records: Option<i32>, next_token: Option<String>,
    }
    output DescribeAlarmsOutput { composite_alarms: Vec<MessageData>, metric_alarms: Vec<MetricAlarm>, next_token: Option<String> }
    input DescribeAlarmsForMetricInput {
        metric_name: String, namespace: String, statistic: Option<Statistic>, extended_statistic: Option<String>,
        dimensions: Option<Vec<Dimension>>, period: Option<i32>, unit: Option<Unit>,
    }
    output DescribeAlarmsForMetricOutput { metric_alarms: Vec<MetricAlarm> }
    input DescribeAlarmHistoryInput {
        alarm_name: Option<String>, alarm_types: Option<Vec<AlarmType>>, history_item_type: Option<HistoryItemType>,
        start_date: Option<Timestamp>, end_date: Option<Timestamp>, max_records: Option<i32>, next_token: Option<String>,
        scan_by: Option<ScanBy>,
    }
    output AlarmHistoryItem {
        alarm_name: String, alarm_type: AlarmType, timestamp: Timestamp, history_item_type: HistoryItemType,
        history_summary: String, history_data: String,
    }
    output DescribeAlarmHistoryOutput { alarm_history_items: Vec<AlarmHistoryItem>, next_token: Option<String> }
    input AlarmNamesInput { alarm_names: Vec<String> }
    input SetAlarmStateInput {
        alarm_name: String, state_value: StateValue, state_reason: String, state_reason_data: Option<String>,
    }
    input TagResourceInput { #[serde(rename = "ResourceARN")] resource_arn: String, tags: Vec<Tag> }
    input UntagResourceInput { #[serde(rename = "ResourceARN")] resource_arn: String, tag_keys: Vec<String> }
    input ListTagsForResourceInput { #[serde(rename = "ResourceARN")] resource_arn: String }
    output ListTagsForResourceOutput { tags: Vec<Tag> }

    values AlarmType { CompositeAlarm, MetricAlarm, LogAlarm }
    values HistoryItemType { ConfigurationUpdate, StateUpdate, Action, AlarmContributorStateUpdate, AlarmContributorAction }
    values ComparisonOperator {
        GreaterThanOrEqualToThreshold, GreaterThanThreshold, LessThanThreshold, LessThanOrEqualToThreshold,
        LessThanLowerOrGreaterThanUpperThreshold, LessThanLowerThreshold, GreaterThanUpperThreshold,
    }
    values RecentlyActive { #[serde(rename = "PT3H")] ThreeHours }
    values ScanBy { TimestampDescending, TimestampAscending }
    values Statistic { SampleCount, Average, Sum, Minimum, Maximum }
    values StatusCode { Complete, PartialData }
    values StateValue {
        #[serde(rename = "INSUFFICIENT_DATA")] InsufficientData, #[serde(rename = "ALARM")] Alarm, #[serde(rename = "OK")] Ok,
    }
    values Unit {
        Seconds, Microseconds, Milliseconds, Bytes, Kilobytes, Megabytes, Gigabytes, Terabytes, Bits, Kilobits, Megabits,
        Gigabits, Terabits, Percent, Count, #[serde(rename = "Bytes/Second")] BytesPerSecond,
        #[serde(rename = "Kilobytes/Second")] KilobytesPerSecond, #[serde(rename = "Megabytes/Second")] MegabytesPerSecond,
        #[serde(rename = "Gigabytes/Second")] GigabytesPerSecond, #[serde(rename = "Terabytes/Second")] TerabytesPerSecond,
        #[serde(rename = "Bits/Second")] BitsPerSecond, #[serde(rename = "Kilobits/Second")] KilobitsPerSecond,
        #[serde(rename = "Megabits/Second")] MegabitsPerSecond, #[serde(rename = "Gigabits/Second")] GigabitsPerSecond,
        #[serde(rename = "Terabits/Second")] TerabitsPerSecond, #[serde(rename = "Count/Second")] CountPerSecond, None,
    }
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Seconds => "Seconds",
            Unit::Microseconds => "Microseconds",
            Unit::Milliseconds => "Milliseconds",
            Unit::Bytes => "Bytes",
            Unit::Kilobytes => "Kilobytes",
            Unit::Megabytes => "Megabytes",
            Unit::Gigabytes => "Gigabytes",
            Unit::Terabytes => "Terabytes",
            Unit::Bits => "Bits",
            Unit::Kilobits => "Kilobits",
            Unit::Megabits => "Megabits",
            Unit::Gigabits => "Gigabits",
            Unit::Terabits => "Terabits",
            Unit::Percent => "Percent",
            Unit::Count => "Count",
            Unit::BytesPerSecond => "Bytes/Second",
            Unit::KilobytesPerSecond => "Kilobytes/Second",
            Unit::MegabytesPerSecond => "Megabytes/Second",
            Unit::GigabytesPerSecond => "Gigabytes/Second",
            Unit::TerabytesPerSecond => "Terabytes/Second",
            Unit::BitsPerSecond => "Bits/Second",
            Unit::KilobitsPerSecond => "Kilobits/Second",
            Unit::MegabitsPerSecond => "Megabits/Second",
            Unit::GigabitsPerSecond => "Gigabits/Second",
            Unit::TerabitsPerSecond => "Terabits/Second",
            Unit::CountPerSecond => "Count/Second",
            Unit::None => "None",
        }
    }
}

impl From<Statistic> for ModelStatistic {
    fn from(statistic: Statistic) -> ModelStatistic {
        match statistic {
            Statistic::SampleCount => ModelStatistic::SampleCount,
            Statistic::Average => ModelStatistic::Average,
            Statistic::Sum => ModelStatistic::Sum,
            Statistic::Minimum => ModelStatistic::Minimum,
            Statistic::Maximum => ModelStatistic::Maximum,
        }
    }
}

impl Statistic {
    /// None: an extended statistic.
    pub fn plain(statistic: &ModelStatistic) -> Option<Statistic> {
        Some(match statistic {
            ModelStatistic::SampleCount => Statistic::SampleCount,
            ModelStatistic::Average => Statistic::Average,
            ModelStatistic::Sum => Statistic::Sum,
            ModelStatistic::Minimum => Statistic::Minimum,
            ModelStatistic::Maximum => Statistic::Maximum,
            ModelStatistic::Percentile(_) => return None,
        })
    }
}

impl From<AlarmState> for StateValue {
    fn from(state: AlarmState) -> StateValue {
        match state {
            AlarmState::Ok => StateValue::Ok,
            AlarmState::Alarm => StateValue::Alarm,
            AlarmState::InsufficientData => StateValue::InsufficientData,
        }
    }
}

impl From<StateValue> for AlarmState {
    fn from(state: StateValue) -> AlarmState {
        match state {
            StateValue::Ok => AlarmState::Ok,
            StateValue::Alarm => AlarmState::Alarm,
            StateValue::InsufficientData => AlarmState::InsufficientData,
        }
    }
}

impl From<Comparison> for ComparisonOperator {
    fn from(comparison: Comparison) -> ComparisonOperator {
        match comparison {
            Comparison::GreaterThanOrEqualToThreshold => ComparisonOperator::GreaterThanOrEqualToThreshold,
            Comparison::GreaterThanThreshold => ComparisonOperator::GreaterThanThreshold,
            Comparison::LessThanThreshold => ComparisonOperator::LessThanThreshold,
            Comparison::LessThanOrEqualToThreshold => ComparisonOperator::LessThanOrEqualToThreshold,
        }
    }
}

impl ComparisonOperator {
    /// None: one of the operators of anomaly detection.
    pub fn of_a_threshold(self) -> Option<Comparison> {
        Some(match self {
            ComparisonOperator::GreaterThanOrEqualToThreshold => Comparison::GreaterThanOrEqualToThreshold,
            ComparisonOperator::GreaterThanThreshold => Comparison::GreaterThanThreshold,
            ComparisonOperator::LessThanThreshold => Comparison::LessThanThreshold,
            ComparisonOperator::LessThanOrEqualToThreshold => Comparison::LessThanOrEqualToThreshold,
            _ => return None,
        })
    }
}
