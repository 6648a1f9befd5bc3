//! What follows from a registered definition: where it could run, what an instance must be able to do, what is not acted on.

use std::collections::BTreeSet;

use super::depends;
use super::size::{check_fargate, is_ecr, uses_driver};
use crate::model::definition::{ContainerDefinition, LogConfiguration, NetworkMode, TaskDefinition};

/// Whether tasks of this definition report health: "If a task has essential containers with a health check defined, the task's
/// health is that of these".
pub fn is_health_checked(definition: &TaskDefinition) -> bool {
    let checked = |c: &ContainerDefinition| c.health_check.as_ref().is_some_and(|check| !depends::is_none(&check.command));
    definition.containers.iter().any(|c| c.is_essential() && checked(c))
}

/// The launch types that would take this definition, whatever was asked for.
pub fn compatibilities(definition: &TaskDefinition) -> Vec<String> {
    let external = definition.network_mode != NetworkMode::Awsvpc;
    let all = [("EC2", true), ("FARGATE", check_fargate(definition).is_ok()), ("EXTERNAL", external)];
    all.into_iter().filter(|(_, fits)| *fits).map(|(name, _)| name.to_owned()).collect()
}

/// Names of attributes, as DescribeTaskDefinition's requiresAttributes shows them, in order and without repetition.
pub fn required_attributes(definition: &TaskDefinition) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut docker = |api: &str| names.insert(format!("com.amazonaws.ecs.capability.docker-remote-api.{api}"));
    docker("1.18");
    let containers = &definition.containers;
    let any = |test: &dyn Fn(&ContainerDefinition) -> bool| containers.iter().any(test);
    let has_awslogs = any(&|c| uses_driver(c, "awslogs"));
    let has_health_check = any(&|c| c.health_check.is_some());
    let has_task_role = definition.task_role_arn.is_some();
    if has_awslogs {
        docker("1.19");
    }
    if has_task_role || any(&|c| c.memory_reservation.is_some()) {
        docker("1.21");
    }
    if has_health_check {
        docker("1.29");
    }
    let has_execution_role = definition.execution_role_arn.is_some();
    let has_ecr = any(&|c| is_ecr(&c.image));
    let secret = |service: &str| {
        let is_from = |arn: &str| arn.contains(":secretsmanager:") == (service == "asm");
        any(&|c| c.secrets.iter().flatten().any(|s| s.value_from.as_deref().is_some_and(is_from)))
    };
    let log_secret = |service: &str| {
        let is_from = |arn: &str| arn.contains(":secretsmanager:") == (service == "asm");
        let options =
            |log: &LogConfiguration| log.secret_options.iter().flatten().any(|s| s.value_from.as_deref().is_some_and(is_from));
        any(&|c| c.log_configuration.as_ref().is_some_and(options))
    };
    let security = |kind: &str| any(&|c| c.docker_security_options.iter().flatten().any(|option| option.contains(kind)));
    let host_network = definition.network_mode == NetworkMode::Host;
    let orders = |c: &ContainerDefinition| {
        c.depends_on.as_ref().is_some_and(|d| !d.is_empty()) || c.start_timeout.is_some() || c.stop_timeout.is_some()
    };
    let restarts = |c: &ContainerDefinition| c.restart_policy.as_ref().is_some_and(|policy| policy.enabled);
    let env_files = |c: &ContainerDefinition| c.environment_files.as_ref().is_some_and(|files| !files.is_empty());
    for (name, wanted) in [
        ("com.amazonaws.ecs.capability.privileged-container", any(&|c| c.privileged == Some(true))),
        ("com.amazonaws.ecs.capability.ecr-auth", has_ecr),
        ("com.amazonaws.ecs.capability.task-iam-role", has_task_role && !host_network),
        ("com.amazonaws.ecs.capability.task-iam-role-network-host", has_task_role && host_network),
        ("com.amazonaws.ecs.capability.selinux", security("label")),
        ("com.amazonaws.ecs.capability.apparmor", security("apparmor")),
        ("ecs.capability.execution-role-awslogs", has_execution_role && has_awslogs),
        ("ecs.capability.execution-role-ecr-pull", has_execution_role && has_ecr),
        ("ecs.capability.container-health-check", has_health_check),
        ("ecs.capability.container-ordering", any(&orders)),
        ("ecs.capability.container-restart-policy", any(&restarts)),
        ("ecs.capability.task-eni", definition.network_mode == NetworkMode::Awsvpc),
        ("ecs.capability.task-cpu-mem-limit", definition.cpu.is_some() || definition.memory.is_some()),
        // Above the 10 vCPUs that were the limit for long.
        ("ecs.capability.increased-task-cpu-limit", definition.cpu.is_some_and(|cpu| cpu > 10 * 1024)),
        ("ecs.capability.secrets.ssm.environment-variables", secret("ssm")),
        ("ecs.capability.secrets.asm.environment-variables", secret("asm")),
        ("ecs.capability.secrets.ssm.bootstrap.log-driver", log_secret("ssm")),
        ("ecs.capability.secrets.asm.bootstrap.log-driver", log_secret("asm")),
        ("ecs.capability.env-files.s3", any(&env_files)),
        ("ecs.capability.pid-ipc-namespace-sharing", definition.pid_mode.is_some() || definition.ipc_mode.is_some()),
    ] {
        if wanted {
            names.insert(name.to_owned());
        }
    }
    for log in containers.iter().filter_map(|c| c.log_configuration.as_ref()) {
        names.insert(format!("com.amazonaws.ecs.capability.logging-driver.{}", log.log_driver));
    }
    let volumes = definition.volumes.iter().filter_map(|v| v.docker_volume_configuration.as_ref());
    for driver in volumes.filter_map(|docker| docker.driver.as_deref()).filter(|driver| *driver != "local") {
        names.insert(format!("ecs.capability.docker-plugin.{driver}"));
    }
    names.into_iter().collect()
}

/// Options of awslogs that act, and the region, of which there is one.
const AWSLOGS_OPTIONS: [&str; 4] = ["awslogs-group", "awslogs-stream-prefix", "awslogs-create-group", "awslogs-region"];

/// Members that are set, kept and shown, but that Beaufort does not act on (yet), by their path: a caller should be told.
pub fn without_effect(definition: &TaskDefinition) -> Vec<&'static str> {
    let any = |test: &dyn Fn(&ContainerDefinition) -> bool| definition.containers.iter().any(test);
    let ports =
        |test: &dyn Fn(&crate::model::definition::PortMapping) -> bool| any(&|c| c.port_mappings.iter().flatten().any(test));
    let is_set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let secret_options = |log: &LogConfiguration| log.secret_options.as_ref().is_some_and(|options| !options.is_empty());
    let idle_option = |log: &LogConfiguration| {
        log.log_driver == "awslogs" && log.options.iter().flatten().any(|(name, _)| !AWSLOGS_OPTIONS.contains(&name.as_str()))
    };
    let all = [
        // There are no AWS credentials to hand out: a container gets none, and images and logs need none.
        ("taskRoleArn", is_set(&definition.task_role_arn)),
        ("executionRoleArn", is_set(&definition.execution_role_arn)),
        // Instances of every architecture are candidates; a memberOf constraint on ecs.cpu-architecture binds.
        ("runtimePlatform.cpuArchitecture", definition.runtime_platform.as_ref().is_some_and(|p| is_set(&p.cpu_architecture))),
        ("containerDefinitions.secrets", any(&|c| c.secrets.as_ref().is_some_and(|s| !s.is_empty()))),
        ("containerDefinitions.environmentFiles", any(&|c| c.environment_files.as_ref().is_some_and(|f| !f.is_empty()))),
        (
            "containerDefinitions.logConfiguration.secretOptions",
            any(&|c| c.log_configuration.as_ref().is_some_and(secret_options)),
        ),
        ("containerDefinitions.logConfiguration.options", any(&|c| c.log_configuration.as_ref().is_some_and(idle_option))),
        // Service Connect's.
        ("containerDefinitions.portMappings.name", ports(&|p| p.name.is_some())),
        ("containerDefinitions.portMappings.appProtocol", ports(&|p| p.app_protocol.is_some())),
    ];
    all.into_iter().filter(|(_, set)| *set).map(|(path, _)| path).collect()
}
