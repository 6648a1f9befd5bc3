//! A container instance: one agent on one Docker host.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::tag::Tag;
use super::task::Resources;
use super::{ClusterName, InstanceId, Timestamp};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub cluster: ClusterName,
    pub status: InstanceStatus,
    pub agent_connected: bool,
    /// When the connection was last seen to break; None while connected.
    pub disconnected_at: Option<Timestamp>,
    /// Since when the agent is there but cannot reach its Docker: what runs there is taken to run on, and its health is not known.
    #[serde(default)]
    pub engine_away_since: Option<Timestamp>,
    pub registered: Resources,
    /// Reserved by the host itself (22, 2375, ...), never given to a task.
    pub reserved_tcp_ports: Vec<u16>,
    pub attributes: BTreeMap<String, Option<String>>,
    pub agent_version: String,
    pub docker_version: String,
    pub host_name: String,
    /// Where a bridge task's host ports can be reached.
    pub host_address: String,
    pub tags: Vec<Tag>,
    pub registered_at: Timestamp,
    pub version: u64,
}

impl Instance {
    /// Whether somebody is looking after its tasks right now.
    pub fn is_in_sight(&self) -> bool {
        self.agent_connected && self.engine_away_since.is_none()
    }

    pub fn zone(&self) -> &str {
        self.attributes.get("ecs.availability-zone").and_then(|z| z.as_deref()).unwrap_or("")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InstanceStatus {
    Active,
    Draining,
    Inactive,
}

impl InstanceStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceStatus::Active => "ACTIVE",
            InstanceStatus::Draining => "DRAINING",
            InstanceStatus::Inactive => "INACTIVE",
        }
    }
}

/// What an instance's tasks take of it now: kept up by the store on every change, never computed by a scan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    pub cpu: u32,
    pub memory: u32,
    pub tcp_ports: std::collections::BTreeSet<u16>,
    pub udp_ports: std::collections::BTreeSet<u16>,
    /// Tasks that have not stopped.
    pub tasks: u32,
    /// Of these, those with desired status RUNNING, by task group.
    pub groups: OrdMap<Arc<str>, u32>,
}

/// What the instances of a cluster that are not INACTIVE have in all: kept up by the store on every change, as [`Load`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    pub instances: u32,
    pub cpu: u64,
    pub memory: u64,
}

impl Capacity {
    pub fn enter(&mut self, instance: &Instance) {
        if instance.status != InstanceStatus::Inactive {
            self.instances += 1;
            self.cpu += u64::from(instance.registered.cpu);
            self.memory += u64::from(instance.registered.memory);
        }
    }

    /// As it was when it entered.
    pub fn leave(&mut self, instance: &Instance) {
        if instance.status != InstanceStatus::Inactive {
            self.instances -= 1;
            self.cpu -= u64::from(instance.registered.cpu);
            self.memory -= u64::from(instance.registered.memory);
        }
    }
}
