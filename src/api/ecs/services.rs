//! Making, changing and deleting services. What a change needs to happen is the reconciler's; this only writes what is wanted.

use std::collections::VecDeque;
use std::sync::Arc;

use super::errors::{SERVICE_NOT_ACTIVE, client, invalid, service_not_found, unsupported};
use super::services_shapes::{ServiceShape, shape};
use super::shapes::{Given, PropagateTags, SchedulingStrategy, enables, network_gaps, says};
use super::tasks::check_network;
use super::{ask, definitions, update as change};
use crate::api::{App, Cx};
use crate::decide::placement;
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::placement::{PlacementConstraint, PlacementStrategy};
use crate::model::service::{Deployment, NetworkConfiguration, Rollout, Service, ServiceStatus};
use crate::model::tag::Tag;
use crate::model::task::LaunchType;
use crate::model::{DefinitionKey, ServiceKey};
use crate::observe::traceparent;
use crate::schedule::{self, asked_by_user};
use crate::shapes;
use crate::store::Tx;
use crate::wire::fault::Fault;

/// Service quotas: "Tasks per service: 5,000".
const MAX_TASKS: i32 = 5_000;

shapes! { "camelCase";
    input CreateServiceInput {
        cluster: Option<String>, service_name: String, task_definition: Option<String>,
        availability_zone_rebalancing: Option<String>, load_balancers: Given, service_registries: Given,
        desired_count: Option<i32>, client_token: Option<String>, launch_type: Option<LaunchType>,
        capacity_provider_strategy: Given, platform_version: Option<String>, role: Option<String>,
        deployment_configuration: Option<DeploymentConfiguration>, placement_constraints: Option<Vec<PlacementConstraint>>,
        placement_strategy: Option<Vec<PlacementStrategy>>, network_configuration: Option<NetworkConfiguration>,
        health_check_grace_period_seconds: Option<u32>, scheduling_strategy: Option<SchedulingStrategy>,
        deployment_controller: Option<DeploymentController>, tags: Option<Vec<Tag>>,
        #[serde(rename = "enableECSManagedTags")] enable_ecs_managed_tags: Option<bool>, propagate_tags: Option<PropagateTags>,
        enable_execute_command: Option<bool>, service_connect_configuration: Given, volume_configurations: Given,
        vpc_lattice_configurations: Given, monitoring: Given,
    }
    input UpdateServiceInput {
        cluster: Option<String>, service: String, desired_count: Option<i32>, task_definition: Option<String>,
        capacity_provider_strategy: Given, deployment_configuration: Option<DeploymentConfiguration>,
        availability_zone_rebalancing: Option<String>, network_configuration: Option<NetworkConfiguration>,
        placement_constraints: Option<Vec<PlacementConstraint>>, placement_strategy: Option<Vec<PlacementStrategy>>,
        platform_version: Option<String>, force_new_deployment: Option<bool>, health_check_grace_period_seconds: Option<u32>,
        deployment_controller: Option<DeploymentController>, enable_execute_command: Option<bool>,
        #[serde(rename = "enableECSManagedTags")] enable_ecs_managed_tags: Option<bool>, load_balancers: Given,
        propagate_tags: Option<PropagateTags>, service_registries: Given, service_connect_configuration: Given,
        volume_configurations: Given, vpc_lattice_configurations: Given, monitoring: Given,
    }
    input DeleteServiceInput { cluster: Option<String>, service: String, force: Option<bool> }
    input DeploymentConfiguration {
        deployment_circuit_breaker: Given, maximum_percent: Option<u32>, minimum_healthy_percent: Option<u32>, alarms: Given,
        strategy: Option<String>, bake_time_in_minutes: Option<i32>, lifecycle_hooks: Given,
    }
    input DeploymentController { #[serde(rename = "type")] kind: ControllerType }
    values ControllerType {
        #[serde(rename = "ECS")] Ecs, #[serde(rename = "CODE_DEPLOY")] CodeDeploy, #[serde(rename = "EXTERNAL")] External,
    }
    output ServiceOutput { service: ServiceShape }
}

pub async fn create(cx: Cx, input: CreateServiceInput) -> Result<ServiceOutput, Fault> {
    check_create(&input)?;
    count_create_gaps(&cx.app, &input);
    change(&cx, "CreateService", move |tx, app| {
        let cluster = ask::cluster(tx.state(), input.cluster.as_deref())?.name.clone();
        let key = ServiceKey::new(&cluster, &input.service_name);
        let reference = input.task_definition.as_deref().unwrap_or_default();
        let taken = tx.state().services.get(&key).filter(|s| s.status != ServiceStatus::Inactive).cloned();
        if let Some(existing) = taken {
            let wanted = schedule::find_definition(tx.state(), reference).map(|d| d.key.clone());
            return again(&existing, &input, wanted).map(|()| answer(tx, app, &existing));
        }
        let definition = definitions::usable(tx.state(), reference, client)?;
        check_network(definition.network_mode, input.network_configuration.as_ref())?;
        let bounds = bounds(input.deployment_configuration.as_ref(), (100, 200))?;
        let service = fresh(tx, app, key, definition.key.clone(), bounds, input);
        let primary = service.primary().cloned();
        tx.put(service.clone());
        if let Some(primary) = primary {
            tell(
                tx,
                &service.key,
                &primary,
                format!("CreateService asked for {} of {}", service.desired_count, primary.definition),
            );
        }
        Ok(answer(tx, app, &service))
    })
    .await
}

fn check_create(input: &CreateServiceInput) -> Result<(), Fault> {
    ask::check_name("The service name", &input.service_name)?;
    ask::check_token(input.client_token.as_deref(), 36)?;
    ask::check_tags(input.tags.as_deref().unwrap_or_default())?;
    check_strategy(input.scheduling_strategy, input.deployment_controller.as_ref(), input.deployment_configuration.as_ref())?;
    check_placement(input.placement_constraints.as_deref(), input.placement_strategy.as_deref())?;
    if input.launch_type.is_some() && says(&input.capacity_provider_strategy) {
        let text = "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.";
        return Err(invalid(text));
    }
    if input.task_definition.as_deref().is_none_or(str::is_empty) {
        return Err(invalid("TaskDefinition is required if the deployment controller is ECS."));
    }
    // "desiredCount: This is required if schedulingStrategy is REPLICA or isn't specified."
    check_desired(Some(input.desired_count.ok_or_else(|| invalid("desiredCount is required for a REPLICA service."))?))
}

fn check_strategy(
    scheduling: Option<SchedulingStrategy>,
    controller: Option<&DeploymentController>,
    configuration: Option<&DeploymentConfiguration>,
) -> Result<(), Fault> {
    if scheduling == Some(SchedulingStrategy::Daemon) {
        return Err(unsupported("The scheduling strategy DAEMON is not supported in this release: use REPLICA."));
    }
    if controller.is_some_and(|c| c.kind != ControllerType::Ecs) {
        return Err(unsupported("Only the deployment controller ECS is supported in this release."));
    }
    match configuration.and_then(|c| c.strategy.as_deref()) {
        None | Some("ROLLING") => Ok(()),
        Some(_) => Err(unsupported("Only the deployment strategy ROLLING is supported in this release.")),
    }
}

fn check_placement(constraints: Option<&[PlacementConstraint]>, strategy: Option<&[PlacementStrategy]>) -> Result<(), Fault> {
    placement::check(constraints.unwrap_or_default(), strategy.unwrap_or_default()).map_err(invalid)
}

fn check_desired(desired: Option<i32>) -> Result<(), Fault> {
    match desired {
        Some(n) if !(0..=MAX_TASKS).contains(&n) => {
            Err(invalid(format!("Invalid desiredCount: {n}. It must be between 0 and {MAX_TASKS}.")))
        }
        _ => Ok(()),
    }
}

/// Minimum healthy and maximum percent; what is not given stays as it was.
fn bounds(given: Option<&DeploymentConfiguration>, (low, high): (u32, u32)) -> Result<(u32, u32), Fault> {
    let low = given.and_then(|g| g.minimum_healthy_percent).unwrap_or(low);
    let high = given.and_then(|g| g.maximum_percent).unwrap_or(high);
    if low > high || high == 0 {
        return Err(invalid("maximumPercent must be above 0 and not below minimumHealthyPercent."));
    }
    if low == 100 && high == 100 {
        return Err(invalid("Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments."));
    }
    if low > 100 {
        return Err(invalid("minimumHealthyPercent must be at most 100."));
    }
    Ok((low, high))
}

/// CreateService of a service that is there: the same request answers it, another one is refused.
fn again(existing: &Service, input: &CreateServiceInput, definition: Option<DefinitionKey>) -> Result<(), Fault> {
    if existing.status == ServiceStatus::Draining {
        return Err(invalid("Unable to Start a service that is still Draining."));
    }
    let bounds = bounds(input.deployment_configuration.as_ref(), (100, 200))?;
    let same = definition.as_ref() == Some(&existing.definition)
        && input.desired_count.and_then(|n| u32::try_from(n).ok()) == Some(existing.desired_count)
        && input.launch_type.unwrap_or_default() == existing.launch_type
        && input.network_configuration == existing.network_configuration
        && input.placement_constraints.as_deref().unwrap_or_default() == existing.placement_constraints
        && input.placement_strategy.as_deref().unwrap_or_default() == existing.placement_strategy
        && input.health_check_grace_period_seconds == existing.health_check_grace_period_s
        && bounds == (existing.minimum_healthy_percent, existing.maximum_percent)
        // A service that was made with a token is only ever answered to that token.
        && (input.client_token.is_none() || input.client_token == existing.client_token);
    match same {
        true => Ok(()),
        false => Err(invalid("Creation of service was not idempotent.")),
    }
}

fn fresh(
    tx: &Tx,
    app: &App,
    key: ServiceKey,
    definition: DefinitionKey,
    (minimum_healthy_percent, maximum_percent): (u32, u32),
    input: CreateServiceInput,
) -> Service {
    Service {
        key,
        status: ServiceStatus::Active,
        deployments: vec![deployment(tx, app, definition.clone(), input.network_configuration.clone())],
        definition,
        desired_count: input.desired_count.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        launch_type: input.launch_type.unwrap_or_default(),
        minimum_healthy_percent,
        maximum_percent,
        health_check_grace_period_s: input.health_check_grace_period_seconds,
        placement_constraints: input.placement_constraints.unwrap_or_default(),
        placement_strategy: input.placement_strategy.unwrap_or_default(),
        network_configuration: input.network_configuration,
        propagate_tags: input.propagate_tags.and_then(propagated),
        enable_ecs_managed_tags: input.enable_ecs_managed_tags == Some(true),
        enable_execute_command: input.enable_execute_command == Some(true),
        role_arn: input.role,
        client_token: input.client_token,
        events: VecDeque::new(),
        steady: false,
        desired_trace: None,
        tags: input.tags.unwrap_or_default(),
        created_at: tx.now,
        updated_at: tx.now,
    }
}

fn propagated(tags: PropagateTags) -> Option<String> {
    match tags {
        PropagateTags::TaskDefinition => Some("TASK_DEFINITION".to_owned()),
        PropagateTags::Service => Some("SERVICE".to_owned()),
        PropagateTags::None => None,
    }
}

fn deployment(tx: &Tx, app: &App, definition: DefinitionKey, network: Option<NetworkConfiguration>) -> Deployment {
    let id = app.ids.deployment();
    Deployment {
        rollout_reason: format!("ECS deployment {id} in progress."),
        id,
        definition,
        rollout: Rollout::InProgress,
        failed_tasks: 0,
        early_exits: 0,
        throttled_until: None,
        network_configuration: network,
        created_at: tx.now,
        updated_at: tx.now,
        trace: traceparent(),
    }
}

fn tell(tx: &mut Tx, key: &ServiceKey, deployment: &Deployment, sentence: String) {
    let reason = Reason::new(ReasonCode::DeploymentStarted, sentence)
        .with("deployment", deployment.id.as_str())
        .with("taskDefinition", deployment.definition.to_string());
    tx.decide(Decision {
        at: tx.now,
        subject: Subject::Service(key.clone()),
        action: format!("start deployment {}", deployment.id),
        reason,
        trace: deployment.trace.clone(),
    });
}

fn answer(tx: &Tx, app: &App, service: &Service) -> ServiceOutput {
    ServiceOutput { service: shape(tx.state(), &app.home, service, true) }
}

pub async fn update(cx: Cx, input: UpdateServiceInput) -> Result<ServiceOutput, Fault> {
    check_strategy(None, input.deployment_controller.as_ref(), input.deployment_configuration.as_ref())?;
    check_placement(input.placement_constraints.as_deref(), input.placement_strategy.as_deref())?;
    check_desired(input.desired_count)?;
    count_update_gaps(&cx.app, &input);
    change(&cx, "UpdateService", move |tx, app| {
        let cluster = ask::cluster(tx.state(), input.cluster.as_deref())?.name.clone();
        let before = ask::service(tx.state(), &cluster, &input.service)?.clone();
        if before.status != ServiceStatus::Active {
            return Err(Fault::new(&SERVICE_NOT_ACTIVE, "Service was not ACTIVE."));
        }
        let mut service = settled(&before, &input)?;
        let why = redeployed(tx, &mut service, &input)?;
        if let Some(why) = why {
            let fresh = deployment(tx, app, service.definition.clone(), service.network_configuration.clone());
            tell(tx, &service.key, &fresh, why);
            service.deployments.insert(0, fresh);
            // Its tasks are this call's doing, no longer that of whoever moved the count before.
            service.desired_trace = None;
            service.steady = false;
        }
        if service != *before {
            service.updated_at = tx.now;
            tx.put(service.clone());
        }
        if let Some(desired) = input.desired_count.and_then(|n| u32::try_from(n).ok()) {
            let reason = asked_by_user(format!("UpdateService asked for {desired} tasks"));
            schedule::set_desired(tx, &service.key, desired, reason, traceparent());
        }
        let after = tx.state().services.get(&service.key).cloned().unwrap_or_else(|| Arc::new(service));
        Ok(answer(tx, app, &after))
    })
    .await
}

/// The service with the fields that are changed in place.
fn settled(before: &Service, input: &UpdateServiceInput) -> Result<Service, Fault> {
    let mut service = before.clone();
    let was = (before.minimum_healthy_percent, before.maximum_percent);
    let new = bounds(input.deployment_configuration.as_ref(), was)?;
    (service.minimum_healthy_percent, service.maximum_percent) = new;
    if let Some(constraints) = &input.placement_constraints {
        service.placement_constraints = constraints.clone();
    }
    if let Some(strategy) = &input.placement_strategy {
        service.placement_strategy = strategy.clone();
    }
    service.health_check_grace_period_s = input.health_check_grace_period_seconds.or(before.health_check_grace_period_s);
    service.enable_execute_command = input.enable_execute_command.unwrap_or(before.enable_execute_command);
    service.enable_ecs_managed_tags = input.enable_ecs_managed_tags.unwrap_or(before.enable_ecs_managed_tags);
    if let Some(tags) = input.propagate_tags {
        service.propagate_tags = propagated(tags);
    }
    Ok(service)
}

/// Changes of the task definition or the network make a new deployment, and forceNewDeployment does; nothing else. The reason is why.
fn redeployed(tx: &Tx, service: &mut Service, input: &UpdateServiceInput) -> Result<Option<String>, Fault> {
    let mut why = None;
    if input.force_new_deployment == Some(true) {
        why = Some("UpdateService forced a new deployment".to_owned());
    }
    if let Some(network) = &input.network_configuration
        && Some(network) != service.network_configuration.as_ref()
    {
        service.network_configuration = Some(network.clone());
        why = Some("UpdateService changed the network configuration".to_owned());
    }
    if let Some(reference) = input.task_definition.as_deref().filter(|t| !t.is_empty()) {
        // The revision that runs may be named again even when it has become INACTIVE.
        let named = schedule::find_definition(tx.state(), reference).map(|d| d.key.clone());
        if named.as_ref() != Some(&service.definition) {
            let definition = definitions::usable(tx.state(), reference, client)?;
            why = Some(format!("UpdateService asked for {} (was {})", definition.key, service.definition));
            service.definition = definition.key.clone();
        }
    }
    if let (Some(_), Some(definition)) = (&why, tx.state().definitions.get(&service.definition)) {
        check_network(definition.network_mode, service.network_configuration.as_ref())?;
    }
    Ok(why)
}

pub async fn delete(cx: Cx, input: DeleteServiceInput) -> Result<ServiceOutput, Fault> {
    change(&cx, "DeleteService", move |tx, app| {
        let cluster = ask::cluster(tx.state(), input.cluster.as_deref())?.name.clone();
        let before = ask::service(tx.state(), &cluster, &input.service)?.clone();
        match before.status {
            ServiceStatus::Inactive => return Err(service_not_found()),
            ServiceStatus::Draining => return Ok(answer(tx, app, &before)),
            ServiceStatus::Active => {}
        }
        if before.desired_count > 0 && input.force != Some(true) {
            return Err(invalid("The service cannot be stopped while it is scaled above 0."));
        }
        let service =
            Service { status: ServiceStatus::Draining, desired_count: 0, steady: false, updated_at: tx.now, ..(*before).clone() };
        tx.put(service.clone());
        tx.decide(Decision {
            at: tx.now,
            subject: Subject::Service(service.key.clone()),
            action: "delete service".to_owned(),
            reason: asked_by_user("DeleteService asked for the service's end"),
            trace: traceparent(),
        });
        Ok(answer(tx, app, &service))
    })
    .await
}

fn count_create_gaps(app: &App, input: &CreateServiceInput) {
    count_gaps(
        app,
        input.deployment_configuration.as_ref(),
        input.network_configuration.as_ref(),
        &[
            ("availabilityZoneRebalancing", input.availability_zone_rebalancing.as_deref() == Some("ENABLED")),
            ("capacityProviderStrategy", says(&input.capacity_provider_strategy)),
            ("enableExecuteCommand", input.enable_execute_command == Some(true)),
            ("launchType.FARGATE", input.launch_type == Some(LaunchType::Fargate)),
            ("loadBalancers", says(&input.load_balancers)),
            ("monitoring", says(&input.monitoring)),
            ("platformVersion", input.platform_version.is_some()),
            ("role", input.role.is_some()),
            ("serviceConnectConfiguration", enables(&input.service_connect_configuration)),
            ("serviceRegistries", says(&input.service_registries)),
            ("volumeConfigurations", says(&input.volume_configurations)),
            ("vpcLatticeConfigurations", says(&input.vpc_lattice_configurations)),
        ],
    );
}

fn count_update_gaps(app: &App, input: &UpdateServiceInput) {
    count_gaps(
        app,
        input.deployment_configuration.as_ref(),
        input.network_configuration.as_ref(),
        &[
            ("availabilityZoneRebalancing", input.availability_zone_rebalancing.as_deref() == Some("ENABLED")),
            ("capacityProviderStrategy", says(&input.capacity_provider_strategy)),
            ("enableExecuteCommand", input.enable_execute_command == Some(true)),
            ("loadBalancers", says(&input.load_balancers)),
            ("monitoring", says(&input.monitoring)),
            ("platformVersion", input.platform_version.is_some()),
            ("serviceConnectConfiguration", enables(&input.service_connect_configuration)),
            ("serviceRegistries", says(&input.service_registries)),
            ("volumeConfigurations", says(&input.volume_configurations)),
            ("vpcLatticeConfigurations", says(&input.vpc_lattice_configurations)),
        ],
    );
}

fn count_gaps(
    app: &App,
    configuration: Option<&DeploymentConfiguration>,
    network: Option<&NetworkConfiguration>,
    fields: &[(&str, bool)],
) {
    let of_configuration = configuration.map(|c| {
        [
            ("alarms", enables(&c.alarms)),
            ("bakeTimeInMinutes", c.bake_time_in_minutes.is_some_and(|minutes| minutes > 0)),
            ("deploymentCircuitBreaker", enables(&c.deployment_circuit_breaker)),
            ("lifecycleHooks", says(&c.lifecycle_hooks)),
        ]
    });
    let all = fields.iter().copied().chain(network_gaps(network)).chain(of_configuration.into_iter().flatten());
    for (field, given) in all {
        app.gaps.given(&[(&format!("service.{field}"), given)]);
    }
}
