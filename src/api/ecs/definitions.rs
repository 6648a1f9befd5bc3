//! Task definitions: registered once, then only their status changes.

use std::sync::Arc;

use super::errors::{CLIENT, INVALID_PARAMETER, client, invalid};
use super::page::page;
use super::shapes::{Attribute, Failure, TagsField, arn_or, wants_tags};
use super::{ask, update};
use crate::api::Cx;
use crate::decide::definition::{self as rules, Draft, Invalid};
use crate::model::arn::{Home, short_name};
use crate::model::definition::{ContainerDefinition, DefinitionStatus, NetworkMode, RuntimePlatform, TaskDefinition, Volume};
use crate::model::placement::PlacementConstraint;
use crate::model::tag::Tag;
use crate::model::{DefinitionKey, Timestamp};
use crate::schedule;
use crate::shapes;
use crate::store::{State, Tx};
use crate::wire::fault::Fault;

shapes! { "camelCase";
    input RegisterTaskDefinitionInput {
        family: String, task_role_arn: Option<String>, execution_role_arn: Option<String>, network_mode: Option<NetworkMode>,
        container_definitions: Vec<ContainerDefinition>, volumes: Option<Vec<Volume>>,
        placement_constraints: Option<Vec<PlacementConstraint>>, requires_compatibilities: Option<Vec<Compatibility>>,
        cpu: Option<String>, memory: Option<String>, tags: Option<Vec<Tag>>, pid_mode: Option<String>, ipc_mode: Option<String>,
        runtime_platform: Option<RuntimePlatform>,
    }
    values Compatibility {
        #[serde(rename = "EC2")] Ec2, #[serde(rename = "FARGATE")] Fargate, #[serde(rename = "EXTERNAL")] External,
        #[serde(rename = "MANAGED_INSTANCES")] ManagedInstances,
    }
    values Sort { #[serde(rename = "ASC")] Ascending, #[serde(rename = "DESC")] Descending }
    values FamilyStatus { #[serde(rename = "ACTIVE")] Active, #[serde(rename = "INACTIVE")] Inactive, #[serde(rename = "ALL")] All }
    input DescribeTaskDefinitionInput { task_definition: String, include: Option<Vec<TagsField>> }
    input DeregisterTaskDefinitionInput { task_definition: String }
    input DeleteTaskDefinitionsInput { task_definitions: Vec<String> }
    input ListTaskDefinitionsInput {
        family_prefix: Option<String>, status: Option<DefinitionStatus>, sort: Option<Sort>, next_token: Option<String>,
        max_results: Option<i32>,
    }
    input ListTaskDefinitionFamiliesInput {
        family_prefix: Option<String>, status: Option<FamilyStatus>, next_token: Option<String>, max_results: Option<i32>,
    }
    output TaskDefinitionOutput { task_definition: TaskDefinitionShape, tags: Option<Vec<Tag>> }
    output DeleteTaskDefinitionsOutput { task_definitions: Vec<TaskDefinitionShape>, failures: Vec<Failure> }
    output ListTaskDefinitionsOutput { task_definition_arns: Vec<String>, next_token: Option<String> }
    output ListTaskDefinitionFamiliesOutput { families: Vec<String>, next_token: Option<String> }
    output TaskDefinitionShape {
        task_definition_arn: String, container_definitions: Vec<ContainerDefinition>, family: String,
        task_role_arn: Option<String>, execution_role_arn: Option<String>, network_mode: Option<NetworkMode>, revision: u32,
        volumes: Vec<Volume>, status: DefinitionStatus, requires_attributes: Vec<Attribute>,
        placement_constraints: Vec<PlacementConstraint>, compatibilities: Vec<String>, runtime_platform: Option<RuntimePlatform>,
        requires_compatibilities: Option<Vec<String>>, cpu: Option<String>, memory: Option<String>, pid_mode: Option<String>,
        ipc_mode: Option<String>, registered_at: Timestamp, deregistered_at: Option<Timestamp>,
    }
}

impl Compatibility {
    fn as_str(self) -> &'static str {
        match self {
            Compatibility::Ec2 => "EC2",
            Compatibility::Fargate => "FARGATE",
            Compatibility::External => "EXTERNAL",
            Compatibility::ManagedInstances => "MANAGED_INSTANCES",
        }
    }
}

/// What `decide` refused, as the API words it.
pub fn refused(invalid: Invalid) -> Fault {
    let code = match invalid.kind {
        rules::InvalidKind::Client => &CLIENT,
        rules::InvalidKind::Parameter => &INVALID_PARAMETER,
    };
    Fault::new(code, invalid.message)
}

pub async fn register(cx: Cx, input: RegisterTaskDefinitionInput) -> Result<TaskDefinitionOutput, Fault> {
    let tags = input.tags.unwrap_or_default();
    ask::check_tags(&tags)?;
    let compatibilities = input.requires_compatibilities.unwrap_or_default();
    let family = input.family.clone();
    let draft = Draft {
        family: input.family,
        containers: input.container_definitions,
        volumes: input.volumes.unwrap_or_default(),
        network_mode: input.network_mode,
        cpu: input.cpu,
        memory: input.memory,
        placement_constraints: input.placement_constraints.unwrap_or_default(),
        requires_compatibilities: compatibilities.iter().map(|c| c.as_str().to_owned()).collect(),
        pid_mode: input.pid_mode,
        ipc_mode: input.ipc_mode,
        task_role_arn: input.task_role_arn,
        execution_role_arn: input.execution_role_arn,
        runtime_platform: input.runtime_platform,
        tags,
    };
    update(&cx, "RegisterTaskDefinition", move |tx, app| {
        // Deleted revisions stay as rows, so that a number is never given twice.
        let revision = tx.state().revisions(&family).next_back().map_or(1, |d| d.key.revision + 1);
        let definition = rules::register(draft, revision, tx.now).map_err(refused)?;
        rules::without_effect(&definition).iter().for_each(|path| app.gaps.without_effect(path));
        tx.put(definition.clone());
        let tags = (!definition.tags.is_empty()).then(|| definition.tags.clone());
        Ok(TaskDefinitionOutput { task_definition: shape(&app.home, &definition), tags })
    })
    .await
}

pub async fn describe(cx: Cx, input: DescribeTaskDefinitionInput) -> Result<TaskDefinitionOutput, Fault> {
    let state = cx.app.store.snapshot();
    let definition =
        schedule::find_definition(&state, &input.task_definition).ok_or_else(|| client("Unable to describe task definition."))?;
    let tags = wants_tags(&input.include).then(|| definition.tags.clone());
    Ok(TaskDefinitionOutput { task_definition: shape(&cx.app.home, definition), tags })
}

pub async fn deregister(cx: Cx, input: DeregisterTaskDefinitionInput) -> Result<TaskDefinitionOutput, Fault> {
    update(&cx, "DeregisterTaskDefinition", move |tx, app| {
        let mut definition = (*exactly(tx.state(), &input.task_definition)?).clone();
        if definition.status == DefinitionStatus::DeleteInProgress {
            return Err(client("The specified task definition is being deleted."));
        }
        definition.status = DefinitionStatus::Inactive;
        definition.deregistered_at = definition.deregistered_at.or(Some(tx.now));
        tx.put(definition.clone());
        Ok(TaskDefinitionOutput { task_definition: shape(&app.home, &definition), tags: None })
    })
    .await
}

/// A revision that the client names with its number.
fn exactly(state: &State, reference: &str) -> Result<Arc<TaskDefinition>, Fault> {
    let name = short_name(reference);
    let Some((_, revision)) = name.split_once(':') else {
        return Err(invalid("A task definition must be named with its revision, as family:revision or as its ARN."));
    };
    if revision.parse::<u32>().is_err() {
        return Err(invalid(format!("Invalid revision number. Number: {}", revision.chars().take(64).collect::<String>())));
    }
    schedule::find_definition(state, reference).cloned().ok_or_else(|| client("The specified task definition does not exist."))
}

/// The revision stays as DELETE_IN_PROGRESS: "existing tasks and services that reference it continue to run".
pub async fn delete(cx: Cx, input: DeleteTaskDefinitionsInput) -> Result<DeleteTaskDefinitionsOutput, Fault> {
    ask::check_batch("Task definitions", input.task_definitions.len(), 10)?;
    update(&cx, "DeleteTaskDefinitions", move |tx, app| {
        let mut output = DeleteTaskDefinitionsOutput { task_definitions: Vec::new(), failures: Vec::new() };
        for reference in &input.task_definitions {
            match delete_one(tx, reference) {
                Ok(definition) => output.task_definitions.push(shape(&app.home, &definition)),
                Err(fault) => {
                    let arn = arn_or(reference, |name| match name.split_once(':').map(|(f, r)| (f, r.parse())) {
                        Some((family, Ok(revision))) => app.home.task_definition(&DefinitionKey::new(family, revision)),
                        _ => name.to_owned(),
                    });
                    output.failures.push(Failure { arn: Some(arn), reason: fault.message, detail: None });
                }
            }
        }
        Ok(output)
    })
    .await
}

fn delete_one(tx: &mut Tx, reference: &str) -> Result<TaskDefinition, Fault> {
    let mut definition = (*exactly(tx.state(), reference)?).clone();
    if definition.status == DefinitionStatus::Active {
        let text = "The specified task definition is still in ACTIVE status. Please deregister the target and try again.";
        return Err(client(text));
    }
    definition.status = DefinitionStatus::DeleteInProgress;
    tx.put(definition.clone());
    Ok(definition)
}

pub async fn list(cx: Cx, input: ListTaskDefinitionsInput) -> Result<ListTaskDefinitionsOutput, Fault> {
    let state = cx.app.store.snapshot();
    let status = input.status.unwrap_or(DefinitionStatus::Active);
    let page = page(input.next_token, input.max_results, 100)?;
    // "familyPrefix: The full family name with which to filter".
    let (from, to) = match &input.family_prefix {
        Some(family) => (DefinitionKey::new(family, 0), DefinitionKey::new(family, u32::MAX)),
        None => (DefinitionKey::new("", 0), DefinitionKey::new(char::MAX.to_string(), u32::MAX)),
    };
    let wanted = state.definitions.range(from..=to).filter(|(_, d)| d.status == status);
    let item = |key: &DefinitionKey| (format!("{}\0{:010}", key.family, key.revision), cx.app.home.task_definition(key));
    let (task_definition_arns, next_token) = match input.sort {
        Some(Sort::Descending) => page.of_descending(wanted.rev().map(|(key, _)| item(key))),
        _ => page.of(wanted.map(|(key, _)| item(key))),
    };
    Ok(ListTaskDefinitionsOutput { task_definition_arns, next_token })
}

pub async fn families(cx: Cx, input: ListTaskDefinitionFamiliesInput) -> Result<ListTaskDefinitionFamiliesOutput, Fault> {
    let state = cx.app.store.snapshot();
    let prefix = input.family_prefix.unwrap_or_default();
    // Family and whether a revision of it is ACTIVE, in the order of the table.
    let mut found: Vec<(Arc<str>, bool)> = Vec::new();
    let from = DefinitionKey::new(&prefix, 0);
    for (key, definition) in state.definitions.range(from..).take_while(|(key, _)| key.family.starts_with(&prefix)) {
        let active = definition.status == DefinitionStatus::Active;
        match found.last_mut() {
            Some((family, any)) if *family == key.family => *any |= active,
            _ if definition.status != DefinitionStatus::DeleteInProgress => found.push((key.family.clone(), active)),
            _ => {}
        }
    }
    let wanted = found.into_iter().filter(|(_, active)| match input.status.unwrap_or(FamilyStatus::All) {
        FamilyStatus::All => true,
        FamilyStatus::Active => *active,
        FamilyStatus::Inactive => !active,
    });
    let (families, next_token) =
        page(input.next_token, input.max_results, 100)?.of(wanted.map(|(family, _)| (family.clone(), family.to_string())));
    Ok(ListTaskDefinitionFamiliesOutput { families, next_token })
}

/// A revision that new tasks may be made of.
pub fn usable(state: &State, reference: &str, inactive: fn(String) -> Fault) -> Result<Arc<TaskDefinition>, Fault> {
    let definition = schedule::find_definition(state, reference).ok_or_else(|| client("TaskDefinition not found."))?;
    match definition.status {
        DefinitionStatus::Active => Ok(definition.clone()),
        _ => Err(inactive("TaskDefinition is inactive".to_owned())),
    }
}

fn shape(home: &Home, definition: &TaskDefinition) -> TaskDefinitionShape {
    let attribute = |name: String| Attribute { name, value: None, target_type: None, target_id: None };
    TaskDefinitionShape {
        task_definition_arn: home.task_definition(&definition.key),
        container_definitions: definition.containers.clone(),
        family: definition.key.family.to_string(),
        task_role_arn: definition.task_role_arn.clone(),
        execution_role_arn: definition.execution_role_arn.clone(),
        network_mode: definition.network_mode_given.then_some(definition.network_mode),
        revision: definition.key.revision,
        volumes: definition.volumes.clone(),
        status: definition.status,
        requires_attributes: rules::required_attributes(definition).into_iter().map(|n| attribute(n.to_string())).collect(),
        placement_constraints: definition.placement_constraints.clone(),
        compatibilities: rules::compatibilities(definition).into_iter().map(|c| c.to_string()).collect(),
        runtime_platform: definition.runtime_platform.clone(),
        requires_compatibilities: Some(definition.requires_compatibilities.clone()).filter(|c| !c.is_empty()),
        cpu: definition.cpu.map(|n| n.to_string()),
        memory: definition.memory.map(|n| n.to_string()),
        pid_mode: definition.pid_mode.clone(),
        ipc_mode: definition.ipc_mode.clone(),
        registered_at: definition.registered_at,
        deregistered_at: definition.deregistered_at,
    }
}
