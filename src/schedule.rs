//! Makes and ends tasks inside a transaction: the one way in for RunTask and for services alike. Chooses nothing itself: placement
//! and status rules are `decide`'s; this reads the candidates from the state and writes what was decided.

pub mod scaling;

use std::sync::Arc;

use crate::decide::placement::{self, Candidate, Outcome, Placer, Refusal, Request};
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

/// Tasks that are placed by one look at all the instances.
const SCANNED_AT_ONCE: u32 = 1_000;

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
    /// Whether to ask every instance why it will not do, when none does.
    pub explain: bool,
}

#[derive(Default)]
pub struct Launched {
    pub tasks: Vec<Arc<Task>>,
    /// How many found no place.
    pub refused: u32,
    /// Why, where it was asked for; the tasks are alike.
    pub refusal: Option<Refusal>,
}

/// Places and creates what can be placed; the rest comes back with the reason.
pub fn launch(tx: &mut Tx, ids: &IdSource, launch: &Launch) -> Launched {
    let parts = Parts::of(launch, ids.u64());
    let request = parts.request();
    let mut launched = Launched::default();
    let mut placer = tx.state().room(launch.cluster).and_then(|room| Placer::new(&request, room));
    if let Some(placer) = &mut placer {
        while launched.left(launch) > 0 {
            let Some((instance, reason)) = next(tx.state(), launch.cluster, placer) else { break };
            create(tx, ids, launch, &parts.origin, instance, reason, &mut launched);
        }
    }
    // Nothing fits, or the room cannot tell: all the instances are asked.
    let at_once = if placer.is_some() { 1 } else { SCANNED_AT_ONCE };
    while launched.refused == 0 && launched.left(launch) > 0 {
        if placer.is_some() && !launch.explain {
            launched.refused = launched.left(launch);
            break;
        }
        let hosts: Vec<InstanceId> = tx.state().instances_of_cluster(launch.cluster).map(|i| i.id.clone()).collect();
        let request = Request { count: launched.left(launch).min(at_once), ..parts.request() };
        scan(tx, ids, launch, &parts.origin, &request, &hosts, &mut launched);
    }
    launched
}

/// As [`launch`], on the one instance that the caller chose (StartTask): it must pass the same filters.
pub fn launch_on(tx: &mut Tx, ids: &IdSource, launch: &Launch, instance: &InstanceId) -> Launched {
    let parts = Parts::of(launch, ids.u64());
    let mut launched = Launched::default();
    scan(tx, ids, launch, &parts.origin, &parts.request(), std::slice::from_ref(instance), &mut launched);
    launched
}

/// What all the tasks of a launch have in common.
struct Parts<'a> {
    launch: &'a Launch<'a>,
    origin: Arc<Origin>,
    constraints: Vec<PlacementConstraint>,
    seed: u64,
}

impl<'a> Parts<'a> {
    fn of(launch: &'a Launch, seed: u64) -> Parts<'a> {
        let origin = Origin {
            cluster: launch.cluster.clone(),
            definition: launch.definition.key.clone(),
            group: launch.group.to_owned(),
            started_by: launch.started_by.clone(),
            service: launch.service.cloned(),
            deployment: launch.deployment.cloned(),
            launch_type: launch.launch_type,
            overrides: launch.overrides.clone(),
            reserved: definition::reserved(launch.definition, launch.overrides),
            tags: launch.tags.to_vec(),
            trace: launch.trace.clone(),
        };
        let constraints = [launch.constraints, &launch.definition.placement_constraints].concat();
        Parts { launch, origin: Arc::new(origin), constraints, seed }
    }

    fn request(&self) -> Request<'_> {
        Request {
            count: self.launch.count,
            resources: &self.origin.reserved,
            group: self.launch.group,
            constraints: &self.constraints,
            strategy: self.launch.strategy,
            of_service: self.launch.service.is_some(),
            seed: self.seed,
        }
    }
}

impl Launched {
    fn left(&self, launch: &Launch) -> u32 {
        launch.count.saturating_sub(self.tasks.len() as u32)
    }
}

fn next(state: &State, cluster: &ClusterName, placer: &mut Placer) -> Option<(InstanceId, Reason)> {
    let look = |id: &InstanceId, see: &mut dyn FnMut(&Instance, &Load)| {
        if let Some(instance) = state.instances.get(id) {
            see(instance, &state.load(id));
        }
    };
    placer.next(state.room(cluster)?, &look)
}

/// Asks each of these instances.
fn scan(
    tx: &mut Tx,
    ids: &IdSource,
    launch: &Launch,
    origin: &Arc<Origin>,
    request: &Request,
    among: &[InstanceId],
    launched: &mut Launched,
) {
    let instance = |id: &InstanceId| Some((tx.state().instances.get(id)?.clone(), tx.state().load(id)));
    let hosts: Vec<(Arc<Instance>, Arc<Load>)> = among.iter().filter_map(instance).collect();
    let candidates: Vec<Candidate> = hosts.iter().map(|(instance, load)| Candidate { instance, load }).collect();
    for outcome in placement::place(request, &candidates) {
        match outcome {
            Outcome::Placed { instance, reason } => create(tx, ids, launch, origin, instance, reason, launched),
            Outcome::Refused(refusal) => {
                launched.refused = launched.left(launch);
                launched.refusal.get_or_insert(refusal);
            }
        }
    }
}

fn create(
    tx: &mut Tx,
    ids: &IdSource,
    launch: &Launch,
    origin: &Arc<Origin>,
    instance: InstanceId,
    reason: Reason,
    launched: &mut Launched,
) {
    let task = new_task(tx, ids, launch, origin, instance, launched.tasks.first());
    let subject = Subject::Task { task: task.id.clone(), service: task.service_key() };
    let reason = Reason { sentence: format!("{}; {}", launch.reason.sentence, reason.sentence), ..reason };
    tx.decide(Decision { at: tx.now, subject, action: "start task".to_owned(), reason, trace: task.trace.clone() });
    let id = task.id.clone();
    tx.put(task);
    launched.tasks.extend(tx.state().tasks.get(&id).cloned());
}

/// `like` is one of the same launch as the store keeps it: what it shares with all that are alike is taken from there.
fn new_task(
    tx: &Tx,
    ids: &IdSource,
    launch: &Launch,
    origin: &Arc<Origin>,
    instance: InstanceId,
    like: Option<&Arc<Task>>,
) -> Task {
    let containers = match like {
        Some(like) => like.containers.iter().map(|c| Container::new(c.name.clone(), ids.uuid(), c.image.clone())).collect(),
        None => {
            let container = |c: &ContainerDefinition| Container::new(c.name.as_str().into(), ids.uuid(), c.image.as_str());
            launch.definition.containers.iter().map(container).collect()
        }
    };
    Task {
        // PROVISIONING is the state of a task that waits for its network interface.
        last_status: match launch.definition.network_mode {
            NetworkMode::Awsvpc => TaskStatus::Provisioning,
            _ => TaskStatus::Pending,
        },
        containers,
        ..Task::new(ids.task(), like.map_or(origin, |like| &like.origin).clone(), instance, tx.now)
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
