use proptest::prelude::*;

use super::*;
use crate::model::definition::ContainerDependency;
use crate::model::{DefinitionKey, TaskId};

const T0: Timestamp = Timestamp(1_000_000);

fn container(name: &str, essential: bool, depends_on: &[(&str, &str)]) -> ContainerDefinition {
    let depends_on = depends_on
        .iter()
        .map(|(name, condition)| ContainerDependency { container_name: (*name).into(), condition: (*condition).into() })
        .collect();
    ContainerDefinition {
        name: name.into(),
        image: "image".into(),
        essential: Some(essential),
        depends_on: Some(depends_on),
        ..Default::default()
    }
}

fn task(containers: Vec<ContainerDefinition>) -> Assignment {
    Assignment {
        task: TaskId::new("t"),
        cluster: "default".into(),
        service: None,
        group: "family:f".into(),
        definition: DefinitionKey::new("f", 1),
        network_mode: NetworkMode::Bridge,
        cpu: None,
        memory: None,
        container_uuids: containers.iter().map(|c| format!("uuid-{}", c.name)).collect(),
        containers,
        volumes: vec![],
        pid_mode: None,
        ipc_mode: None,
        run: true,
        trace: None,
    }
}

fn running() -> Known {
    Known { phase: Phase::Running, pulled: true, runtime_id: Some("r".into()), started_at: Some(T0), ..Default::default() }
}

fn stopped(exit_code: i32, at: Timestamp) -> Known {
    Known { phase: Phase::Stopped, exit_code: Some(exit_code), finished_at: Some(at), ..running() }
}

fn state(containers: Vec<Known>) -> State {
    State { containers, ..Default::default() }
}

#[test]
fn a_container_is_pulled_created_started() {
    let task = task(vec![container("a", true, &[])]);
    let mut s = state(vec![Known::default()]);
    assert_eq!(next(&task, &s, T0).steps, [Step::Pull(0)]);
    s.containers[0].busy = Some(Work::Pull);
    assert_eq!(next(&task, &s, T0).steps, []);
    s.containers[0] = Known { pulled: true, ..Default::default() };
    assert_eq!(next(&task, &s, T0).steps, [Step::Create(0)]);
    s.containers[0].phase = Phase::Created;
    assert_eq!(next(&task, &s, T0).steps, [Step::Start(0)]);
    s.containers[0] = running();
    assert_eq!(next(&task, &s, T0), Next::default());
}

#[test]
fn what_a_dependency_waits_for() {
    enum Expect {
        Go,
        Wait,
        End(&'static str),
    }
    use Expect::*;
    let healthy = Known { health: Health::Healthy, ..running() };
    let failed = Known { failed: true, reason: Some("CannotPullContainerError: no".into()), ..Default::default() };
    let cases = [
        ("START", Known::default(), Wait),
        ("START", running(), Go),
        ("START", stopped(1, T0), Go),
        ("START", failed.clone(), End("will never start")),
        ("COMPLETE", running(), Wait),
        ("COMPLETE", stopped(1, T0), Go),
        ("SUCCESS", running(), Wait),
        ("SUCCESS", stopped(0, T0), Go),
        ("SUCCESS", stopped(3, T0), End("did not exit successfully")),
        ("HEALTHY", running(), Wait),
        ("HEALTHY", healthy.clone(), Go),
        ("HEALTHY", stopped(0, T0), End("did not become healthy")),
    ];
    for (condition, dependency, expect) in cases {
        let task = task(vec![container("dep", false, &[]), container("app", true, &[("dep", condition)])]);
        let got = next(&task, &state(vec![dependency.clone(), Known::default()]), T0);
        let about_app: Vec<&Step> = got.steps.iter().filter(|s| **s != Step::Pull(0)).collect();
        let context = format!("{condition} on {dependency:?}: {got:?}");
        match expect {
            Go => assert_eq!(about_app, [&Step::Pull(1)], "{context}"),
            Wait => assert!(about_app.is_empty() && got.ending.is_none(), "{context}"),
            End(text) => {
                assert!(matches!(&got.ending, Some(Ending::FailedToStart { error }) if error.contains(text)), "{context}");
                assert!(got.hopeless[0].1.starts_with("TaskDependencyError: "), "{context}");
            }
        }
    }
}

#[test]
fn a_dependency_that_takes_longer_than_its_start_timeout_ends_the_task() {
    for (condition, times_out) in [("HEALTHY", true), ("COMPLETE", true), ("SUCCESS", true), ("START", false)] {
        let mut slow = container("slow", false, &[]);
        slow.start_timeout = Some(20);
        let task = task(vec![slow, container("app", true, &[("slow", condition)])]);
        let s = state(vec![running(), Known::default()]);
        let before = next(&task, &s, T0 + 19_999);
        assert_eq!(before.ending, None);
        assert_eq!(before.wake_at, times_out.then_some(T0 + 20_000), "{condition}");
        let after = next(&task, &s, T0 + 20_000);
        assert_eq!(after.ending.is_some(), times_out, "{condition}");
        assert_eq!(after.steps.contains(&Step::Stop { which: Which::At(0), grace_ms: 30_000 }), times_out);
    }
}

#[test]
fn an_essential_exit_stops_the_others_and_a_sidecars_does_not() {
    let task = task(vec![container("app", true, &[]), container("side", false, &[])]);
    let got = next(&task, &state(vec![running(), stopped(1, T0)]), T0);
    assert_eq!((got.ending, got.steps.len()), (None, 0));
    let got = next(&task, &state(vec![stopped(0, T0 + 5), running()]), T0 + 9);
    assert_eq!(got.ending, Some(Ending::EssentialExited { container: "app".into(), at: T0 + 5 }));
    assert_eq!(got.steps, [Step::Stop { which: Which::At(1), grace_ms: 30_000 }]);
}

#[test]
fn a_sidecar_that_cannot_start_does_not_end_the_task() {
    let task = task(vec![container("app", true, &[]), container("side", false, &[])]);
    let failed = Known { failed: true, reason: Some("CannotPullContainerError: no".into()), ..Default::default() };
    let s = state(vec![running(), failed.clone()]);
    assert_eq!(next(&task, &s, T0), Next::default());
    let side = &report(&task, &s, T0).containers[1];
    assert_eq!(
        (side.phase, side.exit_code, side.reason.as_deref()),
        (Phase::Stopped, None, Some("CannotPullContainerError: no"))
    );
    let got = next(&task, &state(vec![failed, running()]), T0);
    assert_eq!(got.ending, Some(Ending::FailedToStart { error: "CannotPullContainerError: no".into() }));
}

#[test]
fn stopping_goes_against_the_dependencies() {
    let mut task = task(vec![
        container("db", true, &[]),
        container("app", true, &[("db", "START")]),
        container("proxy", true, &[("app", "START")]),
    ]);
    task.run = false;
    task.containers[2].stop_timeout = Some(2);
    let mut s = state(vec![running(), running(), running()]);
    let got = next(&task, &s, T0);
    assert_eq!(got.ending, Some(Ending::Asked));
    assert_eq!(got.steps, [Step::Stop { which: Which::At(2), grace_ms: 2_000 }]);
    s.containers[2].busy = Some(Work::Stop);
    assert_eq!(next(&task, &s, T0).steps, []);
    s.containers[2] = stopped(143, T0);
    assert_eq!(next(&task, &s, T0).steps, [Step::Stop { which: Which::At(1), grace_ms: 30_000 }]);
    s.containers[1] = stopped(143, T0);
    s.containers[0] = stopped(143, T0);
    assert!(next(&task, &s, T0).finished);
}

#[test]
fn the_restart_policy() {
    let policy = |period, ignored: &[i32]| RestartPolicy {
        enabled: true,
        ignored_exit_codes: Some(ignored.to_vec()),
        restart_attempt_period: period,
    };
    let off = RestartPolicy { enabled: false, ..policy(Some(60), &[]) };
    let cases = [
        (policy(Some(60), &[]), 1, 60_000, true),
        (policy(Some(60), &[]), 0, 60_000, true),
        (policy(Some(60), &[]), 1, 59_999, false),
        (policy(Some(60), &[1]), 1, 60_000, false),
        (policy(None, &[]), 1, 299_999, false),
        (policy(None, &[]), 1, 300_000, true),
        (off, 1, 600_000, false),
    ];
    for (policy, code, ran_ms, expect) in cases {
        let mut definition = container("a", true, &[]);
        definition.restart_policy = Some(policy.clone());
        let task = task(vec![definition]);
        let s = state(vec![stopped(code, T0 + ran_ms)]);
        // Judged by how long it ran, not by when anyone looks.
        let got = next(&task, &s, T0 + 10_000_000);
        assert_eq!(got.steps.contains(&Step::Restart(0)), expect, "{policy:?} {code} {ran_ms}");
        assert_eq!(got.ending.is_none(), expect);
        assert_eq!(report(&task, &s, T0).containers[0].phase == Phase::Running, expect);
    }
}

#[test]
fn an_awsvpc_task_has_its_pause_first_and_ends_with_it() {
    let mut task = task(vec![container("a", true, &[])]);
    task.network_mode = NetworkMode::Awsvpc;
    let mut s = state(vec![Known { pulled: true, ..Default::default() }]);
    assert_eq!(next(&task, &s, T0).steps, [Step::Pause]);
    s.pause.busy = Some(Work::Start);
    assert_eq!(next(&task, &s, T0).steps, []);
    s.pause = running();
    assert_eq!(next(&task, &s, T0).steps, [Step::Create(0)]);
    s.containers[0] = running();
    s.pause = stopped(0, T0);
    let got = next(&task, &s, T0);
    assert_eq!(got.ending, Some(Ending::PauseExited));
    assert_eq!(got.steps, [Step::Stop { which: Which::At(0), grace_ms: 30_000 }]);
    // Asked to stop: the pause goes last.
    s.pause = running();
    task.run = false;
    assert_eq!(next(&task, &s, T0).steps, [Step::Stop { which: Which::At(0), grace_ms: 30_000 }]);
    s.containers[0] = stopped(0, T0);
    let got = next(&task, &s, T0);
    assert_eq!((got.steps, got.finished), (vec![Step::Stop { which: Which::Pause, grace_ms: 30_000 }], false));
}

#[test]
fn containers_stay_until_the_last_report_was_made() {
    let task = task(vec![container("a", true, &[])]);
    let ending = Some(Ending::EssentialExited { container: "a".into(), at: T0 });
    let mut s = State { ending, finished_at: Some(T0), ..state(vec![stopped(0, T0)]) };
    let got = next(&task, &s, T0);
    assert_eq!((got.steps, got.wake_at), (vec![], Some(T0 + KEEP_UNREPORTED_MS)));
    s.reported_at = Some(T0 + 1);
    assert_eq!(next(&task, &s, T0 + 1).wake_at, Some(T0 + 1 + KEEP_REPORTED_MS));
    s.forgotten = true;
    assert_eq!(next(&task, &s, T0 + 1).steps, [Step::Remove(Which::At(0))]);
    s.containers[0].removed = true;
    assert_eq!(next(&task, &s, T0 + 1).steps, [Step::CleanUp]);
    s.cleaned = true;
    assert!(next(&task, &s, T0 + 1).done);
}

/// What a world may do with a task between two decisions.
#[derive(Clone, Debug)]
struct World {
    task: Assignment,
    choices: Vec<(u8, u8)>,
    stop_after: usize,
}

fn world() -> impl Strategy<Value = World> {
    let condition = prop_oneof![Just("START"), Just("COMPLETE"), Just("SUCCESS"), Just("HEALTHY")];
    let one = (any::<bool>(), any::<bool>(), proptest::option::of((any::<prop::sample::Index>(), condition)), 0u8..3);
    (proptest::collection::vec(one, 1..5), proptest::collection::vec((any::<u8>(), any::<u8>()), 200), 0usize..60, any::<bool>())
        .prop_map(|(specs, choices, stop_after, own_network)| {
            let mut containers = vec![];
            for (index, (essential, restart, depends_on, timeout)) in specs.into_iter().enumerate() {
                let on = depends_on.filter(|_| index > 0).map(|(on, c)| (format!("c{}", on.index(index)), c));
                let on: Vec<(&str, &str)> = on.iter().map(|(n, c)| (n.as_str(), *c)).collect();
                let mut definition = container(&format!("c{index}"), essential || index == 0, &on);
                definition.start_timeout = (timeout > 0).then(|| i32::from(timeout) * 30);
                definition.restart_policy =
                    Some(RestartPolicy { enabled: restart, ignored_exit_codes: None, restart_attempt_period: Some(60) });
                containers.push(definition);
            }
            let mut task = task(containers);
            task.network_mode = if own_network { NetworkMode::Awsvpc } else { NetworkMode::Bridge };
            World { task, choices, stop_after }
        })
}

/// Completes the step in flight of one container, well or badly.
fn complete(known: &mut Known, well: bool, now: Timestamp) {
    let Some(work) = known.busy.take() else { return };
    match work {
        Work::Pull | Work::Create | Work::Start if !well => {
            known.failed = true;
            known.reason = Some("CannotStartContainerError: no".into());
        }
        Work::Pull => known.pulled = true,
        Work::Create => {
            known.phase = Phase::Created;
            known.runtime_id = Some("r".into());
        }
        Work::Start => {
            known.phase = Phase::Running;
            known.runtime_id = Some("r".into());
            known.started_at = Some(now);
        }
        Work::Restart if well => {
            known.phase = Phase::Running;
            known.started_at = Some(now);
            known.exit_code = None;
        }
        Work::Restart => known.failed = true,
        Work::Stop => die(known, 143, now),
        Work::Remove => known.removed = true,
    }
}

fn die(known: &mut Known, code: i32, now: Timestamp) {
    known.phase = Phase::Stopped;
    known.exit_code = Some(code);
    known.finished_at = Some(now);
    known.health = Health::Unknown;
}

/// Applies a decision to the state as the runner does, checking what must never be.
fn begin(task: &Assignment, s: &mut State, got: &Next, now: Timestamp) {
    s.ending = got.ending.clone();
    for (index, reason) in &got.hopeless {
        s.containers[*index].failed = true;
        s.containers[*index].reason = Some(reason.clone());
    }
    if got.finished && s.finished_at.is_none() {
        s.finished_at = Some(now);
    }
    for step in &got.steps {
        let (which, work) = match step {
            Step::Pull(i) => (Which::At(*i), Work::Pull),
            Step::Pause => (Which::Pause, Work::Start),
            Step::Create(i) => (Which::At(*i), Work::Create),
            Step::Start(i) => (Which::At(*i), Work::Start),
            Step::Restart(i) => (Which::At(*i), Work::Restart),
            Step::Stop { which, .. } => (*which, Work::Stop),
            Step::Remove(which) => (*which, Work::Remove),
            Step::CleanUp => {
                assert!(!s.cleaned && s.containers.iter().all(|c| c.runtime_id.is_none() || c.removed));
                s.cleaned = true;
                continue;
            }
        };
        if let (Which::At(i), Work::Start) = (which, work) {
            assert!(s.ending.is_none(), "started while ending");
            for dependency in task.containers[i].depends_on.iter().flatten() {
                let on = &s.containers[place_of(task, &dependency.container_name).unwrap()];
                let fine = match dependency.condition.as_str() {
                    "START" => on.phase >= Phase::Running,
                    "COMPLETE" => on.phase == Phase::Stopped,
                    "SUCCESS" => on.phase == Phase::Stopped && on.exit_code == Some(0),
                    _ => on.phase == Phase::Running && on.health == Health::Healthy,
                };
                assert!(fine, "container {i} started before {dependency:?} held: {on:?}");
            }
            assert!(task.network_mode != NetworkMode::Awsvpc || s.pause.phase == Phase::Running);
        }
        if let (Which::At(i), Work::Stop) = (which, work) {
            let depends = |j: usize| needs(task, j, i) && s.containers[j].phase == Phase::Running;
            assert!(!(0..s.containers.len()).any(depends), "container {i} stopped before its dependants");
        }
        let known = match which {
            Which::Pause => &mut s.pause,
            Which::At(i) => &mut s.containers[i],
        };
        assert_eq!(known.busy, None, "a step repeated while in flight: {step:?}");
        known.busy = Some(work);
    }
}

proptest! {
    #[test]
    fn keeps_its_rules_and_always_ends(world in world()) {
        let mut task = world.task;
        let mut s = state(vec![Known::default(); task.containers.len()]);
        let mut now = T0;
        for (turn, (what, how)) in world.choices.iter().enumerate() {
            if turn >= world.stop_after {
                task.run = false;
            }
            let got = next(&task, &s, now);
            begin(&task, &mut s, &got, now);
            now = now + 10_000;
            let at = usize::from(*what) % (s.containers.len() + 1);
            let known = if at == s.containers.len() { &mut s.pause } else { &mut s.containers[at] };
            match how % 8 {
                0 if known.phase == Phase::Running && known.busy.is_none() => die(known, i32::from(*what % 2), now),
                1 if known.phase == Phase::Running => known.health = Health::Healthy,
                2 => complete(known, false, now),
                _ => complete(known, true, now),
            }
        }
        // From here everything in flight completes: the task must finish and leave nothing.
        task.run = false;
        for _ in 0..40 {
            let got = next(&task, &s, now);
            begin(&task, &mut s, &got, now);
            if s.finished_at.is_some() {
                prop_assert!(report(&task, &s, now).containers.iter().all(|c| c.phase == Phase::Stopped));
                s.forgotten = true;
            }
            if got.done {
                return Ok(());
            }
            now = now + 1_000;
            complete(&mut s.pause, true, now);
            for known in &mut s.containers {
                complete(known, true, now);
            }
        }
        prop_assert!(false, "did not end: {s:?}");
    }
}
