//! The state in memory: tables and, beside them, their indexes. Persistent maps, so that a snapshot is a pointer and a change
//! costs a logarithm; no loop ever scans all tasks.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::change::{ActivityKey, Change, PolicyKey};
use crate::model::alarm::Alarm;
use crate::model::cluster::Cluster;
use crate::model::definition::TaskDefinition;
use crate::model::instance::{Capacity, Instance, Load};
use crate::model::metric::MetricKey;
use crate::model::room::Room;
use crate::model::scaling::{ScalableTarget, ScalingActivity, ScalingPolicy};
use crate::model::service::Service;
use crate::model::task::{LaunchType, Task, TaskStatus};
use crate::model::{ClusterName, DefinitionKey, InstanceId, ServiceKey, TaskId, Timestamp};

#[derive(Clone, Debug, Default)]
pub struct State {
    /// Of the last commit.
    pub revision: u64,
    pub clusters: OrdMap<ClusterName, Arc<Cluster>>,
    pub definitions: OrdMap<DefinitionKey, Arc<TaskDefinition>>,
    pub services: OrdMap<ServiceKey, Arc<Service>>,
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    pub instances: OrdMap<InstanceId, Arc<Instance>>,
    pub alarms: OrdMap<String, Arc<Alarm>>,
    pub targets: OrdMap<ServiceKey, Arc<ScalableTarget>>,
    pub policies: OrdMap<PolicyKey, Arc<ScalingPolicy>>,
    pub activities: OrdMap<ActivityKey, Arc<ScalingActivity>>,
    index: Index,
}

/// Derived from the tables; rebuilt at start by applying every row. One entry per service, instance and cluster holds all that is
/// derived for it, and each task's id is in three small sets: of its service, its instance and its cluster.
#[derive(Clone, Debug, Default)]
struct Index {
    services: OrdMap<ServiceKey, OfService>,
    instances: OrdMap<InstanceId, OfInstance>,
    clusters: OrdMap<ClusterName, OfCluster>,
    /// When a stopped task may be forgotten is counted from here.
    stopped: OrdSet<(Timestamp, TaskId)>,
    alarms_by_metric: OrdSet<(MetricKey, String)>,
}

#[derive(Clone, Debug, Default)]
struct OfService {
    live: OrdSet<TaskId>,
    stopped: OrdSet<TaskId>,
    counts: Counts,
    /// Moves whenever the service or a task of it changes: what a reconciliation relies on.
    moved: u64,
}

#[derive(Clone, Debug, Default)]
struct OfInstance {
    tasks: OrdSet<TaskId>,
    load: Arc<Load>,
}

#[derive(Clone, Debug, Default)]
struct OfCluster {
    tasks: OrdSet<TaskId>,
    instances: OrdSet<InstanceId>,
    room: Arc<Room>,
    /// By launch type.
    counts: [Counts; 3],
}

/// How many tasks of a service (or cluster) stand where, as the API counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: u32,
    /// Not yet running and not stopping.
    pub pending: u32,
    pub stopping: u32,
}

fn tally(counts: &mut Counts, task: &Task, by: i32) {
    let field = match (task.last_status, task.is_stopping()) {
        (TaskStatus::Stopped, _) => return,
        (TaskStatus::Running, _) => &mut counts.running,
        (_, true) => &mut counts.stopping,
        _ => &mut counts.pending,
    };
    *field = field.saturating_add_signed(by);
}

/// Clones what is shared, so that older snapshots keep theirs.
fn entry<'a, K: Ord + Clone, V: Clone + Default>(map: &'a mut OrdMap<K, V>, key: &K) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.clone(), V::default());
    }
    map.get_mut(key).expect("just inserted")
}

fn set<K: Ord + Clone, V: Clone>(map: &mut OrdMap<K, V>, key: &K, row: &Option<V>) -> Option<V> {
    match row {
        Some(row) => map.insert(key.clone(), row.clone()),
        None => map.remove(key),
    }
}

fn range<'a, A: Ord + Clone, B: Ord + Clone>(index: &'a OrdSet<(A, B)>, first: &'a A, least: B) -> impl Iterator<Item = &'a B> {
    index.range((first.clone(), least)..).take_while(move |(a, _)| a == first).map(|(_, b)| b)
}

impl State {
    pub(super) fn apply(&mut self, change: &Change, revision: u64) {
        match change {
            Change::Cluster(key, row) => drop(set(&mut self.clusters, key, row)),
            Change::Definition(key, row) => drop(set(&mut self.definitions, key, row)),
            Change::Service(key, row) => {
                set(&mut self.services, key, row);
                entry(&mut self.index.services, key).moved = revision;
                self.forget_service(key);
            }
            Change::Task(key, row) => {
                let before = set(&mut self.tasks, key, row);
                match (before.as_deref(), row.as_deref()) {
                    (Some(old), Some(new)) if !same_place(old, new) => {
                        self.index.task(Some(old), None, revision);
                        self.index.task(None, Some(new), revision);
                    }
                    (old, new) => self.index.task(old, new, revision),
                }
                if let (Some(gone), None) = (before, row) {
                    gone.service_key().iter().for_each(|key| self.forget_service(key));
                }
            }
            Change::Instance(key, row) => {
                let (old, load) = (set(&mut self.instances, key, row), self.load(key));
                self.index.instance(old.as_deref(), row.as_deref(), &load, revision);
            }
            Change::Alarm(key, row) => {
                if let Some(old) = set(&mut self.alarms, key, row) {
                    self.index.alarms_by_metric.remove(&(old.metric.clone(), key.clone()));
                }
                if let Some(new) = row {
                    self.index.alarms_by_metric.insert((new.metric.clone(), key.clone()));
                }
            }
            Change::Target(key, row) => drop(set(&mut self.targets, key, row)),
            Change::Policy(key, row) => drop(set(&mut self.policies, key, row)),
            Change::Activity(key, row) => drop(set(&mut self.activities, key, row)),
        }
        self.revision = revision;
    }

    /// What is derived for a service goes when it and its last task are gone.
    fn forget_service(&mut self, key: &ServiceKey) {
        let unused = |of: &OfService| of.live.is_empty() && of.stopped.is_empty();
        if !self.services.contains_key(key) && self.index.services.get(key).is_some_and(unused) {
            self.index.services.remove(key);
        }
    }

    fn task_of<'a>(&'a self, id: &TaskId) -> Option<&'a Arc<Task>> {
        self.tasks.get(id)
    }

    /// Every task of a service, stopped ones that are still remembered too, in the order of their ids.
    pub fn tasks_of_service<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a Arc<Task>> {
        let of = self.index.services.get(key);
        let mut live = of.into_iter().flat_map(|of| &of.live).peekable();
        let mut stopped = of.into_iter().flat_map(|of| &of.stopped).peekable();
        let merged = std::iter::from_fn(move || match (live.peek(), stopped.peek()) {
            (Some(a), Some(b)) if b < a => stopped.next(),
            (None, Some(_)) => stopped.next(),
            _ => live.next(),
        });
        merged.filter_map(|id| self.task_of(id))
    }

    pub fn live_tasks_of_service<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a Arc<Task>> {
        self.index.services.get(key).into_iter().flat_map(|of| &of.live).filter_map(|id| self.task_of(id))
    }

    pub fn tasks_of_instance<'a>(&'a self, id: &'a InstanceId) -> impl Iterator<Item = &'a Arc<Task>> {
        self.index.instances.get(id).into_iter().flat_map(|of| &of.tasks).filter_map(|id| self.task_of(id))
    }

    pub fn tasks_of_cluster<'a>(&'a self, name: &'a ClusterName) -> impl Iterator<Item = &'a Arc<Task>> {
        self.index.clusters.get(name).into_iter().flat_map(|of| &of.tasks).filter_map(|id| self.task_of(id))
    }

    pub fn services_of_cluster<'a>(&'a self, name: &'a ClusterName) -> impl Iterator<Item = &'a Arc<Service>> {
        self.services.range(ServiceKey::new(name, "")..).take_while(move |(k, _)| k.cluster == *name).map(|(_, s)| s)
    }

    pub fn instances_of_cluster<'a>(&'a self, name: &'a ClusterName) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.index.clusters.get(name).into_iter().flat_map(|of| &of.instances).filter_map(|id| self.instances.get(id))
    }

    pub fn policies_of_service<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a Arc<ScalingPolicy>> {
        self.policies.range((key.clone(), String::new())..).take_while(move |((k, _), _)| k == key).map(|(_, p)| p)
    }

    /// Newest first.
    pub fn activities_of_service<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a Arc<ScalingActivity>> {
        let (from, to) = ((key.clone(), i64::MIN, String::new()), (key.clone(), i64::MAX, String::from(char::MAX)));
        self.activities.range(from..=to).rev().map(|(_, a)| a)
    }

    pub fn alarms_of_metric<'a>(&'a self, key: &'a MetricKey) -> impl Iterator<Item = &'a Arc<Alarm>> {
        range(&self.index.alarms_by_metric, key, String::new()).filter_map(|name| self.alarms.get(name))
    }

    /// A family's revisions, oldest first.
    pub fn revisions<'a>(&'a self, family: &'a str) -> impl DoubleEndedIterator<Item = &'a Arc<TaskDefinition>> {
        self.definitions.range(DefinitionKey::new(family, 0)..=DefinitionKey::new(family, u32::MAX)).map(|(_, d)| d)
    }

    /// Tasks that stopped before `at`, longest ago first.
    pub fn stopped_before(&self, at: Timestamp) -> impl Iterator<Item = &TaskId> {
        self.index.stopped.iter().take_while(move |(stopped, _)| *stopped < at).map(|(_, id)| id)
    }

    pub fn load(&self, id: &InstanceId) -> Arc<Load> {
        self.index.instances.get(id).map(|of| of.load.clone()).unwrap_or_default()
    }

    pub fn counts(&self, key: &ServiceKey) -> Counts {
        self.index.services.get(key).map(|of| of.counts).unwrap_or_default()
    }

    pub fn cluster_counts(&self, name: &ClusterName) -> Counts {
        let all = self.index.clusters.get(name).map(|of| of.counts).unwrap_or_default();
        all.into_iter().fold(Counts::default(), |sum, of| Counts {
            running: sum.running + of.running,
            pending: sum.pending + of.pending,
            stopping: sum.stopping + of.stopping,
        })
    }

    pub fn cluster_counts_of(&self, name: &ClusterName, kind: LaunchType) -> Counts {
        self.index.clusters.get(name).map_or(Counts::default(), |of| of.counts[kind as usize])
    }

    /// What the cluster's instances have in all.
    pub fn capacity(&self, name: &ClusterName) -> Capacity {
        self.room(name).map(|room| room.capacity()).unwrap_or_default()
    }

    /// Where tasks of the cluster may be placed.
    pub fn room(&self, name: &ClusterName) -> Option<&Arc<Room>> {
        self.index.clusters.get(name).map(|of| &of.room)
    }

    /// The commit that last changed the service or a task of it.
    pub fn service_moved(&self, key: &ServiceKey) -> u64 {
        self.index.services.get(key).map_or(0, |of| of.moved)
    }
}

impl Index {
    /// Keeps up everything that is derived from a task, which stays where it is: see [`same_place`].
    fn task(&mut self, before: Option<&Task>, after: Option<&Task>, revision: u64) {
        let Some(task) = after.or(before) else { return };
        let live = after.filter(|t| !t.is_stopped());
        let over = after.filter(|t| t.is_stopped());
        if let Some(key) = task.service_key() {
            let of = entry(&mut self.services, &key);
            hold(&mut of.live, before.filter(|t| !t.is_stopped()), live);
            hold(&mut of.stopped, before.filter(|t| t.is_stopped()), over);
            before.iter().for_each(|task| tally(&mut of.counts, task, -1));
            after.iter().for_each(|task| tally(&mut of.counts, task, 1));
            of.moved = revision;
        }
        let cluster = entry(&mut self.clusters, &task.cluster);
        hold(&mut cluster.tasks, before, after);
        before.iter().for_each(|task| tally(&mut cluster.counts[task.launch_type as usize], task, -1));
        after.iter().for_each(|task| tally(&mut cluster.counts[task.launch_type as usize], task, 1));

        let when = |task: Option<&Task>| task.filter(|t| t.is_stopped()).and_then(|t| Some((t.stopped_at?, t.id.clone())));
        let (was, is) = (when(before), when(after));
        if was != is {
            was.iter().for_each(|item| drop(self.stopped.remove(item)));
            is.into_iter().for_each(|item| drop(self.stopped.insert(item)));
        }

        let of = entry(&mut self.instances, &task.instance);
        hold(&mut of.tasks, before, after);
        let weighs = |task: &&Task| !(task.is_stopped() && task.stopped_at.is_some());
        let (lighter, heavier) = (before.filter(weighs), after.filter(weighs));
        if !same_weight(lighter, heavier) {
            let load = Arc::make_mut(&mut of.load);
            lighter.iter().for_each(|task| weigh(load, task, -1));
            heavier.iter().for_each(|task| weigh(load, task, 1));
            let room = Arc::make_mut(&mut cluster.room);
            for (task, by) in lighter.map(|t| (t, -1)).into_iter().chain(heavier.map(|t| (t, 1))) {
                let group = (!task.is_stopping()).then_some(task.group.as_str());
                room.task(&task.instance, &task.reserved, group, load, by, revision);
            }
        }
        if of.tasks.is_empty() {
            self.instances.remove(&task.instance);
        }
    }
}

impl Index {
    fn instance(&mut self, before: Option<&Instance>, after: Option<&Instance>, load: &Load, revision: u64) {
        if let (Some(old), Some(new)) = (before, after)
            && old.cluster == new.cluster
        {
            return Arc::make_mut(&mut entry(&mut self.clusters, &new.cluster).room).update(old, new, load, revision);
        }
        if let Some(old) = before {
            let of = entry(&mut self.clusters, &old.cluster);
            of.instances.remove(&old.id);
            Arc::make_mut(&mut of.room).leave(old, load, revision);
        }
        if let Some(new) = after {
            let of = entry(&mut self.clusters, &new.cluster);
            of.instances.insert(new.id.clone());
            Arc::make_mut(&mut of.room).enter(new, load, revision);
        }
    }
}

fn same_place(a: &Task, b: &Task) -> bool {
    a.instance == b.instance && (Arc::ptr_eq(&a.origin, &b.origin) || (a.service == b.service && a.cluster == b.cluster))
}

/// Most changes leave a task in its set.
fn hold(set: &mut OrdSet<TaskId>, before: Option<&Task>, after: Option<&Task>) {
    match (before, after) {
        (None, Some(task)) => drop(set.insert(task.id.clone())),
        (Some(task), None) => drop(set.remove(&task.id)),
        _ => {}
    }
}

fn same_weight(before: Option<&Task>, after: Option<&Task>) -> bool {
    match (before, after) {
        (None, None) => true,
        (Some(a), Some(b)) => a.is_stopping() == b.is_stopping() && (Arc::ptr_eq(&a.origin, &b.origin) || a.origin == b.origin),
        _ => false,
    }
}

fn weigh(load: &mut Load, task: &Task, by: i32) {
    load.tasks = load.tasks.saturating_add_signed(by);
    load.cpu = load.cpu.saturating_add_signed(by * task.reserved.cpu as i32);
    load.memory = load.memory.saturating_add_signed(by * task.reserved.memory as i32);
    for (ports, used) in [(&task.reserved.tcp_ports, &mut load.tcp_ports), (&task.reserved.udp_ports, &mut load.udp_ports)] {
        for port in ports {
            if by > 0 {
                used.insert(*port)
            } else {
                used.remove(port)
            };
        }
    }
    if !task.is_stopping() {
        let tasks = load.groups.get(task.group.as_str()).copied().unwrap_or(0).saturating_add_signed(by);
        match (tasks, load.groups.get_mut(task.group.as_str())) {
            (0, _) => drop(load.groups.remove(task.group.as_str())),
            (_, Some(known)) => *known = tasks,
            (_, None) => drop(load.groups.insert(task.group.as_str().into(), tasks)),
        }
    }
}
