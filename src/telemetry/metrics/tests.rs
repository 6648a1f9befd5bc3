//! The store as a whole: what is put is what is read, whatever checkpoints, crashes and time do to it.

mod formats;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::{Limits, ListFilter, MetricStore};
use crate::clock::{ManualClock, SharedClock};
use crate::model::Timestamp;
use crate::model::metric::{Datum, MetricKey, Observed, Query, Statistic, StatisticSet};

/// A whole minute, hour and five minutes, not a whole day.
const START: Timestamp = Timestamp(1_795_176_000_000);
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        TempDir(std::env::temp_dir().join(format!("beaufort-metrics-{}-{number}", std::process::id())))
    }

    /// What a crash at this moment would leave.
    fn copy(&self) -> TempDir {
        let copy = TempDir::new();
        std::fs::create_dir_all(&copy.0).unwrap();
        for entry in std::fs::read_dir(&self.0).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.0.join(entry.file_name())).unwrap();
        }
        copy
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(dir: Option<&Path>, clock: &Arc<ManualClock>) -> Arc<MetricStore> {
    // The background flusher must not checkpoint on its own here: the tests say when.
    let limits = Limits { checkpoint_ms: 1 << 50, ..Limits::default() };
    MetricStore::open(dir, clock.clone() as SharedClock, limits).unwrap()
}

fn key(name: &str) -> MetricKey {
    MetricKey::new("Test", name, [("Service", "web")])
}

fn datum(name: &str, at: Timestamp, value: f64) -> Datum {
    Datum { key: key(name), at, value: Observed::Value(value), unit: Arc::from("Count"), resolution_s: 1 }
}

fn query(name: &str, statistic: Statistic, start: Timestamp, end: Timestamp, period_ms: i64) -> Query {
    Query { key: key(name), statistic, unit: None, start, end, period_ms }
}

fn values(store: &MetricStore, q: &Query) -> Vec<(i64, f64)> {
    store.query(q).iter().map(|p| (p.at.0 - START.0, p.value)).collect()
}

#[test]
fn buckets_follow_the_start_and_empty_ones_are_left_out() {
    let clock = ManualClock::at(START + 10 * MINUTE);
    let store = open(None, &clock);
    for second in [0, 17, 18, 77, 78, 400] {
        store.put(&[datum("m", START + second * 1000 + 999, second as f64)]);
    }
    let sum = |start: i64, end: i64, period| values(&store, &query("m", Statistic::Sum, START + start, START + end, period));
    assert_eq!(sum(18_000, 10 * MINUTE, MINUTE), [(18_000, 95.0), (78_000, 78.0), (378_000, 400.0)]);
    assert_eq!(sum(0, 10 * MINUTE, MINUTE), [(0, 35.0), (60_000, 155.0), (360_000, 400.0)]);
    assert_eq!(sum(0, 78_000, 1000), [(0, 0.0), (17_000, 17.0), (18_000, 18.0), (77_000, 77.0)], "the end is exclusive");
    assert_eq!(sum(0, 0, MINUTE), []);
    assert_eq!(sum(0, 60_000, -1), []);
}

#[test]
fn every_statistic() {
    let clock = ManualClock::at(START + MINUTE);
    let store = open(None, &clock);
    let values = (1..=10).map(|v| (v as f64, 2.0)).collect();
    store.put(&[Datum { value: Observed::Values(values), ..datum("m", START, 0.0) }]);
    for (text, expected) in [
        ("SampleCount", 20.0),
        ("Sum", 110.0),
        ("Average", 5.5),
        ("Minimum", 1.0),
        ("Maximum", 10.0),
        ("p50", 5.0),
        ("p99", 10.0),
    ] {
        let q = query("m", Statistic::parse(text).unwrap(), START, START + MINUTE, MINUTE);
        assert_eq!(store.latest_bucket(&q).map(|p| (p.value, p.sample_count)), Some((expected, 20.0)), "{text}");
    }
    let all = store.query_many(
        &query("m", Statistic::Sum, START, START + MINUTE, MINUTE),
        &[Statistic::Sum, Statistic::Maximum, Statistic::Percentile(10.0)],
    );
    assert_eq!(all[0].1, [(START, vec![Some(110.0), Some(10.0), Some(1.0)])]);
}

#[test]
fn units_stay_apart() {
    let clock = ManualClock::at(START + MINUTE);
    let store = open(None, &clock);
    store.put(&[datum("m", START, 1.0), Datum { unit: Arc::from("Bytes"), ..datum("m", START, 5.0) }, datum("m", START, 2.0)]);
    let q = query("m", Statistic::Sum, START, START + MINUTE, MINUTE);
    let by_unit: Vec<(String, f64)> = store.query_by_unit(&q).iter().map(|(u, p)| (u.to_string(), p[0].value)).collect();
    assert_eq!(by_unit, [("Bytes".into(), 5.0), ("Count".into(), 3.0)]);
    assert_eq!(store.query(&Query { unit: Some(Arc::from("Percent")), ..q.clone() }), []);
    assert_eq!(store.query(&Query { unit: Some(Arc::from("Count")), ..q }).len(), 1);
    assert_eq!(store.stats().series, 2);
}

#[test]
fn what_is_refused_is_counted() {
    let clock = ManualClock::at(START);
    let limits = Limits { max_series: 1, ..Limits::default() };
    let store = MetricStore::open(None, clock.clone() as SharedClock, limits).unwrap();
    let set =
        |count, min, max| Datum { value: Observed::Set(StatisticSet { count, sum: 1.0, min, max }), ..datum("m", START, 0.0) };
    let outcome = store.put(&[
        datum("m", START, 1.0),
        datum("m", START - 14 * DAY, 1.0),
        datum("m", START - 14 * DAY - 1, 1.0),
        datum("m", START + 2 * HOUR, 1.0),
        datum("m", START + 2 * HOUR + 1, 1.0),
        datum("m", START, f64::NAN),
        set(0.0, 1.0, 1.0),
        set(1.0, 2.0, 1.0),
        Datum { value: Observed::Values(vec![]), ..datum("m", START, 0.0) },
        datum("other", START, 1.0),
    ]);
    assert_eq!((outcome.accepted, outcome.refused_time, outcome.refused_value, outcome.refused_series_limit), (3, 2, 4, 1));
    let stats = store.stats();
    assert_eq!((stats.points_accepted, stats.refused_time, stats.refused_value, stats.refused_series_limit), (3, 2, 4, 1));
}

#[test]
fn listing() {
    let clock = ManualClock::at(START);
    let store = open(None, &clock);
    let put = |namespace: &str, name: &str, dimensions: &[(&str, &str)], at| {
        let key = MetricKey::new(namespace, name, dimensions.iter().copied());
        store.put(&[Datum { key, ..datum("", at, 1.0) }]);
    };
    put("A", "cpu", &[("s", "1")], START);
    put("A", "cpu", &[("s", "2"), ("t", "x")], START - 4 * HOUR);
    put("A", "mem", &[], START);
    put("B", "cpu", &[("s", "1")], START);
    let names = |filter: ListFilter, after: Option<&MetricKey>, limit| -> Vec<String> {
        store.list(&filter, after, limit).iter().map(ToString::to_string).collect()
    };
    let all = ListFilter::default;
    assert_eq!(names(all(), None, 9), ["A cpu s=1", "A cpu s=2 t=x", "A mem", "B cpu s=1"]);
    let second = MetricKey::new("A", "cpu", [("t", "x"), ("s", "2")]);
    assert_eq!(names(all(), Some(&second), 1), ["A mem"]);
    assert_eq!(names(ListFilter { namespace: Some("B".into()), ..all() }, None, 9), ["B cpu s=1"]);
    assert_eq!(names(ListFilter { name: Some("mem".into()), ..all() }, None, 9), ["A mem"]);
    assert_eq!(names(ListFilter { dimensions: vec![("t".into(), None)], ..all() }, None, 9), ["A cpu s=2 t=x"]);
    let one = || vec![("s".into(), Some("1".into()))];
    assert_eq!(names(ListFilter { dimensions: one(), ..all() }, None, 9), ["A cpu s=1", "B cpu s=1"]);
    assert_eq!(names(ListFilter { active_since: Some(START - 3 * HOUR), ..all() }, None, 9).len(), 3);
}

#[test]
fn listing_goes_through_more_than_one_stretch() {
    let clock = ManualClock::at(START);
    let store = open(None, &clock);
    for i in 0..12_000 {
        store.series(&MetricKey::new("A", &format!("m{i:05}"), []), "None").unwrap();
    }
    let all = store.list(&ListFilter::default(), None, usize::MAX);
    assert_eq!(all.len(), 12_000);
    assert!(all.is_sorted_by(|a, b| a < b));
    let one = ListFilter { name: Some("m11999".into()), ..ListFilter::default() };
    assert_eq!(store.list(&one, None, 5).len(), 1);
    assert_eq!(store.list(&ListFilter::default(), Some(&all[7_000]), 3), all[7_001..7_004]);
}

#[test]
fn ids_of_forgotten_series_are_not_used_again() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    let task = MetricKey::new("AWS/ECS", "CPUUtilization", [("TaskId", "t")]);
    store.put(&[datum("service", START, 1.0), Datum { key: task.clone(), ..datum("", START, 1.0) }]);
    store.maintain(START);
    let later = clock.advance(15 * DAY + HOUR);
    store.maintain(later);
    assert_eq!((store.stats().series, store.stats().forgotten_series), (1, 1));
    store.maintain(later);
    let store = open(Some(&dir.copy().0), &clock);
    assert_eq!(store.list(&ListFilter::default(), None, 9), [key("service")]);
    assert_eq!(store.series(&task, "Count").unwrap().number(), 2);
}

#[test]
fn subscribers_hear_what_was_put() {
    let clock = ManualClock::at(START);
    let store = open(None, &clock);
    let mut heard = store.subscribe();
    store.put(&[datum("a", START, 1.0), datum("b", START, 1.0)]);
    let names: Vec<String> = heard.try_recv().unwrap().iter().map(|key| key.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(heard.try_recv().is_err());
}

/// Every datum lands in the coarser tiers when its time has come, and nowhere twice.
#[test]
fn retention() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    for dir in [None, Some(dir.0.as_path())] {
        clock.set(START);
        let store = open(dir, &clock);
        for minute in 0..120 {
            let now = clock.advance(MINUTE);
            store.put(&[datum("m", now - 1000, 1.0), Datum { resolution_s: 60, ..datum("m", now - MINUTE, 2.0) }]);
            if minute % 5 == 4 {
                store.maintain(now);
            }
        }
        let end = START + 120 * MINUTE;
        let total = |period: i64| -> (usize, f64) {
            let points = store.query(&query("m", Statistic::Sum, START, end, period));
            (points.len(), points.iter().map(|p| p.value).sum())
        };
        assert_eq!(total(1000), (240, 360.0));
        assert_eq!(total(MINUTE), (120, 360.0));
        assert_eq!(total(HOUR), (2, 360.0));
        let cases = [
            // Age, then what periods of 1 s, 60 s, 300 s and 3600 s find.
            (4 * HOUR, [0, 120, 24, 2]),
            (17 * DAY, [0, 0, 24, 2]),
            (65 * DAY, [0, 0, 0, 2]),
            (457 * DAY, [0, 0, 0, 0]),
        ];
        for (age, found) in cases {
            let now = end + age;
            clock.set(now);
            // Twice: what one pass made, the next may take further.
            store.maintain(now);
            store.maintain(now);
            for (period, found) in [1000, MINUTE, 5 * MINUTE, HOUR].into_iter().zip(found) {
                let expected = if found == 0 { 0.0 } else { 360.0 };
                assert_eq!(total(period), (found, expected), "period {period} ms after {age} ms");
            }
        }
        assert_eq!((store.stats().parts, store.stats().series), (0, 0));
    }
}

#[test]
fn late_data_joins_what_was_rolled_up() {
    let clock = ManualClock::at(START);
    let dir = TempDir::new();
    let store = open(Some(&dir.0), &clock);
    store.put(&[datum("m", START, 1.0)]);
    store.maintain(START);
    let later = clock.advance(13 * DAY);
    store.put(&[datum("m", START + 30_000, 9.0)]);
    let q = query("m", Statistic::Sum, START, START + HOUR, MINUTE);
    assert_eq!(values(&store, &q), [(0, 10.0)]);
    store.maintain(later);
    assert_eq!(values(&store, &q), [(0, 10.0)]);
    let now = clock.advance(4 * DAY);
    store.maintain(now);
    assert_eq!(values(&store, &query("m", Statistic::Percentile(50.0), START, START + HOUR, HOUR)), [(0, 1.0)]);
}

#[test]
fn memory_only_checkpoints_by_itself() {
    let clock = ManualClock::at(START);
    let store = MetricStore::open(None, clock.clone() as SharedClock, Limits::default()).unwrap();
    let series = store.series(&key("m"), "Count").unwrap();
    for _ in 0..6 * 3600 {
        let now = clock.advance(1000);
        store.put_resolved(&[(series.clone(), now, StatisticSet::of(3.0))]);
    }
    let stats = store.stats();
    assert_eq!(stats.checkpoints, 36);
    assert!(stats.part_points < 5 * 3600 + 6 * 60, "older seconds are gone: {stats:?}");
    let minutes = store.query(&query("m", Statistic::SampleCount, START, START + 6 * HOUR, MINUTE));
    assert_eq!((minutes.len(), minutes[100].value), (360, 60.0));
}

#[test]
fn a_disk_that_takes_nothing_degrades_and_recovers() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    store.put(&[datum("m", START, 1.0)]);
    std::fs::remove_dir_all(&dir.0).unwrap();
    store.maintain(START);
    let stats = store.stats();
    assert!(stats.degraded && stats.checkpoint_errors > 0, "{stats:?}");
    let q = query("m", Statistic::Sum, START, START + MINUTE, MINUTE);
    assert_eq!(values(&store, &q), [(0, 1.0)]);
    store.put(&[datum("m", START, 2.0)]);
    std::fs::create_dir_all(&dir.0).unwrap();
    store.maintain(START);
    assert!(!store.stats().degraded);
    let crashed = dir.copy();
    assert_eq!(values(&open(Some(&crashed.0), &clock), &q), [(0, 3.0)]);
}

#[test]
fn memory_for_what_no_disk_holds_is_bounded() {
    let clock = ManualClock::at(START);
    let limits = Limits { memory_bytes: 2_000, checkpoint_ms: MINUTE, ..Limits::default() };
    let store = MetricStore::open(None, clock.clone() as SharedClock, limits).unwrap();
    for i in 0..2000 {
        let now = clock.advance(1000);
        store.put(&[datum("m", now, (i as f64).sin())]);
    }
    let stats = store.stats();
    assert!(stats.memory_bytes <= 2_000 && stats.dropped_points > 0, "{stats:?}");
}

#[test]
fn reset_forgets_and_stays_so() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    let old = store.series(&key("m"), "Count").unwrap();
    store.put(&[datum("m", START, 1.0)]);
    store.maintain(START);
    store.put(&[datum("m", START, 1.0)]);
    store.reset();
    let q = query("m", Statistic::Sum, START, START + MINUTE, MINUTE);
    assert_eq!(values(&store, &q), []);
    assert_eq!(store.put_resolved(&[(old, START, StatisticSet::of(1.0))]).accepted, 0);
    store.put(&[datum("m", START, 5.0)]);
    assert_eq!(values(&open(Some(&dir.copy().0), &clock), &q), [(0, 5.0)]);
}

#[test]
fn a_second_store_in_the_same_directory_is_refused() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    assert!(MetricStore::open(Some(&dir.0), clock.clone() as SharedClock, Limits::default()).is_err());
    store.close();
    drop(store);
    assert!(MetricStore::open(Some(&dir.0), clock as SharedClock, Limits::default()).is_ok());
}

#[test]
fn a_damaged_part_is_set_aside_and_the_rest_served() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    store.put(&[datum("m", START, 1.0)]);
    store.maintain(START);
    store.put(&[datum("m", START + MINUTE, 2.0)]);
    let crashed = dir.copy();
    for entry in std::fs::read_dir(&crashed.0).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "bin") {
            let mut bytes = std::fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 0x55;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let store = open(Some(&crashed.0), &clock);
    assert_eq!(store.stats().damaged_parts, 2);
    assert_eq!(values(&store, &query("m", Statistic::Sum, START, START + HOUR, MINUTE)), [(MINUTE, 2.0)]);
}

/// A crash can end the log at any byte: what was whole before it is there, the rest is not, and nothing else is lost.
#[test]
fn a_torn_tail_loses_only_the_tail() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    store.put(&[datum("m", START - HOUR, 100.0)]);
    store.maintain(START);
    let log = |dir: &TempDir| {
        let logs = std::fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().path());
        logs.filter(|p| p.extension().is_some_and(|e| e == "log") && !p.ends_with("series.log")).max()
    };
    let mut ends = Vec::new();
    for i in 0..6 {
        store.put(&[datum(["m", "n"][i % 2], START + i as i64 * 1000, 1.0)]);
        ends.push(std::fs::metadata(log(&dir).unwrap()).unwrap().len());
    }
    let whole = *ends.last().unwrap();
    for length in 0..=whole {
        let crashed = dir.copy();
        let path = log(&crashed).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let store = open(Some(&crashed.0), &clock);
        let count =
            |name| values(&store, &query(name, Statistic::Sum, START, START + MINUTE, MINUTE)).iter().map(|p| p.1).sum::<f64>();
        let expected = ends.iter().filter(|end| **end <= length).count() as f64;
        assert_eq!(count("m") + count("n"), expected, "cut at {length} of {whole}");
        let old = values(&store, &query("m", Statistic::Sum, START - HOUR, START, HOUR));
        assert_eq!(old, [(-HOUR, 100.0)]);
        // And it goes on: what is put now survives the next crash.
        store.put(&[datum("m", START + 30_000, 7.0)]);
        let again = open(Some(&crashed.copy().0), &clock);
        let found = values(&again, &query("m", Statistic::Maximum, START, START + MINUTE, MINUTE));
        assert_eq!(found, [(0, 7.0)]);
    }
}

/// What comes while a checkpoint is written is in the log behind the cut, and what is before the cut is in parts: a restart
/// must read each once.
#[test]
fn a_log_cut_in_its_middle_is_replayed_from_there() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    store.put(&[datum("m", START, 1.0)]);
    {
        let mut m = store.maintenance.lock().unwrap();
        let frozen = store.freeze(&mut m);
        store.put(&[datum("m", START, 10.0), datum("new", START, 100.0)]);
        store.save_frozen(&mut m, &frozen, START);
    }
    let q = |name| query(name, Statistic::Sum, START, START + MINUTE, MINUTE);
    for store in [store.clone(), open(Some(&dir.copy().0), &clock)] {
        assert_eq!((values(&store, &q("m")), values(&store, &q("new"))), (vec![(0, 11.0)], vec![(0, 100.0)]));
    }
}

/// A reader beside writers and checkpoints sees every acknowledged sample once: never fewer than before, never more than put.
#[test]
fn checkpoints_hide_and_double_nothing() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START + HOUR);
    let store = open(Some(&dir.0), &clock);
    let put = AtomicU32::new(0);
    let count = || {
        let q = query("m", Statistic::SampleCount, START, START + HOUR, HOUR);
        store.latest_bucket(&q).map_or(0, |p| p.value as u32)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..3000 {
                store.put(&[datum("m", START + i % 1800 * 1000, 1.0)]);
                put.fetch_add(1, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while put.load(Ordering::SeqCst) < 3000 {
                store.maintain(START + HOUR);
            }
        });
        while put.load(Ordering::SeqCst) < 3000 {
            let before = put.load(Ordering::SeqCst);
            let seen = count();
            let after = put.load(Ordering::SeqCst);
            assert!((before..=after + 1).contains(&seen), "{seen} of {before} to {after}");
        }
    });
    assert_eq!(count(), 3000);
    assert_eq!(store.stats().damaged_chunks, 0);
    assert_eq!(open(Some(&dir.copy().0), &clock).query(&query("m", Statistic::Sum, START, START + HOUR, HOUR))[0].value, 3000.0);
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(usize, i64, i32, bool)>),
    Wait(i64),
    Checkpoint,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // A few values only, so that sums are exact in whatever order they are added.
    let one = (0usize..3, prop_oneof![0i64..20, 0i64..7200, 0i64..600_000], -50i32..50, any::<bool>());
    let step = prop_oneof![
        6 => prop::collection::vec(one, 1..12).prop_map(Step::Put),
        2 => (1i64..300).prop_map(Step::Wait),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against a plain list: every period of every tier holds exactly what was put, through checkpoints, merges and crashes.
    #[test]
    fn what_is_put_is_what_is_read(steps in steps()) {
        let names = ["a", "b", "c"];
        let clock = ManualClock::at(START);
        let mut dir = TempDir::new();
        let mut store = open(Some(&dir.0), &clock);
        // By series and second: the samples, and whether they count for periods of less than a minute at that very second.
        let mut seconds: BTreeMap<(usize, i64), StatisticSet> = BTreeMap::new();
        for step in steps {
            let now = Timestamp(crate::clock::Clock::now(&*clock).0);
            match step {
                Step::Put(data) => {
                    let data: Vec<(usize, Datum)> = data.into_iter().map(|(series, ago_s, value, minute)| {
                        let at = now - ago_s * 1000;
                        let resolution_s = if minute { 60 } else { 1 };
                        (series, Datum { resolution_s, ..datum(names[series], at, value as f64) })
                    }).collect();
                    for (series, datum) in &data {
                        let coarse = datum.resolution_s == 60 || now.since(datum.at) >= 3 * HOUR;
                        let at = datum.at.floor(if coarse { MINUTE } else { 1000 }).0;
                        let Observed::Value(value) = datum.value else { unreachable!() };
                        let set = StatisticSet::of(value);
                        seconds.entry((*series, at)).and_modify(|s| s.merge(set)).or_insert(set);
                    }
                    let outcome = store.put(&data.iter().map(|(_, d)| d.clone()).collect::<Vec<_>>());
                    prop_assert_eq!((outcome.accepted, outcome.unlogged), (data.len() as u64, 0));
                }
                Step::Wait(seconds) => { clock.advance(seconds * 1000); }
                Step::Checkpoint => store.maintain(now),
                Step::Crash => {
                    let crashed = dir.copy();
                    store = open(Some(&crashed.0), &clock);
                    dir = crashed;
                }
            }
        }
        let now = crate::clock::Clock::now(&*clock);
        for (series, name) in names.iter().enumerate() {
            for (start, period) in [
                (now.floor(MINUTE) - 10 * DAY, 5 * MINUTE),
                (now.floor(MINUTE) - 2 * HOUR, MINUTE),
                (now.floor(1000) - 2 * HOUR - 7000, 10_000),
                (now.floor(1000) - HOUR, 1000),
            ] {
                let end = now + 1000;
                let mut expected: BTreeMap<i64, StatisticSet> = BTreeMap::new();
                for ((_, at), set) in seconds.range((series, start.0)..(series, end.0)) {
                    let bucket = start.0 + (at - start.0).div_euclid(period) * period;
                    expected.entry(bucket).and_modify(|s| s.merge(*set)).or_insert(*set);
                }
                let got: BTreeMap<i64, StatisticSet> = store
                    .statistic_sets(&query(name, Statistic::Sum, start, end, period))
                    .into_iter().flat_map(|(_, sets)| sets).map(|(at, set)| (at.0, set)).collect();
                prop_assert_eq!(got, expected, "{} period {}", name, period);
            }
        }
    }
}

#[test]
fn what_must_be_durable_is_kept_nowhere_when_it_is_not() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    std::fs::remove_dir_all(&dir.0).unwrap();
    let q = query("m", Statistic::Sum, START, START + MINUTE, MINUTE);
    let outcome = store.put_durably(&[datum("m", START, 1.0)]);
    assert_eq!((outcome.accepted, outcome.unlogged, values(&store, &q)), (0, 1, vec![]));
    std::fs::create_dir_all(&dir.0).unwrap();
    // The client puts it again. The series is known by now, its definition on no disk yet.
    assert_eq!(store.put_durably(&[datum("m", START, 1.0)]).accepted, 1);
    assert_eq!(values(&open(Some(&dir.copy().0), &clock), &q), [(0, 1.0)]);
}

#[test]
fn damage_inside_the_log_costs_what_was_there_and_is_told() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    let store = open(Some(&dir.0), &clock);
    let mut ends = vec![];
    for i in 0..3 {
        store.put(&[datum("m", START + i * 1000, 1.0)]);
        ends.push(store.stats().wal_bytes as usize);
    }
    let crashed = dir.copy();
    let log = crashed.0.join("wal-0000000000000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[ends[0] + 10] ^= 0x55;
    std::fs::write(&log, bytes).unwrap();
    let store = open(Some(&crashed.0), &clock);
    assert_eq!(values(&store, &query("m", Statistic::Sum, START, START + MINUTE, MINUTE)), [(0, 2.0)]);
    assert_eq!((store.stats().damaged_bytes as usize, store.stats().torn_bytes), (ends[1] - ends[0], 0));
    assert!(log.with_extension("damaged").exists());
}

#[test]
fn parts_without_their_manifest_are_not_taken_for_left_over() {
    let dir = TempDir::new();
    let clock = ManualClock::at(START);
    for i in 0..2 {
        let store = open(Some(&dir.0), &clock);
        store.put(&[datum("m", START + i * MINUTE, 1.0)]);
        store.close();
    }
    let (manifest, series) = (dir.0.join("manifest.json"), dir.0.join("series.log"));
    let refused = || MetricStore::open(Some(&dir.0), clock.clone(), Limits::default()).err().unwrap().to_string();
    let kept = std::fs::read_to_string(&manifest).unwrap();
    for (content, said) in [(None, "is missing"), (Some("{"), "is damaged"), (Some(r#"{"version":3}"#), "newer format (3)")] {
        std::fs::remove_file(&manifest).unwrap();
        content.into_iter().for_each(|text| std::fs::write(&manifest, text).unwrap());
        assert!(refused().contains(said), "{}", refused());
        std::fs::write(&manifest, &kept).unwrap();
    }
    std::fs::rename(&series, dir.0.join("elsewhere")).unwrap();
    assert!(refused().contains("series.log is damaged (it is missing"), "{}", refused());
    std::fs::rename(dir.0.join("elsewhere"), &series).unwrap();
    let q = query("m", Statistic::Sum, START, START + HOUR, HOUR);
    assert_eq!(values(&open(Some(&dir.0), &clock), &q), [(0, 2.0)]);
}
