//! Prometheus' alerts in simulated worlds: what Alertmanager says, says twice, cannot say while the control plane is down, or stops saying.

use beaufort::model::alarm::AlarmState;

use super::*;

/// Step policies `out` (two more) and `in` (one less), 5 s of cooldown each, through the API.
async fn scaled_by_alerts(world: &mut World, desired: u32, max: u32) {
    register(world, "web", json!({"image": "sim/start@200ms"})).await;
    ecs(world, "CreateService", json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": desired})).await;
    let of = |more: Value| {
        let mut input = json!({"ServiceNamespace": "ecs", "ResourceId": "service/default/web", "ScalableDimension": "ecs:service:DesiredCount"});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let autoscaling = "application-autoscaling";
    world.call(autoscaling, "RegisterScalableTarget", of(json!({"MinCapacity": 1, "MaxCapacity": max}))).await.unwrap();
    let steps = [
        ("out", json!({"MetricIntervalLowerBound": 0, "ScalingAdjustment": 2})),
        ("in", json!({"MetricIntervalUpperBound": 0, "ScalingAdjustment": -1})),
    ];
    for (name, step) in steps {
        let config = json!({"AdjustmentType": "ChangeInCapacity", "Cooldown": 5, "StepAdjustments": [step]});
        let policy = of(json!({"PolicyName": name, "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": config}));
        world.call(autoscaling, "PutScalingPolicy", policy).await.unwrap();
    }
    assert!(world.run_until(20_000, |w| running(w) == desired).await);
}

fn message(policy: &str, status: &str, value: f64, starts_at: Timestamp) -> Value {
    let labels =
        json!({"alertname": "Requests", "cluster": "default", "service": "web", "policy": policy, "beaufort_action": "scale"});
    let alert = json!({"status": status, "labels": labels, "annotations": {"value": value.to_string(), "threshold": "100"},
        "startsAt": starts_at.iso(), "generatorURL": "http://p", "fingerprint": format!("f{policy}")});
    json!({"version": "4", "groupKey": policy, "alerts": [alert]})
}

fn states(world: &World) -> Vec<AlarmState> {
    world.state().alarms.values().filter(|a| a.external.is_some()).map(|a| a.state).collect()
}

#[test]
fn an_alert_scales_out_step_by_step_through_a_crash_and_another_scales_in() {
    let dir = Dir::new();
    sim::block_on(async {
        let mut world = World::new(77, Setup { data_dir: Some(dir.0.clone()), ..Setup::default() }).await.unwrap();
        scaled_by_alerts(&mut world, 1, 8).await;
        let fired = world.now();
        let out = message("out", "firing", 250.0, fired);
        world.alertmanager(&out).await.unwrap();
        assert!(world.run_until(1_000, |w| desired(w) == 3).await, "the first step is at once");
        for _ in 0..10 {
            assert_eq!(world.alertmanager(&out).await.unwrap()["alerts"], json!({"duplicate": 1}));
        }
        world.run_for(3_000).await;
        assert_eq!(desired(&world), 3, "a message that comes again is no second step, and the cooldown goes on");
        assert!(world.run_until(4_000, |w| desired(w) == 5).await, "it still fires after the cooldown");

        world.crash(3_000).await;
        assert!(world.alertmanager(&out).await.is_err(), "nobody answers");
        assert!(world.run_until(20_000, World::is_up).await);
        assert!(world.run_until(10_000, |w| desired(w) == 7).await, "it goes on where it was, without a message");
        assert!(world.run_until(10_000, |w| desired(w) == 8).await, "the last step is held at the maximum");
        world.alertmanager(&message("out", "resolved", 250.0, fired)).await.unwrap();
        world.run_for(15_000).await;
        assert_eq!((desired(&world), states(&world)), (8, vec![AlarmState::Ok]));

        let idle = message("in", "firing", 3.0, world.now());
        let begun = world.now();
        world.alertmanager(&idle).await.unwrap();
        while desired(&world) > 1 && world.now().since(begun) < 120_000 {
            world.run_for(1_000).await;
            if world.now().since(begun) % 30_000 < 1_000 {
                world.alertmanager(&idle).await.unwrap();
            }
        }
        assert_eq!(desired(&world), 1);
        assert!(world.now().since(begun) >= 6 * 5_000, "seven tasks less are seven steps, each with its cooldown");
        world.settle(30_000).await;
        sound(&world);
    })
    .unwrap();
}

#[test]
fn an_alert_whose_end_is_never_told_ends_by_itself() {
    sim::block_on(async {
        let mut world = World::new(78, Setup::default()).await.unwrap();
        scaled_by_alerts(&mut world, 1, 40).await;
        let out = message("out", "firing", 250.0, world.now());
        world.alertmanager(&out).await.unwrap();
        for _ in 0..4 {
            world.run_for(30_000).await;
            assert_eq!(states(&world), [AlarmState::Alarm], "repeated in time");
            world.alertmanager(&out).await.unwrap();
        }
        let silent = world.now();
        assert!(world.run_until(200_000, |w| states(w) == [AlarmState::InsufficientData]).await);
        let after = world.now().since(silent);
        assert!((90_000..92_000).contains(&after), "expired after {after} ms, three repeats of 30 s");
        let before = desired(&world);
        world.run_for(60_000).await;
        assert_eq!(desired(&world), before, "an alert that nobody speaks of scales nothing");
        // Alertmanager is back, and the same alert fires on.
        world.alertmanager(&out).await.unwrap();
        world.run_for(100).await;
        assert_eq!(states(&world), [AlarmState::Alarm]);
        sound(&world);
    })
    .unwrap();
}
