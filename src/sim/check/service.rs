//! The two bounds of a rolling update and the bounds of scaling, for what our own hand did.

use std::sync::Arc;

use crate::model::ServiceKey;
use crate::model::service::{Service, ServiceStatus};
use crate::model::task::{Health, StopCode, Task, TaskStatus};
use crate::sim::seen::Seen;

/// What a commit does to the tasks of one service.
#[derive(Default)]
pub struct Moves {
    serving_before: usize,
    /// RUNNING tasks that the scheduler asks to stop and that were not known as unhealthy.
    serving_stops: usize,
    starts: usize,
}

impl From<usize> for Moves {
    fn from(serving_before: usize) -> Moves {
        Moves { serving_before, ..Moves::default() }
    }
}

impl Moves {
    pub fn note(&mut self, old: Option<&Task>, new: &Task) {
        self.starts += usize::from(old.is_none());
        let stops = old.is_some_and(|old| is_serving(old) && new.is_stopping());
        self.serving_stops += usize::from(stops && new.stop_code == Some(StopCode::ServiceSchedulerInitiated));
    }
}

pub fn is_serving(task: &Task) -> bool {
    task.last_status == TaskStatus::Running && !task.is_stopping() && task.health != Health::Unhealthy
}

pub fn serving(seen: &Seen, key: &ServiceKey) -> usize {
    seen.live_of_service(key).filter(|t| is_serving(t)).count()
}

fn lower(service: &Service) -> usize {
    let desired = service.desired_count as usize;
    (desired * service.minimum_healthy_percent as usize).div_ceil(100).min(desired)
}

fn upper(service: &Service) -> usize {
    let desired = service.desired_count as usize;
    (desired * service.maximum_percent as usize / 100).max(desired)
}

/// Updates that share a commit with our stops and starts (a container that dies, a new desired count) were not known when these
/// were chosen: the kinder of before and after counts.
pub fn within_percents(seen: &Seen, key: &ServiceKey, before: Option<&Arc<Service>>, moved: &Moves) -> Vec<String> {
    let Some(service) = seen.services.get(key).filter(|s| s.status == ServiceStatus::Active) else { return Vec::new() };
    let before = before.unwrap_or(service);
    let mut broken = Vec::new();
    if moved.serving_stops > 0 {
        let (stopped, serving) = (moved.serving_stops, moved.serving_before);
        let lower = lower(service).min(lower(before));
        if serving.saturating_sub(stopped) < lower {
            broken.push(format!("{key}: {stopped} of {serving} serving tasks were stopped, {lower} had to stay"));
        }
    }
    if moved.starts > 0 {
        let upper = upper(service).max(upper(before));
        let live = seen.live_of_service(key).count();
        if live > upper {
            broken.push(format!("{key}: {} tasks were started and {live} are there, {upper} may be", moved.starts));
        }
    }
    broken
}

/// A new desired count lies within its target's bounds.
pub fn within_target(seen: &Seen, before: Option<u32>, service: &Service) -> Option<String> {
    let target = seen.targets.get(&service.key)?;
    let (min, max, desired) = (target.min, target.max, service.desired_count);
    if service.status != ServiceStatus::Active {
        return None;
    }
    let outside = before.is_some_and(|before| before != desired) && !(min..=max).contains(&desired);
    outside.then(|| format!("{}: scaled to {desired}, outside of {min} to {max}", service.key))
}
