//! From a container definition to Docker's create call, member by member as the ECS agent does it (its task.go and task_linux.go).

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig, PortBinding, PortMap, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::{DockerConfig, labels};
use crate::agent::engine::ContainerSpec;
use crate::model::definition::{ContainerDefinition, LinuxParameters, NetworkMode};

/// Docker from 20.10 on refuses less; the ECS agent raises smaller values.
const MEMORY_MIN_MIB: i64 = 6;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const NANOSECONDS: i64 = 1_000_000_000;

/// What the engine found out before: where volumes are, which cgroup the task has, whose namespaces it shares.
#[derive(Default)]
pub struct Resolved {
    pub binds: Vec<String>,
    pub cgroup_parent: Option<String>,
    pub pid_mode: Option<String>,
    pub ipc_mode: Option<String>,
}

pub fn body(config: &DockerConfig, spec: &ContainerSpec, resolved: Resolved) -> ContainerCreateBody {
    let container = &spec.container;
    let network_mode = network_mode(config, spec);
    let joined = network_mode.starts_with("container:");
    let bridge = spec.network_mode == NetworkMode::Bridge && !joined && spec.container.disable_networking != Some(true);
    let none_if_joined = |list: &Option<Vec<String>>| list.clone().filter(|_| !joined);
    if joined && (container.dns_servers.is_some() || container.extra_hosts.is_some() || container.hostname.is_some()) {
        tracing::warn!(
            task = %spec.task, container = %container.name,
            "hostname, dnsServers, dnsSearchDomains and extraHosts belong to the task's network in awsvpc mode and are not applied"
        );
    }
    let mut host = HostConfig {
        binds: Some(resolved.binds).filter(|b| !b.is_empty()),
        cgroup_parent: resolved.cgroup_parent,
        pid_mode: resolved.pid_mode,
        ipc_mode: resolved.ipc_mode,
        cpu_shares: Some(shares(container.cpu)),
        memory: container.memory.map(bytes),
        memory_reservation: container.memory_reservation.map(bytes),
        network_mode: Some(network_mode),
        port_bindings: bridge.then(|| port_bindings(container)),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        volumes_from: volumes_from(spec),
        ulimits: ulimits(container),
        privileged: container.privileged,
        readonly_rootfs: container.readonly_root_filesystem,
        dns: none_if_joined(&container.dns_servers),
        dns_search: none_if_joined(&container.dns_search_domains),
        extra_hosts: extra_hosts(container).filter(|_| !joined),
        security_opt: container.docker_security_options.clone(),
        sysctls: sysctls(container),
        log_config: log_config(config, container),
        ..HostConfig::default()
    };
    if let Some(linux) = &container.linux_parameters {
        apply_linux(&mut host, linux);
    }
    ContainerCreateBody {
        image: Some(container.image.clone()),
        // A host's or another container's network has its own host name.
        hostname: container.hostname.clone().filter(|_| !joined),
        user: container.user.clone(),
        working_dir: container.working_directory.clone(),
        entrypoint: container.entry_point.clone().filter(|e| !e.is_empty()),
        cmd: container.command.clone().filter(|c| !c.is_empty()),
        env: Some(environment(spec)),
        tty: container.pseudo_terminal,
        open_stdin: container.interactive,
        exposed_ports: bridge.then(|| container.port_mappings.iter().flatten().filter_map(exposed).collect()),
        healthcheck: Some(health_check(container)),
        labels: Some(labels::of_container(config, spec)),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

fn network_mode(config: &DockerConfig, spec: &ContainerSpec) -> String {
    if let Some(pause) = &spec.join_network {
        return format!("container:{pause}");
    }
    match spec.network_mode {
        _ if spec.container.disable_networking == Some(true) => "none",
        NetworkMode::Bridge => config.task_network.as_deref().unwrap_or("bridge"),
        NetworkMode::Host => "host",
        NetworkMode::None | NetworkMode::Awsvpc => "none",
    }
    .to_owned()
}

/// CPU units are Docker's shares; null, 0 and 1 become Linux's least, 2.
fn shares(cpu: Option<i32>) -> i64 {
    i64::from(cpu.unwrap_or(0)).clamp(SHARES_MIN, SHARES_MAX)
}

fn bytes(mebibytes: i32) -> i64 {
    i64::from(mebibytes).max(MEMORY_MIN_MIB) << 20
}

/// The definition's, then what the agent adds where the definition does not say otherwise.
fn environment(spec: &ContainerSpec) -> Vec<String> {
    let own = spec.container.environment.iter().flatten().filter_map(|e| Some((e.name.as_ref()?, e.value.as_ref()?)));
    let own: Vec<(&String, &String)> = own.collect();
    let added = spec.environment.iter().filter(|(name, _)| !own.iter().any(|(n, _)| *n == name)).map(|(n, v)| (n, v));
    own.iter().copied().chain(added).map(|(name, value)| format!("{name}={value}")).collect()
}

fn exposed(mapping: &crate::model::definition::PortMapping) -> Option<String> {
    Some(format!("{}/{}", mapping.container_port?, mapping.protocol.as_deref().unwrap_or("tcp")))
}

fn port_bindings(container: &ContainerDefinition) -> PortMap {
    let mut bindings = PortMap::new();
    for mapping in container.port_mappings.iter().flatten() {
        let Some(port) = exposed(mapping) else { continue };
        // 0: Docker picks a port of the host's ephemeral range.
        let binding = PortBinding { host_ip: None, host_port: Some(mapping.host_port.unwrap_or(0).to_string()) };
        bindings.entry(port).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn volumes_from(spec: &ContainerSpec) -> Option<Vec<String>> {
    let sources = spec.container.volumes_from.as_ref()?.iter().filter_map(|v| {
        let id = spec.siblings.get(v.source_container.as_ref()?)?;
        Some(if v.read_only == Some(true) { format!("{id}:ro") } else { id.clone() })
    });
    Some(sources.collect())
}

fn ulimits(container: &ContainerDefinition) -> Option<Vec<ResourcesUlimits>> {
    let limits = container.ulimits.as_ref()?.iter();
    Some(
        limits
            .map(|l| ResourcesUlimits { name: Some(l.name.clone()), soft: Some(l.soft_limit), hard: Some(l.hard_limit) })
            .collect(),
    )
}

fn extra_hosts(container: &ContainerDefinition) -> Option<Vec<String>> {
    let entries = container.extra_hosts.as_ref()?.iter();
    Some(entries.filter_map(|e| Some(format!("{}:{}", e.hostname.as_ref()?, e.ip_address.as_ref()?))).collect())
}

fn sysctls(container: &ContainerDefinition) -> Option<HashMap<String, String>> {
    let controls = container.system_controls.as_ref()?.iter();
    Some(controls.filter_map(|c| Some((c.namespace.clone()?, c.value.clone()?))).collect())
}

/// `awslogs` is ours: Docker writes json-files, blocking so that no line is lost, never compressed so that a reader that was away
/// finds the rotated ones. Every other driver is the user's choice and passed as it is.
fn log_config(config: &DockerConfig, container: &ContainerDefinition) -> Option<HostConfigLogConfig> {
    let log = container.log_configuration.as_ref()?;
    if log.log_driver != "awslogs" {
        let options = log.options.clone().unwrap_or_default().into_iter().collect();
        return Some(HostConfigLogConfig { typ: Some(log.log_driver.clone()), config: Some(options) });
    }
    let options = [
        ("mode", "blocking".to_owned()),
        ("max-size", config.log_max_size.clone()),
        ("max-file", config.log_max_files.to_string()),
        ("compress", "false".to_owned()),
    ];
    let options = options.into_iter().filter(|(key, _)| *key != "compress" || config.log_max_files > 1);
    Some(HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(options.map(|(k, v)| (k.to_owned(), v)).collect()),
    })
}

/// A HEALTHCHECK baked into the image counts for nothing on ECS: only the definition's does.
fn health_check(container: &ContainerDefinition) -> HealthConfig {
    let Some(check) = &container.health_check else {
        return HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() };
    };
    let nanoseconds = |seconds: i32| i64::from(seconds) * NANOSECONDS;
    HealthConfig {
        test: Some(check.command.clone()),
        interval: Some(nanoseconds(check.interval.unwrap_or(30))),
        timeout: Some(nanoseconds(check.timeout.unwrap_or(5))),
        retries: Some(i64::from(check.retries.unwrap_or(3))),
        start_period: check.start_period.map(nanoseconds),
        start_interval: None,
    }
}

fn apply_linux(host: &mut HostConfig, linux: &LinuxParameters) {
    if let Some(capabilities) = &linux.capabilities {
        host.cap_add = capabilities.add.clone();
        host.cap_drop = capabilities.drop.clone();
    }
    host.devices = linux.devices.as_ref().map(|devices| devices.iter().map(device).collect());
    host.init = linux.init_process_enabled;
    host.shm_size = linux.shared_memory_size.map(|mebibytes| i64::from(mebibytes) << 20);
    host.tmpfs = linux.tmpfs.as_ref().map(|mounts| {
        let options = |t: &crate::model::definition::Tmpfs| {
            let size = t.size.map(|mebibytes| format!("size={mebibytes}m"));
            t.mount_options.iter().flatten().cloned().chain(size).collect::<Vec<_>>().join(",")
        };
        mounts.iter().filter_map(|t| Some((t.container_path.clone()?, options(t)))).collect()
    });
    // Docker's swap limit is memory and swap together; ECS's is swap alone, and swappiness counts only with it.
    if let (Some(swap), Some(memory)) = (linux.max_swap, host.memory) {
        host.memory_swap = Some(memory + (i64::from(swap) << 20));
        host.memory_swappiness = linux.swappiness.map(i64::from);
    }
}

fn device(device: &crate::model::definition::Device) -> DeviceMapping {
    let letter = |p: &String| match p.as_str() {
        "read" => Some('r'),
        "write" => Some('w'),
        "mknod" => Some('m'),
        _ => None,
    };
    let permissions: String = device.permissions.iter().flatten().filter_map(letter).collect();
    DeviceMapping {
        path_on_host: device.host_path.clone(),
        path_in_container: device.container_path.clone().or_else(|| device.host_path.clone()),
        cgroup_permissions: Some(if permissions.is_empty() { "rwm".to_owned() } else { permissions }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::clock::ManualClock;
    use crate::model::arn::Home;
    use crate::model::definition::*;
    use crate::model::{DefinitionKey, TaskId, Timestamp};

    fn config() -> DockerConfig {
        DockerConfig::new("one", Home::new("us-east-1", "000000000000"), ManualClock::at(Timestamp(0)))
    }

    fn spec(container: ContainerDefinition) -> ContainerSpec {
        ContainerSpec {
            task: TaskId::new("t1"),
            cluster: "default".into(),
            service: Some("web".into()),
            definition: DefinitionKey::new("web", 3),
            network_mode: NetworkMode::Bridge,
            container,
            container_uuid: "u".into(),
            volumes: Vec::new(),
            join_network: None,
            siblings: BTreeMap::new(),
            pid_mode: None,
            ipc_mode: None,
            task_cpu: None,
            task_memory: None,
            log_target: None,
            environment: vec![("A".into(), "added".into()), ("B".into(), "added".into())],
        }
    }

    fn made(spec: &ContainerSpec) -> (ContainerCreateBody, HostConfig) {
        let mut body = body(&config(), spec, Resolved::default());
        let host = body.host_config.take().unwrap();
        (body, host)
    }

    #[test]
    fn defaults_are_the_ecs_agents() {
        let spec = spec(ContainerDefinition {
            name: "my_web".into(),
            environment: Some(vec![KeyValue { name: Some("A".into()), value: Some("own".into()) }]),
            memory: Some(4),
            ..Default::default()
        });
        let (body, host) = made(&spec);
        assert_eq!(host.cpu_shares, Some(2));
        assert_eq!(host.memory, Some(6 << 20));
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
        assert_eq!(host.log_config, None, "the daemon's default");
        assert_eq!(body.env.unwrap(), ["A=own", "B=added"]);
        assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"]);
        let labels = body.labels.unwrap();
        assert_eq!(labels["com.amazonaws.ecs.task-arn"], "arn:aws:ecs:us-east-1:000000000000:task/default/t1");
        assert_eq!(labels["com.amazonaws.ecs.task-definition-version"], "3");
        assert!(labels::container_name("one", &spec).starts_with("ecs-web-3-myweb-"));
    }

    #[test]
    fn ports_only_in_bridge_mode() {
        let mapping = |port, host| PortMapping { container_port: Some(port), host_port: host, ..Default::default() };
        let container = ContainerDefinition {
            name: "web".into(),
            port_mappings: Some(vec![mapping(80, None), mapping(81, Some(8081))]),
            ..Default::default()
        };
        let mut spec = spec(container);
        let (body, host) = made(&spec);
        let bindings = host.port_bindings.unwrap();
        let host_port = |port: &str| bindings[port].as_ref().unwrap()[0].host_port.clone().unwrap();
        assert_eq!((host_port("80/tcp"), host_port("81/tcp")), ("0".into(), "8081".into()));
        assert_eq!(body.exposed_ports.unwrap(), ["80/tcp", "81/tcp"]);
        spec.network_mode = NetworkMode::Host;
        let (body, host) = made(&spec);
        assert_eq!((host.network_mode.as_deref(), host.port_bindings), (Some("host"), None));
        assert_eq!(body.labels.unwrap()[labels::HOST_PORTS], "80/tcp,81/tcp");
        spec.join_network = Some("p".into());
        assert_eq!(made(&spec).1.network_mode.as_deref(), Some("container:p"));
    }

    #[test]
    fn bridge_tasks_join_the_task_network() {
        let port = PortMapping { container_port: Some(80), ..Default::default() };
        let mut spec = spec(ContainerDefinition { name: "web".into(), port_mappings: Some(vec![port]), ..Default::default() });
        let config = DockerConfig { task_network: Some("shop".into()), ..config() };
        let made = |spec: &ContainerSpec| {
            let mut body = super::body(&config, spec, Resolved::default());
            (body.host_config.take().unwrap(), body.labels.unwrap())
        };
        let (host, marks) = made(&spec);
        assert_eq!(host.network_mode.as_deref(), Some("shop"));
        assert!(host.port_bindings.unwrap().contains_key("80/tcp"), "ports are mapped as on the default bridge");
        assert_eq!((marks[labels::TASK_NETWORK].as_str(), marks[labels::NETWORK].as_str()), ("shop", "own"));
        for mode in [NetworkMode::Host, NetworkMode::None] {
            spec.network_mode = mode;
            let (host, marks) = made(&spec);
            assert_ne!(host.network_mode.as_deref(), Some("shop"), "{mode:?}");
            assert!(!marks.contains_key(labels::TASK_NETWORK), "{mode:?}");
        }
        (spec.network_mode, spec.container.disable_networking) = (NetworkMode::Bridge, Some(true));
        let (host, marks) = made(&spec);
        assert_eq!((host.network_mode.as_deref(), host.port_bindings), (Some("none"), None));
        assert!(!marks.contains_key(labels::TASK_NETWORK));
    }

    #[test]
    fn linux_parameters_and_logs() {
        let container = ContainerDefinition {
            name: "web".into(),
            memory: Some(64),
            linux_parameters: Some(LinuxParameters {
                max_swap: Some(32),
                swappiness: Some(10),
                shared_memory_size: Some(8),
                tmpfs: Some(vec![Tmpfs {
                    container_path: Some("/t".into()),
                    size: Some(5),
                    mount_options: Some(vec!["noexec".into()]),
                }]),
                devices: Some(vec![Device {
                    host_path: Some("/dev/null".into()),
                    permissions: Some(vec!["read".into()]),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            log_configuration: Some(LogConfiguration { log_driver: "awslogs".into(), ..Default::default() }),
            health_check: Some(HealthCheck { command: vec!["CMD-SHELL".into(), "true".into()], ..Default::default() }),
            ..Default::default()
        };
        let (body, host) = made(&spec(container));
        assert_eq!((host.memory_swap, host.memory_swappiness), (Some(96 << 20), Some(10)));
        assert_eq!(host.tmpfs.unwrap()["/t"], "noexec,size=5m");
        assert_eq!(host.devices.unwrap()[0].cgroup_permissions.as_deref(), Some("r"));
        let log = host.log_config.unwrap();
        assert_eq!(log.typ.as_deref(), Some("json-file"));
        assert_eq!(log.config.unwrap()["max-size"], "32m");
        let health = body.healthcheck.unwrap();
        assert_eq!((health.interval, health.timeout, health.retries), (Some(30_000_000_000), Some(5_000_000_000), Some(3)));
    }
}
