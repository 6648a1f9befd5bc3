//! A simulated container instance: an engine that outlives its agent, the agent itself, and the wire between agent and control
//! plane, which can be cut or go silent.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::plane::Gate;
use crate::agent::config::AgentConfig;
use crate::agent::link::{self, FarEnd};
use crate::agent::runtime;
use crate::agent::simulated::{SimulatedEngine, SimulatedHost};
use crate::clock::SharedClock;
use crate::model::InstanceId;
use crate::model::link::{FromAgent, ToAgent};
use crate::model::task::Resources;

/// Messages under way in each direction.
const DEPTH: usize = 256;
/// As the agent's own: a connection on which nothing is heard is dead, and another is tried after a moment.
const SILENCE: Duration = Duration::from_secs(15);
const RECONNECT: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Up,
    /// Broken, and both ends know.
    Cut,
    /// Nothing arrives any more, and nobody is told.
    Silent,
}

pub struct Host {
    pub engine: Arc<SimulatedEngine>,
    pub zone: String,
    pub wire: watch::Sender<Wire>,
    clock: SharedClock,
    cluster: String,
    /// The id that the agent was given, which outlives it as its file does.
    instance: watch::Sender<Option<InstanceId>>,
    agent: Option<(CancellationToken, JoinHandle<Result<(), runtime::Ended>>)>,
}

impl Host {
    pub fn new(number: usize, zone: String, resources: Resources, cluster: &str, clock: SharedClock) -> Host {
        let host = SimulatedHost {
            name: format!("host-{number}"),
            address: format!("10.0.{}.{}", number / 250, number % 250 + 1),
            resources,
        };
        Host {
            engine: SimulatedEngine::new(host, clock.clone()),
            zone,
            wire: watch::Sender::new(Wire::Up),
            clock,
            cluster: cluster.to_owned(),
            instance: watch::Sender::new(None),
            agent: None,
        }
    }

    pub fn instance(&self) -> Option<InstanceId> {
        self.instance.borrow().clone()
    }

    pub fn start_agent(&mut self, gate: watch::Receiver<Option<Arc<Gate>>>) {
        let config = AgentConfig {
            zone: Some(self.zone.clone()),
            instance: self.instance(),
            welcomed: Some(self.instance.clone()),
            ..AgentConfig::new(self.cluster.as_str())
        };
        let (link, far) = link::pair(DEPTH);
        far.connection.send_replace(0);
        tokio::spawn(carry(far, gate, self.wire.subscribe()));
        let stop = CancellationToken::new();
        let agent = tokio::spawn(runtime::run(self.engine.clone(), link, self.clock.clone(), config, stop.clone()));
        self.agent = Some((stop, agent));
    }

    /// The agent's process ends; its containers run on.
    pub async fn stop_agent(&mut self) {
        if let Some((stop, agent)) = self.agent.take() {
            stop.cancel();
            let _ = agent.await;
        }
    }

    /// An agent that gave up by itself, and why.
    pub fn gave_up(&self) -> bool {
        self.agent.as_ref().is_some_and(|(_, agent)| agent.is_finished())
    }
}

/// What `agent::link` does over a socket: connections to whatever control plane there is, one after the other.
async fn carry(mut far: FarEnd, mut gate: watch::Receiver<Option<Arc<Gate>>>, mut wire: watch::Receiver<Wire>) {
    let mut number = 0;
    while !far.to.is_closed() {
        let up = *wire.borrow_and_update() == Wire::Up;
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
    let mut introduced = false;
    loop {
        tokio::select! {
            biased;
            _ = gate.changed() => return,
            _ = wire.changed() => {
                let how = *wire.borrow_and_update();
                match how {
                    Wire::Up => {}
                    Wire::Cut => return,
                    // The session hears no end of it: its side of the channels lives as long as it likes.
                    Wire::Silent => return go_silent(far, to_control, from_control).await,
                }
            }
            message = far.from.recv() => {
                let Some(message) = message else { return };
                // What is left from an earlier connection does not go before this one's Hello.
                introduced |= matches!(message, FromAgent::Hello(_));
                if introduced && to_control.send(message).await.is_err() {
                    return;
                }
            }
            message = from_control.recv() => {
                let Some(message) = message else { return };
                if far.to.send(message).await.is_err() {
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
