//! What a pass comes to: what it waits for, which deployments are done, whether the service is steady.

use super::census::{Census, Stage};
use super::start::Started;
use super::stop::Stopped;
use super::{Action, Plan, ServiceView, event};
use crate::decide::backoff;
use crate::model::Timestamp;
use crate::model::decision::ReasonCode;
use crate::model::service::Rollout;

/// Names what keeps the rest from being done; when nothing that is under way can ever change it, says so in ECS's words.
pub(super) fn say_what_waits(
    view: &ServiceView,
    census: &Census,
    started: &Started,
    stopped: Stopped,
    now: Timestamp,
    plan: &mut Plan,
) {
    let counts = &census.counts;
    let failed = census.primary.map_or(0, |d| d.failed_tasks);
    if started.want > 0 && backoff::after_failures(failed) > 0 {
        let reason = census.reason(ReasonCode::Throttled, format!("{failed} tasks in a row did not reach RUNNING"));
        event::say_once(view, plan, event::throttled(view.service.key.service.as_str()), reason, now);
    }
    let unstarted = if started.throttled { 0 } else { started.want - started.count };
    let leaving = census.stopping + stopped.count;
    let unready = counts.good.saturating_sub(counts.good_healthy) + started.count;
    if unstarted == 0 && stopped.held == 0 && counts.bad == 0 {
        if unready > 0 {
            let sentence =
                format!("waiting for {unready} tasks to become healthy: {} of {} are", counts.good_healthy, census.desired);
            plan.waiting.push(census.reason(ReasonCode::WaitHealthy, sentence).with("unready", unready));
        }
        if leaving > 0 {
            let sentence = format!("waiting for {leaving} tasks to stop");
            plan.waiting.push(census.reason(ReasonCode::WaitStopping, sentence));
        }
        return;
    }

    let mut open = Vec::new();
    if unstarted > 0 {
        open.push(format!("{unstarted} tasks more cannot be started, as at most {} may be there", census.upper));
    }
    if stopped.held > 0 {
        open.push(format!("{} tasks cannot be stopped, as {} healthy ones must stay", stopped.held, census.lower));
    }
    if counts.bad > 0 && unstarted == 0 {
        open.push(format!("{} unhealthy tasks stay until others are healthy in their place", counts.bad));
    }
    let open = open.join("; ");
    let settling = census.tasks.iter().any(|t| t.stage == Stage::Settling || t.is_good() && t.stage == Stage::Pending);
    let (code, next) = if leaving > 0 {
        (ReasonCode::WaitStopping, format!("waiting for {leaving} tasks to stop"))
    } else if started.count > 0 || settling {
        (ReasonCode::WaitHealthy, format!("waiting for {} tasks to become healthy", unready.max(counts.settling)))
    } else if started.throttled {
        (ReasonCode::Throttled, "the restart throttle keeps replacements back".to_owned())
    } else {
        (ReasonCode::DeploymentStuck, "nothing under way will change that".to_owned())
    };
    let reason = census
        .reason(code, format!("{open}: {next}"))
        .with("unstarted", unstarted)
        .with("held", stopped.held)
        .with("deployments", view.service.deployments.iter().map(|d| d.id.to_string()).collect::<Vec<_>>());
    if code == ReasonCode::DeploymentStuck {
        event::say_once(view, plan, event::stuck(view.service.key.service.as_str()), reason.clone(), now);
    }
    plan.waiting.push(reason);
}

/// Drops ACTIVE deployments without tasks, and completes the PRIMARY when it stands alone and healthy: ServicesStable waits for
/// exactly one deployment. Whether the PRIMARY was completed now.
pub(super) fn deployments(view: &ServiceView, census: &Census, plan: &mut Plan) -> bool {
    for old in view.service.deployments.iter().skip(1).filter(|d| !census.peopled.contains(&d.id)) {
        let reason = census.reason(ReasonCode::RollOldDrained, format!("no task of {} is left", old.id));
        plan.push(Action::DropDeployment { deployment: old.id.clone() }, reason.with("old_deployment", old.id.as_str()));
    }
    let Some(primary) = census.primary else { return false };
    let healthy = census.counts.good_healthy;
    if primary.rollout != Rollout::InProgress || census.old_left || healthy < census.desired {
        return false;
    }
    let sentence =
        format!("{healthy} tasks of {} are healthy, {} are desired, and no older task is left", primary.id, census.desired);
    let reason = census.reason(ReasonCode::DeploymentCompleted, sentence);
    let text = event::rollout_completed(&primary.id);
    plan.push(Action::SetRollout { deployment: primary.id.clone(), rollout: Rollout::Completed, text }, reason.clone());
    plan.push(Action::Event(event::completed(view.service.key.service.as_str(), &primary.id)), reason);
    true
}

/// Steady: as many tasks as desired, all of the PRIMARY, healthy, on instances that stay, and none coming or going
/// (API reference, TaskSet stabilityStatus).
pub(super) fn steadiness(view: &ServiceView, census: &Census, completed: bool, plan: &mut Plan) {
    let rolled = completed || census.primary.is_some_and(|d| d.rollout == Rollout::Completed);
    let all_good = census.counts.good_healthy == census.desired && census.tasks.len() as u32 == census.desired;
    let steady = rolled && all_good && census.stopping == 0 && !census.old_left;
    if steady != view.service.steady {
        let sentence = match steady {
            true => format!("{} tasks are desired, and as many are there and healthy", census.desired),
            false => format!("{} of {} desired tasks are there and healthy", census.counts.good_healthy, census.desired),
        };
        plan.push(Action::SetSteady(steady), census.reason(ReasonCode::SteadyState, sentence));
    }
    if steady && (completed || !view.service.steady) {
        let reason = census.reason(ReasonCode::SteadyState, "the service is as desired");
        plan.push(Action::Event(event::steady(view.service.key.service.as_str())), reason);
    }
}
