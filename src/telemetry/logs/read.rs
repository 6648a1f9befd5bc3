//! Reading: one stream in order of arrival (GetLogEvents), many streams in order of time (FilterLogEvents).

use std::cmp::Ordering as Order;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::block::{Events, Summary};
use super::segment::Block;
use super::state::Stream;
use super::{Error, LogStore};
use crate::model::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Key,
    pub stream: Arc<str>,
    pub at: Timestamp,
    pub ingested: Timestamp,
    pub message: String,
}

/// Where an event stands among all: by time, then by stream, then by order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub at: i64,
    pub stream: u64,
    pub number: u64,
}

/// Where a reading of one stream begins. `Forward(n)` goes on with event `n`, `Backward(n)` with the one before `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Head,
    Tail,
    Forward(u64),
    Backward(u64),
}

/// Events in ascending order whichever way was read, and from where to go on both ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub events: Vec<Event>,
    pub forward: u64,
    pub backward: u64,
}

/// Which streams of a group are searched.
#[derive(Clone, Debug)]
pub enum Selection<'a> {
    All,
    Prefix(&'a str),
    Names(&'a [String]),
}

pub struct Scan<'a> {
    pub group: &'a str,
    pub streams: Selection<'a>,
    pub start: i64,
    /// Inclusive.
    pub end: i64,
    /// The first event that may be answered: the token of the page before.
    pub from: Option<Key>,
    pub limit: usize,
    /// False: newest first.
    pub forward: bool,
    /// After this long the page is cut short, possibly empty, with a token.
    pub budget: Duration,
    pub matches: &'a (dyn Fn(&str) -> bool + Sync),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scanned {
    pub events: Vec<Event>,
    /// Where the next page begins; None at the end.
    pub next: Option<Key>,
}

/// GetLogEvents and FilterLogEvents answer up to 1 MB.
const PAGE_BYTES: usize = 1 << 20;

impl Key {
    /// 56 digits, which sort as the key does.
    pub fn digits(&self) -> String {
        format!("{:019}{:017}{:020}", self.at.max(0), self.stream, self.number)
    }

    /// As a page's token says it.
    pub fn token(&self) -> String {
        format!("{:016x}{:016x}{:016x}", self.at, self.stream, self.number)
    }

    pub fn parse_token(token: &str) -> Option<Key> {
        if token.len() != 48 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let part = |i: usize| u64::from_str_radix(&token[i * 16..i * 16 + 16], 16).ok();
        Some(Key { at: part(0)? as i64, stream: part(1)?, number: part(2)? })
    }

    /// Turns ascending order into descending order and back.
    fn flip(self, forward: bool) -> Key {
        match forward {
            true => self,
            false => Key { at: !self.at, stream: !self.stream, number: !self.number },
        }
    }
}

/// A run of events to read: sealed, or a copy of the open block.
enum Run {
    Sealed(Block),
    Open(Summary, Vec<u8>),
}

/// A run with its stream's id, first number that still counts, and name.
type Candidate = (u64, u64, Arc<str>, Run);

impl Run {
    fn summary(&self) -> &Summary {
        match self {
            Run::Sealed(block) => &block.summary,
            Run::Open(summary, _) => summary,
        }
    }
    /// Calls `each` with every event's number. In place of events that are damaged comes one that says so: a reader gets past them
    /// and knows of them. True: there were such.
    fn walk(&self, mut each: impl FnMut(u64, super::block::RawEvent)) -> Result<bool, Error> {
        let loaded;
        let bytes: &[u8] = match self {
            Run::Sealed(block) => match block.load() {
                Ok(bytes) => {
                    loaded = bytes;
                    &loaded
                }
                Err(Error::Damaged(which)) => {
                    let Summary { first, count, min, .. } = block.summary;
                    let message =
                        format!("[beaufort: {count} lines cannot be read any more, as {which} of the log store is damaged]");
                    each(first, super::block::RawEvent { at: min, ingested: min, message: &message });
                    return Ok(true);
                }
                Err(e) => return Err(e),
            },
            Run::Open(_, bytes) => bytes,
        };
        for (number, event) in (self.summary().first..).zip(Events::of(bytes)) {
            each(number, event);
        }
        Ok(false)
    }
}

/// The runs of a stream that can hold events between the two times, both inclusive, in order.
fn runs(stream: &Stream, start: i64, end: i64, wanted: impl Fn(&Summary) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    runs.extend(stream.blocks.iter().filter(|b| b.summary.overlaps(start, end) && wanted(&b.summary)).cloned().map(Run::Sealed));
    if stream.open.summary.overlaps(start, end) && wanted(&stream.open.summary) {
        runs.push(Run::Open(stream.open.summary, stream.open.bytes.clone()));
    }
    runs
}

impl LogStore {
    /// One page of one stream: events with `start <= time < end`.
    pub fn read(&self, group: &str, stream: &str, start: i64, end: i64, from: From, limit: usize) -> Result<Page, Error> {
        let (id, base, next, mut runs, forward, mark) = {
            let state = self.read_state();
            let found = state.groups.get(group).ok_or(Error::NoGroup)?.streams.get(stream).ok_or(Error::NoStream)?;
            let (base, next) = (found.base, found.next());
            let (forward, mark) = match from {
                From::Head => (true, base),
                From::Tail => (false, next),
                From::Forward(n) => (true, n),
                From::Backward(n) => (false, n),
            };
            let wanted = |s: &Summary| if forward { s.end() > mark } else { s.first < mark };
            (found.id, base, next, runs(found, start, end.saturating_sub(1), wanted), forward, mark)
        };
        if !forward {
            runs.reverse();
        }
        let name: Arc<str> = stream.into();
        let (mut events, mut bytes, mut full): (Vec<Event>, usize, bool) = (Vec::new(), 0, limit == 0);
        for run in runs {
            let mut found = Vec::new();
            let walked = run.walk(|number, e| {
                let inside = number >= base && if forward { number >= mark } else { number < mark };
                if inside && e.at >= start && e.at < end && (!forward || found.len() <= limit) {
                    found.push(event(&name, Key { at: e.at, stream: id, number }, &e));
                }
            });
            self.noted(walked)?;
            if !forward {
                found.reverse();
            }
            for event in found {
                full |= events.len() >= limit || (bytes + event.message.len() > PAGE_BYTES && !events.is_empty());
                if full {
                    break;
                }
                bytes += event.message.len();
                events.push(event);
            }
            if full {
                break;
            }
        }
        if !forward {
            events.reverse();
        }
        let first = events.first().map(|e| e.key.number);
        let last = events.last().map(|e| e.key.number + 1);
        let (forward, backward) = match (forward, full) {
            // What was looked at and does not fit the times need not be looked at again.
            (true, false) => (next.max(mark), first.unwrap_or(mark)),
            (true, true) => (last.unwrap_or(mark), first.unwrap_or(mark)),
            (false, true) => (last.unwrap_or(mark), first.unwrap_or(mark)),
            (false, false) => (last.unwrap_or(mark), first.unwrap_or(mark.min(base))),
        };
        // A first page from the tail goes on with what is written from now on, whatever the times left out.
        let forward = if from == From::Tail { next } else { forward };
        Ok(Page { events, forward, backward })
    }

    /// Events of many streams by time. Blocks are read in order of their first time, and no more than the page needs.
    pub fn scan(&self, scan: &Scan) -> Result<Scanned, Error> {
        let begun = Instant::now();
        let mut runs = self.gather(scan)?;
        let edge = |s: &Summary| if scan.forward { s.min } else { !s.max };
        runs.sort_by_key(|(_, _, _, run)| edge(run.summary()));
        let from = scan.from.map(|k| k.flip(scan.forward));
        let mut best = Best { heap: BinaryHeap::new(), bytes: 0, limit: scan.limit.max(1), cut: None };
        let mut stopped = None;
        for (id, base, name, run) in runs {
            // Nothing in this block and behind it can come before this.
            let floor = Key { at: edge(run.summary()), stream: 0, number: 0 };
            if best.cut.is_some_and(|cut| floor > cut) {
                break;
            }
            let progress = from.is_none_or(|from| floor.at > from.at);
            if progress && stopped.is_none() && begun.elapsed() >= scan.budget {
                stopped = Some(floor);
                break;
            }
            let walked = run.walk(|number, e| {
                let key = Key { at: e.at, stream: id, number };
                let rank = key.flip(scan.forward);
                let inside = number >= base && e.at >= scan.start && e.at <= scan.end && from.is_none_or(|f| rank >= f);
                if inside && best.cut.is_none_or(|cut| rank < cut) && (scan.matches)(e.message) {
                    best.add(rank, event(&name, key, &e));
                }
            });
            self.noted(walked)?;
        }
        let next = [best.cut, stopped].into_iter().flatten().min();
        let mut ranked = best.heap.into_sorted_vec();
        ranked.retain(|r| next.is_none_or(|next| r.rank < next));
        let next = next.map(|k| k.flip(scan.forward));
        Ok(Scanned { events: ranked.into_iter().map(|r| r.event).collect(), next })
    }

    fn gather(&self, scan: &Scan) -> Result<Vec<Candidate>, Error> {
        let state = self.read_state();
        let group = state.groups.get(scan.group).ok_or(Error::NoGroup)?;
        let (start, end) = match (scan.from, scan.forward) {
            (Some(from), true) => (scan.start.max(from.at), scan.end),
            (Some(from), false) => (scan.start, scan.end.min(from.at)),
            (None, _) => (scan.start, scan.end),
        };
        let mut found = Vec::new();
        let mut take = |name: &Arc<str>, stream: &Stream| {
            found.extend(runs(stream, start, end, |_| true).into_iter().map(|run| (stream.id, stream.base, name.clone(), run)));
        };
        match scan.streams {
            Selection::All => group.streams.iter().for_each(|(n, s)| take(n, s)),
            Selection::Prefix(prefix) => {
                let from = group.streams.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
                from.take_while(|(n, _)| n.starts_with(prefix)).for_each(|(n, s)| take(n, s));
            }
            Selection::Names(names) => {
                for name in names.iter().collect::<BTreeSet<_>>() {
                    let (name, stream) = group.streams.get_key_value(name.as_str()).ok_or(Error::NoStream)?;
                    take(name, stream);
                }
            }
        }
        Ok(found)
    }

    fn noted(&self, walked: Result<bool, Error>) -> Result<(), Error> {
        if !matches!(walked, Ok(false)) {
            self.counters.read_errors.fetch_add(1, Ordering::Relaxed);
        }
        walked.map(drop)
    }
}

fn event(stream: &Arc<str>, key: Key, raw: &super::block::RawEvent) -> Event {
    let (at, ingested) = (Timestamp(raw.at), Timestamp(raw.ingested));
    Event { key, stream: stream.clone(), at, ingested, message: raw.message.to_owned() }
}

/// The first events of a page by rank, never more than a page of them in memory.
struct Best {
    heap: BinaryHeap<Ranked>,
    bytes: usize,
    limit: usize,
    /// The lowest rank that was left out: the next page begins there.
    cut: Option<Key>,
}

struct Ranked {
    rank: Key,
    event: Event,
}

impl Best {
    fn add(&mut self, rank: Key, event: Event) {
        self.bytes += event.message.len();
        self.heap.push(Ranked { rank, event });
        while self.heap.len() > self.limit || (self.bytes > PAGE_BYTES && self.heap.len() > 1) {
            let Some(last) = self.heap.pop() else { return };
            self.bytes -= last.event.message.len();
            self.cut = Some(last.rank);
        }
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.rank == other.rank
    }
}
impl Eq for Ranked {}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<Order> {
        Some(self.cmp(other))
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> Order {
        self.rank.cmp(&other.rank)
    }
}
