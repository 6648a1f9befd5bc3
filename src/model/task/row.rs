//! A task as one flat JSON object, as rows and journals have it: what is absent or at its default is left out, and what older
//! versions wrote, with every member, is read as well.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::{
    ClusterName, Container, DefinitionKey, DeploymentId, Health, InstanceId, LaunchType, Origin, Overrides, Resources,
    ServiceName, StopCode, Tag, Task, TaskId, TaskStatus, Timestamp,
};

#[derive(Deserialize)]
pub(super) struct Row {
    id: TaskId,
    cluster: ClusterName,
    definition: DefinitionKey,
    group: String,
    started_by: Option<String>,
    service: Option<ServiceName>,
    deployment: Option<DeploymentId>,
    instance: InstanceId,
    #[serde(default)]
    launch_type: LaunchType,
    last_status: TaskStatus,
    desired_status: TaskStatus,
    #[serde(default)]
    health: Health,
    containers: Vec<Container>,
    #[serde(default)]
    overrides: Overrides,
    reserved: Resources,
    address: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    created_at: Timestamp,
    pull_started_at: Option<Timestamp>,
    pull_stopped_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    stopping_at: Option<Timestamp>,
    execution_stopped_at: Option<Timestamp>,
    stopped_at: Option<Timestamp>,
    stop_code: Option<StopCode>,
    stopped_reason: Option<String>,
    version: u64,
    trace: Option<String>,
}

impl From<Row> for Task {
    fn from(row: Row) -> Task {
        Task {
            id: row.id,
            origin: Arc::new(Origin {
                cluster: row.cluster,
                definition: row.definition,
                group: row.group,
                started_by: row.started_by,
                service: row.service,
                deployment: row.deployment,
                launch_type: row.launch_type,
                overrides: row.overrides,
                reserved: row.reserved,
                tags: row.tags,
                trace: row.trace,
            }),
            instance: row.instance,
            last_status: row.last_status,
            desired_status: row.desired_status,
            health: row.health,
            stop_code: row.stop_code,
            containers: row.containers,
            address: row.address,
            created_at: row.created_at,
            pull_started_at: row.pull_started_at,
            pull_stopped_at: row.pull_stopped_at,
            started_at: row.started_at,
            stopping_at: row.stopping_at,
            execution_stopped_at: row.execution_stopped_at,
            stopped_at: row.stopped_at,
            stopped_reason: row.stopped_reason,
            version: row.version,
        }
    }
}

/// [`Row`], borrowed and in its order.
#[derive(Serialize)]
struct Written<'a> {
    id: &'a TaskId,
    cluster: &'a ClusterName,
    definition: &'a DefinitionKey,
    group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_by: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: &'a Option<ServiceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: &'a Option<DeploymentId>,
    instance: &'a InstanceId,
    launch_type: LaunchType,
    last_status: TaskStatus,
    desired_status: TaskStatus,
    health: Health,
    containers: &'a [Container],
    #[serde(skip_serializing_if = "Option::is_none")]
    overrides: Option<&'a Overrides>,
    reserved: &'a Resources,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: &'a Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [Tag],
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopping_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_code: Option<StopCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_reason: &'a Option<String>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: &'a Option<String>,
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Origin { cluster, definition, group, started_by, service, deployment, launch_type, overrides, reserved, tags, trace } =
            &*self.origin;
        let written = Written {
            id: &self.id,
            cluster,
            definition,
            group,
            started_by,
            service,
            deployment,
            instance: &self.instance,
            launch_type: *launch_type,
            last_status: self.last_status,
            desired_status: self.desired_status,
            health: self.health,
            containers: &self.containers,
            overrides: (*overrides != Overrides::default()).then_some(overrides),
            reserved,
            address: &self.address,
            tags,
            created_at: self.created_at,
            pull_started_at: self.pull_started_at,
            pull_stopped_at: self.pull_stopped_at,
            started_at: self.started_at,
            stopping_at: self.stopping_at,
            execution_stopped_at: self.execution_stopped_at,
            stopped_at: self.stopped_at,
            stop_code: self.stop_code,
            stopped_reason: &self.stopped_reason,
            version: self.version,
            trace,
        };
        written.serialize(serializer)
    }
}
