//! Reading: which tier answers a query, and the periods of the answer.

use std::sync::Arc;

use super::head::Shard;
use super::part::Kind;
use super::point::{Point, normalise, roll_up};
use super::series::Series;
use super::store::{MetricStore, SECONDS_KEPT_MS, lock, read};
use crate::model::metric::{Datapoint, Query, Statistic, StatisticSet};
use crate::model::{Millis, Timestamp};

const MINUTE_MS: Millis = 60_000;
const DAY_MS: Millis = 86_400_000;

/// Each unit's periods, by unit, oldest first.
pub type ByUnit<T> = Vec<(Arc<str>, Vec<T>)>;

/// From what a query is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Seconds,
    Minutes,
}

impl MetricStore {
    /// The periods that have data, oldest first. Without a unit in the query every unit's, each unit's apart: several
    /// datapoints of one time then mean several units.
    pub fn query(&self, q: &Query) -> Vec<Datapoint> {
        let mut points: Vec<Datapoint> = self.query_by_unit(q).into_iter().flat_map(|(_, points)| points).collect();
        points.sort_by_key(|p| p.at);
        points
    }

    /// As `query`, by unit (GetMetricStatistics gives each datapoint's).
    pub fn query_by_unit(&self, q: &Query) -> ByUnit<Datapoint> {
        self.answer(q, |at, point| {
            let value = point.statistic(&q.statistic)?;
            Some(Datapoint { at, value, sample_count: point.set.count })
        })
    }

    /// As `query_by_unit`, whole sets instead of one statistic.
    pub fn statistic_sets(&self, q: &Query) -> ByUnit<(Timestamp, StatisticSet)> {
        self.answer(q, |at, point| Some((at, point.set)))
    }

    /// As `query_by_unit`, several statistics of each period with one reading; None where a period has no such statistic.
    pub fn query_many(&self, q: &Query, statistics: &[Statistic]) -> ByUnit<(Timestamp, Vec<Option<f64>>)> {
        self.answer(q, |at, point| Some((at, statistics.iter().map(|s| point.statistic(s)).collect())))
    }

    /// The newest period that has data.
    pub fn latest_bucket(&self, q: &Query) -> Option<Datapoint> {
        self.query(q).pop()
    }

    fn answer<T>(&self, q: &Query, each: impl Fn(Timestamp, &Point) -> Option<T>) -> ByUnit<T> {
        let Some(tier) = tier(q.start, q.period_ms, self.clock.now()).filter(|_| q.start < q.end) else { return Vec::new() };
        let wanted = |series: &&Arc<Series>| q.unit.as_deref().is_none_or(|unit| unit == &*series.unit);
        let series: Vec<Arc<Series>> = read(&self.table).units(&q.key).iter().filter(wanted).cloned().collect();
        let mut answer = Vec::with_capacity(series.len());
        for series in series {
            let points = self.points(series.id, tier, q.start, q.end);
            let periods = periods(&points, q.start, q.period_ms);
            let given: Vec<T> = periods.iter().filter_map(|(at, point)| each(*at, point)).collect();
            if !given.is_empty() {
                answer.push((series.unit.clone(), given));
            }
        }
        answer.sort_by(|a, b| a.0.cmp(&b.0));
        answer
    }

    /// One series' points with `start` <= time < `end`, ascending.
    fn points(&self, id: u32, tier: Tier, start: Timestamp, end: Timestamp) -> Vec<Point> {
        let mut points = Vec::new();
        // Head and tables under one lock: a checkpoint between the two would hide what it moves.
        let tables = {
            let gate = read(&self.tables);
            take_from_head(&lock(&self.shards[id as usize % self.shards.len()]), id, tier, &mut points);
            gate.clone()
        };
        if let Some(frozen) = &tables.frozen {
            take_from_head(&frozen[id as usize % frozen.len()], id, tier, &mut points);
        }
        let within = |kind: Kind| match tier {
            Tier::Seconds => matches!(kind, Kind::Seconds | Kind::Minutes),
            Tier::Minutes => kind != Kind::Seconds,
        };
        for part in &tables.parts {
            let entry = &part.entry;
            if within(entry.kind) && entry.first * 1000 < end.0 && entry.last * 1000 >= start.0 && !part.read(id, &mut points) {
                self.damaged_chunk(&entry.file, id);
            }
        }
        points.retain(|p| p.at * 1000 >= start.0 && p.at * 1000 < end.0);
        normalise(&mut points);
        points
    }

    pub(super) fn damaged_chunk(&self, file: &str, series: u32) {
        self.counters.damaged_chunks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!(file, series, "a damaged chunk of metrics was skipped");
    }
}

fn take_from_head(shard: &Shard, id: u32, tier: Tier, out: &mut Vec<Point>) {
    let Some(head) = shard.series.get(&id) else { return };
    match tier {
        Tier::Seconds => out.extend(head.seconds()),
        Tier::Minutes => out.extend(roll_up(&head.seconds(), 60)),
    }
    out.extend_from_slice(head.minutes());
}

/// GetMetricStatistics, "Period": a start older than 3 hours needs a multiple of 60 s, older than 15 days of 300 s, older than
/// 63 days of 3600 s; else there are no points. A minute of slack, as callers round the start down to one.
fn tier(start: Timestamp, period_ms: Millis, now: Timestamp) -> Option<Tier> {
    let age = now.since(start) - MINUTE_MS;
    let needed = match age {
        _ if age > 63 * DAY_MS => 60 * MINUTE_MS,
        _ if age > 15 * DAY_MS => 5 * MINUTE_MS,
        _ if age > SECONDS_KEPT_MS => MINUTE_MS,
        _ => 1000,
    };
    if period_ms <= 0 || period_ms % needed != 0 {
        return None;
    }
    // Minutes cannot answer for periods that begin inside of one; where seconds are kept, they can.
    let in_minutes = period_ms % MINUTE_MS == 0 && start.0.rem_euclid(MINUTE_MS) == 0;
    Some(if in_minutes || age > SECONDS_KEPT_MS { Tier::Minutes } else { Tier::Seconds })
}

/// Periods are counted from the start, not from the epoch (CloudWatch, GetMetricStatistics); empty ones are left out.
fn periods(points: &[Point], start: Timestamp, period_ms: Millis) -> Vec<(Timestamp, Point)> {
    let mut periods: Vec<(Timestamp, Point)> = Vec::new();
    for point in points {
        let at = start + (point.at * 1000 - start.0).div_euclid(period_ms) * period_ms;
        match periods.last_mut() {
            Some((last, whole)) if *last == at => whole.merge(point),
            _ => periods.push((at, point.clone())),
        }
    }
    periods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_follows_the_age_of_the_start() {
        let now = Timestamp(1_795_176_000_000);
        let (hour, day) = (3_600_000, DAY_MS);
        let cases = [
            (hour, 1_000, Some(Tier::Seconds)),
            (hour, 10_000, Some(Tier::Seconds)),
            (hour, 60_000, Some(Tier::Minutes)),
            (hour + 30_000, 60_000, Some(Tier::Seconds)),
            (hour, 1_500, None),
            (hour, 0, None),
            (3 * hour + 60_000, 1_000, Some(Tier::Seconds)),
            (4 * hour, 10_000, None),
            (4 * hour, 90_000, None),
            (4 * hour, 60_000, Some(Tier::Minutes)),
            (15 * day, 60_000, Some(Tier::Minutes)),
            (16 * day, 60_000, None),
            (16 * day, 300_000, Some(Tier::Minutes)),
            (64 * day, 300_000, None),
            (64 * day, 3_600_000, Some(Tier::Minutes)),
            (64 * day, 86_400_000, Some(Tier::Minutes)),
        ];
        for (age, period_ms, expected) in cases {
            assert_eq!(tier(now - age, period_ms, now), expected, "{age} ms old, period {period_ms} ms");
        }
    }

    #[test]
    fn periods_are_counted_from_the_start() {
        let points: Vec<Point> = [59, 60, 100, 119, 240].map(|at| Point::single(at, 1.0)).to_vec();
        let got: Vec<(i64, f64)> =
            periods(&points, Timestamp(18_000), 60_000).iter().map(|(at, p)| (at.0, p.set.count)).collect();
        assert_eq!(got, [(18_000, 2.0), (78_000, 2.0), (198_000, 1.0)]);
    }
}
