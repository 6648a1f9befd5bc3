//! What a container is created from: an assignment's definition resolved with what the agent knows of itself.

use std::collections::BTreeMap;

use super::engine::{ContainerSpec, RuntimeId};
use crate::decide::container::State;
use crate::model::definition::{ContainerDefinition, NetworkMode};
use crate::model::link::Assignment;
use crate::model::log::LogTarget;

/// What the control plane and the configuration told the agent, for its containers' environment.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub region: String,
    /// Where the containers' own OTLP goes.
    pub otlp_endpoint: Option<String>,
}

pub fn container_spec(task: &Assignment, index: usize, state: &State, surroundings: &Surroundings) -> ContainerSpec {
    let container = &task.containers[index];
    let own_network = task.network_mode == NetworkMode::Awsvpc;
    ContainerSpec {
        task: task.task.clone(),
        cluster: task.cluster.to_string(),
        service: task.service.as_ref().map(|s| s.to_string()),
        definition: task.definition.clone(),
        network_mode: task.network_mode,
        container: container.clone(),
        container_uuid: task.container_uuids.get(index).cloned().unwrap_or_default(),
        volumes: task.volumes.clone(),
        join_network: state.pause.runtime_id.clone().filter(|_| own_network),
        siblings: siblings(task, state),
        pid_mode: task.pid_mode.clone(),
        ipc_mode: task.ipc_mode.clone(),
        task_cpu: task.cpu,
        task_memory: task.memory,
        log_target: log_target(task, container),
        environment: environment(task, container, surroundings),
    }
}

fn siblings(task: &Assignment, state: &State) -> BTreeMap<String, RuntimeId> {
    let known = task.containers.iter().zip(&state.containers);
    known.filter_map(|(definition, known)| Some((definition.name.clone(), known.runtime_id.clone()?))).collect()
}

/// None for a driver other than `awslogs`, or without a group. An empty stream stands for the runtime id, which the engine alone knows:
/// the ECS agent names a stream so when there is no prefix.
pub fn log_target(task: &Assignment, container: &ContainerDefinition) -> Option<LogTarget> {
    let configuration = container.log_configuration.as_ref().filter(|c| c.log_driver == "awslogs")?;
    let options = configuration.options.as_ref()?;
    let stream = options
        .get("awslogs-stream-prefix")
        .filter(|prefix| !prefix.is_empty())
        .map_or_else(String::new, |prefix| format!("{prefix}/{}/{}", container.name, task.task));
    Some(LogTarget {
        group: options.get("awslogs-group")?.clone(),
        stream,
        create_group: options.get("awslogs-create-group").is_some_and(|v| v == "true"),
    })
}

/// Only what the task definition does not set itself.
fn environment(task: &Assignment, container: &ContainerDefinition, surroundings: &Surroundings) -> Vec<(String, String)> {
    let mut all = vec![
        ("AWS_REGION", surroundings.region.clone()),
        ("AWS_DEFAULT_REGION", surroundings.region.clone()),
        ("AWS_EXECUTION_ENV", "AWS_ECS_EC2".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", resource_attributes(task, container)),
    ];
    if let Some(endpoint) = &surroundings.otlp_endpoint {
        all.push(("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.clone()));
    }
    all.retain(|(name, value)| !value.is_empty() && !sets(container, name));
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn sets(container: &ContainerDefinition, name: &str) -> bool {
    container.environment.iter().flatten().any(|pair| pair.name.as_deref() == Some(name))
}

/// In OpenTelemetry's names for ECS resources; values cannot hold `,` or `=`, as AWS's names cannot.
fn resource_attributes(task: &Assignment, container: &ContainerDefinition) -> String {
    let name = task.service.as_ref().map_or_else(|| task.definition.family.to_string(), |s| s.to_string());
    let mut all = vec![
        ("service.name", name),
        ("service.instance.id", task.task.to_string()),
        ("aws.ecs.cluster.name", task.cluster.to_string()),
        ("aws.ecs.task.id", task.task.to_string()),
        ("aws.ecs.task.family", task.definition.family.to_string()),
        ("aws.ecs.task.revision", task.definition.revision.to_string()),
        ("container.name", container.name.clone()),
    ];
    if let Some(service) = &task.service {
        all.push(("aws.ecs.service.name", service.to_string()));
    }
    all.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
