//! The state as the commits alone tell it: tables of our own, filled from the watch, so that the store's state, its indexes and its
//! disk can be held against something else than themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::alarm::Alarm;
use crate::model::cluster::Cluster;
use crate::model::definition::TaskDefinition;
use crate::model::instance::Instance;
use crate::model::scaling::{ScalableTarget, ScalingActivity, ScalingPolicy};
use crate::model::service::Service;
use crate::model::task::{Task, TaskStatus};
use crate::model::{ClusterName, DefinitionKey, InstanceId, ServiceKey, TaskId};
use crate::store::{Change, State};

#[derive(Default)]
pub struct Seen {
    pub revision: u64,
    pub clusters: BTreeMap<ClusterName, Arc<Cluster>>,
    pub definitions: BTreeMap<DefinitionKey, Arc<TaskDefinition>>,
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    pub instances: BTreeMap<InstanceId, Arc<Instance>>,
    pub alarms: BTreeMap<String, Arc<Alarm>>,
    pub targets: BTreeMap<ServiceKey, Arc<ScalableTarget>>,
    pub policies: BTreeMap<(ServiceKey, String), Arc<ScalingPolicy>>,
    pub activities: BTreeMap<(ServiceKey, i64, String), Arc<ScalingActivity>>,
    /// Tasks that were deleted, as they are some time after they have stopped.
    pub forgotten: BTreeSet<TaskId>,
    /// Tasks that have not stopped.
    live: BTreeSet<TaskId>,
    of_service: BTreeMap<ServiceKey, BTreeSet<TaskId>>,
    of_instance: BTreeMap<InstanceId, BTreeSet<TaskId>>,
}

impl Seen {
    pub fn of(state: &State) -> Seen {
        let mut seen = Seen { revision: state.revision, ..Seen::default() };
        fn put<K: Ord + Clone, V: Clone>(to: &mut Seen, rows: &imbl::OrdMap<K, V>, change: impl Fn(K, Option<V>) -> Change) {
            rows.iter().for_each(|(key, row)| to.apply(&change(key.clone(), Some(row.clone()))));
        }
        put(&mut seen, &state.clusters, Change::Cluster);
        put(&mut seen, &state.definitions, Change::Definition);
        put(&mut seen, &state.services, Change::Service);
        put(&mut seen, &state.tasks, Change::Task);
        put(&mut seen, &state.instances, Change::Instance);
        put(&mut seen, &state.alarms, Change::Alarm);
        put(&mut seen, &state.targets, Change::Target);
        put(&mut seen, &state.policies, Change::Policy);
        put(&mut seen, &state.activities, Change::Activity);
        seen
    }

    pub fn apply(&mut self, change: &Change) {
        fn put<K: Ord + Clone, V: Clone>(table: &mut BTreeMap<K, V>, key: &K, row: &Option<V>) {
            match row {
                Some(row) => drop(table.insert(key.clone(), row.clone())),
                None => drop(table.remove(key)),
            }
        }
        match change {
            Change::Cluster(key, row) => put(&mut self.clusters, key, row),
            Change::Definition(key, row) => put(&mut self.definitions, key, row),
            Change::Service(key, row) => put(&mut self.services, key, row),
            Change::Task(key, row) => {
                self.index(key, row.as_ref());
                if row.is_none() {
                    self.forgotten.insert(key.clone());
                }
                put(&mut self.tasks, key, row);
            }
            Change::Instance(key, row) => put(&mut self.instances, key, row),
            Change::Alarm(key, row) => put(&mut self.alarms, key, row),
            Change::Target(key, row) => put(&mut self.targets, key, row),
            Change::Policy(key, row) => put(&mut self.policies, key, row),
            Change::Activity(key, row) => put(&mut self.activities, key, row),
        }
    }

    fn index(&mut self, id: &TaskId, new: Option<&Arc<Task>>) {
        let Some(task) = new.or(self.tasks.get(id)).cloned() else { return };
        let is_live = new.is_some_and(|t| !t.is_stopped());
        let keep = |set: &mut BTreeSet<TaskId>| match is_live {
            true => set.insert(id.clone()),
            false => set.remove(id),
        };
        keep(&mut self.live);
        keep(self.of_instance.entry(task.instance.clone()).or_default());
        if let Some(key) = task.service_key() {
            keep(self.of_service.entry(key).or_default());
        }
    }

    pub fn live(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.live.iter().filter_map(|id| self.tasks.get(id))
    }

    pub fn live_of_service(&self, key: &ServiceKey) -> impl Iterator<Item = &Arc<Task>> {
        self.of_service.get(key).into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    pub fn live_of_instance(&self, id: &InstanceId) -> impl Iterator<Item = &Arc<Task>> {
        self.of_instance.get(id).into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    pub fn running(&self, key: &ServiceKey) -> Vec<TaskId> {
        self.live_of_service(key).filter(|t| t.last_status == TaskStatus::Running).map(|t| t.id.clone()).collect()
    }

    /// The first difference to a state, or None.
    pub fn differs(&self, state: &State) -> Option<String> {
        fn table<'a, K: Ord + std::fmt::Debug + 'a, V: PartialEq + std::fmt::Debug + 'a>(
            name: &str,
            ours: &BTreeMap<K, V>,
            theirs: impl Iterator<Item = (&'a K, &'a V)>,
        ) -> Option<String> {
            let theirs: BTreeMap<&K, &V> = theirs.collect();
            let missing = ours.iter().find(|(key, row)| theirs.get(key) != Some(row));
            let strange = theirs.iter().find(|(key, _)| !ours.contains_key(**key));
            let missing = missing.map(|(key, row)| format!("{name} {key:?}: seen {row:?}, is {:?}", theirs.get(key)));
            missing.or(strange.map(|(key, _)| format!("{name} {key:?} was never seen")))
        }
        if self.revision != state.revision {
            return Some(format!("revision {} seen, is {}", self.revision, state.revision));
        }
        table("cluster", &self.clusters, state.clusters.iter())
            .or_else(|| table("definition", &self.definitions, state.definitions.iter()))
            .or_else(|| table("service", &self.services, state.services.iter()))
            .or_else(|| table("task", &self.tasks, state.tasks.iter()))
            .or_else(|| table("instance", &self.instances, state.instances.iter()))
            .or_else(|| table("alarm", &self.alarms, state.alarms.iter()))
            .or_else(|| table("target", &self.targets, state.targets.iter()))
            .or_else(|| table("policy", &self.policies, state.policies.iter()))
            .or_else(|| table("activity", &self.activities, state.activities.iter()))
    }
}
