//! The seam to a container engine: a dozen calls in our own types and three merged streams. [`super::docker`] is the real one,
//! [`super::simulated`] serves thousands of containers from one timer.

use std::collections::BTreeMap;
use std::future::Future;

use tokio::sync::mpsc;

use crate::model::definition::{ContainerDefinition, NetworkMode, Volume};
use crate::model::link::UsageBatch;
use crate::model::log::{LineBatch, LogTarget, ResumePoint};
use crate::model::task::{Binding, Health, Resources};
use crate::model::{ContainerName, DefinitionKey, Millis, TaskId, Timestamp};

pub type RuntimeId = String;

/// An error an engine answers with. `name` is the ECS agent's (`CannotPullContainerError`), so that a container's reason reads as on AWS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {text}")]
pub struct EngineError {
    pub name: &'static str,
    pub text: String,
    /// The engine could not be asked: try again, this is not the container's fault.
    pub unreachable: bool,
}

pub struct EngineInfo {
    pub version: String,
    pub host_name: String,
    /// Where bridge tasks' host ports can be reached from this host.
    pub host_address: String,
    pub resources: Resources,
    pub attributes: BTreeMap<String, Option<String>>,
}

/// One container to create. Everything is resolved: the engine adds nothing of its own choosing but the host's facts.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    pub task: TaskId,
    pub cluster: String,
    pub service: Option<String>,
    pub definition: DefinitionKey,
    pub network_mode: NetworkMode,
    pub container: ContainerDefinition,
    pub container_uuid: String,
    pub volumes: Vec<Volume>,
    /// Join this container's network namespace (awsvpc: the pause container).
    pub join_network: Option<RuntimeId>,
    /// The task's containers that exist already, for volumesFrom and pid or ipc sharing.
    pub siblings: BTreeMap<String, RuntimeId>,
    pub pid_mode: Option<String>,
    pub ipc_mode: Option<String>,
    /// Task-level CPU units and MiB, enforced on a parent cgroup where the engine can.
    pub task_cpu: Option<u32>,
    pub task_memory: Option<u32>,
    /// Where `awslogs` lines go; None for another driver.
    pub log_target: Option<LogTarget>,
    /// Added to the container's environment (metadata, OTLP endpoint), where the task definition does not say otherwise.
    pub environment: Vec<(String, String)>,
}

/// A container as the engine sees it; labels say whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub runtime_id: RuntimeId,
    pub task: TaskId,
    /// `~internal~ecs~pause` for a task's pause container.
    pub container: ContainerName,
    pub container_uuid: String,
    pub state: ObservedState,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
    pub health: Health,
    pub bindings: Vec<Binding>,
    pub address: Option<String>,
    /// The task network that `address` is on, if it is not the engine's default.
    pub network: Option<String>,
    pub image_digest: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedState {
    Created,
    Running,
    Exited,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    pub digest: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    pub at: Timestamp,
    pub bindings: Vec<Binding>,
    pub address: Option<String>,
    /// The task network that `address` is on, if it is not the engine's default.
    pub network: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// A container's process ended.
    Died {
        runtime_id: RuntimeId,
        task: TaskId,
        container: ContainerName,
        exit_code: Option<i32>,
        oom_killed: bool,
        at: Timestamp,
    },
    Health {
        runtime_id: RuntimeId,
        task: TaskId,
        container: ContainerName,
        health: Health,
    },
    /// The engine cannot be reached: deaths seen just before are not the containers' own until `Back` and a list confirm them.
    Away {
        why: String,
    },
    /// It can be reached again: list and compare.
    Back,
}

/// The streams end when the engine is dropped. All three are bounded; usage that nobody takes is dropped and counted, lines never are.
pub struct Streams {
    pub events: mpsc::Receiver<EngineEvent>,
    pub usage: mpsc::Receiver<UsageBatch>,
    pub lines: mpsc::Receiver<LineBatch>,
}

pub trait Engine: Send + Sync + 'static {
    fn info(&self) -> impl Future<Output = Result<EngineInfo, EngineError>> + Send;
    /// Starts watching; called once.
    fn streams(&self) -> Streams;
    /// Every container of this installation, running or not.
    fn list(&self) -> impl Future<Output = Result<Vec<Observed>, EngineError>> + Send;
    /// Makes sure that the image is there. Present: not pulled again.
    fn pull(&self, image: &str) -> impl Future<Output = Result<Pulled, EngineError>> + Send;
    fn create(&self, spec: &ContainerSpec) -> impl Future<Output = Result<RuntimeId, EngineError>> + Send;
    /// Returns when the process runs.
    fn start(&self, id: &str) -> impl Future<Output = Result<Started, EngineError>> + Send;
    /// The image's stop signal, then SIGKILL after `grace_ms`. Returns when the process has ended; an ended one is no error.
    fn stop(&self, id: &str, grace_ms: Millis) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Removes an ended container after its last line was read. One that is not there is no error.
    fn remove(&self, id: &str) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// A pause container for an awsvpc task, running, with its own address; warm ones are taken first.
    fn pause(&self, task: &TaskId, cluster: &str) -> impl Future<Output = Result<(RuntimeId, Started), EngineError>> + Send;
    /// Removes what belongs to the task as a whole (cgroup, scratch volumes) once its containers are gone.
    fn clean_up(&self, task: &TaskId) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// From where to go on reading lines of containers that run already: said once, before they are listed.
    fn resume_lines(&self, from: Vec<ResumePoint>);
    /// Lines up to here are durable and may be forgotten.
    fn lines_stored(&self, upto: &[ResumePoint]);
}
