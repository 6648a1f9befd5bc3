//! One life of a simulated control plane: from opening its stores to its crash. The next life starts from the same directory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

use super::doom::Doom;
use crate::api::App;
use crate::app::{self, Config, Core, Loops};
use crate::clock::SharedClock;
use crate::control::agents::Hub;
use crate::ids::SharedIds;
use crate::model::link::{FromAgent, ToAgent};
use crate::store::{self, Commit, State, Store};
use crate::wire::Wire;

/// How often a directory is tried whose last owner may not have let go yet.
const OPEN_TRIES: u32 = 1_000;

pub struct Plane {
    pub app: Arc<App>,
    pub wire: Wire<App>,
    pub gate: Arc<Gate>,
    pub commits: broadcast::Receiver<Arc<Commit>>,
    loops: Loops,
    writer: AbortHandle,
}

/// Where agents come in.
pub struct Gate {
    hub: Arc<Hub>,
    sessions: Mutex<Vec<JoinHandle<()>>>,
}

impl Gate {
    pub fn admit(&self, to: mpsc::Sender<ToAgent>, mut from: mpsc::Receiver<FromAgent>) {
        let hub = self.hub.clone();
        let session = tokio::spawn(async move { hub.serve(to, &mut from).await });
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|s| !s.is_finished());
        sessions.push(session);
    }
}

impl Plane {
    /// `found` is shown what was on disk before anything ran.
    pub async fn start(
        config: Config,
        clock: SharedClock,
        ids: SharedIds,
        doom: Arc<Doom>,
        found: impl FnOnce(&State),
    ) -> anyhow::Result<Plane> {
        let (store, writer) = open(&config, &clock, &ids, &doom).await?;
        found(&store.snapshot());
        let commits = store.watch();
        let core = Core::with_store(config, store, false, clock, ids).await?;
        let loops = app::start_loops(&core).await?;
        let gate = Arc::new(Gate { hub: loops.hub.clone(), sessions: Mutex::default() });
        Ok(Plane { wire: app::make_wire(&core.app), app: core.app.clone(), gate, commits, loops, writer })
    }

    /// Everything stops where it is: nothing is flushed, closed or answered.
    pub async fn crash(self) {
        self.writer.abort();
        let sessions = std::mem::take(&mut *self.gate.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        for session in &sessions {
            session.abort();
        }
        self.loops.crash().await;
        for session in sessions {
            // An aborted one says so.
            let _ = session.await;
        }
        let (metrics, logs) = (Arc::downgrade(&self.app.metrics), Arc::downgrade(&self.app.logs));
        drop((self.app, self.wire, self.gate));
        // Threads of theirs may be at work just now, and a directory is free only when they are gone.
        let mut tries = 0;
        while metrics.strong_count() + logs.strong_count() > 0 && tries < OPEN_TRIES {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_micros(100));
            tries += 1;
        }
    }
}

async fn open(
    config: &Config,
    clock: &SharedClock,
    ids: &SharedIds,
    doom: &Arc<Doom>,
) -> Result<(Store, AbortHandle), store::Error> {
    let installation = ids.instance();
    let mut tries = 1;
    loop {
        match Store::open_in_task(config.data_dir.as_deref(), clock.clone(), installation.as_str(), doom.clone()) {
            Err(store::Error::InUse(_)) if tries < OPEN_TRIES => tokio::task::yield_now().await,
            opened => return opened,
        }
        tries += 1;
    }
}
