//! Makes and ends tasks inside a transaction: the one way in for RunTask and for services alike. Chooses nothing itself: placement
//! and status rules are `decide`'s; this reads the candidates from the state and writes what was decided.

pub mod scaling;

use std::sync::Arc;

use crate::decide::placement::{self, Candidate, Outcome, Refusal, Request};
use crate::decide::{definition, task as rules};
use crate::ids::IdSource;
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::definition::{ContainerDefinition, NetworkMode, TaskDefinition};
use crate::model::instance::{Instance, Load};
use crate::model::placement::{PlacementConstraint, PlacementStrategy};
use crate::model::tag::Tag;
use crate::model::task::{Container, LaunchType, Origin, Overrides, StopCode, Task, TaskStatus};
use crate::model::{ClusterName, DeploymentId, InstanceId, ServiceKey, ServiceName, TaskId};
use crate::store::{State, Tx};

/// Tasks to make, all alike.
pub struct Launch<'a> {
    pub cluster: &'a ClusterName,
    pub definition: &'a TaskDefinition,
    pub count: u32,
    pub group: &'a str,
    pub started_by: Option<String>,
    pub service: Option<&'a ServiceName>,
    pub deployment: Option<&'a DeploymentId>,
    pub launch_type: LaunchType,
    pub overrides: &'a Overrides,
    /// The caller's or the service's; the task definition's own are added.
    pub constraints: &'a [PlacementConstraint],
    pub strategy: &'a [PlacementStrategy],
    pub tags: &'a [Tag],
    pub trace: Option<String>,
    /// Why the tasks are wanted: remembered with each.
    pub reason: Reason,
}

#[derive(Default)]
pub struct Launched {
    pub tasks: Vec<Task>,
    pub refusals: Vec<Refusal>,
}

/// Places and creates what can be placed; the rest comes back with the reasons.
pub fn launch(tx: &mut Tx, ids: &IdSource, launch: &Launch) -> Launched {
    launch_among(tx, ids, launch, |_| true)
}

/// As [`launch`], on the one instance that the caller chose (StartTask): it must pass the same filters.
pub fn launch_on(tx: &mut Tx, ids: &IdSource, launch: &Launch, instance: &InstanceId) -> Launched {
    launch_among(tx, ids, launch, |i| i.id == *instance)
}

fn launch_among(tx: &mut Tx, ids: &IdSource, launch: &Launch, among: impl Fn(&Instance) -> bool) -> Launched {
    let resources = definition::reserved(launch.definition, launch.overrides);
    let constraints = [launch.constraints, &launch.definition.placement_constraints].concat();
    let hosts: Vec<(Arc<Instance>, Arc<Load>)> = tx
        .state()
        .instances_of_cluster(launch.cluster)
        .filter(|i| among(i))
        .map(|i| (i.clone(), tx.state().load(&i.id)))
        .collect();
    let candidates: Vec<Candidate> = hosts.iter().map(|(instance, load)| Candidate { instance, load }).collect();
    let request = Request {
        count: launch.count,
        resources: &resources,
        group: launch.group,
        constraints: &constraints,
        strategy: launch.strategy,
        of_service: launch.service.is_some(),
        seed: ids.u64(),
    };
    let origin = Arc::new(Origin {
        cluster: launch.cluster.clone(),
        definition: launch.definition.key.clone(),
        group: launch.group.to_owned(),
        started_by: launch.started_by.clone(),
        service: launch.service.cloned(),
        deployment: launch.deployment.cloned(),
        launch_type: launch.launch_type,
        overrides: launch.overrides.clone(),
        reserved: resources.clone(),
        tags: launch.tags.to_vec(),
        trace: launch.trace.clone(),
    });
    let mut launched = Launched::default();
    for outcome in placement::place(&request, &candidates) {
        match outcome {
            Outcome::Placed { instance, reason } => {
                let task = new_task(tx, ids, launch, &origin, instance);
                let subject = Subject::Task { task: task.id.clone(), service: task.service_key() };
                let why = Reason { sentence: format!("{}; {}", launch.reason.sentence, reason.sentence), ..reason };
                tx.decide(Decision {
                    at: tx.now,
                    subject,
                    action: "start task".to_owned(),
                    reason: why,
                    trace: task.trace.clone(),
                });
                tx.put(task.clone());
                launched.tasks.push(task);
            }
            Outcome::Refused(refusal) => launched.refusals.push(refusal),
        }
    }
    launched
}

fn new_task(tx: &Tx, ids: &IdSource, launch: &Launch, origin: &Arc<Origin>, instance: InstanceId) -> Task {
    let container = |c: &ContainerDefinition| Container::new(c.name.as_str().into(), ids.uuid(), c.image.as_str());
    Task {
        // PROVISIONING is the state of a task that waits for its network interface.
        last_status: match launch.definition.network_mode {
            NetworkMode::Awsvpc => TaskStatus::Provisioning,
            _ => TaskStatus::Pending,
        },
        containers: launch.definition.containers.iter().map(container).collect(),
        ..Task::new(ids.task(), origin.clone(), instance, tx.now)
    }
}

/// Asks for a task's end. The task as it now is, or None when there is no such task.
pub fn stop(tx: &mut Tx, id: &TaskId, code: StopCode, text: &str, reason: Reason) -> Option<Arc<Task>> {
    let task = tx.state().tasks.get(id)?.clone();
    let Some(stopping) = rules::ask_to_stop(&task, code, text, tx.now) else { return Some(task) };
    remember(tx, &stopping, "stop task", reason);
    tx.put(stopping);
    tx.state().tasks.get(id).cloned()
}

/// Ends a task without its agent's word, because its instance is gone.
pub fn give_up(tx: &mut Tx, id: &TaskId, code: StopCode, text: &str, reason: Reason) {
    let Some(task) = tx.state().tasks.get(id).filter(|t| !t.is_stopped()).cloned() else { return };
    let gone = rules::give_up(&task, code, text, tx.now);
    remember(tx, &gone, "give up task", reason);
    tx.put(gone);
}

pub fn remember(tx: &mut Tx, task: &Task, action: &str, reason: Reason) {
    let subject = Subject::Task { task: task.id.clone(), service: task.service_key() };
    tx.decide(Decision { at: tx.now, subject, action: action.to_owned(), reason, trace: task.trace.clone() });
}

/// A new desired count, by whoever: the ledger says who and why.
pub fn set_desired(tx: &mut Tx, key: &ServiceKey, desired: u32, reason: Reason, trace: Option<String>) -> bool {
    let Some(service) = tx.state().services.get(key) else { return false };
    if service.desired_count == desired {
        return false;
    }
    let mut service = (**service).clone();
    let action = format!("desired {} -> {desired}", service.desired_count);
    service.desired_count = desired;
    service.updated_at = tx.now;
    service.steady = false;
    service.desired_trace = trace.clone();
    tx.put(service);
    tx.decide(Decision { at: tx.now, subject: Subject::Service(key.clone()), action, reason, trace });
    true
}

/// The revision that a client means by `family`, `family:revision` or an ARN: without a revision the newest ACTIVE one.
pub fn find_definition<'a>(state: &'a State, reference: &'a str) -> Option<&'a Arc<TaskDefinition>> {
    let name = crate::model::arn::short_name(reference);
    match name.split_once(':') {
        Some((family, revision)) => state.definitions.get(&crate::model::DefinitionKey::new(family, revision.parse().ok()?)),
        None => state.revisions(name).rev().find(|d| d.status == crate::model::definition::DefinitionStatus::Active),
    }
}

/// Why a person's call made or ended something.
pub fn asked_by_user(sentence: impl Into<String>) -> Reason {
    Reason::new(ReasonCode::SetByUser, sentence)
}
