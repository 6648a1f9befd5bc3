//! The metrics store: how fast samples go in and come out, and what they take at rest and in memory.

use std::path::Path;
use std::sync::Arc;

use super::cost::{Cost, resident_bytes};
use super::fleet::{Dice, Fleet};
use super::row::{Row, Rows};
use crate::clock::{Clock, ManualClock, SharedClock};
use crate::model::Timestamp;
use crate::model::metric::{Datum, MetricKey, Observed, Query, Statistic, StatisticSet};
use crate::telemetry::ingest::Ingest;
use crate::telemetry::metrics::{Limits, MetricStore, Series};

const START: Timestamp = Timestamp(1_795_170_000_000);
/// What a checkpoint makes of the head, in seconds.
const CHECKPOINT_S: i64 = 600;
const GORILLA: &str = "the same points in Gorilla's codec";

/// On one thread; with the log and parts in a directory of the system's temporary one.
pub fn measure() -> anyhow::Result<Rows> {
    let dir = std::env::temp_dir().join(format!("beaufort-bench-metrics-{}", std::process::id()));
    let measured = all(&dir);
    // Best effort: it is a temporary directory.
    let _ = std::fs::remove_dir_all(&dir);
    measured
}

fn all(dir: &Path) -> anyhow::Result<Rows> {
    let mut rows = in_memory()?;
    rows.extend(fleet(&dir.join("fleet"))?);
    rows.extend(kinds()?);
    rows.extend(store(&dir.join("store"))?);
    Ok(rows)
}

/// Checkpoints are made when we ask.
fn limits() -> Limits {
    Limits { checkpoint_ms: i64::MAX / 4, checkpoint_points: u64::MAX, ..Limits::default() }
}

fn open(dir: Option<&Path>) -> anyhow::Result<(Arc<ManualClock>, Arc<MetricStore>)> {
    let clock = ManualClock::at(START);
    Ok((clock.clone(), MetricStore::open(dir, clock as SharedClock, limits())?))
}

struct Stored {
    samples: f64,
    series: u64,
    containers: usize,
    bytes: f64,
    points: f64,
    gorilla: f64,
    ingest_s: f64,
    checkpoints_s: f64,
}

/// What a whole installation does with what its agents send, for twenty minutes.
fn store_fleet(dir: &Path, all_serve: bool) -> anyhow::Result<Stored> {
    let (clock, store) = open(Some(dir))?;
    let (ingest, mut fleet) = (Ingest::new(store.clone()), Fleet::new(all_serve));
    let (mut ingest_s, mut checkpoints_s) = (0.0, 0.0);
    for _ in 0..2 {
        for _ in 0..CHECKPOINT_S {
            let batch = fleet.pass(clock.advance(1000));
            let cost = Cost::start();
            ingest.usage(&"fleet".into(), &batch, &mut |task| fleet.facts(task));
            ingest_s += cost.spent().process;
        }
        let cost = Cost::start();
        store.maintain(clock.now());
        checkpoints_s += cost.spent().process;
    }
    let (stats, gorilla) = (store.stats(), store.bytes_as_grown() as f64);
    store.close();
    Ok(Stored {
        samples: stats.points_accepted as f64,
        series: stats.series,
        containers: fleet.len(),
        bytes: stats.part_bytes as f64,
        points: stats.part_points as f64,
        gorilla,
        ingest_s,
        checkpoints_s,
    })
}

fn fleet(dir: &Path) -> anyhow::Result<Rows> {
    let usual = store_fleet(&dir.join("usual"), false)?;
    let busy = store_fleet(&dir.join("busy"), true)?;
    let cpu = usual.ingest_s + usual.checkpoints_s;
    let at_rest = |what: &str, stored: &Stored| {
        Row::new(what, stored.bytes / stored.samples, "B").against(GORILLA, stored.gorilla / stored.samples, "B").note(format!(
            "seconds and their minutes with the indexes; {:.2} B for each point that merging left; exact",
            stored.bytes / stored.points
        ))
    };
    Ok(vec![
        Row::new("metric samples of a fleet through the ingest, per second of one core", usual.samples / cpu, "samples/s")
            .at_least(1_000_000.0)
            .grows("linear in samples; flat in what is stored")
            .note(format!(
                "{} containers, {:.0} samples of {} series a second, merged by service and cluster; with the log and the checkpoints ({:.0} % of it)",
                usual.containers,
                usual.samples / (2 * CHECKPOINT_S) as f64,
                usual.series,
                100.0 * usual.checkpoints_s / cpu
            )),
        at_rest("bytes per metric sample at rest, a fleet of which half serves and half waits", &usual)
            .at_most(1.4)
            .grows("linear in series and their changes; what is still takes nothing; seconds go after 3 hours"),
        at_rest("bytes per metric sample at rest, a fleet of which all serve", &busy),
    ])
}

/// One sample a second of a series of its own, of each kind that a container has.
fn kinds() -> anyhow::Result<Rows> {
    const SERIES: usize = 50;
    type Next = Box<dyn FnMut(&mut Dice, &mut f64) -> f64>;
    let kinds: [(&str, Next); 5] = [
        (
            "processor time of a busy container",
            Box::new(|dice, _| (50_000_000 + dice.around(100_000_000)) as f64 / (1e9 + dice.around(120_000) as f64)),
        ),
        (
            "processor time of a waiting container",
            Box::new(|dice, _| if dice.below(10) == 0 { (1_500_000 + dice.below(900_000)) as f64 / 1e9 } else { 0.0 }),
        ),
        (
            "memory in percent of 300 MiB",
            Box::new(|dice, pages| {
                *pages += if dice.below(2) == 0 { dice.around(40) as f64 - 20.0 } else { 0.0 };
                (30_000.0 + *pages) * 4096.0 / (300.0 * 1_048_576.0) * 100.0
            }),
        ),
        ("network bytes a second", Box::new(|dice, _| (dice.around(200) * 1_900 + dice.around(20_000)) as f64)),
        ("latency in milliseconds with two decimals", Box::new(|dice, _| (1_000 + dice.around(3_000)) as f64 / 100.0)),
    ];
    let mut rows = Rows::new();
    for (name, mut next) in kinds {
        let (clock, store) = open(None)?;
        let series = series(&store, SERIES);
        let (mut dice, mut state) = (Dice::new(9), vec![0.0; SERIES]);
        for _ in 0..CHECKPOINT_S {
            let now = clock.advance(1000);
            let batch: Vec<_> = series
                .iter()
                .zip(&mut state)
                .map(|(s, state)| (s.clone(), now, StatisticSet::of(next(&mut dice, state))))
                .collect();
            store.put_resolved(&batch);
        }
        store.maintain(clock.now());
        let (stats, gorilla) = (store.stats(), store.bytes_as_grown());
        let samples = stats.points_accepted as f64;
        rows.push(
            Row::new(format!("bytes per sample at rest: {name}"), stats.part_bytes as f64 / samples, "B")
                .against(GORILLA, gorilla as f64 / samples, "B")
                .note("seconds and minutes, exact"),
        );
    }
    Ok(rows)
}

fn series(store: &MetricStore, count: usize) -> Vec<Arc<Series>> {
    keys(count).iter().filter_map(|key| store.series(key, "Percent")).collect()
}

fn keys(count: usize) -> Vec<MetricKey> {
    let dimensions = |i| {
        [("ClusterName", "default".to_owned()), ("ServiceName", format!("service-{}", i % 100)), ("TaskId", format!("{i:032x}"))]
    };
    (0..count)
        .map(|i| MetricKey::new("AWS/ECS", "CPUUtilization", dimensions(i).iter().map(|(name, value)| (*name, value.as_str()))))
        .collect()
}

/// First in its process, so that nothing that was freed is there to be used again.
fn in_memory() -> anyhow::Result<Rows> {
    const SERIES: usize = 50_000;
    let (clock, store) = open(None)?;
    let before = resident_bytes().unwrap_or(f64::NAN);
    let series = series(&store, SERIES);
    let named = resident_bytes().unwrap_or(f64::NAN);
    let mut dice = Dice::new(5);
    let mut after = Vec::new();
    for second in 1..=60 {
        let now = clock.advance(1000);
        let batch: Vec<_> =
            series.iter().map(|s| (s.clone(), now, StatisticSet::of(dice.around(4_000) as f64 / 100.0))).collect();
        store.put_resolved(&batch);
        drop(batch);
        if second == 10 || second == 60 {
            after.push(resident_bytes().unwrap_or(f64::NAN));
        }
    }
    let each = |bytes: f64| bytes / SERIES as f64;
    Ok(vec![
        Row::new("memory of a live series, with its name", each(after[0] - before), "B")
            .grows("linear in series; flat in time, as a checkpoint takes the points away")
            .note(format!(
                "{:.0} B of it for the name; a point more takes {:.1} B until the checkpoint",
                each(named - before),
                each(after[1] - after[0]) / 50.0
            )),
    ])
}

fn store(dir: &Path) -> anyhow::Result<Rows> {
    const SERIES: usize = 5_000;
    const SECONDS: i64 = 300;
    let (clock, store) = open(Some(dir))?;
    let (keys, series) = (keys(SERIES), series(&store, SERIES));
    let mut dice = Dice::new(1);
    let mut cpu = 0.0;
    for _ in 0..SECONDS {
        let now = clock.advance(1000);
        let batch: Vec<_> =
            series.iter().map(|s| (s.clone(), now, StatisticSet::of(dice.around(10_000) as f64 / 100.0))).collect();
        let cost = Cost::start();
        store.put_resolved(&batch);
        cpu += cost.spent().process;
    }
    let by_handle = SERIES as f64 * SECONDS as f64 / cpu;
    let unit: Arc<str> = Arc::from("Percent");
    cpu = 0.0;
    for second in 0..SECONDS / 5 {
        let now = clock.advance(1000);
        let datum = |key: &MetricKey| Datum {
            key: key.clone(),
            at: now,
            value: Observed::Value(second as f64),
            unit: unit.clone(),
            resolution_s: 1,
        };
        let data: Vec<Datum> = keys.iter().map(datum).collect();
        let cost = Cost::start();
        store.put(&data);
        cpu += cost.spent().process;
    }
    let by_key = SERIES as f64 * (SECONDS / 5) as f64 / cpu;
    let query = |key: &MetricKey| Query {
        key: key.clone(),
        statistic: Statistic::Average,
        unit: None,
        start: START,
        end: START + 600_000,
        period_ms: 60_000,
    };
    let ask = || {
        let cost = Cost::start();
        let found: usize = keys.iter().map(|key| store.query(&query(key)).len()).sum();
        (found, cost.spent().thread * 1e6 / keys.len() as f64)
    };
    let (found, from_head) = ask();
    let cost = Cost::start();
    store.maintain(clock.advance(1000));
    let checkpoint = cost.spent().thread;
    let points = store.stats().points_accepted as f64;
    let (again, from_parts) = ask();
    store.close();
    anyhow::ensure!(found == again, "the checkpoint changed what is read: {found} datapoints before and {again} after");
    Ok(vec![
        Row::new("metric samples put by handle, per second of one core", by_handle, "samples/s")
            .at_least(1_000_000.0)
            .note("with the log; without checkpoints"),
        Row::new("metric samples put by key, per second of one core", by_key, "samples/s")
            .at_least(1_000_000.0)
            .note("PutMetricData's way"),
        Row::new("metrics: query of 6 minutes from the head", from_head, "us").grows("linear in the series' points in the range"),
        Row::new("metrics: query of 6 minutes from parts", from_parts, "us").grows("linear in parts and points in the range"),
        Row::new("metrics: a checkpoint's time for each point", checkpoint * 1e9 / points, "ns")
            .grows("linear in points since the last"),
    ])
}
