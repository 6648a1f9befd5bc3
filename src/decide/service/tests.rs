//! The bounds by ECS's own examples, every reason to start and stop by a scenario.

use super::world::{HEALTHY_AFTER, LOST_AFTER, World, instance_id};
use super::*;
use crate::model::instance::InstanceStatus;
use crate::model::service::ServiceEvent;
use crate::model::task::{Health, TaskStatus};

fn starts(plan: &Plan) -> (u32, u32) {
    plan.decisions.iter().fold((0, 0), |sum, d| match d.action {
        Action::Start { count, replacing, .. } => (sum.0 + count, sum.1 + replacing),
        _ => sum,
    })
}

fn stops(plan: &Plan) -> Vec<(&TaskId, &str, &ReasonCode)> {
    let mut stopped = Vec::new();
    for planned in &plan.decisions {
        if let Action::Stop { task, code, text } = &planned.action {
            assert_eq!(*code, StopCode::ServiceSchedulerInitiated);
            stopped.push((task, text.as_str(), &planned.reason.code));
        }
    }
    stopped
}

fn events(plan: &Plan) -> Vec<&str> {
    let mut said = Vec::new();
    for planned in &plan.decisions {
        if let Action::Event(text) = &planned.action {
            said.push(text.as_str());
        }
    }
    said
}

fn waits(plan: &Plan) -> Vec<ReasonCode> {
    plan.waiting.iter().map(|r| r.code).collect()
}

const STUCK: &str = "(service web) was unable to stop or start tasks during a deployment because of the service deployment \
                     configuration. Update the minimumHealthyPercent or maximumPercent value and try again.";

#[test]
fn bounds_round_as_ecs_rounds() {
    let cases = [
        (4, 50, 200, (2, 8)),
        (2, 75, 200, (2, 4)),
        (3, 100, 125, (3, 3)),
        (1, 100, 200, (1, 2)),
        (1, 0, 100, (0, 1)),
        (5, 50, 150, (3, 7)),
        (0, 100, 200, (0, 0)),
        // Not in ECS's guide: bounds that would keep the service from its desired count are those of the desired count.
        (4, 150, 50, (4, 4)),
    ];
    for (desired, minimum, maximum, expected) in cases {
        assert_eq!(census::bounds(desired, minimum, maximum), expected, "{desired}@{minimum}/{maximum}");
    }
}

#[test]
fn ecs_s_examples_of_a_deployment_s_first_step() {
    // (desired, minimum, maximum), tasks started, old tasks stopped, stuck.
    let cases = [
        ((4, 50, 100), 0, 2, false),
        ((2, 75, 100), 0, 0, true),
        ((4, 100, 200), 4, 0, false),
        ((3, 100, 125), 0, 0, true),
        ((1, 100, 200), 1, 0, false),
        ((1, 0, 100), 0, 1, false),
        ((4, 50, 200), 4, 2, false),
    ];
    for ((desired, minimum, maximum), started, stopped, stuck) in cases {
        let mut world = World::steady(desired, minimum, maximum, 2);
        world.deploy();
        let plan = world.pass();
        let case = format!("{desired}@{minimum}/{maximum}");
        assert_eq!(starts(&plan), (started, 0), "{case}");
        assert_eq!(stops(&plan).len(), stopped, "{case}");
        assert_eq!(events(&plan).contains(&STUCK), stuck, "{case}");
        assert_eq!(waits(&plan).contains(&ReasonCode::DeploymentStuck), stuck, "{case}");
    }
}

#[test]
fn a_new_service_starts_and_reaches_steady_state() {
    let mut world = World::new(3, 100, 200, 3);
    let plan = world.pass();
    assert_eq!(starts(&plan), (3, 0));
    assert_eq!(plan.decisions[0].reason.code, ReasonCode::BelowDesired);
    assert_eq!(waits(&plan), [ReasonCode::WaitHealthy]);
    world.run_pending(3);
    let plan = world.pass();
    assert_eq!(plan.decisions, []);
    assert_eq!(plan.wake_at, Some(world.now + HEALTHY_AFTER));
    world.now = world.now + HEALTHY_AFTER;
    let id = world.service.deployments[0].id.clone();
    let plan = world.pass();
    assert_eq!(
        events(&plan),
        [
            format!("(service web) (deployment {id}) deployment completed."),
            "(service web) has reached a steady state.".to_owned()
        ]
    );
    assert_eq!(world.service.deployments[0].rollout_reason, format!("ECS deployment {id} completed."));
    assert!(world.service.steady);
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn one_task_rolls_start_wait_stop() {
    let mut world = World::steady(1, 100, 200, 1);
    let old = world.ids(|_| true)[0].clone();
    let old_deployment = world.service.deployments[0].id.clone();
    world.deploy();

    let plan = world.pass();
    assert_eq!(starts(&plan), (1, 0));
    assert_eq!(plan.decisions[0].reason.code, ReasonCode::RollForward);
    assert!(!world.service.steady);
    world.run_pending(1);
    let plan = world.pass();
    assert_eq!((plan.decisions.len(), plan.wake_at), (0, Some(world.now + HEALTHY_AFTER)));
    assert_eq!(waits(&plan), [ReasonCode::WaitHealthy]);

    world.now = world.now + HEALTHY_AFTER;
    let plan = world.pass();
    let text = format!("Scaling activity initiated by (deployment {old_deployment})");
    assert_eq!(stops(&plan), [(&old, text.as_str(), &ReasonCode::RollOldDrained)]);
    assert_eq!(events(&plan), [format!("(service web) has stopped 1 running tasks: (task {old}).")]);
    assert_eq!(waits(&plan), [ReasonCode::WaitStopping]);
    assert_eq!(world.service.deployments.len(), 2);

    world.finish_stopping(1);
    world.pass();
    assert_eq!(world.service.deployments.len(), 1);
    assert_eq!(world.service.deployments[0].rollout, Rollout::Completed);
    assert!(world.service.steady);
}

#[test]
fn a_minimum_of_nothing_stops_the_old_one_first() {
    let mut world = World::steady(1, 0, 100, 1);
    world.deploy();
    assert_eq!((stops(&world.pass()).len(), world.tasks.len()), (1, 1));
    // A task that has not stopped yet still takes its room and its ports.
    assert_eq!(starts(&world.pass()), (0, 0));
    world.finish_stopping(1);
    assert_eq!(starts(&world.pass()), (1, 0));
}

#[test]
fn the_stuck_event_is_said_once_and_again_after_six_hours() {
    let mut world = World::steady(3, 100, 125, 1);
    world.deploy();
    assert!(events(&world.pass()).contains(&STUCK));
    world.now = world.now + 6 * 3_600_000 - 1;
    assert!(events(&world.pass()).is_empty());
    // As the newest event it stands for itself; once something else was said, it is said again.
    world.now = world.now + 1;
    assert!(events(&world.pass()).is_empty());
    let other = ServiceEvent { id: String::new(), at: world.now, message: "else".to_owned() };
    world.service.push_event(other);
    assert_eq!(events(&world.pass()), [STUCK]);
}

#[test]
fn an_unhealthy_task_is_replaced_before_it_is_stopped() {
    let mut world = World::new(3, 100, 200, 2);
    world.health_checked = true;
    world.settle();
    world.set_health(1, Health::Unhealthy);
    let sick = world.ids(|t| t.health == Health::Unhealthy)[0].clone();
    let plan = world.pass();
    assert_eq!(starts(&plan), (1, 1));
    assert_eq!(plan.decisions[0].reason.code, ReasonCode::ReplaceUnhealthy);
    assert!(stops(&plan).is_empty());
    assert_eq!(waits(&plan), [ReasonCode::WaitHealthy]);

    world.run_pending(1);
    assert!(world.pass().decisions.is_empty());
    let fresh = world.ids(|t| t.health == Health::Unknown)[0].clone();
    world.change(&fresh, |t| t.health = Health::Healthy);
    let plan = world.pass();
    assert_eq!(stops(&plan), [(&sick, "Task failed container health checks", &ReasonCode::ReplaceUnhealthy)]);
    assert_eq!(
        events(&plan),
        [
            format!("(service web) (task {sick}) failed container health checks."),
            format!("(service web) has stopped 1 running tasks: (task {sick}).")
        ]
    );
}

#[test]
fn without_room_unhealthy_tasks_go_first_and_one_by_one() {
    let mut world = World::new(4, 100, 100, 2);
    world.health_checked = true;
    world.settle();
    world.set_health(3, Health::Unhealthy);
    assert_eq!(stops(&world.pass()).len(), 1);
    assert_eq!(world.pass().decisions, []);
    world.finish_stopping(1);
    assert_eq!(starts(&world.pass()), (1, 1));
    world.run_pending(1);
    // The next goes when this one is known to be healthy.
    assert_eq!(world.pass().decisions, []);
    let fresh = world.ids(|t| t.health == Health::Unknown)[0].clone();
    world.change(&fresh, |t| t.health = Health::Healthy);
    assert_eq!(stops(&world.pass()).len(), 1);
}

#[test]
fn the_grace_period_closes_the_ears() {
    let mut world = World::new(2, 100, 200, 1);
    world.health_checked = true;
    world.service.health_check_grace_period_s = Some(30);
    world.pass();
    world.run_pending(2);
    let started = world.now;
    world.set_health(1, Health::Unhealthy);
    world.now = started + 29_999;
    let plan = world.pass();
    assert_eq!((plan.decisions.len(), plan.wake_at), (0, Some(started + 30_000)));
    world.now = started + 30_000;
    assert_eq!(starts(&world.pass()), (1, 1));
}

#[test]
fn draining_instances_are_left_within_the_bounds() {
    let mut world = World::steady(4, 100, 200, 2);
    world.change_instance(1, |i| i.status = InstanceStatus::Draining);
    let plan = world.pass();
    assert_eq!((starts(&plan), stops(&plan).len()), ((2, 0), 0));
    assert_eq!(plan.decisions[0].reason.code, ReasonCode::DrainInstance);
    world.run_pending(2);
    world.now = world.now + HEALTHY_AFTER;
    let plan = world.pass();
    assert_eq!(stops(&plan).len(), 2);
    assert!(stops(&plan).iter().all(|s| s.1.contains("container instance is in DRAINING state")));
    // 100/100 can neither start nor stop: ECS deadlocks, and says so.
    let mut world = World::steady(4, 100, 100, 2);
    world.change_instance(1, |i| i.status = InstanceStatus::Draining);
    assert_eq!(events(&world.pass()), [STUCK]);
}

#[test]
fn pending_tasks_on_draining_instances_stop_at_once() {
    let mut world = World::new(2, 100, 200, 2);
    world.pass();
    world.change_instance(1, |i| i.status = InstanceStatus::Draining);
    let plan = world.pass();
    assert_eq!((starts(&plan), stops(&plan).len()), ((1, 0), 1));
}

#[test]
fn a_lost_instance_s_tasks_count_for_a_grace_and_are_then_given_up() {
    let mut world = World::steady(4, 100, 200, 2);
    let at = world.now;
    world.change_instance(1, |i| (i.agent_connected, i.disconnected_at) = (false, Some(at)));
    let plan = world.pass();
    assert_eq!((plan.decisions.len(), plan.wake_at), (0, Some(at + LOST_AFTER)));
    assert_eq!(waits(&plan), [ReasonCode::InstanceLost]);
    assert_eq!(plan.waiting[0].evidence["tasks"], 2);
    assert!(world.service.steady);

    world.now = at + LOST_AFTER;
    let plan = world.plan();
    assert_eq!(starts(&plan), (2, 2));
    let given_up: Vec<&Action> =
        plan.decisions.iter().map(|d| &d.action).filter(|a| matches!(a, Action::GiveUp { .. })).collect();
    assert_eq!(given_up.len(), 2);
    world.pass();
    assert_eq!(world.tasks.len(), 4);
}

#[test]
fn a_deregistered_instance_s_tasks_are_given_up_at_once_even_stopping_ones() {
    let mut world = World::steady(2, 100, 200, 2);
    world.service.desired_count = 0;
    world.pass();
    world.change_instance(1, |i| i.status = InstanceStatus::Inactive);
    let plan = world.pass();
    let text = format!("Host EC2 (instance {}) terminated.", instance_id(1));
    assert!(plan.decisions.iter().any(|d| matches!(&d.action,
        Action::GiveUp { code: StopCode::TerminationNotice, text: t, .. } if *t == text)));
    assert_eq!(world.tasks.len(), 1);
}

#[test]
fn scale_in_takes_the_weakest_then_keeps_the_balance() {
    let mut world = World::steady(4, 100, 200, 4);
    // Instances 0 and 2 are in zone a: two tasks more on 0, one of them pending.
    let primary = world.service.deployments[0].id.clone();
    let running = world.put(primary.clone(), instance_id(0));
    let at = world.now - HEALTHY_AFTER;
    world.change(&running, |t| (t.last_status, t.started_at) = (TaskStatus::Running, Some(at)));
    let pending = world.put(primary, instance_id(1));
    let chosen = |world: &World| {
        stops(&world.plan())
            .iter()
            .map(|s| world.tasks[s.0].clone())
            .map(|t| (t.id.clone(), t.instance.clone()))
            .collect::<Vec<_>>()
    };
    world.service.desired_count = 5;
    assert_eq!(chosen(&world), [(pending.clone(), instance_id(1))], "not yet running goes first");
    world.service.desired_count = 4;
    assert_eq!(
        chosen(&world)[1],
        (running.clone(), instance_id(0)),
        "then the newest on the fullest instance of the fullest zone"
    );
    world.service.desired_count = 2;
    let left: Vec<_> = {
        let gone = chosen(&world);
        world.tasks.values().filter(|t| gone.iter().all(|g| g.0 != t.id)).map(|t| world.instances[&t.instance].zone()).collect()
    };
    assert_eq!(left.len(), 2);
    assert!(left.contains(&"a") && left.contains(&"b"), "{left:?}");
    let plan = world.plan();
    assert_eq!(stops(&plan)[0].2, &ReasonCode::AboveDesired);
}

#[test]
fn a_deleted_service_stops_everything_and_goes() {
    let mut world = World::steady(3, 100, 200, 2);
    world.service.status = ServiceStatus::Draining;
    let plan = world.pass();
    assert_eq!(stops(&plan).len(), 3);
    assert_eq!(waits(&plan), [ReasonCode::WaitStopping]);
    world.finish_stopping(3);
    let plan = world.pass();
    assert_eq!(plan.decisions.len(), 1);
    assert_eq!(world.service.status, ServiceStatus::Inactive);
}

#[test]
fn tasks_that_never_run_are_throttled_and_one_goes_ahead() {
    let mut world = World::new(4, 100, 200, 2);
    assert_eq!(starts(&world.pass()), (4, 0));
    world.fail_pending(4);
    let primary = &world.service.deployments[0];
    assert_eq!((primary.failed_tasks, primary.throttled_until), (4, Some(world.now + 1_000)));
    let plan = world.pass();
    assert_eq!(starts(&plan), (0, 0));
    assert_eq!(plan.wake_at, Some(world.now + 1_000));
    assert!(waits(&plan).contains(&ReasonCode::Throttled));
    assert_eq!(
        events(&plan),
        [
            "(service web) is unable to consistently start tasks successfully. For more information, see the Troubleshooting section \
          of the Amazon ECS Developer Guide."
        ]
    );
    let mut waited = Vec::new();
    for _ in 0..13 {
        world.now = world.service.deployments[0].throttled_until.unwrap();
        let plan = world.pass();
        assert_eq!((starts(&plan), events(&plan).len()), ((1, 0), 0), "the event is said once");
        world.now = world.now + 500;
        world.fail_pending(9);
        waited.push(world.service.deployments[0].throttled_until.unwrap().since(world.now));
    }
    assert_eq!(waited[..4], [2_000, 4_000, 8_000, 16_000]);
    assert_eq!(waited[12], backoff::THROTTLE_MAX_MS);

    world.now = world.service.deployments[0].throttled_until.unwrap();
    world.pass();
    world.run_pending(1);
    assert_eq!(world.service.deployments[0].failed_tasks, 0);
    assert_eq!(starts(&world.pass()), (3, 0), "one that runs opens the door");
}

#[test]
fn a_task_leaving_a_draining_instance_is_no_try() {
    let mut world = World::new(6, 0, 100, 5);
    world.pass();
    world.service.desired_count = 3;
    world.pass();
    world.fail_pending(3);
    world.finish_stopping(2);
    world.now = world.now + 1_000;
    world.pass();
    world.change_instance(1, |i| i.status = InstanceStatus::Draining);
    world.now = world.now + 1;
    world.pass();
}

#[test]
fn a_sidecar_without_health_check_does_not_block_for_ever() {
    let mut world = World::new(1, 100, 200, 1);
    world.health_checked = true;
    world.pass();
    world.run_pending(1);
    let id = world.ids(|_| true)[0].clone();
    let container = crate::model::task::Container {
        last_status: TaskStatus::Running,
        health: Health::Healthy,
        ..crate::model::task::Container::new("app".into(), "", "")
    };
    world.change(&id, |t| {
        t.containers = vec![container.clone(), crate::model::task::Container { health: Health::Unknown, ..container }]
    });
    assert_eq!(world.plan().wake_at, Some(world.now + HEALTHY_AFTER));
    world.now = world.now + HEALTHY_AFTER;
    world.pass();
    assert!(world.service.steady);
}

#[test]
fn events_name_at_most_a_hundred_tasks() {
    let ids: Vec<TaskId> = (0..103).map(|i| TaskId::new(format!("t{i}"))).collect();
    assert_eq!(started_event("s", &ids[..2], 0), "(service s) has started 2 tasks: (task t0) (task t1).");
    assert_eq!(
        started_event("s", &ids[..1], 1),
        "(service s) has started 1 tasks: (task t0). Amazon ECS replaced 1 tasks due to an unhealthy status."
    );
    let many = stopped_event("s", &ids);
    assert!(many.starts_with("(service s) has stopped 103 running tasks: (task t0) "));
    assert!(many.ends_with("(task t99) and 3 more."));
}

#[test]
fn five_thousand_tasks_are_one_quick_pass() {
    let mut world = World::new(5_000, 100, 200, 50);
    let primary = world.service.deployments[0].id.clone();
    let at = world.now - HEALTHY_AFTER;
    for i in 0..5_000 {
        let id = world.put(primary.clone(), instance_id(i * i % 50));
        world.change(&id, |t| (t.last_status, t.started_at) = (TaskStatus::Running, Some(at)));
    }
    world.service.desired_count = 2_000;
    let begun = std::time::Instant::now();
    assert_eq!(stops(&world.plan()).len(), 3_000);
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
}

#[test]
fn tasks_that_end_as_soon_as_they_run_are_followed_at_once_and_then_each_second() {
    let mut world = World::new(1, 100, 200, 1);
    let (id, now) = (world.service.deployments[0].id.clone(), world.now);
    for _ in 0..3 {
        after_task_ended_early(&mut world.service, &id, now);
        assert_eq!(world.service.deployments[0].throttled_until, None);
    }
    after_task_ended_early(&mut world.service, &id, now);
    assert_eq!(world.service.deployments[0].throttled_until, Some(now + 1_000));
    let plan = world.pass();
    assert_eq!((starts(&plan), plan.wake_at), ((0, 0), Some(now + 1_000)));
    assert!(events(&plan).iter().all(|e| !e.contains("consistently")), "ECS says that of tasks that never ran");
    world.now = now + 1_000;
    assert_eq!(starts(&world.pass()), (1, 0));
    // A longer throttle stands.
    world.service.deployments[0].throttled_until = Some(now + 60_000);
    after_task_ended_early(&mut world.service, &id, now);
    assert_eq!(world.service.deployments[0].throttled_until, Some(now + 60_000));
}
