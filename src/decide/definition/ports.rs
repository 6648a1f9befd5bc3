//! Port mappings: what each network mode allows, and that no host port is mapped twice.

use std::collections::BTreeSet;

use super::containers::{invalid, invalid_setting};
use super::{Invalid, client};
use crate::model::definition::{ContainerDefinition, NetworkMode, PortMapping};

/// PortMapping: "Up to 100 port mappings can be specified" for a container.
const MAX_MAPPINGS: usize = 100;

pub(super) fn check(container: &ContainerDefinition, mode: NetworkMode) -> Result<(), Invalid> {
    let mappings = container.port_mappings.as_deref().unwrap_or_default();
    if mappings.len() > MAX_MAPPINGS {
        return Err(invalid_setting("portMappings", container));
    }
    // "If the network mode is none, the task's containers do not have external connectivity and port mappings can't be specified."
    if mode == NetworkMode::None && !mappings.is_empty() {
        return Err(client("Port mappings are not supported when networkMode=none."));
    }
    mappings.iter().try_for_each(|mapping| check_mapping(container, mapping, mode))?;
    check_hosts(container, mode)
}

fn check_mapping(container: &ContainerDefinition, mapping: &PortMapping, mode: NetworkMode) -> Result<(), Invalid> {
    let Some(port) = mapping.container_port.filter(|port| (1..=65_535).contains(port)) else {
        return Err(invalid_setting("containerPort", container));
    };
    if mapping.host_port.is_some_and(|port| !(0..=65_535).contains(&port)) {
        return Err(invalid_setting("hostPort", container));
    }
    // "you can either leave it blank or set it to the same value as the containerPort"; several clients write 0 for blank.
    let moved = mapping.host_port.is_some_and(|host| host != 0 && host != port);
    match mode {
        NetworkMode::Awsvpc if moved => {
            return Err(client("When networkMode=awsvpc, the host ports and container ports in port mappings must match."));
        }
        NetworkMode::Host if moved => {
            return Err(client("When networkMode=host, the host ports and container ports in port mappings must match."));
        }
        _ => {}
    }
    if mapping.protocol.as_deref().is_some_and(|p| p != "tcp" && p != "udp") {
        return Err(invalid_setting("protocol", container));
    }
    if mapping.app_protocol.as_deref().is_some_and(|p| !["http", "http2", "grpc"].contains(&p)) {
        return Err(invalid_setting("appProtocol", container));
    }
    // "up to 64 characters, including lowercase letters, numbers, underscores and hyphens, can't start with a hyphen".
    let is_name = |name: &str| {
        (1..=64).contains(&name.len())
            && !name.starts_with('-')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
    };
    if mapping.name.as_deref().is_some_and(|name| !is_name(name)) {
        return Err(invalid(container, "The name of a port mapping contains invalid characters."));
    }
    Ok(())
}

/// hostname, dnsServers and extraHosts: "not supported if you use the awsvpc network mode".
fn check_hosts(container: &ContainerDefinition, mode: NetworkMode) -> Result<(), Invalid> {
    for host in container.extra_hosts.iter().flatten() {
        let address = host.ip_address.as_deref().unwrap_or("");
        if host.hostname.as_deref().is_none_or(str::is_empty) || address.parse::<std::net::IpAddr>().is_err() {
            return Err(invalid_setting("extraHosts", container));
        }
    }
    if mode == NetworkMode::Awsvpc && container.hostname.is_some() {
        return Err(client("Hostname is not supported on container when networkMode=awsvpc."));
    }
    if mode == NetworkMode::Awsvpc && container.extra_hosts.as_ref().is_some_and(|hosts| !hosts.is_empty()) {
        return Err(client("Extra hosts are not supported on container when networkMode=awsvpc."));
    }
    Ok(())
}

/// Across a task's containers, after each was checked by itself.
pub(super) fn check_together(containers: &[ContainerDefinition], mode: NetworkMode) -> Result<(), Invalid> {
    let mut taken = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in containers {
        let mut protocols = BTreeSet::new();
        for mapping in container.port_mappings.iter().flatten() {
            let protocol = mapping.protocol.as_deref().unwrap_or("tcp");
            let port = host_port(mapping, mode);
            if port != 0 && !taken.insert((port, protocol)) {
                let protocol = protocol.to_uppercase();
                return Err(client(format!("{protocol} host port '{port}' is mapped multiple times in task.")));
            }
            if let Some(name) = mapping.name.as_deref()
                && !names.insert(name)
            {
                return Err(client(format!("Port mapping name '{name}' is used multiple times in task.")));
            }
            protocols.insert((mapping.container_port, protocol));
        }
        // PortMapping: "you can't expose the same container port for multiple protocols".
        let ports: BTreeSet<_> = protocols.iter().map(|(port, _)| port).collect();
        if ports.len() < protocols.len() {
            return Err(invalid(container, "The same container port cannot be exposed for multiple protocols."));
        }
    }
    Ok(())
}

/// The host port as it will stand in the definition; 0 is dynamic.
pub(super) fn host_port(mapping: &PortMapping, mode: NetworkMode) -> i32 {
    match (mapping.host_port, mode) {
        (None | Some(0), NetworkMode::Host | NetworkMode::Awsvpc) => mapping.container_port.unwrap_or(0),
        (port, _) => port.unwrap_or(0),
    }
}

pub(super) fn fill(container: &mut ContainerDefinition, mode: NetworkMode) {
    for mapping in container.port_mappings.get_or_insert_default() {
        mapping.host_port = Some(host_port(mapping, mode));
        mapping.protocol.get_or_insert_with(|| "tcp".to_owned());
    }
}
