//! One task that looks at every commit and tells the sessions whom it concerns, by instance: what a commit costs grows with what it
//! changes, not with the number of agents. It also sees which agents have fallen silent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Hub;
use crate::model::TaskId;
use crate::observe;
use crate::store::{Change, Commit, State};

/// Tasks of which a session may be told that they changed before it is told to look at all of its own.
const MOST_NEWS: usize = 4_096;
/// How often it is looked who has fallen silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the metrics of services and clusters may be held back, so that many agents' samples are put together.
const HOLD: Duration = Duration::from_millis(100);

/// What others know of a session.
pub(super) struct Seat {
    /// Its agent's process, empty for an old agent.
    pub process: String,
    pub host: String,
    pub mail: Mailbox,
    pub over: CancellationToken,
    /// The agent's words are being dealt with: meanwhile nothing is read, which is no silence of its.
    pub busy: AtomicBool,
    began: Instant,
    /// When the agent last spoke, in milliseconds since `began`.
    heard: AtomicU64,
}

impl Seat {
    pub fn new(process: &str, host: &str, over: CancellationToken) -> Seat {
        Seat {
            process: process.to_owned(),
            host: host.to_owned(),
            mail: Mailbox::default(),
            over,
            // Registering it may take a while, and is not its silence either.
            busy: AtomicBool::new(true),
            began: Instant::now(),
            heard: AtomicU64::new(0),
        }
    }

    /// The agent has spoken.
    pub fn hear(&self) {
        self.heard.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub fn heard_at(&self) -> Instant {
        self.began + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    fn is_silent(&self, silence: Duration) -> bool {
        !self.busy.load(Ordering::Relaxed) && self.heard_at().elapsed() >= silence
    }
}

/// Which of its tasks a session is to look at again. A session that is slow finds them once, however often they changed.
#[derive(Default)]
pub(super) struct Mailbox {
    news: Mutex<News>,
    some: Notify,
}

#[derive(Default)]
struct News {
    tasks: Vec<TaskId>,
    all: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, task: &TaskId) {
        {
            let mut news = self.lock();
            if news.all {
                return;
            }
            if news.tasks.len() >= MOST_NEWS {
                *news = News { tasks: Vec::new(), all: true };
                observe::session_resynced();
            } else {
                news.tasks.push(task.clone());
            }
        }
        self.some.notify_one();
    }

    fn look_at_all(&self) {
        *self.lock() = News { tasks: Vec::new(), all: true };
        self.some.notify_one();
    }

    pub async fn come(&self) {
        self.some.notified().await;
    }

    /// None: everything is to be looked at.
    pub fn take(&self) -> Option<Vec<TaskId>> {
        let news = std::mem::take(&mut *self.lock());
        (!news.all).then_some(news.tasks)
    }
}

impl Hub {
    /// Runs until `stop`; without it no session hears of anything.
    pub async fn dispatch(self: Arc<Hub>) {
        let store = self.control.store.clone();
        let mut watch = store.watch();
        let mut before = store.snapshot();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flush_at: Option<Instant> = None;
        // In this order each time, so that in a simulation the seed alone decides.
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                commit = watch.recv() => {
                    match commit {
                        Ok(commit) => self.route(&commit, &before),
                        Err(RecvError::Lagged(_)) => {
                            observe::dispatcher_lagged();
                            self.everybody_looks();
                        }
                        Err(RecvError::Closed) => return,
                    }
                    before = store.snapshot();
                }
                () = tokio::time::sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => {
                    flush_at = None;
                    self.control.ingest.flush();
                }
                () = self.control.ingest.holds_back(), if flush_at.is_none() => flush_at = Some(Instant::now() + HOLD),
                _ = look.tick() => self.end_the_silent(),
            }
        }
    }

    /// `before` is a snapshot of before the commit, or of later.
    fn route(&self, commit: &Commit, before: &State) {
        let sessions = self.lock();
        for change in &commit.changes {
            match change {
                Change::Task(id, Some(task)) => {
                    if let Some(seat) = sessions.get(&task.instance) {
                        seat.mail.changed(id);
                    }
                }
                // Tasks are deleted long after they stopped, and then nobody is told; only a reset deletes some that run.
                Change::Task(id, None) => match before.tasks.get(id) {
                    Some(task) if task.is_stopped() => {}
                    Some(task) => {
                        if let Some(seat) = sessions.get(&task.instance) {
                            seat.mail.changed(id);
                        }
                    }
                    None if before.revision < commit.revision => {}
                    None => sessions.values().for_each(|seat| seat.mail.look_at_all()),
                },
                Change::Instance(id, None) => self.control.ingest.forget_instance(id),
                _ => {}
            }
        }
    }

    fn everybody_looks(&self) {
        self.lock().values().for_each(|seat| seat.mail.look_at_all());
    }

    /// Only the agents' own words count. One look at all of them, in place of a timer for each.
    fn end_the_silent(&self) {
        let silence = self.silence();
        for (instance, seat) in self.lock().iter().filter(|(_, seat)| seat.is_silent(silence)) {
            tracing::warn!(%instance, host = seat.host, "the agent has said nothing for {} s; its connection is ended", silence.as_secs());
            seat.over.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_session_finds_each_news_once_and_too_many_as_one() {
        let mail = Mailbox::default();
        let name = |n: usize| TaskId::new(format!("t{n}"));
        (0..3).for_each(|n| mail.changed(&name(n)));
        mail.come().await;
        assert_eq!(mail.take(), Some((0..3).map(name).collect()));
        assert_eq!(mail.take(), Some(vec![]));
        (0..=MOST_NEWS + 1).for_each(|n| mail.changed(&name(n)));
        mail.come().await;
        assert_eq!(mail.take(), None, "more than it may hold: look at everything");
        mail.changed(&name(1));
        assert_eq!(mail.take(), Some(vec![name(1)]));
        mail.look_at_all();
        mail.changed(&name(1));
        assert_eq!(mail.take(), None);
    }
}
