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

/// Derived from the tables; rebuilt at start by applying every row.
#[derive(Clone, Debug, Default)]
struct Index {
    tasks_by_service: OrdSet<(ServiceKey, TaskId)>,
    /// Tasks that have not stopped, by service.
    live_by_service: OrdSet<(ServiceKey, TaskId)>,
    tasks_by_instance: OrdSet<(InstanceId, TaskId)>,
    tasks_by_cluster: OrdSet<(ClusterName, TaskId)>,
    /// When a stopped task may be forgotten is counted from here.
    stopped: OrdSet<(Timestamp, TaskId)>,
    instances_by_cluster: OrdSet<(ClusterName, InstanceId)>,
    alarms_by_metric: OrdSet<(MetricKey, String)>,
    loads: OrdMap<InstanceId, Arc<Load>>,
    counts: OrdMap<ServiceKey, Counts>,
    /// By launch type.
    cluster_counts: OrdMap<ClusterName, [Counts; 3]>,
    capacity: OrdMap<ClusterName, Capacity>,
    /// Moves whenever a service or a task of it changes: what a reconciliation relies on.
    service_moved: OrdMap<ServiceKey, u64>,
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
                self.index.service_moved.insert(key.clone(), revision);
            }
            Change::Task(key, row) => {
                let before = set(&mut self.tasks, key, row);
                if let Some(task) = before {
                    self.index.task(&task, revision, false);
                }
                if let Some(task) = row {
                    self.index.task(task, revision, true);
                }
            }
            Change::Instance(key, row) => {
                if let Some(old) = set(&mut self.instances, key, row) {
                    self.index.instances_by_cluster.remove(&(old.cluster.clone(), key.clone()));
                    entry(&mut self.index.capacity, &old.cluster).leave(&old);
                }
                if let Some(new) = row {
                    self.index.instances_by_cluster.insert((new.cluster.clone(), key.clone()));
                    entry(&mut self.index.capacity, &new.cluster).enter(new);
                }
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

    /// Every task of a service, stopped ones that are still remembered too.
    pub fn tasks_of_service<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a Arc<Task>> {
        range(&self.index.tasks_by_service, key, TaskId::new("")).filter_map(|id| self.tasks.get(id))
    }

    pub fn live_tasks_of_service<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a Arc<Task>> {
        range(&self.index.live_by_service, key, TaskId::new("")).filter_map(|id| self.tasks.get(id))
    }

    pub fn tasks_of_instance<'a>(&'a self, id: &'a InstanceId) -> impl Iterator<Item = &'a Arc<Task>> {
        range(&self.index.tasks_by_instance, id, TaskId::new("")).filter_map(|id| self.tasks.get(id))
    }

    pub fn tasks_of_cluster<'a>(&'a self, name: &'a ClusterName) -> impl Iterator<Item = &'a Arc<Task>> {
        range(&self.index.tasks_by_cluster, name, TaskId::new("")).filter_map(|id| self.tasks.get(id))
    }

    pub fn services_of_cluster<'a>(&'a self, name: &'a ClusterName) -> impl Iterator<Item = &'a Arc<Service>> {
        self.services.range(ServiceKey::new(name, "")..).take_while(move |(k, _)| k.cluster == *name).map(|(_, s)| s)
    }

    pub fn instances_of_cluster<'a>(&'a self, name: &'a ClusterName) -> impl Iterator<Item = &'a Arc<Instance>> {
        range(&self.index.instances_by_cluster, name, InstanceId::new("")).filter_map(|id| self.instances.get(id))
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
        self.index.loads.get(id).cloned().unwrap_or_default()
    }

    pub fn counts(&self, key: &ServiceKey) -> Counts {
        self.index.counts.get(key).copied().unwrap_or_default()
    }

    pub fn cluster_counts(&self, name: &ClusterName) -> Counts {
        let all = self.index.cluster_counts.get(name).copied().unwrap_or_default();
        all.into_iter().fold(Counts::default(), |sum, of| Counts {
            running: sum.running + of.running,
            pending: sum.pending + of.pending,
            stopping: sum.stopping + of.stopping,
        })
    }

    pub fn cluster_counts_of(&self, name: &ClusterName, kind: LaunchType) -> Counts {
        self.index.cluster_counts.get(name).map_or(Counts::default(), |all| all[kind as usize])
    }

    /// What the cluster's instances have in all.
    pub fn capacity(&self, name: &ClusterName) -> Capacity {
        self.index.capacity.get(name).copied().unwrap_or_default()
    }

    /// The commit that last changed the service or a task of it.
    pub fn service_moved(&self, key: &ServiceKey) -> u64 {
        self.index.service_moved.get(key).copied().unwrap_or(0)
    }
}

impl Index {
    /// Adds (`enter`) or takes away everything that is derived from this task.
    fn task(&mut self, task: &Arc<Task>, revision: u64, enter: bool) {
        let by = if enter { 1 } else { -1 };
        let put = |set: &mut OrdSet<(ServiceKey, TaskId)>, key: &ServiceKey| {
            let item = (key.clone(), task.id.clone());
            if enter { set.insert(item) } else { set.remove(&item) }
        };
        if let Some(key) = task.service_key() {
            put(&mut self.tasks_by_service, &key);
            if !task.is_stopped() {
                put(&mut self.live_by_service, &key);
            }
            tally(entry(&mut self.counts, &key), task, by);
            self.service_moved.insert(key, revision);
        }
        tally(&mut entry(&mut self.cluster_counts, &task.cluster)[task.launch_type as usize], task, by);
        let (by_instance, by_cluster) = ((task.instance.clone(), task.id.clone()), (task.cluster.clone(), task.id.clone()));
        if enter {
            self.tasks_by_instance.insert(by_instance);
            self.tasks_by_cluster.insert(by_cluster);
        } else {
            self.tasks_by_instance.remove(&by_instance);
            self.tasks_by_cluster.remove(&by_cluster);
        }
        match task.stopped_at.filter(|_| task.is_stopped()) {
            Some(at) if enter => drop(self.stopped.insert((at, task.id.clone()))),
            Some(at) => drop(self.stopped.remove(&(at, task.id.clone()))),
            None => self.load(task, by),
        }
    }

    fn load(&mut self, task: &Task, by: i32) {
        let load = Arc::make_mut(entry(&mut self.loads, &task.instance));
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
            let group = load.groups.entry(task.group.clone()).or_default();
            *group = group.saturating_add_signed(by);
            if *group == 0 {
                load.groups.remove(&task.group);
            }
        }
    }
}
