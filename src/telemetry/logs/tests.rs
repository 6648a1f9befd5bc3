//! The store as its users see it, in memory and on disk, through crashes too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::model::Timestamp;
use crate::model::log::{LineBatch, LogEvent, LogTarget};

const START: i64 = 1_795_000_000_000;

/// A directory of its own that goes with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("beaufort-logs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
    fn newest(&self, prefix: &str) -> PathBuf {
        let number = wal::numbered(&self.0, prefix).unwrap().pop().unwrap();
        self.0.join(format!("{prefix}{number:016}"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn small() -> Limits {
    Limits { block_bytes: 400, segment_bytes: 2000, wal_bytes: 3000, ..Limits::default() }
}

fn open(dir: Option<&Path>, limits: Limits) -> (Arc<LogStore>, Arc<ManualClock>) {
    let clock = ManualClock::at(Timestamp(START));
    (LogStore::open(dir, clock.clone(), limits).unwrap(), clock)
}

fn event(ms: i64, message: &str) -> LogEvent {
    LogEvent { at: Timestamp(START + ms), message: message.into() }
}

fn batch(source: &str, stream: &str, first: u64, count: u64) -> LineBatch {
    LineBatch {
        source: source.to_owned(),
        target: LogTarget { group: "g".to_owned(), stream: stream.to_owned(), create_group: true },
        first,
        events: (first..first + count).map(|n| event(n as i64, &format!("{source} line {n}"))).collect(),
        lost_before: 0,
        resume: format!("after {}", first + count),
    }
}

fn messages(store: &LogStore, stream: &str) -> Vec<String> {
    let (mut from, mut out) = (From::Head, Vec::new());
    loop {
        let page = store.read("g", stream, 0, i64::MAX, from, 7).unwrap();
        out.extend(page.events.into_iter().map(|e| e.message));
        if from == From::Forward(page.forward) {
            return out;
        }
        from = From::Forward(page.forward);
    }
}

fn expected(source: &str, count: u64) -> Vec<String> {
    (0..count).map(|n| format!("{source} line {n}")).collect()
}

fn search(
    store: &LogStore,
    forward: bool,
    limit: usize,
    budget: Duration,
    matches: &(dyn Fn(&str) -> bool + Sync),
) -> Vec<Event> {
    let (mut from, mut out) = (None, Vec::new());
    loop {
        let scan = Scan { group: "g", streams: Selection::All, start: 0, end: i64::MAX, from, limit, forward, budget, matches };
        let page = store.scan(&scan).unwrap();
        assert!(page.events.len() <= limit);
        out.extend(page.events);
        match page.next {
            Some(next) => {
                assert_eq!(Key::parse_token(&next.token()), Some(next));
                assert_ne!(from, Some(next), "a page must make progress");
                from = Some(next);
            }
            None => return out,
        }
    }
}

fn next(result: &IngestResult) -> u64 {
    match result {
        IngestResult::Stored { resume, .. } => resume.next,
        IngestResult::Refused { why, .. } => panic!("refused: {why}"),
    }
}

#[test]
fn a_line_is_stored_once_however_often_it_is_sent() {
    for dir in [None, Some(Dir::new())] {
        let (store, _) = open(dir.as_ref().map(|d| d.0.as_path()), small());
        assert_eq!(next(&store.ingest(vec![batch("a", "s", 0, 50)])[0]), 50);
        assert_eq!(next(&store.ingest(vec![batch("a", "s", 0, 50)])[0]), 50);
        assert_eq!(next(&store.ingest(vec![batch("a", "s", 10, 20)])[0]), 50, "an older batch does not set the source back");
        assert_eq!(store.resume_points(&["a".to_owned(), "b".to_owned()])[0].resume, "after 50");
        let both = store.ingest(vec![batch("a", "s", 40, 20), batch("a", "s", 55, 10)]);
        assert_eq!((next(&both[0]), next(&both[1])), (60, 65));
        assert_eq!(messages(&store, "s"), expected("a", 65));
        assert_eq!(store.stats().duplicate_lines, 50 + 20 + 10 + 5);
        store.forget_source("a").unwrap();
        assert!(store.resume_points(&["a".to_owned()]).is_empty());
    }
}

#[test]
fn everything_acknowledged_survives_a_restart() {
    let dir = Dir::new();
    {
        let (store, _) = open(Some(&dir.0), small());
        for round in 0..40 {
            store.ingest(vec![batch("a", "s", round * 5, 5), batch("b", "t", round * 3, 3)]);
        }
        store.set_retention("g", Some(7)).unwrap();
        store.tag_group("g", [("k".to_owned(), "v".to_owned())].into()).unwrap();
        assert!(store.stats().blocks > 5 && wal::numbered(&dir.0, "seg-").unwrap().len() > 1);
    }
    for _ in 0..3 {
        let (store, _) = open(Some(&dir.0), small());
        assert_eq!(messages(&store, "s"), expected("a", 200));
        assert_eq!(messages(&store, "t"), expected("b", 120));
        assert_eq!(store.resume_points(&["a".to_owned()])[0].next, 200);
        let group = store.group("g").unwrap();
        assert_eq!((group.retention_days, group.tags["k"].as_str()), (Some(7), "v"));
        assert_eq!(store.stats().torn_bytes, 0);
    }
}

#[test]
fn a_torn_tail_loses_only_what_was_not_acknowledged() {
    let dir = Dir::new();
    {
        let (store, _) = open(Some(&dir.0), Limits::default());
        store.ingest(vec![batch("a", "s", 0, 10)]);
        store.ingest(vec![batch("a", "s", 10, 10)]);
    }
    let path = dir.newest("wal-");
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 3).unwrap();
    let (store, _) = open(Some(&dir.0), Limits::default());
    assert_eq!(messages(&store, "s"), expected("a", 10));
    assert_eq!(store.resume_points(&["a".to_owned()])[0].next, 10, "the resume point went with its lines");
    assert!(store.stats().torn_bytes > 0);
    store.ingest(vec![batch("a", "s", 10, 10)]);
    assert_eq!(messages(&store, "s"), expected("a", 20));
}

#[test]
fn a_block_that_never_reached_the_disk_is_made_anew_from_the_log() {
    let dir = Dir::new();
    let limits = Limits { wal_bytes: 1 << 30, segment_bytes: 1 << 30, ..small() };
    {
        let (store, _) = open(Some(&dir.0), limits.clone());
        for round in 0..20 {
            store.ingest(vec![batch("a", "s", round * 5, 5)]);
        }
        assert!(store.stats().blocks >= 3);
    }
    let path = dir.newest("seg-");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0);
    fs::write(&path, bytes).unwrap();
    let (store, _) = open(Some(&dir.0), limits);
    assert_eq!(messages(&store, "s"), expected("a", 100));
}

#[test]
fn a_missing_group_is_made_only_when_asked() {
    let (store, _) = open(None, small());
    let mut lines = batch("a", "s", 0, 1);
    lines.target.create_group = false;
    let IngestResult::Refused { why, .. } = &store.ingest(vec![lines.clone()])[0] else { panic!("stored") };
    assert_eq!(why, "The specified log group does not exist.");
    assert_eq!(store.stats().refused_lines, 1);
    store.create_group("g", "STANDARD", Default::default()).unwrap();
    lines.lost_before = 4;
    assert_eq!(next(&store.ingest(vec![lines])[0]), 1);
    assert_eq!((store.stats().lost_lines, store.stream("g", "s").unwrap().lost_lines), (4, 4));
}

#[test]
fn put_tells_what_it_left_out() {
    let (store, _) = open(None, small());
    store.create_group("g", "STANDARD", Default::default()).unwrap();
    assert!(matches!(store.put("g", "s", vec![]), Err(Error::NoStream)));
    store.create_stream("g", "s").unwrap();
    store.set_retention("g", Some(1)).unwrap();
    let day = 86_400_000;
    let events = vec![
        event(-15 * day, "old"),
        event(-2 * day, "expired"),
        event(-5, "kept"),
        event(3 * 3_600_000, "new"),
        event(day, "newer"),
    ];
    let outcome = store.put("g", "s", events).unwrap();
    assert_eq!((outcome.too_old_end, outcome.expired_end, outcome.too_new_start), (Some(1), Some(2), Some(3)));
    assert_eq!(messages(&store, "s"), ["kept"]);
}

#[test]
fn pages_go_both_ways_and_end_where_the_token_stays() {
    let (store, _) = open(None, small());
    store.ingest(vec![batch("a", "s", 0, 30)]);
    let read = |from, limit| store.read("g", "s", 0, i64::MAX, from, limit).unwrap();
    let numbers = |page: &Page| page.events.iter().map(|e| e.key.number).collect::<Vec<_>>();
    let tail = read(From::Tail, 10);
    assert_eq!((numbers(&tail), tail.forward, tail.backward), ((20..30).collect(), 30, 20));
    let before = read(From::Backward(20), 25);
    assert_eq!((numbers(&before), before.backward), ((0..20).collect(), 0));
    assert_eq!(read(From::Backward(0), 10).backward, 0);
    let end = read(From::Forward(30), 10);
    assert_eq!((end.events.len(), end.forward), (0, 30));
    store.ingest(vec![batch("a", "s", 30, 1)]);
    assert_eq!(numbers(&read(From::Forward(30), 10)), [30]);
    let inside = store.read("g", "s", START + 5, START + 8, From::Head, 10).unwrap();
    assert_eq!(numbers(&inside), [5, 6, 7]);
    assert_eq!(inside.forward, 31);
}

#[test]
fn a_search_merges_streams_by_time_and_says_each_event_once() {
    for budget in [Duration::from_secs(60), Duration::ZERO] {
        let (store, _) = open(None, small());
        for round in 0..20 {
            store.ingest(vec![batch("a", "s", round * 5, 5), batch("b", "t", round * 5, 5), batch("c", "u", round, 1)]);
        }
        let mut sorted = search(&store, true, 1000, Duration::from_secs(60), &|_| true);
        assert_eq!(sorted.len(), 220);
        assert!(sorted.windows(2).all(|w| w[0].key < w[1].key && w[0].key.digits() < w[1].key.digits()));
        assert_eq!(sorted[0].key.digits().len(), 56);
        assert_eq!(search(&store, true, 7, budget, &|_| true), sorted);
        sorted.reverse();
        assert_eq!(search(&store, false, 7, budget, &|_| true), sorted);
        let found = search(&store, true, 3, budget, &|m| m.ends_with("line 7"));
        assert_eq!(found.iter().map(|e| e.message.as_str()).collect::<Vec<_>>(), ["a line 7", "b line 7", "c line 7"]);
    }
}

#[test]
fn retention_takes_events_and_gives_the_space_back() {
    let dir = Dir::new();
    let (store, clock) = open(Some(&dir.0), small());
    for round in 0..100 {
        store.ingest(vec![batch("a", "s", round * 5, 5)]);
    }
    store.set_retention("g", Some(1)).unwrap();
    store.tend().unwrap();
    assert_eq!(messages(&store, "s").len(), 500);
    let before = store.stats().segment_bytes;
    clock.advance(86_400_000 + 10_000);
    store.ingest(vec![batch("a", "s", 500, 1)]);
    store.tend().unwrap();
    assert!(store.stats().segment_bytes < before / 2, "{} of {before}", store.stats().segment_bytes);
    let left = messages(&store, "s");
    assert!(left.len() < 20, "{left:?}");
    drop(store);
    let (store, _) = open(Some(&dir.0), small());
    assert_eq!(messages(&store, "s"), left, "what is gone stays gone");
}

#[test]
fn a_store_that_is_too_large_drops_its_oldest() {
    let dir = Dir::new();
    let (store, _) = open(Some(&dir.0), Limits { stored_bytes: 2000, ..small() });
    for round in 0..100 {
        store.ingest(vec![batch("a", "s", round * 5, 5)]);
    }
    store.tend().unwrap();
    let stats = store.stats();
    assert!(stats.evicted_blocks > 0 && stats.segment_bytes < 6000, "{stats:?}");
    assert_eq!(messages(&store, "s").last().unwrap(), "a line 499");
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let dir = Dir::new();
    {
        let (store, _) = open(Some(&dir.0), small());
        store.ingest(vec![batch("a", "s", 0, 50), batch("b", "t", 0, 50)]);
        store.delete_stream("g", "s").unwrap();
        assert!(matches!(store.create_group("g", "STANDARD", Default::default()), Err(Error::GroupExists)));
        store.create_stream("g", "s").unwrap();
    }
    let (store, _) = open(Some(&dir.0), small());
    assert!(messages(&store, "s").is_empty());
    assert_eq!(messages(&store, "t").len(), 50);
    store.reset().unwrap();
    store.ingest(vec![batch("b", "t", 0, 2)]);
    drop(store);
    let (store, _) = open(Some(&dir.0), small());
    assert_eq!(messages(&store, "t"), expected("b", 2));
    assert_eq!(store.stats().streams, 1);
}

#[test]
fn writers_share_their_syncs_and_none_is_lost() {
    let dir = Dir::new();
    let (store, _) = open(Some(&dir.0), small());
    let mut news = store.subscribe();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..25 {
                    store.ingest(vec![batch(&format!("w{writer}"), &format!("s{writer}"), round * 4, 4)]);
                }
            });
        }
    });
    for writer in 0..8 {
        assert_eq!(messages(&store, &format!("s{writer}")), expected(&format!("w{writer}"), 100));
    }
    assert!(news.try_recv().is_ok());
}

#[test]
fn a_full_disk_refuses_writing_and_not_reading() {
    let dir = Dir::new();
    let (store, _) = open(Some(&dir.0), small());
    store.ingest(vec![batch("a", "s", 0, 5)]);
    // A log that can only be read fails as a full disk does.
    let path = dir.newest("wal-");
    store.writer().wal.as_mut().unwrap().replace_file(fs::File::open(&path).unwrap());
    assert!(matches!(store.ingest(vec![batch("a", "s", 5, 5)])[0], IngestResult::Refused { .. }));
    assert!(matches!(store.put("g", "s", vec![event(0, "x")]), Err(Error::Io(_))));
    assert_eq!(messages(&store, "s"), expected("a", 5));
    assert!(store.stats().write_errors >= 2 && store.stats().refused_lines == 5);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    store.writer().wal.as_mut().unwrap().replace_file(file);
    assert_eq!(next(&store.ingest(vec![batch("a", "s", 5, 5)])[0]), 10);
    drop(store);
    let (store, _) = open(Some(&dir.0), small());
    assert_eq!(messages(&store, "s"), expected("a", 10));
}

#[test]
fn groups_and_streams_are_listed_in_order() {
    let (store, clock) = open(None, small());
    for name in ["b", "A", "ab", "/x/y"] {
        store.create_group(name, "STANDARD", Default::default()).unwrap();
    }
    let names = |q: &GroupQuery| store.describe_groups(q).0.into_iter().map(|g| g.name).collect::<Vec<_>>().join(" ");
    assert_eq!(names(&GroupQuery { limit: 9, ..Default::default() }), "/x/y A ab b");
    assert_eq!(names(&GroupQuery { limit: 2, after: Some("/x/y"), ..Default::default() }), "A ab");
    assert_eq!(names(&GroupQuery { limit: 9, prefix: Some("a"), ..Default::default() }), "ab");
    assert_eq!(names(&GroupQuery { limit: 9, pattern: Some("a"), ..Default::default() }), "A ab");
    store.ingest(vec![batch("1", "late", 20, 1), batch("2", "early", 5, 1), batch("3", "middle", 7, 1)]);
    clock.advance(50);
    let streams = |q: &StreamQuery| {
        let (page, more) = store.describe_streams("g", q).unwrap();
        (page.into_iter().map(|s| s.name).collect::<Vec<_>>().join(" "), more)
    };
    let by_time = StreamQuery { order: StreamOrder::LastEventTime, descending: true, limit: 2, ..Default::default() };
    assert_eq!(streams(&by_time), ("late middle".to_owned(), true));
    assert_eq!(streams(&StreamQuery { after: Some((START + 7, "middle")), ..by_time }), ("early".to_owned(), false));
    assert_eq!(streams(&StreamQuery { prefix: Some("m"), limit: 2, ..Default::default() }).0, "middle");
}

fn turn_over(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x55;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_inside_the_log_costs_what_was_there_and_is_told() {
    let dir = Dir::new();
    let (store, _) = open(Some(&dir.0), Limits::default());
    store.ingest(vec![batch("a", "s", 0, 5)]);
    let (path, before) = (dir.newest("wal-"), store.stats().wal_bytes as usize);
    store.ingest(vec![batch("b", "s", 0, 5)]);
    store.ingest(vec![batch("c", "s2", 0, 5)]);
    store.delete_group("g").unwrap();
    drop(store);
    turn_over(&path, before + 20);
    let (store, _) = open(Some(&dir.0), Limits::default());
    assert_eq!((messages(&store, "s"), messages(&store, "s2")), (expected("a", 5), expected("c", 5)));
    let stats = store.stats();
    assert!(stats.damaged_bytes > 0 && stats.torn_bytes == 0, "{stats:?}");
    assert!(path.with_extension("damaged").exists(), "the file itself is kept for whoever can mend it");
    drop(store);
    assert_eq!(open(Some(&dir.0), Limits::default()).0.stats().damaged_bytes, 0, "told once");
}

#[test]
fn damage_in_a_segment_is_told_to_its_readers() {
    for (what, at) in [("a header", 0), ("a body", block::HEADER + 3)] {
        let dir = Dir::new();
        let (store, _) = open(Some(&dir.0), Limits { block_bytes: 100, segment_bytes: 300, ..small() });
        for n in 0..8 {
            store.ingest(vec![batch("a", "s", n * 5, 5)]);
        }
        drop(store);
        // Once more, so that the first segments are known to be synced.
        drop(open(Some(&dir.0), small()));
        turn_over(&dir.0.join(format!("seg-{:016}", 1)), at);
        let (store, _) = open(Some(&dir.0), small());
        let mut found = messages(&store, "s");
        if at > 0 {
            let told = found.remove(0);
            let lost = 40 - found.len();
            assert!(told.starts_with(&format!("[beaufort: {lost} lines cannot be read any more, as seg-")), "{told:?}");
        }
        assert!((20..40).contains(&found.len()) && expected("a", 40).ends_with(&found), "{what}: {found:?}");
        let stats = store.stats();
        assert!(stats.damaged_bytes + stats.read_errors > 0, "{what}: {stats:?}");
    }
}

#[test]
fn lines_without_their_snapshot_are_not_taken_for_nothing() {
    let dir = Dir::new();
    drop(open(Some(&dir.0), small()));
    fs::remove_file(dir.0.join("snapshot.json")).unwrap();
    let (store, _) = open(Some(&dir.0), small());
    store.ingest(vec![batch("a", "s", 0, 5)]);
    drop(store);
    fs::rename(dir.0.join("snapshot.json"), dir.0.join("elsewhere")).unwrap();
    let again = |dir: &Dir| LogStore::open(Some(&dir.0), ManualClock::at(Timestamp(START)), small()).err().unwrap().to_string();
    assert!(again(&dir).contains("snapshot.json (it is missing, and lines are there) is damaged: restore it from a backup"));
    fs::write(dir.0.join("snapshot.json"), r#"{"format":2,"new":true}"#).unwrap();
    assert!(again(&dir).contains("is of a newer format (2)"));
    fs::write(dir.0.join("snapshot.json"), "{").unwrap();
    assert!(again(&dir).contains("is damaged"));
    fs::rename(dir.0.join("elsewhere"), dir.0.join("snapshot.json")).unwrap();
    assert_eq!(messages(&open(Some(&dir.0), small()).0, "s"), expected("a", 5));
}
