use serde_json::json;

use super::*;

#[tokio::test]
async fn described_with_what_is_left_of_them() {
    let world = world().await;
    let container = json!({"name": "a", "image": "a", "memory": 300, "cpu": 512, "portMappings": [{"containerPort": 53, "hostPort": 53, "protocol": "udp"}, {"containerPort": 80, "hostPort": 8080}]});
    world.ok("RegisterTaskDefinition", json!({"family": "ports", "containerDefinitions": [container]})).await;
    let task = world.ok("RunTask", json!({"taskDefinition": "ports"})).await["tasks"][0].clone();
    world.run_task(last(&task["taskArn"])).await;
    let instance =
        world.ok("DescribeContainerInstances", json!({"containerInstances": ["i1"]})).await["containerInstances"][0].clone();
    let values = |member: &str| {
        let list = instance[member].as_array().unwrap().clone();
        let text = |r: &Value| match r["type"].as_str() {
            Some("INTEGER") => format!("{}={}", r["name"].as_str().unwrap(), r["integerValue"]),
            _ => format!("{}={}", r["name"].as_str().unwrap(), r["stringSetValue"]),
        };
        list.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(values("registeredResources"), ["CPU=2048", "MEMORY=2000", "PORTS=[\"22\",\"2375\"]", "PORTS_UDP=[]"]);
    assert_eq!(
        values("remainingResources"),
        ["CPU=1536", "MEMORY=1700", "PORTS=[\"22\",\"2375\",\"8080\"]", "PORTS_UDP=[\"53\"]"]
    );
    assert_eq!(instance["containerInstanceArn"], "arn:aws:ecs:us-east-1:000000000000:container-instance/default/i1");
    assert_eq!((&instance["runningTasksCount"], &instance["pendingTasksCount"]), (&json!(1), &json!(0)));
    assert_eq!(instance["versionInfo"], json!({"agentVersion": "0.1.0", "dockerVersion": "DockerVersion: 20.10.5"}));
    assert_eq!((&instance["status"], &instance["agentConnected"]), (&json!("ACTIVE"), &json!(true)));
    let answer = world.ok("DescribeContainerInstances", json!({"containerInstances": ["i9"]})).await;
    assert_eq!(answer["failures"][0]["reason"], "MISSING");
}

#[tokio::test]
async fn listed_by_status_and_by_expression() {
    let world = world().await;
    world.add_instance("i2", "default").await;
    world.add_instance("i3", "other").await;
    world.ok("UpdateContainerInstancesState", json!({"containerInstances": ["i2"], "status": "DRAINING"})).await;
    let list = async |input: Value| {
        let pages = world.pages("ListContainerInstances", input, "containerInstanceArns").await.concat();
        pages.iter().map(|a| last(a).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(json!({})).await, ["i1", "i2"]);
    assert_eq!(list(json!({"maxResults": 1})).await, ["i1", "i2"]);
    assert_eq!(list(json!({"status": "DRAINING"})).await, ["i2"]);
    assert_eq!(list(json!({"status": "REGISTERING"})).await, Vec::<String>::new());
    assert_eq!(list(json!({"filter": "attribute:ecs.availability-zone == local-a"})).await, ["i1", "i2"]);
    assert_eq!(list(json!({"filter": "ec2InstanceId == i1"})).await, ["i1"]);
    assert_eq!(list(json!({"filter": "runningTasksCount > 0"})).await, Vec::<String>::new());
    world.refused(&[("ListContainerInstances", json!({"filter": "attribute:x =="}), INVALID, "Invalid filter")]).await;
}

#[tokio::test]
async fn drained_and_deregistered() {
    let world = world().await;
    let task = world.ok("RunTask", json!({"taskDefinition": "web"})).await["tasks"][0]["taskArn"].clone();
    let drain = json!({"containerInstances": ["i1", "i9"], "status": "DRAINING"});
    let drained = world.ok("UpdateContainerInstancesState", drain).await;
    assert_eq!(drained["containerInstances"][0]["status"], "DRAINING");
    assert_eq!(drained["failures"][0]["reason"], "MISSING");
    world
        .refused(&[
            (
                "UpdateContainerInstancesState",
                json!({"containerInstances": ["i1"], "status": "INACTIVE"}),
                INVALID,
                "Container instance status should be one of [ACTIVE, DRAINING]",
            ),
            ("UpdateContainerInstancesState", json!({"containerInstances": [], "status": "ACTIVE"}), INVALID, "empty"),
            ("DeregisterContainerInstance", json!({"containerInstance": "i1"}), INVALID, "Found running tasks on the instance."),
            ("DeregisterContainerInstance", json!({"containerInstance": "i9"}), INVALID, "not found"),
        ])
        .await;
    let gone = world.ok("DeregisterContainerInstance", json!({"containerInstance": "i1", "force": true})).await;
    assert_eq!(gone["containerInstance"]["status"], "INACTIVE");
    let task = world.ok("DescribeTasks", json!({"tasks": [task]})).await["tasks"][0].clone();
    assert_eq!((&task["lastStatus"], &task["stopCode"]), (&json!("STOPPED"), &json!("TerminationNotice")));
    assert_eq!(world.ok("ListContainerInstances", json!({})).await["containerInstanceArns"], json!([]));
    let seen = world.ok("DescribeContainerInstances", json!({"containerInstances": ["i1"]})).await;
    assert_eq!(seen["containerInstances"][0]["status"], "INACTIVE");
    let again = json!({"containerInstances": ["i1"], "status": "ACTIVE"});
    assert_eq!(world.ok("UpdateContainerInstancesState", again).await["failures"][0]["reason"], "INACTIVE");
}

#[tokio::test]
async fn attributes() {
    let world = world().await;
    let put = |name: &str, value: &str| json!({"attributes": [{"name": name, "value": value, "targetId": "i1", "targetType": "container-instance"}]});
    let done = world.ok("PutAttributes", put("stack", "prod")).await["attributes"][0].clone();
    let arn = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/i1";
    assert_eq!(done, json!({"name": "stack", "value": "prod", "targetId": arn, "targetType": "container-instance"}));
    let list = async |more: Value| {
        let mut input = json!({"targetType": "container-instance", "maxResults": 1});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let pages = world.pages("ListAttributes", input, "attributes").await.concat();
        pages.iter().map(|a| a["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(json!({})).await, ["ecs.availability-zone", "ecs.cpu-architecture", "stack"]);
    assert_eq!(list(json!({"attributeName": "stack", "attributeValue": "prod"})).await, ["stack"]);
    assert_eq!(list(json!({"attributeName": "stack", "attributeValue": "dev"})).await, Vec::<String>::new());
    let found = world.ok("ListContainerInstances", json!({"filter": "attribute:stack == prod"})).await;
    assert_eq!(lasts(&found["containerInstanceArns"]), ["i1"]);
    for i in 1..10 {
        world.ok("PutAttributes", put(&format!("a{i}"), "v")).await;
    }
    world
        .refused(&[
            ("PutAttributes", put("a10", "v"), "AttributeLimitExceededException", "10"),
            ("PutAttributes", put("ecs.os-type", "x"), INVALID, "reserved"),
            ("PutAttributes", put("a b", "x"), INVALID, "name"),
            ("PutAttributes", put("a", " x"), INVALID, "space"),
            ("PutAttributes", json!({"attributes": [{"name": "a", "targetId": "i9"}]}), "TargetNotFoundException", "target"),
            ("DeleteAttributes", put("ecs.os-type", "x"), INVALID, "reserved"),
            ("ListAttributes", json!({"targetType": "container-instance", "attributeValue": "v"}), INVALID, "attributeName"),
        ])
        .await;
    assert_eq!(world.ok("DeleteAttributes", put("stack", "")).await["attributes"][0]["value"], "prod");
    assert_eq!(world.ok("DeleteAttributes", put("stack", "")).await["attributes"], json!([]));
}

#[tokio::test]
async fn tags_of_everything() {
    let world = world().await;
    let task = world.ok("RunTask", json!({"taskDefinition": "web"})).await["tasks"][0]["taskArn"].clone();
    world.ok("CreateService", json!({"serviceName": "s", "taskDefinition": "web", "desiredCount": 0})).await;
    let of = |rest: &str| json!(format!("arn:aws:ecs:us-east-1:000000000000:{rest}"));
    for arn in
        [of("cluster/default"), of("service/default/s"), of("task-definition/web:1"), of("container-instance/default/i1"), task]
    {
        let tags = json!([{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]);
        assert_eq!(world.ok("TagResource", json!({"resourceArn": arn, "tags": tags})).await, json!({}));
        world.ok("TagResource", json!({"resourceArn": arn, "tags": [{"key": "a", "value": "3"}]})).await;
        assert_eq!(world.ok("UntagResource", json!({"resourceArn": arn, "tagKeys": ["b"]})).await, json!({}));
        let left = world.ok("ListTagsForResource", json!({"resourceArn": arn})).await;
        assert_eq!(left["tags"], json!([{"key": "a", "value": "3"}]), "{arn}");
    }
    let many: Vec<Value> = (0..50).map(|i| json!({"key": format!("k{i}"), "value": ""})).collect();
    world
        .refused(&[
            ("TagResource", json!({"resourceArn": of("cluster/default"), "tags": many}), "LimitExceededException", "50"),
            ("TagResource", json!({"resourceArn": "web", "tags": []}), INVALID, "not valid"),
            ("TagResource", json!({"resourceArn": of("cluster/no"), "tags": []}), NO_CLUSTER, "Cluster not found."),
            (
                "TagResource",
                json!({"resourceArn": of("service/default/no"), "tags": []}),
                "ResourceNotFoundException",
                "not found",
            ),
            (
                "UntagResource",
                json!({"resourceArn": of("task/default/no"), "tagKeys": []}),
                "ResourceNotFoundException",
                "not found",
            ),
            ("ListTagsForResource", json!({"resourceArn": of("task/default/no")}), INVALID, "not found"),
        ])
        .await;
}
