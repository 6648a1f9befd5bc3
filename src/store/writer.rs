//! The one writer: takes what is queued, runs it in order on a working copy, makes it durable in one transaction, publishes it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::pool::Pool;
use super::sqlite::Database;
use super::{Change, Commit, Error, Fate, Fates, Record, RecordQuery, Shared, State, Stats};
use crate::clock::SharedClock;
use crate::model::Timestamp;
use crate::model::alarm::AlarmHistory;
use crate::model::decision::Decision;

/// Updates that may share one fsync. Bounds how long the first of them waits.
const GROUP: usize = 512;

/// What an update sees and does.
pub struct Tx<'a> {
    pub(super) state: &'a mut State,
    pub(super) changes: &'a mut Vec<Change>,
    pub(super) records: &'a mut Vec<Record>,
    pub(super) pool: &'a mut Pool,
    pub(super) revision: u64,
    pub now: Timestamp,
}

impl Tx<'_> {
    /// The state with everything that this transaction has changed so far.
    pub fn state(&self) -> &State {
        self.state
    }

    /// Puts or deletes one row: `tx.put(task)`, `tx.put(Change::Task(id, None))`.
    pub fn put(&mut self, change: impl Into<Change>) {
        let mut change = change.into();
        self.pool.share(&mut change);
        self.state.apply(&change, self.revision);
        self.changes.push(change);
    }

    /// Remembers a decision in the ledger.
    pub fn decide(&mut self, decision: Decision) {
        self.records.push(Record::Decision(decision));
    }

    pub fn alarm_history(&mut self, history: AlarmHistory) {
        self.records.push(Record::Alarm(history));
    }
}

type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;
type Run = Box<dyn FnOnce(&mut Tx) -> Outcome + Send>;

/// How an update ended before it was durable.
pub(super) struct Outcome {
    keep: bool,
    finish: Finish,
}

pub(super) enum Job {
    Update(String, Run),
    Read(RecordQuery, oneshot::Sender<Result<Vec<(u64, Record)>, Error>>),
    ClearHistory(oneshot::Sender<Result<(), Error>>),
    Close(oneshot::Sender<()>),
}

impl Job {
    pub(super) fn update<T, E>(
        cause: String,
        change: impl FnOnce(&mut Tx) -> Result<T, E> + Send + 'static,
        reply: oneshot::Sender<Result<T, E>>,
    ) -> Job
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        // What the change causes hangs below its caller's span, though the writer runs it.
        let span = tracing::Span::current();
        Job::Update(
            cause,
            Box::new(move |tx| {
                // A panic must cost its own caller an error, not the writer its life.
                let result = catch_unwind(AssertUnwindSafe(|| span.in_scope(|| change(tx))))
                    .unwrap_or_else(|payload| Err(Error::Panicked(panic_text(payload)).into()));
                Outcome {
                    keep: result.is_ok(),
                    finish: Box::new(move |durable| {
                        answer(reply, durable.map_err(E::from).and(result));
                    }),
                }
            }),
        )
    }
}

/// A caller that has gone away wants no answer.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _ = reply.send(value);
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[derive(Default)]
pub(super) struct Counters {
    updates: AtomicU64,
    commits: AtomicU64,
    failed: AtomicU64,
    failing: AtomicBool,
    commit_us: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Stats {
        Stats {
            updates: self.updates.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            failed_commits: self.failed.load(Ordering::Relaxed),
            failing: self.failing.load(Ordering::Relaxed),
            commit_seconds: self.commit_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

pub(super) struct Writer {
    pub database: Database,
    pub clock: SharedClock,
    pub shared: Arc<Shared>,
    pub pool: Pool,
    /// In simulations only.
    pub fates: Option<Arc<dyn Fates>>,
    /// A simulated crash has struck: what is held here is never answered.
    pub grave: Option<Grave>,
}

#[derive(Default)]
pub(super) struct Grave {
    unanswered: Vec<Finish>,
    jobs: Vec<Job>,
}

impl Writer {
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut jobs, GROUP) > 0 {
            if let Some(closed) = self.take(&mut jobs) {
                return self.end(closed);
            }
        }
    }

    pub(super) async fn run_in_task(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP);
        while queue.recv_many(&mut jobs, GROUP).await > 0 {
            if let Some(closed) = self.take(&mut jobs) {
                return self.end(closed);
            }
            if self.grave.is_some() {
                // Callers of a dead process hear nothing, not even that it is closed: all is held until the task is aborted.
                return std::future::pending().await;
            }
        }
    }

    /// The directory's lock goes with the database, and the answer says that it has.
    fn end(self, closed: oneshot::Sender<()>) {
        drop(self);
        answer(closed, ());
    }

    /// Some: end, and then answer.
    fn take(&mut self, jobs: &mut Vec<Job>) -> Option<oneshot::Sender<()>> {
        let mut group = Vec::new();
        for job in jobs.drain(..) {
            if let Some(grave) = &mut self.grave {
                grave.jobs.push(job);
                continue;
            }
            match job {
                Job::Update(cause, run) => group.push((cause, run)),
                other => {
                    // Reads see what was asked for before them.
                    self.commit(std::mem::take(&mut group));
                    if let Some(grave) = &mut self.grave {
                        grave.jobs.push(other);
                    } else if let Some(closed) = self.other(other) {
                        return Some(closed);
                    }
                }
            }
        }
        self.commit(group);
        None
    }

    /// Some: end, and then answer.
    fn other(&mut self, job: Job) -> Option<oneshot::Sender<()>> {
        match job {
            Job::Read(query, reply) => answer(reply, self.database.records(&query)),
            Job::ClearHistory(reply) => answer(reply, self.database.clear_history()),
            Job::Close(reply) => {
                self.database.close();
                return Some(reply);
            }
            Job::Update(..) => unreachable!("updates are grouped by the caller"),
        }
        None
    }

    fn state(&self) -> Arc<State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, state: State) {
        *self.shared.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    fn commit(&mut self, group: Vec<(String, Run)>) {
        if group.is_empty() {
            return;
        }
        let (mut working, mut causes, mut changes, mut records) = ((*self.state()).clone(), Vec::new(), Vec::new(), Vec::new());
        let (revision, now) = (working.revision + 1, self.clock.now());
        let mut waiting = Vec::with_capacity(group.len());
        for (cause, run) in group {
            let (before, changed, recorded) = (working.clone(), changes.len(), records.len());
            let mut tx =
                Tx { state: &mut working, changes: &mut changes, records: &mut records, pool: &mut self.pool, revision, now };
            let outcome = run(&mut tx);
            if !outcome.keep {
                working = before;
                changes.truncate(changed);
                records.truncate(recorded);
            } else if changes.len() > changed || records.len() > recorded {
                causes.push(cause);
            }
            waiting.push(outcome.finish);
        }
        self.shared.stats.updates.fetch_add(waiting.len() as u64, Ordering::Relaxed);
        let durable =
            if changes.is_empty() && records.is_empty() { Ok(()) } else { self.write(working, causes, changes, records, now) };
        if let Some(grave) = &mut self.grave {
            return grave.unanswered.extend(waiting);
        }
        for finish in waiting {
            finish(durable.clone());
        }
    }

    fn write_as_fated(&mut self, commit: &Commit) -> Result<(), Error> {
        let Some(fates) = self.fates.clone() else { return self.database.write(commit) };
        let fate = fates.of(commit).refused()?;
        if fate != Fate::LostBefore {
            self.database.write(commit)?;
        }
        if fate != Fate::Written {
            self.grave = Some(Grave::default());
            fates.died();
        }
        Ok(())
    }

    fn write(
        &mut self,
        mut working: State,
        causes: Vec<String>,
        changes: Vec<Change>,
        records: Vec<Record>,
        at: Timestamp,
    ) -> Result<(), Error> {
        working.revision = self.state().revision + 1;
        let commit = Commit { revision: working.revision, at, causes, changes, records };
        let begun = Instant::now();
        let written = self.write_as_fated(&commit);
        self.shared.stats.commit_us.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        let counter = if written.is_ok() { &self.shared.stats.commits } else { &self.shared.stats.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.shared.stats.failing.store(written.is_err(), Ordering::Relaxed);
        written?;
        if self.grave.is_some() {
            return Ok(());
        }
        self.publish(working);
        // Nobody watching is fine.
        let _ = self.shared.watch.send(Arc::new(commit));
        Ok(())
    }
}
