use serde_json::json;

use super::*;
use crate::model::ServiceKey;
use crate::model::service::{Service, ServiceStatus};

const IN_PROGRESS: &str = "IN_PROGRESS";

async fn create(world: &World) -> Value {
    let input = json!({"serviceName": "web", "taskDefinition": "web:1", "desiredCount": 2, "tags": [{"key": "a", "value": "1"}]});
    world.ok("CreateService", input).await["service"].clone()
}

async fn described(world: &World) -> Value {
    world.ok("DescribeServices", json!({"services": ["web"]})).await["services"][0].clone()
}

async fn updated(world: &World, mut input: Value) -> Value {
    input["service"] = json!("web");
    world.ok("UpdateService", input).await["service"].clone()
}

async fn set_status(world: &World, status: ServiceStatus) {
    let service = world.app().store.snapshot().services.get(&ServiceKey::new("default", "web")).unwrap().clone();
    world.put(Service { status, ..(*service).clone() }).await;
}

#[tokio::test]
async fn a_service_as_clients_see_it() {
    let world = world().await;
    let service = create(&world).await;
    assert_eq!(service["serviceArn"], "arn:aws:ecs:us-east-1:000000000000:service/default/web");
    assert_eq!((&service["status"], &service["desiredCount"]), (&json!("ACTIVE"), &json!(2)));
    assert_eq!((&service["runningCount"], &service["pendingCount"]), (&json!(0), &json!(0)));
    assert_eq!(service["deploymentConfiguration"], json!({"maximumPercent": 200, "minimumHealthyPercent": 100}));
    assert_eq!((&service["schedulingStrategy"], &service["launchType"]), (&json!("REPLICA"), &json!("EC2")));
    assert_eq!((&service["propagateTags"], &service["enableECSManagedTags"]), (&json!("NONE"), &json!(false)));
    assert_eq!((&service["events"], &service["tags"][0]["key"]), (&json!([]), &json!("a")));
    let deployment = &service["deployments"][0];
    let id = deployment["id"].as_str().unwrap();
    assert!(id.strip_prefix("ecs-svc/").is_some_and(|n| n.len() == 19 && n.bytes().all(|b| b.is_ascii_digit())));
    assert_eq!((&deployment["status"], &deployment["rolloutState"]), (&json!("PRIMARY"), &json!(IN_PROGRESS)));
    assert_eq!(deployment["rolloutStateReason"], format!("ECS deployment {id} in progress."));
    assert_eq!(deployment["desiredCount"], 2);

    let answer = world.ok("DescribeServices", json!({"services": [service["serviceArn"], "no"]})).await;
    assert!(answer["services"][0].get("tags").is_none(), "tags only when they are asked for");
    let missing = json!({"arn": "arn:aws:ecs:us-east-1:000000000000:service/default/no", "reason": "MISSING"});
    assert_eq!(answer["failures"], json!([missing]));
    let tagged = world.ok("DescribeServices", json!({"services": ["web"], "include": ["TAGS"]})).await;
    assert_eq!(tagged["services"][0], service);
}

#[tokio::test]
async fn making_it_again_is_the_same_request_or_refused() {
    let world = world().await;
    let input = json!({"serviceName": "web", "taskDefinition": "web:1", "desiredCount": 1, "clientToken": "t"});
    let first = world.ok("CreateService", input.clone()).await;
    assert_eq!(world.ok("CreateService", input.clone()).await, first);
    let without = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 1});
    assert_eq!(world.ok("CreateService", without).await, first);
    for (member, value) in [("desiredCount", json!(2)), ("clientToken", json!("u")), ("healthCheckGracePeriodSeconds", json!(5))]
    {
        let mut other = input.clone();
        other[member] = value;
        world.refused(&[("CreateService", other, INVALID, "Creation of service was not idempotent.")]).await;
    }
    set_status(&world, ServiceStatus::Draining).await;
    world.refused(&[("CreateService", input.clone(), INVALID, "still Draining")]).await;
    set_status(&world, ServiceStatus::Inactive).await;
    let fresh = world.ok("CreateService", input).await;
    assert_ne!(fresh["service"]["deployments"][0]["id"], first["service"]["deployments"][0]["id"], "a name that is free again");
}

#[tokio::test]
async fn what_starts_a_new_deployment() {
    let world = world().await;
    world.register_awsvpc("net").await;
    world.register("web").await;
    let network = |subnet: &str| json!({"awsvpcConfiguration": {"subnets": [subnet]}});
    create(&world).await;
    // (input, deployments after it, the PRIMARY's task definition)
    for (input, deployments, definition) in [
        (json!({"desiredCount": 3}), 1, "web:1"),
        (json!({"taskDefinition": "web:1"}), 1, "web:1"),
        (json!({"deploymentConfiguration": {"minimumHealthyPercent": 50}}), 1, "web:1"),
        (json!({"healthCheckGracePeriodSeconds": 9, "enableECSManagedTags": true, "propagateTags": "SERVICE"}), 1, "web:1"),
        (json!({"placementStrategy": [{"type": "spread", "field": "instanceId"}]}), 1, "web:1"),
        (json!({"taskDefinition": "web"}), 2, "web:2"),
        (json!({"taskDefinition": "web:2", "desiredCount": 1}), 2, "web:2"),
        (json!({"forceNewDeployment": true}), 3, "web:2"),
        (json!({"taskDefinition": "net", "networkConfiguration": network("a")}), 4, "net:1"),
        (json!({"networkConfiguration": network("a")}), 4, "net:1"),
        (json!({"networkConfiguration": network("b")}), 5, "net:1"),
    ] {
        let service = updated(&world, input.clone()).await;
        assert_eq!(service["deployments"].as_array().unwrap().len(), deployments, "{input}");
        assert_eq!(last(&service["deployments"][0]["taskDefinition"]), definition, "{input}");
        assert_eq!(last(&service["taskDefinition"]), definition, "{input}");
    }
    let service = described(&world).await;
    let statuses: Vec<&Value> = service["deployments"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(statuses, ["PRIMARY", "ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE"]);
    assert_eq!((&service["desiredCount"], &service["healthCheckGracePeriodSeconds"]), (&json!(1), &json!(9)));
    assert_eq!(service["deploymentConfiguration"], json!({"maximumPercent": 200, "minimumHealthyPercent": 50}));
    assert_eq!((&service["propagateTags"], &service["enableECSManagedTags"]), (&json!("SERVICE"), &json!(true)));
    let vpc = json!({"subnets": ["b"], "securityGroups": [], "assignPublicIp": "DISABLED"});
    assert_eq!(service["networkConfiguration"]["awsvpcConfiguration"], vpc);
    let cleared = updated(&world, json!({"placementStrategy": []})).await;
    assert_eq!(cleared["placementStrategy"], json!([]), "an empty list clears, an absent one keeps");
}

#[tokio::test]
async fn the_ledger_says_who_changed_what() {
    let world = world().await;
    create(&world).await;
    world.register("web").await;
    updated(&world, json!({"taskDefinition": "web", "desiredCount": 5})).await;
    let query = crate::store::RecordQuery { service: Some("default/web".to_owned()), ..crate::store::RecordQuery::decisions() };
    let mut told = Vec::new();
    for (_, record) in world.app().store.records(query).await.unwrap() {
        if let crate::store::Record::Decision(d) = record {
            told.push((d.action.split(" ecs-svc").next().unwrap().to_owned(), d.reason.sentence));
        }
    }
    let want = [
        ("desired 2 -> 5", "UpdateService asked for 5 tasks"),
        ("start deployment", "UpdateService asked for web:2 (was web:1)"),
        ("start deployment", "CreateService asked for 2 of web:1"),
    ];
    assert_eq!(told, want.map(|(a, s)| (a.to_owned(), s.to_owned())));
}

#[tokio::test]
async fn each_deployment_counts_its_own_tasks() {
    let world = world().await;
    let old = create(&world).await["deployments"][0]["id"].as_str().unwrap().to_owned();
    let new = updated(&world, json!({"forceNewDeployment": true})).await["deployments"][0]["id"].as_str().unwrap().to_owned();
    let tasks = world.ok("RunTask", json!({"taskDefinition": "web", "count": 4})).await["tasks"].clone();
    let of = [&old, &old, &new, &new];
    for (i, deployment) in of.iter().enumerate() {
        world
            .set_task(last(&tasks[i]["taskArn"]), |task| {
                task.service = Some("web".into());
                task.deployment = Some(deployment.as_str().into());
                task.last_status = if i == 3 { TaskStatus::Pending } else { TaskStatus::Running };
            })
            .await;
    }
    world.ok("StopTask", json!({"task": tasks[0]["taskArn"]})).await;
    let service = described(&world).await;
    assert_eq!((&service["runningCount"], &service["pendingCount"]), (&json!(3), &json!(1)));
    let counts =
        |at: usize| ["desiredCount", "runningCount", "pendingCount"].map(|c| service["deployments"][at][c].as_i64().unwrap());
    assert_eq!((counts(0), counts(1)), ([2, 1, 1], [1, 2, 0]));
}

#[tokio::test]
async fn deleted() {
    let world = world().await;
    create(&world).await;
    let delete = json!({"service": "web"});
    world
        .refused(&[("DeleteService", delete.clone(), INVALID, "The service cannot be stopped while it is scaled above 0.")])
        .await;
    let gone = world.ok("DeleteService", json!({"service": "web", "force": true})).await["service"].clone();
    assert_eq!((&gone["status"], &gone["desiredCount"]), (&json!("DRAINING"), &json!(0)));
    assert_eq!(world.ok("DeleteService", delete.clone()).await["service"]["status"], "DRAINING");
    assert_eq!(world.ok("ListServices", json!({})).await["serviceArns"], json!([]));
    world.refused(&[("UpdateService", delete.clone(), "ServiceNotActiveException", "Service was not ACTIVE.")]).await;
    set_status(&world, ServiceStatus::Inactive).await;
    assert_eq!(described(&world).await["status"], "INACTIVE", "still describable");
    world.refused(&[("DeleteService", delete, "ServiceNotFoundException", "Service not found.")]).await;
}

#[tokio::test]
async fn refused() {
    let world = world().await;
    world.register_awsvpc("net").await;
    create(&world).await;
    let with = |member: &str, value: Value| {
        let mut input = json!({"serviceName": "new", "taskDefinition": "web", "desiredCount": 1});
        input[member] = value;
        input
    };
    let bounds = |low: u32, high: u32| json!({"minimumHealthyPercent": low, "maximumPercent": high});
    let unsupported = "UnsupportedFeatureException";
    world
        .refused(&[
            ("CreateService", with("schedulingStrategy", json!("DAEMON")), unsupported, "DAEMON"),
            ("CreateService", with("deploymentController", json!({"type": "CODE_DEPLOY"})), unsupported, "controller"),
            ("CreateService", with("deploymentConfiguration", json!({"strategy": "BLUE_GREEN"})), unsupported, "ROLLING"),
            ("CreateService", with("serviceName", json!("a.b")), INVALID, "letters"),
            ("CreateService", with("desiredCount", json!(-1)), INVALID, "desiredCount"),
            ("CreateService", with("desiredCount", json!(5001)), INVALID, "5000"),
            ("CreateService", with("desiredCount", Value::Null), INVALID, "desiredCount is required"),
            ("CreateService", with("taskDefinition", Value::Null), INVALID, "TaskDefinition is required"),
            ("CreateService", with("taskDefinition", json!("none")), CLIENT, "TaskDefinition not found."),
            (
                "CreateService",
                with("taskDefinition", json!("net")),
                INVALID,
                "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
            ),
            ("CreateService", with("clientToken", json!("x".repeat(37))), INVALID, "clientToken"),
            ("CreateService", with("deploymentConfiguration", bounds(100, 100)), INVALID, "cannot be 100"),
            ("CreateService", with("deploymentConfiguration", bounds(100, 50)), INVALID, "maximumPercent"),
            ("CreateService", with("placementStrategy", json!([{"type": "odd"}])), INVALID, "odd"),
            ("UpdateService", json!({"service": "no"}), "ServiceNotFoundException", "Service not found."),
            ("UpdateService", json!({"service": "web", "taskDefinition": "none"}), CLIENT, "TaskDefinition not found."),
            (
                "UpdateService",
                json!({"service": "web", "taskDefinition": "net"}),
                INVALID,
                "Network Configuration must be provided",
            ),
            ("UpdateService", json!({"service": "web", "desiredCount": 5001}), INVALID, "desiredCount"),
            (
                "UpdateService",
                json!({"service": "web", "deploymentConfiguration": {"maximumPercent": 100}}),
                INVALID,
                "cannot be 100",
            ),
            ("DeleteService", json!({"service": "no"}), "ServiceNotFoundException", "Service not found."),
            ("DescribeServices", json!({"services": []}), INVALID, "Services cannot be empty."),
            ("DescribeServices", json!({"services": vec!["s"; 11]}), INVALID, "10"),
        ])
        .await;
    assert_eq!(described(&world).await["deployments"].as_array().unwrap().len(), 1, "a refusal changes nothing");
    world
        .ok(
            "RegisterTaskDefinition",
            json!({"family": "web", "containerDefinitions": [{"name": "a", "image": "a", "memory": 9}]}),
        )
        .await;
    world.ok("DeregisterTaskDefinition", json!({"taskDefinition": "web:2"})).await;
    world
        .refused(&[("UpdateService", json!({"service": "web", "taskDefinition": "web:2"}), CLIENT, "TaskDefinition is inactive")])
        .await;
    world.ok("DeregisterTaskDefinition", json!({"taskDefinition": "web:1"})).await;
    let kept = updated(&world, json!({"taskDefinition": "web:1", "desiredCount": 4})).await;
    assert_eq!(kept["desiredCount"], 4, "a service keeps and scales the revision that it runs, even when that is INACTIVE");
}

#[tokio::test]
async fn listed_ten_by_ten() {
    let world = world().await;
    for i in 0..12 {
        world.ok("CreateService", json!({"serviceName": format!("s{i:02}"), "taskDefinition": "web", "desiredCount": 0})).await;
    }
    let pages = world.pages("ListServices", json!({}), "serviceArns").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 2]);
    assert_eq!(last(&pages[1][1]), "s11");
    assert_eq!(world.pages("ListServices", json!({"launchType": "EXTERNAL"}), "serviceArns").await.concat().len(), 0);
    assert_eq!(world.pages("ListServices", json!({"schedulingStrategy": "DAEMON"}), "serviceArns").await.concat().len(), 0);
}

#[tokio::test]
async fn what_has_no_effect_is_counted() {
    let world = world().await;
    let input = json!({
        "serviceName": "g", "taskDefinition": "web", "desiredCount": 0, "launchType": "FARGATE",
        "loadBalancers": [{"targetGroupArn": "arn:x"}], "serviceRegistries": [], "platformVersion": "LATEST",
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {"enable": false, "rollback": false}, "alarms": {"alarmNames": ["a"], "enable": true, "rollback": true}},
    });
    world.ok("CreateService", input).await;
    let want = ["service.alarms", "service.launchType.FARGATE", "service.loadBalancers", "service.platformVersion"];
    assert_eq!(world.gaps(), want, "what is empty or switched off says nothing");
    let known = |path: &String| crate::api::gaps::KNOWN.iter().any(|(known, _)| known == path);
    assert!(world.gaps().iter().all(known));
}
