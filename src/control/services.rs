//! Keeps services: whatever changes about one makes it dirty; a dirty one is compared with what it should be, and what `decide`
//! plans is applied if nothing has moved meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Control;
use crate::decide::definition::is_health_checked;
use crate::decide::service::{self as rules, Action, Plan, Planned, ServiceView};
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::instance::Instance;
use crate::model::service::{Rollout, Service, ServiceEvent, ServiceStatus};
use crate::model::task::Task;
use crate::model::{ClusterName, DeploymentId, InstanceId, ServiceKey, TaskId, Timestamp};
use crate::schedule::{self, Launch};
use crate::store::{self, Change, Commit, State, Tx};
use crate::{observe, schedule::Launched};

/// A service whose tasks found no place is looked at again when room appears, and at the latest after this.
const RETRY_PLACEMENT_MS: i64 = 5_000;

pub async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut watch = control.store.watch();
    let mut queue = Queue::default();
    queue.all(&control.store.snapshot());
    loop {
        queue.wake(control.clock.now());
        while let Some(key) = queue.dirty.pop_first() {
            let span = tracing::debug_span!("service.reconcile", service = %key);
            step(&control, &mut queue, key).instrument(span).await;
            super::alive(&control, "services", None);
        }
        // In this order each time, so that in a simulation the seed alone decides.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = super::until(&control.clock, super::alive(&control, "services", queue.next_wake())) => {}
            commit = watch.recv() => match commit {
                Ok(commit) => queue.note(&commit),
                Err(RecvError::Lagged(_)) => queue.all(&control.store.snapshot()),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Which services want a look, and when.
#[derive(Default)]
pub struct Queue {
    dirty: BTreeSet<ServiceKey>,
    timers: BTreeSet<(Timestamp, ServiceKey)>,
    /// Each service's one timer.
    timer_of: BTreeMap<ServiceKey, Timestamp>,
    /// Services with tasks that found no place.
    unplaced: BTreeSet<ServiceKey>,
    /// What was last said to be waited for, so that the ledger holds each once.
    waiting: BTreeMap<ServiceKey, Vec<ReasonCode>>,
}

impl Queue {
    fn all(&mut self, state: &State) {
        self.dirty.extend(state.services.values().filter(|s| s.status != ServiceStatus::Inactive).map(|s| s.key.clone()));
    }

    fn note(&mut self, commit: &Commit) {
        for change in &commit.changes {
            match change {
                Change::Service(key, _) => drop(self.dirty.insert(key.clone())),
                Change::Task(_, Some(task)) => {
                    self.dirty.extend(task.service_key());
                    if task.is_stopped() {
                        self.room(&task.cluster);
                    }
                }
                // An instance that comes, goes or drains concerns every service that has, or wants, tasks on it.
                Change::Instance(_, Some(instance)) => {
                    self.room(&instance.cluster);
                    self.dirty.extend(self.timer_of.keys().filter(|k| k.cluster == instance.cluster).cloned());
                }
                _ => {}
            }
        }
    }

    /// Something ended in this cluster: who found no place may find one now.
    fn room(&mut self, cluster: &ClusterName) {
        self.dirty.extend(self.unplaced.iter().filter(|k| k.cluster == *cluster).cloned());
    }

    fn wake(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timer(&key, None);
            self.dirty.insert(key);
        }
    }

    fn timer(&mut self, key: &ServiceKey, at: Option<Timestamp>) {
        if let Some(old) = self.timer_of.remove(key) {
            self.timers.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.timers.insert((at, key.clone()));
            self.timer_of.insert(key.clone(), at);
        }
    }

    fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }
}

/// Looks at one service and does what is due.
pub async fn step(control: &Arc<Control>, queue: &mut Queue, key: ServiceKey) {
    let state = control.store.snapshot();
    let Some(service) = state.services.get(&key).filter(|s| s.status != ServiceStatus::Inactive).cloned() else {
        queue.timer(&key, None);
        queue.unplaced.remove(&key);
        queue.waiting.remove(&key);
        return;
    };
    let now = control.clock.now();
    let begun = Instant::now();
    let plan = look(control, &state, &service, now);
    let mut wake_at = plan.wake_at;
    let news = queue.news(&key, &plan.waiting);
    if !plan.decisions.is_empty() || !news.is_empty() {
        let (guard, inner, name) = (state.service_moved(&key), control.clone(), key.clone());
        let applied = control
            .store
            .update(format!("reconcile {key}"), move |tx| {
                if tx.state().service_moved(&name) != guard {
                    return Ok(None);
                }
                for reason in news {
                    remember(tx, &name, "wait".to_owned(), reason, None);
                }
                Ok::<_, store::Error>(Some(apply(&inner, tx, &name, plan)))
            })
            .await;
        match applied {
            Ok(Some(refused)) => {
                let _ = if refused { queue.unplaced.insert(key.clone()) } else { queue.unplaced.remove(&key) };
                if refused {
                    wake_at = Some(wake_at.map_or(now + RETRY_PLACEMENT_MS, |at| at.min(now + RETRY_PLACEMENT_MS)));
                }
            }
            // Something moved: the commit that moved it has made the service dirty, or is about to.
            Ok(None) => wake_at = Some(now + 20),
            Err(error) => {
                tracing::error!(service = %key, %error, "a service's plan could not be stored; it is tried again");
                wake_at = Some(now + 1_000);
            }
        }
    }
    queue.timer(&key, wake_at);
    observe::reconciled(begun.elapsed());
}

impl Queue {
    /// The reasons for waiting that were not there at the last look.
    fn news(&mut self, key: &ServiceKey, waiting: &[Reason]) -> Vec<Reason> {
        let codes: Vec<ReasonCode> = waiting.iter().map(|r| r.code).collect();
        let before = self.waiting.insert(key.clone(), codes).unwrap_or_default();
        waiting.iter().filter(|r| !before.contains(&r.code)).cloned().collect()
    }
}

fn look(control: &Control, state: &State, service: &Service, now: Timestamp) -> Plan {
    let tasks: Vec<Arc<Task>> = state.live_tasks_of_service(&service.key).cloned().collect();
    let hosts: BTreeSet<&InstanceId> = tasks.iter().map(|t| &t.instance).collect();
    let instances: BTreeMap<InstanceId, Arc<Instance>> =
        hosts.into_iter().filter_map(|id| Some((id.clone(), state.instances.get(id)?.clone()))).collect();
    let health_checked = |task: &Task| state.definitions.get(&task.definition).is_some_and(|d| is_health_checked(d));
    let view = ServiceView {
        service,
        tasks: &tasks,
        instances: &instances,
        health_checked: &health_checked,
        settings: &control.settings.service,
    };
    rules::reconcile(&view, now)
}

fn remember(tx: &mut Tx, key: &ServiceKey, action: String, reason: Reason, trace: Option<String>) {
    tx.decide(Decision { at: tx.now, subject: Subject::Service(key.clone()), action, reason, trace });
}

/// Carries a plan out. True: some task found no place.
fn apply(control: &Control, tx: &mut Tx, key: &ServiceKey, plan: Plan) -> bool {
    let mut refused = false;
    for Planned { action, reason } in plan.decisions {
        match action {
            Action::Start { deployment, count, replacing } => {
                refused |= start(control, tx, key, &deployment, count, replacing, reason);
            }
            Action::Stop { task, code, text } => drop(schedule::stop(tx, &task, code, &text, reason)),
            Action::GiveUp { task, code, text } => schedule::give_up(tx, &task, code, &text, reason),
            Action::SetRollout { deployment, rollout, text } => {
                let mut trace = None;
                edit(tx, key, |service, now| {
                    if let Some(d) = service.deployments.iter_mut().find(|d| d.id == deployment) {
                        (d.rollout, d.rollout_reason, d.updated_at) = (rollout, text.clone(), now);
                        trace = d.trace.clone();
                    }
                });
                match rollout {
                    Rollout::Completed => observe::deployment_ended(key, "completed"),
                    Rollout::Failed => observe::deployment_ended(key, "failed"),
                    Rollout::InProgress => {}
                }
                remember(tx, key, format!("deployment {}", rollout.as_str()), reason, trace);
            }
            Action::DropDeployment { deployment } => {
                edit(tx, key, |service, _| service.deployments.retain(|d| d.id != deployment));
                remember(tx, key, format!("drop deployment {deployment}"), reason, None);
            }
            Action::Event(message) => event(control, tx, key, message),
            Action::SetSteady(steady) => {
                edit(tx, key, |service, _| {
                    service.steady = steady;
                    service.deployments.iter_mut().filter(|_| steady).for_each(|d| d.early_exits = 0);
                });
                remember(tx, key, if steady { "steady" } else { "not steady" }.to_owned(), reason, None);
            }
            Action::Inactivate => {
                edit(tx, key, |service, now| {
                    service.status = ServiceStatus::Inactive;
                    service.updated_at = now;
                    service.deployments.clear();
                });
                remember(tx, key, "service INACTIVE".to_owned(), reason, None);
            }
        }
    }
    refused
}

fn edit(tx: &mut Tx, key: &ServiceKey, change: impl FnOnce(&mut Service, Timestamp)) {
    if let Some(service) = tx.state().services.get(key) {
        let mut service = (**service).clone();
        change(&mut service, tx.now);
        tx.put(service);
    }
}

fn event(control: &Control, tx: &mut Tx, key: &ServiceKey, message: String) {
    let id = control.ids.uuid();
    edit(tx, key, |service, now| service.push_event(ServiceEvent { id, at: now, message }));
}

fn start(
    control: &Control,
    tx: &mut Tx,
    key: &ServiceKey,
    deployment: &DeploymentId,
    count: u32,
    replacing: u32,
    reason: Reason,
) -> bool {
    let Some(service) = tx.state().services.get(key).cloned() else { return false };
    let Some(of) = service.deployments.iter().find(|d| d.id == *deployment) else { return false };
    let Some(definition) = tx.state().definitions.get(&of.definition).cloned() else { return false };
    let span = tracing::info_span!(parent: None, "placement", service = %key, count, otel.name = "placement");
    let cause = service.desired_trace.as_deref().or(of.trace.as_deref());
    observe::set_parent(&span, cause);
    let entered = span.enter();
    let tags = match service.propagate_tags.as_deref() {
        Some("SERVICE") => service.tags.clone(),
        Some("TASK_DEFINITION") => definition.tags.clone(),
        _ => Vec::new(),
    };
    let launched = schedule::launch(
        tx,
        &control.ids,
        &Launch {
            cluster: &key.cluster,
            definition: &definition,
            count,
            group: &format!("service:{}", key.service),
            started_by: Some(deployment.to_string()),
            service: Some(&key.service),
            deployment: Some(deployment),
            launch_type: service.launch_type,
            overrides: &Default::default(),
            constraints: &service.placement_constraints,
            strategy: &service.placement_strategy,
            tags: &tags,
            trace: observe::traceparent().or_else(|| cause.map(str::to_owned)),
            reason: reason.clone(),
        },
    );
    drop(entered);
    observe::placements(launched.tasks.len(), launched.refusals.len());
    report(control, tx, key, launched, replacing, reason)
}

/// Events and ledger lines for what was started and what found no place.
fn report(control: &Control, tx: &mut Tx, key: &ServiceKey, launched: Launched, replacing: u32, reason: Reason) -> bool {
    if !launched.tasks.is_empty() {
        let ids: Vec<TaskId> = launched.tasks.iter().map(|t| t.id.clone()).collect();
        let replaced = replacing.min(ids.len() as u32);
        remember(tx, key, format!("start {} tasks", ids.len()), reason, launched.tasks[0].trace.clone());
        event(control, tx, key, rules::started_event(key.service.as_str(), &ids, replaced));
    }
    let Some(refusal) = launched.refusals.first() else { return false };
    let text = refusal.event_text();
    let message = format!("(service {}) {text}", key.service);
    let said = tx.state().services.get(key).is_some_and(|s| s.events.front().is_some_and(|e| e.message == message));
    if !said {
        let unplaced = launched.refusals.len();
        remember(tx, key, format!("{unplaced} tasks not placed"), refusal.reason.clone(), None);
        event(control, tx, key, message);
    }
    true
}
