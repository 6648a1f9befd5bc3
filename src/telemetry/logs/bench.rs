//! How fast the store is: `beaufort bench` shows these, a regression shows in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{From, Limits, LogStore, Scan, Selection};
use crate::clock::ManualClock;
use crate::model::Timestamp;
use crate::model::log::{LineBatch, LogEvent, LogTarget};

const STREAMS: u64 = 20;
const BATCH: u64 = 1000;

/// Name, value and unit, with a GiB of lines below the system's temporary directory.
pub fn bench() -> Vec<(String, f64, &'static str)> {
    measure(8_000_000).unwrap_or_else(|e| vec![(format!("logs_failed: {e}"), 1.0, "")])
}

/// The same with `lines` lines of about 130 bytes.
pub fn measure(lines: u64) -> Result<Vec<(String, f64, &'static str)>, super::Error> {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run_number = RUNS.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("beaufort-bench-logs-{}-{run_number}", std::process::id()));
    let done = run(&dir, lines);
    // The run's own error says more than that there is nothing to remove.
    let removed = std::fs::remove_dir_all(&dir);
    done.and_then(|rows| removed.map(|()| rows).map_err(Into::into))
}

fn run(dir: &std::path::Path, lines: u64) -> Result<Vec<(String, f64, &'static str)>, super::Error> {
    let start = 1_795_000_000_000;
    let clock = ManualClock::at(Timestamp(start));
    let store = LogStore::open(Some(dir), clock.clone(), Limits::default())?;
    let rounds = lines / (STREAMS * BATCH);
    let (mut spent, mut bytes) = (Duration::ZERO, 0u64);
    for round in 0..rounds {
        let batches: Vec<LineBatch> = (0..STREAMS).map(|s| batch(s, round * BATCH, start)).collect();
        bytes += batches.iter().flat_map(|b| &b.events).map(|e| e.message.len() as u64).sum::<u64>();
        let begun = Instant::now();
        store.ingest(batches);
        spent += begun.elapsed();
    }
    let stored = (rounds * STREAMS * BATCH) as f64;
    let mut rows = vec![
        ("logs_ingest".to_owned(), stored / spent.as_secs_f64(), "lines/s"),
        ("logs_ingest_bytes".to_owned(), bytes as f64 / spent.as_secs_f64() / 1e6, "MB/s"),
    ];
    let finder = memchr::memmem::Finder::new("no such words in any line");
    let begun = Instant::now();
    let matches = |message: &str| finder.find(message.as_bytes()).is_some();
    store.scan(&scan(&matches))?;
    let seconds = begun.elapsed().as_secs_f64();
    rows.push(("logs_search_raw".to_owned(), bytes as f64 / seconds / 1e6, "MB/s"));
    rows.push(("logs_search_whole".to_owned(), seconds * 1e3, "ms"));
    let begun = Instant::now();
    for _ in 0..100 {
        store.read("bench", "web/app/0", 0, i64::MAX, From::Tail, 100)?;
    }
    rows.push(("logs_read_tail_100".to_owned(), begun.elapsed().as_secs_f64() * 1e4, "us"));
    let stats = store.stats();
    rows.push(("logs_ratio".to_owned(), bytes as f64 / (stats.segment_bytes + stats.wal_bytes).max(1) as f64, "raw/stored"));
    drop(store);
    let begun = Instant::now();
    LogStore::open(Some(dir), clock, Limits::default())?;
    rows.push(("logs_open".to_owned(), begun.elapsed().as_secs_f64() * 1e3, "ms"));
    Ok(rows)
}

fn scan<'a>(matches: &'a (dyn Fn(&str) -> bool + Sync)) -> Scan<'a> {
    let budget = Duration::from_secs(600);
    Scan {
        group: "bench",
        streams: Selection::All,
        start: 0,
        end: i64::MAX,
        from: None,
        limit: 100,
        forward: true,
        budget,
        matches,
    }
}

fn batch(stream: u64, first: u64, start: i64) -> LineBatch {
    let line = |n: u64| LogEvent { at: Timestamp(start + n as i64), message: Arc::from(text(stream, n)) };
    LineBatch {
        source: format!("container-{stream}"),
        target: LogTarget { group: "bench".to_owned(), stream: format!("web/app/{stream}"), create_group: true },
        first,
        events: (first..first + BATCH).map(line).collect(),
        lost_before: 0,
        resume: format!("{first}"),
    }
}

/// A line as a web service writes it, with as much chance in it as is usual.
fn text(stream: u64, n: u64) -> String {
    let dice = (n ^ stream << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    format!(
        "level=info trace={dice:016x} method=GET path=/orders/{} status={} duration_ms={} client=10.0.{}.{} agent=checkout/2.14.1",
        dice % 100_000,
        if dice.is_multiple_of(50) { 500 } else { 200 },
        dice % 977,
        dice % 251,
        dice % 241
    )
}
