//! How many engine calls may be in flight at once. Measured on dockerd: starts with a network namespace of their own gain nothing
//! past four in flight, joined ones nothing past eight; removal waits for starts, as nobody waits for removal.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use std::sync::Arc;

use crate::model::definition::NetworkMode;

/// Removal gives way to starts no longer than this, so that a host that always starts something does not fill up.
const GIVE_WAY: Duration = Duration::from_secs(10);

pub struct Lanes {
    all_starts: Arc<Semaphore>,
    own_network: Arc<Semaphore>,
    creates: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
    stops: Arc<Semaphore>,
    removals: Arc<Semaphore>,
    starts_wanted: AtomicUsize,
    no_start_wanted: Notify,
}

impl Default for Lanes {
    fn default() -> Lanes {
        let lane = |permits| Arc::new(Semaphore::new(permits));
        Lanes {
            all_starts: lane(8),
            own_network: lane(4),
            creates: lane(8),
            pulls: lane(4),
            // A stop is a wait of up to its grace, not work.
            stops: lane(64),
            removals: lane(2),
            starts_wanted: AtomicUsize::new(0),
            no_start_wanted: Notify::new(),
        }
    }
}

/// Held while a call is in flight.
pub struct Pass<'a> {
    _permits: Vec<OwnedSemaphorePermit>,
    _start: Option<Wanted<'a>>,
}

struct Wanted<'a>(&'a Lanes);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        if self.0.starts_wanted.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.no_start_wanted.notify_waiters();
        }
    }
}

impl Lanes {
    /// `own_network`: the start makes a network namespace.
    pub async fn start(&self, own_network: bool) -> Pass<'_> {
        self.starts_wanted.fetch_add(1, Ordering::SeqCst);
        let wanted = Wanted(self);
        // The narrow lane first: whoever waits in it takes no place in the wide one.
        let mut permits = vec![];
        if own_network {
            permits.push(take(&self.own_network).await);
        }
        permits.push(take(&self.all_starts).await);
        Pass { _permits: permits, _start: Some(wanted) }
    }

    pub async fn create(&self) -> Pass<'_> {
        one(&self.creates).await
    }

    pub async fn pull(&self) -> Pass<'_> {
        one(&self.pulls).await
    }

    pub async fn stop(&self) -> Pass<'_> {
        one(&self.stops).await
    }

    pub async fn remove(&self) -> Pass<'_> {
        let pass = one(&self.removals).await;
        let quiet = async {
            loop {
                let notified = self.no_start_wanted.notified();
                if self.starts_wanted.load(Ordering::SeqCst) == 0 {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(GIVE_WAY, quiet).await;
        pass
    }
}

/// Whether a container of this network mode gets a namespace of its own when it starts.
pub fn makes_network(mode: NetworkMode) -> bool {
    matches!(mode, NetworkMode::Bridge | NetworkMode::None)
}

async fn one<'a>(lane: &Arc<Semaphore>) -> Pass<'a> {
    Pass { _permits: vec![take(lane).await], _start: None }
}

async fn take(lane: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    lane.clone().acquire_owned().await.expect("these semaphores are never closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn four_own_networks_eight_starts_and_removal_last() {
        let lanes = Lanes::default();
        let mut held = vec![];
        for _ in 0..4 {
            held.push(lanes.start(true).await);
        }
        let soon = Duration::from_millis(5);
        assert!(tokio::time::timeout(soon, lanes.start(true)).await.is_err());
        for _ in 0..4 {
            held.push(lanes.start(false).await);
        }
        assert!(tokio::time::timeout(soon, lanes.start(false)).await.is_err());
        assert!(tokio::time::timeout(soon, lanes.remove()).await.is_err());
        // Not for ever.
        assert!(tokio::time::timeout(GIVE_WAY * 2, lanes.remove()).await.is_ok());
        drop(held);
        assert!(tokio::time::timeout(soon, lanes.remove()).await.is_ok());
    }
}
