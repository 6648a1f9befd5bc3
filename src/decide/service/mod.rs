//! What to do for a service: the one place that compares what is wanted with what runs. REPLICA scheduling and rolling updates.
//!
//! One pass: [`census`] sorts the tasks once and counts; [`start`] and [`stop`] choose within the bounds; [`finish`] says what is
//! completed, steady or stuck. Level-triggered: a pass remembers nothing, and a pass over its own result does nothing.
//!
//! The bounds (API reference, DeploymentConfiguration; Developer Guide, "Updating a service"):
//! - lower = ceil(desired x minimumHealthyPercent / 100): healthy RUNNING tasks that our own stops must leave. At most desired.
//! - upper = floor(desired x maximumPercent / 100): RUNNING, PENDING **and STOPPING** tasks that our own starts may lead to. The API
//!   text names the first two, the guide of 2023 all three. Ours counts all three: a stopping task still holds its memory and its host
//!   ports, and whoever says 100 % says that there is no room for one more. At least desired, as the service could never reach it
//!   otherwise.
//!
//! Which task stops when several would do: not yet running first, then not yet healthy, then healthy ones; among these from the zone
//! with the most tasks of the service, there from the instance with the most, there the newest. ECS documents zone and instance for
//! services without a placement strategy. A strategy changes nothing here: spread over zones and instances comes to the same, and
//! for binpack the instances' free room would have to be known.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backoff;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::instance::Instance;
use crate::model::service::{Rollout, Service, ServiceStatus};
use crate::model::task::{StopCode, Task};
use crate::model::{DeploymentId, InstanceId, Millis, TaskId, Timestamp};

mod census;
mod choose;
mod event;
mod finish;
#[cfg(test)]
mod properties;
mod start;
mod stop;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub use event::{started_event, stopped_event};

use census::Census;

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
    let census = census::take(view, now);
    let mut plan = Plan::default();
    stop::give_up_lost(view, &census, &mut plan);
    match view.service.status {
        ServiceStatus::Active => keep(view, &census, now, &mut plan),
        ServiceStatus::Draining | ServiceStatus::Inactive => wind_down(view, &census, &mut plan),
    }
    say_who_is_away(view, &census, &mut plan);
    plan.wake_at = plan.wake_at.into_iter().chain(census.wake_at).filter(|&at| at > now).min();
    plan
}

/// A deployment's counts after a task of it reached RUNNING or stopped before it did: resets or raises `failed_tasks` and sets the
/// restart throttle (`backoff`).
pub fn after_task_started(service: &mut Service, deployment: &DeploymentId, now: Timestamp) {
    let Some(deployment) = service.deployments.iter_mut().find(|d| d.id == *deployment) else { return };
    if deployment.failed_tasks > 0 || deployment.throttled_until.is_some() {
        deployment.failed_tasks = 0;
        deployment.throttled_until = None;
        deployment.updated_at = now;
    }
}

/// Tasks that were started together fail together, and a hundred of them must not count as a hundred attempts: while a throttle
/// lasts, a failure is counted but does not lengthen it. One that was set at a moment still to come was set before the clock was set
/// back, and is over. The next one is twice as long; how long the last one was is the time from
/// `updated_at`, which is when it was set. Should something else have moved `updated_at` meanwhile, the next is shorter, no more.
pub fn after_task_failed(service: &mut Service, deployment: &DeploymentId, now: Timestamp) {
    let Some(deployment) = service.deployments.iter_mut().find(|d| d.id == *deployment) else { return };
    deployment.failed_tasks = deployment.failed_tasks.saturating_add(1);
    if deployment.throttled_until.is_some_and(|until| until > now && deployment.updated_at <= now) {
        return;
    }
    let wait = match deployment.throttled_until {
        Some(until) => backoff::after_throttle(until.since(deployment.updated_at)),
        None => backoff::after_failures(deployment.failed_tasks.min(backoff::FREE_FAILURES + 1)),
    };
    if wait > 0 {
        deployment.throttled_until = Some(now + wait);
        deployment.updated_at = now;
    }
}

/// A task that ends before it has run for so long ended as soon as it ran.
pub const EARLY_MS: Millis = 2_000;
/// How long the next start waits then.
const EARLY_PAUSE_MS: Millis = 1_000;

/// So many of them are followed at once: whoever kills a container or two sees them replaced.
const EARLY_FREE: u32 = 3;

/// ECS does not throttle tasks that reached RUNNING and then ended, but its own pace lets such a loop turn a few times a minute; at
/// ours it would spin. So when it goes on the next start waits a second, no more. A steady service begins anew.
pub fn after_task_ended_early(service: &mut Service, deployment: &DeploymentId, now: Timestamp) {
    let Some(deployment) = service.deployments.iter_mut().find(|d| d.id == *deployment) else { return };
    deployment.early_exits = deployment.early_exits.saturating_add(1);
    let until = now + EARLY_PAUSE_MS;
    let earlier = deployment.throttled_until.filter(|_| deployment.updated_at <= now);
    if deployment.early_exits > EARLY_FREE && earlier.is_none_or(|earlier| earlier < until) {
        deployment.throttled_until = Some(until);
        // A failure after this goes on from the length of this pause.
        deployment.updated_at = now;
    }
}

fn keep(view: &ServiceView, census: &Census, now: Timestamp, plan: &mut Plan) {
    let started = start::missing(census, now, plan);
    let stopped = stop::within_bounds(view, census, &started, plan);
    finish::say_what_waits(view, census, &started, stopped, now, plan);
    let completed = finish::deployments(view, census, plan);
    finish::steadiness(view, census, completed, plan);
}

/// A deleted service: every task goes, whatever the bounds say.
fn wind_down(view: &ServiceView, census: &Census, plan: &mut Plan) {
    stop::all(view, census, plan);
    if !census.tasks.is_empty() || census.stopping > 0 {
        let sentence =
            format!("{} tasks of the deleted service have not stopped yet", census.tasks.len() as u32 + census.stopping);
        plan.waiting.push(census.reason(ReasonCode::WaitStopping, sentence));
    } else if view.service.status == ServiceStatus::Draining {
        let sentence = "the service is deleted and none of its tasks is left";
        plan.push(Action::Inactivate, census.reason(ReasonCode::ServiceDeleted, sentence));
    }
}

fn say_who_is_away(view: &ServiceView, census: &Census, plan: &mut Plan) {
    for (instance, away) in &census.away {
        let grace = view.settings.lost_after_ms as f64 / 1e3;
        let since = away.since.map_or("an unknown time".to_owned(), Timestamp::clock);
        let sentence = format!(
            "container instance {instance} is out of reach since {since}: its {} tasks count as they were last seen, and are replaced \
             after {grace} s",
            away.tasks
        );
        let reason = census
            .reason(ReasonCode::InstanceLost, sentence)
            .with("instance", instance.as_str())
            .with("tasks", away.tasks)
            .with("replaced_at", away.until.map(Timestamp::iso));
        plan.waiting.push(reason);
    }
}

impl Plan {
    fn push(&mut self, action: Action, reason: Reason) {
        self.decisions.push(Planned { action, reason });
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}
