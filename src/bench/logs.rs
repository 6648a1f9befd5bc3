//! The log store with a GiB of lines: how fast they go in, and how soon a rare word is found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cost::Cost;
use super::row::{Row, Rows};
use crate::clock::ManualClock;
use crate::model::Timestamp;
use crate::model::log::{LineBatch, LogEvent, LogTarget};
use crate::telemetry::logs::{From, Limits, LogStore, Scan, Selection};

const STREAMS: u64 = 20;
const BATCH: u64 = 1_000;
const GIB: u64 = 1 << 30;
/// Stands in one line only, somewhere in the middle.
const NEEDLE: &str = "out-of-stock-4711";

/// Below the system's temporary directory, and gone afterwards.
pub fn measure() -> anyhow::Result<Rows> {
    of_bytes(GIB)
}

fn of_bytes(wanted: u64) -> anyhow::Result<Rows> {
    let dir = std::env::temp_dir().join(format!("beaufort-bench-logs-{}", std::process::id()));
    let done = run(&dir, wanted);
    // The run's own error says more than that there is nothing to remove.
    let removed = std::fs::remove_dir_all(&dir);
    done.and_then(|rows| removed.map(|()| rows).map_err(Into::into))
}

fn run(dir: &std::path::Path, wanted: u64) -> anyhow::Result<Rows> {
    let start = 1_795_000_000_000;
    let clock = ManualClock::at(Timestamp(start));
    let store = LogStore::open(Some(dir), clock.clone(), Limits::default())?;
    let (mut cpu, mut wall, mut bytes, mut round, mut hidden) = (0.0, 0.0, 0u64, 0, false);
    while bytes < wanted {
        let mut batches: Vec<LineBatch> = (0..STREAMS).map(|s| batch(s, round * BATCH, start)).collect();
        if !hidden && bytes >= wanted / 2 {
            hidden = true;
            let event = &mut batches[7].events[500];
            event.message = Arc::from(format!("{} note={NEEDLE}", event.message));
        }
        bytes += batches.iter().flat_map(|b| &b.events).map(|e| e.message.len() as u64).sum::<u64>();
        let cost = Cost::start();
        store.ingest(batches);
        let spent = cost.spent();
        (cpu, wall, round) = (cpu + spent.process, wall + spent.wall, round + 1);
    }
    let (lines, mib) = ((round * STREAMS * BATCH) as f64, bytes as f64 / (1 << 20) as f64);
    let mut rows = vec![
        Row::new("log lines into the store, per second of one core", lines / cpu, "lines/s")
            .at_least(500_000.0)
            .grows("linear in lines; flat in what is stored already")
            .note(format!(
                "{lines:.0} lines of {:.0} bytes, durable; all threads' CPU time counted; {:.0} lines/s on the wall, {:.0} MB/s of CPU time",
                bytes as f64 / lines,
                lines / wall,
                bytes as f64 / cpu / 1e6
            )),
    ];
    let finder = memchr::memmem::Finder::new(NEEDLE);
    let matches = |message: &str| finder.find(message.as_bytes()).is_some();
    let (mut runs, mut busy) = (Vec::new(), 0.0);
    for _ in 0..SEARCHES {
        let cost = Cost::start();
        let found = store.scan(&scan(&matches))?;
        let spent = cost.spent();
        anyhow::ensure!(found.events.len() == 1, "the word stands in one line, and {} were found", found.events.len());
        runs.push(spent.wall);
        busy = spent.process;
    }
    rows.push(
        Row::of_runs(format!("search of {mib:.0} MiB of lines for a word that stands in one"), runs, "s")
            .at_most(1.0)
            .grows("linear in bytes of the streams and the time that are asked for; blocks outside are not read")
            .note(format!("{busy:.2} s of CPU over its threads; no index, every byte is looked at")),
    );
    let begun = Instant::now();
    for _ in 0..100 {
        store.read("bench", "web/app/0", 0, i64::MAX, From::Tail, 100)?;
    }
    rows.push(
        Row::new("log store: the last 100 lines of a stream", begun.elapsed().as_secs_f64() * 1e4, "us")
            .grows("flat in what is stored"),
    );
    let stats = store.stats();
    rows.push(
        Row::new(
            "log store: bytes of lines for a byte at rest",
            bytes as f64 / (stats.segment_bytes + stats.wal_bytes).max(1) as f64,
            "x",
        )
        .note("lines with a random id in each"),
    );
    drop(store);
    let begun = Instant::now();
    LogStore::open(Some(dir), clock, Limits::default())?;
    rows.push(
        Row::new("log store: open with that in it", begun.elapsed().as_secs_f64() * 1e3, "ms")
            .grows("linear in blocks (64 KiB each)"),
    );
    Ok(rows)
}

const SEARCHES: usize = 5;

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

#[cfg(test)]
mod tests {
    #[test]
    fn a_small_one_runs() {
        let rows = super::of_bytes(8 << 20).unwrap();
        assert!(rows.len() >= 5 && rows.iter().all(|row| row.values.iter().all(|v| *v > 0.0)), "{rows:?}");
    }
}
