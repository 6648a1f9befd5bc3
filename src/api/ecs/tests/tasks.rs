use serde_json::json;

use super::*;

#[tokio::test]
async fn a_task_as_clients_see_it() {
    let world = world().await;
    let overrides =
        json!({"containerOverrides": [{"name": "app", "command": ["x"], "environment": [{"name": "A", "value": "1"}]}]});
    let input = json!({"taskDefinition": "web", "startedBy": "me", "overrides": overrides, "tags": [{"key": "a", "value": "1"}],
        "enableECSManagedTags": true});
    let answer = world.ok("RunTask", input).await;
    assert_eq!(answer["failures"], json!([]));
    let task = &answer["tasks"][0];
    let id = last(&task["taskArn"]).to_owned();
    assert_eq!((id.len(), id.bytes().all(|b| b.is_ascii_hexdigit())), (32, true));
    assert_eq!(task["taskArn"], format!("arn:aws:ecs:us-east-1:000000000000:task/default/{id}"));
    assert_eq!(task["taskDefinitionArn"], "arn:aws:ecs:us-east-1:000000000000:task-definition/web:1");
    assert_eq!((&task["lastStatus"], &task["desiredStatus"]), (&json!("PENDING"), &json!("RUNNING")));
    assert_eq!((&task["group"], &task["startedBy"], &task["launchType"]), (&json!("family:web"), &json!("me"), &json!("EC2")));
    assert_eq!((&task["cpu"], &task["memory"], &task["version"]), (&json!("128"), &json!("100"), &json!(1)));
    assert_eq!(task["overrides"]["containerOverrides"], overrides["containerOverrides"]);
    assert_eq!(task["connectivity"], "CONNECTED");
    assert_eq!(task["availabilityZone"], "local-a");
    assert_eq!(task["tags"][1], json!({"key": "aws:ecs:clusterName", "value": "default"}));
    let container = &task["containers"][0];
    assert!(
        container["containerArn"]
            .as_str()
            .unwrap()
            .starts_with(&format!("arn:aws:ecs:us-east-1:000000000000:container/default/{id}/"))
    );
    assert_eq!((&container["name"], &container["cpu"], &container["memory"]), (&json!("app"), &json!("128"), &json!("100")));
    assert_eq!((&container["lastStatus"], container.get("exitCode")), (&json!("PENDING"), None));
    let described = world.ok("DescribeTasks", json!({"tasks": [id, "nope"]})).await;
    assert_eq!(described["tasks"][0]["tags"], json!([]));
    assert_eq!(
        described["failures"],
        json!([{"arn": "arn:aws:ecs:us-east-1:000000000000:task/default/nope", "reason": "MISSING"}])
    );
}

#[tokio::test]
async fn a_bridge_container_shows_its_address_on_a_task_network_only() {
    let world = world().await;
    let task = world.ok("RunTask", json!({"taskDefinition": "web"})).await["tasks"][0]["taskArn"].clone();
    for (network, shown) in [(None, json!([])), (Some("shop".into()), json!([{"privateIpv4Address": "172.30.0.5"}]))] {
        world
            .set_task(last(&task), |t| {
                (t.containers[0].address, t.containers[0].network) = (Some("172.30.0.5".to_owned()), network);
            })
            .await;
        let described = world.ok("DescribeTasks", json!({"tasks": [task]})).await["tasks"][0].clone();
        assert_eq!(described["containers"][0]["networkInterfaces"], shown);
        assert_eq!(described["attachments"], json!([]), "an address on a Docker network is no elastic network interface");
    }
}

#[tokio::test]
async fn an_awsvpc_task_has_its_address_where_clients_look_for_it() {
    let world = world().await;
    world.register_awsvpc("net").await;
    let network =
        json!({"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "ENABLED"}});
    let run = json!({"taskDefinition": "net", "networkConfiguration": network, "launchType": "FARGATE"});
    let task = world.ok("RunTask", run).await["tasks"][0].clone();
    assert_eq!((&task["lastStatus"], &task["attachments"]), (&json!("PROVISIONING"), &json!([])));
    assert_eq!(world.gaps(), ["task.assignPublicIp", "task.launchType.FARGATE", "task.securityGroups", "task.subnets"]);
    world.set_task(last(&task["taskArn"]), |t| t.address = Some("172.20.0.2".to_owned())).await;
    let task = world.ok("DescribeTasks", json!({"tasks": [task["taskArn"]]})).await["tasks"][0].clone();
    let attachment = &task["attachments"][0];
    assert_eq!((&attachment["type"], &attachment["status"]), (&json!("ElasticNetworkInterface"), &json!("ATTACHED")));
    assert_eq!(attachment["details"], json!([{"name": "privateIPv4Address", "value": "172.20.0.2"}]));
    let interface = json!({"attachmentId": attachment["id"], "privateIpv4Address": "172.20.0.2"});
    assert_eq!(task["containers"][0]["networkInterfaces"], json!([interface]));
}

#[tokio::test]
async fn what_does_not_fit_fails_with_the_reason_and_the_rest_runs() {
    let world = world().await;
    world
        .ok(
            "RegisterTaskDefinition",
            json!({"family": "fat", "containerDefinitions": [{"name": "a", "image": "a", "memory": 900}]}),
        )
        .await;
    let answer = world.ok("RunTask", json!({"taskDefinition": "fat", "count": 3})).await;
    assert_eq!(answer["tasks"].as_array().unwrap().len(), 2);
    let arn = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/i1";
    assert_eq!(answer["failures"], json!([{"arn": arn, "reason": "RESOURCE:MEMORY"}]));
    let nowhere =
        json!({"taskDefinition": "web", "placementConstraints": [{"type": "memberOf", "expression": "attribute:x exists"}]});
    let answer = world.ok("RunTask", nowhere).await;
    assert_eq!(
        (&answer["tasks"], &answer["failures"][0]["reason"]),
        (&json!([]), &json!("MemberOf placement constraint unsatisfied."))
    );
}

#[tokio::test]
async fn refused() {
    let world = world().await;
    world.register_awsvpc("net").await;
    world.register("old").await;
    world.ok("DeregisterTaskDefinition", json!({"taskDefinition": "old:1"})).await;
    world.ok("CreateCluster", json!({"clusterName": "empty"})).await;
    let web = |more: Value| {
        let mut input = json!({"taskDefinition": "web"});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let subnets = json!({"awsvpcConfiguration": {"subnets": ["s"]}});
    let strange = json!({"containerOverrides": [{"name": "odd"}]});
    world
        .refused(&[
            ("RunTask", web(json!({"cluster": "empty"})), INVALID, "No Container Instances were found in your cluster."),
            ("RunTask", web(json!({"count": 11})), INVALID, "count"),
            ("RunTask", web(json!({"count": 0})), INVALID, "count"),
            ("RunTask", json!({"taskDefinition": "none"}), CLIENT, "TaskDefinition not found."),
            ("RunTask", json!({"taskDefinition": "old:1"}), INVALID, "TaskDefinition is inactive"),
            (
                "RunTask",
                json!({"taskDefinition": "net"}),
                INVALID,
                "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
            ),
            ("RunTask", web(json!({"networkConfiguration": subnets})), INVALID, "not valid for the given networkMode"),
            ("RunTask", web(json!({"overrides": strange})), INVALID, "odd"),
            ("RunTask", web(json!({"group": "service:x"})), INVALID, "Invalid namespace for group."),
            ("RunTask", web(json!({"startedBy": "a b"})), INVALID, "startedBy"),
            ("RunTask", web(json!({"startedBy": "x".repeat(129)})), INVALID, "128"),
            ("RunTask", web(json!({"clientToken": "x".repeat(65)})), INVALID, "clientToken"),
            ("RunTask", web(json!({"propagateTags": "SERVICE"})), INVALID, "propagateTags"),
            ("RunTask", web(json!({"placementStrategy": [{"type": "odd"}]})), INVALID, "odd"),
            (
                "RunTask",
                web(json!({"launchType": "EC2", "capacityProviderStrategy": [{"capacityProvider": "x"}]})),
                INVALID,
                "Specifying both",
            ),
            ("RunTask", web(json!({"launchType": "MOON"})), INVALID, "FARGATE"),
            ("StartTask", web(json!({"containerInstances": []})), INVALID, "empty"),
            ("StopTask", json!({"task": "nope"}), INVALID, "The referenced task was not found."),
            ("StopTask", json!({"task": "arn:aws:ecs:us-east-1:000000000000:task/other/x"}), INVALID, "Your cluster is default"),
            ("DescribeTasks", json!({"tasks": []}), INVALID, "Tasks cannot be empty."),
            ("DescribeTasks", json!({"tasks": vec!["x"; 101]}), INVALID, "100"),
        ])
        .await;
    assert!(world.app().store.snapshot().tasks.is_empty());
}

#[tokio::test]
async fn the_same_token_starts_once() {
    let world = world().await;
    let input = json!({"taskDefinition": "web", "count": 2, "clientToken": "t-1"});
    let first = world.ok("RunTask", input.clone()).await;
    let again = world.ok("RunTask", input.clone()).await;
    assert_eq!(first, again);
    assert_eq!(world.app().store.snapshot().tasks.len(), 2);
    let other = json!({"taskDefinition": "web", "count": 1, "clientToken": "t-1"});
    world.refused(&[("RunTask", other, "ConflictException", "clientToken")]).await;
    world.clock.advance(25 * 60 * 60 * 1000);
    world.ok("RunTask", json!({"taskDefinition": "web", "clientToken": "t-2"})).await;
    world.ok("RunTask", input).await;
    assert_eq!(world.app().store.snapshot().tasks.len(), 5, "after a day it is a new request");
}

#[tokio::test]
async fn a_token_that_started_nothing_can_be_tried_again() {
    let world = world().await;
    let world = &world;
    let set = async |connected: bool| {
        let state = world.app().store.snapshot();
        world.put(Instance { agent_connected: connected, ..(**state.instances.get("i1").unwrap()).clone() }).await;
    };
    set(false).await;
    let input = json!({"taskDefinition": "web", "clientToken": "t"});
    assert_eq!(world.ok("RunTask", input.clone()).await["failures"][0]["reason"], "AGENT");
    set(true).await;
    assert_eq!(world.ok("RunTask", input).await["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn started_on_the_instance_that_was_named() {
    let world = world().await;
    world.add_instance("i2", "default").await;
    world.add_instance("i3", "default").await;
    let drained = json!({"containerInstances": ["i3"], "status": "DRAINING"});
    world.ok("UpdateContainerInstancesState", drained).await;
    let answer = world.ok("StartTask", json!({"taskDefinition": "web", "containerInstances": ["i2", "i3", "i9"]})).await;
    assert_eq!(answer["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(last(&answer["tasks"][0]["containerInstanceArn"]), "i2");
    let reasons: Vec<&str> = answer["failures"].as_array().unwrap().iter().map(|f| f["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["INACTIVE", "MISSING"]);
}

#[tokio::test]
async fn stopped_with_the_callers_words() {
    let world = world().await;
    let input = json!({"taskDefinition": "web", "count": 2, "tags": [{"key": "a", "value": "1"}]});
    let tasks = world.ok("RunTask", input).await["tasks"].clone();
    let stopped = world.ok("StopTask", json!({"task": tasks[0]["taskArn"], "reason": "enough"})).await["task"].clone();
    assert_eq!((&stopped["desiredStatus"], &stopped["lastStatus"]), (&json!("STOPPED"), &json!("PENDING")));
    assert_eq!((&stopped["stopCode"], &stopped["stoppedReason"]), (&json!("UserInitiated"), &json!("enough")));
    assert_eq!((&stopped["stoppingAt"], &stopped["tags"]), (&json!(NOW.0 / 1000), &json!([])));
    let again = world.ok("StopTask", json!({"task": tasks[0]["taskArn"], "reason": "more"})).await["task"].clone();
    assert_eq!(again["stoppedReason"], "enough", "the first word stands");
    let bare = world.ok("StopTask", json!({"task": last(&tasks[1]["taskArn"])})).await["task"].clone();
    assert_eq!(bare["stoppedReason"], "Task stopped by user");
}

#[tokio::test]
async fn listed_by_every_filter() {
    let world = world().await;
    world.add_instance("i2", "default").await;
    world.register("job").await;
    world.ok("CreateService", json!({"serviceName": "s", "taskDefinition": "web", "desiredCount": 0})).await;
    let start = async |family: &str, instance: &str, by: Value| {
        let mut input = json!({"taskDefinition": family, "containerInstances": [instance]});
        input["startedBy"] = by;
        last(&world.ok("StartTask", input).await["tasks"][0]["taskArn"]).to_owned()
    };
    let web = start("web", "i1", json!("me")).await;
    let job = start("job", "i2", Value::Null).await;
    let gone = start("job", "i2", Value::Null).await;
    world.set_task(&web, |t| t.service = Some("s".into())).await;
    world.ok("StopTask", json!({"task": gone})).await;
    let list = async |input: Value| {
        let pages = world.pages("ListTasks", input, "taskArns").await.concat();
        pages.iter().map(|a| last(a).to_owned()).collect::<Vec<_>>()
    };
    let mut running = vec![web.clone(), job.clone()];
    running.sort();
    assert_eq!(list(json!({})).await, running, "the default is RUNNING");
    assert_eq!(list(json!({"maxResults": 1})).await, running);
    for (filter, want) in [
        (json!({"family": "job"}), vec![job.clone()]),
        (json!({"serviceName": "s"}), vec![web.clone()]),
        (json!({"serviceName": "arn:aws:ecs:us-east-1:000000000000:service/default/s"}), vec![web.clone()]),
        (json!({"containerInstance": "i1"}), vec![web.clone()]),
        (json!({"containerInstance": "i2", "family": "web"}), vec![]),
        (json!({"startedBy": "me"}), vec![web.clone()]),
        (json!({"desiredStatus": "STOPPED"}), vec![gone.clone()]),
        (json!({"desiredStatus": "PENDING"}), vec![]),
        (json!({"launchType": "FARGATE"}), vec![]),
    ] {
        assert_eq!(list(filter.clone()).await, want, "{filter}");
    }
    world
        .refused(&[
            ("ListTasks", json!({"startedBy": "me", "family": "web"}), INVALID, "startedBy"),
            ("ListTasks", json!({"serviceName": "no"}), "ServiceNotFoundException", "Service not found."),
            ("ListTasks", json!({"containerInstance": "i9"}), INVALID, "container instance"),
        ])
        .await;
}

#[tokio::test]
async fn why_a_task_was_made_and_ended_is_remembered() {
    let world = world().await;
    let task = world.ok("RunTask", json!({"taskDefinition": "web"})).await["tasks"][0]["taskArn"].clone();
    world.ok("StopTask", json!({"task": task, "reason": "enough"})).await;
    let query =
        crate::store::RecordQuery { subject: Some(format!("task/{}", last(&task))), ..crate::store::RecordQuery::decisions() };
    let records = world.app().store.records(query).await.unwrap();
    let told: Vec<String> = records
        .iter()
        .map(|(_, record)| match record {
            crate::store::Record::Decision(d) => format!("{}: {}", d.action, d.reason.sentence),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(told[0], "stop task: enough");
    assert!(told[1].starts_with("start task: RunTask asked for 1 of web:1; "), "{told:?}");
}
