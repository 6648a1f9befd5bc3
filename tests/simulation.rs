//! Whole worlds in simulated time: the real control plane and real agents on simulated engines, with faults. A seed that fails
//! prints itself and the least of its script that breaks the same; `SIM_SEED=n` runs that one alone.

#[path = "simulation/alerts.rs"]
mod alerts;
#[path = "simulation/golden.rs"]
mod golden;
#[path = "simulation/reaction.rs"]
mod reaction;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use beaufort::decide::alarm::INITIAL_STATE_REASON;
use beaufort::decide::autoscale;
use beaufort::model::alarm::{Alarm, AlarmState, Comparison, MissingData};
use beaufort::model::metric::{Datum, MetricKey, Observed, Statistic};
use beaufort::model::scaling::{PolicyKind, ScalableTarget, ScalingPolicy, TargetTracking, TrackedMetric};
use beaufort::model::task::{Resources, TaskStatus};
use beaufort::model::{DefinitionKey, Millis, ServiceKey, Timestamp};
use beaufort::sim::{self, Act, Options, Report, Script, Setup, Wire, World, generate, many, shrink};
use beaufort::store;
use serde_json::{Value, json};

/// A directory of its own for each world.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        Dir(many::new_dir())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is broken, the least script that breaks it, and the command line that repeats it.
fn told(script: &Script, report: &Report) -> String {
    let rule = report.breaches[0].rule;
    let fails = |script: &Script| many::run_one(script, false).breaches.iter().any(|breach| breach.rule == rule);
    let (small, _) = shrink::shrink(script, 200, fails);
    let breaches: String = report.breaches.iter().map(|breach| format!("{breach}\n")).collect();
    format!(
        "seed {0}:\n{breach}\n{script}\nAgain: beaufort simulate --seed {0}\n",
        report.seed,
        breach = breaches,
        script = small.to_text()
    )
}

fn options() -> Options {
    Options::default()
}

fn seeds(count: u64) -> std::ops::RangeInclusive<u64> {
    match std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed..=seed,
        None => 1..=count,
    }
}

/// Scripts that once broke something, made small: each is the story of a fault that was found so.
#[test]
fn what_was_found_once_holds() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/found");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = Script::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(many::run_one(&script, false).breaches, [], "{}", path.display());
    }
}

#[test]
fn two_hundred_seeds_of_faults_end_in_what_was_asked_for() {
    let mut seeds = seeds(200);
    let (mut failed, mut commits) = (Vec::new(), 0);
    many::run_all(
        2,
        false,
        || Some(generate::script(seeds.next()?, &options())),
        |script, report| {
            commits += report.commits;
            if !report.breaches.is_empty() {
                failed.push((script.clone(), report));
            }
            failed.len() < 3
        },
    );
    let told: String = failed.iter().map(|(script, report)| told(script, report)).collect();
    assert!(failed.is_empty(), "{told}");
    assert!(commits > 50, "the worlds did nothing");
}

/// A run depends on its script alone: not on threads, on memory addresses, or on how fast the machine is.
#[test]
fn a_script_that_is_run_again_does_the_same_in_the_same_order() {
    let count = seeds(24).count() as u64;
    let (mut scripts, repeated) = (seeds(24).flat_map(|seed| [seed, seed]), AtomicU64::new(0));
    let mut digests = BTreeMap::<u64, (u32, u64)>::new();
    many::run_all(
        2,
        false,
        || Some(generate::script(scripts.next()?, &options())),
        |_, report| {
            let told = (report.digest, report.commits);
            if let Some(before) = digests.insert(report.seed, told) {
                assert_eq!(before, told, "seed {}", report.seed);
                repeated.fetch_add(1, Ordering::Relaxed);
            }
            true
        },
    );
    assert_eq!(repeated.into_inner(), count);
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
    let told: String = world.checks.breaches.iter().map(|breach| format!("{breach}\n")).collect();
    assert!(told.is_empty(), "seed {}:\n{told}", world.seed);
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
    let dir = Dir::new();
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
        // Clients here take no refusal, so nothing strikes later than it is told to.
        let faults = ["kill", "oom", "agent", "wire", "engine", "slow", "crash"].map(str::to_owned).to_vec();
        let script = generate::script(seed, &Options { faults, ..Options::default() });
        let mut faults = script.commands.iter().filter_map(|command| match command.act {
            Act::Fault(fault) => Some(fault),
            _ => None,
        });
        let dir = Dir::new();
        let setup = Setup { data_dir: Some(dir.0.clone()), instances: script.head.instances.max(6), ..Setup::default() };
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
                    if let Some(fault) = faults.next() {
                        world.strike(fault).await;
                    }
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
    let dir = Dir::new();
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
