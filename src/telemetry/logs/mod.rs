//! The log store: groups, streams, ordered events, as CloudWatch Logs has them.
//!
//! ```text
//! put, ingest -> group commit -> wal-N (fsync) -> open block per stream, in memory -> zstd block in seg-N
//! read, scan  <- index of blocks (time range, event numbers) <- headers of seg-N, read when the store opens
//! ```
//! Nothing is visible before it is durable. Order inside a stream is order of arrival. Memory holds the open blocks and the
//! index; every file and every buffer has a bound ([`Limits`]). Calls block: asynchronous callers use `spawn_blocking`.
//!
//! Start at [`LogStore`]; writing is in [`write`], reading in [`read`].

mod block;
mod checkpoint;
mod groups;
mod read;
mod segment;
mod state;
mod tend;
#[cfg(test)]
mod tests;
mod wal;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::clock::SharedClock;
use segment::{Block, Segments};
use state::State;
use wal::{Record, Wal};

pub use groups::{GroupInfo, GroupQuery, StreamInfo, StreamOrder, StreamQuery};
pub use read::{Event, From, Key, Page, Scan, Scanned, Selection};
pub use write::{IngestResult, PutOutcome};

/// Cheap to copy: one failed write fails everyone who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("The specified log group does not exist.")]
    NoGroup,
    #[error("The specified log stream does not exist.")]
    NoStream,
    #[error("The specified log group already exists")]
    GroupExists,
    #[error("The specified log stream already exists")]
    StreamExists,
    #[error("Resource limit exceeded.")]
    LimitExceeded,
    #[error("The store holds too many unwritten lines; the disk may be full or slow.")]
    Overloaded,
    #[error("The log store is of a newer format ({0}) than this Beaufort reads: start the newer binary, or another --data-dir")]
    Format(u32),
    #[error("The log store's file {0} is damaged: restore it from a backup, or move the directory logs away to begin with none")]
    Damaged(String),
    #[error("The log store cannot read or write: {0}")]
    Io(Arc<std::io::Error>),
}

impl std::convert::From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        Error::Io(Arc::new(e))
    }
}

/// Runs what waits for the disk where it holds up nobody: on a thread of its own, or, where the runtime has one thread only, as in a
/// simulation, at once: there the order of what happens must not hang on another thread's pace.
pub async fn aside<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, tokio::task::JoinError> {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::CurrentThread => Ok(call()),
        _ => tokio::task::spawn_blocking(call).await,
    }
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// A stream's open block is sealed when it holds this many bytes.
    pub block_bytes: usize,
    pub segment_bytes: u64,
    /// A checkpoint is made when the write-ahead log is longer.
    pub wal_bytes: u64,
    /// All open blocks together; past this, new lines are refused.
    pub open_bytes: u64,
    /// Sealed blocks, compressed, all together: past this the oldest go, and are counted.
    pub stored_bytes: u64,
    pub groups: usize,
    pub streams: usize,
    /// A source of which nothing was heard for this long is forgotten.
    pub source_ms: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            block_bytes: 128 << 10,
            segment_bytes: 128 << 20,
            wal_bytes: 64 << 20,
            open_bytes: 256 << 20,
            stored_bytes: 20 << 30,
            groups: 10_000,
            streams: 1_000_000,
            source_ms: 30 * 86_400_000,
        }
    }
}

/// A stream has new events: read them from where you are. Whoever lags behind the channel reads again, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub group: Arc<str>,
    pub stream: Arc<str>,
    /// The number of the event that comes next.
    pub next: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub groups: u64,
    pub streams: u64,
    pub sources: u64,
    pub events_stored: u64,
    pub bytes_received: u64,
    pub duplicate_lines: u64,
    /// Lines that agents know to be lost before they got here.
    pub lost_lines: u64,
    pub refused_lines: u64,
    /// Events that PutLogEvents left out because of their time, and told its caller.
    pub rejected_events: u64,
    pub write_errors: u64,
    /// The disk did not take the last write.
    pub failing: bool,
    pub read_errors: u64,
    pub torn_bytes: u64,
    /// Bytes of what was stored once and cannot be read any more.
    pub damaged_bytes: u64,
    /// Blocks dropped because of the store's own bound, not of retention.
    pub evicted_blocks: u64,
    pub syncs: u64,
    pub wal_bytes: u64,
    pub segment_bytes: u64,
    pub open_bytes: u64,
    pub blocks: u64,
}

#[derive(Default)]
struct Counters {
    events: AtomicU64,
    bytes: AtomicU64,
    duplicates: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    rejected: AtomicU64,
    write_errors: AtomicU64,
    failing: AtomicBool,
    read_errors: AtomicU64,
    torn: AtomicU64,
    damaged: AtomicU64,
    evicted: AtomicU64,
}

/// Writers take `writer` and only then, shortly, `state`; readers take `state` alone.
pub struct LogStore {
    clock: SharedClock,
    limits: Limits,
    dir: Option<PathBuf>,
    state: RwLock<State>,
    writer: Mutex<Writer>,
    queue: Mutex<Vec<Arc<write::Pending>>>,
    appended: broadcast::Sender<Appended>,
    counters: Counters,
}

struct Writer {
    wal: Option<Wal>,
    segments: Segments,
}

/// Followers that lag further behind than this are told so and read again.
const FOLLOW_QUEUE: usize = 1024;

impl LogStore {
    /// Without a directory everything is kept in memory and is gone afterwards.
    pub fn open(dir: Option<&Path>, clock: SharedClock, limits: Limits) -> Result<Arc<LogStore>, Error> {
        let counters = Counters::default();
        let (writer, state) = match dir {
            None => (Writer { wal: None, segments: Segments::in_memory() }, State::default()),
            Some(dir) => recover(dir, &counters)?,
        };
        let store = LogStore {
            clock,
            limits,
            dir: dir.map(Path::to_owned),
            state: RwLock::new(state),
            writer: Mutex::new(writer),
            queue: Mutex::default(),
            appended: broadcast::Sender::new(FOLLOW_QUEUE),
            counters,
        };
        if store.dir.is_some() {
            // What was replayed goes into this run's own files, so that replaying never takes longer than one log.
            store.checkpoint(&mut store.writer())?;
        }
        Ok(Arc::new(store))
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Appended> {
        self.appended.subscribe()
    }

    pub fn stats(&self) -> Stats {
        let (wal_bytes, syncs, segment_bytes) = {
            let writer = self.writer();
            let wal = writer.wal.as_ref();
            (wal.map_or(0, Wal::len), wal.map_or(0, |w| w.syncs), writer.segments.bytes())
        };
        let state = self.read_state();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            groups: state.groups.len() as u64,
            streams: state.names.len() as u64,
            sources: state.sources.len() as u64,
            events_stored: count(&self.counters.events),
            bytes_received: count(&self.counters.bytes),
            duplicate_lines: count(&self.counters.duplicates),
            lost_lines: count(&self.counters.lost),
            refused_lines: count(&self.counters.refused),
            rejected_events: count(&self.counters.rejected),
            write_errors: count(&self.counters.write_errors),
            failing: self.counters.failing.load(Ordering::Relaxed),
            read_errors: count(&self.counters.read_errors),
            torn_bytes: count(&self.counters.torn),
            damaged_bytes: count(&self.counters.damaged),
            evicted_blocks: count(&self.counters.evicted),
            syncs,
            wal_bytes,
            segment_bytes,
            open_bytes: state.open_bytes,
            blocks: state.groups.values().flat_map(|g| g.streams.values()).map(|s| s.blocks.len() as u64).sum(),
        }
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn recover(dir: &Path, counters: &Counters) -> Result<(Writer, State), Error> {
    std::fs::create_dir_all(dir)?;
    let snapshot = checkpoint::load(dir)?;
    let first_wal = snapshot.wal;
    let mut found: HashMap<u64, Vec<Block>> = HashMap::new();
    let (segments, cut, mut damaged) = Segments::open(dir, (snapshot.segment, snapshot.segment_length), |stream, block| {
        found.entry(stream).or_default().push(block)
    })?;
    for blocks in found.values_mut() {
        // A block that was being moved to another segment is there twice.
        blocks.sort_by_key(|b| b.summary.first);
        let mut next = 0;
        blocks.retain(|b| {
            let fresh = b.summary.first >= next;
            next = next.max(b.summary.end());
            fresh
        });
    }
    let mut state = State { unclaimed: found, ..State::default() };
    checkpoint::restore(snapshot, &mut state);
    let mut torn = cut;
    let mut last = first_wal;
    for number in wal::numbered(dir, "wal-")?.into_iter().filter(|n| *n >= first_wal) {
        last = number;
        let replayed = wal::replay(dir, number, |record, after_damage| match record {
            // What was damaged may have made what this would take away.
            Record::Op(op) if after_damage && op.takes_away() => {}
            Record::Op(op) => state.apply(&op),
            Record::Lines(lines) => {
                state.append(&lines);
            }
        })?;
        torn += replayed.torn;
        damaged += replayed.damaged;
    }
    // Blocks of streams that were deleted: dead weight until their segment goes.
    state.unclaimed = HashMap::new();
    counters.torn.store(torn, Ordering::Relaxed);
    counters.damaged.store(damaged, Ordering::Relaxed);
    Ok((Writer { wal: Some(Wal::begin(dir, last + 1)?), segments }, state))
}
