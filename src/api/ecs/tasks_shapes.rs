//! A task as clients see it.

use super::shapes::{Attribute, NameValue, instance_arn};
use crate::model::Timestamp;
use crate::model::arn::Home;
use crate::model::definition::{ContainerDefinition, TaskDefinition};
use crate::model::tag::Tag;
use crate::model::task::{Container as Held, ContainerOverride, Health, Overrides, Task, TaskStatus};
use crate::shapes;
use crate::store::State;

shapes! { "camelCase";
    output TaskShape {
        attachments: Vec<Attachment>, attributes: Vec<Attribute>, availability_zone: Option<String>, cluster_arn: String,
        connectivity: Option<&'static str>, container_instance_arn: Option<String>, containers: Vec<ContainerShape>, cpu: String,
        created_at: Timestamp, desired_status: &'static str, enable_execute_command: bool,
        execution_stopped_at: Option<Timestamp>, group: String, health_status: &'static str, last_status: &'static str,
        launch_type: &'static str, memory: String, overrides: OverridesShape, pull_started_at: Option<Timestamp>,
        pull_stopped_at: Option<Timestamp>, started_at: Option<Timestamp>, started_by: Option<String>,
        stop_code: Option<&'static str>, stopped_at: Option<Timestamp>, stopped_reason: Option<String>,
        stopping_at: Option<Timestamp>, tags: Vec<Tag>, task_arn: String, task_definition_arn: String, version: u64,
    }
    output Attachment { id: String, #[serde(rename = "type")] kind: &'static str, status: &'static str, details: Vec<NameValue> }
    output ContainerShape {
        container_arn: String, task_arn: String, name: String, image: String, image_digest: Option<String>,
        runtime_id: Option<String>, last_status: &'static str, exit_code: Option<i32>, reason: Option<String>,
        network_bindings: Vec<NetworkBinding>, network_interfaces: Vec<NetworkInterface>, health_status: &'static str, cpu: String,
        memory: Option<String>, memory_reservation: Option<String>,
    }
    output NetworkBinding {
        #[serde(rename = "bindIP")] bind_ip: String, container_port: u16, host_port: u16, protocol: String,
    }
    output NetworkInterface { attachment_id: Option<String>, private_ipv4_address: String }
    output OverridesShape {
        container_overrides: Vec<ContainerOverride>, inference_accelerator_overrides: Vec<NameValue>, cpu: Option<String>,
        memory: Option<String>, task_role_arn: Option<String>, execution_role_arn: Option<String>,
    }
}

pub fn shape(state: &State, home: &Home, task: &Task, with_tags: bool) -> TaskShape {
    let definition = state.definitions.get(&task.definition);
    let instance = state.instances.get(&task.instance);
    // While its agent or its Docker is out of reach, how a task fares is not known; that it runs is taken for granted.
    let in_sight = task.is_stopped() || instance.is_some_and(|i| i.is_in_sight());
    let health = |known: Health| if in_sight { known } else { Health::Unknown }.as_str();
    let architecture = instance.and_then(|i| i.attributes.get_key_value("ecs.cpu-architecture"));
    let attribute = |(name, value): (&String, &Option<String>)| Attribute {
        name: name.clone(),
        value: value.clone(),
        target_type: None,
        target_id: None,
    };
    TaskShape {
        attachments: interface(task).into_iter().collect(),
        attributes: architecture.map(attribute).into_iter().collect(),
        availability_zone: instance.map(|i| i.zone().to_owned()).filter(|z| !z.is_empty()),
        cluster_arn: home.cluster(&task.cluster),
        connectivity: instance.map(|i| if i.agent_connected { "CONNECTED" } else { "DISCONNECTED" }),
        container_instance_arn: instance.map(|i| instance_arn(home, i)),
        containers: task.containers.iter().map(|c| container(home, task, definition.map(AsRef::as_ref), c, in_sight)).collect(),
        cpu: task.reserved.cpu.to_string(),
        created_at: task.created_at,
        desired_status: task.desired_status.as_str(),
        enable_execute_command: false,
        execution_stopped_at: task.execution_stopped_at,
        group: task.group.clone(),
        health_status: health(task.health),
        last_status: task.last_status.as_str(),
        launch_type: task.launch_type.as_str(),
        memory: task.reserved.memory.to_string(),
        overrides: overrides(task),
        pull_started_at: task.pull_started_at,
        pull_stopped_at: task.pull_stopped_at,
        started_at: task.started_at,
        started_by: task.started_by.clone(),
        stop_code: task.stop_code.map(|c| c.as_str()),
        stopped_at: task.stopped_at,
        stopped_reason: task.stopped_reason.clone(),
        stopping_at: task.stopping_at,
        tags: if with_tags { task.tags.clone() } else { Vec::new() },
        task_arn: home.task(&task.cluster, &task.id),
        task_definition_arn: home.task_definition(&task.definition),
        version: task.version,
    }
}

/// An awsvpc task's own address stands where clients look for it: in its elastic network interface.
fn interface(task: &Task) -> Option<Attachment> {
    let address = task.address.clone()?;
    Some(Attachment {
        id: attachment_id(task),
        kind: "ElasticNetworkInterface",
        status: if task.is_stopped() { "DELETED" } else { "ATTACHED" },
        details: vec![NameValue { name: "privateIPv4Address".to_owned(), value: address }],
    })
}

/// The task's id in the form of a UUID: a task has one interface.
fn attachment_id(task: &Task) -> String {
    let id = task.id.as_str();
    match (id.get(..8), id.get(8..12), id.get(12..16), id.get(16..20), id.get(20..)) {
        (Some(a), Some(b), Some(c), Some(d), Some(e)) => format!("{a}-{b}-{c}-{d}-{e}"),
        _ => id.to_owned(),
    }
}

fn container(home: &Home, task: &Task, definition: Option<&TaskDefinition>, held: &Held, in_sight: bool) -> ContainerShape {
    let defined = definition.and_then(|d| d.container(held.name.as_str()));
    let over = task.overrides.container_overrides.iter().find(|o| o.name.as_deref() == Some(held.name.as_str()));
    let number = |defined: Option<i32>, over: Option<i32>| over.or(defined).map(|n| n.to_string());
    let of = |read: fn(&ContainerDefinition) -> Option<i32>| defined.and_then(read);
    // Only an awsvpc task has an attachment that an interface can belong to.
    let attachment = task.address.as_ref().map(|_| attachment_id(task));
    let interface =
        |address: &String| NetworkInterface { attachment_id: attachment.clone(), private_ipv4_address: address.clone() };
    ContainerShape {
        container_arn: home.container(&task.cluster, &task.id, &held.uuid.to_string()),
        task_arn: home.task(&task.cluster, &task.id),
        name: held.name.to_string(),
        image: held.image.to_string(),
        image_digest: held.image_digest.as_deref().map(str::to_owned),
        runtime_id: held.runtime_id.as_ref().map(ToString::to_string),
        last_status: match held.last_status {
            TaskStatus::Running => "RUNNING",
            TaskStatus::Stopped => "STOPPED",
            _ => "PENDING",
        },
        exit_code: held.exit_code,
        reason: held.reason.clone(),
        network_bindings: held
            .bindings
            .iter()
            .map(|b| NetworkBinding {
                bind_ip: b.address.to_string(),
                container_port: b.container_port,
                host_port: b.host_port,
                protocol: b.protocol.to_string(),
            })
            .collect(),
        network_interfaces: task.address.as_ref().or(on_task_network(held)).map(interface).into_iter().collect(),
        health_status: if in_sight { held.health } else { Health::Unknown }.as_str(),
        // "The number of CPU units set for the container. The value is 0 if no value was specified".
        cpu: number(of(|c| c.cpu), over.and_then(|o| o.cpu)).unwrap_or_else(|| "0".to_owned()),
        memory: number(of(|c| c.memory), over.and_then(|o| o.memory)),
        memory_reservation: number(of(|c| c.memory_reservation), over.and_then(|o| o.memory_reservation)),
    }
}

/// ECS shows no interface of a bridge container. Where the agent has a task network, its neighbours need the address, and an interface is
/// where clients look for one; on Docker's default bridge the address stays Docker's affair, as on ECS.
fn on_task_network(held: &Held) -> Option<&String> {
    held.address.as_ref().filter(|_| held.network.is_some())
}

/// ECS always shows one entry per container, even when nothing is overridden.
fn overrides(task: &Task) -> OverridesShape {
    let Overrides { container_overrides, cpu, memory, task_role_arn, execution_role_arn } = task.overrides.clone();
    let given = |name: &str| container_overrides.iter().find(|o| o.name.as_deref() == Some(name)).cloned();
    let empty = |name: &str| ContainerOverride { name: Some(name.to_owned()), ..ContainerOverride::default() };
    OverridesShape {
        container_overrides: task
            .containers
            .iter()
            .map(|c| given(c.name.as_str()).unwrap_or_else(|| empty(c.name.as_str())))
            .collect(),
        inference_accelerator_overrides: Vec::new(),
        cpu,
        memory,
        task_role_arn,
        execution_role_arn,
    }
}
