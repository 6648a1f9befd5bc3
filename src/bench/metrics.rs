//! The metrics store: how fast samples go in and come out, and what they take at rest.

use std::sync::Arc;
use std::time::Instant;

use super::row::{Row, Rows};
use crate::clock::{ManualClock, SharedClock};
use crate::model::Timestamp;
use crate::model::metric::{Datum, MetricKey, Observed, Query, Statistic, StatisticSet};
use crate::telemetry::metrics::{Limits, MetricStore, Series};

const SERIES: usize = 5_000;
const SECONDS: i64 = 300;
const START: Timestamp = Timestamp(1_795_170_000_000);

/// On one thread; with the log and parts in a directory of the system's temporary one.
pub fn measure() -> anyhow::Result<Rows> {
    let dir = std::env::temp_dir().join(format!("beaufort-bench-metrics-{}", std::process::id()));
    let mut rows = run("memory", None)?;
    let on_disk = run("disk", Some(&dir));
    // Best effort: it is a temporary directory.
    let _ = std::fs::remove_dir_all(&dir);
    rows.extend(on_disk?);
    Ok(rows)
}

fn run(name: &str, dir: Option<&std::path::Path>) -> anyhow::Result<Rows> {
    let clock = ManualClock::at(START);
    let store = MetricStore::open(dir, clock.clone() as SharedClock, Limits::default())?;
    let keys: Vec<MetricKey> = (0..SERIES)
        .map(|i| MetricKey::new("Bench", "CPUUtilization", [("ServiceName", format!("service-{i}").as_str())]))
        .collect();
    let series: Vec<Arc<Series>> = keys.iter().filter_map(|key| store.series(key, "Percent")).collect();
    let mut results = Vec::new();
    let mut record = |what: &str, value: f64, unit| results.push(Row::new(format!("metrics {name}: {what}"), value, unit));

    let started = Instant::now();
    for second in 0..SECONDS {
        let now = clock.advance(1000);
        let batch: Vec<_> = series
            .iter()
            .enumerate()
            .map(|(i, series)| (series.clone(), now, StatisticSet::of(((i as i64 * 7 + second / 5) % 100) as f64)))
            .collect();
        store.put_resolved(&batch);
    }
    record("put by handle", SERIES as f64 * SECONDS as f64 / started.elapsed().as_secs_f64(), "samples/s");

    let unit: Arc<str> = Arc::from("Percent");
    let started = Instant::now();
    for second in 0..SECONDS / 5 {
        let now = clock.advance(1000);
        let data: Vec<Datum> = keys
            .iter()
            .map(|key| Datum {
                key: key.clone(),
                at: now,
                value: Observed::Value(second as f64),
                unit: unit.clone(),
                resolution_s: 1,
            })
            .collect();
        store.put(&data);
    }
    record("put by key", SERIES as f64 * (SECONDS / 5) as f64 / started.elapsed().as_secs_f64(), "samples/s");

    let query = |key: &MetricKey| Query {
        key: key.clone(),
        statistic: Statistic::Average,
        unit: None,
        start: START,
        end: START + 600_000,
        period_ms: 60_000,
    };
    let started = Instant::now();
    let found: usize = keys.iter().map(|key| store.query(&query(key)).len()).sum();
    record("query of 6 minutes from the head", started.elapsed().as_secs_f64() * 1e6 / keys.len() as f64, "us");

    let started = Instant::now();
    store.maintain(clock.advance(1000));
    record("checkpoint", started.elapsed().as_secs_f64() * 1e3, "ms");
    let stats = store.stats();
    record("at rest, seconds and minutes", stats.part_bytes as f64 / (stats.points_accepted as f64), "bytes/sample");

    let started = Instant::now();
    let again: usize = keys.iter().map(|key| store.query(&query(key)).len()).sum();
    record("query of 6 minutes from parts", started.elapsed().as_secs_f64() * 1e6 / keys.len() as f64, "us");
    record("datapoints lost by the checkpoint", found as f64 - again as f64, "datapoints");
    store.close();
    Ok(results)
}
