//! Starting and stopping tasks. Placement is `schedule`'s; this checks what the client asks and words what came of it.

use std::sync::Arc;

use super::errors::{CONFLICT, invalid};
use super::shapes::{Failure, Given, PropagateTags, missing, network_gaps, says};
use super::tasks_shapes::{TaskShape, shape};
use super::tokens::{KEPT_MS, Known, Tokens, fingerprint};
use super::{ask, definitions, instances, update};
use crate::api::{App, Cx};
use crate::decide::{definition, placement};
use crate::ids::task_of_token;
use crate::model::definition::{NetworkMode, TaskDefinition};
use crate::model::instance::InstanceStatus;
use crate::model::placement::{PlacementConstraint, PlacementStrategy};
use crate::model::service::NetworkConfiguration;
use crate::model::tag::Tag;
use crate::model::task::{LaunchType, Overrides, StopCode, Task};
use crate::model::{ClusterName, TaskId};
use crate::observe::{self, traceparent};
use crate::schedule::{self, Launch, Launched, asked_by_user};
use crate::shapes;
use crate::store::{State, Tx};
use crate::wire::fault::Fault;

shapes! { "camelCase";
    input RunTaskInput {
        capacity_provider_strategy: Given, cluster: Option<String>, count: Option<i32>,
        #[serde(rename = "enableECSManagedTags")] enable_ecs_managed_tags: Option<bool>, enable_execute_command: Option<bool>,
        group: Option<String>, launch_type: Option<LaunchType>, network_configuration: Option<NetworkConfiguration>,
        overrides: Option<Overrides>, placement_constraints: Option<Vec<PlacementConstraint>>,
        placement_strategy: Option<Vec<PlacementStrategy>>, platform_version: Option<String>,
        propagate_tags: Option<PropagateTags>, reference_id: Option<String>, started_by: Option<String>, tags: Option<Vec<Tag>>,
        task_definition: String, client_token: Option<String>, volume_configurations: Given,
    }
    input StartTaskInput {
        cluster: Option<String>, container_instances: Vec<String>,
        #[serde(rename = "enableECSManagedTags")] enable_ecs_managed_tags: Option<bool>, enable_execute_command: Option<bool>,
        group: Option<String>, network_configuration: Option<NetworkConfiguration>, overrides: Option<Overrides>,
        propagate_tags: Option<PropagateTags>, reference_id: Option<String>, started_by: Option<String>, tags: Option<Vec<Tag>>,
        task_definition: String, volume_configurations: Given,
    }
    input StopTaskInput { cluster: Option<String>, task: String, reason: Option<String> }
    output TasksOutput { tasks: Vec<TaskShape>, failures: Vec<Failure> }
    output StopTaskOutput { task: TaskShape }
}

/// What RunTask and StartTask have in common.
struct Asked {
    group: Option<String>,
    started_by: Option<String>,
    network_configuration: Option<NetworkConfiguration>,
    overrides: Overrides,
    propagate_tags: Option<PropagateTags>,
    managed_tags: bool,
    tags: Vec<Tag>,
    task_definition: String,
    launch_type: LaunchType,
}

/// Of one RunTask.
const MOST_TASKS: usize = 10;

/// The same, with the rows that it names.
struct Ready {
    cluster: ClusterName,
    definition: Arc<TaskDefinition>,
    group: String,
    tags: Vec<Tag>,
}

pub async fn run(cx: Cx, input: RunTaskInput, tokens: Arc<Tokens>) -> Result<TasksOutput, Fault> {
    let count = input.count.unwrap_or(1);
    if !(1..=MOST_TASKS as i32).contains(&count) {
        return Err(invalid(format!("Invalid count: {count}. It must be between 1 and 10.")));
    }
    ask::check_token(input.client_token.as_deref(), 64)?;
    if input.launch_type.is_some() && says(&input.capacity_provider_strategy) {
        let text = "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.";
        return Err(invalid(text));
    }
    let request = fingerprint(&input);
    let constraints = input.placement_constraints.unwrap_or_default();
    let strategy = input.placement_strategy.unwrap_or_default();
    placement::check(&constraints, &strategy).map_err(invalid)?;
    count_gaps(
        &cx.app,
        &input.network_configuration,
        &[
            ("task.capacityProviderStrategy", says(&input.capacity_provider_strategy)),
            ("task.platformVersion", input.platform_version.is_some()),
            ("task.enableExecuteCommand", input.enable_execute_command == Some(true)),
            ("task.launchType.FARGATE", input.launch_type == Some(LaunchType::Fargate)),
            ("task.referenceId", input.reference_id.is_some()),
            ("task.volumeConfigurations", says(&input.volume_configurations)),
        ],
    );
    let asked = Asked {
        group: input.group,
        started_by: input.started_by,
        network_configuration: input.network_configuration,
        overrides: input.overrides.unwrap_or_default(),
        propagate_tags: input.propagate_tags,
        managed_tags: input.enable_ecs_managed_tags == Some(true),
        tags: input.tags.unwrap_or_default(),
        task_definition: input.task_definition,
        launch_type: input.launch_type.unwrap_or_default(),
    };
    check(&asked)?;
    let memory = tokens.clone();
    let (reference, token) = (input.cluster.clone(), input.client_token.clone());
    let result = update(&cx, "RunTask", move |tx, app| {
        let ready = ready(tx.state(), &asked, reference.as_deref())?;
        if let Some(token) = &token {
            match memory.look(&ready.cluster, token, request) {
                Known::Same(tasks) => return Ok(Ran { output: again(tx.state(), app, &tasks), remembered: None }),
                Known::Different => return Err(already_used()),
                Known::New => {}
            }
            if let Some(made) = made_before(tx, &ready.cluster, token) {
                let same = made.len() <= count as usize
                    && made.iter().all(|id| tx.state().tasks.get(id).is_some_and(|t| t.definition == ready.definition.key));
                if !same {
                    return Err(already_used());
                }
                memory.remember(&ready.cluster, token, request, made.clone(), tx.now);
                return Ok(Ran { output: again(tx.state(), app, &made), remembered: None });
            }
        }
        if !tx.state().instances_of_cluster(&ready.cluster).any(|i| i.status == InstanceStatus::Active) {
            return Err(invalid("No Container Instances were found in your cluster."));
        }
        let reason = asked_by_user(format!("RunTask asked for {count} of {}", ready.definition.key));
        let launch = launch(&asked, &ready, count as u32, &constraints, &strategy, reason);
        let launched = match &token {
            Some(token) => {
                let first = first_free(tx.state(), &ready.cluster, token);
                let names = (first..first + MOST_TASKS).map(|n| task_of_token(&ready.cluster, token, n));
                schedule::launch(tx, &app.ids.naming(names), &launch)
            }
            None => schedule::launch(tx, &app.ids, &launch),
        };
        observe::placements(launched.tasks.len(), launched.refused as usize);
        let remembered = token.map(|token| {
            let made = launched.tasks.iter().map(|t| t.id.clone()).collect();
            memory.remember(&ready.cluster, &token, request, made, tx.now);
            (ready.cluster.clone(), token)
        });
        Ok(Ran { output: output(tx.state(), app, &ready.cluster, launched), remembered })
    })
    .await;
    forget_unless_made(result, &cx, &tokens, input.cluster.as_deref(), input.client_token.as_deref(), request)
}

/// A token's tasks of one day are named by their numbers from a multiple of [`MOST_TASKS`] on, those of a later use by the next ones.
/// This is the first of a use that no task is left of.
fn first_free(state: &State, cluster: &ClusterName, token: &str) -> usize {
    // All of them: the first may be forgotten while another still runs.
    let is_free =
        |first: &usize| (*first..first + MOST_TASKS).all(|n| !state.tasks.contains_key(&task_of_token(cluster, token, n)));
    (0..).step_by(MOST_TASKS).find(is_free).unwrap_or_default()
}

/// The tasks that this token made, when a restart has forgotten the token: it forgets no task.
fn made_before(tx: &Tx, cluster: &ClusterName, token: &str) -> Option<Vec<TaskId>> {
    let first = first_free(tx.state(), cluster, token).checked_sub(MOST_TASKS)?;
    let names = (first..first + MOST_TASKS).map(|n| task_of_token(cluster, token, n));
    let made: Vec<TaskId> = names.filter(|id| tx.state().tasks.contains_key(id)).collect();
    let at = made.first().and_then(|id| tx.state().tasks.get(id))?.created_at;
    (tx.now.since(at) <= KEPT_MS).then_some(made)
}

/// What came of a RunTask inside of its update.
struct Ran {
    output: TasksOutput,
    /// Set when a client token was newly remembered.
    remembered: Option<(ClusterName, String)>,
}

/// A token must not outlive a commit that failed, nor one that placed nothing: the client will try again with it.
fn forget_unless_made(
    result: Result<Ran, Fault>,
    cx: &Cx,
    tokens: &Tokens,
    cluster: Option<&str>,
    token: Option<&str>,
    request: u64,
) -> Result<TasksOutput, Fault> {
    match result {
        Ok(ran) => {
            if let Some((cluster, token)) = ran.remembered.filter(|_| ran.output.tasks.is_empty()) {
                tokens.forget(&cluster, &token);
            }
            Ok(ran.output)
        }
        Err(fault) => {
            let state = cx.app.store.snapshot();
            let lost = |tasks: &[TaskId]| tasks.iter().any(|id| !state.tasks.contains_key(id));
            if let (Some(token), Ok(cluster)) = (token, ask::cluster(&state, cluster))
                && let Known::Same(tasks) = tokens.look(&cluster.name, token, request)
                && lost(&tasks)
            {
                tokens.forget(&cluster.name, token);
            }
            Err(fault)
        }
    }
}

fn already_used() -> Fault {
    Fault::new(&CONFLICT, "The clientToken was used before with different parameters.")
}

/// The tasks of the first call, as they are now.
fn again(state: &State, app: &App, tasks: &[TaskId]) -> TasksOutput {
    let tasks = tasks.iter().filter_map(|id| state.tasks.get(id)).map(|t| shape(state, &app.home, t, true)).collect();
    TasksOutput { tasks, failures: Vec::new() }
}

pub async fn start(cx: Cx, input: StartTaskInput) -> Result<TasksOutput, Fault> {
    ask::check_batch("Container instances", input.container_instances.len(), 10)?;
    count_gaps(
        &cx.app,
        &input.network_configuration,
        &[
            ("task.enableExecuteCommand", input.enable_execute_command == Some(true)),
            ("task.referenceId", input.reference_id.is_some()),
            ("task.volumeConfigurations", says(&input.volume_configurations)),
        ],
    );
    let asked = Asked {
        group: input.group,
        started_by: input.started_by,
        network_configuration: input.network_configuration,
        overrides: input.overrides.unwrap_or_default(),
        propagate_tags: input.propagate_tags,
        managed_tags: input.enable_ecs_managed_tags == Some(true),
        tags: input.tags.unwrap_or_default(),
        task_definition: input.task_definition,
        launch_type: LaunchType::Ec2,
    };
    check(&asked)?;
    update(&cx, "StartTask", move |tx, app| {
        let ready = ready(tx.state(), &asked, input.cluster.as_deref())?;
        let mut all = TasksOutput { tasks: Vec::new(), failures: Vec::new() };
        for reference in &input.container_instances {
            let Some(instance) = ask::instance(tx.state(), &ready.cluster, reference, true)?.map(|i| i.id.clone()) else {
                all.failures.push(missing(instances::missing_arn(&app.home, &ready.cluster, reference)));
                continue;
            };
            let reason = asked_by_user(format!("StartTask asked for {} on this instance", ready.definition.key));
            let launched = schedule::launch_on(tx, &app.ids, &launch(&asked, &ready, 1, &[], &[], reason), &instance);
            observe::placements(launched.tasks.len(), launched.refused as usize);
            let TasksOutput { tasks, failures } = output(tx.state(), app, &ready.cluster, launched);
            all.tasks.extend(tasks);
            all.failures.extend(failures);
        }
        Ok(all)
    })
    .await
}

fn count_gaps(app: &App, network: &Option<NetworkConfiguration>, fields: &[(&str, bool)]) {
    app.gaps.given(fields);
    for (field, given) in network_gaps(network.as_ref()) {
        app.gaps.given(&[(&format!("task.{field}"), given)]);
    }
}

fn check(asked: &Asked) -> Result<(), Fault> {
    ask::check_tags(&asked.tags)?;
    ask::check_length("group", asked.group.as_deref(), 255)?;
    ask::check_length("startedBy", asked.started_by.as_deref(), 128)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_/".contains(c);
    if asked.started_by.as_deref().is_some_and(|s| !s.chars().all(plain)) {
        return Err(invalid("startedBy can contain letters, numbers, hyphens, forward slashes and underscores."));
    }
    if asked.group.as_deref().is_some_and(|g| g.starts_with("service:")) {
        return Err(invalid("Invalid namespace for group."));
    }
    if asked.propagate_tags == Some(PropagateTags::Service) {
        return Err(invalid("propagateTags can be SERVICE only for the tasks of a service."));
    }
    Ok(())
}

/// Everything that the state must say yes to.
fn ready(state: &State, asked: &Asked, cluster: Option<&str>) -> Result<Ready, Fault> {
    let cluster = ask::cluster(state, cluster)?.name.clone();
    let definition = definitions::usable(state, &asked.task_definition, invalid)?;
    check_network(definition.network_mode, asked.network_configuration.as_ref())?;
    definition::effective_containers(&definition, &asked.overrides).map_err(definitions::refused)?;
    let family = || format!("family:{}", definition.key.family);
    let group = asked.group.clone().filter(|g| !g.is_empty()).unwrap_or_else(family);
    let of_definition: &[Tag] = match asked.propagate_tags {
        Some(PropagateTags::TaskDefinition) => &definition.tags,
        _ => &[],
    };
    let mut tags = ask::merged_tags(of_definition, &asked.tags);
    if asked.managed_tags {
        tags.push(Tag { key: "aws:ecs:clusterName".to_owned(), value: Some(cluster.to_string()) });
    }
    Ok(Ready { cluster, group, tags, definition })
}

/// awsvpc needs a network configuration, and nothing else takes one.
pub fn check_network(mode: NetworkMode, configuration: Option<&NetworkConfiguration>) -> Result<(), Fault> {
    let vpc = configuration.and_then(|n| n.awsvpc_configuration.as_ref());
    match (mode, vpc) {
        (NetworkMode::Awsvpc, None) => {
            Err(invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified."))
        }
        (NetworkMode::Awsvpc, Some(vpc)) => {
            ask::check_batch("subnets", vpc.subnets.len(), 16)?;
            if vpc.security_groups.as_ref().is_some_and(|groups| groups.len() > 5) {
                return Err(invalid("securityGroups can have at most 5 items."));
            }
            match vpc.assign_public_ip.as_deref() {
                None | Some("ENABLED" | "DISABLED") => Ok(()),
                Some(_) => Err(invalid("assignPublicIp must be ENABLED or DISABLED.")),
            }
        }
        (_, Some(_)) => Err(invalid("Network Configuration is not valid for the given networkMode of this task definition.")),
        (_, None) => Ok(()),
    }
}

fn launch<'a>(
    asked: &'a Asked,
    ready: &'a Ready,
    count: u32,
    constraints: &'a [PlacementConstraint],
    strategy: &'a [PlacementStrategy],
    reason: crate::model::decision::Reason,
) -> Launch<'a> {
    Launch {
        cluster: &ready.cluster,
        definition: &ready.definition,
        count,
        group: &ready.group,
        started_by: asked.started_by.clone(),
        service: None,
        deployment: None,
        launch_type: asked.launch_type,
        overrides: &asked.overrides,
        constraints,
        strategy,
        tags: &ready.tags,
        trace: traceparent(),
        reason,
        explain: true,
    }
}

fn output(state: &State, app: &App, cluster: &ClusterName, launched: Launched) -> TasksOutput {
    let mut failures = Vec::new();
    if let Some(refusal) = &launched.refusal {
        failures.extend(refusal.failures.iter().map(|(instance, filter)| Failure {
            arn: Some(app.home.container_instance(cluster, instance)),
            reason: filter.failure_code().to_owned(),
            detail: None,
        }));
    }
    if let (true, Some(refusal)) = (failures.is_empty(), &launched.refusal) {
        failures.push(Failure { arn: None, reason: refusal.reason.sentence.clone(), detail: None });
    }
    TasksOutput { tasks: launched.tasks.iter().map(|t| shape(state, &app.home, t, true)).collect(), failures }
}

pub async fn stop(cx: Cx, input: StopTaskInput) -> Result<StopTaskOutput, Fault> {
    if input.task.is_empty() {
        return Err(invalid("Tasks cannot be empty."));
    }
    ask::check_length("reason", input.reason.as_deref(), 1_024)?;
    update(&cx, "StopTask", move |tx, app| {
        let cluster = ask::cluster(tx.state(), input.cluster.as_deref())?.name.clone();
        let not_found = || invalid("The referenced task was not found.");
        let task = ask::task(tx.state(), &cluster, &input.task)?.ok_or_else(not_found)?.id.clone();
        let text = input.reason.as_deref().filter(|r| !r.is_empty()).unwrap_or("Task stopped by user");
        let reason = crate::model::decision::Reason::new(crate::model::decision::ReasonCode::UserStopped, text);
        let stopped = schedule::stop(tx, &task, StopCode::UserInitiated, text, reason).ok_or_else(not_found)?;
        // StopTask: "the tags associated with the task are deleted".
        let stopped = untagged(tx, stopped);
        Ok(StopTaskOutput { task: shape(tx.state(), &app.home, &stopped, true) })
    })
    .await
}

fn untagged(tx: &mut Tx, task: Arc<Task>) -> Arc<Task> {
    if task.tags.is_empty() {
        return task;
    }
    let bare = (*task).clone().with_tags(Vec::new());
    tx.put(bare.clone());
    Arc::new(bare)
}
