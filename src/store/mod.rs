//! Durable control state: consistent snapshots, one writer, a watch with one batch per commit, and a journal of causes.
//!
//! Owns what is acknowledged: [`Store::update`] returns only when the change is on disk. Never decides anything; knows neither the
//! API nor agents. No code outside this folder knows which database lies below ([`sqlite`]).
//!
//! Start reading at [`Store`]; [`state`] holds the tables and their indexes.

mod change;
pub mod journal;
mod pool;
mod record;
mod rehearsal;
mod sqlite;
pub mod state;
mod writer;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::clock::SharedClock;
use crate::model::Timestamp;

pub use change::Change;
pub use record::{Record, RecordKind, RecordQuery};
pub use rehearsal::Rehearsal;
pub use state::State;
pub use writer::Tx;

/// Commits that a watcher may fall behind before it must look at a snapshot again.
const WATCH_DEPTH: usize = 1024;
/// Updates that may wait for the writer; callers wait for a place.
const QUEUE_DEPTH: usize = 4096;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the state database {0}")]
    Database(String),
    #[error(
        "the data directory is of a newer version ({found}) than this Beaufort reads ({known}): start the newer binary, or another --data-dir"
    )]
    Newer { found: u32, known: u32 },
    #[error("the data directory {0} is in use by another Beaufort: end that one, or choose another --data-dir")]
    InUse(String),
    #[error("the state database is damaged ({0}): restore a backup of the data directory, or start with another --data-dir")]
    Damaged(String),
    #[error("the store has been closed")]
    Closed,
    #[error("a change failed inside Beaufort: {0}")]
    Panicked(String),
}

/// One durable commit, as watchers see it. A watch is a hint; the snapshot is the truth.
#[derive(Debug)]
pub struct Commit {
    pub revision: u64,
    pub at: Timestamp,
    pub causes: Vec<String>,
    pub changes: Vec<Change>,
    pub records: Vec<Record>,
}

/// A handle: cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<writer::Job>,
}

struct Shared {
    state: RwLock<Arc<State>>,
    watch: broadcast::Sender<Arc<Commit>>,
    installation: String,
    stats: writer::Counters,
}

impl Store {
    /// Opens or creates the state in `dir`; None keeps it in memory. `new_installation` names a store that is new.
    pub fn open(dir: Option<&Path>, clock: SharedClock, new_installation: &str) -> Result<Store, Error> {
        let (store, writer, queue) = Store::prepare(dir, clock, new_installation)?;
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|e| Error::Database(format!("has no writer thread: {e}")))?;
        Ok(store)
    }

    /// As [`Store::open`], with the writer as a task of the caller's runtime: a simulation has one thread and one time, and no
    /// time may pass there while the writer works. Aborting the task is a crash: what is queued is lost and nobody is answered.
    pub fn open_in_task(dir: Option<&Path>, clock: SharedClock, new_installation: &str) -> Result<(Store, AbortHandle), Error> {
        let (store, writer, queue) = Store::prepare(dir, clock, new_installation)?;
        Ok((store, tokio::spawn(writer.run_in_task(queue)).abort_handle()))
    }

    fn prepare(
        dir: Option<&Path>,
        clock: SharedClock,
        new_installation: &str,
    ) -> Result<(Store, writer::Writer, mpsc::Receiver<writer::Job>), Error> {
        let mut pool = pool::Pool::default();
        let (database, state) = sqlite::Database::open(dir, new_installation, &mut pool)?;
        let shared = Arc::new(Shared {
            installation: database.installation().to_owned(),
            state: RwLock::new(Arc::new(state)),
            watch: broadcast::channel(WATCH_DEPTH).0,
            stats: writer::Counters::default(),
        });
        let (jobs, queue) = mpsc::channel(QUEUE_DEPTH);
        let writer = writer::Writer { database, clock, shared: shared.clone(), pool };
        Ok((Store { shared, jobs }, writer, queue))
    }

    /// Names this Beaufort for ever: containers carry it, so that two of them never touch each other's.
    pub fn installation(&self) -> &str {
        &self.shared.installation
    }

    /// The state as of the last durable commit. Costs nothing and never changes under its reader.
    pub fn snapshot(&self) -> Arc<State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Commits as they become durable. A watcher that lags gets `RecvError::Lagged` and looks at a snapshot.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Commit>> {
        self.shared.watch.subscribe()
    }

    /// Runs `change` on the newest state, alone, and returns when what it changed is durable. An Err from it changes nothing.
    pub async fn update<T, E>(
        &self,
        cause: impl Into<String>,
        change: impl FnOnce(&mut Tx) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = writer::Job::update(cause.into(), change, reply);
        self.jobs.send(job).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Decisions or alarm history, newest first.
    pub async fn records(&self, query: RecordQuery) -> Result<Vec<(u64, Record)>, Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(writer::Job::Read(query, reply)).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Forgets the ledger, the alarms' history and the journal; the state stays.
    pub async fn clear_history(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(writer::Job::ClearHistory(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Ends the writer after what is queued; updates after this are refused.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(writer::Job::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    pub fn stats(&self) -> Stats {
        self.shared.stats.read()
    }
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub updates: u64,
    /// One fsync each; updates that arrive together share one.
    pub commits: u64,
    pub failed_commits: u64,
    /// The last commit could not be made durable.
    pub failing: bool,
    pub commit_seconds: f64,
}

#[cfg(test)]
mod tests;
