//! Container instances as clients see them. They come by their agents' word, not by this API.

use std::collections::BTreeSet;

use super::errors::invalid;
use super::page::page;
use super::shapes::{Attribute, Failure, arn_or, instance_arn, missing};
use super::{ask, update};
use crate::api::Cx;
use crate::decide::expression;
use crate::model::arn::Home;
use crate::model::decision::{Decision, Subject};
use crate::model::instance::{Instance, InstanceStatus};
use crate::model::tag::Tag;
use crate::model::task::{Resources, StopCode, TaskStatus};
use crate::model::{ClusterName, TaskId, Timestamp};
use crate::schedule::{self, asked_by_user};
use crate::shapes;
use crate::store::{State, Tx};
use crate::wire::fault::Fault;

shapes! { "camelCase";
    values InstanceField {
        #[serde(rename = "TAGS")] Tags, #[serde(rename = "CONTAINER_INSTANCE_HEALTH")] ContainerInstanceHealth,
    }
    values StatusFilter {
        #[serde(rename = "ACTIVE")] Active, #[serde(rename = "DRAINING")] Draining, #[serde(rename = "REGISTERING")] Registering,
        #[serde(rename = "DEREGISTERING")] Deregistering, #[serde(rename = "REGISTRATION_FAILED")] RegistrationFailed,
    }
    input ListContainerInstancesInput {
        cluster: Option<String>, filter: Option<String>, next_token: Option<String>, max_results: Option<i32>,
        status: Option<StatusFilter>,
    }
    output ListContainerInstancesOutput { container_instance_arns: Vec<String>, next_token: Option<String> }
    input DescribeContainerInstancesInput {
        cluster: Option<String>, container_instances: Vec<String>, include: Option<Vec<InstanceField>>,
    }
    output ContainerInstancesOutput { container_instances: Vec<ContainerInstance>, failures: Vec<Failure> }
    input UpdateContainerInstancesStateInput { cluster: Option<String>, container_instances: Vec<String>, status: String }
    input DeregisterContainerInstanceInput { cluster: Option<String>, container_instance: String, force: Option<bool> }
    output DeregisterContainerInstanceOutput { container_instance: ContainerInstance }
    output ContainerInstance {
        container_instance_arn: String, ec2_instance_id: String, version: u64, version_info: VersionInfo, remaining_resources: Vec<Resource>,
        registered_resources: Vec<Resource>, status: &'static str, agent_connected: bool, running_tasks_count: u32,
        pending_tasks_count: u32, attributes: Vec<Attribute>, registered_at: Timestamp, attachments: Vec<Attribute>,
        tags: Vec<Tag>,
    }
    output VersionInfo { agent_version: String, docker_version: String }
    output Resource {
        name: &'static str, #[serde(rename = "type")] kind: &'static str, double_value: f64, long_value: i64, integer_value: u32,
        string_set_value: Option<Vec<String>>,
    }
}

pub async fn list(cx: Cx, input: ListContainerInstancesInput) -> Result<ListContainerInstancesOutput, Fault> {
    let state = cx.app.store.snapshot();
    let cluster = ask::cluster(&state, input.cluster.as_deref())?;
    let filter = input.filter.filter(|f| !f.is_empty());
    let filter = filter.map(|f| expression::parse(&f).map_err(|e| invalid(format!("Invalid filter: {e}")))).transpose()?;
    let wanted = |instance: &Instance| match input.status {
        None => instance.status != InstanceStatus::Inactive,
        Some(StatusFilter::Active) => instance.status == InstanceStatus::Active,
        Some(StatusFilter::Draining) => instance.status == InstanceStatus::Draining,
        // An agent that has said Hello is registered, and a deregistered one is gone: nobody is ever in between.
        Some(StatusFilter::Registering | StatusFilter::Deregistering | StatusFilter::RegistrationFailed) => false,
    };
    let matches = |instance: &Instance| {
        filter.as_ref().is_none_or(|f| f.matches(&expression::Subject { instance, load: &state.load(&instance.id) }))
    };
    let found = state.instances_of_cluster(&cluster.name).filter(|i| wanted(i) && matches(i));
    let (container_instance_arns, next_token) =
        page(input.next_token, input.max_results, 100)?.of(found.map(|i| (i.id.as_str(), instance_arn(&cx.app.home, i))));
    Ok(ListContainerInstancesOutput { container_instance_arns, next_token })
}

pub async fn describe(cx: Cx, input: DescribeContainerInstancesInput) -> Result<ContainerInstancesOutput, Fault> {
    ask::check_batch("Container instances", input.container_instances.len(), 100)?;
    let include = input.include.unwrap_or_default();
    let health = include.contains(&InstanceField::ContainerInstanceHealth);
    cx.app.gaps.given(&[("instance.include.CONTAINER_INSTANCE_HEALTH", health)]);
    let state = cx.app.store.snapshot();
    let cluster = ask::cluster(&state, input.cluster.as_deref())?;
    let mut output = ContainerInstancesOutput { container_instances: Vec::new(), failures: Vec::new() };
    for reference in &input.container_instances {
        match ask::instance(&state, &cluster.name, reference, true)? {
            Some(instance) => {
                let shown = shape(&state, &cx.app.home, instance, include.contains(&InstanceField::Tags));
                output.container_instances.push(shown);
            }
            None => output.failures.push(missing(missing_arn(&cx.app.home, &cluster.name, reference))),
        }
    }
    Ok(output)
}

pub async fn update_state(cx: Cx, input: UpdateContainerInstancesStateInput) -> Result<ContainerInstancesOutput, Fault> {
    ask::check_batch("Container instances", input.container_instances.len(), 10)?;
    let status = match input.status.as_str() {
        "ACTIVE" => InstanceStatus::Active,
        "DRAINING" => InstanceStatus::Draining,
        _ => return Err(invalid("Container instance status should be one of [ACTIVE, DRAINING]")),
    };
    update(&cx, "UpdateContainerInstancesState", move |tx, app| {
        let cluster = ask::cluster(tx.state(), input.cluster.as_deref())?.name.clone();
        let mut output = ContainerInstancesOutput { container_instances: Vec::new(), failures: Vec::new() };
        for reference in &input.container_instances {
            let Some(instance) = ask::instance(tx.state(), &cluster, reference, true)?.cloned() else {
                output.failures.push(missing(missing_arn(&app.home, &cluster, reference)));
                continue;
            };
            if instance.status == InstanceStatus::Inactive {
                let arn = Some(instance_arn(&app.home, &instance));
                output.failures.push(Failure { arn, reason: "INACTIVE".to_owned(), detail: None });
                continue;
            }
            let instance = set_status(tx, &instance, status);
            output.container_instances.push(shape(tx.state(), &app.home, &instance, true));
        }
        Ok(output)
    })
    .await
}

fn set_status(tx: &mut Tx, instance: &Instance, status: InstanceStatus) -> Instance {
    if instance.status == status {
        return instance.clone();
    }
    let changed = Instance { status, version: instance.version + 1, ..instance.clone() };
    tx.put(changed.clone());
    let action = format!("{} -> {}", instance.status.as_str(), status.as_str());
    let reason = asked_by_user(format!("A client set the container instance to {}.", status.as_str()));
    tx.decide(Decision {
        at: tx.now,
        subject: Subject::Instance(instance.id.clone()),
        action,
        reason,
        trace: crate::observe::traceparent(),
    });
    changed
}

/// Its tasks are given up: nobody hears of them any more. A service replaces its own elsewhere.
pub async fn deregister(cx: Cx, input: DeregisterContainerInstanceInput) -> Result<DeregisterContainerInstanceOutput, Fault> {
    update(&cx, "DeregisterContainerInstance", move |tx, app| {
        let cluster = ask::cluster(tx.state(), input.cluster.as_deref())?.name.clone();
        let Some(instance) = ask::instance(tx.state(), &cluster, &input.container_instance, false)?.cloned() else {
            return Err(invalid("The referenced container instance was not found."));
        };
        let live: Vec<TaskId> =
            tx.state().tasks_of_instance(&instance.id).filter(|t| !t.is_stopped()).map(|t| t.id.clone()).collect();
        if !live.is_empty() && input.force != Some(true) {
            return Err(invalid("Found running tasks on the instance."));
        }
        let text = format!("Container instance {} was deregistered.", instance.id);
        for task in live {
            schedule::give_up(tx, &task, StopCode::TerminationNotice, &text, asked_by_user(text.clone()));
        }
        let instance = set_status(tx, &instance, InstanceStatus::Inactive);
        Ok(DeregisterContainerInstanceOutput { container_instance: shape(tx.state(), &app.home, &instance, true) })
    })
    .await
}

pub fn missing_arn(home: &Home, cluster: &ClusterName, reference: &str) -> String {
    arn_or(reference, |id| home.container_instance(cluster, &id.into()))
}

fn shape(state: &State, home: &Home, instance: &Instance, with_tags: bool) -> ContainerInstance {
    let load = state.load(&instance.id);
    let live = || state.tasks_of_instance(&instance.id).filter(|t| !t.is_stopped());
    let reserved = instance.reserved_tcp_ports.iter().chain(&instance.registered.tcp_ports);
    let (tcp, udp): (BTreeSet<u16>, BTreeSet<u16>) =
        (reserved.copied().collect(), instance.registered.udp_ports.iter().copied().collect());
    let Resources { cpu, memory, .. } = instance.registered;
    ContainerInstance {
        container_instance_arn: instance_arn(home, instance),
        // As the query language's ec2InstanceId has it: clients read this member, and there is no other machine id.
        ec2_instance_id: instance.id.to_string(),
        version: instance.version,
        version_info: VersionInfo {
            agent_version: instance.agent_version.clone(),
            docker_version: format!("DockerVersion: {}", instance.docker_version),
        },
        remaining_resources: resources(
            cpu.saturating_sub(load.cpu),
            memory.saturating_sub(load.memory),
            tcp.union(&load.tcp_ports),
            udp.union(&load.udp_ports),
        ),
        registered_resources: resources(cpu, memory, tcp.iter(), udp.iter()),
        status: instance.status.as_str(),
        agent_connected: instance.agent_connected,
        running_tasks_count: live().filter(|t| t.last_status == TaskStatus::Running).count() as u32,
        pending_tasks_count: live().filter(|t| t.last_status < TaskStatus::Running && !t.is_stopping()).count() as u32,
        attributes: instance
            .attributes
            .iter()
            .map(|(name, value)| Attribute { name: name.clone(), value: value.clone(), target_type: None, target_id: None })
            .collect(),
        registered_at: instance.registered_at,
        attachments: Vec::new(),
        tags: if with_tags { instance.tags.clone() } else { Vec::new() },
    }
}

/// In AWS's order, every kind of value present. PORTS are those that are taken.
fn resources<'a>(cpu: u32, memory: u32, tcp: impl Iterator<Item = &'a u16>, udp: impl Iterator<Item = &'a u16>) -> Vec<Resource> {
    let resource = |name, kind, integer_value, string_set_value| Resource {
        name,
        kind,
        double_value: 0.0,
        long_value: 0,
        integer_value,
        string_set_value,
    };
    vec![
        resource("CPU", "INTEGER", cpu, None),
        resource("MEMORY", "INTEGER", memory, None),
        resource("PORTS", "STRINGSET", 0, Some(tcp.map(u16::to_string).collect())),
        resource("PORTS_UDP", "STRINGSET", 0, Some(udp.map(u16::to_string).collect())),
    ]
}
