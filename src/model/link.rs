//! What a control plane and an agent say to each other. The same messages go through a channel in one process and through a
//! WebSocket between two. Level-triggered: a message may be lost, repeated or overtaken without harm, as each says what is, not
//! what changed, and carries a number by which an older one is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::definition::{ContainerDefinition, NetworkMode, Volume};
use super::log::{LineBatch, ResumePoint};
use super::task::{Binding, Health, Resources};
use super::{ClusterName, ContainerName, DefinitionKey, InstanceId, Millis, ServiceName, TaskId, Timestamp};

/// The versions of the link that this build speaks. 1: every message is a text frame of JSON. 2: usage goes as binary frames that hold
/// what changed since the pass before (`frames`). Whoever speaks only one of them is still understood.
pub const LINK_OLDEST: u32 = 1;
pub const LINK_NEWEST: u32 = 2;

/// From agent to control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromAgent {
    /// The first message of a connection.
    Hello(Box<Hello>),
    /// How tasks stand; the newest per task counts.
    Status(Vec<TaskReport>),
    /// One pass of usage sampling.
    Usage(UsageBatch),
    /// Lines to store; answered by `ToAgent::LinesStored`.
    Lines(Vec<LineBatch>),
    /// Sent every few seconds whatever else is said, and when Docker went away or came back.
    Heartbeat {
        at: Timestamp,
        engine_up: bool,
        /// Of the last Assign or Update that was heard, so that one that was lost is known. None: none yet, or an old agent.
        #[serde(default)]
        generation: Option<u64>,
    },
}

/// From control plane to agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToAgent {
    /// The answer to Hello: who the agent is here.
    Welcome {
        instance: InstanceId,
        cluster: ClusterName,
        installation: String,
        region: String,
        account: String,
        /// The version that both speak from now on. 0: an old server, which speaks 1.
        #[serde(default)]
        link_version: u32,
    },
    /// Refused for good, with the reason; the agent gives up.
    Refused { why: String },
    /// Everything that the agent is to run: whatever else of ours runs there is stopped and removed.
    Assign { generation: u64, tasks: Vec<Arc<Assignment>>, resume: Vec<ResumePoint> },
    /// Changes to the last Assign or Update; `generation` is one more than that one's, else the agent asks anew by Hello.
    Update { generation: u64, put: Vec<Arc<Assignment>>, forget: Vec<TaskId> },
    /// Up to and without `next`, the lines of these sources are durable.
    LinesStored(Vec<ResumePoint>),
    /// A batch could not be stored: why, and the agent keeps the lines and tries again.
    LinesRefused {
        source: String,
        why: String,
        /// Nothing is wrong with these lines: the control plane cannot store any for now, as with a full disk.
        #[serde(default)]
        wait: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version that the agent speaks: a server of before there were two takes no other than its own.
    pub link_version: u32,
    /// The newest one. 0: an old agent, which speaks `link_version` only.
    #[serde(default)]
    pub link_newest: u32,
    /// Another number for each process: so two agents with one identity are told from one that connects again. Empty: an old agent.
    #[serde(default)]
    pub process: String,
    /// The id this agent was given before, if it remembers one.
    pub instance: Option<InstanceId>,
    pub cluster: ClusterName,
    pub agent_version: String,
    pub docker_version: String,
    pub host_name: String,
    pub host_address: String,
    pub registered: Resources,
    pub reserved_tcp_ports: Vec<u16>,
    pub attributes: BTreeMap<String, Option<String>>,
    /// The agent's clock, so that a skew can be seen.
    pub at: Timestamp,
}

impl Hello {
    /// The newest version that both speak; the sentence says what to do where there is none.
    pub fn common_version(&self) -> Result<u32, String> {
        let (oldest, newest) = (self.link_version, self.link_newest.max(self.link_version));
        let common = newest.min(LINK_NEWEST);
        if common >= oldest.max(LINK_OLDEST) {
            return Ok(common);
        }
        let older = if newest < LINK_OLDEST { "update the agent" } else { "update the server" };
        Err(format!(
            "this server speaks versions {LINK_OLDEST} to {LINK_NEWEST} of the agents' link and the agent {oldest} to {newest}: {older}"
        ))
    }
}

/// One task as an agent needs it: everything, so that it can go on without the control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub task: TaskId,
    pub cluster: ClusterName,
    pub service: Option<ServiceName>,
    pub group: String,
    pub definition: DefinitionKey,
    pub network_mode: NetworkMode,
    /// Task-level limits: CPU units and MiB.
    pub cpu: Option<u32>,
    pub memory: Option<u32>,
    /// Overrides already applied, in the task definition's order.
    pub containers: Vec<ContainerDefinition>,
    /// Parallel to `containers`: the last part of each container's ARN.
    pub container_uuids: Vec<String>,
    pub volumes: Vec<Volume>,
    pub pid_mode: Option<String>,
    pub ipc_mode: Option<String>,
    /// False: stop it.
    pub run: bool,
    pub trace: Option<String>,
}

/// How one task stands on its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    pub task: TaskId,
    /// In the assignment's order.
    pub containers: Vec<ContainerReport>,
    pub address: Option<String>,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
    /// Set when the agent itself decided that the task must end, and why.
    pub ending: Option<Ending>,
    /// Every container has ended and been dealt with: nothing of the task runs any more.
    pub finished: bool,
    pub at: Timestamp,
}

/// Why a task ends, as the agent saw it first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// An essential container exited.
    EssentialExited { container: ContainerName, at: Timestamp },
    /// Something could not be created, pulled or started: AWS's `CannotPullContainerError: ...` form.
    FailedToStart { error: String },
    /// The pause container of an awsvpc task ended, so its network is gone.
    PauseExited,
    /// The control plane asked.
    Asked,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerReport {
    pub name: ContainerName,
    pub phase: Phase,
    pub runtime_id: Option<String>,
    pub image_digest: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: Option<i32>,
    pub reason: Option<String>,
    pub health: Health,
    pub bindings: Vec<Binding>,
    /// The container's own address, where it has one: in bridge mode. An awsvpc task's is the task's.
    #[serde(default)]
    pub address: Option<String>,
    /// The Docker network that its agent was told to put tasks on; None on Docker's default bridge.
    #[serde(default)]
    pub network: Option<String>,
    pub restart_count: u32,
}

/// How far a container has come, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    #[default]
    Waiting,
    Pulling,
    Created,
    Running,
    Stopped,
}

/// One pass over an agent's containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageBatch {
    /// When the pass was made; the samples describe the time since the pass before.
    pub at: Timestamp,
    /// Shared, as whoever keeps the newest of a container need not copy it.
    pub samples: Vec<Arc<UsageSample>>,
    /// What the pass itself cost, in microseconds of CPU.
    pub cost_us: u64,
}

/// Counters are totals since the container started; what changed is computed by the reader.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageSample {
    pub task: Arc<str>,
    pub container: Arc<str>,
    pub runtime_id: Arc<str>,
    /// Docker's name of the container.
    #[serde(default)]
    pub runtime_name: Arc<str>,
    /// Since the container's last sample; 0 for its first, when no rate can be given.
    pub interval_ms: Millis,
    /// Cores used over the interval: 0.5 is half of one core.
    pub cpu_cores: f64,
    pub cpu_total_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub throttled_periods: u64,
    pub periods: u64,
    pub throttled_ns: u64,
    /// Usage without page cache, as the ECS agent counts it.
    pub memory_bytes: u64,
    pub memory_usage_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub memory_cache_bytes: u64,
    /// 0: no limit.
    pub memory_limit_bytes: u64,
    pub processes: u64,
    pub block_read_bytes: u64,
    pub block_write_bytes: u64,
    /// Only on the one container that stands for its network namespace, so that a sum counts it once.
    pub network: Option<NetworkTotals>,
    pub oom_events: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkTotals {
    pub receive_bytes: u64,
    pub receive_packets: u64,
    pub receive_errors: u64,
    pub receive_dropped: u64,
    pub transmit_bytes: u64,
    pub transmit_packets: u64,
    pub transmit_errors: u64,
    pub transmit_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        let hello = |oldest, newest| Hello {
            link_version: oldest,
            link_newest: newest,
            process: String::new(),
            instance: None,
            cluster: "c".into(),
            agent_version: String::new(),
            docker_version: String::new(),
            host_name: String::new(),
            host_address: String::new(),
            registered: Resources::default(),
            reserved_tcp_ports: vec![],
            attributes: BTreeMap::new(),
            at: Timestamp(0),
        };
        for (oldest, newest, common) in [(1, 0, 1), (1, 1, 1), (1, 2, 2), (1, 9, 2), (2, 2, 2), (2, 0, 2)] {
            assert_eq!(hello(oldest, newest).common_version(), Ok(common), "{oldest} to {newest}");
        }
        let refused = hello(3, 5).common_version().unwrap_err();
        assert!(refused.ends_with("the agent 3 to 5: update the server"), "{refused}");
        let refused = hello(0, 0).common_version().unwrap_err();
        assert!(refused.ends_with("the agent 0 to 0: update the agent"), "{refused}");
    }
}
