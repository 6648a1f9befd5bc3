//! What became of the requests: counted live by second and by phase, and told at the end.
//!
//! Offered = completed + failed + dropped + in flight, always. Latency counts from when a request was due, not from when it was sent,
//! so time that a slow server keeps others waiting is in the percentiles. Requests that were refused at once are not: they would
//! make a broken server look fast.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::profile::Profile;

/// Seconds that the live view remembers.
const SECONDS_KEPT: usize = 900;
const LONGEST: Duration = Duration::from_secs(600);
/// Buckets of the histogram that Prometheus sees.
const SECONDS: &[f64] = &[0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const FAILURE_KINDS: usize = 16;

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Completed,
    /// An answer that is no success, or none in time: it took as long as it took.
    Failed(String),
    /// Never got through.
    Refused(String),
}

/// A handle on the counts of a load that runs; clones are the same counts.
#[derive(Clone)]
pub struct Live {
    counts: Arc<Mutex<Counts>>,
    durations: prometheus::Histogram,
}

struct Counts {
    total: Tally,
    phases: Vec<(String, Tally)>,
    failures: BTreeMap<String, u64>,
    seconds: VecDeque<Second>,
    /// Latencies of the newest second.
    newest: Histogram<u64>,
}

#[derive(Clone)]
struct Tally {
    offered: u64,
    completed: u64,
    failed: u64,
    dropped: u64,
    latency: Histogram<u64>,
}

/// What happened in one second; requests count as offered when they are due and as completed when they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Second {
    /// Since the load began.
    pub at_s: u64,
    pub offered: u64,
    pub completed: u64,
    pub failed: u64,
    pub dropped: u64,
    /// Of those that ended in this second; None when none did.
    pub p99_ms: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub seconds: f64,
    pub total: Line,
    pub phases: Vec<(String, Line)>,
    /// Kinds of failures and how often.
    pub failures: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Line {
    pub offered: u64,
    pub completed: u64,
    pub failed: u64,
    /// Not sent: as many as may be were in flight.
    pub dropped: u64,
    pub in_flight: u64,
    /// None without a request that counts.
    pub latency: Option<Latency>,
}

/// Milliseconds from when the requests were due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Tally {
    fn new() -> Tally {
        Tally { offered: 0, completed: 0, failed: 0, dropped: 0, latency: histogram() }
    }

    fn line(&self) -> Line {
        let Tally { offered, completed, failed, dropped, .. } = *self;
        let in_flight = offered - completed - failed - dropped;
        Line { offered, completed, failed, dropped, in_flight, latency: latency(&self.latency) }
    }
}

/// Three significant digits from a tenth of a millisecond to ten minutes: about 100 KiB.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST.as_micros() as u64 / 100, 3).expect("the bounds are constants and in order")
}

fn units(latency: Duration) -> u64 {
    (latency.min(LONGEST).as_micros() as u64).div_ceil(100).max(1)
}

fn latency(histogram: &Histogram<u64>) -> Option<Latency> {
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 10.0;
    (!histogram.is_empty()).then(|| Latency {
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: histogram.max() as f64 / 10.0,
    })
}

impl Live {
    pub fn new(profile: &Profile) -> Live {
        let phases = profile.phases().iter().map(|p| (p.name.clone(), Tally::new())).collect();
        let counts =
            Counts { total: Tally::new(), phases, failures: BTreeMap::new(), seconds: VecDeque::new(), newest: histogram() };
        let options = prometheus::HistogramOpts::new(
            "beaufort_load_request_duration_seconds",
            "From when a request was due to its answer; those that were refused at once are not in it.",
        );
        let durations = prometheus::Histogram::with_opts(options.buckets(SECONDS.to_vec()));
        Live {
            counts: Arc::new(Mutex::new(counts)),
            durations: durations.expect("the name and the buckets are constants and valid"),
        }
    }

    /// The same latencies as in the report, as a histogram for Prometheus.
    pub fn durations(&self) -> prometheus::Histogram {
        self.durations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn offered(&self, phase: usize, since_start: Duration) {
        let mut counts = self.lock();
        counts.both(phase, |tally| tally.offered += 1);
        counts.second(since_start).offered += 1;
    }

    pub(super) fn dropped(&self, phase: usize, since_start: Duration) {
        let mut counts = self.lock();
        counts.both(phase, |tally| tally.dropped += 1);
        counts.second(since_start).dropped += 1;
    }

    pub(super) fn ended(&self, phase: usize, since_start: Duration, latency: Duration, outcome: &Outcome) {
        let mut counts = self.lock();
        let completed = *outcome == Outcome::Completed;
        let counts_as_latency = !matches!(outcome, Outcome::Refused(_));
        counts.both(phase, |tally| {
            if completed {
                tally.completed += 1;
            } else {
                tally.failed += 1;
            }
            if counts_as_latency {
                tally.latency.saturating_record(units(latency));
            }
        });
        let second = counts.second(since_start);
        if completed {
            second.completed += 1;
        } else {
            second.failed += 1;
        }
        if counts_as_latency {
            counts.newest.saturating_record(units(latency));
            self.durations.observe(latency.as_secs_f64());
        }
        if let Outcome::Failed(kind) | Outcome::Refused(kind) = outcome {
            let room = counts.failures.len() < FAILURE_KINDS || counts.failures.contains_key(kind);
            *counts.failures.entry(if room { kind.clone() } else { "other".to_owned() }).or_default() += 1;
        }
    }

    /// Whole seconds, oldest first; the one that goes on is the last.
    pub fn seconds(&self) -> Vec<Second> {
        let counts = self.lock();
        let mut seconds: Vec<Second> = counts.seconds.iter().copied().collect();
        if let Some(last) = seconds.last_mut() {
            last.p99_ms = latency(&counts.newest).map(|l| l.p99_ms);
        }
        seconds
    }

    /// The newest second that is over by `since_start`.
    pub fn last_second(&self, since_start: Duration) -> Second {
        let whole = since_start.as_secs();
        self.seconds().into_iter().rev().find(|s| s.at_s < whole).unwrap_or_default()
    }

    pub fn report(&self, took: Duration) -> Report {
        let counts = self.lock();
        Report {
            seconds: took.as_secs_f64(),
            total: counts.total.line(),
            phases: counts.phases.iter().map(|(name, tally)| (name.clone(), tally.line())).collect(),
            failures: counts.failures.clone(),
        }
    }
}

impl Counts {
    fn both(&mut self, phase: usize, change: impl Fn(&mut Tally)) {
        change(&mut self.total);
        if let Some((_, tally)) = self.phases.get_mut(phase) {
            change(tally);
        }
    }

    /// The second of this moment. Late news of an older one counts in the newest.
    fn second(&mut self, since_start: Duration) -> &mut Second {
        let at_s = since_start.as_secs();
        if self.seconds.back().is_none_or(|last| last.at_s < at_s) {
            if let Some(last) = self.seconds.back_mut() {
                last.p99_ms = latency(&self.newest).map(|l| l.p99_ms);
            }
            self.newest.clear();
            if self.seconds.len() == SECONDS_KEPT {
                self.seconds.pop_front();
            }
            self.seconds.push_back(Second { at_s, ..Second::default() });
        }
        self.seconds.back_mut().expect("one was just pushed where there was none")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        let header = [
            "PHASE",
            "OFFERED",
            "COMPLETED",
            "FAILED",
            "DROPPED",
            "IN FLIGHT",
            "P50 MS",
            "P90 MS",
            "P99 MS",
            "P99.9 MS",
            "MAX MS",
        ];
        table.set_header(header);
        let whole = ("all".to_owned(), self.total);
        for (name, line) in self.phases.iter().chain(std::iter::once(&whole)) {
            let counts = [line.offered, line.completed, line.failed, line.dropped, line.in_flight].map(|n| n.to_string());
            let times = match line.latency {
                Some(l) => [l.p50_ms, l.p90_ms, l.p99_ms, l.p999_ms, l.max_ms].map(|ms| format!("{ms:.1}")),
                None => std::array::from_fn(|_| "-".to_owned()),
            };
            table.add_row(std::iter::once(name.clone()).chain(counts).chain(times));
        }
        write!(f, "{}", table.trim_fmt())?;
        for (kind, count) in &self.failures {
            write!(f, "\n{count} failed: {kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_offered_is_somewhere() {
        let profile = Profile::parse("a 10 1s\nb 10 1s").unwrap();
        let live = Live::new(&profile);
        let at = Duration::from_millis;
        for n in 0..6 {
            live.offered(n / 3, at(100));
        }
        live.ended(0, at(150), at(50), &Outcome::Completed);
        live.ended(0, at(1150), at(1000), &Outcome::Failed("status 503".into()));
        live.ended(1, at(1160), at(1), &Outcome::Refused("cannot connect".into()));
        live.dropped(1, at(1200));
        let report = live.report(at(2000));
        let total = report.total;
        assert_eq!((total.offered, total.completed, total.failed, total.dropped, total.in_flight), (6, 1, 2, 1, 2));
        assert_eq!(report.phases[0].1.in_flight, 1);
        assert_eq!(report.phases[1].1.latency, None, "a refusal has no latency");
        assert_eq!(report.failures, BTreeMap::from([("cannot connect".into(), 1), ("status 503".into(), 1)]));
        let latency = total.latency.unwrap();
        assert!((latency.p50_ms - 50.0).abs() < 0.5 && (latency.max_ms - 1000.0).abs() < 2.0, "{latency:?}");
        let seconds = live.seconds();
        assert_eq!(seconds.len(), 2);
        assert_eq!((seconds[0].offered, seconds[0].completed, seconds[0].p99_ms.map(f64::round)), (6, 1, Some(50.0)));
        assert_eq!((seconds[1].failed, seconds[1].dropped), (2, 1));
        assert_eq!(live.last_second(at(1500)), seconds[0]);
        assert!(report.to_string().contains("status 503"));
    }

    #[test]
    fn kinds_of_failures_and_seconds_are_bounded() {
        let live = Live::new(&Profile::parse("a 1 1s").unwrap());
        for n in 0..2000 {
            live.offered(0, Duration::from_secs(n));
            live.ended(0, Duration::from_secs(n), Duration::ZERO, &Outcome::Failed(format!("status {n}")));
        }
        assert_eq!(live.seconds().len(), SECONDS_KEPT);
        let report = live.report(Duration::from_secs(2000));
        assert_eq!(report.failures.len(), FAILURE_KINDS + 1);
        assert_eq!(report.failures.values().sum::<u64>(), 2000);
    }
}
