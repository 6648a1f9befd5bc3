use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::definition::{DefinitionStatus, HealthCheck};
use crate::model::task::{Binding, Origin};
use crate::model::{DefinitionKey, TaskId};

const NOW: Timestamp = Timestamp(50_000);
const LATER: Timestamp = Timestamp(90_000);

/// `app` is essential, `side` is not; both have a health check unless `checked` is false.
fn definition(checked: bool) -> TaskDefinition {
    let check = HealthCheck { command: vec!["CMD".into(), "true".into()], ..HealthCheck::default() };
    let container = |name: &str, essential| ContainerDefinition {
        name: name.to_owned(),
        essential: Some(essential),
        health_check: checked.then(|| check.clone()),
        ..ContainerDefinition::default()
    };
    TaskDefinition {
        key: DefinitionKey::new("web", 1),
        status: DefinitionStatus::Active,
        containers: vec![container("app", true), container("side", false)],
        volumes: vec![],
        network_mode: NetworkMode::Bridge,
        network_mode_given: false,
        cpu: None,
        memory: None,
        placement_constraints: vec![],
        requires_compatibilities: vec![],
        pid_mode: None,
        ipc_mode: None,
        task_role_arn: None,
        execution_role_arn: None,
        runtime_platform: None,
        tags: vec![],
        registered_at: Timestamp::ZERO,
        deregistered_at: None,
    }
}

fn fresh() -> Task {
    let mut origin = Origin::new("c".into(), DefinitionKey::new("web", 1));
    origin.group = "service:web".to_owned();
    origin.service = Some("web".into());
    Task {
        containers: ["app", "side"].map(|name| Container::new(name.into(), "u", "i")).to_vec(),
        ..Task::new(TaskId::new("t"), Arc::new(origin), "i".into(), Timestamp(40_000))
    }
}

fn told(name: &str, phase: Phase) -> ContainerReport {
    let started = phase >= Phase::Running;
    ContainerReport {
        name: name.into(),
        phase,
        runtime_id: (phase >= Phase::Created).then(|| format!("docker-{name}")),
        image_digest: (phase >= Phase::Created).then(|| "sha256:1".to_owned()),
        started_at: started.then_some(Timestamp(45_000)),
        finished_at: (phase == Phase::Stopped).then_some(Timestamp(48_000)),
        exit_code: (phase == Phase::Stopped).then_some(3),
        reason: None,
        health: Health::Unknown,
        bindings: vec![],
        address: None,
        network: None,
        restart_count: 0,
    }
}

fn report(app: Phase, side: Phase) -> TaskReport {
    TaskReport {
        task: TaskId::new("t"),
        containers: vec![told("app", app), told("side", side)],
        address: None,
        pull_started_at: Some(Timestamp(41_000)),
        pull_stopped_at: Some(Timestamp(42_000)),
        ending: None,
        finished: false,
        at: NOW,
    }
}

fn ended(ending: Ending, finished: bool) -> TaskReport {
    TaskReport { ending: Some(ending), finished, ..report(Phase::Stopped, Phase::Stopped) }
}

fn apply(task: &Task, report: &TaskReport) -> Task {
    apply_report(task, &definition(true), report, NOW).expect("a change").0
}

fn running() -> Task {
    apply(&fresh(), &report(Phase::Running, Phase::Running))
}

#[test]
fn the_task_is_as_far_as_its_slowest_container() {
    use Phase::*;
    let cases = [
        (Waiting, Waiting, TaskStatus::Pending),
        (Running, Pulling, TaskStatus::Pending),
        (Created, Running, TaskStatus::Pending),
        (Running, Running, TaskStatus::Running),
        // A finished non-essential container does not hold the task back, a finished essential one is no RUNNING.
        (Running, Stopped, TaskStatus::Running),
        (Stopped, Running, TaskStatus::Pending),
    ];
    for (app, side, expected) in cases {
        let task = apply(&fresh(), &report(app, side));
        assert_eq!(task.last_status, expected, "{app:?} {side:?}");
        assert_eq!(task.started_at.is_some(), expected == TaskStatus::Running);
        assert!(
            task.containers
                .iter()
                .all(|c| [TaskStatus::Pending, TaskStatus::Running, TaskStatus::Stopped].contains(&c.last_status))
        );
    }
}

#[test]
fn times_that_are_told_again_for_another_difference_of_clocks_change_nothing() {
    let mut again = report(Phase::Running, Phase::Running);
    for at in [&mut again.pull_started_at, &mut again.pull_stopped_at] {
        *at = at.map(|at| at + 58_000);
    }
    again.containers.iter_mut().for_each(|c| c.started_at = c.started_at.map(|at| at + 58_000));
    assert!(apply_report(&running(), &definition(true), &again, NOW).is_none());
    again.containers[0].restart_count = 1;
    assert_eq!(apply(&running(), &again).containers[0].started_at, Some(Timestamp(103_000)), "another run is another start");
}

#[test]
fn running_takes_over_every_fact() {
    let mut report = report(Phase::Running, Phase::Running);
    report.address = Some("10.0.0.9".to_owned());
    report.containers[0].bindings =
        vec![Binding { address: "0.0.0.0".into(), container_port: 80, host_port: 32_768, protocol: "tcp".into() }];
    assert_eq!(apply_report(&fresh(), &definition(true), &report, NOW).unwrap().0.address, None, "a bridge task has none");
    let awsvpc = TaskDefinition { network_mode: NetworkMode::Awsvpc, ..definition(true) };
    let (task, reasons) = apply_report(&fresh(), &awsvpc, &report, NOW).unwrap();
    assert_eq!((task.started_at, task.version), (Some(NOW), 2));
    assert_eq!((task.pull_started_at, task.pull_stopped_at), (Some(Timestamp(41_000)), Some(Timestamp(42_000))));
    assert_eq!(task.address.as_deref(), Some("10.0.0.9"));
    assert_eq!(task.containers[0].runtime_id, Some("docker-app".into()));
    assert_eq!(task.containers[0].image_digest.as_deref(), Some("sha256:1"));
    assert_eq!(task.containers[0].bindings[0].host_port, 32_768);
    assert_eq!(reasons.iter().map(|r| r.code).collect::<Vec<_>>(), [ReasonCode::TaskRunning]);
    assert_eq!((&reasons[0].evidence["after_ms"], &reasons[0].evidence["pull_ms"]), (&10_000.into(), &1_000.into()));
}

#[test]
fn an_essential_exit_ends_the_task_in_two_steps() {
    let ending = Ending::EssentialExited { container: "app".into(), at: Timestamp(48_000) };
    let mut first = ended(ending.clone(), false);
    first.containers[1] = told("side", Phase::Running);
    let (task, reasons) = apply_report(&running(), &definition(true), &first, NOW).unwrap();
    assert_eq!((task.last_status, task.desired_status), (TaskStatus::Stopping, TaskStatus::Stopped));
    assert_eq!(task.stop_code, Some(StopCode::EssentialContainerExited));
    assert_eq!(task.stopped_reason.as_deref(), Some("Essential container in task exited"));
    assert_eq!((task.stopping_at, task.execution_stopped_at), (Some(NOW), Some(Timestamp(48_000))));
    assert_eq!(reasons[0].code, ReasonCode::EssentialExited);
    assert_eq!((&reasons[0].evidence["exit_code"], &reasons[0].evidence["container"]), (&3.into(), &"app".into()));

    let (task, reasons) = apply_report(&task, &definition(true), &ended(ending, true), LATER).unwrap();
    assert_eq!((task.last_status, task.stopped_at, task.version), (TaskStatus::Stopped, Some(LATER), 4));
    assert_eq!(task.stopping_at, Some(NOW));
    assert_eq!(reasons[0].code, ReasonCode::TaskStopped);
    assert_eq!(reasons[0].evidence["exit_codes"]["app"], 3);
    assert!(!never_ran(&task));
}

#[test]
fn stop_codes_and_reasons_are_aws_s() {
    let failed = |ran| (ran, Ending::FailedToStart { error: "CannotPullContainerError: no".to_owned() });
    let cases = [
        (failed(false), StopCode::TaskFailedToStart, "Task failed to start"),
        ((false, Ending::PauseExited), StopCode::TaskFailedToStart, "Task failed to start: pause container exited"),
        (
            (true, Ending::PauseExited),
            StopCode::EssentialContainerExited,
            "Essential container in task exited: pause container exited",
        ),
    ];
    for ((ran, ending), code, text) in cases {
        let task = if ran { running() } else { fresh() };
        let phase = if ran { Phase::Running } else { Phase::Created };
        let report = TaskReport { ending: Some(ending), ..report(phase, phase) };
        let task = apply(&task, &report);
        assert_eq!((task.stop_code, task.stopped_reason.as_deref()), (Some(code), Some(text)));
        assert_eq!(never_ran(&task), !ran);
    }
}

#[test]
fn a_start_error_stands_in_a_container_s_reason() {
    let ending = Ending::FailedToStart { error: "CannotPullContainerError: x".repeat(100) };
    let report = TaskReport { ending: Some(ending), ..report(Phase::Pulling, Phase::Waiting) };
    let task = apply(&fresh(), &report);
    assert_eq!(task.containers[0].reason.as_ref().map(|r| r.chars().count()), Some(1_024));
    assert_eq!((task.containers[0].exit_code, &task.containers[1].reason), (None, &None));
    assert_eq!(apply_report(&task, &definition(true), &report, LATER), None);
}

#[test]
fn exit_codes_only_of_processes_that_started_and_oom_in_aws_s_words() {
    let mut report = report(Phase::Stopped, Phase::Stopped);
    report.containers[0].started_at = None;
    report.containers[1].reason = Some("OutOfMemoryError".to_owned());
    report.containers[1].exit_code = Some(137);
    let task = apply(&fresh(), &report);
    assert_eq!(task.containers[0].exit_code, None);
    assert_eq!(task.containers[1].exit_code, Some(137));
    assert_eq!(task.containers[1].reason.as_deref(), Some("OutOfMemoryError: Container killed due to memory usage"));
}

#[test]
fn a_stop_asked_for_keeps_its_code_and_reason() {
    let asked = ask_to_stop(&running(), StopCode::UserInitiated, "Task stopped by user", NOW).unwrap();
    assert_eq!((asked.last_status, asked.stopping_at, asked.version), (TaskStatus::Running, Some(NOW), 3));
    assert_eq!(ask_to_stop(&asked, StopCode::ServiceSchedulerInitiated, "other", LATER), None);

    let stopping = apply(&asked, &report(Phase::Running, Phase::Running));
    assert_eq!(stopping.last_status, TaskStatus::Stopping);
    let ending = Ending::EssentialExited { container: "app".into(), at: NOW };
    let stopped = apply(&stopping, &ended(ending, true));
    assert_eq!((stopped.last_status, stopped.stop_code), (TaskStatus::Stopped, Some(StopCode::UserInitiated)));
    assert_eq!(stopped.stopped_reason.as_deref(), Some("Task stopped by user"));
    assert_eq!(stopped.execution_stopped_at, Some(Timestamp(48_000)));

    let pending = ask_to_stop(&fresh(), StopCode::UserInitiated, "x", NOW).unwrap();
    let stopped = apply(&pending, &TaskReport { finished: true, ..report(Phase::Waiting, Phase::Waiting) });
    assert!(stopped.is_stopped() && stopped.started_at.is_none() && !never_ran(&stopped));
    assert!(stopped.containers.iter().all(|c| c.last_status == TaskStatus::Stopped && c.exit_code.is_none()));
}

#[test]
fn a_task_that_ran_between_two_reports_did_run() {
    let ending = Ending::EssentialExited { container: "app".into(), at: Timestamp(48_000) };
    let task = apply(&fresh(), &ended(ending, true));
    assert_eq!(task.started_at, Some(Timestamp(45_000)));
    assert!(!never_ran(&task));
}

#[test]
fn health_is_that_of_essential_containers_and_of_health_checks_only() {
    use Health::*;
    let cases = [
        (true, Healthy, Healthy, Healthy),
        (true, Healthy, Unhealthy, Healthy),
        (true, Unknown, Healthy, Unknown),
        (true, Unhealthy, Healthy, Unhealthy),
        (false, Healthy, Healthy, Unknown),
    ];
    for (checked, app, side, expected) in cases {
        let mut report = report(Phase::Running, Phase::Running);
        (report.containers[0].health, report.containers[1].health) = (app, side);
        let (task, _) = apply_report(&fresh(), &definition(checked), &report, NOW).unwrap();
        assert_eq!(task.health, expected, "{checked} {app:?} {side:?}");
    }
}

#[test]
fn a_restart_is_remembered_but_no_event() {
    let task = running();
    let mut report = report(Phase::Running, Phase::Running);
    report.containers[0].restart_count = 1;
    let (next, reasons) = apply_report(&task, &definition(true), &report, NOW).unwrap();
    assert_eq!((next.version, next.containers[0].restart_count), (task.version, 1));
    assert_eq!(reasons[0].code, ReasonCode::Restarted);
    // What the container was before its restart is old news.
    assert_eq!(apply_report(&next, &definition(true), &self::report(Phase::Stopped, Phase::Running), NOW), None);
}

#[test]
fn giving_up_invents_nothing() {
    let task = give_up(&running(), StopCode::TerminationNotice, "gone", NOW);
    assert!(task.is_stopped() && task.is_stopping());
    assert_eq!((task.stop_code, task.stopped_at, task.version), (Some(StopCode::TerminationNotice), Some(NOW), 3));
    assert!(task.containers.iter().all(|c| c.exit_code.is_none() && c.reason.as_deref() == Some("gone")));
    assert_eq!(task.execution_stopped_at, None);
    assert_eq!(give_up(&task, StopCode::UserInitiated, "again", LATER), task);
    let asked = ask_to_stop(&running(), StopCode::UserInitiated, "mine", NOW).unwrap();
    assert_eq!(give_up(&asked, StopCode::TerminationNotice, "gone", LATER).stopped_reason.as_deref(), Some("mine"));
}

fn any_phase() -> impl Strategy<Value = Phase> {
    prop::sample::select(vec![Phase::Waiting, Phase::Pulling, Phase::Created, Phase::Running, Phase::Stopped])
}

fn any_container(name: &'static str) -> impl Strategy<Value = ContainerReport> {
    let health = prop::sample::select(vec![Health::Healthy, Health::Unhealthy, Health::Unknown]);
    let reason = prop::option::of(prop::sample::select(vec!["OutOfMemoryError: x", "CannotStartContainerError: y"]));
    (any_phase(), health, prop::option::of(0_i32..3), reason, 0_u32..3, any::<bool>()).prop_map(
        move |(phase, health, exit_code, reason, restart_count, ran)| ContainerReport {
            health,
            exit_code,
            reason: reason.map(str::to_owned),
            restart_count,
            started_at: ran.then_some(Timestamp(45_000)),
            ..told(name, phase)
        },
    )
}

fn any_report() -> impl Strategy<Value = TaskReport> {
    let endings = vec![
        None,
        None,
        None,
        Some(Ending::EssentialExited { container: "app".into(), at: NOW }),
        Some(Ending::FailedToStart { error: "e".to_owned() }),
        Some(Ending::PauseExited),
        Some(Ending::Asked),
    ];
    (any_container("app"), any_container("side"), prop::sample::select(endings), prop::bool::weighted(0.15), 41_000_i64..49_000)
        .prop_map(|(app, side, ending, finished, pulled)| TaskReport {
            containers: vec![app, side],
            ending,
            finished,
            pull_stopped_at: Some(Timestamp(pulled)),
            ..report(Phase::Waiting, Phase::Waiting)
        })
}

proptest! {
    /// In whatever order reports come, and however often, nothing that was reached is taken back.
    #[test]
    fn no_report_takes_a_task_backwards(reports in prop::collection::vec((any_report(), any::<bool>()), 1..20)) {
        let definition = definition(true);
        let mut task = fresh();
        let mut now = NOW;
        for (report, stop) in &reports {
            now = now + 1_000;
            if *stop && let Some(asked) = ask_to_stop(&task, StopCode::UserInitiated, "u", now) {
                task = asked;
            }
            let Some((next, _)) = apply_report(&task, &definition, report, now) else { continue };
            prop_assert!(!task.is_stopped());
            prop_assert!(next.last_status >= task.last_status && next.desired_status >= task.desired_status);
            prop_assert!(next.version == task.version || next.version == task.version + 1);
            prop_assert_eq!(next.version == task.version, visible(&next) == visible(&task));
            for (before, after) in [
                (task.started_at, next.started_at),
                (task.stopping_at, next.stopping_at),
                (task.execution_stopped_at, next.execution_stopped_at),
                (task.pull_started_at, next.pull_started_at),
            ] {
                prop_assert!(before.is_none() || before == after);
            }
            prop_assert!(task.stop_code.is_none() || (task.stop_code, &task.stopped_reason) == (next.stop_code, &next.stopped_reason));
            for (before, after) in task.containers.iter().zip(&next.containers) {
                prop_assert!((after.restart_count, after.last_status) >= (before.restart_count, before.last_status));
                prop_assert!(after.last_status >= TaskStatus::Running || before.last_status < TaskStatus::Running);
            }
            prop_assert_eq!(next.is_stopping(), next.stop_code.is_some());
            prop_assert_eq!(next.is_stopped(), next.stopped_at.is_some());
            // The same again, at any later time, is nothing.
            prop_assert_eq!(apply_report(&next, &definition, report, now + 500), None);
            task = next;
        }
    }
}
