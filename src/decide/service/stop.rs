//! Which tasks to stop now: what nobody counts on at once, what serves only as far as the lower bound allows.

use super::census::{Census, Seen, Stage, WhyLost};
use super::choose::choose;
use super::event::{self, stopped_event};
use super::start::Started;
use super::{Action, Plan, ServiceView};
use crate::model::TaskId;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::task::StopCode;

/// One pass says "failed container health checks" for at most this many tasks, or the last 100 events would hold nothing else.
const UNHEALTHY_EVENTS_MAX: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Old,
    Draining,
    Surplus,
    Unhealthy,
    Deleted,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Stopped {
    pub count: u32,
    /// Tasks of the PRIMARY on DRAINING instances or of older deployments that the lower bound still holds.
    pub held: u32,
}

/// ECS waits for an unreachable agent for ever (containers-roadmap#2040); ours replaces its tasks after a grace, and says so.
pub(super) fn give_up_lost(view: &ServiceView, census: &Census, plan: &mut Plan) {
    for lost in &census.lost {
        let instance = &lost.task.instance;
        let (sentence, text) = match lost.why {
            WhyLost::Gone => (format!("container instance {instance} is gone for good"), event::terminated(instance)),
            WhyLost::OutOfReach(since) => {
                let grace = view.settings.lost_after_ms;
                let sentence = format!(
                    "container instance {instance} is out of reach since {}, longer than {} s; ECS would wait for ever",
                    since.clock(),
                    grace as f64 / 1e3
                );
                (sentence, event::out_of_reach(instance, grace))
            }
        };
        let reason = census
            .reason(ReasonCode::ReplaceLost, sentence)
            .with("instance", instance.as_str())
            .with("last_status", lost.task.last_status.as_str());
        plan.push(Action::GiveUp { task: lost.task.id.clone(), code: StopCode::TerminationNotice, text }, reason);
    }
}

/// The stops of an ACTIVE service.
///
/// The lower bound counts healthy tasks, so it is stops of healthy ones that use it up. A settling task serves too, for all we know:
/// it may go only when the healthy ones meet the bound already. PENDING and unhealthy tasks are not counted on.
pub(super) fn within_bounds(view: &ServiceView, census: &Census, started: &Started, plan: &mut Plan) -> Stopped {
    let counts = &census.counts;
    let mut spare = counts.healthy.saturating_sub(census.lower);
    let settling_may_go = counts.healthy >= census.lower;
    let mut stops: Vec<(Seen, Why)> = Vec::new();
    let mut held = 0;

    // Older deployments, and PRIMARY tasks on DRAINING instances, whose PENDING ones stop at once
    // (API reference, UpdateContainerInstancesState).
    let old: fn(&Seen) -> bool = |t| !t.primary;
    let draining: fn(&Seen) -> bool = |t| t.primary && t.draining && t.stage != Stage::Unhealthy;
    for (why, belongs) in [(Why::Old, old), (Why::Draining, draining)] {
        let (healthy, rest): (Vec<Seen>, Vec<Seen>) =
            census.tasks.iter().filter(|t| belongs(t)).partition(|t| t.stage == Stage::Healthy);
        let total = (healthy.len() + rest.len()) as u32;
        let before = stops.len();
        stops.extend(rest.into_iter().filter(|t| t.stage < Stage::Settling || settling_may_go).map(|t| (t, why)));
        let chosen = choose(&census.tasks, healthy, spare);
        spare -= chosen.len() as u32;
        stops.extend(chosen.into_iter().map(|t| (t, why)));
        held += total - (stops.len() - before) as u32;
    }

    // Surplus: what stays are as many good tasks as are desired, the healthiest of them.
    let surplus = counts.good.saturating_sub(census.desired);
    let good: Vec<Seen> = census.tasks.iter().filter(|t| t.is_good()).copied().collect();
    let unsettled = counts.good - counts.good_healthy;
    let chosen = choose(&census.tasks, good, surplus.min(unsettled + spare));
    stops.extend(chosen.into_iter().map(|t| (t, Why::Surplus)));

    // Unhealthy: one goes for each good task that has become healthy in its place. Where the upper bound leaves no room for a
    // replacement it goes before, as many at a time as the lower bound lets be absent, and one at least: a task that is not
    // healthy is not in the lower bound, and 100/100 must not mean that it is never replaced.
    let unhealthy: Vec<Seen> = census.tasks.iter().filter(|t| t.primary && t.stage == Stage::Unhealthy).copied().collect();
    let kept = census.desired.saturating_sub(counts.good_healthy);
    let mut leaving = counts.bad.saturating_sub(kept);
    let unstarted = if started.throttled { 0 } else { started.want - started.count };
    if leaving == 0 && unstarted > 0 && stops.is_empty() && census.stopping == 0 {
        let absent = (census.desired - census.lower).max(1);
        let unsettled = counts.good - counts.good_healthy + started.count;
        leaving = absent.saturating_sub(unsettled).min(unstarted);
    }
    stops.extend(choose(&census.tasks, unhealthy, leaving).into_iter().map(|t| (t, Why::Unhealthy)));

    say(view, census, &stops, plan);
    Stopped { count: stops.len() as u32, held }
}

/// Every task of a service that is deleted.
pub(super) fn all(view: &ServiceView, census: &Census, plan: &mut Plan) {
    let stops: Vec<(Seen, Why)> = census.tasks.iter().map(|t| (*t, Why::Deleted)).collect();
    say(view, census, &stops, plan);
}

fn say(view: &ServiceView, census: &Census, stops: &[(Seen, Why)], plan: &mut Plan) {
    if stops.is_empty() {
        return;
    }
    let service = view.service.key.service.as_str();
    // The order in which ECS tells it: what is unhealthy, then that it was stopped.
    for (seen, _) in stops.iter().filter(|(_, why)| *why == Why::Unhealthy).take(UNHEALTHY_EVENTS_MAX) {
        let sentence = format!("task {} is UNHEALTHY and outside its grace period", seen.task.id);
        plan.push(Action::Event(event::unhealthy(service, &seen.task.id)), census.reason(ReasonCode::ReplaceUnhealthy, sentence));
    }
    for (seen, why) in stops {
        plan.push(
            Action::Stop {
                task: seen.task.id.clone(),
                code: StopCode::ServiceSchedulerInitiated,
                text: text(service, seen, *why, census),
            },
            reason(seen, *why, census),
        );
    }
    let ids: Vec<TaskId> = stops.iter().map(|(seen, _)| seen.task.id.clone()).collect();
    let reason = census.reason(ReasonCode::TaskStopped, format!("{} tasks were asked to stop", ids.len()));
    plan.push(Action::Event(stopped_event(service, &ids)), reason);
}

fn text(service: &str, seen: &Seen, why: Why, census: &Census) -> String {
    match why {
        Why::Unhealthy => event::UNHEALTHY.to_owned(),
        Why::Draining => event::draining(service),
        Why::Old | Why::Surplus | Why::Deleted => event::scaling(seen.task.deployment.as_ref().or(census.primary.map(|d| &d.id))),
    }
}

fn reason(seen: &Seen, why: Why, census: &Census) -> Reason {
    let (desired, lower) = (census.desired, census.lower);
    let counts = &census.counts;
    let (code, sentence) = match why {
        Why::Old => (
            ReasonCode::RollOldDrained,
            format!("an older deployment's task: {} tasks are healthy and {lower} must stay", counts.healthy),
        ),
        Why::Draining => (
            ReasonCode::DrainInstance,
            format!(
                "its container instance {} is DRAINING: {} tasks are healthy and {lower} must stay",
                seen.task.instance, counts.healthy
            ),
        ),
        Why::Surplus => {
            let place = format!("instance {} of zone {:?}", seen.task.instance, seen.zone);
            (ReasonCode::AboveDesired, format!("{} tasks for {desired} desired; chosen from {place}", counts.good))
        }
        Why::Unhealthy => (
            ReasonCode::ReplaceUnhealthy,
            format!("it is UNHEALTHY; {} of {desired} desired tasks are healthy", counts.good_healthy),
        ),
        Why::Deleted => (ReasonCode::ServiceDeleted, "the service is deleted".to_owned()),
    };
    census
        .reason(code, sentence)
        .with("task", seen.task.id.as_str())
        .with("task_deployment", seen.task.deployment.as_ref().map(|d| d.as_str()))
        .with("instance", seen.task.instance.as_str())
        .with("zone", seen.zone)
        .with("last_status", seen.task.last_status.as_str())
        .with("health", seen.task.health.as_str())
}
