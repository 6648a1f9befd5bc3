//! What can go wrong, and how a seed chooses.

use rand::RngExt;
use rand::rngs::StdRng;

use super::host::Wire;
use super::world::World;
use crate::model::Millis;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Some containers of a host die.
    Kill {
        host: usize,
        containers: u32,
    },
    /// The agent's process ends and comes back.
    Agent {
        host: usize,
        ms: Millis,
    },
    Wire {
        host: usize,
        how: Wire,
        ms: Millis,
    },
    /// The container engine cannot be reached, and may have taken its containers along.
    Engine {
        host: usize,
        killing: bool,
        ms: Millis,
    },
    /// The control plane dies and comes back.
    Crash {
        ms: Millis,
    },
}

/// Longer than an instance may be out of reach before its tasks are replaced: one fault in eight is so long.
const LONG_MS: Millis = 80_000;

impl Fault {
    pub fn random(world: &mut World) -> Fault {
        let can_crash = world.can_crash();
        let host = world.random.random_range(0..world.hosts.len());
        let random = &mut world.random;
        let ms = if random.random_range(0..8) == 0 { LONG_MS } else { random.random_range(0..10_000) };
        // What is only in memory cannot survive a crash, so there is none.
        match random.random_range(0..if can_crash { 8 } else { 7 }) {
            0 | 1 => Fault::Kill { host, containers: random.random_range(1..4) },
            2 | 3 => Fault::Agent { host, ms: ms.min(20_000) },
            4 => Fault::Wire { host, how: Wire::Cut, ms },
            5 => Fault::Wire { host, how: Wire::Silent, ms },
            6 => Fault::Engine { host, killing: random.random(), ms: ms.min(20_000) },
            _ => Fault::Crash { ms: ms.min(5_000) },
        }
    }

    pub async fn strike(self, world: &mut World) {
        match self {
            Fault::Kill { host, containers } => (0..containers).for_each(|_| world.kill_container(host)),
            Fault::Agent { host, ms } => world.restart_agent(host, ms).await,
            Fault::Wire { host, how, ms } => world.break_wire(host, how, ms),
            Fault::Engine { host, killing, ms } => world.break_engine(host, killing, ms),
            Fault::Crash { ms } => world.crash(ms).await,
        }
    }
}

/// How a container behaves: quick, slow to pull or to start, deaf to SIGTERM, some with lines to tell.
pub fn random_behaviour(random: &mut StdRng) -> &'static str {
    let behaviours = ["ok", "start@700ms", "pull@2s", "stubborn", "start@3s", "start@200ms+stubborn", "log:3+start@100ms"];
    behaviours[random.random_range(0..behaviours.len())]
}
