//! A definition under RunTask's overrides: the containers as they will run, and what placement subtracts for them.

use super::containers::{MAX_CPU_UNITS, MAX_MEMORY_MIB, MIN_MEMORY_MIB};
use super::size::{self, Size};
use super::{Invalid, parameter, ports, written_length};
use crate::model::definition::{ContainerDefinition, KeyValue, NetworkMode, TaskDefinition};
use crate::model::task::{ContainerOverride, Overrides, Resources};

/// "Docker 20.10.0 or later requires at least 6 MiB": ECS's agent raises what is less, so that the container starts.
const DOCKER_MIN_MEMORY_MIB: i32 = 6;

/// RunTask: "A total of 8192 characters are allowed for overrides. This limit includes the JSON formatting characters".
const MAX_OVERRIDE_CHARACTERS: usize = 8_192;

/// The containers of a task, in the definition's order. Checks the overrides: call it before a task is made.
pub fn effective_containers(definition: &TaskDefinition, overrides: &Overrides) -> Result<Vec<ContainerDefinition>, Invalid> {
    check(definition, overrides)?;
    let size = read_size(definition, overrides)?;
    let mut containers = applied(definition, overrides);
    size::check_containers(&containers, size).map_err(|invalid| parameter(invalid.message))?;
    for container in &mut containers {
        for memory in [&mut container.memory, &mut container.memory_reservation].into_iter().flatten() {
            *memory = (*memory).max(DOCKER_MIN_MEMORY_MIB);
        }
    }
    Ok(containers)
}

/// The task's own cpu units and MiB, if it has any.
pub fn effective_size(definition: &TaskDefinition, overrides: &Overrides) -> Result<(Option<u32>, Option<u32>), Invalid> {
    read_size(definition, overrides).map(|size| (size.cpu, size.memory))
}

/// What placement subtracts: the task's cpu and memory where it has its own, else the sums of the containers', where a reservation
/// goes before a limit; and the static host ports. Overrides that `effective_containers` refuses are passed over.
pub fn reserved(definition: &TaskDefinition, overrides: &Overrides) -> Resources {
    let containers = applied(definition, overrides);
    let task = read_size(definition, overrides).unwrap_or(Size { cpu: definition.cpu, memory: definition.memory });
    let sum = |of: fn(&ContainerDefinition) -> Option<i32>| {
        containers.iter().filter_map(of).fold(0u32, |sum, n| sum.saturating_add(u32::try_from(n).unwrap_or(0)))
    };
    let (tcp_ports, udp_ports) = static_ports(definition);
    Resources {
        cpu: task.cpu.unwrap_or_else(|| sum(|c| c.cpu)),
        memory: task.memory.unwrap_or_else(|| sum(|c| c.memory_reservation.or(c.memory))),
        tcp_ports,
        udp_ports,
    }
}

/// An awsvpc task listens on an address of its own and takes no port of the host.
fn static_ports(definition: &TaskDefinition) -> (Vec<u16>, Vec<u16>) {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    if !matches!(definition.network_mode, NetworkMode::Bridge | NetworkMode::Host) {
        return (tcp, udp);
    }
    for mapping in definition.containers.iter().flat_map(|c| c.port_mappings.iter().flatten()) {
        let list = if mapping.protocol.as_deref() == Some("udp") { &mut udp } else { &mut tcp };
        match u16::try_from(ports::host_port(mapping, definition.network_mode)) {
            Ok(port) if port != 0 => list.push(port),
            _ => {}
        }
    }
    for list in [&mut tcp, &mut udp] {
        list.sort_unstable();
        list.dedup();
    }
    (tcp, udp)
}

fn read_size(definition: &TaskDefinition, overrides: &Overrides) -> Result<Size, Invalid> {
    let given = size::read(&overrides.cpu, &overrides.memory).map_err(parameter)?;
    Ok(Size { cpu: given.cpu.or(definition.cpu), memory: given.memory.or(definition.memory) })
}

fn check(definition: &TaskDefinition, overrides: &Overrides) -> Result<(), Invalid> {
    let length = written_length(&overrides.container_overrides);
    if length > MAX_OVERRIDE_CHARACTERS {
        return Err(parameter(format!("Container Overrides length must be at most {MAX_OVERRIDE_CHARACTERS}")));
    }
    for (at, given) in overrides.container_overrides.iter().enumerate() {
        let name = given.name.as_deref().unwrap_or("");
        if definition.container(name).is_none() {
            return Err(parameter(format!("Override for container named {name} is not a container in the TaskDefinition.")));
        }
        if overrides.container_overrides[..at].iter().any(|earlier| earlier.name == given.name) {
            return Err(parameter(format!("Override for container named {name} is given multiple times.")));
        }
        let memory = MIN_MEMORY_MIB..=MAX_MEMORY_MIB;
        for (what, value, allowed) in [
            ("cpu", given.cpu, 0..=MAX_CPU_UNITS),
            ("memory", given.memory, memory.clone()),
            ("memoryReservation", given.memory_reservation, memory),
        ] {
            if value.is_some_and(|value| !allowed.contains(&value)) {
                return Err(parameter(format!("Invalid '{what}' setting for container '{name}'.")));
            }
        }
        let bad_name = |pair: &KeyValue| pair.name.as_deref().is_none_or(|n| n.is_empty() || n.contains(['=', '\0']));
        if given.environment.iter().flatten().any(bad_name) {
            return Err(parameter(format!("Invalid 'environment' setting for container '{name}'.")));
        }
    }
    Ok(())
}

fn applied(definition: &TaskDefinition, overrides: &Overrides) -> Vec<ContainerDefinition> {
    let mut containers = definition.containers.clone();
    for given in &overrides.container_overrides {
        if let Some(container) = containers.iter_mut().find(|c| Some(c.name.as_str()) == given.name.as_deref()) {
            apply(container, given);
        }
    }
    containers
}

fn apply(container: &mut ContainerDefinition, given: &ContainerOverride) {
    if let Some(command) = &given.command {
        container.command = Some(command.clone());
    }
    for pair in given.environment.iter().flatten() {
        let environment = container.environment.get_or_insert_default();
        // "You can add new environment variables ... or you can override the existing environment variables".
        match environment.iter_mut().find(|own| own.name == pair.name) {
            Some(own) => own.value = pair.value.clone(),
            None => environment.push(pair.clone()),
        }
    }
    container.cpu = given.cpu.or(container.cpu);
    container.memory = given.memory.or(container.memory);
    container.memory_reservation = given.memory_reservation.or(container.memory_reservation);
}
