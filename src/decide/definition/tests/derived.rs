//! What follows from a registered definition: reservations, overrides, attributes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::*;
use super::{accepted, draft, fargate, merge, with};
use crate::model::task::{ContainerOverride, Overrides};

#[test]
fn what_a_task_reserves() {
    let containers = json!([
        { "name": "a", "image": "x", "cpu": 100, "memory": 200, "memoryReservation": 50,
          "portMappings": [{ "containerPort": 80, "hostPort": 8080 }, { "containerPort": 81 }] },
        { "name": "b", "image": "x", "cpu": 10, "memory": 30,
          "portMappings": [{ "containerPort": 53, "hostPort": 53, "protocol": "udp" }] }
    ]);
    let none = Overrides::default();
    let resources = |cpu, memory, tcp_ports, udp_ports| crate::model::task::Resources { cpu, memory, tcp_ports, udp_ports };
    let bridge = accepted(draft(containers.clone()));
    assert_eq!(reserved(&bridge, &none), resources(110, 80, vec![8080], vec![53]));
    let sized = accepted(Draft { cpu: Some("256".into()), memory: Some("512".into()), ..draft(containers) });
    assert_eq!(reserved(&sized, &none), resources(256, 512, vec![8080], vec![53]));
    let raised = Overrides { memory: Some("1 GB".to_owned()), ..Overrides::default() };
    assert_eq!(reserved(&sized, &raised).memory, 1024);
    assert_eq!(effective_size(&sized, &raised), Ok((Some(256), Some(1024))));
    let own = ContainerOverride { name: Some("b".into()), memory: Some(70), cpu: Some(20), ..ContainerOverride::default() };
    let own = Overrides { container_overrides: vec![own], ..Overrides::default() };
    assert_eq!(reserved(&bridge, &own), resources(120, 120, vec![8080], vec![53]));

    let host = |mode| accepted(Draft { network_mode: Some(mode), ..with(json!({ "portMappings": [{ "containerPort": 80 }] })) });
    assert_eq!(reserved(&host(NetworkMode::Host), &none).tcp_ports, [80]);
    assert_eq!(reserved(&host(NetworkMode::Awsvpc), &none).tcp_ports, [0u16; 0]);
}

#[test]
fn overrides_are_applied_and_checked() {
    let definition = accepted(with(json!({
        "memory": 5, "command": ["serve"], "environment": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }]
    })));
    let overridden = |members: Value| {
        let mut own = json!({ "name": "app" });
        merge(&mut own, members);
        let container_overrides = vec![serde_json::from_value(own).expect("an override")];
        effective_containers(&definition, &Overrides { container_overrides, ..Overrides::default() })
    };
    let changed = overridden(json!({
        "command": ["work"], "cpu": 7, "memory": 64, "memoryReservation": 32,
        "environment": [{ "name": "B", "value": "3" }, { "name": "C", "value": "4" }]
    }))
    .expect("applies");
    let environment: BTreeMap<_, _> =
        changed[0].environment.iter().flatten().map(|pair| (pair.name.clone().unwrap_or_default(), pair.value.clone())).collect();
    let value = |text: &str| Some(text.to_owned());
    assert_eq!(environment, BTreeMap::from([("A".into(), value("1")), ("B".into(), value("3")), ("C".into(), value("4"))]));
    assert_eq!(changed[0].command, Some(vec!["work".to_owned()]));
    assert_eq!((changed[0].cpu, changed[0].memory, changed[0].memory_reservation), (Some(7), Some(64), Some(32)));
    // Docker starts nothing with less than 6 MiB.
    assert_eq!(overridden(json!({})).expect("applies")[0].memory, Some(6));

    for (members, message) in [
        (json!({ "name": "other" }), "Override for container named other is not a container in the TaskDefinition."),
        (json!({ "cpu": -1 }), "Invalid 'cpu' setting for container 'app'."),
        (json!({ "memory": 0 }), "Invalid 'memory' setting for container 'app'."),
        (json!({ "memoryReservation": 3 }), "Invalid 'memoryReservation' setting for container 'app'."),
        (
            json!({ "memoryReservation": 9 }),
            "Invalid setting for container 'app'. 'memoryReservation' must not be greater than 'memory'.",
        ),
        (json!({ "environment": [{ "name": "" }] }), "Invalid 'environment' setting for container 'app'."),
        (json!({ "command": ["x".repeat(8_192)] }), "Container Overrides length must be at most 8192"),
    ] {
        let invalid = overridden(members).expect_err("refused");
        assert_eq!((invalid.kind, invalid.message.as_str()), (InvalidKind::Parameter, message));
    }
    let twice = Overrides {
        container_overrides: vec![ContainerOverride { name: Some("app".into()), ..ContainerOverride::default() }; 2],
        ..Overrides::default()
    };
    let message = effective_containers(&definition, &twice).expect_err("refused").message;
    assert_eq!(message, "Override for container named app is given multiple times.");
    let cpu = Overrides { cpu: Some("1".to_owned()), ..Overrides::default() };
    assert!(effective_containers(&definition, &cpu).expect_err("refused").message.starts_with("Invalid 'cpu' setting for task."));
}

#[test]
fn what_follows_from_a_definition() {
    let checked = |members| is_health_checked(&accepted(with(members)));
    assert!(checked(json!({ "healthCheck": { "command": ["CMD", "true"] } })));
    assert!(!checked(json!({ "healthCheck": { "command": ["NONE"] } })));
    assert!(!checked(json!({})));
    let side = json!([
        { "name": "a", "image": "x", "memory": 8 },
        { "name": "b", "image": "x", "memory": 8, "essential": false, "healthCheck": { "command": ["CMD", "true"] } }
    ]);
    assert!(!is_health_checked(&accepted(draft(side))));

    let plain = accepted(with(json!({})));
    assert_eq!(compatibilities(&plain), ["EC2", "EXTERNAL"]);
    assert_eq!(compatibilities(&accepted(fargate("256", "512", json!({})))), ["EC2", "FARGATE"]);
    assert_eq!(required_attributes(&plain), ["com.amazonaws.ecs.capability.docker-remote-api.1.18"]);
    assert!(without_effect(&plain).is_empty());

    let full = accepted(Draft {
        task_role_arn: Some("arn:aws:iam::0:role/t".to_owned()),
        execution_role_arn: Some("arn:aws:iam::0:role/e".to_owned()),
        network_mode: Some(NetworkMode::Awsvpc),
        ..with(json!({
            "secrets": [{ "name": "S", "valueFrom": "arn:aws:secretsmanager:us-east-1:0:secret:s" }],
            "portMappings": [{ "containerPort": 80, "name": "web", "appProtocol": "http" }],
            "logConfiguration": { "logDriver": "awslogs", "options": { "awslogs-group": "g" } },
            "stopTimeout": 5
        }))
    });
    assert_eq!(
        without_effect(&full),
        [
            "taskRoleArn",
            "executionRoleArn",
            "containerDefinitions.secrets",
            "containerDefinitions.portMappings.name",
            "containerDefinitions.portMappings.appProtocol"
        ]
    );
    assert_eq!(
        required_attributes(&full),
        [
            "com.amazonaws.ecs.capability.docker-remote-api.1.18",
            "com.amazonaws.ecs.capability.docker-remote-api.1.19",
            "com.amazonaws.ecs.capability.docker-remote-api.1.21",
            "com.amazonaws.ecs.capability.logging-driver.awslogs",
            "com.amazonaws.ecs.capability.task-iam-role",
            "ecs.capability.container-ordering",
            "ecs.capability.execution-role-awslogs",
            "ecs.capability.secrets.asm.environment-variables",
            "ecs.capability.task-eni"
        ]
    );
}
