//! What holds whatever happens: the bounds, idempotence, and that a world without further faults converges.

use proptest::prelude::*;

use super::world::World;
use super::*;
use crate::model::instance::InstanceStatus;
use crate::model::task::{Health, TaskStatus};

#[derive(Clone, Debug)]
enum Step {
    Wait(Millis),
    Run(usize),
    Fail(usize),
    Finish(usize),
    Sicken(usize),
    Heal(usize),
    Kill(usize),
    Desire(u32),
    Deploy,
    Instance(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_i64..70_000).prop_map(Step::Wait),
        (1_i64..2_500).prop_map(Step::Wait),
        (1_usize..6).prop_map(Step::Run),
        (1_usize..9).prop_map(Step::Run),
        (1_usize..4).prop_map(Step::Fail),
        (1_usize..6).prop_map(Step::Finish),
        (1_usize..4).prop_map(Step::Sicken),
        (1_usize..9).prop_map(Step::Heal),
        (1_usize..3).prop_map(Step::Kill),
        (0_u32..9).prop_map(Step::Desire),
        Just(Step::Deploy),
        (1_usize..5, 0_u8..5).prop_map(|(i, what)| Step::Instance(i, what)),
    ]
}

fn take(world: &mut World, step: &Step) {
    let now = world.now;
    match *step {
        Step::Wait(ms) => world.now = now + ms,
        Step::Run(n) => world.run_pending(n),
        Step::Fail(n) => world.fail_pending(n),
        Step::Finish(n) => world.finish_stopping(n),
        Step::Sicken(n) => world.set_health(n, Health::Unhealthy),
        Step::Heal(n) => world.set_health(n, Health::Healthy),
        Step::Kill(n) => {
            for id in world.ids(|t| t.last_status == TaskStatus::Running).into_iter().take(n) {
                world.tasks.remove(&id);
            }
        }
        Step::Desire(n) => world.service.desired_count = n,
        Step::Deploy => world.deploy(),
        Step::Instance(i, what) => world.change_instance(i, |instance| match what {
            0 => instance.status = InstanceStatus::Draining,
            1 => instance.status = InstanceStatus::Inactive,
            2 => instance.status = InstanceStatus::Active,
            3 => (instance.agent_connected, instance.disconnected_at) = (false, Some(now)),
            _ => (instance.agent_connected, instance.disconnected_at) = (true, None),
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// `World::pass` checks each plan: within the bounds, idempotent, waking later.
    #[test]
    fn whatever_happens_the_bounds_hold_and_the_service_converges(
        desired in 0_u32..9,
        minimum in 0_u32..=100,
        maximum in 100_u32..=250,
        checked in any::<bool>(),
        grace in prop::option::of(0_u32..20),
        steps in prop::collection::vec(step(), 0..60),
        last in 1_u32..9,
    ) {
        let mut world = World::new(desired, minimum, maximum, 5);
        world.health_checked = checked;
        world.service.health_check_grace_period_s = grace;
        for step in &steps {
            world.pass();
            take(&mut world, step);
        }
        // Where neither bound leaves a task's room, ECS cannot move, and neither can we.
        world.service.desired_count = last;
        let (lower, upper) = census::bounds(last, minimum, maximum);
        if lower == last && upper == last {
            world.service.maximum_percent = 200;
        }
        world.settle();
        let primary = world.service.deployments[0].id.clone();
        prop_assert_eq!(world.service.deployments.len(), 1);
        prop_assert_eq!(world.service.deployments[0].rollout, Rollout::Completed);
        prop_assert_eq!(world.tasks.len() as u32, last);
        prop_assert!(world.tasks.values().all(|t| t.deployment.as_ref() == Some(&primary) && world.is_healthy(t)));
        prop_assert!(world.service.steady);
        prop_assert!(world.events().last().is_some_and(|e| *e == "(service web) has reached a steady state."));
    }

    #[test]
    fn a_rollout_of_healthy_tasks_never_has_fewer_than_the_lower_bound(
        desired in 1_u32..12,
        minimum in 0_u32..=100,
        maximum in 100_u32..=200,
    ) {
        let mut world = World::steady(desired, minimum, maximum, 3);
        let (lower, upper) = census::bounds(desired, minimum, maximum);
        world.deploy();
        for _ in 0..200 {
            let plan = world.pass();
            let healthy = world.tasks.values().filter(|t| world.is_healthy(t)).count() as u32;
            prop_assert!(healthy >= lower && world.tasks.len() as u32 <= upper);
            world.run_pending(2);
            world.finish_stopping(1);
            world.now = plan.wake_at.unwrap_or(world.now + 1);
        }
        prop_assert_eq!(world.service.deployments.len() == 1, lower < desired || upper > desired);
    }
}
