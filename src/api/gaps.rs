//! What clients ask for and this release does not do: counted, so that nothing is ignored in silence. `GET /api/gaps` shows it.
//!
//! Two kinds: members that no shape of ours has (the wire names them), and known fields that are taken but change nothing
//! ([`KNOWN`] says what happens instead). Names come from clients, so they are cut and their number is bounded; they are never
//! metric labels.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Characters that are kept of a name.
const NAME_CHARS: usize = 64;
/// Distinct names that are kept; later ones are only counted.
const DISTINCT: usize = 1_000;

/// Fields that are accepted without effect, and what happens instead.
pub const KNOWN: &[(&str, &str)] = &[
    ("cluster.capacityProviders", "There are no capacity providers: tasks run on the cluster's own container instances."),
    ("cluster.configuration", "There is no ExecuteCommand and no managed storage to configure."),
    ("cluster.defaultCapacityProviderStrategy", "Tasks run on the cluster's own container instances."),
    ("cluster.serviceConnectDefaults", "There is no Service Connect."),
    ("cluster.settings.containerInsights", "Every container is measured all the time, whatever this says."),
    ("containerDefinitions.environmentFiles", "The files are not read; give the variables in environment."),
    (
        "containerDefinitions.logConfiguration.options",
        "Of awslogs only group, stream prefix and create-group act: delivery never blocks a container and never drops a line.",
    ),
    ("containerDefinitions.logConfiguration.secretOptions", "The options are not resolved."),
    ("containerDefinitions.portMappings.appProtocol", "There is no Service Connect."),
    ("containerDefinitions.portMappings.name", "There is no Service Connect."),
    ("containerDefinitions.secrets", "The secrets are not resolved; give the variables in environment."),
    ("executionRoleArn", "No AWS credentials are needed or handed out."),
    (
        "instance.include.CONTAINER_INSTANCE_HEALTH",
        "agentConnected says whether the instance can be reached; no more is answered.",
    ),
    ("runtimePlatform.cpuArchitecture", "Constrain tasks by memberOf on ecs.cpu-architecture."),
    ("service.alarms", "Alarms do not end a deployment."),
    ("service.assignPublicIp", "Tasks get an address on their host's own bridge network."),
    ("service.availabilityZoneRebalancing", "Running tasks are not moved; new ones are spread over zones."),
    ("service.bakeTimeInMinutes", "A deployment is complete as soon as its tasks are healthy."),
    ("service.capacityProviderStrategy", "Tasks run on the cluster's own container instances."),
    ("service.deploymentCircuitBreaker", "A failing deployment is throttled and tried again; it is never rolled back."),
    ("service.enableExecuteCommand", "There is no ExecuteCommand; use docker exec on the host."),
    ("service.launchType.FARGATE", "Tasks run on the cluster's own container instances."),
    ("service.lifecycleHooks", "Deployments call no hooks."),
    ("service.loadBalancers", "No load balancer is told of the tasks; their host ports are in DescribeTasks."),
    ("service.monitoring", "Every service is measured once a second."),
    ("service.platformVersion", "The platform is the host's own Docker."),
    ("service.role", "No load balancer is called, so the role is only echoed."),
    ("service.securityGroups", "Traffic to a task is not filtered."),
    ("service.serviceConnectConfiguration", "There is no Service Connect."),
    ("service.serviceRegistries", "Tasks are not registered in Cloud Map."),
    ("service.subnets", "The task's address is of its host's own bridge network."),
    ("service.volumeConfigurations", "No volume is made; declare volumes in the task definition."),
    ("service.vpcLatticeConfigurations", "No VPC Lattice is told of the tasks."),
    ("task.assignPublicIp", "The task gets an address on its host's own bridge network."),
    ("task.capacityProviderStrategy", "The task runs on the cluster's own container instances."),
    ("task.enableExecuteCommand", "There is no ExecuteCommand; use docker exec on the host."),
    ("task.launchType.FARGATE", "The task runs on the cluster's own container instances."),
    ("task.platformVersion", "The platform is the host's own Docker."),
    ("task.referenceId", "The reference is not kept."),
    ("task.securityGroups", "Traffic to the task is not filtered."),
    ("task.subnets", "The task's address is of its host's own bridge network."),
    ("task.volumeConfigurations", "No volume is made; declare volumes in the task definition."),
    ("taskRoleArn", "No AWS credentials are handed out: containers get none."),
];

/// Fields of task definitions are named by `decide::definition`; they all come to the same.
const KEPT: &str = "It is kept and shown, but changes nothing in this release.";

#[derive(Default)]
pub struct Gaps(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    unknown: BTreeMap<(String, String, String), u64>,
    without_effect: BTreeMap<String, u64>,
    /// Sightings of names beyond [`DISTINCT`].
    unnamed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub unknown: Vec<UnknownMember>,
    pub without_effect: Vec<WithoutEffect>,
    pub unnamed: u64,
}

/// A member that a client sent and no shape has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnknownMember {
    pub service: String,
    pub operation: String,
    pub name: String,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithoutEffect {
    pub path: String,
    pub instead: &'static str,
    pub count: u64,
}

impl Gaps {
    /// `name` as the wire says it: `CreateServiceInput.monitoring`.
    pub fn unknown(&self, service: &str, operation: &str, name: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cut(service), cut(operation), cut(name));
        let room = counts.room();
        let Counts { unknown, unnamed, .. } = &mut *counts;
        count(unknown, key, room, unnamed);
    }

    /// `path` is one of [`KNOWN`] or of `decide::definition::without_effect`.
    pub fn without_effect(&self, path: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = counts.room();
        let Counts { without_effect, unnamed, .. } = &mut *counts;
        count(without_effect, cut(path), room, unnamed);
    }

    /// Counts every path whose field was given.
    pub fn given(&self, fields: &[(&str, bool)]) {
        fields.iter().filter(|(_, given)| *given).for_each(|(path, _)| self.without_effect(path));
    }

    /// Most often seen first.
    pub fn report(&self) -> Report {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unknown: Vec<UnknownMember> = counts
            .unknown
            .iter()
            .map(|((service, operation, name), count)| UnknownMember {
                service: service.clone(),
                operation: operation.clone(),
                name: name.clone(),
                count: *count,
            })
            .collect();
        let mut without_effect: Vec<WithoutEffect> = counts
            .without_effect
            .iter()
            .map(|(path, count)| WithoutEffect { path: path.clone(), instead: instead(path), count: *count })
            .collect();
        unknown.sort_by_key(|u| std::cmp::Reverse(u.count));
        without_effect.sort_by_key(|w| std::cmp::Reverse(w.count));
        Report { unknown, without_effect, unnamed: counts.unnamed }
    }
}

impl Counts {
    fn room(&self) -> bool {
        self.unknown.len() + self.without_effect.len() < DISTINCT
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, room: bool, unnamed: &mut u64) {
    match counts.get_mut(&key) {
        Some(seen) => *seen += 1,
        None if room => drop(counts.insert(key, 1)),
        None => *unnamed += 1,
    }
}

fn cut(name: &str) -> String {
    name.chars().take(NAME_CHARS).collect()
}

fn instead(path: &str) -> &'static str {
    KNOWN.binary_search_by(|(known, _)| (*known).cmp(path)).map_or(KEPT, |at| KNOWN[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_paths_are_in_order_and_short() {
        assert!(KNOWN.windows(2).all(|w| w[0].0 < w[1].0), "the search needs the order");
        assert!(KNOWN.iter().all(|(path, instead)| path.len() <= NAME_CHARS && instead.ends_with('.')));
    }

    #[test]
    fn counted_by_name_most_often_first() {
        let gaps = Gaps::default();
        gaps.unknown("ecs", "CreateService", "CreateServiceInput.odd");
        gaps.given(&[("service.loadBalancers", true), ("service.role", false), ("service.monitoring", true)]);
        gaps.without_effect("service.monitoring");
        let report = gaps.report();
        assert_eq!(report.unknown[0].name, "CreateServiceInput.odd");
        let seen: Vec<_> = report.without_effect.iter().map(|w| (w.path.as_str(), w.count)).collect();
        assert_eq!(seen, [("service.monitoring", 2), ("service.loadBalancers", 1)]);
        assert_eq!(report.without_effect[0].instead, "Every service is measured once a second.");
    }

    #[test]
    fn a_client_cannot_fill_the_memory() {
        let gaps = Gaps::default();
        for i in 0..2_000 {
            gaps.unknown("ecs", "RunTask", &format!("{i}{}", "x".repeat(500)));
        }
        let report = gaps.report();
        assert_eq!((report.unknown.len(), report.unnamed), (DISTINCT, 1_000));
        assert!(report.unknown.iter().all(|u| u.name.chars().count() == NAME_CHARS));
    }
}
