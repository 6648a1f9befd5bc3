//! The one time of a simulation: the paused clock of its runtime. Timers and moments come from the same place, so they cannot drift
//! apart; time moves only when everything in the world waits for it. What a control plane or a host takes for the time of day may
//! be off, and may jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::model::{Millis, Timestamp};

/// 2026-01-05T00:00:00Z.
pub const START: Timestamp = Timestamp(1_767_571_200_000);

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

/// A machine's time of day: the world's time, and by how much it is off.
pub struct WallClock {
    world: Arc<SimClock>,
    ahead: AtomicI64,
}

impl WallClock {
    pub fn new(world: Arc<SimClock>) -> Arc<WallClock> {
        Arc::new(WallClock { world, ahead: AtomicI64::new(0) })
    }

    /// Somebody sets it, forward or back.
    pub fn jump(&self, ms: Millis) {
        self.ahead.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn ahead(&self) -> Millis {
        self.ahead.load(Ordering::SeqCst)
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        self.world.now() + self.ahead()
    }
}
