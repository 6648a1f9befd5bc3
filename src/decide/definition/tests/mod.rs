//! Registration, message by message; what follows from a definition is in [`derived`].

mod derived;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::task::Overrides;

const NOW: Timestamp = Timestamp(1_795_170_232_355);

/// A draft of these containers, written as a client writes them.
fn draft(containers: Value) -> Draft {
    let containers = serde_json::from_value(containers).expect("container definitions");
    Draft { family: "web".to_owned(), containers, ..Draft::default() }
}

/// One valid container with these members in place of its own.
fn with(members: Value) -> Draft {
    let mut container = json!({ "name": "app", "image": "nginx:1", "memory": 128 });
    merge(&mut container, members);
    draft(json!([container]))
}

fn merge(container: &mut Value, members: Value) {
    let Value::Object(members) = members else { panic!("not an object") };
    container.as_object_mut().expect("an object").extend(members);
}

fn refused(draft: Draft) -> String {
    let invalid = register(draft, 1, NOW).expect_err("refused");
    assert_eq!(invalid.kind, InvalidKind::Client);
    invalid.message
}

fn accepted(draft: Draft) -> TaskDefinition {
    register(draft, 1, NOW).unwrap_or_else(|e| panic!("{e}"))
}

fn fargate(cpu: &str, memory: &str, container: Value) -> Draft {
    Draft {
        network_mode: Some(NetworkMode::Awsvpc),
        cpu: Some(cpu.to_owned()),
        memory: Some(memory.to_owned()),
        requires_compatibilities: vec!["FARGATE".to_owned()],
        ..with(container)
    }
}

#[test]
fn members_of_one_container_are_checked() {
    let setting = |what: &str| format!("Invalid '{what}' setting for container 'app'.");
    let check = |members: Value, message: &str| assert_eq!(refused(with(members.clone())), message, "{members}");
    for (members, message) in [
        (json!({ "name": "" }), "Container.name should not be null or empty."),
        (json!({ "name": "a b" }), "Container.name contains invalid characters."),
        (json!({ "name": "a".repeat(256) }), "Container.name contains invalid characters."),
        (json!({ "image": "" }), "Container.image should not be null or empty."),
        (json!({ "image": "nginx 1" }), "Container.image contains invalid characters."),
        (
            json!({ "memory": null }),
            "Invalid setting for container 'app'. At least one of 'memory' or 'memoryReservation' must be specified.",
        ),
        (
            json!({ "memoryReservation": 129 }),
            "Invalid setting for container 'app'. 'memoryReservation' must not be greater than 'memory'.",
        ),
        (
            json!({ "environment": [{ "value": "x" }] }),
            "Invalid setting for container 'app'. The name of an environment variable should not be null or empty.",
        ),
        (
            json!({ "secrets": [{ "name": "X" }] }),
            "Invalid setting for container 'app'. The name and valueFrom of a secret should not be null or empty.",
        ),
        (json!({ "logConfiguration": {} }), "Invalid setting for container 'app'. The log driver should not be null or empty."),
        (
            json!({ "logConfiguration": { "logDriver": "awslogs", "options": { "awslogs-region": "us-east-1" } } }),
            "Log driver awslogs requires options: awslogs-region, awslogs-group",
        ),
        (
            json!({ "ulimits": [{ "name": "nofile", "softLimit": 9, "hardLimit": 8 }] }),
            "Invalid setting for container 'app'. The soft limit of ulimit 'nofile' must not exceed its hard limit.",
        ),
        (
            json!({ "linuxParameters": { "capabilities": { "add": ["CAP_CHOWN"] } } }),
            "Invalid setting for container 'app'. The capability 'CAP_CHOWN' is not valid.",
        ),
        (
            json!({ "memory": null, "memoryReservation": 64, "linuxParameters": { "maxSwap": 1 } }),
            "Invalid setting for container 'app'. 'linuxParameters.maxSwap' requires 'memory' to be specified.",
        ),
        (json!({ "essential": false }), "At least one container in the task definition must be essential."),
    ] {
        check(members, message);
    }
    for (members, what) in [
        (json!({ "cpu": -1 }), "cpu"),
        (json!({ "cpu": 300_000 }), "cpu"),
        (json!({ "memory": 3 }), "memory"),
        (json!({ "memory": -5 }), "memory"),
        (json!({ "memoryReservation": 0 }), "memoryReservation"),
        (json!({ "startTimeout": -1 }), "startTimeout"),
        (json!({ "stopTimeout": 86_401 }), "stopTimeout"),
        (json!({ "environment": [{ "name": "a=b", "value": "x" }] }), "environment"),
        (json!({ "environmentFiles": [{ "type": "s3", "value": "arn:aws:s3:::b/x.txt" }] }), "environmentFiles"),
        (json!({ "healthCheck": { "command": [] } }), "healthCheck.command"),
        (json!({ "healthCheck": { "command": ["CMD"] } }), "healthCheck.command"),
        (json!({ "healthCheck": { "command": ["true"] } }), "healthCheck.command"),
        (json!({ "healthCheck": { "command": ["CMD", "true"], "interval": 4 } }), "healthCheck.interval"),
        (json!({ "healthCheck": { "command": ["CMD", "true"], "timeout": 61 } }), "healthCheck.timeout"),
        (json!({ "healthCheck": { "command": ["CMD", "true"], "retries": 11 } }), "healthCheck.retries"),
        (json!({ "healthCheck": { "command": ["CMD", "true"], "startPeriod": 301 } }), "healthCheck.startPeriod"),
        (json!({ "restartPolicy": { "enabled": true, "restartAttemptPeriod": 59 } }), "restartPolicy.restartAttemptPeriod"),
        (json!({ "restartPolicy": { "enabled": true, "ignoredExitCodes": vec![1; 51] } }), "restartPolicy.ignoredExitCodes"),
        (json!({ "ulimits": [{ "name": "files", "softLimit": 1, "hardLimit": 1 }] }), "ulimits.name"),
        (json!({ "systemControls": [{ "namespace": "net.core.somaxconn" }] }), "systemControls"),
        (json!({ "linuxParameters": { "devices": [{ "containerPath": "/dev/x" }] } }), "linuxParameters.devices"),
        (json!({ "linuxParameters": { "tmpfs": [{ "containerPath": "/t", "size": 0 }] } }), "linuxParameters.tmpfs"),
        (json!({ "linuxParameters": { "sharedMemorySize": 0 } }), "linuxParameters.sharedMemorySize"),
        (json!({ "linuxParameters": { "swappiness": 101 } }), "linuxParameters.swappiness"),
        (json!({ "portMappings": [{}] }), "containerPort"),
        (json!({ "portMappings": [{ "containerPort": 0 }] }), "containerPort"),
        (json!({ "portMappings": [{ "containerPort": 80, "hostPort": 65_536 }] }), "hostPort"),
        (json!({ "portMappings": [{ "containerPort": 80, "protocol": "sctp" }] }), "protocol"),
        (json!({ "portMappings": [{ "containerPort": 80, "appProtocol": "ftp" }] }), "appProtocol"),
        (json!({ "portMappings": vec![json!({ "containerPort": 80 }); 101] }), "portMappings"),
        (json!({ "extraHosts": [{ "hostname": "db", "ipAddress": "nowhere" }] }), "extraHosts"),
        (json!({ "dependsOn": [{ "containerName": "app", "condition": "READY" }] }), "dependsOn.condition"),
    ] {
        check(members, &setting(what));
    }
}

#[test]
fn ports_follow_the_network_mode() {
    let ports = |mappings: Value, mode| Draft { network_mode: Some(mode), ..with(json!({ "portMappings": mappings })) };
    let moved = json!([{ "containerPort": 80, "hostPort": 8080 }]);
    for (mappings, mode, message) in [
        (
            moved.clone(),
            NetworkMode::Awsvpc,
            "When networkMode=awsvpc, the host ports and container ports in port mappings must match.",
        ),
        (
            moved.clone(),
            NetworkMode::Host,
            "When networkMode=host, the host ports and container ports in port mappings must match.",
        ),
        (moved.clone(), NetworkMode::None, "Port mappings are not supported when networkMode=none."),
        (
            json!([{ "containerPort": 80, "hostPort": 80 }, { "containerPort": 81, "hostPort": 80 }]),
            NetworkMode::Bridge,
            "TCP host port '80' is mapped multiple times in task.",
        ),
        (
            json!([{ "containerPort": 53, "protocol": "udp" }, { "containerPort": 53, "protocol": "udp" }]),
            NetworkMode::Host,
            "UDP host port '53' is mapped multiple times in task.",
        ),
        (
            json!([{ "containerPort": 53, "protocol": "udp" }, { "containerPort": 53 }]),
            NetworkMode::Bridge,
            "Invalid setting for container 'app'. The same container port cannot be exposed for multiple protocols.",
        ),
        (
            json!([{ "containerPort": 80, "name": "Web" }]),
            NetworkMode::Bridge,
            "Invalid setting for container 'app'. The name of a port mapping contains invalid characters.",
        ),
        (
            json!([{ "containerPort": 80, "name": "web" }, { "containerPort": 81, "name": "web" }]),
            NetworkMode::Bridge,
            "Port mapping name 'web' is used multiple times in task.",
        ),
    ] {
        assert_eq!(refused(ports(mappings, mode)), message);
    }
    let stored = |mode, host: Value| {
        let definition = accepted(ports(json!([{ "containerPort": 80, "hostPort": host }]), mode));
        definition.containers[0].port_mappings.clone().expect("mappings")[0].host_port
    };
    assert_eq!(stored(NetworkMode::Bridge, json!(null)), Some(0));
    assert_eq!(stored(NetworkMode::Bridge, json!(8080)), Some(8080));
    assert_eq!(stored(NetworkMode::Host, json!(null)), Some(80));
    assert_eq!(stored(NetworkMode::Awsvpc, json!(0)), Some(80));
    // Dynamic ports do not collide.
    accepted(ports(json!([{ "containerPort": 80 }, { "containerPort": 80, "hostPort": 0 }]), NetworkMode::Bridge));

    let awsvpc = |members| Draft { network_mode: Some(NetworkMode::Awsvpc), ..with(members) };
    assert_eq!(refused(awsvpc(json!({ "hostname": "x" }))), "Hostname is not supported on container when networkMode=awsvpc.");
    assert_eq!(
        refused(awsvpc(json!({ "extraHosts": [{ "hostname": "db", "ipAddress": "10.0.0.1" }] }))),
        "Extra hosts are not supported on container when networkMode=awsvpc."
    );
}

#[test]
fn dependencies_are_checked() {
    let check = |on: Value, condition: &str, other: Value| {
        let mut side = json!({ "name": "side", "image": "x", "memory": 8 });
        merge(&mut side, other);
        let depends = json!([{ "containerName": on, "condition": condition }]);
        let result = register(draft(json!([{ "name": "app", "image": "x", "memory": 8, "dependsOn": depends }, side])), 1, NOW);
        result.err().map(|invalid| invalid.message).unwrap_or_default()
    };
    let not_essential = || json!({ "essential": false });
    assert_eq!(
        check(json!("none"), "START", json!({})),
        "Invalid setting for container 'app'. The container 'none' it depends on is not in the task definition."
    );
    let essential = "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container";
    assert_eq!(check(json!("side"), "SUCCESS", json!({})), essential);
    assert_eq!(check(json!("side"), "COMPLETE", json!({})), essential);
    assert_eq!(check(json!("side"), "COMPLETE", not_essential()), "");
    let unchecked = "A dependency container with HEALTHY condition must have a health check configured";
    assert_eq!(check(json!("side"), "HEALTHY", json!({})), unchecked);
    assert_eq!(check(json!("side"), "HEALTHY", json!({ "healthCheck": { "command": ["NONE"] } })), unchecked);
    assert_eq!(check(json!("side"), "HEALTHY", json!({ "healthCheck": { "command": ["CMD", "true"] } })), "");
    let cycle = "Container dependencies should not have a cycle";
    let back = json!({ "dependsOn": [{ "containerName": "app", "condition": "START" }] });
    assert_eq!(check(json!("side"), "START", back), cycle);
    assert_eq!(check(json!("app"), "START", json!({})), cycle);
}

#[test]
fn volumes_and_mounts_are_checked() {
    let check = |volumes: Value, members: Value| {
        let volumes = serde_json::from_value(volumes).expect("volumes");
        let result = register(Draft { volumes, ..with(members) }, 1, NOW);
        result.err().map(|invalid| invalid.message).unwrap_or_default()
    };
    let mount = |volume: &str, path: &str| json!({ "mountPoints": [{ "sourceVolume": volume, "containerPath": path }] });
    for (volumes, members, message) in [
        (json!([{ "name": "v" }]), mount("v", "/data"), ""),
        (json!([]), mount("v", "/data"), "Unknown volume 'v'."),
        (json!([{ "name": "v" }]), mount("v", "data"), "Invalid 'mountPoints.containerPath' setting for container 'app'."),
        (json!([{}]), json!({}), "Volume.name should not be null or empty."),
        (json!([{ "name": "a b" }]), json!({}), "Volume.name contains invalid characters."),
        (json!([{ "name": "v" }, { "name": "v" }]), json!({}), "Volume name 'v' is used multiple times in task."),
        (
            json!([{ "name": "v", "host": {}, "dockerVolumeConfiguration": {} }]),
            json!({}),
            "Only one volume type can be configured for volume 'v'.",
        ),
        (
            json!([{ "name": "v", "host": { "sourcePath": "data" } }]),
            json!({}),
            "Invalid 'host.sourcePath' setting for volume 'v'.",
        ),
        (
            json!([{ "name": "v", "dockerVolumeConfiguration": { "scope": "all" } }]),
            json!({}),
            "Invalid 'dockerVolumeConfiguration.scope' setting for volume 'v'.",
        ),
        (
            json!([{ "name": "v", "dockerVolumeConfiguration": { "scope": "task", "autoprovision": true } }]),
            json!({}),
            "Invalid 'dockerVolumeConfiguration.autoprovision' setting for volume 'v'.",
        ),
        (
            json!([]),
            json!({ "volumesFrom": [{ "sourceContainer": "none" }] }),
            "Invalid setting for container 'app'. The container 'none' in volumesFrom is not another one of the task.",
        ),
    ] {
        assert_eq!(check(volumes.clone(), members), message, "{volumes}");
    }
}

#[test]
fn the_task_as_a_whole_is_checked() {
    let one = || with(json!({}));
    let text = |text: &str| Some(text.to_owned());
    let container = |name: String| json!({ "name": name, "image": "x", "memory": 8 });
    let see = "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.";
    let cpu = format!("Invalid 'cpu' setting for task. {see}");
    let memory = format!("Invalid 'memory' setting for task. {see}");
    let many = draft((0..11).map(|i| container(format!("c{i}"))).collect());
    let distinct = PlacementConstraint { kind: text("distinctInstance"), expression: None };
    let platform = |os: &str| Some(RuntimePlatform { operating_system_family: text(os), ..RuntimePlatform::default() });
    for (draft, message) in [
        (Draft { family: String::new(), ..one() }, "Family should not be null or empty."),
        (Draft { family: "a/b".to_owned(), ..one() }, "Family contains invalid characters."),
        (Draft { family: "a".repeat(256), ..one() }, "Family should not be longer than 255 characters."),
        (draft(json!([])), "Container list cannot be empty."),
        (many, "Too many containers."),
        (
            draft(json!([container("a".to_owned()), container("a".to_owned())])),
            "Container name 'a' is used multiple times in task.",
        ),
        (Draft { cpu: text("64"), ..one() }, &cpu),
        (Draft { cpu: text("a lot"), ..one() }, &cpu),
        (Draft { cpu: text("200 vCPU"), ..one() }, &cpu),
        (Draft { memory: text("inf GB"), ..one() }, &memory),
        (Draft { memory: text("3"), ..one() }, &memory),
        (
            Draft { cpu: text("256"), ..with(json!({ "cpu": 257 })) },
            "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.",
        ),
        (
            Draft { memory: text("127"), ..one() },
            "Invalid setting for container 'app'. 'memory' must not be greater than the value of the task 'memory'.",
        ),
        (
            Draft { memory: text("15"), ..draft(json!([container("a".to_owned()), container("b".to_owned())])) },
            "The sum of all container 'memoryReservation' or 'memory' values cannot be greater than the value of the task 'memory'.",
        ),
        (Draft { placement_constraints: vec![distinct], ..one() }, "constraint.type 'distinctInstance' is not supported."),
        (Draft { pid_mode: text("none"), ..one() }, "Invalid 'pidMode' setting 'none' for task. Valid values: host, task."),
        (Draft { ipc_mode: text("x"), ..one() }, "Invalid 'ipcMode' setting 'x' for task. Valid values: host, task, none."),
        (
            Draft { requires_compatibilities: vec!["MOON".to_owned()], ..one() },
            "Invalid 'requiresCompatibilities' setting 'MOON' for task. Valid values: EC2, FARGATE, EXTERNAL, MANAGED_INSTANCES.",
        ),
        (
            Draft { runtime_platform: platform("WINDOWS_SERVER_2022_CORE"), ..one() },
            "Invalid 'operatingSystemFamily' setting 'WINDOWS_SERVER_2022_CORE' for task. Valid values: LINUX.",
        ),
        (
            Draft { requires_compatibilities: vec!["EXTERNAL".to_owned()], network_mode: Some(NetworkMode::Awsvpc), ..one() },
            "External launch type does not support network mode 'awsvpc'.",
        ),
    ] {
        assert_eq!(refused(draft), message);
    }
    let large = refused(with(json!({ "dockerLabels": { "x": "y".repeat(MAX_BYTES) } })));
    assert!(large.starts_with("Actual length: '65") && large.ends_with("Max allowed length is '65536' bytes."), "{large}");
    let message = register(one(), MAX_REVISION + 1, NOW).expect_err("too many").message;
    assert_eq!(message, "The family web has reached its limit of 1000000 revisions.");
}

#[test]
fn fargate_is_checked_when_asked_for() {
    let logged = || json!({ "logConfiguration": { "logDriver": "awslogs", "options": { "awslogs-group": "g" } } });
    let message = |change: fn(&mut Draft), container: Value| {
        let mut draft = fargate("256", "512", container);
        change(&mut draft);
        register(draft, 1, NOW).err().map(|invalid| invalid.message).unwrap_or_default()
    };
    assert_eq!(message(|_| {}, json!({})), "");
    assert_eq!(message(|d| d.cpu = None, json!({})), "Fargate requires that 'cpu' be defined at the task level.");
    assert_eq!(message(|d| d.memory = None, json!({})), "Fargate requires that 'memory' be defined at the task level.");
    assert_eq!(message(|d| d.memory = Some("3 GB".to_owned()), json!({})), "No Fargate configuration exists for given values.");
    assert_eq!(message(|d| d.network_mode = None, json!({})), "Fargate only supports network mode ‘awsvpc’.");
    assert_eq!(
        message(|_| {}, json!({ "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1" })),
        "Fargate requires task definition to have execution role ARN to support ECR images."
    );
    assert_eq!(
        message(|_| {}, logged()),
        "Fargate requires task definition to have execution role ARN to support log driver awslogs."
    );
    assert_eq!(message(|d| d.execution_role_arn = Some("arn:aws:iam::0:role/r".to_owned()), logged()), "");
    assert_eq!(message(|_| {}, json!({ "privileged": true })), "Fargate compatible task definitions do not support privileged");

    let sizes = [
        (256, 2048, true),
        (256, 3072, false),
        (512, 4096, true),
        (512, 512, false),
        (1024, 8192, true),
        (2048, 4096, true),
        (4096, 30_720, true),
        (4096, 31_744, false),
        (8192, 20_480, true),
        (8192, 18_432, false),
        (16_384, 122_880, true),
        (16_384, 36_864, false),
        (300, 512, false),
    ];
    for (cpu, memory, valid) in sizes {
        assert_eq!(register(fargate(&cpu.to_string(), &memory.to_string(), json!({})), 1, NOW).is_ok(), valid, "{cpu} {memory}");
    }
}

#[test]
fn defaults_are_filled_in() {
    let definition = accepted(Draft {
        cpu: Some("0.5 vCPU".to_owned()),
        memory: Some(".5GB".to_owned()),
        ..with(json!({
            "portMappings": [{ "containerPort": 80 }],
            "healthCheck": { "command": ["CMD-SHELL", "true"] },
            "restartPolicy": { "enabled": true }
        }))
    });
    assert_eq!(definition.key, DefinitionKey::new("web", 1));
    assert_eq!((definition.cpu, definition.memory), (Some(512), Some(512)));
    assert_eq!((definition.network_mode, definition.network_mode_given), (NetworkMode::Bridge, false));
    let mut container = serde_json::to_value(&definition.containers[0]).expect("JSON");
    strip_nulls(&mut container);
    assert_eq!(
        container,
        json!({
            "name": "app", "image": "nginx:1", "memory": 128, "cpu": 0, "essential": true,
            "portMappings": [{ "containerPort": 80, "hostPort": 0, "protocol": "tcp" }],
            "environment": [], "mountPoints": [], "volumesFrom": [], "systemControls": [],
            "healthCheck": { "command": ["CMD-SHELL", "true"], "interval": 30, "timeout": 5, "retries": 3 },
            "restartPolicy": { "enabled": true, "restartAttemptPeriod": 300 }
        })
    );
    // awslogs-region may be left out.
    accepted(with(json!({ "logConfiguration": { "logDriver": "awslogs", "options": { "awslogs-group": "g" } } })));
    for (cpu, units) in [("1 vCPU", 1024), ("1vcpu", 1024), ("256", 256), ("0.25 VCPU", 256)] {
        assert_eq!(accepted(Draft { cpu: Some(cpu.to_owned()), ..with(json!({})) }).cpu, Some(units), "{cpu}");
    }
}

proptest! {
    #[test]
    fn what_is_registered_can_be_registered_again(
        cpu in 0..4096i32, memory in 4..4096i32, reservation in proptest::option::of(4..64i32), port in 1..65_536i32,
        mode in prop_oneof![Just(NetworkMode::Bridge), Just(NetworkMode::Host), Just(NetworkMode::Awsvpc)],
    ) {
        let reservation = reservation.map(|mib| mib.min(memory));
        let first = accepted(Draft { network_mode: Some(mode), ..with(json!({
            "cpu": cpu, "memory": memory, "memoryReservation": reservation, "portMappings": [{ "containerPort": port }]
        })) });
        let again = accepted(Draft {
            family: "web".to_owned(),
            containers: first.containers.clone(),
            network_mode: Some(mode),
            ..Draft::default()
        });
        prop_assert_eq!(&first, &again);
        let reserved = reserved(&first, &Overrides::default());
        prop_assert_eq!((reserved.cpu, reserved.memory), (cpu as u32, reservation.unwrap_or(memory) as u32));
    }

    #[test]
    fn no_text_is_a_size_by_accident(text in "[0-9a-zA-Z. -]{0,12}") {
        if let Ok(size) = size::read(&Some(text.clone()), &None) {
            let units = size.cpu.unwrap_or(0);
            prop_assert!((128..=196_608).contains(&units), "{text} -> {units}");
        }
    }
}
