//! A task: one run of a task definition on one container instance, and what is known of its containers.
//!
//! There may be a million of them in memory, so a [`Task`] is small: what all tasks of one launch have in common is one shared
//! [`Origin`], and texts that many tasks repeat are shared too ([`Task::each_shared_text`]).

mod row;

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::definition::KeyValue;
use super::tag::Tag;
use super::{
    ClusterName, ContainerName, DefinitionKey, DeploymentId, HexText, InstanceId, ServiceKey, ServiceName, TaskId, Timestamp,
};

/// Reads as if the members of its [`Origin`] were its own: `task.cluster`, `task.group`. Writing one makes an origin of its own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "row::Row")]
pub struct Task {
    pub id: TaskId,
    pub origin: Arc<Origin>,
    pub instance: InstanceId,
    pub last_status: TaskStatus,
    /// Only ever Running or Stopped.
    pub desired_status: TaskStatus,
    pub health: Health,
    pub stop_code: Option<StopCode>,
    /// In the task definition's order.
    pub containers: Vec<Container>,
    /// awsvpc: the task's own address on the cluster's bridge network.
    pub address: Option<String>,
    pub created_at: Timestamp,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub stopping_at: Option<Timestamp>,
    pub execution_stopped_at: Option<Timestamp>,
    pub stopped_at: Option<Timestamp>,
    pub stopped_reason: Option<String>,
    /// 1, and one more on every change that clients can see.
    pub version: u64,
}

/// Where a task comes from: the same for all tasks that one call or one pass over a service made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub cluster: ClusterName,
    pub definition: DefinitionKey,
    /// `service:NAME`, `family:FAMILY`, or what the caller of RunTask said.
    pub group: String,
    /// The deployment's id for a service's tasks, else the caller's text.
    pub started_by: Option<String>,
    pub service: Option<ServiceName>,
    pub deployment: Option<DeploymentId>,
    pub launch_type: LaunchType,
    pub overrides: Overrides,
    /// What placement subtracted from the instance, given back when the task is STOPPED.
    pub reserved: Resources,
    pub tags: Vec<Tag>,
    /// The W3C traceparent of the call or decision that made this task; its spans hang below it.
    pub trace: Option<String>,
}

impl Origin {
    pub fn new(cluster: ClusterName, definition: DefinitionKey) -> Origin {
        Origin {
            cluster,
            definition,
            group: String::new(),
            started_by: None,
            service: None,
            deployment: None,
            launch_type: LaunchType::Ec2,
            overrides: Overrides::default(),
            reserved: Resources::default(),
            tags: Vec::new(),
            trace: None,
        }
    }
}

impl Deref for Task {
    type Target = Origin;
    fn deref(&self) -> &Origin {
        &self.origin
    }
}

impl DerefMut for Task {
    fn deref_mut(&mut self) -> &mut Origin {
        Arc::make_mut(&mut self.origin)
    }
}

impl Task {
    /// As it is when it was just placed: PENDING, with containers to come.
    pub fn new(id: TaskId, origin: Arc<Origin>, instance: InstanceId, created_at: Timestamp) -> Task {
        Task {
            id,
            origin,
            instance,
            last_status: TaskStatus::Pending,
            desired_status: TaskStatus::Running,
            health: Health::Unknown,
            stop_code: None,
            containers: Vec::new(),
            address: None,
            created_at,
            pull_started_at: None,
            pull_stopped_at: None,
            started_at: None,
            stopping_at: None,
            execution_stopped_at: None,
            stopped_at: None,
            stopped_reason: None,
            version: 1,
        }
    }

    pub fn with_tags(mut self, tags: Vec<Tag>) -> Task {
        if self.tags != tags {
            self.tags = tags;
        }
        self
    }

    pub fn service_key(&self) -> Option<ServiceKey> {
        Some(ServiceKey { cluster: self.cluster.clone(), service: self.service.clone()? })
    }
    pub fn is_stopped(&self) -> bool {
        self.last_status == TaskStatus::Stopped
    }
    /// Wanted by nobody any more, whether or not its containers have ended.
    pub fn is_stopping(&self) -> bool {
        self.desired_status == TaskStatus::Stopped
    }

    /// The texts that other tasks repeat: whoever keeps many tasks keeps one of each.
    pub fn each_shared_text(&mut self, share: &mut impl FnMut(&mut Arc<str>)) {
        share(self.instance.text_mut());
        for container in &mut self.containers {
            share(container.name.text_mut());
            share(&mut container.image);
            container.image_digest.iter_mut().for_each(&mut *share);
            container.network.iter_mut().for_each(&mut *share);
            for binding in &mut container.bindings {
                share(&mut binding.address);
                share(&mut binding.protocol);
            }
        }
    }
}

/// In the order a task goes through them; steps with no work are skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    Provisioning,
    #[default]
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
}

impl TaskStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            TaskStatus::Provisioning => "PROVISIONING",
            TaskStatus::Pending => "PENDING",
            TaskStatus::Activating => "ACTIVATING",
            TaskStatus::Running => "RUNNING",
            TaskStatus::Deactivating => "DEACTIVATING",
            TaskStatus::Stopping => "STOPPING",
            TaskStatus::Deprovisioning => "DEPROVISIONING",
            TaskStatus::Stopped => "STOPPED",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LaunchType {
    #[default]
    #[serde(rename = "EC2")]
    Ec2,
    #[serde(rename = "FARGATE")]
    Fargate,
    #[serde(rename = "EXTERNAL")]
    External,
}

impl LaunchType {
    pub fn as_str(self) -> &'static str {
        match self {
            LaunchType::Ec2 => "EC2",
            LaunchType::Fargate => "FARGATE",
            LaunchType::External => "EXTERNAL",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Health {
    Healthy,
    Unhealthy,
    #[default]
    Unknown,
}

impl Health {
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "HEALTHY",
            Health::Unhealthy => "UNHEALTHY",
            Health::Unknown => "UNKNOWN",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopCode {
    TaskFailedToStart,
    EssentialContainerExited,
    UserInitiated,
    ServiceSchedulerInitiated,
    TerminationNotice,
}

impl StopCode {
    pub fn as_str(self) -> &'static str {
        match self {
            StopCode::TaskFailedToStart => "TaskFailedToStart",
            StopCode::EssentialContainerExited => "EssentialContainerExited",
            StopCode::UserInitiated => "UserInitiated",
            StopCode::ServiceSchedulerInitiated => "ServiceSchedulerInitiated",
            StopCode::TerminationNotice => "TerminationNotice",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    pub name: ContainerName,
    /// The last part of the container's ARN.
    pub uuid: HexText,
    pub image: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<Arc<str>>,
    /// Docker's container id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<HexText>,
    /// Pending, Running or Stopped: clients see no other.
    pub last_status: TaskStatus,
    /// Absent for a container whose process never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// `<ErrorName>: <text>`, at most 1,024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub health: Health,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<Binding>,
    /// The container's own address on its host's Docker network (bridge mode); an awsvpc container has its task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The agent's task network, where neighbours reach `address`; None on Docker's default bridge, which only the host looks into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Arc<str>>,
    pub restart_count: u32,
    /// When its process last started, by its host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

impl Container {
    /// As it is before its agent has told of it.
    pub fn new(name: ContainerName, uuid: impl Into<HexText>, image: impl Into<Arc<str>>) -> Container {
        Container {
            name,
            uuid: uuid.into(),
            image: image.into(),
            image_digest: None,
            runtime_id: None,
            last_status: TaskStatus::Pending,
            exit_code: None,
            reason: None,
            health: Health::Unknown,
            bindings: Vec::new(),
            address: None,
            network: None,
            restart_count: 0,
            started_at: None,
        }
    }
}

/// A container port as it can be reached on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub address: Arc<str>,
    pub container_port: u16,
    pub host_port: u16,
    /// `tcp` or `udp`.
    pub protocol: Arc<str>,
}

/// What RunTask changed of the task definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Overrides {
    pub container_overrides: Vec<ContainerOverride>,
    pub cpu: Option<String>,
    pub memory: Option<String>,
    pub task_role_arn: Option<String>,
    pub execution_role_arn: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerOverride {
    pub name: Option<String>,
    pub command: Option<Vec<String>>,
    pub environment: Option<Vec<KeyValue>>,
    pub cpu: Option<i32>,
    pub memory: Option<i32>,
    pub memory_reservation: Option<i32>,
}

/// What a task takes of an instance, or what an instance has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// CPU units, 1,024 a core.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    /// Host ports; dynamic ones do not count.
    pub tcp_ports: Vec<u16>,
    pub udp_ports: Vec<u16>,
}

/// The labels that a task's metrics, logs and traces carry.
pub fn telemetry_labels(task: &Task) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::from([
        ("cluster", task.cluster.to_string()),
        ("family", task.definition.family.to_string()),
        ("task", task.id.to_string()),
    ]);
    if let Some(service) = &task.service {
        labels.insert("service", service.to_string());
    }
    labels
}
