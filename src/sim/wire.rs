//! The wire between an agent and the control plane: whole, cut, silent, or bad: it loses single messages, gives them twice, late or
//! in another order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::plane::Gate;
use crate::agent::link::FarEnd;
use crate::model::link::{FromAgent, ToAgent};

/// Messages under way in each direction.
pub const DEPTH: usize = 256;
/// As the agent's own: a connection on which nothing is heard is dead, and another is tried after a moment.
const SILENCE: Duration = Duration::from_secs(15);
const RECONNECT: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    Up,
    /// Broken, and both ends know.
    Cut,
    /// Nothing arrives any more, and nobody is told.
    Silent,
    Bad(Bad),
}

/// What a bad wire does to messages, in percent of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    pub lose: u8,
    pub twice: u8,
    /// So many arrive late, by up to `late_ms`: others overtake them.
    pub late: u8,
    pub late_ms: u32,
    /// All of them are so slow.
    pub slow_ms: u32,
    pub seed: u64,
}

/// What of one direction is under way on a bad wire.
struct Flight<T> {
    bad: Bad,
    random: StdRng,
    due: BTreeMap<(Instant, u64), T>,
    count: u64,
}

impl<T: Clone> Flight<T> {
    fn new(bad: Bad, direction: u64) -> Flight<T> {
        Flight { bad, random: StdRng::seed_from_u64(bad.seed ^ direction), due: BTreeMap::new(), count: 0 }
    }

    fn send(&mut self, message: T) {
        let (bad, random) = (self.bad, &mut self.random);
        let mut chance = |percent: u8| random.random_range(0..100) < percent;
        let (lost, twice, late) = (chance(bad.lose), chance(bad.twice), chance(bad.late));
        if lost {
            return;
        }
        for copy in 0..=u64::from(twice) {
            let late = late || copy > 0;
            let extra = if late && bad.late_ms > 0 { self.random.random_range(0..=bad.late_ms) } else { 0 };
            self.count += 1;
            let at = Instant::now() + Duration::from_millis(u64::from(bad.slow_ms + extra));
            self.due.insert((at, self.count), message.clone());
        }
    }

    /// Pends while nothing is under way.
    async fn arrive(&mut self) -> T {
        let Some(at) = self.due.first_key_value().map(|((at, _), _)| *at) else { return std::future::pending().await };
        tokio::time::sleep_until(at).await;
        match self.due.pop_first() {
            Some((_, message)) => message,
            None => std::future::pending().await,
        }
    }

    /// Nothing is wrong, and nothing is under way that could be overtaken.
    fn passes(&self) -> bool {
        self.bad == Bad::default() && self.due.is_empty()
    }

    fn is_full(&self) -> bool {
        self.due.len() >= DEPTH
    }
}

/// What `agent::link` does over a socket: connections to whatever control plane there is, one after the other.
pub async fn carry(mut far: FarEnd, mut gate: watch::Receiver<Option<Arc<Gate>>>, mut wire: watch::Receiver<Wire>) {
    let mut number = 0;
    while !far.to.is_closed() {
        let up = !matches!(*wire.borrow_and_update(), Wire::Cut | Wire::Silent);
        let open = gate.borrow_and_update().clone().filter(|_| up);
        if let Some(open) = open {
            number += 1;
            far.connection.send_replace(number);
            converse(open, &mut far, &mut gate, &mut wire).await;
            far.connection.send_replace(0);
        }
        let _ = tokio::time::timeout(RECONNECT, discard(&mut far)).await;
    }
}

/// Nobody reads while there is no connection. Returns only when the agent is gone.
async fn discard(far: &mut FarEnd) {
    while far.from.recv().await.is_some() {}
}

fn flights(wire: Wire) -> (Flight<FromAgent>, Flight<ToAgent>) {
    let bad = match wire {
        Wire::Bad(bad) => bad,
        _ => Bad::default(),
    };
    (Flight::new(bad, 1), Flight::new(bad, 2))
}

async fn converse(
    open: Arc<Gate>,
    far: &mut FarEnd,
    gate: &mut watch::Receiver<Option<Arc<Gate>>>,
    wire: &mut watch::Receiver<Wire>,
) {
    let (to_agent, mut from_control) = mpsc::channel::<ToAgent>(DEPTH);
    let (to_control, from_agent) = mpsc::channel::<FromAgent>(DEPTH);
    open.admit(to_agent, from_agent);
    // A wire holds nothing of a control plane that may be gone before it is.
    drop(open);
    let (mut up, mut down) = flights(*wire.borrow());
    let mut introduced = false;
    loop {
        tokio::select! {
            biased;
            _ = gate.changed() => return,
            _ = wire.changed() => {
                let how = *wire.borrow_and_update();
                match how {
                    // What is under way arrives as it would have.
                    Wire::Up => (up.bad, down.bad) = (Bad::default(), Bad::default()),
                    Wire::Bad(bad) => (up.bad, down.bad) = (bad, bad),
                    Wire::Cut => return,
                    // The session hears no end of it: its side of the channels lives as long as it likes.
                    Wire::Silent => return go_silent(far, to_control, from_control).await,
                }
            }
            message = up.arrive() => {
                if to_control.send(message).await.is_err() {
                    return;
                }
            }
            message = down.arrive() => {
                if far.to.send(message).await.is_err() {
                    return;
                }
            }
            message = far.from.recv(), if !up.is_full() => {
                let Some(message) = message else { return };
                // What is left from an earlier connection does not go before this one's Hello.
                introduced |= matches!(message, FromAgent::Hello(_));
                if introduced && !up.passes() {
                    up.send(message);
                } else if introduced && to_control.send(message).await.is_err() {
                    return;
                }
            }
            message = from_control.recv(), if !down.is_full() => {
                let Some(message) = message else { return };
                if !down.passes() {
                    down.send(message);
                } else if far.to.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Both ends find out by themselves, each in its own time.
async fn go_silent(far: &mut FarEnd, to_control: mpsc::Sender<FromAgent>, mut from_control: mpsc::Receiver<ToAgent>) {
    tokio::spawn(async move {
        while from_control.recv().await.is_some() {}
        drop(to_control);
    });
    let _ = tokio::time::timeout(SILENCE, discard(far)).await;
}
