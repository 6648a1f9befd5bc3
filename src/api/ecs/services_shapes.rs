//! A service as clients see it.

use super::shapes::NameValue;
use crate::model::arn::Home;
use crate::model::placement::{PlacementConstraint, PlacementStrategy};
use crate::model::service::{AwsvpcConfiguration, Deployment, NetworkConfiguration, Service};
use crate::model::tag::Tag;
use crate::model::task::{Task, TaskStatus};
use crate::model::{DeploymentId, Timestamp};
use crate::shapes;
use crate::store::State;

shapes! { "camelCase";
    output ServiceShape {
        service_arn: String, service_name: String, cluster_arn: String, load_balancers: Vec<NameValue>,
        service_registries: Vec<NameValue>, status: &'static str, desired_count: u32, running_count: u32, pending_count: u32,
        launch_type: &'static str, task_definition: String, deployment_configuration: DeploymentBounds,
        deployments: Vec<DeploymentShape>, role_arn: Option<String>, events: Vec<EventShape>, created_at: Timestamp,
        placement_constraints: Vec<PlacementConstraint>, placement_strategy: Vec<PlacementStrategy>,
        network_configuration: Option<NetworkShape>, health_check_grace_period_seconds: Option<u32>,
        scheduling_strategy: &'static str, deployment_controller: Controller, tags: Option<Vec<Tag>>,
        #[serde(rename = "enableECSManagedTags")] enable_ecs_managed_tags: bool, propagate_tags: String,
        enable_execute_command: bool,
    }
    output DeploymentBounds { maximum_percent: u32, minimum_healthy_percent: u32 }
    output Controller { #[serde(rename = "type")] kind: &'static str }
    output DeploymentShape {
        id: String, status: &'static str, task_definition: String, desired_count: u32, pending_count: u32, running_count: u32,
        failed_tasks: u32, created_at: Timestamp, updated_at: Timestamp, launch_type: &'static str,
        network_configuration: Option<NetworkShape>, rollout_state: &'static str, rollout_state_reason: String,
    }
    output EventShape { id: String, created_at: Timestamp, message: String }
    output NetworkShape { awsvpc_configuration: Option<AwsvpcShape> }
    output AwsvpcShape { subnets: Vec<String>, security_groups: Vec<String>, assign_public_ip: String }
}

pub fn shape(state: &State, home: &Home, service: &Service, with_tags: bool) -> ServiceShape {
    let counts = state.counts(&service.key);
    let live: Vec<&Task> = state.live_tasks_of_service(&service.key).map(AsRef::as_ref).collect();
    ServiceShape {
        service_arn: home.service(&service.key),
        service_name: service.key.service.to_string(),
        cluster_arn: home.cluster(&service.key.cluster),
        load_balancers: Vec::new(),
        service_registries: Vec::new(),
        status: service.status.as_str(),
        desired_count: service.desired_count,
        running_count: counts.running,
        pending_count: counts.pending,
        launch_type: service.launch_type.as_str(),
        task_definition: home.task_definition(&service.definition),
        deployment_configuration: DeploymentBounds {
            maximum_percent: service.maximum_percent,
            minimum_healthy_percent: service.minimum_healthy_percent,
        },
        deployments: service
            .deployments
            .iter()
            .enumerate()
            .map(|(at, deployment)| deployment_shape(home, service, deployment, at == 0, &live))
            .collect(),
        role_arn: service.role_arn.clone(),
        events: service
            .events
            .iter()
            .map(|e| EventShape { id: e.id.clone(), created_at: e.at, message: e.message.clone() })
            .collect(),
        created_at: service.created_at,
        placement_constraints: service.placement_constraints.clone(),
        placement_strategy: service.placement_strategy.clone(),
        network_configuration: service.network_configuration.as_ref().map(network),
        health_check_grace_period_seconds: service.health_check_grace_period_s,
        scheduling_strategy: "REPLICA",
        deployment_controller: Controller { kind: "ECS" },
        tags: with_tags.then(|| service.tags.clone()),
        enable_ecs_managed_tags: service.enable_ecs_managed_tags,
        propagate_tags: service.propagate_tags.clone().unwrap_or_else(|| "NONE".to_owned()),
        enable_execute_command: service.enable_execute_command,
    }
}

fn deployment_shape(home: &Home, service: &Service, deployment: &Deployment, primary: bool, live: &[&Task]) -> DeploymentShape {
    let of = |wanted: fn(&Task) -> bool| live.iter().filter(|t| is_of(t, &deployment.id) && wanted(t)).count() as u32;
    DeploymentShape {
        id: deployment.id.to_string(),
        status: if primary { "PRIMARY" } else { "ACTIVE" },
        task_definition: home.task_definition(&deployment.definition),
        // What an older deployment may still keep is what has not been asked to stop.
        desired_count: if primary { service.desired_count } else { of(|t| !t.is_stopping()) },
        // Counted as the service's own: see `store::state`.
        pending_count: of(|t| t.last_status != TaskStatus::Running && !t.is_stopping()),
        running_count: of(|t| t.last_status == TaskStatus::Running),
        failed_tasks: deployment.failed_tasks,
        created_at: deployment.created_at,
        updated_at: deployment.updated_at,
        launch_type: service.launch_type.as_str(),
        network_configuration: deployment.network_configuration.as_ref().map(network),
        rollout_state: deployment.rollout.as_str(),
        rollout_state_reason: deployment.rollout_reason.clone(),
    }
}

fn is_of(task: &Task, deployment: &DeploymentId) -> bool {
    task.deployment.as_ref() == Some(deployment)
}

fn network(configuration: &NetworkConfiguration) -> NetworkShape {
    let vpc = |v: &AwsvpcConfiguration| AwsvpcShape {
        subnets: v.subnets.clone(),
        security_groups: v.security_groups.clone().unwrap_or_default(),
        assign_public_ip: v.assign_public_ip.clone().unwrap_or_else(|| "DISABLED".to_owned()),
    };
    NetworkShape { awsvpc_configuration: configuration.awsvpc_configuration.as_ref().map(vpc) }
}
