//! A service: a number of tasks that is kept, and the deployments that bring a new revision in.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::placement::{PlacementConstraint, PlacementStrategy};
use super::tag::Tag;
use super::task::LaunchType;
use super::{DefinitionKey, DeploymentId, Millis, ServiceKey, Timestamp};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub key: ServiceKey,
    pub status: ServiceStatus,
    /// The task definition of the PRIMARY deployment.
    pub definition: DefinitionKey,
    pub desired_count: u32,
    pub launch_type: LaunchType,
    /// lower bound = ceil(desired x this / 100).
    pub minimum_healthy_percent: u32,
    /// upper bound = floor(desired x this / 100).
    pub maximum_percent: u32,
    pub health_check_grace_period_s: Option<u32>,
    pub placement_constraints: Vec<PlacementConstraint>,
    pub placement_strategy: Vec<PlacementStrategy>,
    /// awsvpc services say subnets and security groups; echoed, and counted among the gaps.
    pub network_configuration: Option<NetworkConfiguration>,
    /// `SERVICE`, `TASK_DEFINITION`, or none: whose tags new tasks get.
    pub propagate_tags: Option<String>,
    pub enable_ecs_managed_tags: bool,
    pub enable_execute_command: bool,
    pub role_arn: Option<String>,
    /// The client token of CreateService, for idempotence.
    pub client_token: Option<String>,
    /// PRIMARY first, then the ACTIVE ones that still have tasks, newest first.
    pub deployments: Vec<Deployment>,
    /// Newest first, at most 100.
    pub events: VecDeque<ServiceEvent>,
    pub steady: bool,
    /// The traceparent of what last moved the desired count, until the next deployment: tasks that it causes hang below it.
    #[serde(default)]
    pub desired_trace: Option<String>,
    pub tags: Vec<Tag>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Service {
    /// A live service has at least its PRIMARY deployment.
    pub fn primary(&self) -> Option<&Deployment> {
        self.deployments.first()
    }

    /// Adds an event unless the newest says the same; keeps the last 100.
    pub fn push_event(&mut self, event: ServiceEvent) {
        if self.events.front().is_some_and(|newest| newest.message == event.message) {
            return;
        }
        self.events.push_front(event);
        self.events.truncate(100);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceStatus {
    Active,
    /// Deleted, but some of its tasks have not stopped yet.
    Draining,
    Inactive,
}

impl ServiceStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceStatus::Active => "ACTIVE",
            ServiceStatus::Draining => "DRAINING",
            ServiceStatus::Inactive => "INACTIVE",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    pub id: DeploymentId,
    pub definition: DefinitionKey,
    pub rollout: Rollout,
    pub rollout_reason: String,
    /// Consecutive tasks that did not reach RUNNING; a task that does resets it.
    pub failed_tasks: u32,
    /// Tasks that ended as soon as they ran, since the service was last steady.
    #[serde(default)]
    pub early_exits: u32,
    /// No task is started before this moment: the restart throttle.
    pub throttled_until: Option<Timestamp>,
    pub network_configuration: Option<NetworkConfiguration>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The W3C traceparent of the call that made this deployment.
    pub trace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Rollout {
    InProgress,
    Completed,
    Failed,
}

impl Rollout {
    pub fn as_str(self) -> &'static str {
        match self {
            Rollout::InProgress => "IN_PROGRESS",
            Rollout::Completed => "COMPLETED",
            Rollout::Failed => "FAILED",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceEvent {
    pub id: String,
    pub at: Timestamp,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkConfiguration {
    pub awsvpc_configuration: Option<AwsvpcConfiguration>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AwsvpcConfiguration {
    pub subnets: Vec<String>,
    pub security_groups: Option<Vec<String>>,
    pub assign_public_ip: Option<String>,
}

/// How long a task without a health check must have been RUNNING before a deployment counts it as healthy. ECS uses 40 s
/// (DeploymentConfiguration, minimumHealthyPercent); ours is a setting because seconds are the point.
pub const DEFAULT_HEALTHY_AFTER_MS: Millis = 2_000;
