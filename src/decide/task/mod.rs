//! A task's status from its containers', and what its agent's reports mean. Must never take a task backwards: reports come late,
//! twice and out of order, and carry no number by which an older one is known, so every fact here only ever moves forward.
//!
//! Forward means, per container, (restarts, PENDING < RUNNING < STOPPED); per task, the order of [`TaskStatus`]. Health alone may
//! move both ways. A report that says less of a container than is known is older and is not believed about that container.

use crate::model::Timestamp;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::definition::{ContainerDefinition, NetworkMode, TaskDefinition};
use crate::model::link::{ContainerReport, Ending, Phase, TaskReport};
use crate::model::task::{Container, Health, StopCode, Task, TaskStatus};

#[cfg(test)]
mod tests;

/// A container killed for its memory (agent/dockerclient/dockerapi); the task's own reason does not speak of it.
pub const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";
pub const ESSENTIAL_EXITED: &str = "Essential container in task exited";
pub const FAILED_TO_START: &str = "Task failed to start";

/// ECS cuts container and task reasons to this many characters (ecs-agent/api/ecs/client).
const REASON_MAX_CHARS: usize = 1_024;
/// And runtime ids and image digests to this many.
const ID_MAX_CHARS: usize = 255;

/// What a report changes: the task as it now is, and the reasons worth remembering. None: nothing.
pub fn apply_report(
    task: &Task,
    definition: &TaskDefinition,
    report: &TaskReport,
    now: Timestamp,
) -> Option<(Task, Vec<Reason>)> {
    if task.is_stopped() {
        return None;
    }
    let mut next = task.clone();
    let mut reasons = Vec::new();

    for container in &mut next.containers {
        let told = report.containers.iter().find(|r| r.name == container.name);
        let defined = definition.container(container.name.as_str());
        if let Some(told) = told {
            reasons.extend(apply_container(container, defined, told));
        }
        if report.finished {
            container.last_status = TaskStatus::Stopped;
        }
    }
    next.health = task_health(&next, definition);
    // Only awsvpc gives a task an address of its own; what a bridge container has is Docker's affair.
    if definition.network_mode == NetworkMode::Awsvpc {
        next.address = report.address.clone().or(next.address);
    }
    next.pull_started_at = next.pull_started_at.or(report.pull_started_at);
    // The last pull ends the pulling, and an older report knows an earlier one. Nothing is pulled once the task has started: what is
    // said later is the same moment, put right for another difference of the clocks.
    if next.started_at.is_none() || next.pull_stopped_at.is_none() {
        next.pull_stopped_at = next.pull_stopped_at.max(report.pull_stopped_at);
    }

    if next.started_at.is_none() && (report.finished || report.ending.is_some()) {
        next.started_at = ran_unseen(&next, report, now);
    }
    if let Some((code, text, reason)) = why_it_ends(&next, definition, report) {
        if let Some(Ending::FailedToStart { error }) = &report.ending {
            keep_start_error(&mut next, definition, error);
        }
        next.desired_status = TaskStatus::Stopped;
        next.stopping_at = next.stopping_at.or(Some(now));
        next.stop_code = Some(code);
        next.stopped_reason = Some(text);
        reasons.push(reason);
    }

    next.last_status = next.last_status.max(task_status(&next, definition, report));
    // Our own clock, not the agent's: health, grace periods and `wake_at` are counted from it.
    if next.last_status == TaskStatus::Running && next.started_at.is_none() {
        next.started_at = Some(now);
        reasons.push(running_reason(&next, now));
    }
    if next.is_stopping() && next.execution_stopped_at.is_none() {
        next.execution_stopped_at = first_essential_end(definition, report).map(|end| end.min(now));
    }
    if next.is_stopped() {
        next.stopped_at = Some(now);
        reasons.push(stopped_reason(&next, now));
    }
    if next == *task {
        return None;
    }
    if visible(&next) != visible(task) {
        next.version += 1;
    }
    Some((next, reasons))
}

/// The task with its end asked for. None if that was done before.
pub fn ask_to_stop(task: &Task, code: StopCode, text: &str, now: Timestamp) -> Option<Task> {
    if task.is_stopping() || task.is_stopped() {
        return None;
    }
    Some(Task {
        desired_status: TaskStatus::Stopped,
        stop_code: Some(code),
        stopped_reason: Some(cut(text, REASON_MAX_CHARS)),
        stopping_at: Some(now),
        version: task.version + 1,
        ..task.clone()
    })
}

/// The task STOPPED without its agent's word: its instance is gone. An end asked for earlier keeps its code and reason. When its
/// containers ended, and how, nobody saw: no exit code and no executionStoppedAt is made up.
pub fn give_up(task: &Task, code: StopCode, text: &str, now: Timestamp) -> Task {
    if task.is_stopped() {
        return task.clone();
    }
    let mut next = ask_to_stop(task, code, text, now).unwrap_or_else(|| task.clone());
    for container in &mut next.containers {
        if container.last_status != TaskStatus::Stopped {
            container.last_status = TaskStatus::Stopped;
            container.health = Health::Unknown;
            container.reason.get_or_insert_with(|| cut(text, REASON_MAX_CHARS));
        }
    }
    next.health = Health::Unknown;
    next.last_status = TaskStatus::Stopped;
    next.stopped_at = Some(now);
    next.version = task.version + 1;
    next
}

/// Whether a task is a failure for its deployment: it ended by itself without ever having been RUNNING. Tasks that
/// somebody stopped while they were PENDING do not count, nor do tasks that ran and then exited ("Service throttle logic").
pub fn never_ran(task: &Task) -> bool {
    let by_itself = matches!(task.stop_code, Some(StopCode::TaskFailedToStart | StopCode::EssentialContainerExited));
    task.is_stopping() && task.started_at.is_none() && by_itself
}

/// Takes over what a report says of one container, unless the report is older than what is known.
fn apply_container(container: &mut Container, defined: Option<&ContainerDefinition>, told: &ContainerReport) -> Option<Reason> {
    if told.restart_count < container.restart_count {
        return None;
    }
    let restarted = told.restart_count > container.restart_count;
    let status = match told.phase {
        Phase::Waiting | Phase::Pulling | Phase::Created => TaskStatus::Pending,
        Phase::Running => TaskStatus::Running,
        Phase::Stopped => TaskStatus::Stopped,
    };
    if !restarted && status < container.last_status {
        return None;
    }
    // A restart by policy is no state change: to clients the container stays RUNNING (agent/engine/task_manager.go).
    let status = if restarted { status.max(TaskStatus::Running) } else { status };
    let first_word_of_its_end = restarted || container.last_status != TaskStatus::Stopped;

    container.last_status = status;
    container.restart_count = told.restart_count;
    // One run starts once: said again after a reconnect, its time may only have been put right for another difference of the clocks.
    if restarted || container.started_at.is_none() {
        container.started_at = told.started_at.or(container.started_at);
    }
    container.health = if has_health_check(defined) { told.health } else { Health::Unknown };
    if let Some(id) = &told.runtime_id {
        container.runtime_id = Some(cut(id, ID_MAX_CHARS).into());
    }
    if let Some(digest) = &told.image_digest {
        container.image_digest = Some(cut(digest, ID_MAX_CHARS).into());
    }
    if status >= TaskStatus::Running && !told.bindings.is_empty() {
        container.bindings = told.bindings.clone();
    }
    if status >= TaskStatus::Running && told.address.is_some() {
        container.address = told.address.as_deref().map(|address| cut(address, ID_MAX_CHARS));
        container.network = told.network.as_deref().map(|network| cut(network, ID_MAX_CHARS).into());
    }
    if restarted {
        container.exit_code = None;
        container.reason = None;
    }
    if status == TaskStatus::Stopped && first_word_of_its_end {
        // A process that never started has no exit code, whatever Docker writes there (ecs-agent/api/ecs/client).
        container.exit_code = told.started_at.and(told.exit_code);
    }
    if let Some(reason) = &told.reason
        && (first_word_of_its_end || container.reason.is_none())
    {
        let reason = if reason.starts_with("OutOfMemoryError") { OUT_OF_MEMORY } else { reason };
        container.reason = Some(cut(reason, REASON_MAX_CHARS));
    }
    restarted.then(|| {
        let sentence = format!("container {} was restarted by its restart policy", told.name);
        Reason::new(ReasonCode::Restarted, sentence)
            .with("container", told.name.as_str())
            .with("restart_count", told.restart_count)
    })
}

/// UNHEALTHY before UNKNOWN before HEALTHY, over essential containers (API reference, HealthCheck). One of them without a health
/// check is UNKNOWN, and so the task is.
fn task_health(task: &Task, definition: &TaskDefinition) -> Health {
    let mut health = None;
    for container in essential(task, definition) {
        health = Some(match (health, container.health) {
            (Some(Health::Unhealthy), _) | (_, Health::Unhealthy) => Health::Unhealthy,
            (Some(Health::Unknown), _) | (_, Health::Unknown) => Health::Unknown,
            _ => Health::Healthy,
        });
    }
    health.unwrap_or(Health::Unknown)
}

fn task_status(task: &Task, definition: &TaskDefinition, report: &TaskReport) -> TaskStatus {
    if report.finished {
        return TaskStatus::Stopped;
    }
    if task.is_stopping() {
        return TaskStatus::Stopping;
    }
    // STOPPED sorts above RUNNING for the agent, so a finished non-essential container does not hold the task back
    // (agent/api/task/task.go updateTaskKnownStatus).
    let up = |c: &Container| match c.last_status {
        TaskStatus::Running => true,
        TaskStatus::Stopped => !is_essential(definition, c),
        _ => false,
    };
    if task.containers.iter().all(up) { TaskStatus::Running } else { TaskStatus::Pending }
}

/// The stop code and reason of a task that ends by itself. None: it does not end, or its end was asked for before and keeps its
/// code and reason.
fn why_it_ends(task: &Task, definition: &TaskDefinition, report: &TaskReport) -> Option<(StopCode, String, Reason)> {
    if task.is_stopping() {
        return None;
    }
    let ran = task.started_at.is_some();
    let ended = match &report.ending {
        Some(Ending::EssentialExited { container, at }) => {
            let facts = task.containers.iter().find(|c| c.name == *container);
            let exit_code = facts.and_then(|c| c.exit_code);
            let sentence = match (exit_code, facts.and_then(|c| c.reason.as_deref())) {
                (Some(code), Some(why)) => format!("essential container {container} exited with {code}: {why}"),
                (Some(code), None) => format!("essential container {container} exited with {code}"),
                (None, Some(why)) => format!("essential container {container} ended: {why}"),
                (None, None) => format!("essential container {container} ended"),
            };
            let reason = Reason::new(ReasonCode::EssentialExited, sentence)
                .with("container", container.as_str())
                .with("exit_code", exit_code)
                .with("exited_at", at.iso());
            (StopCode::EssentialContainerExited, ESSENTIAL_EXITED.to_owned(), reason)
        }
        // ECS on EC2 keeps the task's reason short and the detail in the container's.
        Some(Ending::FailedToStart { error }) => {
            let reason = Reason::new(ReasonCode::FailedToStart, format!("the task could not start: {error}"))
                .with("error", error.as_str())
                .with("pull_started_at", task.pull_started_at.map(Timestamp::iso));
            (StopCode::TaskFailedToStart, FAILED_TO_START.to_owned(), reason)
        }
        // To the ECS agent the pause container is an essential container like any other, hence the code; which of AWS's two texts
        // fits depends on whether the task ran. The pause container is hidden from clients, so the text has to name it.
        Some(Ending::PauseExited) => {
            let (code, text) = match ran {
                true => (StopCode::EssentialContainerExited, ESSENTIAL_EXITED),
                false => (StopCode::TaskFailedToStart, FAILED_TO_START),
            };
            let sentence = "the task's pause container exited, and with it the task's network";
            let reason = Reason::new(ReasonCode::PauseExited, sentence).with("had_run", ran);
            (code, format!("{text}: pause container exited"), reason)
        }
        // An agent that finished a task without having been asked in our memory: the containers tell what happened.
        Some(Ending::Asked) | None if report.finished => {
            let exited = essential(task, definition).find(|c| c.exit_code.is_some());
            let (code, text) = match exited {
                Some(_) => (StopCode::EssentialContainerExited, ESSENTIAL_EXITED),
                None => (StopCode::TaskFailedToStart, FAILED_TO_START),
            };
            let sentence = "the agent reports the task as finished and gives no cause";
            let reason = Reason::new(ReasonCode::TaskStopped, sentence)
                .with("container", exited.map(|c| c.name.as_str()))
                .with("exit_code", exited.and_then(|c| c.exit_code));
            (code, text.to_owned(), reason)
        }
        Some(Ending::Asked) | None => return None,
    };
    Some(ended)
}

/// A start error that no container tells of would be lost to clients: the first essential container that never started tells it.
fn keep_start_error(task: &mut Task, definition: &TaskDefinition, error: &str) {
    if task.containers.iter().any(|c| c.reason.is_some()) {
        return;
    }
    let never_started = |c: &Container| c.exit_code.is_none() && c.last_status != TaskStatus::Running;
    let place = task
        .containers
        .iter()
        .position(|c| never_started(c) && is_essential(definition, c))
        .or_else(|| task.containers.iter().position(never_started));
    if let Some(container) = place.and_then(|i| task.containers.get_mut(i)) {
        container.reason = Some(cut(error, REASON_MAX_CHARS));
    }
}

/// Only the newest report of a task counts, so a task that runs for a moment may never be seen RUNNING. If every process started,
/// it was, and startedAt says so.
fn ran_unseen(task: &Task, report: &TaskReport, now: Timestamp) -> Option<Timestamp> {
    let started = |c: &Container| report.containers.iter().find(|r| r.name == c.name).and_then(|r| r.started_at);
    let all: Option<Vec<Timestamp>> = task.containers.iter().map(started).collect();
    all?.into_iter().max().map(|last| last.max(task.created_at).min(now))
}

fn first_essential_end(definition: &TaskDefinition, report: &TaskReport) -> Option<Timestamp> {
    let essential = |r: &&ContainerReport| definition.container(r.name.as_str()).is_none_or(|d| d.is_essential());
    report.containers.iter().filter(essential).filter(|r| r.phase == Phase::Stopped).filter_map(|r| r.finished_at).min()
}

fn running_reason(task: &Task, now: Timestamp) -> Reason {
    let took = now.since(task.created_at);
    let pull = task.pull_started_at.zip(task.pull_stopped_at).map(|(from, to)| to.since(from));
    Reason::new(ReasonCode::TaskRunning, format!("every container runs, {:.1} s after the task was created", took as f64 / 1e3))
        .with("instance", task.instance.as_str())
        .with("after_ms", took)
        .with("pull_ms", pull)
}

fn stopped_reason(task: &Task, now: Timestamp) -> Reason {
    let mut codes = serde_json::Map::new();
    let mut why = serde_json::Map::new();
    for container in &task.containers {
        codes.insert(container.name.to_string(), container.exit_code.into());
        if let Some(reason) = &container.reason {
            why.insert(container.name.to_string(), reason.as_str().into());
        }
    }
    let text = task.stopped_reason.as_deref().unwrap_or("no reason known");
    Reason::new(ReasonCode::TaskStopped, format!("every container has ended: {text}"))
        .with("stop_code", task.stop_code.map(StopCode::as_str))
        .with("exit_codes", codes)
        .with("container_reasons", why)
        .with("ran_ms", task.started_at.map(|t| now.since(t)))
        .with("stopping_ms", task.stopping_at.map(|t| now.since(t)))
}

/// The task without what DescribeTasks does not show: a restart is no event and raises no version.
fn visible(task: &Task) -> Task {
    let mut seen = task.clone();
    for container in &mut seen.containers {
        container.restart_count = 0;
        container.started_at = None;
        // ECS shows no address of a bridge container, nor do we where neighbours could not use it.
        if container.network.is_none() {
            container.address = None;
        }
    }
    seen
}

fn essential<'a>(task: &'a Task, definition: &'a TaskDefinition) -> impl Iterator<Item = &'a Container> {
    task.containers.iter().filter(|c| is_essential(definition, c))
}

fn is_essential(definition: &TaskDefinition, container: &Container) -> bool {
    definition.container(container.name.as_str()).is_none_or(ContainerDefinition::is_essential)
}

/// A HEALTHCHECK of the image counts only if the task definition names one too, and NONE switches it off (API reference, HealthCheck).
pub fn has_health_check(defined: Option<&ContainerDefinition>) -> bool {
    let check = defined.and_then(|d| d.health_check.as_ref());
    check.is_some_and(|c| c.command.first().is_some_and(|word| word != "NONE"))
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}
