//! What the commands read of the ECS API: tasks, services and task definitions, whole lists in pages.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Service as Api};
use super::failure::Failure;
use crate::model::Timestamp;

/// DescribeTasks and DescribeServices take so many at once.
const TASKS_AT_ONCE: usize = 100;
const SERVICES_AT_ONCE: usize = 10;
/// Pages of one list: a hundred names each.
const MAX_PAGES: usize = 1_000;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Task {
    pub task_arn: String,
    pub task_definition_arn: String,
    pub group: String,
    pub last_status: String,
    pub desired_status: String,
    pub health_status: String,
    pub container_instance_arn: Option<String>,
    pub containers: Vec<Container>,
    /// Seconds since the epoch, as JSON 1.1 writes times.
    pub created_at: f64,
    pub started_at: Option<f64>,
    pub stopped_at: Option<f64>,
    pub stopped_reason: Option<String>,
    pub overrides: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub runtime_id: Option<String>,
    pub last_status: String,
    pub exit_code: Option<i64>,
    pub reason: Option<String>,
    pub network_bindings: Vec<Binding>,
    pub network_interfaces: Vec<Interface>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Binding {
    #[serde(rename = "bindIP")]
    pub bind_ip: String,
    pub container_port: u16,
    pub host_port: u16,
    pub protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    pub private_ipv4_address: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    pub service_arn: String,
    pub service_name: String,
    pub cluster_arn: String,
    pub status: String,
    pub task_definition: String,
    pub desired_count: i64,
    pub running_count: i64,
    pub pending_count: i64,
    pub created_at: f64,
    pub deployments: Vec<Deployment>,
    /// Newest first.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deployment {
    pub status: String,
    pub task_definition: String,
    pub rollout_state: String,
    pub rollout_state_reason: String,
    pub failed_tasks: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    pub id: String,
    pub created_at: f64,
    pub message: String,
}

impl Task {
    pub fn id(&self) -> &str {
        short(&self.task_arn)
    }
}

impl Service {
    /// As many tasks as wanted, all of the newest deployment.
    pub fn is_stable(&self) -> bool {
        self.running_count == self.desired_count && self.pending_count == 0 && self.deployments.len() == 1
    }
}

/// Which tasks to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Live,
    /// Also those that stopped within the last hour, as long as ECS shows them.
    All,
}

/// The part of an ARN or path after its last slash; `family:7` of a task definition's.
pub fn short(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

pub fn time(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1000.0).round() as i64)
}

/// The tasks as the API gives them, newest first.
pub async fn tasks(client: &Client, cluster: &str, service: Option<&str>, which: Which) -> anyhow::Result<Vec<Value>> {
    let mut arns = list_tasks(client, cluster, service, "RUNNING").await?;
    if which == Which::All {
        arns.extend(list_tasks(client, cluster, service, "STOPPED").await?);
    }
    arns.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    arns.dedup();
    let mut tasks = Vec::with_capacity(arns.len());
    for arns in arns.chunks(TASKS_AT_ONCE) {
        let mut page = client.call(Api::Ecs, "DescribeTasks", &json!({ "cluster": cluster, "tasks": arns })).await?;
        tasks.extend(taken(&mut page, "tasks"));
    }
    tasks.sort_by(|a, b| created(b).total_cmp(&created(a)));
    Ok(tasks)
}

async fn list_tasks(client: &Client, cluster: &str, service: Option<&str>, desired: &str) -> anyhow::Result<Vec<Value>> {
    let mut input = json!({ "cluster": cluster, "desiredStatus": desired });
    if let Some(service) = service {
        input["serviceName"] = json!(service);
    }
    pages(client, "ListTasks", input, "taskArns").await
}

/// One task by its id, the beginning of it or its ARN.
pub async fn task(client: &Client, cluster: &str, id: &str) -> anyhow::Result<Task> {
    let id = short(id);
    let found: Vec<Task> = read_all(tasks(client, cluster, None, Which::All).await?)?;
    let mut matching = found.into_iter().filter(|t| t.id().starts_with(id));
    let next = "`beaufort ps --all` lists the tasks; --cluster names another cluster";
    let Some(task) = matching.next() else {
        return Err(Failure::new(format!("there is no task {id} in cluster {cluster}"), next).into());
    };
    if matching.next().is_some() {
        return Err(Failure::new(format!("several tasks' ids begin with {id}"), "give more of the id").into());
    }
    Ok(task)
}

/// The services as the API gives them, by name.
pub async fn services(client: &Client, cluster: &str) -> anyhow::Result<Vec<Value>> {
    let arns = pages(client, "ListServices", json!({ "cluster": cluster, "maxResults": 100 }), "serviceArns").await?;
    let mut services = Vec::with_capacity(arns.len());
    for arns in arns.chunks(SERVICES_AT_ONCE) {
        let mut page = client.call(Api::Ecs, "DescribeServices", &json!({ "cluster": cluster, "services": arns })).await?;
        services.extend(taken(&mut page, "services"));
    }
    services.sort_by(|a, b| a["serviceName"].as_str().cmp(&b["serviceName"].as_str()));
    Ok(services)
}

pub async fn service(client: &Client, cluster: &str, name: &str) -> anyhow::Result<Service> {
    let mut page = client.call(Api::Ecs, "DescribeServices", &json!({ "cluster": cluster, "services": [name] })).await?;
    // A deleted one stays describable for a while; here it is gone.
    let found = taken(&mut page, "services").into_iter().find(|s| s["status"] != "INACTIVE");
    match found {
        Some(service) => Ok(serde_json::from_value(service)?),
        None => Err(Failure::new(
            format!("there is no service {name} in cluster {cluster}"),
            "`beaufort services` lists them; --cluster names another cluster",
        )
        .into()),
    }
}

pub async fn definition(client: &Client, arn: &str) -> anyhow::Result<Value> {
    let mut page = client.call(Api::Ecs, "DescribeTaskDefinition", &json!({ "taskDefinition": arn })).await?;
    Ok(page["taskDefinition"].take())
}

async fn pages(client: &Client, operation: &str, mut input: Value, member: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for _ in 0..MAX_PAGES {
        let mut page = client.call(Api::Ecs, operation, &input).await?;
        all.extend(taken(&mut page, member));
        match page["nextToken"].take() {
            Value::String(token) => input["nextToken"] = json!(token),
            _ => break,
        }
    }
    Ok(all)
}

pub fn taken(page: &mut Value, member: &str) -> Vec<Value> {
    match page[member].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

pub fn read_all<T: serde::de::DeserializeOwned>(values: Vec<Value>) -> anyhow::Result<Vec<T>> {
    Ok(values.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?)
}

fn created(task: &Value) -> f64 {
    task["createdAt"].as_f64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_out_of_arns() {
        assert_eq!(short("arn:aws:ecs:us-east-1:000000000000:task/default/0123"), "0123");
        assert_eq!(short("arn:aws:ecs:us-east-1:000000000000:task-definition/web:7"), "web:7");
        assert_eq!(short("0123"), "0123");
        assert_eq!(time(1_795_170_232.355).iso(), "2026-11-20T10:23:52.355Z");
    }

    #[test]
    fn stable_is_all_there_and_one_deployment() {
        let one = |running, pending, deployments| Service {
            desired_count: 2,
            running_count: running,
            pending_count: pending,
            deployments: vec![Deployment::default(); deployments],
            ..Service::default()
        };
        assert!(one(2, 0, 1).is_stable());
        assert!(!one(1, 1, 1).is_stable() && !one(2, 1, 1).is_stable() && !one(2, 0, 2).is_stable());
    }
}
