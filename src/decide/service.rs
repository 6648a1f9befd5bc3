//! What to do for a service: the one place that compares what is wanted with what runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::decision::Reason;
use crate::model::instance::Instance;
use crate::model::service::{Rollout, Service};
use crate::model::task::{StopCode, Task};
use crate::model::{DeploymentId, InstanceId, Millis, TaskId, Timestamp};

/// Everything that reconciling one service depends on.
pub struct ServiceView<'a> {
    pub service: &'a Service,
    /// Its tasks that have not stopped, of every deployment, by id.
    pub tasks: &'a [Arc<Task>],
    /// The instances these tasks are on.
    pub instances: &'a BTreeMap<InstanceId, Arc<Instance>>,
    /// Whether tasks of a revision report health: an essential container has a health check.
    pub health_checked: &'a dyn Fn(&Task) -> bool,
    pub settings: &'a Settings,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a task without a health check must have been RUNNING to count as healthy.
    pub healthy_after_ms: Millis,
    /// How long an instance may be out of reach before its tasks are replaced.
    pub lost_after_ms: Millis,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub decisions: Vec<Planned>,
    /// What was not done, and why: `beaufort why` shows it.
    pub waiting: Vec<Reason>,
    /// Look again then, if nothing changes before.
    pub wake_at: Option<Timestamp>,
}

#[derive(Debug, PartialEq)]
pub struct Planned {
    pub action: Action,
    pub reason: Reason,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    /// Place and start tasks of this deployment; `replacing` of them stand in for unhealthy or lost ones (the event says so).
    Start {
        deployment: DeploymentId,
        count: u32,
        replacing: u32,
    },
    /// Ask for the task's end, with the stop code and the text that clients see.
    Stop {
        task: TaskId,
        code: StopCode,
        text: String,
    },
    /// The task's instance is gone for good: the task is STOPPED without a word from its agent.
    GiveUp {
        task: TaskId,
        code: StopCode,
        text: String,
    },
    SetRollout {
        deployment: DeploymentId,
        rollout: Rollout,
        text: String,
    },
    /// An ACTIVE deployment has no task left.
    DropDeployment {
        deployment: DeploymentId,
    },
    /// A service event, worded as ECS words it.
    Event(String),
    /// Reached or left steady state.
    SetSteady(bool),
    /// A DRAINING service has no task left.
    Inactivate,
}

pub fn reconcile(view: &ServiceView, now: Timestamp) -> Plan {
    todo!("{} {now}", view.service.key)
}

/// A deployment's counts after a task of it reached RUNNING or stopped before it did: resets or raises `failed_tasks` and sets the
/// restart throttle (`backoff`).
pub fn after_task_started(service: &mut Service, deployment: &DeploymentId, now: Timestamp) {
    todo!("{} {deployment} {now}", service.key)
}

pub fn after_task_failed(service: &mut Service, deployment: &DeploymentId, now: Timestamp) {
    todo!("{} {deployment} {now}", service.key)
}
