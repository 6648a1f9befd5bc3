//! The past read again, against a run of the whole: a simulated world scales under a load, and from what it wrote down a
//! back-test of the very policy that ran comes to the capacity that there was, every decision comes out the same, and the journal
//! tells the state.

use std::path::PathBuf;
use std::sync::Arc;

use beaufort::api::App;
use beaufort::decide::backtest::figures::moves;
use beaufort::model::{ServiceKey, Timestamp};
use beaufort::replay::files::Files;
use beaufort::replay::given::Document;
use beaufort::replay::recording::{Known, Window, plan};
use beaufort::replay::report::{Options, Report, back_test};
use beaufort::replay::sides;
use beaufort::replay::transcript::{Filter, Line, Place, lines};
use beaufort::replay::verify::Verified;
use beaufort::sim::{self, Setup, World};
use serde_json::{Value, json};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = parent.join(format!("beaufort-replay-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn web() -> ServiceKey {
    ServiceKey::new("default", "web")
}

async fn call(world: &mut World, service: &str, operation: &str, input: Value) -> Value {
    world.call(service, operation, input).await.unwrap_or_else(|refused| panic!("{operation}: {refused}"))
}

fn tracking(name: &str, target: f64) -> Value {
    json!({"PolicyName": name, "ServiceNamespace": "ecs", "ResourceId": "service/default/web",
        "ScalableDimension": "ecs:service:DesiredCount", "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {"TargetValue": target, "ScaleOutCooldown": 5, "ScaleInCooldown": 10,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution"}}})
}

/// A service that tracks 50 % through a morning of `loads`: for so many seconds so many tasks' worth of cores each.
async fn morning(world: &mut World, policies: &[Value], loads: &[(i64, f64)]) -> Timestamp {
    let container = json!({"name": "app", "image": "sim/start@700ms", "cpu": 256, "memory": 128, "essential": true});
    call(world, "ecs", "RegisterTaskDefinition", json!({"family": "web", "containerDefinitions": [container]})).await;
    call(world, "ecs", "CreateService", json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 2})).await;
    let two = |w: &World| w.checks.seen.running(&web()).len() == 2;
    assert!(world.run_until(30_000, two).await);
    world.set_demand(&web(), 2.0 * 0.25 * 0.48);
    let target = json!({"ServiceNamespace": "ecs", "ResourceId": "service/default/web",
        "ScalableDimension": "ecs:service:DesiredCount", "MinCapacity": 2, "MaxCapacity": 12});
    call(world, "application-autoscaling", "RegisterScalableTarget", target).await;
    world.run_for(10_000).await;
    let begun = world.now();
    for policy in policies {
        call(world, "application-autoscaling", "PutScalingPolicy", policy.clone()).await;
    }
    for (seconds, tasks) in loads {
        world.set_demand(&web(), tasks * 0.25 * 0.48);
        world.run_for(seconds * 1_000).await;
    }
    begun
}

const LOADS: [(i64, f64); 6] = [(20, 2.0), (60, 5.0), (60, 9.0), (90, 4.0), (30, 7.0), (120, 2.0)];

/// From the running world's own stores, as a server gives it.
async fn reported(app: &Arc<App>, documents: &[Value], window: Window) -> (Known, Report) {
    let key = web();
    let state = app.store.snapshot();
    let query = beaufort::store::RecordQuery {
        subject: Some(key.resource_id()),
        limit: 10_000,
        ..beaufort::store::RecordQuery::decisions()
    };
    let mut decisions = Vec::new();
    for (_, record) in app.store.records(query).await.unwrap().into_iter().rev() {
        if let beaufort::store::Record::Decision(decision) = record {
            decisions.extend((window.since <= decision.at && decision.at <= window.until).then_some(decision));
        }
    }
    let target = state.targets.get(&key).map(|target| (**target).clone());
    let known = Known { service: key.clone(), target, alarms: Vec::new(), decisions };
    let (mut givens, mut records) = (Vec::new(), Vec::new());
    for document in documents {
        let name = format!("{}.json", document["PolicyName"].as_str().unwrap());
        let given = Document::parse(&name, &document.to_string()).unwrap().of(&key, &[], &app.home, window.since).unwrap();
        let plan = plan(&key, &given.contenders.iter().collect::<Vec<_>>(), window, window.until);
        let answers: Vec<_> = plan.fetches.iter().map(|fetch| app.metrics.query(&fetch.query)).collect();
        records.push(plan.record(&answers, None));
        givens.push(given);
    }
    let report = back_test(&known, &givens, &records, window, Options::default()).unwrap();
    (known, report)
}

/// The bound: the same moves in the same order, each within three seconds; and the two capacity curves differ by no more than three
/// seconds of each move, which is what datapoints take to arrive and alarms to be judged.
#[test]
fn a_back_test_of_the_policy_that_ran_comes_to_the_capacity_that_there_was() {
    let dir = Dir::new("reproduces");
    let setup = Setup { data_dir: Some(dir.0.clone()), ..Setup::default() };
    sim::block_on(async {
        let mut world = World::new(11, setup).await.unwrap();
        let policy = tracking("cpu-50", 50.0);
        let since = morning(&mut world, std::slice::from_ref(&policy), &LOADS).await;
        let window = Window { since: since.floor(1_000), until: world.now().floor(1_000) - 2_000, step_ms: 1_000 };
        let app = world.app().expect("it runs").clone();
        let (known, report) = reported(&app, &[policy, tracking("cpu-80", 80.0)], window).await;
        let (actual, same, looser) = (&report.actual, &report.policies[0], &report.policies[1]);

        let was = moves(&known.decisions);
        let would: Vec<_> = same.decided.iter().filter_map(|d| Some((d.at, d.from, d.to?))).collect();
        assert!(was.len() >= 6, "the load was to move it a few times: {was:?}");
        assert_eq!(
            was.iter().map(|m| (m.from, m.to)).collect::<Vec<_>>(),
            would.iter().map(|(_, a, b)| (*a, *b)).collect::<Vec<_>>()
        );
        for (was, (at, ..)) in was.iter().zip(&would) {
            assert!(was.at.since(*at).abs() <= 3_000, "{} was, {at} would have been: {was:?}", was.at);
        }
        let apart: f64 = actual.running.iter().zip(&same.running).map(|(a, b)| (a.unwrap() - b.unwrap()).abs()).sum();
        let bound: f64 = was.iter().map(|m| f64::from(m.from.abs_diff(m.to)) * 3.0).sum();
        assert!(apart <= bound, "the curves are {apart} task-seconds apart, and {bound} are allowed for {} moves", was.len());
        assert!(
            (same.figures.task_hours() / actual.figures.task_hours() - 1.0).abs() < 0.05,
            "{:?}",
            (&same.figures, &actual.figures)
        );
        assert!(looser.figures.task_hours() < same.figures.task_hours() * 0.9, "80 % needs fewer tasks than 50 %");
        assert!(report.notes.iter().any(|note| note.contains("recorded scale-outs")), "{:?}", report.notes);

        // The same policy on what was: nothing parts.
        let key = web();
        let given = Document::parse("same.json", &tracking("cpu-50", 50.0).to_string()).unwrap();
        let given = given.of(&key, &[], &app.home, window.since).unwrap();
        let plan = plan(&key, &given.contenders.iter().collect::<Vec<_>>(), window, window.until);
        let files = Files::open(&dir.0).unwrap();
        let record = plan.record(&files.answers(&plan).unwrap(), None);
        let from_server: Vec<_> = plan.fetches.iter().map(|fetch| app.metrics.query(&fetch.query)).collect();
        assert_eq!(record, plan.record(&from_server, None), "beside the server, its files say what it says");
        let rows = sides::compare(&known, &given, &record, window, Options::default()).unwrap();
        let parted: Vec<_> = rows.iter().filter(|row| !row.is_same()).collect();
        assert!(parted.is_empty() && rows.len() == was.len(), "{parted:#?}");

        // Every decision is made again, and the journal comes to the state.
        let mut verified = Verified::default();
        let decided = Filter { decisions_only: true, ..Filter::default() };
        for line in lines(&files.journal, decided, Place::default()).unwrap() {
            if let Line::Decision { decision, .. } = line.unwrap() {
                assert_eq!(verified.look(&decision), None);
            }
        }
        assert!(verified.same as usize >= was.len() && verified.without_inputs == 0, "{verified:?}");
        let state = app.store.snapshot();
        let read = files.journal.state_at(state.revision).unwrap();
        assert_eq!((read.unknown, &read.state.tasks, &read.state.services), (0, &state.tasks, &state.services));
        let told: Vec<Line> =
            lines(&files.journal, Filter::default(), Place::default()).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(told.windows(2).all(|pair| pair[0].at() <= pair[1].at()), "by time");
        let of_web = Filter { service: Some(web()), ..Filter::default() };
        let of_web = lines(&files.journal, of_web, Place::default()).unwrap().count();
        assert!(of_web > was.len() && of_web < told.len(), "{of_web} of {}", told.len());
    })
    .unwrap();
}
