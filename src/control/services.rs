//! Keeps services: whatever changes about one makes it dirty; a dirty one is compared with what it should be, and what `decide`
//! plans is applied if nothing has moved meanwhile.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Control;
use crate::decide::backoff;
use crate::decide::definition::is_health_checked;
use crate::decide::service::{self as rules, Action, Plan, Planned, ServiceView, Settings};
use crate::ids::IdSource;
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::instance::{Instance, InstanceStatus};
use crate::model::service::{Rollout, Service, ServiceEvent, ServiceStatus};
use crate::model::task::Task;
use crate::model::{ClusterName, DeploymentId, InstanceId, ServiceKey, TaskId, Timestamp};
use crate::schedule::{self, Launch};
use crate::store::{self, Change, Commit, State, Tx};
use crate::{observe, schedule::Launched};

/// A service whose tasks found no place is looked at again when something of the cluster has moved, and at the latest after this.
const RETRY_PLACEMENT_MS: i64 = 5_000;
/// Where things move all the time, so long after a refusal at the soonest: doubled with each refusal in a row, to the longest.
const REFUSED_PAUSE_MS: i64 = 50;
const REFUSED_PAUSE_MAX_MS: i64 = 2_000;
/// Asking every instance why it will not do costs a scan: once in so long, for a service that is refused again and again.
const EXPLAIN_EVERY_MS: i64 = 30_000;

pub async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut watch = control.store.watch();
    let mut queue = Queue::default();
    queue.all(&control.store.snapshot());
    let mut set_back = super::SetBack::at(control.clock.now());
    loop {
        let now = control.clock.now();
        if set_back.since_last(now) {
            queue.all(&control.store.snapshot());
        }
        queue.wake(now);
        while let Some(key) = queue.next_dirty() {
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
                Ok(commit) => queue.note(&commit, &control.store.snapshot()),
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
    unplaced: BTreeMap<ServiceKey, Unplaced>,
    /// How each instance stood when it was last heard of.
    standing: BTreeMap<InstanceId, Standing>,
    /// What was last said to be waited for, so that the ledger holds each once.
    waiting: BTreeMap<ServiceKey, Vec<ReasonCode>>,
}

/// A refusal stands while neither the service nor its cluster's room has moved.
struct Unplaced {
    service_moved: u64,
    room_moved: u64,
    refusals: u32,
    not_before: Timestamp,
    explained: Timestamp,
}

/// What of an instance concerns the services that have tasks on it.
type Standing = (InstanceStatus, bool, Option<Timestamp>);

impl Queue {
    fn all(&mut self, state: &State) {
        self.dirty.extend(state.services.values().filter(|s| s.status != ServiceStatus::Inactive).map(|s| s.key.clone()));
    }

    pub fn next_dirty(&mut self) -> Option<ServiceKey> {
        self.dirty.pop_first()
    }

    /// Makes dirty whom a commit concerns. `state` is of that commit or newer.
    pub fn note(&mut self, commit: &Commit, state: &State) {
        let mut moved = BTreeSet::new();
        for change in &commit.changes {
            match change {
                Change::Service(key, _) => drop(self.dirty.insert(key.clone())),
                Change::Task(_, Some(task)) => {
                    self.dirty.extend(task.service_key());
                    if task.is_stopped() {
                        moved.insert(&task.cluster);
                    }
                }
                Change::Instance(id, Some(instance)) => {
                    moved.insert(&instance.cluster);
                    let stands = (instance.status, instance.agent_connected, instance.disconnected_at);
                    if self.standing.insert(id.clone(), stands) != Some(stands) {
                        self.on_instance(id, state);
                    }
                }
                Change::Instance(id, None) => {
                    self.standing.remove(id);
                    self.on_instance(id, state);
                }
                _ => {}
            }
        }
        moved.into_iter().for_each(|cluster| self.room(cluster, commit.at));
    }

    /// An instance that comes, goes or drains concerns every service that has tasks on it.
    fn on_instance(&mut self, id: &InstanceId, state: &State) {
        self.dirty.extend(state.tasks_of_instance(id).filter(|t| !t.is_stopped()).filter_map(|t| t.service_key()));
    }

    /// Something ended or came in this cluster: who found no place may find one now.
    fn room(&mut self, cluster: &ClusterName, now: Timestamp) {
        let mut later = Vec::new();
        for (key, unplaced) in self.unplaced.range(ServiceKey::new(cluster, "")..).take_while(|(k, _)| k.cluster == *cluster) {
            match unplaced.not_before <= now {
                true => drop(self.dirty.insert(key.clone())),
                false if self.timer_of.get(key).is_none_or(|at| *at > unplaced.not_before) => {
                    later.push((key.clone(), unplaced.not_before));
                }
                false => {}
            }
        }
        later.into_iter().for_each(|(key, at)| self.timer(&key, Some(at)));
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
    let plan = look(&control.settings.service, &state, &service, now);
    let mut wake_at = plan.wake_at;
    let news = queue.news(&key, &plan.waiting);
    let only_starts = plan.decisions.iter().all(|d| matches!(d.action, Action::Start { .. }));
    if news.is_empty() && only_starts && !plan.decisions.is_empty() && queue.is_refused(&key, &state) {
        wake_at = Some(sooner(wake_at, now + RETRY_PLACEMENT_MS));
    } else if !plan.decisions.is_empty() || !news.is_empty() {
        let explain = queue.unplaced.get(&key).is_none_or(|u| now.since(u.explained) >= EXPLAIN_EVERY_MS);
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
                let refused = apply(&inner.ids, tx, &name, plan, explain);
                Ok::<_, store::Error>(Some((refused, tx.state().service_moved(&name), room_moved(tx.state(), &name))))
            })
            .await;
        match applied {
            Ok(Some((true, service_moved, room_moved))) => {
                let before = queue.unplaced.get(&key);
                let refusals = before.map_or(0, |u| u.refusals).saturating_add(1);
                let pause = backoff::exponential(refusals, REFUSED_PAUSE_MS, REFUSED_PAUSE_MAX_MS);
                let explained = before.filter(|_| !explain).map_or(now, |u| u.explained);
                let unplaced = Unplaced { service_moved, room_moved, refusals, not_before: now + pause, explained };
                queue.unplaced.insert(key.clone(), unplaced);
                wake_at = Some(sooner(wake_at, now + RETRY_PLACEMENT_MS));
            }
            Ok(Some((false, ..))) => drop(queue.unplaced.remove(&key)),
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

fn sooner(at: Option<Timestamp>, other: Timestamp) -> Timestamp {
    at.map_or(other, |at| at.min(other))
}

fn room_moved(state: &State, key: &ServiceKey) -> u64 {
    state.room(&key.cluster).map_or(0, |room| room.moved())
}

impl Queue {
    /// Whether its tasks found no place, and nothing has moved since that could make one.
    fn is_refused(&self, key: &ServiceKey, state: &State) -> bool {
        self.unplaced
            .get(key)
            .is_some_and(|u| (u.service_moved, u.room_moved) == (state.service_moved(key), room_moved(state, key)))
    }

    /// The reasons for waiting that were not there at the last look.
    fn news(&mut self, key: &ServiceKey, waiting: &[Reason]) -> Vec<Reason> {
        let codes: Vec<ReasonCode> = waiting.iter().map(|r| r.code).collect();
        let before = self.waiting.insert(key.clone(), codes).unwrap_or_default();
        waiting.iter().filter(|r| !before.contains(&r.code)).cloned().collect()
    }
}

/// What is to be done for a service.
pub fn look(settings: &Settings, state: &State, service: &Service, now: Timestamp) -> Plan {
    let tasks: Vec<Arc<Task>> = state.live_tasks_of_service(&service.key).cloned().collect();
    let hosts: BTreeSet<&InstanceId> = tasks.iter().map(|t| &t.instance).collect();
    let instances: BTreeMap<InstanceId, Arc<Instance>> =
        hosts.into_iter().filter_map(|id| Some((id.clone(), state.instances.get(id)?.clone()))).collect();
    let health_checked = |task: &Task| state.definitions.get(&task.definition).is_some_and(|d| is_health_checked(d));
    let view = ServiceView { service, tasks: &tasks, instances: &instances, health_checked: &health_checked, settings };
    rules::reconcile(&view, now)
}

fn remember(tx: &mut Tx, key: &ServiceKey, action: String, reason: Reason, trace: Option<String>) {
    tx.decide(Decision { at: tx.now, subject: Subject::Service(key.clone()), action, reason, trace });
}

/// Carries a plan out. True: some task found no place, and `explain` says whether to find out why.
pub fn apply(ids: &IdSource, tx: &mut Tx, key: &ServiceKey, plan: Plan, explain: bool) -> bool {
    let mut refused = false;
    for Planned { action, reason } in plan.decisions {
        match action {
            Action::Start { deployment, count, replacing } => {
                refused |= start(ids, tx, key, &Starts { deployment, count, replacing, explain }, reason);
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
            Action::Event(message) => event(ids, tx, key, message),
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

fn event(ids: &IdSource, tx: &mut Tx, key: &ServiceKey, message: String) {
    let id = ids.uuid();
    edit(tx, key, |service, now| service.push_event(ServiceEvent { id, at: now, message }));
}

struct Starts {
    deployment: DeploymentId,
    count: u32,
    replacing: u32,
    explain: bool,
}

fn start(ids: &IdSource, tx: &mut Tx, key: &ServiceKey, starts: &Starts, reason: Reason) -> bool {
    let Starts { deployment, count, replacing, explain } = starts;
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
        ids,
        &Launch {
            cluster: &key.cluster,
            definition: &definition,
            count: *count,
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
            explain: *explain,
        },
    );
    drop(entered);
    observe::placements(launched.tasks.len(), launched.refused as usize);
    report(ids, tx, key, launched, *replacing, reason)
}

/// Events and ledger lines for what was started and what found no place.
fn report(ids: &IdSource, tx: &mut Tx, key: &ServiceKey, launched: Launched, replacing: u32, reason: Reason) -> bool {
    if !launched.tasks.is_empty() {
        let started: Vec<TaskId> = launched.tasks.iter().map(|t| t.id.clone()).collect();
        let replaced = replacing.min(started.len() as u32);
        remember(tx, key, format!("start {} tasks", started.len()), reason, launched.tasks[0].trace.clone());
        event(ids, tx, key, rules::started_event(key.service.as_str(), &started, replaced));
    }
    let Some(refusal) = launched.refusal else { return launched.refused > 0 };
    let text = refusal.event_text();
    let message = format!("(service {}) {text}", key.service);
    let said = tx.state().services.get(key).is_some_and(|s| s.events.front().is_some_and(|e| e.message == message));
    if !said {
        let unplaced = launched.refused;
        remember(tx, key, format!("{unplaced} tasks not placed"), refusal.reason.clone(), None);
        event(ids, tx, key, message);
    }
    true
}
