use serde_json::json;

use super::*;

/// Every member that a definition of ours can have.
fn big() -> Value {
    serde_json::from_str(include_str!("big_definition.json")).unwrap()
}

/// `part` is in `whole`: every member of it, every item of its lists.
fn holds(whole: &Value, part: &Value, at: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                holds(whole.get(name).unwrap_or_else(|| panic!("{at}.{name} is lost")), value, &format!("{at}.{name}"));
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{at}");
            whole.iter().zip(part).enumerate().for_each(|(i, (w, p))| holds(w, p, &format!("{at}[{i}]")));
        }
        _ => assert_eq!(whole, part, "{at}"),
    }
}

#[tokio::test]
async fn a_big_one_comes_back_as_it_was_given() {
    let world = empty_world().await;
    let mut given = big();
    let registered = world.ok("RegisterTaskDefinition", given.clone()).await;
    let tags = given.as_object_mut().unwrap().remove("tags").unwrap();
    assert_eq!(registered["tags"], tags);
    let definition = &registered["taskDefinition"];
    holds(definition, &given, "taskDefinition");
    assert_eq!(definition["taskDefinitionArn"], "arn:aws:ecs:us-east-1:000000000000:task-definition/big:1");
    assert_eq!((&definition["revision"], &definition["status"]), (&json!(1), &json!("ACTIVE")));
    assert_eq!(definition["registeredAt"], json!(NOW.0 / 1000));
    assert_eq!(definition["containerDefinitions"][1]["cpu"], 0, "a default");
    assert!(definition["requiresAttributes"].as_array().unwrap().iter().all(|a| a["name"].is_string()));
    assert!(definition["compatibilities"].as_array().unwrap().contains(&json!("EC2")));
    let described = world.ok("DescribeTaskDefinition", json!({"taskDefinition": "big", "include": ["TAGS"]})).await;
    assert_eq!(described, registered);
    // What came back can be registered again, as tools do that copy a revision.
    let mut copy = described["taskDefinition"].clone();
    for name in ["taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt"] {
        copy.as_object_mut().unwrap().remove(name);
    }
    let second = world.ok("RegisterTaskDefinition", copy).await;
    assert_eq!(second["taskDefinition"]["containerDefinitions"], definition["containerDefinitions"]);
    assert!(second.get("tags").is_none());
    assert_eq!(world.gaps(), ["executionRoleArn", "runtimePlatform.cpuArchitecture", "taskRoleArn"]);
}

#[tokio::test]
async fn revisions_go_up_and_are_never_reused() {
    let world = empty_world().await;
    world.register("web").await;
    assert_eq!(world.register("web").await["taskDefinition"]["revision"], 2);
    let gone = world.ok("DeregisterTaskDefinition", json!({"taskDefinition": "web:2"})).await["taskDefinition"].clone();
    assert_eq!(gone["status"], "INACTIVE");
    assert_eq!(gone["deregisteredAt"], json!(NOW.0 / 1000));
    let newest = world.ok("DescribeTaskDefinition", json!({"taskDefinition": "web"})).await;
    assert_eq!(newest["taskDefinition"]["revision"], 1, "the newest ACTIVE one is meant");
    let deleted = world.ok("DeleteTaskDefinitions", json!({"taskDefinitions": ["web:2", "web:1", "web:9"]})).await;
    assert_eq!(deleted["taskDefinitions"][0]["status"], "DELETE_IN_PROGRESS");
    assert_eq!(deleted["failures"][0]["arn"], "arn:aws:ecs:us-east-1:000000000000:task-definition/web:1");
    assert!(deleted["failures"][0]["reason"].as_str().unwrap().contains("still in ACTIVE status"));
    assert!(deleted["failures"][1]["reason"].as_str().unwrap().contains("does not exist"));
    assert_eq!(world.register("web").await["taskDefinition"]["revision"], 3);
}

#[tokio::test]
async fn refused() {
    let world = empty_world().await;
    let with = |container: Value| json!({"family": "f", "containerDefinitions": [container]});
    world
        .refused(&[
            (
                "RegisterTaskDefinition",
                with(json!({"image": "i", "memory": 8})),
                CLIENT,
                "Container.name should not be null or empty.",
            ),
            (
                "RegisterTaskDefinition",
                with(json!({"name": "a", "memory": 8})),
                CLIENT,
                "Container.image should not be null or empty.",
            ),
            ("RegisterTaskDefinition", with(json!({"name": "a", "image": "i"})), CLIENT, "At least one of 'memory'"),
            ("RegisterTaskDefinition", json!({"family": "f"}), INVALID, "containerDefinitions"),
            (
                "RegisterTaskDefinition",
                json!({"family": "f", "containerDefinitions": [], "networkMode": "odd"}),
                INVALID,
                "bridge",
            ),
            ("DescribeTaskDefinition", json!({"taskDefinition": "no"}), CLIENT, "Unable to describe task definition."),
            ("DeregisterTaskDefinition", json!({"taskDefinition": "no"}), INVALID, "revision"),
            ("DeregisterTaskDefinition", json!({"taskDefinition": "no:x"}), INVALID, "Invalid revision number"),
            ("DeregisterTaskDefinition", json!({"taskDefinition": "no:1"}), CLIENT, "does not exist"),
            ("DeleteTaskDefinitions", json!({"taskDefinitions": []}), INVALID, "empty"),
        ])
        .await;
    assert!(world.app().store.snapshot().definitions.is_empty(), "a refusal registers nothing");
}

#[tokio::test]
async fn lists() {
    let world = empty_world().await;
    for family in ["web", "api", "api", "web-admin"] {
        world.register(family).await;
    }
    world.ok("DeregisterTaskDefinition", json!({"taskDefinition": "web:1"})).await;
    let all = async |input: Value| {
        let pages = world.pages("ListTaskDefinitions", input, "taskDefinitionArns").await.concat();
        pages.iter().map(|a| last(a).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(all(json!({})).await, ["api:1", "api:2", "web-admin:1"]);
    assert_eq!(all(json!({"maxResults": 1})).await, ["api:1", "api:2", "web-admin:1"]);
    assert_eq!(all(json!({"maxResults": 2, "sort": "DESC"})).await, ["web-admin:1", "api:2", "api:1"]);
    assert_eq!(all(json!({"familyPrefix": "web", "status": "INACTIVE"})).await, ["web:1"]);
    assert_eq!(all(json!({"familyPrefix": "web"})).await, Vec::<String>::new(), "the whole family name counts");
    for _ in 0..9 {
        world.register("api").await;
    }
    assert_eq!(all(json!({"familyPrefix": "api", "maxResults": 4})).await.last().unwrap(), "api:11", "by number, not by text");

    let families = async |input: Value| world.pages("ListTaskDefinitionFamilies", input, "families").await.concat();
    assert_eq!(families(json!({"maxResults": 1})).await, ["api", "web", "web-admin"]);
    assert_eq!(families(json!({"status": "ACTIVE", "familyPrefix": "web"})).await, ["web-admin"]);
    assert_eq!(families(json!({"status": "INACTIVE"})).await, ["web"]);
}
