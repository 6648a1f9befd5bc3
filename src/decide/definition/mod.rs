//! Registration of a task definition: checks with AWS's own messages, defaults, and what a task of it reserves.
//!
//! Start reading at [`register`]. Where the exact text that ECS answers is known, it is here to the letter; where it is not, the
//! message follows the form of those that are.

mod containers;
mod depends;
mod derive;
mod effective;
mod ports;
mod runtime;
mod size;
#[cfg(test)]
mod tests;
mod volumes;

use crate::model::definition::{ContainerDefinition, DefinitionStatus, NetworkMode, RuntimePlatform, TaskDefinition, Volume};
use crate::model::placement::PlacementConstraint;
use crate::model::tag::Tag;
use crate::model::{DefinitionKey, Timestamp};

use super::placement;

pub use derive::{compatibilities, is_health_checked, required_attributes, without_effect};
pub use effective::{effective_containers, effective_size, reserved};

/// Service quotas: "Containers per task definition: 10".
const MAX_CONTAINERS: usize = 10;
/// Service quotas: "Task definition size: 64 KiB".
const MAX_BYTES: usize = 65_536;
/// Service quotas: "Revisions per task definition family: 1,000,000".
const MAX_REVISION: u32 = 1_000_000;
/// Ours: lists that AWS bounds only by the size of the whole.
const MAX_VOLUMES: usize = 100;

/// What a client registers. Tags are checked where every resource's tags are: by the API.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub family: String,
    pub containers: Vec<ContainerDefinition>,
    pub volumes: Vec<Volume>,
    pub network_mode: Option<NetworkMode>,
    pub cpu: Option<String>,
    pub memory: Option<String>,
    pub placement_constraints: Vec<PlacementConstraint>,
    pub requires_compatibilities: Vec<String>,
    pub pid_mode: Option<String>,
    pub ipc_mode: Option<String>,
    pub task_role_arn: Option<String>,
    pub execution_role_arn: Option<String>,
    pub runtime_platform: Option<RuntimePlatform>,
    pub tags: Vec<Tag>,
}

/// Why a definition, or an override of one, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    pub kind: InvalidKind,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKind {
    /// ClientException.
    Client,
    /// InvalidParameterException.
    Parameter,
}

fn client(message: impl Into<String>) -> Invalid {
    Invalid { kind: InvalidKind::Client, message: message.into() }
}

fn parameter(message: impl Into<String>) -> Invalid {
    Invalid { kind: InvalidKind::Parameter, message: message.into() }
}

/// The definition as it is stored and described: checked, with its defaults filled in.
pub fn register(draft: Draft, revision: u32, now: Timestamp) -> Result<TaskDefinition, Invalid> {
    check_family(&draft.family, revision)?;
    check_size_and_count(&draft.containers)?;
    let network_mode = draft.network_mode.unwrap_or_default();
    for container in &draft.containers {
        containers::check(container)?;
        runtime::check(container)?;
        ports::check(container, network_mode)?;
    }
    check_together(&draft.containers)?;
    ports::check_together(&draft.containers, network_mode)?;
    depends::check(&draft.containers)?;
    volumes::check(&draft.volumes, &draft.containers)?;
    check_modes(&draft)?;
    placement::check_of_definition(&draft.placement_constraints).map_err(client)?;
    let task = size::read(&draft.cpu, &draft.memory).map_err(client)?;
    size::check_containers(&draft.containers, task)?;
    let mut definition = TaskDefinition {
        key: DefinitionKey::new(&draft.family, revision),
        status: DefinitionStatus::Active,
        containers: draft.containers,
        volumes: draft.volumes,
        network_mode,
        network_mode_given: draft.network_mode.is_some(),
        cpu: task.cpu,
        memory: task.memory,
        placement_constraints: draft.placement_constraints,
        requires_compatibilities: draft.requires_compatibilities,
        pid_mode: draft.pid_mode,
        ipc_mode: draft.ipc_mode,
        task_role_arn: draft.task_role_arn,
        execution_role_arn: draft.execution_role_arn,
        runtime_platform: draft.runtime_platform,
        tags: draft.tags,
        registered_at: now,
        deregistered_at: None,
    };
    check_compatibilities(&definition)?;
    for container in &mut definition.containers {
        containers::fill(container);
        ports::fill(container, network_mode);
    }
    Ok(definition)
}

fn check_family(family: &str, revision: u32) -> Result<(), Invalid> {
    if family.is_empty() {
        return Err(client("Family should not be null or empty."));
    }
    if family.len() > 255 {
        return Err(client("Family should not be longer than 255 characters."));
    }
    if !containers::is_name(family) {
        return Err(client("Family contains invalid characters."));
    }
    if !(1..=MAX_REVISION).contains(&revision) {
        return Err(client(format!("The family {family} has reached its limit of {MAX_REVISION} revisions.")));
    }
    Ok(())
}

fn check_size_and_count(containers: &[ContainerDefinition]) -> Result<(), Invalid> {
    if containers.is_empty() {
        return Err(client("Container list cannot be empty."));
    }
    if containers.len() > MAX_CONTAINERS {
        return Err(client("Too many containers."));
    }
    match written_length(containers) {
        length if length > MAX_BYTES => {
            Err(client(format!("Actual length: '{length}'. Max allowed length is '{MAX_BYTES}' bytes.")))
        }
        _ => Ok(()),
    }
}

/// As JSON. What a client left out is null here: not a byte of it counts.
fn written_length<T: serde::Serialize + ?Sized>(value: &T) -> usize {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    strip_nulls(&mut value);
    value.to_string().len()
}

fn strip_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(strip_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn check_together(containers: &[ContainerDefinition]) -> Result<(), Invalid> {
    for (at, container) in containers.iter().enumerate() {
        if containers[..at].iter().any(|earlier| earlier.name == container.name) {
            return Err(client(format!("Container name '{}' is used multiple times in task.", container.name)));
        }
    }
    // "All tasks must have at least one essential container."
    if !containers.iter().any(ContainerDefinition::is_essential) {
        return Err(client("At least one container in the task definition must be essential."));
    }
    Ok(())
}

fn check_modes(draft: &Draft) -> Result<(), Invalid> {
    let one_of = |what: &str, given: &Option<String>, allowed: &[&str]| match given {
        Some(value) if !allowed.contains(&value.as_str()) => {
            Err(client(format!("Invalid '{what}' setting '{value}' for task. Valid values: {}.", allowed.join(", "))))
        }
        _ => Ok(()),
    };
    one_of("pidMode", &draft.pid_mode, &["host", "task"])?;
    one_of("ipcMode", &draft.ipc_mode, &["host", "task", "none"])?;
    for wanted in &draft.requires_compatibilities {
        let allowed = ["EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"];
        one_of("requiresCompatibilities", &Some(wanted.clone()), &allowed)?;
    }
    let platform = draft.runtime_platform.clone().unwrap_or_default();
    one_of("cpuArchitecture", &platform.cpu_architecture, &["X86_64", "ARM64"])?;
    match platform.operating_system_family.as_deref() {
        // Agents run on Linux hosts only.
        Some(family) if family != "LINUX" => {
            Err(client(format!("Invalid 'operatingSystemFamily' setting '{family}' for task. Valid values: LINUX.")))
        }
        _ => Ok(()),
    }
}

fn check_compatibilities(definition: &TaskDefinition) -> Result<(), Invalid> {
    let requires = |launch_type: &str| definition.requires_compatibilities.iter().any(|c| c == launch_type);
    if requires("FARGATE") {
        size::check_fargate(definition).map_err(client)?;
    }
    // "EXTERNAL: the awsvpc network mode isn't supported" ("Amazon ECS task definition differences for external instances").
    if requires("EXTERNAL") && definition.network_mode == NetworkMode::Awsvpc {
        return Err(client("External launch type does not support network mode 'awsvpc'."));
    }
    Ok(())
}
