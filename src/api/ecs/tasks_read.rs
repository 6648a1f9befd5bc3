//! Asking for tasks.

use std::sync::Arc;

use super::ask;
use super::errors::invalid;
use super::page::page;
use super::shapes::{Failure, TagsField, arn_or, missing, wants_tags};
use super::tasks_shapes::{TaskShape, shape};
use crate::api::Cx;
use crate::model::task::{LaunchType, Task};
use crate::shapes;
use crate::wire::fault::Fault;

shapes! { "camelCase";
    input DescribeTasksInput { cluster: Option<String>, tasks: Vec<String>, include: Option<Vec<TagsField>> }
    output DescribeTasksOutput { tasks: Vec<TaskShape>, failures: Vec<Failure> }
    input ListTasksInput {
        cluster: Option<String>, container_instance: Option<String>, family: Option<String>, next_token: Option<String>,
        max_results: Option<i32>, started_by: Option<String>, service_name: Option<String>, desired_status: Option<DesiredStatus>,
        launch_type: Option<LaunchType>,
    }
    values DesiredStatus {
        #[serde(rename = "RUNNING")] Running, #[serde(rename = "PENDING")] Pending, #[serde(rename = "STOPPED")] Stopped,
    }
    output ListTasksOutput { task_arns: Vec<String>, next_token: Option<String> }
}

pub async fn describe(cx: Cx, input: DescribeTasksInput) -> Result<DescribeTasksOutput, Fault> {
    ask::check_batch("Tasks", input.tasks.len(), 100)?;
    let state = cx.app.store.snapshot();
    let cluster = &ask::cluster(&state, input.cluster.as_deref())?.name;
    let mut output = DescribeTasksOutput { tasks: Vec::new(), failures: Vec::new() };
    for reference in &input.tasks {
        match ask::task(&state, cluster, reference)? {
            Some(task) => output.tasks.push(shape(&state, &cx.app.home, task, wants_tags(&input.include))),
            None => output.failures.push(missing(arn_or(reference, |id| cx.app.home.task(cluster, &id.into())))),
        }
    }
    Ok(output)
}

pub async fn list(cx: Cx, input: ListTasksInput) -> Result<ListTasksOutput, Fault> {
    let others = [&input.family, &input.service_name, &input.container_instance];
    // "When you specify startedBy as the filter, it must be the only filter that you use."
    if input.started_by.is_some() && others.iter().any(|o| o.is_some()) {
        return Err(invalid("startedBy must be the only filter that is used."));
    }
    let state = cx.app.store.snapshot();
    let cluster = &ask::cluster(&state, input.cluster.as_deref())?.name;
    let service = input.service_name.as_deref().map(|s| ask::service(&state, cluster, s)).transpose()?;
    let instance = match input.container_instance.as_deref() {
        Some(reference) => Some(
            ask::instance(&state, cluster, reference, true)?
                .ok_or_else(|| invalid("The referenced container instance was not found."))?,
        ),
        None => None,
    };
    // The narrowest index first; every one of them is in the order of the tasks' ids.
    let tasks: Box<dyn Iterator<Item = &Arc<Task>>> = match (service, instance) {
        (Some(service), _) => Box::new(state.tasks_of_service(&service.key)),
        (None, Some(instance)) => Box::new(state.tasks_of_instance(&instance.id)),
        (None, None) => Box::new(state.tasks_of_cluster(cluster)),
    };
    // "Although you can filter results based on a desired status of PENDING, this doesn't return any results."
    let stopping = match input.desired_status.unwrap_or(DesiredStatus::Running) {
        DesiredStatus::Running => Some(false),
        DesiredStatus::Stopped => Some(true),
        DesiredStatus::Pending => None,
    };
    let wanted = tasks.filter(|task| {
        stopping == Some(task.is_stopping())
            && task.cluster == *cluster
            && instance.is_none_or(|i| task.instance == i.id)
            && input.family.as_deref().is_none_or(|f| &*task.definition.family == f)
            && input.started_by.as_ref().is_none_or(|s| task.started_by.as_ref() == Some(s))
            && input.launch_type.is_none_or(|l| task.launch_type == l)
    });
    let (task_arns, next_token) =
        page(input.next_token, input.max_results, 100)?.of(wanted.map(|t| (t.id.as_str(), cx.app.home.task(cluster, &t.id))));
    Ok(ListTasksOutput { task_arns, next_token })
}
