//! Runs scaling policies when an alarm asks, and sees activities through to their end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Control;
use crate::decide::alarm::history;
use crate::decide::autoscale::reaction::{self, Made};
use crate::decide::autoscale::recorded::Recorded;
use crate::decide::autoscale::{self, Inputs, Scaling, activity};
use crate::decide::definition::is_health_checked;
use crate::ids::IdSource;
use crate::model::alarm::Alarm;
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::scaling::{ActivityStatus, NotScaledReason, PolicyKind, Reaction, ScalingActivity, ScalingPolicy, Stage};
use crate::model::service::{Rollout, Service, ServiceStatus};
use crate::model::task::{Health, TaskStatus};
use crate::model::{Millis, ServiceKey, Timestamp};
use crate::observe;
use crate::schedule::scaling::{Set, open_activities, open_reactions, policy_of, set};
use crate::store::{self, Change, State, Tx};

/// What each policy last answered to each alarm, so that the ledger holds a wait once and not every second.
#[derive(Default)]
pub struct Asked {
    answers: BTreeMap<(String, String), ReasonCode>,
    /// The newest values of policies' own alarms: the store has those of the last transition only.
    newest: BTreeMap<String, Vec<f64>>,
}

impl Asked {
    /// What an evaluation has just seen.
    pub fn saw(&mut self, alarm: &Alarm) {
        if alarm.owned_by_policy.is_some() {
            self.newest.insert(alarm.name.clone(), alarm.recent.clone());
        }
    }

    pub fn forget(&mut self, alarm: &str) {
        self.newest.remove(alarm);
        self.answers.retain(|(_, asked), _| asked != alarm);
    }

    /// Of the alarms that the service's policies made for themselves.
    fn newest_of(&self, state: &State, key: &ServiceKey) -> Newest {
        let names = state.policies_of_service(key).flat_map(|p| p.alarms.iter());
        names.filter_map(|name| Some((name.clone(), self.newest.get(name)?.clone()))).collect()
    }
}

type Newest = BTreeMap<String, Vec<f64>>;

/// Lets every policy that the alarm names answer it. `alarm` carries the newest values, which the store may not.
pub async fn on_alarm(control: &Arc<Control>, asked: &mut Asked, alarm: &Alarm) {
    let state = control.store.snapshot();
    for action in &alarm.alarm_actions {
        let Some(policy) = policy_of(&state, action).cloned() else { continue };
        let newest = asked.newest_of(&state, &policy.service);
        let Some(code) = answer(control, &state, &policy, alarm, &newest) else { continue };
        let known = asked.answers.insert((policy.arn.clone(), alarm.name.clone()), code) == Some(code);
        let acts = matches!(code, ReasonCode::ScaledOut | ReasonCode::ScaledIn);
        if !acts && known {
            continue;
        }
        let span = tracing::info_span!("scaling.decide", service = %policy.service, policy = %policy.name, alarm = %alarm.name,
            code = code.as_str(), otel.name = "scaling.decide");
        observe::link(&span, alarm.trace.as_deref());
        let trace = span.in_scope(observe::traceparent);
        let (inner, alarm, action, cause) = (control.clone(), alarm.clone(), action.clone(), format!("policy {}", policy.arn));
        let stored = control
            .store
            .update(cause, move |tx| {
                let hops = run_policy(&inner.ids, tx, &policy, &alarm, &newest, &action, trace);
                Ok::<_, store::Error>((policy.service.clone(), hops))
            })
            .await;
        match stored {
            Ok((service, hops)) => hops.into_iter().for_each(|(stage, took)| observe::scaling_reaction(&service, stage, took)),
            Err(error) => tracing::error!(%error, "a scaling decision could not be stored; it is made again"),
        }
    }
}

/// What the policy would answer now.
fn answer(control: &Control, state: &State, policy: &ScalingPolicy, alarm: &Alarm, newest: &Newest) -> Option<ReasonCode> {
    let now = control.clock.now();
    with_inputs(state, policy, alarm, newest, |inputs| match autoscale::decide(inputs, now) {
        Scaling::To { reason, .. } | Scaling::Not { reason, .. } | Scaling::Wait { reason, .. } => reason.code,
    })
}

fn with_inputs<T>(
    state: &State,
    policy: &ScalingPolicy,
    alarm: &Alarm,
    newest: &Newest,
    f: impl FnOnce(&Inputs) -> T,
) -> Option<T> {
    let key = &policy.service;
    let service = state.services.get(key).filter(|s| s.status == ServiceStatus::Active)?;
    let target = state.targets.get(key)?;
    let others: Vec<Arc<ScalingPolicy>> = state
        .policies_of_service(key)
        .filter(|p| p.name != policy.name && matches!(&p.kind, PolicyKind::TargetTracking(t) if !t.disable_scale_in))
        .cloned()
        .collect();
    // The low alarm is the second that a policy made.
    let live = |name: &String| {
        let stored = state.alarms.get(name)?;
        Some(Alarm { recent: newest.get(name).unwrap_or(&stored.recent).clone(), ..(**stored).clone() })
    };
    let low: Vec<Option<Alarm>> = others.iter().map(|p| live(p.alarms.get(1)?)).collect();
    let siblings: Vec<(&ScalingPolicy, Option<&Alarm>)> =
        others.iter().zip(&low).map(|(policy, low)| (&**policy, low.as_ref())).collect();
    Some(f(&Inputs {
        policy,
        target,
        alarm,
        desired: service.desired_count,
        running: state.counts(key).running,
        deployment_in_progress: in_deployment(service),
        siblings: &siblings,
    }))
}

fn in_deployment(service: &Service) -> bool {
    service.deployments.len() > 1 || service.primary().is_some_and(|d| d.rollout == Rollout::InProgress)
}

/// The hops of a scale-out that are known with the decision, to be counted once it is durable.
fn run_policy(
    ids: &IdSource,
    tx: &mut Tx,
    policy: &ScalingPolicy,
    alarm: &Alarm,
    newest: &Newest,
    action: &str,
    trace: Option<String>,
) -> Vec<(Stage, Millis)> {
    let (now, mut hops) = (tx.now, Vec::new());
    let Some(policy) = tx.state().policies.get(&(policy.service.clone(), policy.name.clone())).cloned() else { return hops };
    let decided = with_inputs(tx.state(), &policy, alarm, newest, |inputs| {
        let scaling = autoscale::decide(inputs, now);
        let target = match &scaling {
            Scaling::To { desired, .. } => Some(autoscale::remember(inputs, *desired, now)),
            _ => None,
        };
        (scaling, target, Recorded::of(inputs))
    });
    let Some((scaling, target, recorded)) = decided else { return hops };
    let cause = activity::cause(&alarm.name, &policy.name);
    match scaling {
        Scaling::To { desired, reason } => {
            observe::scaling_decision(&policy.service, &policy.name, reason.code);
            tx.alarm_history(history::action(alarm, action, Ok(None), now));
            let reaction = (reason.code == ReasonCode::ScaledOut).then(|| begin_reaction(tx.state(), &policy, alarm, desired));
            hops.extend(reaction.iter().flatten().flat_map(|reaction| reaction::hops(reaction, now)));
            if let Some(target) = target {
                tx.put(target);
            }
            let reason = recorded.beside(reason);
            set(ids, tx, &policy.service, Set { desired, cause, reason, reaction: reaction.flatten(), trace });
        }
        Scaling::Not { reason, not_scaled } => {
            observe::scaling_decision(&policy.service, &policy.name, reason.code);
            note(tx, &policy.service, recorded.beside(reason), trace);
            not_scaled_activity(ids, tx, &policy.service, cause, not_scaled);
        }
        Scaling::Wait { reason, .. } => {
            observe::scaling_decision(&policy.service, &policy.name, reason.code);
            note(tx, &policy.service, recorded.beside(reason), trace);
        }
    }
    hops
}

fn begin_reaction(state: &State, policy: &ScalingPolicy, alarm: &Alarm, to: u32) -> Option<Reaction> {
    let (service, target) = (state.services.get(&policy.service)?, state.targets.get(&policy.service)?);
    let coming = state.live_tasks_of_service(&policy.service).filter(|task| !task.is_stopping()).count() as u32;
    Some(reaction::begin(&policy.name, alarm, target, service.desired_count, to, coming))
}

fn note(tx: &mut Tx, key: &ServiceKey, reason: Reason, trace: Option<String>) {
    tx.decide(Decision {
        at: tx.now,
        subject: Subject::Service(key.clone()),
        action: autoscale::NO_CHANGE.to_owned(),
        reason,
        trace,
    });
}

/// Consecutive attempts that did not scale for the same reason are one activity.
fn not_scaled_activity(ids: &IdSource, tx: &mut Tx, key: &ServiceKey, cause: String, why: NotScaledReason) {
    let same = |a: &Arc<ScalingActivity>| a.cause == cause && a.not_scaled.first().is_some_and(|n| n.code == why.code);
    if tx.state().activities_of_service(key).next().is_some_and(same) {
        return;
    }
    tx.put(ScalingActivity {
        id: ids.uuid(),
        service: key.clone(),
        description: activity::NOT_SCALED.to_owned(),
        cause,
        status: ActivityStatus::Failed,
        status_message: None,
        desired: None,
        not_scaled: vec![why],
        started_at: tx.now,
        ended_at: Some(tx.now),
        reaction: None,
    });
}

/// Ends activities when their service runs what they asked for, and notes how far scale-outs have come.
pub async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut watch = control.store.watch();
    let mut open: BTreeSet<ServiceKey> = control.store.snapshot().targets.keys().cloned().collect();
    loop {
        let state = control.store.snapshot();
        let moved: Vec<ServiceKey> = open.iter().filter(|key| has_moved(&state, key, control.clock.now())).cloned().collect();
        if !moved.is_empty()
            && let Err(error) = follow(&control, moved).await
        {
            tracing::error!(%error, "how far a scale-out has come could not be stored; it is looked at again when a task moves");
        }
        let fulfilled = fulfilled(&state, &mut open);
        if !fulfilled.is_empty()
            && let Err(error) = close(&control, fulfilled).await
        {
            tracing::error!(%error, "the end of a scaling activity could not be stored; it is tried again");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = super::until(&control.clock, super::alive(&control, "scaling", None)) => {}
            commit = watch.recv() => match commit {
                Ok(commit) => open.extend(commit.changes.iter().filter_map(|change| match change {
                    Change::Activity((key, _, _), _) => Some(key.clone()),
                    Change::Task(_, Some(task)) => task.service_key(),
                    _ => None,
                })),
                Err(RecvError::Lagged(_)) => open.extend(control.store.snapshot().targets.keys().cloned()),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

fn fulfilled(state: &State, keys: &mut BTreeSet<ServiceKey>) -> Vec<ServiceKey> {
    std::mem::take(keys)
        .into_iter()
        .filter(|key| {
            let Some(service) = state.services.get(key) else { return false };
            let counts = state.counts(key);
            counts.running == service.desired_count && counts.pending == 0 && !open_activities(state, key).is_empty()
        })
        .collect()
}

async fn close(control: &Control, keys: Vec<ServiceKey>) -> Result<(), store::Error> {
    control
        .store
        .update("scaling activities fulfilled", move |tx| {
            let now = tx.now;
            for key in &keys {
                for done in open_activities(tx.state(), key) {
                    let message = done.desired.map(activity::successful);
                    let status = ActivityStatus::Successful;
                    tx.put(ScalingActivity { status, status_message: message, ended_at: Some(now), ..(*done).clone() });
                }
            }
            Ok(())
        })
        .await
}

/// Of every open scale-out of the service: as it is kept, and as it is now.
fn advanced(state: &State, key: &ServiceKey, now: Timestamp) -> Vec<(Arc<ScalingActivity>, Reaction)> {
    let open = open_reactions(state, key);
    let Some(oldest) = open.iter().map(|activity| activity.started_at).min() else { return Vec::new() };
    let desired = state.services.get(key).map_or(0, |service| service.desired_count);
    let tasks: Vec<Made> = state
        .tasks_of_service(key)
        .filter(|task| task.created_at >= oldest)
        .map(|task| {
            let checked = state.definitions.get(&task.definition).is_some_and(|d| is_health_checked(d));
            let runs = task.last_status == TaskStatus::Running && !task.is_stopping();
            let healthy = runs && (!checked || task.health == Health::Healthy);
            Made { created_at: task.created_at, started_at: task.started_at, healthy, checked }
        })
        .collect();
    open.into_iter()
        .filter_map(|activity| {
            let reaction = activity.reaction.clone()?;
            let next = reaction::advance(&reaction, activity.started_at, desired, &tasks, now);
            (next != reaction).then_some((activity, next))
        })
        .collect()
}

fn has_moved(state: &State, key: &ServiceKey, now: Timestamp) -> bool {
    !advanced(state, key, now).is_empty()
}

async fn follow(control: &Control, keys: Vec<ServiceKey>) -> Result<(), store::Error> {
    let made = control
        .store
        .update("scale-outs followed", move |tx| {
            let mut made = Vec::new();
            for key in keys {
                for (activity, next) in advanced(tx.state(), &key, tx.now) {
                    let decided = activity.started_at;
                    let known = activity.reaction.as_ref().map(|r| reaction::hops(r, decided)).unwrap_or_default();
                    let new = reaction::hops(&next, decided).into_iter().filter(|hop| !known.contains(hop));
                    made.extend(new.map(|(stage, took)| (key.clone(), stage, took)));
                    if next.healthy_at.is_some() {
                        remember_reaction(tx, &key, &next, decided);
                    }
                    tx.put(ScalingActivity { reaction: Some(next), ..(*activity).clone() });
                }
            }
            Ok::<_, store::Error>(made)
        })
        .await?;
    for (key, stage, took) in made {
        observe::scaling_reaction(&key, stage, took);
    }
    Ok(())
}

fn remember_reaction(tx: &mut Tx, key: &ServiceKey, reaction: &Reaction, decided: Timestamp) {
    let trace = tx.state().services.get(key).and_then(|service| service.desired_trace.clone());
    tx.decide(Decision {
        at: tx.now,
        subject: Subject::Service(key.clone()),
        action: format!("scaled out {} -> {}", reaction.from, reaction.to),
        reason: reaction::reason(reaction, decided),
        trace,
    });
}
