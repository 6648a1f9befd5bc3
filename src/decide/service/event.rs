//! Service events and the texts of stopped tasks, in ECS's own words (seen in public logs; clients match on them).

use super::{Action, Plan, ServiceView};
use crate::model::decision::Reason;
use crate::model::{DeploymentId, InstanceId, Millis, TaskId, Timestamp};

pub(super) const UNHEALTHY: &str = "Task failed container health checks";

/// An event names at most this many tasks and counts the rest: ECS acts on about ten at a time, ours on thousands.
const TASKS_NAMED_MAX: usize = 100;
/// ECS does not say the same again before its cause changes or this time has passed.
const REPEAT_AFTER_MS: Millis = 6 * 3_600_000;

/// The event after `tasks` were placed, `replaced` of them for unhealthy or lost ones. Written by whoever placed them.
pub fn started_event(service: &str, tasks: &[TaskId], replaced: u32) -> String {
    let started = format!("(service {service}) has started {} tasks: {}.", tasks.len(), named(tasks.iter()));
    match replaced {
        0 => started,
        n => format!("{started} Amazon ECS replaced {n} tasks due to an unhealthy status."),
    }
}

/// The event after the ends of `tasks` were asked for. The plan emits it itself.
pub fn stopped_event(service: &str, tasks: &[TaskId]) -> String {
    format!("(service {service}) has stopped {} running tasks: {}.", tasks.len(), named(tasks.iter()))
}

pub(super) fn unhealthy(service: &str, task: &TaskId) -> String {
    format!("(service {service}) (task {task}) failed container health checks.")
}

pub(super) fn throttled(service: &str) -> String {
    format!(
        "(service {service}) is unable to consistently start tasks successfully. For more information, see the Troubleshooting \
         section of the Amazon ECS Developer Guide."
    )
}

pub(super) fn stuck(service: &str) -> String {
    format!(
        "(service {service}) was unable to stop or start tasks during a deployment because of the service deployment \
         configuration. Update the minimumHealthyPercent or maximumPercent value and try again."
    )
}

pub(super) fn completed(service: &str, deployment: &DeploymentId) -> String {
    format!("(service {service}) (deployment {deployment}) deployment completed.")
}

pub(super) fn rollout_completed(deployment: &DeploymentId) -> String {
    format!("ECS deployment {deployment} completed.")
}

pub(super) fn steady(service: &str) -> String {
    format!("(service {service}) has reached a steady state.")
}

pub(super) fn scaling(deployment: Option<&DeploymentId>) -> String {
    format!("Scaling activity initiated by (deployment {})", deployment.map_or("none", DeploymentId::as_str))
}

/// Only "container instance is in DRAINING state" is known of ECS's text.
pub(super) fn draining(service: &str) -> String {
    format!("Service {service}: container instance is in DRAINING state.")
}

pub(super) fn terminated(instance: &InstanceId) -> String {
    format!("Host EC2 (instance {instance}) terminated.")
}

pub(super) fn out_of_reach(instance: &InstanceId, grace: Millis) -> String {
    format!("Host EC2 (instance {instance}) lost: its agent was out of reach for more than {} s.", grace as f64 / 1e3)
}

/// Plans an event that would otherwise be said on every pass: not when it was said since the deployment began and lately. Nor as
/// the newest event, since `Service::push_event` drops what the newest one says already, and planning it again would never end;
/// events of this very plan come first, so this is the last word of a pass.
pub(super) fn say_once(view: &ServiceView, plan: &mut Plan, text: String, reason: Reason, now: Timestamp) {
    let service = view.service;
    let since = service.primary().map_or(service.created_at, |d| d.created_at);
    let newer = plan.decisions.iter().any(|d| matches!(d.action, Action::Event(_)));
    let lately = |at: Timestamp| at >= since && now.since(at) < REPEAT_AFTER_MS;
    let said = service.events.iter().enumerate().any(|(i, e)| e.message == text && (i == 0 && !newer || lately(e.at)));
    if !said {
        plan.push(Action::Event(text), reason);
    }
}

fn named<'a>(tasks: impl ExactSizeIterator<Item = &'a TaskId>) -> String {
    let rest = tasks.len().saturating_sub(TASKS_NAMED_MAX);
    let names: Vec<String> = tasks.take(TASKS_NAMED_MAX).map(|id| format!("(task {id})")).collect();
    match rest {
        0 => names.join(" "),
        n => format!("{} and {n} more", names.join(" ")),
    }
}
