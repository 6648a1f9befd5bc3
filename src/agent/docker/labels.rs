//! How our containers, volumes and networks are named and labelled. Labels are the agent's only memory: after a restart it adopts by
//! them alone. Everything is marked with the installation, so that two Beauforts on one Docker never touch each other's things.

use std::collections::HashMap;

use super::DockerConfig;
use super::jsonfile::hash;
use crate::agent::engine::ContainerSpec;
use crate::model::definition::NetworkMode;
use crate::model::log::LogTarget;
use crate::model::{ClusterName, ContainerName, TaskId};

pub const INSTALLATION: &str = "beaufort.installation";
pub const TASK: &str = "beaufort.task";
pub const CONTAINER: &str = "beaufort.container";
pub const CONTAINER_UUID: &str = "beaufort.container-uuid";
pub const SERVICE: &str = "beaufort.service";
/// A network or a pause container: its cluster.
pub const CLUSTER: &str = "beaufort.cluster";
/// What the container sees of the network, to count its traffic once.
pub const NETWORK: &str = "beaufort.network";
/// The Docker network that the agent was told to put bridge tasks on.
pub const TASK_NETWORK: &str = "beaufort.task-network";
/// Host mode: the ports in use, as `80/tcp,53/udp`, as Docker knows of none.
pub const HOST_PORTS: &str = "beaufort.host-ports";
/// The container whose namespaces the task's others share with pid or ipc mode `task`.
pub const LEADER: &str = "beaufort.namespace-leader";
pub const LOG_GROUP: &str = "beaufort.log-group";
pub const LOG_STREAM: &str = "beaufort.log-stream";
pub const LOG_CREATE_GROUP: &str = "beaufort.log-create-group";
pub const BINARY: &str = "beaufort.binary";

/// The ECS agent's name for the container that holds an awsvpc task's network.
pub const PAUSE: &str = "~internal~ecs~pause";

/// Eight digits that stand for the installation in names.
pub fn short(installation: &str) -> String {
    format!("{:08x}", hash(installation.as_bytes()) as u32)
}

/// Twenty hexadecimal digits from what they name, so that making a thing twice is a name conflict and never two things.
fn hex20(installation: &str, task: &TaskId, what: &str) -> String {
    let seed = format!("{installation}/{task}/{what}");
    format!("{:016x}{:04x}", hash(seed.as_bytes()), hash(format!("{seed}/").as_bytes()) as u16)
}

/// `ecs-<family>-<revision>-<name without other than letters, digits and hyphens>-<20 hex>`, as the ECS agent names containers.
pub fn container_name(installation: &str, spec: &ContainerSpec) -> String {
    let name = &spec.container.name;
    let kept: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let hex = hex20(installation, &spec.task, name);
    format!("ecs-{}-{}-{kept}-{hex}", spec.definition.family, spec.definition.revision)
}

/// `ecs-<family>-<revision>-<volume>-<20 hex>`: a volume that lives as long as its task.
pub fn volume_name(installation: &str, spec: &ContainerSpec, volume: &str) -> String {
    let hex = hex20(installation, &spec.task, &format!("volume/{volume}"));
    format!("ecs-{}-{}-{volume}-{hex}", spec.definition.family, spec.definition.revision)
}

/// Labels cannot be changed, so a warm pause container is given to a task by its name.
pub fn pause_name(installation: &str, task: &TaskId) -> String {
    format!("beaufort-{}-pause-{task}", short(installation))
}

pub fn pool_name(installation: &str, unique: &str) -> String {
    format!("beaufort-{}-pool-{unique}", short(installation))
}

pub fn task_of_pause_name(installation: &str, name: &str) -> Option<TaskId> {
    let task = name.trim_start_matches('/').strip_prefix(&format!("beaufort-{}-pause-", short(installation)))?;
    Some(TaskId::new(task))
}

pub fn network_name(installation: &str, cluster: &str) -> String {
    format!("beaufort-{}-{cluster}", short(installation))
}

/// The parent cgroup of all tasks of the installation.
pub fn groups(installation: &str) -> String {
    format!("/beaufort/{}", short(installation))
}

pub fn task_group(installation: &str, task: &TaskId) -> String {
    format!("{}/{task}", groups(installation))
}

pub fn of_container(config: &DockerConfig, spec: &ContainerSpec) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = spec.container.docker_labels.clone().unwrap_or_default().into_iter().collect();
    let mut put = |key: &str, value: String| {
        labels.insert(key.to_owned(), value);
    };
    // The ECS agent forces these last: a user's label of the same name does not survive.
    put("com.amazonaws.ecs.task-arn", config.home.task(&ClusterName::new(&spec.cluster), &spec.task));
    put("com.amazonaws.ecs.container-name", spec.container.name.clone());
    put("com.amazonaws.ecs.task-definition-family", spec.definition.family.to_string());
    put("com.amazonaws.ecs.task-definition-version", spec.definition.revision.to_string());
    put("com.amazonaws.ecs.cluster", spec.cluster.clone());
    put(INSTALLATION, config.installation.clone());
    put(TASK, spec.task.to_string());
    put(CONTAINER, spec.container.name.clone());
    put(CONTAINER_UUID, spec.container_uuid.clone());
    if let Some(service) = &spec.service {
        put(SERVICE, service.clone());
    }
    put(NETWORK, network_label(spec).to_owned());
    if let Some(network) = config.task_network.as_ref().filter(|_| network_label(spec) == "own") {
        put(TASK_NETWORK, network.clone());
    }
    if spec.network_mode == NetworkMode::Host {
        let ports: Vec<String> = spec.container.port_mappings.iter().flatten().filter_map(host_port).collect();
        put(HOST_PORTS, ports.join(","));
    }
    if spec.siblings.is_empty() {
        put(LEADER, "1".to_owned());
    }
    if let Some(target) = &spec.log_target {
        put(LOG_GROUP, target.group.clone());
        put(LOG_STREAM, target.stream.clone());
        put(LOG_CREATE_GROUP, target.create_group.to_string());
    }
    labels
}

fn host_port(mapping: &crate::model::definition::PortMapping) -> Option<String> {
    Some(format!("{}/{}", mapping.container_port?, mapping.protocol.as_deref().unwrap_or("tcp")))
}

fn network_label(spec: &ContainerSpec) -> &'static str {
    match spec.network_mode {
        _ if spec.join_network.is_some() => "task",
        _ if spec.container.disable_networking == Some(true) => "none",
        NetworkMode::Bridge => "own",
        NetworkMode::Host => "host",
        NetworkMode::Awsvpc | NetworkMode::None => "none",
    }
}

/// Whose container this is, or None when it is none of ours or belongs to no task (a warm pause).
pub fn owner(installation: &str, name: &str, labels: &HashMap<String, String>) -> Option<(TaskId, ContainerName)> {
    if labels.get(INSTALLATION).is_none_or(|i| i != installation) {
        return None;
    }
    let container = ContainerName::new(labels.get(CONTAINER)?);
    let task = match labels.get(TASK) {
        Some(task) => TaskId::new(task),
        None => task_of_pause_name(installation, name)?,
    };
    Some((task, container))
}

pub fn log_target(labels: &HashMap<String, String>) -> Option<LogTarget> {
    Some(LogTarget {
        group: labels.get(LOG_GROUP)?.clone(),
        stream: labels.get(LOG_STREAM)?.clone(),
        create_group: labels.get(LOG_CREATE_GROUP).is_some_and(|c| c == "true"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        let task = TaskId::new("0123456789abcdef0123456789abcdef");
        assert_eq!(task_of_pause_name("one", &format!("/{}", pause_name("one", &task))), Some(task.clone()));
        assert_eq!(task_of_pause_name("two", &pause_name("one", &task)), None, "another installation's");
        assert_eq!(task_of_pause_name("one", &pool_name("one", "x")), None, "a warm one has no task");
        assert_eq!(hex20("one", &task, "web").len(), 20);
        assert_ne!(hex20("one", &task, "web"), hex20("one", &task, "log"));
    }
}
