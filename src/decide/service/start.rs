//! How many tasks of the PRIMARY deployment to start now.

use super::census::{Census, Stage};
use super::{Action, Plan};
use crate::decide::backoff;
use crate::model::Timestamp;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::service::Deployment;

pub(super) struct Started {
    /// Tasks that are missing of the desired count, bad and old ones not counted.
    pub want: u32,
    pub count: u32,
    /// The restart throttle, not the upper bound, keeps the rest back.
    pub throttled: bool,
}

/// Missing tasks are started as far as the upper bound has room: to make up the desired count, to replace what is bad, and to roll
/// a new deployment out are one and the same, since only the PRIMARY's good tasks are set against the desired count.
pub(super) fn missing(census: &Census, now: Timestamp, plan: &mut Plan) -> Started {
    let mut started = Started { want: census.desired.saturating_sub(census.counts.good), count: 0, throttled: false };
    let Some(primary) = census.primary.filter(|_| started.want > 0) else { return started };

    let Some(allowed) = throttle(census, primary, now, plan) else {
        started.throttled = true;
        return started;
    };
    let room = census.upper.saturating_sub(census.occupied());
    started.throttled = allowed < started.want;
    started.count = started.want.min(allowed).min(room);
    if started.count == 0 {
        return started;
    }
    let counts = &census.counts;
    // What is bad is replaced first; a start beyond that makes up for what is simply not there.
    let replacing = started.count.min(counts.bad + counts.lost);
    let reason = reason(census, primary, &started, replacing).with("room", room).with("replacing", replacing);
    plan.push(Action::Start { deployment: primary.id.clone(), count: started.count, replacing }, reason);
    started
}

/// How many tasks the restart throttle lets start. None: not one yet.
fn throttle(census: &Census, primary: &Deployment, now: Timestamp, plan: &mut Plan) -> Option<u32> {
    if backoff::after_failures(primary.failed_tasks) == 0 && primary.throttled_until.is_none_or(|until| until <= now) {
        return Some(u32::MAX);
    }
    let failed = primary.failed_tasks;
    let reason = |sentence: String| {
        census
            .reason(ReasonCode::Throttled, sentence)
            .with("failed_tasks", failed)
            .with("throttled_until", primary.throttled_until.map(Timestamp::iso))
    };
    if let Some(until) = primary.throttled_until.filter(|&until| until > now && primary.updated_at <= now) {
        let wait = until.since(now) as f64 / 1e3;
        plan.waiting.push(reason(match failed {
            0 => format!("the last task ended as soon as it ran: the next one starts in {wait:.1} s"),
            _ => format!("{failed} tasks in a row did not reach RUNNING: none is started for another {wait:.1} s"),
        }));
        plan.wake(until);
        return None;
    }
    // After a streak one task goes ahead; the rest follow as soon as it runs. A broken revision then costs one container a try.
    if census.tasks.iter().any(|t| t.is_good() && t.stage == Stage::Pending) {
        plan.waiting
            .push(reason(format!("{failed} tasks in a row did not reach RUNNING: the next ones wait until a pending one runs")));
        return None;
    }
    if census.desired > census.counts.good + 1 {
        plan.waiting.push(reason(format!("{failed} tasks in a row did not reach RUNNING: one is tried before the rest")));
    }
    Some(1)
}

fn reason(census: &Census, primary: &Deployment, started: &Started, replacing: u32) -> Reason {
    let counts = &census.counts;
    let (count, desired) = (started.count, census.desired);
    let (code, sentence) = if counts.bad > 0 && replacing > 0 {
        (ReasonCode::ReplaceUnhealthy, format!("starting {count}: {} tasks failed container health checks", counts.bad))
    } else if counts.lost > 0 {
        (ReasonCode::ReplaceLost, format!("starting {count}: {} tasks were lost with their container instances", counts.lost))
    } else if counts.draining > 0 {
        (ReasonCode::DrainInstance, format!("starting {count}: {} tasks are on DRAINING container instances", counts.draining))
    } else if counts.old > 0 {
        let sentence = format!("starting {count} of {}: {} tasks of older deployments are still there", primary.id, counts.old);
        (ReasonCode::RollForward, sentence)
    } else {
        (ReasonCode::BelowDesired, format!("starting {count}: {} of {desired} desired tasks are there", counts.good))
    };
    census.reason(code, sentence).with("good", counts.good).with("wanted", started.want)
}
