//! What an agent does next for one task: order of start and stop, dependencies, essential containers, restarts. Runs on the agent,
//! without the control plane.
//!
//! Start reading at [`next`]: an assignment and what is known of its containers go in, steps and the moment to ask again come out.
//! The caller marks a container [`Known::busy`] while a step of it is in flight; no second step is given for it until then.

use crate::model::definition::{ContainerDefinition, NetworkMode, RestartPolicy};
use crate::model::link::{Assignment, ContainerReport, Ending, Phase, TaskReport};
use crate::model::task::{Binding, Health};
use crate::model::{Millis, Timestamp};

/// The container that holds an awsvpc task's network namespace, by the ECS agent's name.
pub const PAUSE: &str = "~internal~ecs~pause";
/// ECS_CONTAINER_STOP_TIMEOUT's default.
pub const STOP_TIMEOUT_MS: Millis = 30_000;
/// restartAttemptPeriod's default.
const RESTART_PERIOD_MS: Millis = 300_000;
/// How long a finished task's containers stay after its last report went out, so that a report lost on its way can be made again
/// from the containers even by a restarted agent. Less when the control plane forgets the task.
pub const KEEP_REPORTED_MS: Millis = 10_000;
/// And how long when nobody can be told (ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION's default).
pub const KEEP_UNREPORTED_MS: Millis = 3 * 3_600_000;

/// What is known of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Used by awsvpc tasks only.
    pub pause: Known,
    /// Parallel to the assignment's.
    pub containers: Vec<Known>,
    /// Why the task ends: kept from the first time that [`next`] says so.
    pub ending: Option<Ending>,
    pub finished_at: Option<Timestamp>,
    /// When the report that it finished was handed to the control plane.
    pub reported_at: Option<Timestamp>,
    /// The control plane wants no more of the task: stop it, remove it.
    pub forgotten: bool,
    pub cleaning: bool,
    pub cleaned: bool,
    pub address: Option<String>,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
}

/// What is known of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    pub phase: Phase,
    /// The step in flight.
    pub busy: Option<Work>,
    pub pulled: bool,
    pub image_digest: Option<String>,
    pub runtime_id: Option<String>,
    /// Of the last start or restart.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: Option<i32>,
    pub health: Health,
    pub restart_count: u32,
    pub bindings: Vec<Binding>,
    /// Its own, of the last start, and the task network that it is on.
    pub address: Option<String>,
    pub network: Option<String>,
    /// Could not be pulled, created or started: `reason` says why, and it will not be tried again.
    pub failed: bool,
    pub reason: Option<String>,
    pub removed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Pull,
    Create,
    Start,
    Restart,
    Stop,
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    Pause,
    /// By its place in the assignment.
    At(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Pull(usize),
    /// Have the task's network namespace made.
    Pause,
    Create(usize),
    Start(usize),
    /// Start the same ended container again.
    Restart(usize),
    Stop {
        which: Which,
        grace_ms: Millis,
    },
    Remove(Which),
    /// What belongs to the task as a whole.
    CleanUp,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Next {
    pub steps: Vec<Step>,
    /// When the answer changes though nothing else does.
    pub wake_at: Option<Timestamp>,
    pub ending: Option<Ending>,
    /// Containers that will never start, and why, in their own words.
    pub hopeless: Vec<(usize, String)>,
    /// Nothing of the task runs any more, nor will.
    pub finished: bool,
    /// Finished, removed and cleaned up: nothing is left to do.
    pub done: bool,
}

/// Whether what one container waits for holds.
enum Dependency {
    Holds,
    /// Perhaps until a moment.
    NotYet(Option<Timestamp>),
    Never(String),
}

pub fn next(task: &Assignment, state: &State, now: Timestamp) -> Next {
    let mut next = Next::default();
    next.ending = state.ending.clone().or_else(|| ending(task, state, now, &mut next));
    if next.ending.is_none() {
        go_on(task, state, now, &mut next);
        return next;
    }
    next.finished = wind_down(task, state, &mut next.steps);
    if next.finished {
        dispose(task, state, now, &mut next);
    }
    next
}

/// The first reason to end the task, in the order in which causes come before their effects.
fn ending(task: &Assignment, state: &State, now: Timestamp, next: &mut Next) -> Option<Ending> {
    if !task.run || state.forgotten {
        return Some(Ending::Asked);
    }
    if task.network_mode == NetworkMode::Awsvpc {
        if state.pause.failed {
            return Some(Ending::FailedToStart { error: reason_of(&state.pause) });
        }
        if state.pause.phase == Phase::Stopped {
            return Some(Ending::PauseExited);
        }
    }
    if let Some((_, known)) = essentials(task, state).find(|(_, k)| k.failed && k.started_at.is_none()) {
        return Some(Ending::FailedToStart { error: reason_of(known) });
    }
    // "When an essential container stops for any reason, all others are stopped" (ContainerDefinition, essential).
    let exited = essentials(task, state)
        .filter(|(definition, known)| ended(definition, known))
        .min_by_key(|(_, known)| known.finished_at.unwrap_or(now));
    if let Some((definition, known)) = exited {
        return Some(Ending::EssentialExited {
            container: definition.name.as_str().into(),
            at: known.finished_at.unwrap_or(now),
        });
    }
    for (index, known) in state.containers.iter().enumerate() {
        if starts_later(known)
            && let Dependency::Never(error) = dependencies(task, state, index, now)
        {
            next.hopeless.push((index, error));
        }
    }
    next.hopeless.first().map(|(_, error)| Ending::FailedToStart { error: error.clone() })
}

fn essentials<'a>(task: &'a Assignment, state: &'a State) -> impl Iterator<Item = (&'a ContainerDefinition, &'a Known)> {
    task.containers.iter().zip(&state.containers).filter(|(definition, _)| definition.is_essential())
}

fn reason_of(known: &Known) -> String {
    known.reason.clone().unwrap_or_else(|| "CannotStartContainerError: unknown".into())
}

/// Neither started nor beyond hope of it.
fn starts_later(known: &Known) -> bool {
    known.phase < Phase::Running && !known.failed && !matches!(known.busy, Some(Work::Start))
}

/// Ended for good: no restart is due.
fn ended(definition: &ContainerDefinition, known: &Known) -> bool {
    known.phase == Phase::Stopped && known.busy != Some(Work::Restart) && !restarts(definition.restart_policy.as_ref(), known)
}

/// Whether an ended container is started again: not without an exit code, not for an ignored one, and not when it ran for less than
/// the period since its last start (ContainerRestartPolicy). Exit code 0 is no exception.
pub fn restarts(policy: Option<&RestartPolicy>, known: &Known) -> bool {
    let Some(policy) = policy.filter(|p| p.enabled) else { return false };
    let (Some(exit_code), Some(started), Some(finished)) = (known.exit_code, known.started_at, known.finished_at) else {
        return false;
    };
    let period = policy.restart_attempt_period.map_or(RESTART_PERIOD_MS, |s| Millis::from(s) * 1000);
    let ignored = policy.ignored_exit_codes.as_ref().is_some_and(|codes| codes.contains(&exit_code));
    known.phase == Phase::Stopped && !known.failed && !ignored && finished.since(started) >= period
}

fn go_on(task: &Assignment, state: &State, now: Timestamp, next: &mut Next) {
    let own_network = task.network_mode == NetworkMode::Awsvpc;
    if own_network && state.pause.phase < Phase::Running && state.pause.busy.is_none() {
        next.steps.push(Step::Pause);
    }
    let network_ready = !own_network || state.pause.phase == Phase::Running;
    for (index, (definition, known)) in task.containers.iter().zip(&state.containers).enumerate() {
        if known.busy.is_some() || known.failed {
            continue;
        }
        if known.phase == Phase::Stopped && restarts(definition.restart_policy.as_ref(), known) {
            next.steps.push(Step::Restart(index));
        }
        if known.phase >= Phase::Running {
            continue;
        }
        // The ECS agent holds back even the pull (ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT is off by default).
        match dependencies(task, state, index, now) {
            Dependency::Holds => {}
            Dependency::NotYet(until) => {
                next.wake_at = earlier(next.wake_at, until);
                continue;
            }
            Dependency::Never(_) => continue,
        }
        match known.phase {
            Phase::Created => next.steps.push(Step::Start(index)),
            _ if !known.pulled => next.steps.push(Step::Pull(index)),
            _ if network_ready && sources_exist(task, state, definition) => next.steps.push(Step::Create(index)),
            _ => {}
        }
    }
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

/// Docker copies mounts at creation, so the containers named by volumesFrom must be there.
fn sources_exist(task: &Assignment, state: &State, definition: &ContainerDefinition) -> bool {
    definition
        .volumes_from
        .iter()
        .flatten()
        .filter_map(|from| from.source_container.as_deref().and_then(|name| place_of(task, name)))
        .all(|source| state.containers[source].runtime_id.is_some() || state.containers[source].failed)
}

fn place_of(task: &Assignment, name: &str) -> Option<usize> {
    task.containers.iter().position(|c| c.name == name)
}

/// All of a container's dependencies together: one that can never hold outweighs one that does not hold yet.
fn dependencies(task: &Assignment, state: &State, index: usize, now: Timestamp) -> Dependency {
    let target = &task.containers[index].name;
    let mut waiting = None;
    for dependency in task.containers[index].depends_on.iter().flatten() {
        let Some(on) = place_of(task, &dependency.container_name) else { continue };
        match holds(&dependency.condition, target, &task.containers[on], &state.containers[on], now) {
            Dependency::Holds => {}
            Dependency::NotYet(until) => waiting = Some(earlier(waiting.flatten(), until)),
            never => return never,
        }
    }
    // A task's shared PID or IPC namespace is its first container's: whoever joins it needs it running.
    let shared = [&task.pid_mode, &task.ipc_mode].iter().any(|mode| mode.as_deref() == Some("task"));
    if shared && index > 0 && task.network_mode != NetworkMode::Awsvpc {
        let first = &state.containers[0];
        if first.failed && first.started_at.is_none() {
            return Dependency::Never(never_starts(&task.containers[0].name, target));
        }
        if first.phase < Phase::Running && !depends_on(&task.containers[0], target) {
            waiting = Some(waiting.flatten());
        }
    }
    waiting.map_or(Dependency::Holds, Dependency::NotYet)
}

fn holds(condition: &str, target: &str, on: &ContainerDefinition, known: &Known, now: Timestamp) -> Dependency {
    if known.failed && known.started_at.is_none() {
        return Dependency::Never(never_starts(&on.name, target));
    }
    let is_over = ended(on, known);
    let holds = match condition {
        "COMPLETE" => is_over,
        "SUCCESS" => is_over && known.exit_code == Some(0),
        "HEALTHY" => known.phase == Phase::Running && known.health == Health::Healthy,
        // Met as well by one that ran and stopped already.
        _ => known.phase >= Phase::Running,
    };
    if holds {
        return Dependency::Holds;
    }
    if is_over {
        let what = if condition == "SUCCESS" { "exit successfully" } else { "become healthy" };
        return Dependency::Never(format!(
            "TaskDependencyError: dependency graph: failed to resolve the container ordering dependency [{}] for target [{target}] as dependency did not {what}.",
            on.name
        ));
    }
    // startTimeout is the dependency's, counted from its start; START never times out (ContainerDefinition, startTimeout).
    let timed = matches!(condition, "COMPLETE" | "SUCCESS" | "HEALTHY");
    let until = match (timed, known.started_at, on.start_timeout) {
        (true, Some(started), Some(seconds)) => Some(started + Millis::from(seconds) * 1000),
        _ => None,
    };
    if until.is_some_and(|until| now >= until) {
        return Dependency::Never(format!(
            "TaskDependencyError: dependency graph: container ordering dependency [{}] for target [{target}] has timed out.",
            on.name
        ));
    }
    Dependency::NotYet(until)
}

fn never_starts(on: &str, target: &str) -> String {
    format!(
        "TaskDependencyError: dependency graph: failed to resolve the container ordering dependency [{on}] for target [{target}] as dependency will never start."
    )
}

/// Stops what runs, dependants before what they depend on, the pause last. True when nothing runs any more.
fn wind_down(task: &Assignment, state: &State, steps: &mut Vec<Step>) -> bool {
    let live: Vec<usize> = (0..state.containers.len()).filter(|i| is_live(&state.containers[*i])).collect();
    if live.is_empty() {
        let pause = &state.pause;
        if pause.phase == Phase::Running && pause.busy.is_none() {
            steps.push(Step::Stop { which: Which::Pause, grace_ms: STOP_TIMEOUT_MS });
        }
        return !is_live(pause);
    }
    let idle: Vec<usize> = live.iter().copied().filter(|i| state.containers[*i].busy.is_none()).collect();
    let mut stop: Vec<usize> = idle.iter().copied().filter(|on| !live.iter().any(|i| needs(task, *i, *on))).collect();
    // Registration refuses cycles; should one be here all the same, order yields to ending.
    if stop.is_empty() && idle.len() == live.len() {
        stop = idle;
    }
    steps.extend(stop.into_iter().map(|index| Step::Stop {
        which: Which::At(index),
        grace_ms: task.containers[index].stop_timeout.map_or(STOP_TIMEOUT_MS, |s| Millis::from(s) * 1000),
    }));
    false
}

/// Runs, or may do so by a step in flight. A pull is given up, not waited for.
fn is_live(known: &Known) -> bool {
    known.phase == Phase::Running || matches!(known.busy, Some(Work::Create | Work::Start | Work::Restart | Work::Stop))
}

fn needs(task: &Assignment, index: usize, on: usize) -> bool {
    index != on && depends_on(&task.containers[index], &task.containers[on].name)
}

fn depends_on(definition: &ContainerDefinition, name: &str) -> bool {
    definition.depends_on.iter().flatten().any(|d| d.container_name == name)
}

/// Removes what a finished task leaves, once its last report was made.
fn dispose(task: &Assignment, state: &State, now: Timestamp, next: &mut Next) {
    let finished_at = state.finished_at.unwrap_or(now);
    let due = if state.forgotten {
        now
    } else {
        state.reported_at.map_or(finished_at + KEEP_UNREPORTED_MS, |at| at + KEEP_REPORTED_MS)
    };
    if now < due {
        next.wake_at = Some(due);
        return;
    }
    let left = |known: &Known| known.runtime_id.is_some() && !known.removed;
    let mut remaining = false;
    for (index, known) in state.containers.iter().enumerate().filter(|(_, k)| left(k)) {
        remaining = true;
        if known.busy.is_none() {
            next.steps.push(Step::Remove(Which::At(index)));
        }
    }
    if !remaining && task.network_mode == NetworkMode::Awsvpc && left(&state.pause) {
        remaining = true;
        if state.pause.busy.is_none() {
            next.steps.push(Step::Remove(Which::Pause));
        }
    }
    if !remaining && !state.cleaned && !state.cleaning {
        next.steps.push(Step::CleanUp);
    }
    next.done = !remaining && state.cleaned;
}

/// How the task stands, in the words of the link.
pub fn report(task: &Assignment, state: &State, now: Timestamp) -> TaskReport {
    let finished = state.finished_at.is_some();
    let containers = task.containers.iter().zip(&state.containers).map(|(definition, known)| {
        // A restart under a policy is not seen from outside: the container stays RUNNING (ContainerRestartPolicy).
        let restarting =
            known.busy == Some(Work::Restart) || (state.ending.is_none() && restarts(definition.restart_policy.as_ref(), known));
        let phase = match known.phase {
            _ if finished || known.failed => Phase::Stopped,
            Phase::Stopped if restarting => Phase::Running,
            Phase::Waiting if known.busy == Some(Work::Pull) => Phase::Pulling,
            phase => phase,
        };
        let stopped = phase == Phase::Stopped;
        ContainerReport {
            name: definition.name.as_str().into(),
            phase,
            runtime_id: known.runtime_id.clone(),
            image_digest: known.image_digest.clone(),
            started_at: known.started_at,
            finished_at: known.finished_at.filter(|_| stopped),
            exit_code: known.exit_code.filter(|_| stopped),
            reason: known.reason.as_deref().filter(|_| stopped).map(shortened),
            health: known.health,
            bindings: known.bindings.clone(),
            // What shares the pause container's network has no address beside the task's.
            address: known.address.clone().filter(|_| task.network_mode != NetworkMode::Awsvpc),
            network: known.network.clone(),
            restart_count: known.restart_count,
        }
    });
    TaskReport {
        task: task.task.clone(),
        containers: containers.collect(),
        address: state.address.clone(),
        pull_started_at: state.pull_started_at,
        pull_stopped_at: state.pull_stopped_at,
        ending: state.ending.clone(),
        finished,
        at: now,
    }
}

/// Reasons are cut to 1,024 characters, as the ECS agent does.
fn shortened(reason: &str) -> String {
    reason.chars().take(1024).collect()
}

#[cfg(test)]
mod tests;
