use serde_json::json;

use super::*;

#[tokio::test]
async fn made_once_described_and_deleted() {
    let world = empty_world().await;
    let input = json!({"clusterName": "prod", "tags": [{"key": "team", "value": "a"}], "settings": [{"name": "containerInsights", "value": "enabled"}]});
    let made = world.ok("CreateCluster", input).await["cluster"].clone();
    assert_eq!(made["clusterArn"], "arn:aws:ecs:us-east-1:000000000000:cluster/prod");
    assert_eq!((&made["status"], &made["settings"][0]["value"]), (&json!("ACTIVE"), &json!("enabled")));
    let again = world.ok("CreateCluster", json!({"clusterName": "prod"})).await["cluster"].clone();
    assert_eq!(again, made, "creating it again answers it as it is");

    let described = world.ok("DescribeClusters", json!({"clusters": ["prod", "nope"]})).await;
    assert_eq!(described["clusters"][0]["tags"], json!([]), "tags only when they are asked for");
    let missing = json!({"arn": "arn:aws:ecs:us-east-1:000000000000:cluster/nope", "reason": "MISSING"});
    assert_eq!(described["failures"], json!([missing]));
    let full = json!({"clusters": [made["clusterArn"]], "include": ["TAGS", "SETTINGS", "STATISTICS"]});
    let full = world.ok("DescribeClusters", full).await["clusters"][0].clone();
    assert_eq!(full["tags"][0]["key"], "team");
    assert_eq!(full["statistics"].as_array().unwrap().len(), 12);
    assert_eq!(world.ok("DescribeClusters", json!({})).await["clusters"][0]["clusterName"], "default");

    let off = json!({"cluster": "prod", "settings": [{"name": "containerInsights", "value": "disabled"}]});
    assert_eq!(world.ok("UpdateClusterSettings", off).await["cluster"]["settings"][0]["value"], "disabled");
    assert_eq!(world.ok("UpdateCluster", json!({"cluster": "prod"})).await["cluster"]["settings"][0]["value"], "disabled");

    assert_eq!(world.ok("DeleteCluster", json!({"cluster": "prod"})).await["cluster"]["status"], "INACTIVE");
    assert_eq!(world.ok("DescribeClusters", json!({"clusters": ["prod"]})).await["clusters"][0]["status"], "INACTIVE");
    assert_eq!(lasts(&world.ok("ListClusters", json!({})).await["clusterArns"]), ["default"]);
    world
        .refused(&[
            ("DeleteCluster", json!({"cluster": "prod"}), NO_CLUSTER, "inactive"),
            ("CreateCluster", json!({"clusterName": "a b"}), INVALID, "letters"),
            ("CreateCluster", json!({"clusterName": "x".repeat(256)}), INVALID, "255"),
            ("CreateCluster", json!({"tags": [{"key": "aws:x", "value": "y"}]}), INVALID, "aws:"),
            (
                "UpdateClusterSettings",
                json!({"cluster": "default", "settings": [{"name": "containerInsights", "value": "x"}]}),
                INVALID,
                "enabled",
            ),
        ])
        .await;
    assert_eq!(world.ok("CreateCluster", json!({"clusterName": "prod"})).await["cluster"]["tags"], json!([]), "a new one");
}

#[tokio::test]
async fn not_deleted_while_something_is_in_it() {
    let world = world().await;
    let delete = json!({"cluster": "default"});
    world.refused(&[("DeleteCluster", delete.clone(), "ClusterContainsContainerInstancesException", "active or draining")]).await;
    world.ok("CreateService", json!({"serviceName": "s", "taskDefinition": "web", "desiredCount": 0})).await;
    let task = world.ok("RunTask", json!({"taskDefinition": "web"})).await["tasks"][0]["taskArn"].clone();
    let state = world.app().store.snapshot();
    let gone = Instance { status: InstanceStatus::Inactive, ..(**state.instances.get("i1").unwrap()).clone() };
    world.put(gone).await;
    world.refused(&[("DeleteCluster", delete.clone(), "ClusterContainsServicesException", "Services are active")]).await;
    world.put(crate::store::Change::Service(crate::model::ServiceKey::new("default", "s"), None)).await;
    world.refused(&[("DeleteCluster", delete.clone(), "ClusterContainsTasksException", "Tasks are active")]).await;
    world.end_task(last(&task)).await;
    world.ok("DeleteCluster", delete).await;
}

#[tokio::test]
async fn counts_and_pages() {
    let world = world().await;
    let run = world.ok("RunTask", json!({"taskDefinition": "web", "count": 2})).await;
    world.run_task(last(&run["tasks"][0]["taskArn"])).await;
    world.ok("CreateService", json!({"serviceName": "s", "taskDefinition": "web", "desiredCount": 1})).await;
    let cluster = world.ok("DescribeClusters", json!({"include": ["STATISTICS"]})).await["clusters"][0].clone();
    let counts = ["runningTasksCount", "pendingTasksCount", "registeredContainerInstancesCount", "activeServicesCount"];
    assert_eq!(counts.map(|c| cluster[c].as_i64().unwrap()), [1, 1, 1, 1]);
    assert!(cluster["statistics"].as_array().unwrap().contains(&json!({"name": "runningEC2TasksCount", "value": "1"})));
    for name in ["a", "b", "c"] {
        world.ok("CreateCluster", json!({"clusterName": name})).await;
    }
    let pages = world.pages("ListClusters", json!({"maxResults": 3}), "clusterArns").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
    world
        .refused(&[
            ("ListClusters", json!({"maxResults": 0}), INVALID, "maxResults"),
            ("ListClusters", json!({"nextToken": "?"}), INVALID, "token"),
        ])
        .await;
}

#[tokio::test]
async fn what_has_no_effect_is_counted() {
    let world = empty_world().await;
    let input = json!({"clusterName": "g", "capacityProviders": ["FARGATE"], "configuration": {}, "serviceConnectDefaults": {"namespace": "n"}});
    world.ok("CreateCluster", input).await;
    assert_eq!(world.gaps(), ["cluster.capacityProviders", "cluster.serviceConnectDefaults"]);
}
