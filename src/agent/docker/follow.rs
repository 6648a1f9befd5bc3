//! Follows the logs of every container whose lines are ours, in one thread that polls: 50 ms while lines flow, backing off to 200 ms
//! (inotify buys 25 ms and costs more). Delivers every line once, blocking while nobody takes them: Docker's files are the buffer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::jsonfile::{FileReader, Position, Read};
use super::lines::FileJoiner;
use crate::agent::engine::RuntimeId;
use crate::model::log::{LineBatch, LogTarget, ResumePoint};

const BUSY: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_millis(200);
/// How soon the thread sees that the engine was dropped.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// What one container may read before the others have their turn.
const TURN_BYTES: usize = 1 << 20;

/// One container whose lines are followed.
pub struct Followed {
    pub target: LogTarget,
    /// None: by Docker's log API.
    pub path: Option<PathBuf>,
    pub resume: Option<ResumePoint>,
    progress: Mutex<Progress>,
    pub changed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// The container's process has ended: what is there is all.
    pub ended: bool,
    /// Everything was handed on, the last line without its newline too.
    pub drained: bool,
    /// The number of the next line.
    pub next: u64,
}

impl Followed {
    pub fn new(target: LogTarget, path: Option<PathBuf>, resume: Option<ResumePoint>) -> Followed {
        Followed { target, path, resume, progress: Mutex::default(), changed: Notify::new() }
    }
    pub fn progress(&self) -> Progress {
        *lock(&self.progress)
    }
    pub fn set_drained(&self, next: u64) {
        let mut progress = lock(&self.progress);
        // Started again meanwhile: then there is more to come.
        progress.drained = progress.ended;
        progress.next = next;
        drop(progress);
        self.changed.notify_waiters();
    }
    fn set_ended(&self, ended: bool) {
        let mut progress = lock(&self.progress);
        if progress.ended != ended {
            *progress = Progress { ended, drained: false, next: progress.next };
        }
        drop(progress);
        self.changed.notify_waiters();
    }
    /// Returns once everything was handed on.
    pub async fn drained(&self) -> Progress {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let progress = self.progress();
            if progress.drained {
                return progress;
            }
            changed.await;
        }
    }
}

/// What is followed, shared by the engine's calls and the thread: no queue, so nothing to bound but the containers.
#[derive(Default)]
pub struct Registry {
    entries: Mutex<Entries>,
    wake: Condvar,
}

#[derive(Default)]
struct Entries {
    by_id: BTreeMap<RuntimeId, Arc<Followed>>,
    /// One more on every change that the thread must see.
    version: u64,
}

impl Registry {
    /// The new entry, or None when it is followed already: then that goes on, as for a container that was started again.
    pub fn put(&self, id: &str, ended: bool, make: impl FnOnce() -> Followed) -> Option<Arc<Followed>> {
        let mut entries = lock(&self.entries);
        let known = entries.by_id.contains_key(id);
        let entry = entries.by_id.entry(id.to_owned()).or_insert_with(|| Arc::new(make())).clone();
        entry.set_ended(ended);
        self.changed(entries);
        (!known).then_some(entry)
    }
    pub fn get(&self, id: &str) -> Option<Arc<Followed>> {
        lock(&self.entries).by_id.get(id).cloned()
    }
    pub fn end(&self, id: &str) {
        let entries = lock(&self.entries);
        if let Some(entry) = entries.by_id.get(id) {
            entry.set_ended(true);
            self.changed(entries);
        }
    }
    pub fn remove(&self, id: &str) {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.by_id.remove(id) {
            entry.changed.notify_waiters();
            self.changed(entries);
        }
    }
    fn changed(&self, mut entries: MutexGuard<Entries>) {
        entries.version += 1;
        drop(entries);
        self.wake.notify_all();
    }
    fn wait_for_change(&self, seen: u64, at_most: Duration) {
        let entries = lock(&self.entries);
        if entries.version == seen {
            drop(self.wake.wait_timeout(entries, at_most).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own half of a followed container.
struct Tail {
    followed: Arc<Followed>,
    reader: FileReader,
    joiner: FileJoiner,
    due: Instant,
    interval: Duration,
}

impl Tail {
    fn new(id: &str, path: PathBuf, followed: Arc<Followed>) -> Tail {
        let (joiner, from) = FileJoiner::new(id.to_owned(), followed.target.clone(), followed.resume.as_ref());
        let reader = FileReader::new(path, from);
        Tail { followed, reader, joiner, due: Instant::now(), interval: BUSY }
    }
}

/// The thread's body: returns when the engine is dropped or nobody listens any more.
pub fn run(registry: &Registry, stop: &CancellationToken, out: &mpsc::Sender<LineBatch>) {
    let mut tails: BTreeMap<RuntimeId, Tail> = BTreeMap::new();
    let mut batches = Vec::new();
    while !stop.is_cancelled() {
        let version = take_over_changes(registry, &mut tails);
        let now = Instant::now();
        let mut next_due = now + LONGEST_WAIT;
        for (id, tail) in &mut tails {
            let Progress { ended, drained, .. } = tail.followed.progress();
            if drained {
                continue;
            }
            if ended || tail.due <= now {
                let finished = turn(id, tail, ended, now, &mut batches);
                for batch in batches.drain(..) {
                    if !send(out, batch, stop) {
                        return;
                    }
                }
                if finished {
                    tail.followed.set_drained(tail.joiner.next());
                    continue;
                }
            }
            next_due = next_due.min(tail.due);
        }
        registry.wait_for_change(version, next_due.saturating_duration_since(Instant::now()));
    }
}

fn take_over_changes(registry: &Registry, tails: &mut BTreeMap<RuntimeId, Tail>) -> u64 {
    let entries = lock(&registry.entries);
    tails.retain(|id, tail| entries.by_id.get(id).is_some_and(|e| Arc::ptr_eq(e, &tail.followed)));
    for (id, followed) in &entries.by_id {
        if let Some(path) = &followed.path
            && !tails.contains_key(id)
        {
            tails.insert(id.clone(), Tail::new(id, path.clone(), followed.clone()));
        }
    }
    entries.version
}

/// One container's turn. True when it has ended and its last line was read.
fn turn(id: &str, tail: &mut Tail, ended: bool, now: Instant, out: &mut Vec<LineBatch>) -> bool {
    let (reader, joiner) = (&mut tail.reader, &mut tail.joiner);
    let mut at = reader.position;
    let result = reader.poll(TURN_BYTES, &mut |read| match read {
        Read::Record { record, before, after } => {
            joiner.record(&record, before, after, out);
            at = after;
        }
        Read::Lost => joiner.lose(at, out),
    });
    let position: Position = reader.position;
    let used = match result {
        Ok(used) => used,
        Err(error) => {
            tracing::warn!(container = id, %error, "cannot read a container's log file");
            0
        }
    };
    if ended && used == 0 {
        joiner.finish(position, out);
        return true;
    }
    joiner.flush(position, out);
    tail.interval = if used > 0 { BUSY } else { (tail.interval * 2).clamp(BUSY, QUIET) };
    tail.due = if used >= TURN_BYTES || ended { now } else { now + tail.interval };
    false
}

/// Lines are never dropped: waits for room. False when nobody listens any more.
fn send(out: &mpsc::Sender<LineBatch>, mut batch: LineBatch, stop: &CancellationToken) -> bool {
    loop {
        match out.try_send(batch) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(back)) => batch = back,
        }
        if stop.is_cancelled() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
