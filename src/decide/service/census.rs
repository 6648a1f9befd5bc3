//! Who is there: a service's tasks sorted by what they mean for its bounds, counted once per pass.

use std::collections::{BTreeMap, BTreeSet};

use super::ServiceView;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::instance::{Instance, InstanceStatus};
use crate::model::service::{Deployment, ServiceStatus};
use crate::model::task::{Health, Task, TaskStatus};
use crate::model::{DeploymentId, InstanceId, Timestamp};

pub(super) struct Census<'a> {
    pub desired: u32,
    pub lower: u32,
    pub upper: u32,
    pub primary: Option<&'a Deployment>,
    /// Wanted (desired status RUNNING) and not lost, in the view's order.
    pub tasks: Vec<Seen<'a>>,
    /// On instances that are gone, whatever their state.
    pub lost: Vec<Lost<'a>>,
    /// Asked to stop, not lost, and not STOPPED yet.
    pub stopping: u32,
    /// Whether a task that is not the PRIMARY deployment's has not stopped.
    pub old_left: bool,
    /// Deployments that have a task that has not stopped.
    pub peopled: BTreeSet<&'a DeploymentId>,
    pub away: BTreeMap<InstanceId, Away>,
    pub counts: Counts,
    /// When time alone will change this census.
    pub wake_at: Option<Timestamp>,
}

#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub task: &'a Task,
    pub zone: &'a str,
    /// Of the PRIMARY deployment.
    pub primary: bool,
    /// On an instance that is DRAINING.
    pub draining: bool,
    pub stage: Stage,
}

/// In the order in which tasks are given up when any would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Not RUNNING yet.
    Pending,
    Unhealthy,
    /// RUNNING, and neither known as healthy nor as unhealthy yet.
    Settling,
    Healthy,
}

pub(super) struct Lost<'a> {
    pub task: &'a Task,
    pub why: WhyLost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhyLost {
    /// Deregistered, or not known any more.
    Gone,
    /// Out of reach since then, for longer than the setting allows.
    OutOfReach(Timestamp),
}

/// An instance out of reach whose tasks still count.
pub(super) struct Away {
    pub tasks: u32,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

#[derive(Default)]
pub(super) struct Counts {
    /// RUNNING tasks of all deployments.
    pub running: u32,
    pub pending: u32,
    pub healthy: u32,
    pub unhealthy: u32,
    pub settling: u32,
    /// Tasks of other deployments than the PRIMARY.
    pub old: u32,
    /// On DRAINING instances, PRIMARY only.
    pub draining: u32,
    /// Of the PRIMARY deployment, where they can stay and not unhealthy: what is set against the desired count.
    pub good: u32,
    pub good_healthy: u32,
    /// Of the PRIMARY deployment and unhealthy.
    pub bad: u32,
    /// Lost tasks of the PRIMARY deployment that were wanted.
    pub lost: u32,
}

enum Whereabouts<'a> {
    Here(&'a Instance),
    Away(&'a Instance, Option<Timestamp>),
    Lost(WhyLost),
}

pub(super) fn take<'a>(view: &ServiceView<'a>, now: Timestamp) -> Census<'a> {
    let service = view.service;
    let desired = match service.status {
        ServiceStatus::Active => service.desired_count,
        ServiceStatus::Draining | ServiceStatus::Inactive => 0,
    };
    let (lower, upper) = bounds(desired, service.minimum_healthy_percent, service.maximum_percent);
    let mut census = Census {
        desired,
        lower,
        upper,
        primary: service.primary(),
        tasks: Vec::with_capacity(view.tasks.len()),
        lost: Vec::new(),
        stopping: 0,
        old_left: false,
        peopled: BTreeSet::new(),
        away: BTreeMap::new(),
        counts: Counts::default(),
        wake_at: None,
    };
    for task in view.tasks.iter().filter(|t| !t.is_stopped()) {
        census.add(task, view, now);
    }
    census
}

/// The lower and the upper bound of a rolling update, as the module's head explains them.
pub(super) fn bounds(desired: u32, minimum_percent: u32, maximum_percent: u32) -> (u32, u32) {
    let of = |percent: u32| u64::from(desired) * u64::from(percent);
    let lower = of(minimum_percent).div_ceil(100).min(u64::from(desired));
    let upper = (of(maximum_percent) / 100).max(u64::from(desired));
    (lower as u32, u32::try_from(upper).unwrap_or(u32::MAX))
}

impl<'a> Census<'a> {
    fn add(&mut self, task: &'a Task, view: &ServiceView<'a>, now: Timestamp) {
        let primary = task.deployment.is_some() && task.deployment.as_ref() == self.primary.map(|d| &d.id);
        let instance = match whereabouts(task, view, now) {
            Whereabouts::Lost(why) => {
                self.counts.lost += u32::from(primary && !task.is_stopping());
                return self.lost.push(Lost { task, why });
            }
            Whereabouts::Here(instance) => instance,
            Whereabouts::Away(instance, since) => {
                let until = since.map(|t| t + view.settings.lost_after_ms);
                let away = self.away.entry(instance.id.clone()).or_insert(Away { tasks: 0, since, until });
                away.tasks += 1;
                self.wake(until);
                instance
            }
        };
        self.peopled.extend(&task.deployment);
        self.old_left |= !primary;
        if task.is_stopping() {
            self.stopping += 1;
            return;
        }
        let (stage, settles_at) = stage(task, view, now);
        self.wake(settles_at);
        let draining = instance.status == InstanceStatus::Draining;
        let seen = Seen { task, zone: instance.zone(), primary, draining, stage };
        self.counts.add(&seen);
        self.tasks.push(seen);
    }

    fn wake(&mut self, at: Option<Timestamp>) {
        self.wake_at = self.wake_at.into_iter().chain(at).min();
    }

    /// Tasks that take up room on instances: what the upper bound counts.
    pub fn occupied(&self) -> u32 {
        self.tasks.len() as u32 + self.stopping
    }

    /// A reason with the numbers that every choice of this pass was made from.
    pub fn reason(&self, code: ReasonCode, sentence: impl Into<String>) -> Reason {
        let c = &self.counts;
        Reason::new(code, sentence)
            .with("desired", self.desired)
            .with("lower", self.lower)
            .with("upper", self.upper)
            .with("running", c.running)
            .with("pending", c.pending)
            .with("stopping", self.stopping)
            .with("healthy", c.healthy)
            .with("unhealthy", c.unhealthy)
            .with("old", c.old)
            .with("deployment", self.primary.map(|d| d.id.as_str()))
    }
}

impl Counts {
    fn add(&mut self, seen: &Seen) {
        self.running += u32::from(seen.stage != Stage::Pending);
        self.pending += u32::from(seen.stage == Stage::Pending);
        self.healthy += u32::from(seen.stage == Stage::Healthy);
        self.unhealthy += u32::from(seen.stage == Stage::Unhealthy);
        self.settling += u32::from(seen.stage == Stage::Settling);
        self.old += u32::from(!seen.primary);
        if seen.is_good() {
            self.good += 1;
            self.good_healthy += u32::from(seen.stage == Stage::Healthy);
        } else if seen.primary {
            self.bad += u32::from(seen.stage == Stage::Unhealthy);
            self.draining += u32::from(seen.stage != Stage::Unhealthy);
        }
    }
}

impl Seen<'_> {
    /// Of the PRIMARY deployment and to be kept.
    pub fn is_good(&self) -> bool {
        self.primary && !self.draining && self.stage != Stage::Unhealthy
    }
}

fn whereabouts<'a>(task: &Task, view: &ServiceView<'a>, now: Timestamp) -> Whereabouts<'a> {
    let Some(instance) = view.instances.get(&task.instance) else { return Whereabouts::Lost(WhyLost::Gone) };
    match (instance.status, instance.agent_connected, instance.disconnected_at) {
        (InstanceStatus::Inactive, _, _) => Whereabouts::Lost(WhyLost::Gone),
        (_, true, _) => Whereabouts::Here(instance),
        // A moment that is still to come was noted before the clock was set back: how long ago it was nobody knows.
        (_, false, Some(since)) if now >= since + view.settings.lost_after_ms || now < since => {
            Whereabouts::Lost(WhyLost::OutOfReach(since))
        }
        (_, false, since) => Whereabouts::Away(instance, since),
    }
}

/// How far a wanted task has come, and when time alone may take it further.
///
/// Healthy without a health check is RUNNING for a while; with one it is HEALTHY (API reference, DeploymentConfiguration). A task
/// with one essential container that has a health check and one that has none stays UNKNOWN for ever: there the HEALTHY container
/// speaks for the task once it has run for the same while, or such a service could never be updated.
fn stage(task: &Task, view: &ServiceView, now: Timestamp) -> (Stage, Option<Timestamp>) {
    let Some(started_at) = task.started_at.filter(|_| task.last_status >= TaskStatus::Running) else {
        return (Stage::Pending, None);
    };
    // It runs, so a start that is still to come was noted before the clock was set back.
    let by_time =
        |at: Timestamp, then: Stage| if now >= at || now < started_at { (then, None) } else { (Stage::Settling, Some(at)) };
    let settled_at = started_at + view.settings.healthy_after_ms;
    if !(view.health_checked)(task) {
        return by_time(settled_at, Stage::Healthy);
    }
    match task.health {
        Health::Healthy => (Stage::Healthy, None),
        // The grace period makes health checks go unheard (API reference, CreateService).
        Health::Unhealthy => {
            let grace_s = view.service.health_check_grace_period_s.unwrap_or(0);
            by_time(started_at + i64::from(grace_s) * 1_000, Stage::Unhealthy)
        }
        Health::Unknown if task.containers.iter().any(|c| c.health == Health::Healthy) => by_time(settled_at, Stage::Healthy),
        Health::Unknown => (Stage::Settling, None),
    }
}
