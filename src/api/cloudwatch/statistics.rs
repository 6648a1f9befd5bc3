//! GetMetricStatistics: several statistics of one metric, each unit's apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::metric::{check_dimensions, key, period_ms, rounded_start, short};
use super::shapes::{Datapoint, GetMetricStatisticsInput, GetMetricStatisticsOutput, Statistic};
use super::{Cx, errors};
use crate::model::Timestamp;
use crate::model::metric::{Query, Statistic as ModelStatistic};
use crate::wire::fault::Fault;
use crate::wire::types;

const MOST_DATAPOINTS: i64 = 1_440;

pub async fn get_metric_statistics(cx: Cx, input: GetMetricStatisticsInput) -> Result<GetMetricStatisticsOutput, Fault> {
    for (member, text) in [("Namespace", &input.namespace), ("MetricName", &input.metric_name)] {
        if text.is_empty() {
            return Err(errors::missing(member));
        }
    }
    let dimensions = input.dimensions.unwrap_or_default();
    check_dimensions(&dimensions, "Dimensions")?;
    let plain = input.statistics.unwrap_or_default();
    let extended = input.extended_statistics.unwrap_or_default();
    if plain.is_empty() && extended.is_empty() {
        return Err(errors::combination("At least one of the parameters Statistics and ExtendedStatistics must be specified."));
    }
    if !plain.is_empty() && !extended.is_empty() {
        return Err(errors::combination(
            "The parameters Statistics and ExtendedStatistics are mutually exclusive and you have specified both.",
        ));
    }
    let (start, end) = (Timestamp(input.start_time.0), Timestamp(input.end_time.0));
    if start >= end {
        return Err(errors::value("The parameter StartTime must be less than the parameter EndTime."));
    }
    let period_ms = period_ms(input.period)
        .ok_or_else(|| errors::value("The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60."))?;
    // What could be there counts, not what is.
    let asked = end.since(start) / period_ms;
    if asked > MOST_DATAPOINTS {
        return Err(errors::combination(format!(
            "You have requested up to {asked} datapoints, which exceeds the limit of {MOST_DATAPOINTS}. \
             You may reduce the datapoints requested by increasing Period, or decreasing the time range."
        )));
    }
    let mut statistics: Vec<ModelStatistic> = plain.iter().map(|s| ModelStatistic::from(*s)).collect();
    for name in &extended {
        let percentile = ModelStatistic::parse(name).filter(|s| matches!(s, ModelStatistic::Percentile(_)));
        statistics.push(percentile.ok_or_else(|| {
            errors::value(format!("The value {} for parameter ExtendedStatistics is not supported.", short(name)))
        })?);
    }
    let query = Query {
        key: key(&input.namespace, &input.metric_name, &dimensions),
        // `query_many` answers those that it is given.
        statistic: ModelStatistic::Average,
        unit: input.unit.map(|unit| Arc::from(unit.as_str())),
        start: rounded_start(start, period_ms, cx.app.clock.now()),
        end,
        period_ms,
    };
    let mut datapoints = Vec::new();
    for (unit, periods) in cx.app.metrics.query_many(&query, &statistics) {
        for (at, values) in periods {
            datapoints.extend(datapoint(at, &unit, &plain, &extended, &values));
        }
    }
    Ok(GetMetricStatisticsOutput { label: input.metric_name, datapoints })
}

/// None: the period has none of the statistics, as a percentile of statistic sets.
fn datapoint(at: Timestamp, unit: &str, plain: &[Statistic], extended: &[String], values: &[Option<f64>]) -> Option<Datapoint> {
    if values.iter().all(Option::is_none) {
        return None;
    }
    let of = |wanted: Statistic| plain.iter().zip(values).find(|(s, _)| **s == wanted).and_then(|(_, value)| *value);
    let percentiles: BTreeMap<String, f64> = extended
        .iter()
        .zip(values.iter().skip(plain.len()))
        .filter_map(|(name, value)| Some((name.clone(), (*value)?)))
        .collect();
    Some(Datapoint {
        timestamp: types::Timestamp(at.0),
        sample_count: of(Statistic::SampleCount),
        average: of(Statistic::Average),
        sum: of(Statistic::Sum),
        minimum: of(Statistic::Minimum),
        maximum: of(Statistic::Maximum),
        unit: unit.to_owned(),
        extended_statistics: Some(percentiles).filter(|p| !p.is_empty()),
    })
}
