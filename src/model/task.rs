//! A task: one run of a task definition on one container instance, and what is known of its containers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::definition::KeyValue;
use super::tag::Tag;
use super::{ClusterName, ContainerName, DefinitionKey, DeploymentId, InstanceId, ServiceKey, ServiceName, TaskId, Timestamp};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub cluster: ClusterName,
    pub definition: DefinitionKey,
    /// `service:NAME`, `family:FAMILY`, or what the caller of RunTask said.
    pub group: String,
    /// The deployment's id for a service's tasks, else the caller's text.
    pub started_by: Option<String>,
    pub service: Option<ServiceName>,
    pub deployment: Option<DeploymentId>,
    pub instance: InstanceId,
    pub launch_type: LaunchType,
    pub last_status: TaskStatus,
    /// Only ever Running or Stopped.
    pub desired_status: TaskStatus,
    pub health: Health,
    /// In the task definition's order.
    pub containers: Vec<Container>,
    pub overrides: Overrides,
    /// What placement subtracted from the instance, given back when the task is STOPPED.
    pub reserved: Resources,
    /// awsvpc: the task's own address on the cluster's bridge network.
    pub address: Option<String>,
    pub tags: Vec<Tag>,
    pub created_at: Timestamp,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub stopping_at: Option<Timestamp>,
    pub execution_stopped_at: Option<Timestamp>,
    pub stopped_at: Option<Timestamp>,
    pub stop_code: Option<StopCode>,
    pub stopped_reason: Option<String>,
    /// 1, and one more on every change that clients can see.
    pub version: u64,
    /// The W3C traceparent of the call or decision that made this task; its spans hang below it.
    pub trace: Option<String>,
}

impl Task {
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
    pub uuid: String,
    pub image: String,
    pub image_digest: Option<String>,
    /// Docker's container id.
    pub runtime_id: Option<String>,
    /// Pending, Running or Stopped: clients see no other.
    pub last_status: TaskStatus,
    /// Absent for a container whose process never started.
    pub exit_code: Option<i32>,
    /// `<ErrorName>: <text>`, at most 1,024 characters.
    pub reason: Option<String>,
    pub health: Health,
    pub bindings: Vec<Binding>,
    /// The container's own address on its host's Docker network (bridge mode); an awsvpc container has its task's.
    #[serde(default)]
    pub address: Option<String>,
    /// The agent's task network, where neighbours reach `address`; None on Docker's default bridge, which only the host looks into.
    #[serde(default)]
    pub network: Option<String>,
    pub restart_count: u32,
    /// When its process last started, by its host's clock.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
}

/// A container port as it can be reached on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub address: String,
    pub container_port: u16,
    pub host_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// What RunTask changed of the task definition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Overrides {
    pub container_overrides: Vec<ContainerOverride>,
    pub cpu: Option<String>,
    pub memory: Option<String>,
    pub task_role_arn: Option<String>,
    pub execution_role_arn: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
