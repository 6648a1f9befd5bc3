//! Every operation through the whole wire, on a store in memory with container instances that no agent stands behind.

mod clusters;
mod definitions;
mod instances;
mod services;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Request;
use serde_json::{Value, json};

use crate::api::{App, testing};
use crate::clock::ManualClock;
use crate::model::instance::{Instance, InstanceStatus};
use crate::model::task::{Resources, Task, TaskStatus};
use crate::model::{ClusterName, InstanceId, TaskId, Timestamp};
use crate::store::Error;
use crate::wire::Wire;

const NOW: Timestamp = Timestamp(1_795_170_000_000);

struct World {
    wire: Wire<App>,
    clock: Arc<ManualClock>,
}

/// A fresh installation with the cluster `default` and nothing in it.
async fn empty_world() -> World {
    let clock = ManualClock::at(NOW);
    let world = World { wire: testing::wire(Arc::new(testing::app(clock.clone()))), clock };
    world.ok("CreateCluster", json!({})).await;
    world
}

/// The same with one instance of 2,048 CPU units and 2,000 MiB, and the task definition `web:1`.
async fn world() -> World {
    let world = empty_world().await;
    world.add_instance("i1", "default").await;
    world.register("web").await;
    world
}

impl World {
    fn app(&self) -> &App {
        &self.wire.app
    }

    /// The answer, or the error's code and message.
    async fn call(&self, operation: &str, input: Value) -> Result<Value, (String, String)> {
        let request = Request::builder()
            .method("POST")
            .uri("/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("AmazonEC2ContainerServiceV20141113.{operation}"));
        let (head, ()) = request.body(()).unwrap().into_parts();
        let response = self.wire.answer(head, input.to_string().into()).await;
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        if response.status() == 200 { Ok(body) } else { Err((text("__type"), text("message"))) }
    }

    async fn ok(&self, operation: &str, input: Value) -> Value {
        self.call(operation, input.clone()).await.unwrap_or_else(|e| panic!("{operation} {input}: {e:?}"))
    }

    /// Every call must be refused with the code, and a message that holds the text.
    async fn refused(&self, table: &[(&str, Value, &str, &str)]) {
        for (operation, input, code, text) in table {
            match self.call(operation, input.clone()).await {
                Err((found, message)) if found == *code && message.contains(text) => {}
                other => panic!("{operation} {input}: wanted {code} {text:?}, got {other:?}"),
            }
        }
    }

    async fn put<R: Into<crate::store::Change> + Send + 'static>(&self, row: R) {
        let put = move |tx: &mut crate::store::Tx| {
            tx.put(row);
            Ok::<_, Error>(())
        };
        self.app().store.update("test", put).await.unwrap();
    }

    async fn add_instance(&self, id: &str, cluster: &str) {
        self.put(Instance {
            id: InstanceId::new(id),
            cluster: ClusterName::new(cluster),
            status: InstanceStatus::Active,
            agent_connected: true,
            disconnected_at: None,
            engine_away_since: None,
            registered: Resources { cpu: 2_048, memory: 2_000, ..Resources::default() },
            reserved_tcp_ports: vec![22, 2375],
            attributes: BTreeMap::from([
                ("ecs.cpu-architecture".to_owned(), Some("x86_64".to_owned())),
                ("ecs.availability-zone".to_owned(), Some("local-a".to_owned())),
            ]),
            agent_version: "0.1.0".to_owned(),
            docker_version: "20.10.5".to_owned(),
            host_name: "host".to_owned(),
            host_address: "127.0.0.1".to_owned(),
            tags: Vec::new(),
            registered_at: NOW,
            version: 1,
        })
        .await;
    }

    async fn register(&self, family: &str) -> Value {
        let container =
            json!({"name": "app", "image": "app:1", "memory": 100, "cpu": 128, "portMappings": [{"containerPort": 80}]});
        self.ok("RegisterTaskDefinition", json!({"family": family, "containerDefinitions": [container]})).await
    }

    async fn register_awsvpc(&self, family: &str) {
        let container = json!({"name": "app", "image": "app:1", "memory": 100});
        let input = json!({"family": family, "networkMode": "awsvpc", "containerDefinitions": [container]});
        self.ok("RegisterTaskDefinition", input).await;
    }

    /// The agent's part, played by hand.
    async fn set_task(&self, id: &str, change: impl FnOnce(&mut Task)) {
        let mut task = (**self.app().store.snapshot().tasks.get(&TaskId::new(id)).unwrap()).clone();
        change(&mut task);
        self.put(task).await;
    }

    async fn run_task(&self, id: &str) {
        self.set_task(id, |task| task.last_status = TaskStatus::Running).await;
    }

    async fn end_task(&self, id: &str) {
        self.set_task(id, |task| {
            task.last_status = TaskStatus::Stopped;
            task.desired_status = TaskStatus::Stopped;
            task.stopped_at = Some(NOW);
        })
        .await;
    }

    /// Follows nextToken to the end: the pages' lists.
    async fn pages(&self, operation: &str, mut input: Value, member: &str) -> Vec<Vec<Value>> {
        let mut pages = Vec::new();
        loop {
            let answer = self.ok(operation, input.clone()).await;
            pages.push(answer[member].as_array().unwrap().clone());
            assert!(pages.len() < 50, "{operation} never ends");
            match answer.get("nextToken") {
                Some(token) => input["nextToken"] = token.clone(),
                None => return pages,
            }
        }
    }

    fn gaps(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.app().gaps.report().without_effect.into_iter().map(|w| w.path).collect();
        paths.sort();
        paths
    }
}

fn last(arn: &Value) -> &str {
    crate::model::arn::short_name(arn.as_str().unwrap())
}

fn lasts(arns: &Value) -> Vec<&str> {
    arns.as_array().unwrap().iter().map(last).collect()
}

const CLIENT: &str = "ClientException";
const INVALID: &str = "InvalidParameterException";
const NO_CLUSTER: &str = "ClusterNotFoundException";

#[tokio::test]
async fn every_operation_that_needs_a_cluster_says_when_it_is_not_there() {
    let world = world().await;
    let of = |operation, mut input: Value| {
        input["cluster"] = json!("nope");
        (operation, input, NO_CLUSTER, "Cluster not found.")
    };
    world
        .refused(&[
            of("DeleteCluster", json!({})),
            of("UpdateCluster", json!({})),
            of("UpdateClusterSettings", json!({"settings": []})),
            of("RunTask", json!({"taskDefinition": "web"})),
            of("StartTask", json!({"taskDefinition": "web", "containerInstances": ["i1"]})),
            of("StopTask", json!({"task": "t"})),
            of("DescribeTasks", json!({"tasks": ["t"]})),
            of("ListTasks", json!({})),
            of("CreateService", json!({"serviceName": "s", "taskDefinition": "web", "desiredCount": 1})),
            of("UpdateService", json!({"service": "s"})),
            of("DeleteService", json!({"service": "s"})),
            of("DescribeServices", json!({"services": ["s"]})),
            of("ListServices", json!({})),
            of("ListContainerInstances", json!({})),
            of("DescribeContainerInstances", json!({"containerInstances": ["i"]})),
            of("UpdateContainerInstancesState", json!({"containerInstances": ["i"], "status": "ACTIVE"})),
            of("DeregisterContainerInstance", json!({"containerInstance": "i"})),
            of("PutAttributes", json!({"attributes": [{"name": "a", "targetId": "i1"}]})),
            of("DeleteAttributes", json!({"attributes": [{"name": "a", "targetId": "i1"}]})),
            of("ListAttributes", json!({"targetType": "container-instance"})),
        ])
        .await;
}

#[tokio::test]
async fn inputs_that_do_not_fit_their_shape() {
    let world = empty_world().await;
    world
        .refused(&[
            ("DescribeTasks", json!({}), INVALID, "'tasks'"),
            ("ListTasks", json!({"desiredStatus": "GONE"}), INVALID, "RUNNING, PENDING, STOPPED"),
            ("RunTask", json!({"taskDefinition": 1}), "SerializationException", "taskDefinition"),
            ("ListServiceDeployments", json!({"service": "s"}), "UnknownOperationException", "ListServiceDeployments"),
        ])
        .await;
}
