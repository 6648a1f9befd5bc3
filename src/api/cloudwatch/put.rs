//! PutMetricData. One bad datum refuses the whole request, as on AWS; errors name it by its place, counted from 1.

use std::sync::Arc;

use super::metric::{check_dimensions, key, short};
use super::shapes::{MetricDatum, PutMetricDataInput, StatisticSet, Unit};
use super::{Cx, errors};
use crate::model::metric::{Datum, Observed, StatisticSet as ModelSet};
use crate::model::{Millis, Timestamp};
use crate::wire::fault::Fault;

const MOST_DATA: usize = 1_000;
const MOST_VALUES: usize = 150;
const OLDEST_MS: Millis = 14 * 86_400_000;
const AHEAD_MS: Millis = 2 * 3_600_000;

pub async fn put_metric_data(cx: Cx, input: PutMetricDataInput) -> Result<(), Fault> {
    check_namespace(&input.namespace)?;
    let now = cx.app.clock.now();
    let own = input.metric_data.into_iter().flatten().map(|datum| (None, datum));
    let of_entities = (1..)
        .zip(input.entity_metric_data.into_iter().flatten())
        .flat_map(|(n, of)| of.metric_data.into_iter().flatten().map(move |datum| (Some(n), datum)));
    let given: Vec<(Option<usize>, MetricDatum)> = own.chain(of_entities).collect();
    if given.is_empty() {
        return Err(errors::missing("MetricData"));
    }
    if given.len() > MOST_DATA {
        return Err(errors::too_many("MetricData", MOST_DATA));
    }
    let mut data = Vec::with_capacity(given.len());
    let (mut entity, mut n) = (None, 0);
    for (of, datum) in given {
        n = if of == entity { n + 1 } else { 1 };
        entity = of;
        let at = match of {
            None => format!("MetricData.member.{n}"),
            Some(e) => format!("EntityMetricData.member.{e}.MetricData.member.{n}"),
        };
        data.push(read(&input.namespace, datum, &at, now)?);
    }
    let outcome = cx.app.metrics.put_durably(&data);
    if outcome.unlogged > 0 {
        let rule = "make room on the disk of the data directory, then put them again";
        return Err(errors::internal(format!("The data were not stored: the metrics cannot be written to disk; {rule}.")));
    }
    if outcome.accepted < data.len() as u64 {
        let refused = data.len() as u64 - outcome.accepted;
        return Err(errors::internal(format!("{refused} of {} data were not stored: there are too many metrics.", data.len())));
    }
    Ok(())
}

/// 1 to 255 of `[0-9A-Za-z.\-_/#:]`; those that begin with `AWS/` are AWS's own, and here Beaufort's.
fn check_namespace(namespace: &str) -> Result<(), Fault> {
    if namespace.is_empty() {
        return Err(errors::missing("Namespace"));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_/#: ".contains(&b);
    if namespace.len() > 255 || namespace.starts_with([':', ' ']) || !namespace.bytes().all(allowed) {
        return Err(errors::value(format!("The value {} for parameter Namespace is invalid.", short(namespace))));
    }
    if namespace.starts_with("AWS/") {
        return Err(errors::value("The value AWS/ for parameter Namespace is invalid."));
    }
    Ok(())
}

/// `at` is the datum's path.
fn read(namespace: &str, datum: MetricDatum, at: &str, now: Timestamp) -> Result<Datum, Fault> {
    let invalid =
        |value: &str, member: &str| errors::value(format!("The value {} for parameter {at}.{member} is invalid.", short(value)));
    let name = &datum.metric_name;
    if name.trim().is_empty() {
        return Err(errors::missing(&format!("{at}.MetricName")));
    }
    if name.chars().count() > 255 || name.chars().any(char::is_control) {
        return Err(invalid(name, "MetricName"));
    }
    let dimensions = datum.dimensions.as_deref().unwrap_or_default();
    check_dimensions(dimensions, &format!("{at}.Dimensions"))?;
    let resolution_s = match datum.storage_resolution {
        None | Some(60) => 60,
        Some(1) => 1,
        Some(other) => return Err(invalid(&other.to_string(), "StorageResolution")),
    };
    let when = datum.timestamp.map_or(now, |t| Timestamp(t.0));
    if now.since(when) > OLDEST_MS {
        return Err(errors::value(format!("The parameter {at}.Timestamp must specify a time within the past two weeks.")));
    }
    if when.since(now) > AHEAD_MS {
        let rule = "must specify a time no more than two hours in the future.";
        return Err(errors::value(format!("The parameter {at}.Timestamp {rule}")));
    }
    Ok(Datum {
        key: key(namespace, name, dimensions),
        at: when,
        value: observed(&datum, at)?,
        unit: Arc::from(datum.unit.unwrap_or(Unit::None).as_str()),
        resolution_s,
    })
}

fn observed(datum: &MetricDatum, at: &str) -> Result<Observed, Fault> {
    let both = |a: &str, b: &str| {
        let rule = "are mutually exclusive and you have specified both.";
        errors::combination(format!("The parameters {at}.{a} and {at}.{b} {rule}"))
    };
    match (datum.value, &datum.values, &datum.statistic_values) {
        (Some(_), Some(_), _) => Err(both("Value", "Values")),
        (Some(_), _, Some(_)) => Err(both("Value", "StatisticValues")),
        (_, Some(_), Some(_)) => Err(both("Values", "StatisticValues")),
        (Some(value), None, None) => number(value, at, "Value").map(Observed::Value),
        (None, Some(values), None) => counted(values, datum.counts.as_deref(), at),
        (None, None, Some(set)) => statistic_set(set, at),
        (None, None, None) => Err(errors::combination("At least one of the parameters must be specified.")),
    }
}

fn counted(values: &[f64], counts: Option<&[f64]>, at: &str) -> Result<Observed, Fault> {
    if values.is_empty() {
        return Err(errors::missing(&format!("{at}.Values")));
    }
    if values.len() > MOST_VALUES {
        return Err(errors::too_many(&format!("{at}.Values"), MOST_VALUES));
    }
    if counts.is_some_and(|counts| counts.len() != values.len()) {
        return Err(errors::value(format!("The parameters {at}.Values and {at}.Counts must be of the same size.")));
    }
    let mut pairs = Vec::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        let count = counts.map_or(1.0, |counts| counts[i]);
        let (value, count) =
            (number(*value, at, &format!("Values.member.{}", i + 1))?, number(count, at, &format!("Counts.member.{}", i + 1))?);
        if count <= 0.0 {
            return Err(wrong(count, at, &format!("Counts.member.{}", i + 1)));
        }
        pairs.push((value, count));
    }
    Ok(Observed::Values(pairs))
}

fn statistic_set(set: &StatisticSet, at: &str) -> Result<Observed, Fault> {
    let member = |value: f64, name: &str| number(value, at, &format!("StatisticValues.{name}"));
    let set = ModelSet {
        count: member(set.sample_count, "SampleCount")?,
        sum: member(set.sum, "Sum")?,
        min: member(set.minimum, "Minimum")?,
        max: member(set.maximum, "Maximum")?,
    };
    if set.count <= 0.0 {
        return Err(wrong(set.count, at, "StatisticValues.SampleCount"));
    }
    if set.min > set.max {
        return Err(errors::combination(format!(
            "The parameter {at}.StatisticValues.Minimum must not be greater than the parameter {at}.StatisticValues.Maximum."
        )));
    }
    Ok(Observed::Set(set))
}

/// CloudWatch, MetricDatum: from -2^360 to 2^360; "special values (for example, NaN, +Infinity, -Infinity) are not supported".
fn number(value: f64, at: &str, member: &str) -> Result<f64, Fault> {
    let most = 2f64.powi(360);
    if (-most..=most).contains(&value) { Ok(value) } else { Err(wrong(value, at, member)) }
}

fn wrong(value: f64, at: &str, member: &str) -> Fault {
    // As Java writes it.
    let text = match value {
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => format!("{value:?}"),
    };
    errors::value(format!("The value {text} for parameter {at}.{member} is invalid."))
}
