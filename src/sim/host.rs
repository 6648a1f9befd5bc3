//! A simulated container instance: an engine that outlives its agent, the agent itself, a time of day of its own, and the wire to
//! the control plane.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clock::{SimClock, WallClock};
use super::plane::Gate;
use super::wire::{self, Wire};
use crate::agent::config::AgentConfig;
use crate::agent::engine::ObservedState;
use crate::agent::link;
use crate::agent::runtime;
use crate::agent::simulated::{SimulatedEngine, SimulatedHost};
use crate::clock::Clock;
use crate::model::task::Resources;
use crate::model::{InstanceId, Millis, TaskId};

pub struct Host {
    pub engine: Arc<SimulatedEngine>,
    pub zone: String,
    pub wire: watch::Sender<Wire>,
    /// The control plane that runs. One for each host: whom a watch wakes first is left to chance when several wait for it.
    pub gate: watch::Sender<Option<Arc<Gate>>>,
    clock: Arc<WallClock>,
    cluster: String,
    /// The agent's id, which outlives it as its file does: an agent makes one before it first says anything.
    instance: watch::Sender<Option<InstanceId>>,
    agent: Option<(CancellationToken, JoinHandle<Result<(), runtime::Ended>>)>,
}

impl Host {
    /// `generation`: how many hosts stood in this place before.
    pub fn new(number: usize, generation: u32, zone: String, resources: Resources, cluster: &str, time: &Arc<SimClock>) -> Host {
        let clock = WallClock::new(time.clone());
        let host = SimulatedHost {
            name: format!("host-{number}{}", "'".repeat(generation as usize)),
            address: format!("10.{}.{}.{}", generation % 250, number / 250, number % 250 + 1),
            resources,
        };
        Host {
            engine: SimulatedEngine::new(host, clock.clone()),
            zone,
            wire: watch::Sender::new(Wire::Up),
            gate: watch::Sender::new(None),
            clock,
            cluster: cluster.to_owned(),
            instance: watch::Sender::new(Some(InstanceId::new(format!("{:016x}{:016x}", generation + 1, number + 1)))),
            agent: None,
        }
    }

    pub fn instance(&self) -> Option<InstanceId> {
        self.instance.borrow().clone()
    }

    /// Brings the engine up to the present, as its own clock tells it.
    pub fn tick(&self) {
        self.engine.tick(self.clock.now());
    }

    pub fn set_clock(&self, ms: Millis) {
        self.clock.jump(ms);
        self.engine.clock_jumped(ms);
    }

    pub fn running(&self) -> impl Iterator<Item = (TaskId, String, String)> {
        let running = self.engine.containers().into_iter().filter(|o| o.state == ObservedState::Running);
        running.map(|o| (o.task, o.container.to_string(), o.runtime_id))
    }

    pub fn start_agent(&mut self) {
        let config = AgentConfig {
            zone: Some(self.zone.clone()),
            instance: self.instance(),
            welcomed: Some(self.instance.clone()),
            ..AgentConfig::new(self.cluster.as_str())
        };
        let (link, far) = link::pair(wire::DEPTH);
        far.connection.send_replace(0);
        tokio::spawn(wire::carry(far, self.gate.subscribe(), self.wire.subscribe()));
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
