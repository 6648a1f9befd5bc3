//! The connection to Docker, what it tells about its host, and how its errors become ours.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum};
use bollard::query_parameters::InspectNetworkOptions;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::DockerConfig;
use crate::agent::engine::{EngineError, EngineInfo};
use crate::model::task::Resources;

/// The ECS agent gives Docker three minutes to start a container and four to create one.
const TIMEOUT: Duration = Duration::from_secs(240);

pub const INFO: &str = "CannotInspectEngineError";
pub const INSPECT: &str = "CannotInspectContainerError";
pub const LIST: &str = "CannotListContainersError";
pub const PULL: &str = "CannotPullContainerError";
pub const CREATE: &str = "CannotCreateContainerError";
pub const START: &str = "CannotStartContainerError";
pub const STOP: &str = "CannotStopContainerError";
pub const REMOVE: &str = "CannotRemoveContainerError";
pub const VOLUME: &str = "CannotCreateVolumeError";
pub const NETWORK: &str = "ResourceInitializationError";
/// Not a container's trouble but the agent's: it was told a task network that cannot be used.
pub const TASK_NETWORK: &str = "TaskNetworkError";

pub async fn connect(host: Option<&str>) -> Result<Docker, EngineError> {
    let docker = match host {
        Some(path) if path.starts_with("unix://") || path.starts_with('/') => {
            Docker::connect_with_unix(path, TIMEOUT.as_secs(), API_DEFAULT_VERSION)
        }
        Some(address) => Docker::connect_with_http(address, TIMEOUT.as_secs(), API_DEFAULT_VERSION),
        None => Docker::connect_with_unix_defaults().map(|docker| docker.with_timeout(TIMEOUT)),
    };
    docker.map_err(failed(INFO))?.negotiate_version().await.map_err(failed(INFO))
}

/// The task network must be there, and one that gives a container an address of its own.
pub async fn check_task_network(docker: &Docker, name: &str) -> Result<(), EngineError> {
    let found = match docker.inspect_network(name, None::<InspectNetworkOptions>).await {
        Ok(found) => found,
        Err(error) if status(&error) == Some(404) => {
            return Err(failure(TASK_NETWORK, format!("there is no Docker network {name} for tasks to join")));
        }
        Err(error) => return Err(failed(INFO)(error)),
    };
    // Docker finds networks by id as well, and containers are told of theirs by name.
    if found.name.as_deref() != Some(name) {
        let told = found.name.unwrap_or_default();
        return Err(failure(
            TASK_NETWORK,
            format!("{name} is the id of the Docker network {told}: the task network is given by name"),
        ));
    }
    match found.driver.as_deref() {
        Some("host" | "null") => {
            Err(failure(TASK_NETWORK, format!("on the Docker network {name} containers have no address of their own")))
        }
        Some("overlay") if found.attachable != Some(true) => Err(failure(
            TASK_NETWORK,
            format!("the overlay network {name} was not made --attachable: only swarm services may join it"),
        )),
        _ => Ok(()),
    }
}

/// Docker answered with an error, or could not be asked.
pub fn failed(name: &'static str) -> impl Fn(Error) -> EngineError {
    move |error| {
        let (text, unreachable) = match error {
            Error::DockerResponseServerError { message, .. } => (format!("Error response from daemon: {message}"), false),
            Error::DockerStreamError { error } => (error, false),
            error @ (Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::StrParseError { .. }) => {
                (error.to_string(), false)
            }
            error => (error.to_string(), true),
        };
        EngineError { name, text, unreachable }
    }
}

pub fn failure(name: &'static str, text: impl Into<String>) -> EngineError {
    EngineError { name, text: text.into(), unreachable: false }
}

/// The status of Docker's answer, where it answered.
pub fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

pub fn uses_systemd(info: &SystemInfo) -> bool {
    info.cgroup_driver == Some(SystemInfoCgroupDriverEnum::SYSTEMD)
}

pub fn uses_cgroup_v2(info: &SystemInfo) -> bool {
    info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2)
}

pub fn engine_info(config: &DockerConfig, info: &SystemInfo) -> EngineInfo {
    let cores = info.ncpu.unwrap_or(1).max(1) as u32;
    let memory = (info.mem_total.unwrap_or(0).max(0) >> 20) as u32;
    EngineInfo {
        version: info.server_version.clone().unwrap_or_default(),
        host_name: info.name.clone().unwrap_or_default(),
        host_address: config.host_address.clone(),
        resources: Resources { cpu: cores * 1024, memory, ..Resources::default() },
        attributes: attributes(info),
    }
}

/// The attributes that the ECS agent registers for what this engine can do, in its names.
fn attributes(info: &SystemInfo) -> BTreeMap<String, Option<String>> {
    let architecture = match info.architecture.as_deref() {
        Some("aarch64") => "arm64",
        Some(other) => other,
        None => "x86_64",
    };
    let mut attributes = BTreeMap::from([
        ("ecs.os-type".to_owned(), Some("linux".to_owned())),
        ("ecs.os-family".to_owned(), Some("LINUX".to_owned())),
        ("ecs.cpu-architecture".to_owned(), Some(architecture.to_owned())),
    ]);
    let mut can = |what: String| {
        attributes.insert(what, None);
    };
    for minor in 17..=32 {
        can(format!("com.amazonaws.ecs.capability.docker-remote-api.1.{minor}"));
    }
    can("com.amazonaws.ecs.capability.privileged-container".to_owned());
    let log_drivers = info.plugins.as_ref().and_then(|p| p.log.clone()).unwrap_or_default();
    // Ours: delivered to our own log store whether or not Docker has such a driver.
    for driver in log_drivers.iter().map(String::as_str).filter(|d| *d != "awslogs").chain(["awslogs"]) {
        can(format!("com.amazonaws.ecs.capability.logging-driver.{driver}"));
    }
    for security in info.security_options.iter().flatten() {
        for known in ["apparmor", "selinux"] {
            if security.contains(known) {
                can(format!("com.amazonaws.ecs.capability.{known}"));
            }
        }
    }
    for ours in [
        "container-health-check",
        "container-ordering",
        "container-restart-policy",
        "execution-role-awslogs",
        "increased-task-cpu-limit",
        "pid-ipc-namespace-sharing",
        "task-cpu-mem-limit",
        "task-eni",
    ] {
        can(format!("ecs.capability.{ours}"));
    }
    for driver in info.plugins.iter().filter_map(|p| p.volume.as_ref()).flatten() {
        can(format!("ecs.capability.docker-plugin.{driver}"));
    }
    attributes
}
