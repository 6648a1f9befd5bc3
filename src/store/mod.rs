//! Durable control state: consistent snapshots, one writer, a watch with one batch per commit, and a journal of causes.
//!
//! Owns what is acknowledged: [`Store::update`] returns only when the change is on disk. Never decides anything; knows neither the
//! API nor agents. No code outside this folder knows which database lies below ([`sqlite`]).
//!
//! Start reading at [`Store`]; [`state`] holds the tables and their indexes.

mod backup;
mod change;
mod check;
pub mod encode;
mod fate;
pub mod journal;
mod load;
mod pool;
mod record;
mod reference;
mod rehearsal;
mod restore;
mod schema;
mod sqlite;
pub mod state;
mod witness;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::clock::SharedClock;
use crate::model::Timestamp;

pub use backup::Manifest;
pub use change::Change;
pub use check::{Report, examine};
pub use fate::{Fate, Fates};
pub use record::{Record, RecordKind, RecordQuery};
pub use reference::PlainSqlite;
pub use rehearsal::Rehearsal;
pub use restore::{Restored, restore};
pub use state::State;
pub use writer::Tx;

/// Commits that a watcher may fall behind before it must look at a snapshot again.
const WATCH_DEPTH: usize = 1024;
/// Where a backup is put together, inside the data directory.
const BACKUP_FILE: &str = "backup-in-progress.sqlite";
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
    #[error(
        "the state database is damaged ({0}): `beaufort check` says where; restore a backup (`beaufort restore`), or start with another --data-dir"
    )]
    Damaged(String),
    #[error(
        "the state ends at commit {found}, but commit {acknowledged} was acknowledged: what came between is gone, because its write-ahead log (state.sqlite-wal) was cut or damaged, or an older copy was put in its place. Restore a backup (`beaufort restore`); or, to go on without those commits, remove the file `acknowledged` in the data directory"
    )]
    Lost { found: u64, acknowledged: u64 },
    #[error("the state cannot be written, the disk is full ({0}): free some space; what was acknowledged is safe")]
    Full(String),
    #[error(
        "a restore into {0} was interrupted: run `beaufort restore FILE --data-dir {0} --replace` again; what was there before is in {0}/replaced-..."
    )]
    Halfway(String),
    #[error("{0} holds a state already: --replace puts it aside, or choose another --data-dir")]
    NotEmpty(String),
    #[error("the backup is damaged, and nothing was replaced: {0}; take another one")]
    BadBackup(String),
    /// Of a backup or a restore: what was being done, and why it could not.
    #[error("{0}")]
    Copy(String),
    #[error("the store has been closed")]
    Closed,
    #[error("a change failed inside Beaufort: {0}")]
    Panicked(String),
}

/// A copy of the state from where nobody works.
pub fn backup_of(dir: &Path, to: &Path, now: Timestamp) -> Result<Manifest, Error> {
    let _lock = sqlite::lock(dir)?;
    backup::take(dir, to, now)
}

/// One durable commit, as watchers see it. A watch is a hint; the snapshot is the truth.
#[derive(Clone, Debug)]
pub struct Commit {
    pub revision: u64,
    pub at: Timestamp,
    pub causes: Vec<String>,
    pub changes: Vec<Change>,
    pub records: Vec<Record>,
}

impl Shared {
    fn reader(&self) -> MutexGuard<'_, Option<sqlite::Reader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// None: in memory.
    dir: Option<PathBuf>,
    /// Reads the ledger beside the writer. None: the writer does it.
    reader: Mutex<Option<sqlite::Reader>>,
    stats: writer::Counters,
    /// What the check after an unclean end found.
    damage: OnceLock<String>,
}

impl Store {
    /// Opens or creates the state in `dir`; None keeps it in memory. `new_installation` names a store that is new.
    pub fn open(dir: Option<&Path>, clock: SharedClock, new_installation: &str) -> Result<Store, Error> {
        let ended_cleanly = dir.is_none_or(|dir| dir.join("state.sqlite-wal").metadata().map_or(0, |log| log.len()) == 0);
        let (store, writer, queue) = Store::prepare(dir, clock, new_installation, true)?;
        if let Some(dir) = dir.filter(|_| !ended_cleanly) {
            check_behind(&store.shared, dir.join(sqlite::FILE));
        }
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|e| Error::Database(format!("has no writer thread: {e}")))?;
        Ok(store)
    }

    /// As [`Store::open`], with the writer as a task of the caller's runtime: a simulation has one thread and one time, and no
    /// time may pass there while the writer works. Aborting the task is a crash: what is queued is lost and nobody is answered.
    /// `fates` says what becomes of each commit.
    pub fn open_in_task(
        dir: Option<&Path>,
        clock: SharedClock,
        new_installation: &str,
        fates: Arc<dyn Fates>,
    ) -> Result<(Store, AbortHandle), Error> {
        let (store, mut writer, queue) = Store::prepare(dir, clock, new_installation, false)?;
        writer.fates = Some(fates);
        Ok((store, tokio::spawn(writer.run_in_task(queue)).abort_handle()))
    }

    fn prepare(
        dir: Option<&Path>,
        clock: SharedClock,
        new_installation: &str,
        threads: bool,
    ) -> Result<(Store, writer::Writer, mpsc::Receiver<writer::Job>), Error> {
        let mut pool = pool::Pool::default();
        let (mut database, state) = sqlite::Database::open(dir, new_installation, &mut pool)?;
        if let Some(from) = database.take_meta("restored")? {
            tracing::warn!(
                %from,
                "the state was restored from a backup: tasks that were started after it are not known, and agents stop them as they \
                 connect; tasks that have ended since are started again"
            );
        }
        if let Some(dir) = dir {
            // A backup that was being taken when the last server ended. There is none most of the time.
            let _ = std::fs::remove_file(dir.join(BACKUP_FILE));
        }
        let shared = Arc::new(Shared {
            installation: database.installation().to_owned(),
            state: RwLock::new(Arc::new(state)),
            watch: broadcast::channel(WATCH_DEPTH).0,
            dir: dir.map(Path::to_owned),
            reader: Mutex::new(dir.filter(|_| threads).map(sqlite::Reader::open).transpose()?),
            stats: writer::Counters::default(),
            damage: OnceLock::new(),
        });
        let (jobs, queue) = mpsc::channel(QUEUE_DEPTH);
        let writer = writer::Writer { database, clock, shared: shared.clone(), pool, fates: None, grave: None };
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
        if self.shared.reader().is_some() {
            let shared = self.shared.clone();
            let read = move || shared.reader().as_ref().map_or(Err(Error::Closed), |reader| reader.records(&query));
            return tokio::task::spawn_blocking(read).await.unwrap_or(Err(Error::Closed));
        }
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

    /// Whether there is a data directory.
    pub fn is_durable(&self) -> bool {
        self.shared.dir.is_some()
    }

    /// Takes a backup into the data directory, while updates go on. Blocks for as long as the state is large. None: in memory.
    pub fn backup(&self, now: Timestamp) -> Option<Result<(PathBuf, Manifest), Error>> {
        let dir = self.shared.dir.as_deref()?;
        let to = dir.join(BACKUP_FILE);
        // Of a backup before.
        let _ = std::fs::remove_file(&to);
        Some(backup::take(dir, &to, now).map(|manifest| (to, manifest)))
    }

    /// What is wrong with the files, as far as anybody has looked: the sentence for a person.
    pub fn damage(&self) -> Option<&str> {
        self.shared.damage.get().map(String::as_str)
    }

    /// Ends the writer after what is queued; updates after this are refused.
    pub async fn close(&self) {
        // The last to leave removes SQLite's log, and that is the writer.
        drop(self.shared.reader().take());
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(writer::Job::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    pub fn stats(&self) -> Stats {
        self.shared.stats.read()
    }
}

/// After an end that was none, every page is looked at once more, while the server works: loading has verified each row already,
/// and this reaches the rest. Costs the start nothing.
fn check_behind(shared: &Arc<Shared>, file: PathBuf) {
    let shared = shared.clone();
    let look = move || {
        if let Some(fault) = check::first_fault(&file) {
            let said = Error::Damaged(fault).to_string();
            tracing::error!("{said}");
            let _ = shared.damage.set(said);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("store-check".to_owned()).spawn(look) {
        tracing::warn!(%error, "the state could not be checked after an unclean end; `beaufort check` does the same");
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
