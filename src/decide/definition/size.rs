//! The task's own cpu and memory: read from text, compared with the containers', and checked against Fargate's table.

use super::containers::{MAX_MEMORY_MIB, MIN_MEMORY_MIB, invalid};
use super::{Invalid, client};
use crate::model::definition::{ContainerDefinition, NetworkMode, TaskDefinition};

/// Task-level limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// CPU units.
    pub cpu: Option<u32>,
    /// MiB.
    pub memory: Option<u32>,
}

const SEE: &str = "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.";

/// RegisterTaskDefinition: "supported values are between 128 CPU units (0.125 vCPUs) and 196608 CPU units (192 vCPUs)".
const CPU_UNITS: std::ops::RangeInclusive<f64> = 128.0..=196_608.0;
const MEMORY_MIB: std::ops::RangeInclusive<f64> = MIN_MEMORY_MIB as f64..=MAX_MEMORY_MIB as f64;

/// "1024", "1 vCPU", "512", "0.5GB"; in any case and with or without the blank.
pub(super) fn read(cpu: &Option<String>, memory: &Option<String>) -> Result<Size, String> {
    let invalid = |what: &str| format!("Invalid '{what}' setting for task. {SEE}");
    let read = |given: &Option<String>, unit: &str, allowed, what: &str| match given {
        None => Ok(None),
        Some(text) => amount(text, unit, allowed).map(Some).ok_or_else(|| invalid(what)),
    };
    Ok(Size { cpu: read(cpu, "vcpu", CPU_UNITS, "cpu")?, memory: read(memory, "gb", MEMORY_MIB, "memory")? })
}

/// A vCPU is 1,024 units and a GB 1,024 MiB. Only whole units come out: "0.0001 GB" is no amount.
fn amount(text: &str, unit: &str, allowed: std::ops::RangeInclusive<f64>) -> Option<u32> {
    let text = text.trim().to_ascii_lowercase();
    let units: f64 = match text.strip_suffix(unit) {
        // A plain decimal: f64 would read "inf" and "1e3" as well.
        Some(number) if number.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ' ') => {
            number.trim().parse::<f64>().ok()? * 1024.0
        }
        Some(_) => return None,
        None => f64::from(text.parse::<u32>().ok()?),
    };
    (allowed.contains(&units) && units.fract() == 0.0).then_some(units as u32)
}

pub(super) fn check_containers(containers: &[ContainerDefinition], task: Size) -> Result<(), Invalid> {
    for container in containers {
        match (task.memory, container.memory, container.memory_reservation) {
            (None, None, None) => {
                let why = "At least one of 'memory' or 'memoryReservation' must be specified.";
                return Err(invalid(container, why));
            }
            (Some(task), Some(own), _) if i64::from(own) > i64::from(task) => {
                return Err(invalid(container, "'memory' must not be greater than the value of the task 'memory'."));
            }
            _ => {}
        }
        if let (Some(memory), Some(reservation)) = (container.memory, container.memory_reservation)
            && reservation > memory
        {
            return Err(invalid(container, "'memoryReservation' must not be greater than 'memory'."));
        }
    }
    let sum = |of: fn(&ContainerDefinition) -> Option<i32>| containers.iter().filter_map(of).map(i64::from).sum::<i64>();
    if task.cpu.is_some_and(|cpu| sum(|c| c.cpu) > i64::from(cpu)) {
        return Err(client("The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'."));
    }
    // "The total amount of memory reserved for all containers within a task must be lower than the task memory value."
    if task.memory.is_some_and(|memory| sum(|c| c.memory_reservation.or(c.memory)) > i64::from(memory)) {
        let what = "The sum of all container 'memoryReservation' or 'memory' values";
        return Err(client(format!("{what} cannot be greater than the value of the task 'memory'.")));
    }
    Ok(())
}

/// Whether Fargate would take it ("Troubleshoot Amazon ECS task definition invalid CPU or memory errors" has the table).
pub(super) fn check_fargate(definition: &TaskDefinition) -> Result<(), String> {
    let Some(cpu) = definition.cpu else { return Err("Fargate requires that 'cpu' be defined at the task level.".to_owned()) };
    let Some(memory) = definition.memory else {
        return Err("Fargate requires that 'memory' be defined at the task level.".to_owned());
    };
    if !is_fargate_size(cpu, memory) {
        return Err("No Fargate configuration exists for given values.".to_owned());
    }
    if definition.network_mode != NetworkMode::Awsvpc {
        return Err("Fargate only supports network mode ‘awsvpc’.".to_owned());
    }
    if let Some(member) = banned_on_fargate(definition) {
        return Err(format!("Fargate compatible task definitions do not support {member}"));
    }
    let needs_role = |what: &str| Err(format!("Fargate requires task definition to have execution role ARN to support {what}."));
    let has_role = definition.execution_role_arn.as_deref().is_some_and(|arn| !arn.is_empty());
    if !has_role && definition.containers.iter().any(|c| is_ecr(&c.image)) {
        return needs_role("ECR images");
    }
    if !has_role && definition.containers.iter().any(|c| uses_driver(c, "awslogs")) {
        return needs_role("log driver awslogs");
    }
    Ok(())
}

fn is_fargate_size(cpu: u32, memory: u32) -> bool {
    let (least, most, step) = match cpu {
        256 => return matches!(memory, 512 | 1024 | 2048),
        512 => (1024, 4096, 1024),
        1024 => (2048, 8192, 1024),
        2048 => (4096, 16_384, 1024),
        4096 => (8192, 30_720, 1024),
        8192 => (16_384, 61_440, 4096),
        16_384 => (32_768, 122_880, 8192),
        _ => return false,
    };
    (least..=most).contains(&memory) && (memory - least).is_multiple_of(step)
}

/// The first member that "Amazon ECS task definition differences for Fargate" rules out.
fn banned_on_fargate(definition: &TaskDefinition) -> Option<&'static str> {
    let any = |test: fn(&ContainerDefinition) -> bool| definition.containers.iter().any(test);
    let linux = |c: &ContainerDefinition| c.linux_parameters.clone().unwrap_or_default();
    let rules: [(&'static str, bool); 9] = [
        ("privileged", any(|c| c.privileged == Some(true))),
        ("devices", definition.containers.iter().any(|c| linux(c).devices.is_some_and(|d| !d.is_empty()))),
        ("sharedMemorySize", definition.containers.iter().any(|c| linux(c).shared_memory_size.is_some())),
        ("maxSwap", definition.containers.iter().any(|c| linux(c).max_swap.is_some())),
        ("dockerSecurityOptions", any(|c| c.docker_security_options.as_ref().is_some_and(|o| !o.is_empty()))),
        ("placementConstraints", !definition.placement_constraints.is_empty()),
        ("pidMode host", definition.pid_mode.as_deref() == Some("host")),
        ("ipcMode", definition.ipc_mode.is_some()),
        (
            "host.sourcePath and dockerVolumeConfiguration",
            definition.volumes.iter().any(|volume| {
                let path = volume.host.as_ref().and_then(|host| host.source_path.as_deref());
                path.is_some_and(|path| !path.is_empty()) || volume.docker_volume_configuration.is_some()
            }),
        ),
    ];
    rules.into_iter().find(|(_, broken)| *broken).map(|(member, _)| member)
}

pub(super) fn is_ecr(image: &str) -> bool {
    let registry = image.split('/').next().unwrap_or("");
    registry.contains(".dkr.ecr.") && registry.contains(".amazonaws.com")
}

pub(super) fn uses_driver(container: &ContainerDefinition, driver: &str) -> bool {
    container.log_configuration.as_ref().is_some_and(|log| log.log_driver == driver)
}
