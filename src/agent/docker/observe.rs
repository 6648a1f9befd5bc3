//! What Docker says of a container, in our own words.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};

use super::labels;
use super::usage::{NetworkView, Watched};
use crate::agent::engine::{Observed, ObservedState};
use crate::model::Timestamp;
use crate::model::task::{Binding, Health};

/// None when it is none of ours, or a warm pause that belongs to no task.
pub fn observed(installation: &str, found: &ContainerInspectResponse) -> Option<Observed> {
    let name = found.name.as_deref().unwrap_or_default();
    let (task, container) = labels::owner(installation, name, labels_of(found)?)?;
    let state = found.state.as_ref();
    let phase = match state.and_then(|s| s.status) {
        Some(ContainerStateStatusEnum::CREATED) => ObservedState::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED | ContainerStateStatusEnum::RESTARTING) => {
            ObservedState::Running
        }
        _ => ObservedState::Exited,
    };
    let ended = phase == ObservedState::Exited;
    let started_at = time(state.and_then(|s| s.started_at.as_deref()));
    let finished_at = time(state.and_then(|s| s.finished_at.as_deref())).filter(|_| ended);
    Some(Observed {
        runtime_id: found.id.clone()?,
        task,
        container,
        container_uuid: labels_of(found)?.get(labels::CONTAINER_UUID).cloned().unwrap_or_default(),
        state: phase,
        started_at,
        // Docker takes the start's time when it has heard of it, which for a short life can be after the end's.
        finished_at: finished_at.max(started_at.filter(|_| finished_at.is_some())),
        exit_code: state.and_then(|s| s.exit_code).filter(|_| ended).map(|code| code as i32),
        oom_killed: state.and_then(|s| s.oom_killed).unwrap_or(false),
        health: state.and_then(|s| s.health.as_ref()).and_then(|h| h.status).map_or(Health::Unknown, health),
        bindings: bindings(found),
        address: address(found),
        network: task_network(found),
        image_digest: None,
    })
}

pub fn labels_of(found: &ContainerInspectResponse) -> Option<&HashMap<String, String>> {
    found.config.as_ref()?.labels.as_ref()
}

pub fn is_running(found: &ContainerInspectResponse) -> bool {
    found.state.as_ref().and_then(|s| s.running) == Some(true)
}

/// Docker writes year 1 for never.
pub fn time(text: Option<&str>) -> Option<Timestamp> {
    Timestamp::parse_iso(text?).filter(|t| t.0 > 0)
}

/// Docker's `starting` and `none` are ECS's UNKNOWN.
pub fn health(status: HealthStatusEnum) -> Health {
    match status {
        HealthStatusEnum::HEALTHY => Health::Healthy,
        HealthStatusEnum::UNHEALTHY => Health::Unhealthy,
        _ => Health::Unknown,
    }
}

/// `80/tcp` and such.
fn port(text: &str) -> Option<(u16, &str)> {
    let (port, protocol) = text.split_once('/')?;
    Some((port.parse().ok()?, protocol))
}

pub fn bindings(found: &ContainerInspectResponse) -> Vec<Binding> {
    let binding = |address: &str, container: u16, host: u16, protocol: &str| Binding {
        address: address.into(),
        container_port: container,
        host_port: host,
        protocol: protocol.into(),
    };
    let mut bindings = Vec::new();
    let ports = found.network_settings.as_ref().and_then(|n| n.ports.as_ref());
    for (name, published) in ports.into_iter().flatten() {
        let Some((container, protocol)) = port(name) else { continue };
        for host in published.iter().flatten() {
            let address = host.host_ip.as_deref().unwrap_or("0.0.0.0");
            // The ECS agent leaves the IPv6 twins out (ECS_EXCLUDE_IPV6_PORTBINDING).
            if address.contains(':') {
                continue;
            }
            if let Some(host) = host.host_port.as_deref().and_then(|p| p.parse().ok()) {
                let address = if address.is_empty() { "0.0.0.0" } else { address };
                bindings.push(binding(address, container, host, protocol));
            }
        }
    }
    // In host mode Docker knows of no ports: the definition's are the host's.
    let host_ports = labels_of(found).and_then(|l| l.get(labels::HOST_PORTS)).map_or("", String::as_str);
    for (number, protocol) in host_ports.split(',').filter_map(port) {
        bindings.push(binding("0.0.0.0", number, number, protocol));
    }
    bindings.sort_by(|a, b| (a.container_port, &a.protocol, a.host_port).cmp(&(b.container_port, &b.protocol, b.host_port)));
    bindings
}

pub fn address(found: &ContainerInspectResponse) -> Option<String> {
    Some(attached(found)?.1.to_owned())
}

/// The network of the container's address, where that is the agent's task network. The label tells: a pause container's network is ours,
/// and a bridge container's may be Docker's own.
pub fn task_network(found: &ContainerInspectResponse) -> Option<String> {
    let named = labels_of(found)?.get(labels::TASK_NETWORK)?;
    (attached(found)?.0 == named).then(|| named.clone())
}

/// Somebody may have connected the container to more networks by hand: the one that it was made on counts, else the first by name.
fn attached(found: &ContainerInspectResponse) -> Option<(&str, &str)> {
    let made_on = found.host_config.as_ref().and_then(|h| h.network_mode.as_deref());
    let networks = found.network_settings.as_ref()?.networks.as_ref()?;
    let addressed =
        networks.iter().filter_map(|(name, n)| Some((name.as_str(), n.ip_address.as_deref().filter(|a| !a.is_empty())?)));
    addressed.min_by_key(|(name, _)| (Some(*name) != made_on, *name))
}

/// What the sampler needs of a running container; None for a pause, whose traffic is its task's.
pub fn watched(installation: &str, found: &ContainerInspectResponse) -> Option<Watched> {
    let marks = labels_of(found)?;
    let (task, container) = labels::owner(installation, found.name.as_deref().unwrap_or_default(), marks)?;
    if container.as_str() == labels::PAUSE {
        return None;
    }
    let network = match marks.get(labels::NETWORK).map(String::as_str) {
        Some("own") => NetworkView::Own,
        Some("task") => NetworkView::Task,
        _ => NetworkView::None,
    };
    let parent = found.host_config.as_ref().and_then(|h| h.cgroup_parent.clone()).filter(|p| !p.is_empty());
    Some(Watched {
        task: task.as_str().into(),
        container: container.as_str().into(),
        name: found.name.as_deref().unwrap_or_default().trim_start_matches('/').into(),
        pid: found.state.as_ref()?.pid.filter(|pid| *pid > 0)?,
        network,
        task_group: parent.as_deref() == Some(&labels::task_group(installation, &task)),
        cgroup_parent: parent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_container_of_ours() {
        let text = r#"{"Id":"c1","Name":"/ecs-web-1-web-0","State":{"Status":"running","Running":true,"Pid":42,"ExitCode":0,
            "OOMKilled":false,"StartedAt":"2026-11-20T10:23:52.355123456Z","FinishedAt":"0001-01-01T00:00:00Z",
            "Health":{"Status":"starting"}},"Config":{"Labels":{"beaufort.installation":"one","beaufort.task":"t1",
            "beaufort.container":"web","beaufort.container-uuid":"u","beaufort.network":"own"}},"HostConfig":{"CgroupParent":""},
            "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"32768"},{"HostIp":"::","HostPort":"32768"}],
            "81/tcp":null},"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}"#;
        let found: ContainerInspectResponse = serde_json::from_str(text).unwrap();
        let seen = observed("one", &found).unwrap();
        assert_eq!((seen.state, seen.exit_code, seen.finished_at), (ObservedState::Running, None, None));
        assert_eq!(seen.started_at, Some(Timestamp(1_795_170_232_355)));
        assert_eq!(seen.bindings.iter().map(|b| (b.container_port, b.host_port)).collect::<Vec<_>>(), vec![(80, 32768)]);
        assert_eq!((seen.address.as_deref(), seen.network), (Some("172.17.0.2"), None));
        assert_eq!(watched("one", &found).unwrap().network, NetworkView::Own);
        assert_eq!(observed("two", &found), None, "another installation's");
    }

    #[test]
    fn the_network_that_a_container_was_made_on_has_its_address() {
        let text = r#"{"Config":{"Labels":{"beaufort.task-network":"shop"}},"HostConfig":{"NetworkMode":"shop"},
            "NetworkSettings":{"Networks":{"by-hand":{"IPAddress":"10.1.0.9"},"shop":{"IPAddress":"172.30.0.5"}}}}"#;
        let mut found: ContainerInspectResponse = serde_json::from_str(text).unwrap();
        assert_eq!((address(&found).as_deref(), task_network(&found).as_deref()), (Some("172.30.0.5"), Some("shop")));
        // It was disconnected from there: the other address is not the task network's.
        found.network_settings.as_mut().unwrap().networks.as_mut().unwrap().remove("shop");
        assert_eq!((address(&found).as_deref(), task_network(&found)), (Some("10.1.0.9"), None));
    }
}
