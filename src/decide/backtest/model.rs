//! What was recorded, second by second, and what a metric would have been on another capacity.

use crate::model::metric::{Datapoint, MetricKey, Statistic};
use crate::model::{Millis, Timestamp};

use super::SECOND;

/// How a metric depends on how many tasks share the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Model {
    /// Not at all: the length of a queue, the hour of the day.
    Constant,
    /// The load is what it was, and each task has an equal share of it: metric x tasks stays. What a share comes to beyond the
    /// ceiling nobody has measured.
    Linear { ceiling: Option<f64> },
}

/// One metric as one statistic, by the second.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub metric: MetricKey,
    pub statistic: Statistic,
    pub unit: Option<String>,
    pub model: Model,
    /// Value and how many samples it is of. None: no data.
    seconds: Vec<Option<(f64, f64)>>,
}

/// Everything that is known of a stretch of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub start: Timestamp,
    length: usize,
    pub series: Vec<Series>,
    /// Averages where the seconds are no longer kept. None: nobody wrote it down.
    running: Vec<Option<f64>>,
    desired: Vec<Option<f64>>,
}

impl Record {
    /// Both on whole seconds.
    pub fn new(start: Timestamp, end: Timestamp) -> Record {
        let length = usize::try_from(end.since(start) / SECOND).unwrap_or(0);
        Record { start, length, series: Vec::new(), running: vec![None; length], desired: vec![None; length] }
    }

    /// Datapoints of `width_ms` each, oldest first; finer ones that come later take their place.
    pub fn ran(&mut self, points: &[Datapoint], width_ms: Millis) {
        spread(self.start, &mut self.running, points, width_ms, |point| point.value);
    }

    pub fn desired_was(&mut self, points: &[Datapoint], width_ms: Millis) {
        spread(self.start, &mut self.desired, points, width_ms, |point| point.value);
    }

    /// The place of a series, which is made if need be.
    pub fn series(&mut self, metric: &MetricKey, statistic: &Statistic, unit: Option<&str>, model: Model) -> usize {
        let found = self.find(metric, statistic, unit);
        found.unwrap_or_else(|| {
            let (metric, statistic, unit) = (metric.clone(), statistic.clone(), unit.map(str::to_owned));
            self.series.push(Series { metric, statistic, unit, model, seconds: vec![None; self.length] });
            self.series.len() - 1
        })
    }

    pub fn find(&self, metric: &MetricKey, statistic: &Statistic, unit: Option<&str>) -> Option<usize> {
        let same = |s: &Series| s.metric == *metric && s.statistic == *statistic && s.unit.as_deref() == unit;
        self.series.iter().position(same)
    }

    pub fn measured(&mut self, series: usize, points: &[Datapoint], width_ms: Millis) {
        let seconds = (width_ms / SECOND).max(1) as f64;
        let start = self.start;
        let Some(series) = self.series.get_mut(series) else { return };
        // What adds up over time is shared out over it.
        let adds = matches!(series.statistic, Statistic::Sum | Statistic::SampleCount);
        spread(start, &mut series.seconds, points, width_ms, |point| {
            (if adds { point.value / seconds } else { point.value }, (point.sample_count / seconds).max(0.0))
        });
    }

    /// The highest value that was ever measured: tasks that may burst beyond what they reserved have shown how far.
    pub fn highest(&self, series: usize) -> Option<f64> {
        let values = self.series.get(series)?.seconds.iter().flatten().map(|(value, _)| *value);
        values.filter(|value| value.is_finite()).max_by(f64::total_cmp)
    }

    pub fn index(&self, at: Timestamp) -> Option<usize> {
        let index = usize::try_from(at.since(self.start).div_euclid(SECOND)).ok()?;
        (index < self.length).then_some(index)
    }

    pub fn running(&self, second: usize) -> Option<f64> {
        self.running.get(second).copied().flatten()
    }

    pub fn desired(&self, second: usize) -> Option<f64> {
        self.desired.get(second).copied().flatten()
    }

    /// The last count that was written down at or before this second; before the first, that one.
    pub fn last_known(&self, of: fn(&Record, usize) -> Option<f64>, second: usize) -> Option<u32> {
        let before = (0..=second.min(self.length.saturating_sub(1))).rev().find_map(|n| of(self, n));
        before.or_else(|| (second..self.length).find_map(|n| of(self, n))).map(|count| count.round().max(0.0) as u32)
    }

    /// A second as it was recorded.
    pub fn value(&self, series: usize, second: usize) -> Option<f64> {
        self.series.get(series)?.seconds.get(second).copied().flatten().map(|(value, _)| value)
    }

    /// A second on `tasks` tasks: value and samples, and whether the load was more than the metric can show. None for `tasks`: as
    /// it was.
    pub fn on(&self, series: usize, second: usize, tasks: Option<u32>) -> Option<(f64, f64, bool)> {
        let series = self.series.get(series)?;
        let (value, samples) = series.seconds.get(second).copied().flatten()?;
        let (Model::Linear { ceiling }, Some(tasks)) = (series.model, tasks) else { return Some((value, samples, false)) };
        let ran = self.running(second).filter(|ran| *ran > 0.0)?;
        let tasks = f64::from(tasks);
        if tasks == 0.0 {
            return None;
        }
        match series.statistic {
            // Summed over the tasks, an equal share each comes to what it was.
            Statistic::Sum => Some((value, tasks, false)),
            Statistic::SampleCount => Some((value * tasks / ran, tasks, false)),
            _ => {
                let share = value * ran / tasks;
                let most = ceiling.unwrap_or(f64::INFINITY);
                Some((share.min(most), tasks, share > most))
            }
        }
    }

    /// The period that begins at `at`, each second on as many tasks as `tasks` says. A percentile over several seconds is the mean
    /// of the seconds' percentiles: the samples themselves are not kept.
    pub fn period(
        &self,
        series: usize,
        at: Timestamp,
        period_ms: Millis,
        tasks: impl Fn(usize) -> Option<u32>,
    ) -> Option<Datapoint> {
        let first = at.since(self.start).div_euclid(SECOND);
        let end = (at + period_ms).since(self.start).div_euclid(SECOND);
        let within = usize::try_from(first.max(0)).ok()?..usize::try_from(end.max(0)).ok()?.min(self.length);
        let statistic = &self.series.get(series)?.statistic;
        let (mut seconds, mut samples, mut sum, mut weighed) = (0_u32, 0.0, 0.0, 0.0);
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for (value, count, _) in within.filter_map(|second| self.on(series, second, tasks(second))) {
            seconds += 1;
            samples += count;
            sum += value;
            weighed += value * count;
            least = least.min(value);
            most = most.max(value);
        }
        if seconds == 0 {
            return None;
        }
        let value = match statistic {
            Statistic::Sum | Statistic::SampleCount => sum,
            Statistic::Minimum => least,
            Statistic::Maximum => most,
            Statistic::Average | Statistic::Percentile(_) if samples > 0.0 => weighed / samples,
            Statistic::Average | Statistic::Percentile(_) => sum / f64::from(seconds),
        };
        Some(Datapoint { at, value, sample_count: samples })
    }
}

fn spread<T: Copy>(
    start: Timestamp,
    seconds: &mut [Option<T>],
    points: &[Datapoint],
    width_ms: Millis,
    of: impl Fn(&Datapoint) -> T,
) {
    for point in points {
        let first = point.at.since(start).div_euclid(SECOND);
        let end = (point.at + width_ms.max(SECOND)).since(start).div_euclid(SECOND);
        let bounded = |n: i64| usize::try_from(n.max(0)).unwrap_or(0).min(seconds.len());
        let (first, end) = (bounded(first), bounded(end));
        seconds[first..end].fill(Some(of(point)));
    }
}
