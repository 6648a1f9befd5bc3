//! GetMetricData: many metrics at once, page by page.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::metric::{check_dimensions, key, period_ms, rounded_start, short};
use super::shapes::{GetMetricDataInput, GetMetricDataOutput, MetricDataQuery, MetricDataResult, ScanBy, StatusCode};
use super::{Cx, errors, token};
use crate::model::Timestamp;
use crate::model::metric::{Query, Statistic};
use crate::wire::fault::Fault;
use crate::wire::types;

const MOST_QUERIES: usize = 500;
const MOST_DATAPOINTS: usize = 100_800;
const TOKEN: &str = "data";

/// A query that has been checked.
struct Wanted {
    id: String,
    label: String,
    query: Query,
    returned: bool,
}

/// Where a page ended: inside of which result, behind which time.
type Place = (usize, i64);

pub async fn get_metric_data(cx: Cx, input: GetMetricDataInput) -> Result<GetMetricDataOutput, Fault> {
    if input.start_time >= input.end_time {
        return Err(errors::validation("The parameter StartTime must be less than the parameter EndTime."));
    }
    if input.metric_data_queries.len() > MOST_QUERIES {
        return Err(errors::validation(format!(
            "The collection MetricDataQueries must not have a size greater than {MOST_QUERIES}."
        )));
    }
    let most = match input.max_datapoints {
        None => MOST_DATAPOINTS,
        Some(most) if most > 0 => (most as usize).min(MOST_DATAPOINTS),
        Some(most) => {
            return Err(errors::constraint(
                "maxDatapoints",
                &most.to_string(),
                "Member must have value greater than or equal to 1",
            ));
        }
    };
    let place: Option<Place> = token::read(TOKEN, input.next_token.as_deref())?;
    let now = cx.app.clock.now();
    let (start, end) = (Timestamp(input.start_time.0), Timestamp(input.end_time.0));
    let mut wanted = Vec::with_capacity(input.metric_data_queries.len());
    let mut ids = BTreeSet::new();
    for (n, query) in (1..).zip(input.metric_data_queries) {
        if !ids.insert(query.id.clone()) {
            return Err(errors::validation("The values for parameter id in MetricDataQueries are not unique."));
        }
        wanted.push(read(query, n, start, end, now)?);
    }
    let ascending = input.scan_by == Some(ScanBy::TimestampAscending);
    Ok(answer(wanted, place, most, ascending, |query| cx.app.metrics.query(query).iter().map(|p| (p.at, p.value)).collect()))
}

fn read(query: MetricDataQuery, n: usize, start: Timestamp, end: Timestamp, now: Timestamp) -> Result<Wanted, Fault> {
    let at = format!("MetricDataQueries.member.{n}");
    let named = query.id.starts_with(|c: char| c.is_ascii_lowercase())
        && query.id.len() <= 255
        && query.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        let rule = "is not matching the expected pattern ^[a-z][a-zA-Z0-9_]*$.";
        return Err(errors::validation(format!("The value {} for parameter {at}.Id {rule}", short(&query.id))));
    }
    if query.expression.is_some() && query.metric_stat.is_some() {
        return Err(errors::validation(format!(
            "The parameters {at}.Expression and {at}.MetricStat are mutually exclusive and you have specified both."
        )));
    }
    if query.expression.is_some() {
        return Err(errors::validation(format!(
            "Error in expression '{}': metric math, SEARCH and Metrics Insights are not served in this release; \
             ask for the metric itself with MetricStat",
            query.id
        )));
    }
    let Some(stat) = query.metric_stat else {
        return Err(errors::validation(format!("Either the parameter {at}.MetricStat or {at}.Expression must be specified.")));
    };
    let required = |text: Option<String>, member: &str| {
        let given = text.filter(|t| !t.is_empty());
        given.ok_or_else(|| errors::validation(format!("The parameter {at}.MetricStat.Metric.{member} is required.")))
    };
    let namespace = required(stat.metric.namespace, "Namespace")?;
    let name = required(stat.metric.metric_name, "MetricName")?;
    let dimensions = stat.metric.dimensions.unwrap_or_default();
    check_dimensions(&dimensions, &format!("{at}.MetricStat.Metric.Dimensions"))
        .map_err(|fault| errors::validation(fault.message))?;
    let period_ms = period_ms(stat.period).ok_or_else(|| {
        errors::validation(format!("The parameter {at}.MetricStat.Period must be 1, 5, 10, 20, 30 or a multiple of 60."))
    })?;
    let statistic = Statistic::parse(&stat.stat).ok_or_else(|| {
        let why = "is not supported: SampleCount, Sum, Average, Minimum, Maximum and percentiles (p99.9) are.";
        errors::validation(format!("The value {} for parameter {at}.MetricStat.Stat {why}", short(&stat.stat)))
    })?;
    Ok(Wanted {
        id: query.id,
        label: query.label.unwrap_or_else(|| name.clone()),
        returned: query.return_data.unwrap_or(true),
        query: Query {
            key: key(&namespace, &name, &dimensions),
            statistic,
            unit: stat.unit.map(|unit| Arc::from(unit.as_str())),
            start: rounded_start(start, period_ms, now),
            end,
            period_ms,
        },
    })
}

/// Results in the queries' order, until the page is full; what has not been reached is not even read.
fn answer(
    wanted: Vec<Wanted>,
    place: Option<Place>,
    most: usize,
    ascending: bool,
    points: impl Fn(&Query) -> Vec<(Timestamp, f64)>,
) -> GetMetricDataOutput {
    let (first, behind) = place.map_or((0, None), |(index, at)| (index, Some(Timestamp(at))));
    let (mut results, mut next, mut room) = (Vec::new(), None, most);
    for (index, wanted) in wanted.into_iter().enumerate().skip(first).filter(|(_, wanted)| wanted.returned) {
        let mut found = points(&wanted.query);
        // Data of several units and no unit asked: CloudWatch leaves open which one answers.
        found.dedup_by_key(|(at, _)| *at);
        if !ascending {
            found.reverse();
        }
        if let Some(behind) = behind.filter(|_| index == first) {
            found.retain(|(at, _)| if ascending { *at > behind } else { *at < behind });
        }
        let cut = found.len() > room;
        found.truncate(room);
        room -= found.len();
        if cut {
            // A page that ends before a result's first point goes on with all of it.
            let unreached = if ascending { i64::MIN } else { i64::MAX };
            next = Some((index, found.last().map_or(unreached, |(at, _)| at.0)));
        }
        let (timestamps, values): (Vec<_>, Vec<_>) = found.into_iter().map(|(at, value)| (types::Timestamp(at.0), value)).unzip();
        let status_code = if cut { StatusCode::PartialData } else { StatusCode::Complete };
        results.push(MetricDataResult { id: wanted.id, label: wanted.label, timestamps, values, status_code });
        if next.is_some() {
            break;
        }
    }
    GetMetricDataOutput {
        metric_data_results: results,
        next_token: next.map(|place: Place| token::write(TOKEN, &place)),
        messages: Vec::new(),
    }
}
