//! Metrics as CloudWatch names them: namespace, name and an exact set of dimensions.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Millis, Timestamp};

/// A metric's identity. Dimensions are sorted by name, so equal sets are equal keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MetricKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub dimensions: Vec<(Arc<str>, Arc<str>)>,
}

impl MetricKey {
    pub fn new<'a>(namespace: &str, name: &str, dimensions: impl IntoIterator<Item = (&'a str, &'a str)>) -> MetricKey {
        let mut dimensions: Vec<(Arc<str>, Arc<str>)> =
            dimensions.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v))).collect();
        dimensions.sort();
        MetricKey { namespace: Arc::from(namespace), name: Arc::from(name), dimensions }
    }

    pub fn dimension(&self, name: &str) -> Option<&str> {
        self.dimensions.iter().find(|(k, _)| &**k == name).map(|(_, v)| &**v)
    }
}

impl fmt::Display for MetricKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.namespace, self.name)?;
        for (name, value) in &self.dimensions {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// What one period holds: CloudWatch's StatisticSet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatisticSet {
    pub count: f64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
}

impl StatisticSet {
    pub fn of(value: f64) -> StatisticSet {
        StatisticSet { count: 1.0, sum: value, min: value, max: value }
    }

    pub fn merge(&mut self, other: StatisticSet) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// One thing to store. `at` is the start of the second (or minute) that the value is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    pub key: MetricKey,
    pub at: Timestamp,
    pub value: Observed,
    /// CloudWatch's unit text (`Percent`, `Count`, `None`, ...). Not part of the identity, but data of different units stay apart.
    pub unit: Arc<str>,
    /// 1 or 60 seconds: a 60 s datum is stored in its minute.
    pub resolution_s: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    Value(f64),
    /// Distinct values with their counts.
    Values(Vec<(f64, f64)>),
    Set(StatisticSet),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Statistic {
    SampleCount,
    Sum,
    Average,
    Minimum,
    Maximum,
    /// `p99`, `p99.9`: the share in percent.
    Percentile(f64),
}

impl Statistic {
    /// From CloudWatch's text (`Average`, `p99.9`); None for what is not served.
    pub fn parse(text: &str) -> Option<Statistic> {
        Some(match text {
            "SampleCount" => Statistic::SampleCount,
            "Sum" => Statistic::Sum,
            "Average" => Statistic::Average,
            "Minimum" => Statistic::Minimum,
            "Maximum" => Statistic::Maximum,
            _ => {
                let share: f64 = text.strip_prefix('p').filter(|n| !n.starts_with(['+', '-']))?.parse().ok()?;
                (share.is_finite() && (0.0..=100.0).contains(&share)).then_some(Statistic::Percentile(share))?
            }
        })
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Statistic::SampleCount => f.write_str("SampleCount"),
            Statistic::Sum => f.write_str("Sum"),
            Statistic::Average => f.write_str("Average"),
            Statistic::Minimum => f.write_str("Minimum"),
            Statistic::Maximum => f.write_str("Maximum"),
            Statistic::Percentile(share) => write!(f, "p{share}"),
        }
    }
}

/// One period of an answer. `at` is the period's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Datapoint {
    pub at: Timestamp,
    pub value: f64,
    pub sample_count: f64,
}

/// What to read: periods of `period_ms` from `start` (inclusive) to `end` (exclusive), aligned to `start`.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub key: MetricKey,
    pub statistic: Statistic,
    /// None: every unit's data, each unit apart.
    pub unit: Option<Arc<str>>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub period_ms: Millis,
}
