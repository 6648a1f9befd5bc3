//! What an agent is told at its start, and what it counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;

use crate::model::{ClusterName, InstanceId};

pub struct AgentConfig {
    pub cluster: ClusterName,
    pub zone: Option<String>,
    /// Added to what the engine says of its host.
    pub attributes: BTreeMap<String, Option<String>>,
    /// The id this agent was given before.
    pub instance: Option<InstanceId>,
    /// Host ports that no task gets.
    pub reserved_tcp_ports: Vec<u16>,
    pub agent_version: String,
    /// Told in Hello, so that two agents with one identity are told from one that connects again. Empty: not told.
    pub process: String,
    /// Where the containers' own telemetry goes.
    pub otlp_endpoint: Option<String>,
    /// Told the instance's id at every welcome, to be remembered for the next start.
    pub welcomed: Option<watch::Sender<Option<InstanceId>>>,
    pub counters: Arc<Counters>,
}

impl AgentConfig {
    pub fn new(cluster: impl Into<ClusterName>) -> AgentConfig {
        AgentConfig {
            cluster: cluster.into(),
            zone: None,
            attributes: BTreeMap::new(),
            instance: None,
            // ssh, the Docker API and the ECS agent's own (ECS_RESERVED_PORTS).
            reserved_tcp_ports: vec![22, 2375, 2376, 51678, 51679],
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            process: String::new(),
            otlp_endpoint: None,
            welcomed: None,
            counters: Arc::default(),
        }
    }
}

/// What was lost at a bound.
#[derive(Debug, Default)]
pub struct Counters {
    /// Passes of usage that the link could not take.
    pub usage_dropped: AtomicU64,
    /// Lines let go because the control plane refused them for too long.
    pub lines_lost: AtomicU64,
}
