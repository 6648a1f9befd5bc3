//! M of N with missing data: CloudWatch's algorithm, in the form that gives every row of its documented tables ("How alarm state
//! is evaluated when data is missing").

use super::Range;
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmState, MissingData};
use crate::model::metric::Datapoint;

#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// None: keep the state.
    pub state: Option<AlarmState>,
    pub rule: Rule,
    /// What the state rests on, newest first; a period without a value is a missing one that was filled in.
    pub evaluated: Vec<Evaluated>,
    /// How many of `evaluated` have a value, and how many of these breach.
    pub received: u32,
    pub breaching: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluated {
    pub at: Timestamp,
    pub point: Option<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub value: f64,
    pub sample_count: f64,
    pub breaches: bool,
}

/// Which of the rules decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// There are N datapoints, if need be older ones: missing data plays no part.
    Complete,
    /// Not one datapoint in the whole range.
    Empty,
    /// Fewer than N datapoints; the rest was treated as the alarm says.
    Filled,
    /// Fewer than N datapoints, and these alone decide.
    Partial,
    /// Fewer than M datapoints, but every one breaches and the oldest is old enough: no waiting for more.
    Premature,
}

impl Rule {
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Complete => "complete",
            Rule::Empty => "empty",
            Rule::Filled => "filled",
            Rule::Partial => "partial",
            Rule::Premature => "premature",
        }
    }
}

impl Judgement {
    /// The newest `at_most` values, oldest first.
    pub fn recent(&self, at_most: usize) -> Vec<f64> {
        let mut newest: Vec<f64> = self.evaluated.iter().filter_map(|e| e.point.map(|p| p.value)).take(at_most).collect();
        newest.reverse();
        newest
    }
}

/// M: how many of the N must breach.
pub fn datapoints_to_alarm(alarm: &Alarm) -> u32 {
    alarm.datapoints_to_alarm.unwrap_or(alarm.evaluation_periods).max(1)
}

/// "Alarms that evaluate metrics in the AWS/DynamoDB namespace always ignore missing data" (PutMetricAlarm, TreatMissingData).
pub fn missing_mode(alarm: &Alarm) -> MissingData {
    if &*alarm.metric.namespace == "AWS/DynamoDB" { MissingData::Ignore } else { alarm.missing }
}

pub fn judge(alarm: &Alarm, range: Range, points: &[Datapoint]) -> Judgement {
    let wanted = alarm.evaluation_periods.max(1) as usize;
    let to_alarm = datapoints_to_alarm(alarm) as usize;
    let buckets = buckets(alarm, range, points);
    let evaluated = evaluated(&buckets, wanted);
    let received = evaluated.iter().filter(|e| e.point.is_some()).count();
    let breaching = evaluated.iter().filter(|e| e.point.is_some_and(|p| p.breaches)).count();
    let raised_if = |yes: bool| Some(if yes { AlarmState::Alarm } else { AlarmState::Ok });
    let mode = missing_mode(alarm);

    let (state, rule) = if received >= wanted {
        (raised_if(breaching >= to_alarm), Rule::Complete)
    } else if received == 0 {
        let state = match mode {
            MissingData::Missing => Some(AlarmState::InsufficientData),
            MissingData::Ignore => None,
            MissingData::Breaching => Some(AlarmState::Alarm),
            MissingData::NotBreaching => Some(AlarmState::Ok),
        };
        (state, Rule::Empty)
    } else {
        match mode {
            MissingData::Breaching => (raised_if(breaching + (wanted - received) >= to_alarm), Rule::Filled),
            MissingData::NotBreaching => (raised_if(breaching >= to_alarm), Rule::Filled),
            MissingData::Missing | MissingData::Ignore if breaching >= to_alarm => (Some(AlarmState::Alarm), Rule::Partial),
            MissingData::Missing | MissingData::Ignore if breaching < received => (Some(AlarmState::Ok), Rule::Partial),
            // "Avoiding premature transitions to alarm state": one breaching point that only just came is no reason yet; the
            // same point M periods later, with nothing after it, is.
            MissingData::Missing if oldest_age(&buckets) >= to_alarm => (Some(AlarmState::Alarm), Rule::Premature),
            MissingData::Missing | MissingData::Ignore => (None, Rule::Premature),
        }
    };
    Judgement { state, rule, evaluated, received: received as u32, breaching: breaching as u32 }
}

/// One entry per period of the range, newest first.
fn buckets(alarm: &Alarm, range: Range, points: &[Datapoint]) -> Vec<Evaluated> {
    let count = range.periods as usize;
    let mut buckets: Vec<Evaluated> = (1..=i64::from(range.periods))
        .map(|age| Evaluated { at: range.end - age.saturating_mul(range.period_ms), point: None })
        .collect();
    for point in points {
        let from_start = point.at.since(range.start);
        if from_start < 0 || range.period_ms <= 0 || !point.value.is_finite() {
            continue;
        }
        let index = (from_start / range.period_ms) as usize;
        if index < count {
            buckets[count - 1 - index].point = Some(Point {
                value: point.value,
                sample_count: point.sample_count,
                breaches: alarm.comparison.breaches(point.value, alarm.threshold),
            });
        }
    }
    buckets
}

/// The newest N periods that have data; where there are fewer, all of these and the newest missing ones to make up N.
fn evaluated(buckets: &[Evaluated], wanted: usize) -> Vec<Evaluated> {
    let real = buckets.iter().filter(|b| b.point.is_some()).count().min(wanted);
    let (mut real_left, mut missing_left) = (real, wanted - real);
    buckets
        .iter()
        .filter(|bucket| {
            let left = if bucket.point.is_some() { &mut real_left } else { &mut missing_left };
            let take = *left > 0;
            *left = left.saturating_sub(1);
            take
        })
        .copied()
        .collect()
}

/// How many periods ago the oldest datapoint of the range was; the newest period is 1.
fn oldest_age(buckets: &[Evaluated]) -> usize {
    buckets.iter().rposition(|b| b.point.is_some()).map_or(0, |index| index + 1)
}
