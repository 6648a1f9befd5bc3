//! Whole worlds in simulated time: the real control plane and real agents on simulated engines, with faults. A seed that fails
//! prints itself and its story; `SIM_SEED=n` runs that one alone.

#[path = "simulation/alerts.rs"]
mod alerts;
#[path = "simulation/reaction.rs"]
mod reaction;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use beaufort::decide::alarm::INITIAL_STATE_REASON;
use beaufort::decide::autoscale;
use beaufort::model::alarm::{Alarm, AlarmState, Comparison, MissingData};
use beaufort::model::metric::{Datum, MetricKey, Observed, Statistic};
use beaufort::model::scaling::{PolicyKind, ScalableTarget, ScalingPolicy, TargetTracking, TrackedMetric};
use beaufort::model::task::{Resources, TaskStatus};
use beaufort::model::{DefinitionKey, Millis, ServiceKey, Timestamp};
use beaufort::sim::{self, Fault, Options, Report, Setup, Wire, World};
use beaufort::store;
use serde_json::{Value, json};

/// A directory of its own for each world, where fsync costs nothing if there is such a place: what is checked is what was written
/// before whom was answered, not the disk.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = parent.join(format!("beaufort-sim-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(name: &str, seed: u64, options: Options) -> Report {
    let dir = Dir::new(&format!("{name}-{seed}"));
    let setup = Setup { data_dir: Some(dir.0.clone()), ..options.setup.clone() };
    sim::block_on(sim::run(seed, Options { setup, ..options })).expect("a runtime").expect("a world")
}

fn holds(report: &Report) {
    let Report { seed, breaches, story, .. } = report;
    assert!(breaches.is_empty(), "seed {seed}:\n{}\n\nafter\n{}", breaches.join("\n"), story.join("\n"));
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

#[test]
fn twenty_four_seeds_of_faults_end_in_what_was_asked_for() {
    for seed in seeds(24) {
        holds(&run("faults", seed, Options::default()));
    }
}

#[test]
fn lines_change_nothing_about_that() {
    for seed in seeds(4) {
        holds(&run("lines", seed, Options { lines: true, ..Options::default() }));
    }
}

async fn ecs(world: &mut World, operation: &str, input: Value) -> Value {
    world.call("ecs", operation, input).await.unwrap_or_else(|refused| panic!("{operation}: {refused}"))
}

async fn register(world: &mut World, family: &str, container: Value) {
    let mut app = json!({"name": "app", "image": "sim/ok", "cpu": 256, "memory": 128, "essential": true});
    app.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    ecs(world, "RegisterTaskDefinition", json!({"family": family, "containerDefinitions": [app]})).await;
}

fn behaving(behaviour: &str, check: &Value) -> Value {
    json!({"environment": [{"name": "SIM", "value": behaviour}], "healthCheck": check})
}

fn web() -> ServiceKey {
    ServiceKey::new("default", "web")
}

fn desired(world: &World) -> u32 {
    world.checks.seen.services[&web()].desired_count
}

fn running(world: &World) -> u32 {
    world.checks.seen.running(&web()).len() as u32
}

fn sound(world: &World) {
    assert!(world.checks.breaches.is_empty(), "seed {}:\n{}", world.seed, world.checks.breaches.join("\n"));
}

/// Tracks CPU at 50 % with second-fine data, straight in the store: what Application Auto Scaling's API leaves there.
async fn track_cpu(world: &mut World, min: u32, max: u32) {
    let app = world.app().expect("it runs").clone();
    let policy = ScalingPolicy {
        service: web(),
        name: "cpu".into(),
        uuid: app.ids.uuid(),
        arn: app.home.scaling_policy(&app.ids.uuid(), &web().resource_id(), "cpu"),
        kind: PolicyKind::TargetTracking(TargetTracking {
            target: 50.0,
            metric: TrackedMetric::Predefined {
                name: "ECSServiceAverageCPUUtilizationHighResolution".into(),
                resource_label: None,
            },
            out_cooldown_ms: Some(5_000),
            in_cooldown_ms: Some(10_000),
            disable_scale_in: false,
        }),
        alarms: vec![],
        created_at: world.now(),
    };
    let target = ScalableTarget {
        service: web(),
        id: app.ids.uuid(),
        min,
        max,
        suspend_in: false,
        suspend_out: false,
        suspend_scheduled: false,
        tags: vec![],
        created_at: world.now(),
        last_out: None,
        last_in: None,
    };
    let alarms = autoscale::policy_alarms(&policy, &app.home, &mut || app.ids.uuid(), world.now());
    let names = alarms.iter().map(|a| a.name.clone()).collect();
    app.store
        .update("test", move |tx| {
            tx.put(target);
            tx.put(ScalingPolicy { alarms: names, ..policy });
            alarms.into_iter().for_each(|alarm| tx.put(alarm));
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
}

#[test]
fn a_thousand_tasks_through_a_scale_out_a_crash_and_a_scale_in() {
    let dir = Dir::new("thousand");
    let resources = Resources { cpu: 8_192, memory: 16_384, ..Resources::default() };
    let setup = Setup { instances: 50, resources, data_dir: Some(dir.0.clone()), ..Setup::default() };
    sim::block_on(async {
        let mut world = World::new(1_000, setup).await.unwrap();
        register(&mut world, "web", json!({"image": "sim/start@300ms"})).await;
        ecs(&mut world, "CreateService", json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 600})).await;
        assert!(world.run_until(30_000, |w| running(w) == 600).await, "{} run", running(&world));
        world.set_demand(&web(), 600.0 * 0.25 * 0.5);
        track_cpu(&mut world, 100, 1_000).await;
        world.run_for(40_000).await;
        assert_eq!(desired(&world), 600, "on target, and yet it scaled");

        let loaded = world.now();
        world.set_demand(&web(), 140.0);
        assert!(world.run_until(20_000, |w| desired(w) == 1_000).await, "desired {}", desired(&world));
        let decided_after = world.now().since(loaded);
        assert!(decided_after <= 6_000, "scaled out after {decided_after} ms");
        assert!(world.run_until(20_000, |w| running(w) > 700).await);
        assert!(running(&world) < 1_000, "too late to crash in the middle");
        world.crash(3_000).await;
        assert!(world.run_until(60_000, |w| w.is_up() && running(w) == 1_000).await, "{} run", running(&world));
        world.run_for(10_000).await;
        assert_eq!((desired(&world), running(&world)), (1_000, 1_000));

        world.set_demand(&web(), 10.0);
        assert!(world.run_until(300_000, |w| (desired(w), running(w)) == (100, 100)).await, "desired {}", desired(&world));
        world.settle(60_000).await;
        let mut zones = BTreeMap::<String, u32>::new();
        for task in world.checks.seen.live() {
            *zones.entry(world.checks.seen.instances[&task.instance].zone().to_owned()).or_default() += 1;
        }
        assert!(zones.len() == 3 && zones.values().all(|n| (33..=34).contains(n)), "{zones:?}");
        assert!(world.checks.decisions > 1_900, "{} decisions", world.checks.decisions);
        sound(&world);
    })
    .unwrap();
}

#[test]
fn a_rollout_keeps_its_bounds_whatever_breaks() {
    for seed in seeds(8) {
        let dir = Dir::new(&format!("rollout-{seed}"));
        let setup = Setup { data_dir: Some(dir.0.clone()), ..Setup::default() };
        sim::block_on(async {
            let mut world = World::new(seed, setup).await.unwrap();
            let check = json!({"command": ["CMD-SHELL", "true"]});
            register(&mut world, "web", behaving("health@2s+start@200ms", &check)).await;
            let input = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 24,
                "deploymentConfiguration": {"minimumHealthyPercent": 75, "maximumPercent": 125}});
            ecs(&mut world, "CreateService", input).await;
            assert!(world.run_until(60_000, |w| running(w) == 24).await);
            world.run_for(5_000).await;
            // A revision that never becomes healthy takes no more than the bounds allow, and the next one heals it.
            register(&mut world, "web", behaving("exit:1@1s", &check)).await;
            ecs(&mut world, "UpdateService", json!({"service": "web", "taskDefinition": "web"})).await;
            for _ in 0..200 {
                world.run_for(100).await;
                let serving = world.checks.seen.live_of_service(&web()).filter(|t| t.definition.revision == 1).count();
                assert!(serving >= 18, "seed {seed}: {serving} of 24 serve");
            }
            for revision in 3..6 {
                register(&mut world, "web", behaving("health@2s+start@500ms", &check)).await;
                while world
                    .call("ecs", "UpdateService", json!({"service": "web", "taskDefinition": format!("web:{revision}")}))
                    .await
                    .is_err()
                {
                    world.run_for(1_000).await;
                }
                for _ in 0..5 {
                    world.run_for(2_000).await;
                    let fault = Fault::random(&mut world);
                    fault.strike(&mut world).await;
                }
                assert!(world.run_until(10_000, World::is_up).await);
            }
            world.settle(300_000).await;
            let newest = DefinitionKey::new("web", 5);
            assert!(world.checks.seen.live().all(|t| t.definition == newest), "seed {seed}");
            sound(&world);
        })
        .unwrap();
    }
}

fn metric() -> MetricKey {
    MetricKey::new("Shop", "Latency", [])
}

fn alarm(missing: MissingData, now: Timestamp) -> Alarm {
    Alarm {
        name: format!("slow-{}", missing.as_str()),
        description: None,
        actions_enabled: true,
        ok_actions: vec![],
        alarm_actions: vec![],
        insufficient_data_actions: vec![],
        metric: metric(),
        statistic: Statistic::Average,
        period_s: 10,
        unit: None,
        evaluation_periods: 3,
        datapoints_to_alarm: None,
        threshold: 100.0,
        comparison: Comparison::GreaterThanThreshold,
        missing,
        missing_given: true,
        owned_by_policy: None,
        state: AlarmState::InsufficientData,
        state_reason: INITIAL_STATE_REASON.to_owned(),
        state_reason_data: None,
        recent: vec![],
        state_updated_at: now,
        state_transitioned_at: now,
        configuration_updated_at: now,
        tags: vec![],
        trace: None,
        external: None,
    }
}

async fn say(world: &mut World, value: f64, ms: Millis) {
    let end = world.now() + ms;
    while world.now() < end {
        let app: Arc<_> = world.app().expect("it runs").clone();
        let datum = Datum {
            key: metric(),
            at: world.now().floor(1_000),
            value: Observed::Value(value),
            unit: "Milliseconds".into(),
            resolution_s: 1,
        };
        app.metrics.put(&[datum]);
        drop(app);
        world.run_for(1_000).await;
    }
}

fn states(world: &World) -> Vec<&'static str> {
    ["missing", "ignore", "breaching", "notBreaching"]
        .map(|m| world.checks.seen.alarms[&format!("slow-{m}")].state.as_str())
        .to_vec()
}

#[test]
fn alarms_tell_missing_data_as_they_were_told_to_also_after_a_crash() {
    let dir = Dir::new("alarms");
    let setup = Setup { instances: 1, data_dir: Some(dir.0.clone()), ..Setup::default() };
    sim::block_on(async {
        let mut world = World::new(4, setup).await.unwrap();
        let (store, now) = (world.app().expect("it runs").store.clone(), world.now());
        let put = store.update("test", move |tx| {
            let all = [MissingData::Missing, MissingData::Ignore, MissingData::Breaching, MissingData::NotBreaching];
            all.into_iter().for_each(|missing| tx.put(alarm(missing, now)));
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        drop(store);
        say(&mut world, 20.0, 60_000).await;
        assert_eq!(states(&world), ["OK"; 4]);
        say(&mut world, 200.0, 60_000).await;
        assert_eq!(states(&world), ["ALARM"; 4]);
        world.run_for(90_000).await;
        let silent = ["INSUFFICIENT_DATA", "ALARM", "ALARM", "OK"];
        assert_eq!(states(&world), silent);
        world.crash(2_000).await;
        world.run_for(60_000).await;
        assert_eq!(states(&world), silent, "after the crash");
        say(&mut world, 20.0, 60_000).await;
        assert_eq!(states(&world), ["OK"; 4]);
        sound(&world);
    })
    .unwrap();
}

#[test]
fn a_silent_agent_is_noticed_however_busy_the_others_are() {
    sim::block_on(async {
        let mut world = World::new(5, Setup::default()).await.unwrap();
        register(&mut world, "web", json!({"image": "sim/exit:0@2s"})).await;
        ecs(&mut world, "CreateService", json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 12})).await;
        world.run_for(5_000).await;
        world.break_wire(0, Wire::Silent, 600_000);
        let id = world.hosts[0].instance().expect("it was welcomed");
        let noticed = world.run_until(20_000, |w| !w.checks.seen.instances[&id].agent_connected).await;
        assert!(noticed, "commits that pass by kept a silent session alive");
        let lost = |w: &World| w.checks.seen.live_of_instance(&id).count() == 0;
        assert!(world.run_until(70_000, lost).await, "its tasks were not replaced");
        assert!(world.checks.seen.tasks.values().any(|t| t.last_status == TaskStatus::Stopped && t.instance == id));
        sound(&world);
    })
    .unwrap();
}

#[test]
fn an_agent_whose_engine_comes_late_is_waited_for() {
    sim::block_on(async {
        let mut world = World::new(6, Setup::default()).await.unwrap();
        let id = world.hosts[0].instance().expect("it was welcomed");
        world.break_engine(0, false, 40_000);
        world.restart_agent(0, 1_000).await;
        world.run_for(39_000).await;
        assert!(!world.hosts[0].gave_up() && !world.checks.seen.instances[&id].agent_connected);
        assert!(world.run_until(20_000, |w| w.checks.seen.instances[&id].agent_connected).await);
    })
    .unwrap();
}
