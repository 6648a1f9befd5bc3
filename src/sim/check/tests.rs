//! Each check can fail: a history that breaks its rule, and only that one, trips it.

use super::*;
use crate::model::InstanceId;
use crate::model::instance::Instance;
use crate::model::task::{Health, StopCode, Task, TaskStatus};
use crate::sim::script::{Act, Call, Fault};
use crate::sim::{Options, generate, many};

/// The commits of a small world that went well, to be spoilt.
fn trace() -> Vec<Commit> {
    static TRACE: std::sync::OnceLock<Vec<Commit>> = std::sync::OnceLock::new();
    TRACE.get_or_init(make_trace).clone()
}

fn make_trace() -> Vec<Commit> {
    let mut script = generate::script(
        1,
        &Options { instances: Some(3), services: Some(1), tasks: Some(4), faults: vec![], ..Options::default() },
    );
    script.head.faults_ms = 20_000;
    let call = |call: Call| crate::sim::script::Timed { at: 0, act: Act::Call(call) };
    script.commands = vec![
        call(Call::Register { family: "f0".into(), behaviour: "ok".into(), awsvpc: false, host_port: Some(80) }),
        call(Call::Create { service: "s0".into(), family: "f0".into(), desired: 3, minimum: 100, maximum: 200, awsvpc: false }),
    ];
    script
        .commands
        .push(crate::sim::script::Timed { at: 9_000, act: Act::Fault(Fault::Kill { host: 1, pick: 0, containers: 1 }) });
    script
        .commands
        .push(crate::sim::script::Timed { at: 15_000, act: Act::Call(Call::Desire { service: "s0".into(), desired: 2 }) });
    let dir = many::new_dir();
    let commits = crate::sim::block_on(async {
        let setup = crate::sim::Setup { instances: 3, data_dir: Some(dir.clone()), ..Default::default() };
        let mut world = crate::sim::World::new(1, setup).await.unwrap();
        let mut watch = world.app().unwrap().store.watch();
        // The instances came before anybody watched.
        let state = world.state();
        let changes = state.instances.values().map(|instance| Change::from((**instance).clone())).collect();
        let first = Commit { revision: state.revision, at: world.now(), causes: vec![], changes, records: vec![] };
        let (mut commits, mut n) = (vec![first], 0);
        let begun = world.now();
        while world.now().since(begun) < 25_000 {
            while n < script.commands.len() && script.commands[n].at <= world.now().since(begun) {
                world.carry_out(&script.commands[n].act).await;
                n += 1;
            }
            world.run_for(500).await;
            while let Ok(commit) = watch.try_recv() {
                commits.push((*commit).clone());
            }
        }
        world.settle(60_000).await;
        assert_eq!(world.checks.breaches, []);
        commits
    });
    let _ = std::fs::remove_dir_all(dir);
    commits.unwrap()
}

/// The rules that a history breaks.
fn broken(commits: &[Commit]) -> BTreeSet<Rule> {
    let mut checks = Checks::default();
    checks.seen.revision = commits[0].revision - 1;
    commits.iter().for_each(|commit| checks.commit(commit));
    checks.breaches.iter().map(|breach| breach.rule).collect()
}

fn tasks(commit: &mut Commit) -> impl Iterator<Item = &mut Task> {
    commit.changes.iter_mut().filter_map(|change| match change {
        Change::Task(_, Some(task)) => Some(Arc::make_mut(task)),
        _ => None,
    })
}

/// Spoils the first commit for which `spoil` says that it has.
fn spoilt(mut spoil: impl FnMut(&mut Commit) -> bool) -> BTreeSet<Rule> {
    let mut commits = trace();
    assert!(commits.iter_mut().any(&mut spoil), "nothing in the trace is so");
    broken(&commits)
}

fn first_task(mut spoil: impl FnMut(&mut Task) -> bool) -> BTreeSet<Rule> {
    spoilt(|commit| tasks(commit).any(&mut spoil))
}

#[test]
fn a_history_that_went_well_breaks_nothing() {
    assert_eq!(broken(&trace()), BTreeSet::new());
}

#[test]
fn what_a_task_may_not_do_is_seen() {
    let went_back = first_task(|task| {
        let stops = task.is_stopped();
        if stops {
            task.last_status = TaskStatus::Pending;
        }
        stops
    });
    // What stood on its place meanwhile may make the instance too full as well.
    assert!(went_back.contains(&Rule::Order), "{went_back:?}");
    let runs = |task: &Task| task.last_status == TaskStatus::Running;
    let moved = first_task(|task| {
        let is = runs(task);
        task.reserved.cpu += u32::from(is);
        is
    });
    // Where the instance was full, it is too full now as well.
    assert!(moved.contains(&Rule::Order), "{moved:?}");
    let same_version = first_task(|task| {
        let is = runs(task);
        task.version = if is { 1 } else { task.version };
        is
    });
    assert!(same_version.contains(&Rule::Order));
    let no_reason = first_task(|task| task.is_stopped() && task.stopped_reason.take().is_some());
    assert_eq!(no_reason, BTreeSet::from([Rule::Ledger]));
}

#[test]
fn what_is_not_explained_is_seen() {
    let silent = spoilt(|commit| {
        let starts = tasks(commit).any(|task| task.version == 1);
        commit.records.retain(|_| !starts);
        starts
    });
    assert_eq!(silent, BTreeSet::from([Rule::Ledger]));
    let wordless = spoilt(|commit| {
        let mut found = false;
        for record in &mut commit.records {
            if let Record::Decision(decision) = record {
                decision.reason.sentence.clear();
                found = true;
            }
        }
        found
    });
    assert_eq!(wordless, BTreeSet::from([Rule::Ledger]));
}

#[test]
fn a_commit_that_is_missing_or_comes_twice_is_seen() {
    let mut missing = trace();
    missing.remove(3);
    assert!(broken(&missing).contains(&Rule::Durable));
    let mut twice = trace();
    twice.insert(3, twice[3].clone());
    assert!(broken(&twice).contains(&Rule::Durable));
}

/// The state that the trace comes to.
fn seen() -> Seen {
    let mut checks = Checks::default();
    trace().iter().for_each(|commit| checks.commit(commit));
    checks.seen
}

fn an_instance(seen: &Seen) -> (InstanceId, Instance) {
    let task = seen.live().next().expect("some task runs");
    let instance = seen.instances.get(&task.instance).map(|i| (**i).clone());
    // Instances came before the trace began.
    let instance = instance.expect("it has reported since");
    (task.instance.clone(), instance)
}

#[test]
fn an_instance_with_too_much_is_seen() {
    let mut seen = seen();
    let (id, mut instance) = an_instance(&seen);
    assert_eq!(instance::overcommitted(&seen, &id), Vec::<String>::new());
    let reserved: u32 = seen.live_of_instance(&id).map(|task| task.reserved.cpu).sum();
    let port = seen.live_of_instance(&id).find_map(|task| task.reserved.tcp_ports.first().copied());
    instance.registered.cpu = reserved - 1;
    instance.reserved_tcp_ports.extend(port);
    seen.apply(&Change::from(instance));
    let told = instance::overcommitted(&seen, &id);
    assert!(told[0].contains("overcommitted"), "{told:?}");
    assert!(port.is_none() || told[1].contains("ports twice"), "{told:?}");
}

#[test]
fn a_service_outside_of_its_percentages_is_seen() {
    let seen = seen();
    let key = ServiceKey::new("default", "s0");
    let running = service::serving(&seen, &key);
    assert_eq!(running, 2);
    let mut moves = service::Moves::from(running);
    assert_eq!(service::within_percents(&seen, &key, None, &moves), Vec::<String>::new());
    let mut task = (**seen.live_of_service(&key).next().unwrap()).clone();
    let before = task.clone();
    task.desired_status = TaskStatus::Stopped;
    task.stop_code = Some(StopCode::ServiceSchedulerInitiated);
    moves.note(Some(&before), &task);
    assert_eq!(service::within_percents(&seen, &key, None, &moves).len(), 1, "100 % had to stay");
    // One that is known as unhealthy may go.
    let unhealthy = Task { health: Health::Unhealthy, ..before };
    let mut moves = service::Moves::from(running);
    moves.note(Some(&unhealthy), &task);
    assert_eq!(service::within_percents(&seen, &key, None, &moves), Vec::<String>::new());

    let mut crowded = seen;
    for n in 0..3 {
        let mut more = (**crowded.live_of_service(&key).next().unwrap()).clone();
        more.id = TaskId::new(format!("more-{n}"));
        crowded.apply(&Change::from(more));
    }
    let mut moves = service::Moves::from(running);
    moves.note(None, &task);
    assert_eq!(service::within_percents(&crowded, &key, None, &moves).len(), 1, "200 % may be");
}

#[test]
fn a_desired_count_outside_of_its_target_is_seen() {
    let mut seen = seen();
    let service = seen.services.values().next().unwrap().clone();
    let target = crate::model::scaling::ScalableTarget {
        service: service.key.clone(),
        id: "t".into(),
        min: 3,
        max: 5,
        suspend_in: false,
        suspend_out: false,
        suspend_scheduled: false,
        tags: vec![],
        created_at: service.created_at,
        last_out: None,
        last_in: None,
    };
    assert_eq!(service::within_target(&seen, Some(3), &service), None);
    seen.apply(&Change::from(target));
    assert!(service::within_target(&seen, Some(3), &service).is_some());
    assert_eq!(service::within_target(&seen, Some(service.desired_count), &service), None, "it was so before");
}

#[test]
fn what_runs_twice_is_seen() {
    let run = |host, task: &str, container: &str| (host, TaskId::new(task), container.to_owned());
    let fine = [run(0, "a", "app"), run(0, "a", "side"), run(1, "b", "app"), run(0, "", "pause"), run(1, "", "pause")];
    assert_eq!(hosts::twice(fine.into_iter()), Vec::<String>::new());
    assert_eq!(hosts::twice([run(0, "a", "app"), run(1, "a", "app")].into_iter()).len(), 1);
    assert_eq!(hosts::twice([run(0, "a", "app"), run(0, "a", "app")].into_iter()).len(), 1);
}

#[test]
fn what_has_not_come_to_rest_is_seen() {
    let mut seen = seen();
    assert_eq!(rest::services(&seen), Vec::<String>::new());
    let running: BTreeSet<TaskId> = seen.live().map(|task| task.id.clone()).collect();
    assert_eq!(rest::against_hosts(&seen, &running), Vec::<String>::new());
    let stranger = BTreeSet::from_iter(running.iter().cloned().chain([TaskId::new("stranger")]));
    assert_eq!(rest::against_hosts(&seen, &stranger).len(), 1);
    assert_eq!(rest::against_hosts(&seen, &BTreeSet::new()).len(), running.len());
    let service = seen.services.values().next().unwrap().clone();
    let mut more = (*service).clone();
    more.desired_count += 1;
    seen.apply(&Change::from(more));
    assert_eq!(rest::services(&seen).len(), 1);
}

#[test]
fn a_disk_that_lost_or_kept_too_much_is_seen() {
    let mut checks = Checks::default();
    trace().iter().for_each(|commit| checks.commit(commit));
    let breaches = checks.breaches.len();
    // An empty disk after all these commits.
    checks.compare_disk(&State::default());
    assert_eq!(checks.breaches.len(), breaches + 1);
    assert_eq!(checks.breaches.last().map(|breach| breach.rule), Some(Rule::Durable));
}

#[test]
fn a_journal_that_is_not_the_state_is_seen() {
    let dir = many::new_dir();
    let clock = crate::clock::ManualClock::at(Timestamp(1));
    crate::sim::block_on(async {
        let (store, _) =
            crate::store::Store::open_in_task(Some(&dir), clock, "here", Arc::new(crate::sim::Doom::default())).unwrap();
        let service = (**seen().services.values().next().unwrap()).clone();
        for desired_count in [1, 2] {
            let put = Service { desired_count, ..service.clone() };
            let before = store.snapshot();
            let done = store.update("put", move |tx| {
                tx.put(put);
                Ok::<_, crate::store::Error>(())
            });
            done.await.unwrap();
            assert_eq!(journal::differs(&dir, &store.snapshot()), None);
            assert!(journal::differs(&dir, &before).is_some());
        }
    })
    .unwrap();
    let _ = std::fs::remove_dir_all(&dir);
    let commits = trace();
    let (whole, part) = (journal::replayed(&commits), journal::replayed(&commits[..commits.len() / 2]));
    assert!(whole.tasks != part.tasks && whole.tasks == seen().tasks);
}
