//! The one time of a simulation: the paused clock of its runtime. Timers and moments come from the same place, so they cannot drift
//! apart; time moves only when everything in the world waits for it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::model::Timestamp;

/// 2026-01-05T00:00:00Z.
const START: Timestamp = Timestamp(1_767_571_200_000);

pub struct SimClock {
    /// Threads that are not the runtime's own (the metrics' flusher) must see its time too.
    runtime: Handle,
    origin: Instant,
}

impl SimClock {
    /// Of the runtime that this is called in.
    pub fn start() -> Arc<SimClock> {
        Arc::new(SimClock { runtime: Handle::current(), origin: Instant::now() })
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let _inside = self.runtime.enter();
        START + self.origin.elapsed().as_millis() as i64
    }
}
