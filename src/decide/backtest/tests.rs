//! Back-tests by small, whole cases: what is recorded, what the policy makes of it.

use super::*;
use crate::decide::autoscale::policy_alarms;
use crate::model::ServiceKey;
use crate::model::alarm::{AlarmState, Comparison, MissingData};
use crate::model::arn::Home;
use crate::model::metric::{Datapoint, MetricKey, Statistic};
use crate::model::scaling::{AdjustmentType, Aggregation, PolicyKind, Step, StepScaling, TargetTracking, TrackedMetric};

pub(super) const START: Timestamp = Timestamp(1_795_170_000_000);
const LEAD: i64 = 120;

pub(super) fn web() -> ServiceKey {
    ServiceKey::new("shop", "web")
}

pub(super) fn policy(name: &str, kind: PolicyKind) -> ScalingPolicy {
    ScalingPolicy {
        service: web(),
        name: name.to_owned(),
        uuid: "u".to_owned(),
        arn: format!("arn:aws:autoscaling:r:a:scalingPolicy:u:resource/ecs/service/shop/web:policyName/{name}"),
        kind,
        alarms: Vec::new(),
        created_at: START,
    }
}

pub(super) fn tracking(name: &str, target: f64) -> Contender {
    let kind = PolicyKind::TargetTracking(TargetTracking {
        target,
        metric: TrackedMetric::Predefined {
            name: "ECSServiceAverageCPUUtilizationHighResolution".to_owned(),
            resource_label: None,
        },
        out_cooldown_ms: Some(10_000),
        in_cooldown_ms: Some(10_000),
        disable_scale_in: false,
    });
    let policy = policy(name, kind);
    let mut ids = 0;
    let mut uuid = || {
        ids += 1;
        format!("{name}-{ids}")
    };
    let alarms = policy_alarms(&policy, &Home::new("r", "a"), &mut uuid, START);
    Contender { policy, alarms }
}

pub(super) fn cpu() -> MetricKey {
    MetricKey::new("AWS/ECS", "CPUUtilization", [("ClusterName", "shop"), ("ServiceName", "web")])
}

fn points(values: impl IntoIterator<Item = f64>) -> Vec<Datapoint> {
    let at = |n: usize| START + (n as i64 - LEAD) * 1_000;
    values.into_iter().enumerate().map(|(n, value)| Datapoint { at: at(n), value, sample_count: 1.0 }).collect()
}

/// A load in tasks' worth, second by second, that `ran` tasks shared; the first value also fills what lies before the start.
pub(super) fn shared(load: &[f64], ran: u32) -> Record {
    let mut record = Record::new(START - LEAD * 1_000, START + load.len() as i64 * 1_000);
    let whole = std::iter::repeat_n(load[0], LEAD as usize).chain(load.iter().copied());
    let tasks = f64::from(ran);
    let series = record.series(&cpu(), &Statistic::Average, Some("Percent"), Model::Linear { ceiling: Some(100.0) });
    record.measured(series, &points(whole.map(|load| load * 100.0 / tasks)), 1_000);
    let all = LEAD as usize + load.len();
    record.ran(&points(std::iter::repeat_n(tasks, all)), 1_000);
    record.desired_was(&points(std::iter::repeat_n(tasks, all)), 1_000);
    record
}

pub(super) fn setup(contenders: Vec<Contender>, seconds: usize, (min, max): (u32, u32)) -> Setup {
    Setup {
        start: START,
        end: START + seconds as i64 * 1_000,
        settle_ms: 150,
        start_delay_ms: 2_000,
        feedback: Feedback::Closed,
        moves: Vec::new(),
        target: ScalableTarget {
            service: web(),
            id: "t".to_owned(),
            min,
            max,
            suspend_in: false,
            suspend_out: false,
            suspend_scheduled: false,
            tags: Vec::new(),
            created_at: START,
            last_out: None,
            last_in: None,
        },
        contenders,
    }
}

fn load(parts: &[(usize, f64)]) -> Vec<f64> {
    parts.iter().flat_map(|(seconds, load)| std::iter::repeat_n(*load, *seconds)).collect()
}

/// `+5 2>4 @7`: five seconds after the start from 2 to 4, whose tasks run at 7.
fn told(outcome: &Outcome) -> Vec<String> {
    let seconds = |at: Timestamp| at.since(START) / 1_000;
    let acts = outcome.decided.iter().filter_map(|d| {
        let ready = d.ready_at.map(|at| format!(" @{}", seconds(at))).unwrap_or_default();
        Some(format!("+{} {}>{}{ready}", seconds(d.at), d.from, d.to?))
    });
    acts.collect()
}

#[test]
fn load_that_doubles_is_followed_out_and_in() {
    // Four tasks ran all the time at 25 %, at 50 % from second 30 to 90, then at 12.5 %.
    let load = load(&[(30, 1.0), (60, 2.0), (90, 0.5)]);
    let record = shared(&load, 4);
    let outcome = run(&setup(vec![tracking("cpu", 50.0)], load.len(), (1, 10)), &record);
    // In to 2 at once, as the window before the start is known; out three seconds after the load; once more when the new tasks
    // run and the window still holds what was measured without them; in again by halves.
    let moves = ["+0 4>2", "+33 2>4 @35", "+35 4>6 @37", "+68 6>4", "+120 4>2", "+130 2>1"];
    assert_eq!(told(&outcome), moves, "{outcome:#?}");
    assert_eq!((outcome.running[29], outcome.running[34], outcome.running[36], outcome.running[179]), (2, 2, 4, 1));
    assert_eq!((outcome.metric[10], outcome.metric[36], outcome.metric[80]), (Some(50.0), Some(50.0), Some(50.0)));
    let first_out = outcome.decided.iter().find(|d| d.to == Some(4)).unwrap();
    assert_eq!(first_out.breach_at.map(|at| at.since(START)), Some(30_000), "the oldest breaching datapoint");
    assert_eq!(outcome.saturated_s, 0, "two tasks' worth on two tasks is all they can show, and no more");
}

#[test]
fn what_a_metric_cannot_show_is_counted() {
    let load = load(&[(40, 6.0)]);
    let record = shared(&load, 8);
    let outcome = run(&setup(vec![tracking("cpu", 75.0)], load.len(), (1, 4)), &record);
    assert_eq!(told(&outcome), Vec::<String>::new(), "eight ran, and above the maximum nothing is scaled out");
    let one = Setup { contenders: vec![tracking("cpu", 75.0)], ..setup(Vec::new(), load.len(), (1, 4)) };
    let mut less = record.clone();
    less.desired_was(&points(std::iter::repeat_n(2.0, 160)), 1_000);
    let outcome = run(&one, &less);
    assert!(outcome.saturated_s > 30 && outcome.metric.iter().flatten().all(|value| *value <= 100.0), "{}", outcome.saturated_s);
    assert_eq!(outcome.desired.last(), Some(&4));
}

fn queue(threshold: f64, steps: &[(Option<f64>, Option<f64>, i64)]) -> Contender {
    let kind = PolicyKind::Step(StepScaling {
        adjustment: AdjustmentType::ChangeInCapacity,
        steps: steps.iter().map(|&(lower, upper, adjustment)| Step { lower, upper, adjustment }).collect(),
        min_adjustment_magnitude: None,
        cooldown_ms: Some(30_000),
        aggregation: Aggregation::Average,
    });
    let policy = policy("steps", kind);
    let alarm = Alarm {
        metric: MetricKey::new("App", "Depth", []),
        statistic: Statistic::Maximum,
        unit: None,
        period_s: 10,
        evaluation_periods: 1,
        threshold,
        comparison: Comparison::GreaterThanThreshold,
        missing: MissingData::NotBreaching,
        owned_by_policy: None,
        state: AlarmState::Ok,
        ..tracking("other", 50.0).alarms.remove(0)
    };
    Contender { policy, alarms: vec![alarm] }
}

#[test]
fn a_queue_does_not_get_shorter_by_simulated_tasks() {
    let contender = queue(100.0, &[(Some(0.0), Some(50.0), 1), (Some(50.0), None, 3)]);
    let depth = load(&[(30, 10.0), (60, 120.0), (60, 400.0)]);
    let mut record = Record::new(START - LEAD * 1_000, START + 150_000);
    let series = record.series(&contender.alarms[0].metric, &Statistic::Maximum, None, Model::Constant);
    let lead = std::iter::repeat_n(10.0, LEAD as usize);
    record.measured(series, &points(lead.chain(depth.iter().copied())), 1_000);
    record.ran(&points([2.0]), 1_000);
    let outcome = run(&setup(vec![contender], 150, (1, 20)), &record);
    // Every 30 s one more while it is deep, and three as soon as it is very deep: one of them was added already in this cooldown.
    assert_eq!(outcome.metric, depth.iter().map(|value| Some(*value)).collect::<Vec<_>>());
    assert_eq!(told(&outcome), ["+40 2>3 @42", "+70 3>4 @72", "+100 4>7 @102", "+130 7>10 @132"], "{outcome:#?}");
}

#[test]
fn what_was_recorded_answers_for_itself_in_the_open() {
    let load = load(&[(30, 2.0), (30, 4.0)]);
    let record = shared(&load, 4);
    let open = Setup { feedback: Feedback::Open, ..setup(vec![tracking("cpu", 50.0)], load.len(), (1, 10)) };
    let outcome = run(&open, &record);
    assert_eq!(told(&outcome), ["+33 4>8"], "said once, as nothing comes of it");
    assert!(outcome.running.iter().all(|n| *n == 4) && outcome.desired.iter().all(|n| *n == 4));
    assert_eq!(outcome.metric[59], Some(100.0));
}

#[test]
fn nothing_recorded_decides_nothing() {
    let record = Record::new(START - LEAD * 1_000, START + 60_000);
    let outcome = run(&setup(vec![tracking("cpu", 50.0)], 60, (1, 10)), &record);
    assert_eq!((outcome.decided.len(), outcome.running.len()), (0, 60));
    assert!(outcome.metric.iter().all(Option::is_none));
}

#[test]
fn minutes_stand_for_each_of_their_seconds() {
    let mut record = Record::new(START, START + 120_000);
    let average = record.series(&cpu(), &Statistic::Average, None, Model::Linear { ceiling: None });
    let sum = record.series(&cpu(), &Statistic::Sum, None, Model::Constant);
    let minute = |n: i64, value: f64, sample_count: f64| Datapoint { at: START + n * 60_000, value, sample_count };
    record.measured(average, &[minute(0, 40.0, 120.0), minute(1, 60.0, 240.0)], 60_000);
    record.measured(sum, &[minute(0, 600.0, 60.0)], 60_000);
    record.ran(&[minute(0, 2.0, 60.0), minute(1, 4.0, 60.0)], 60_000);
    let period = |series, at: i64, ms, tasks| record.period(series, START + at, ms, |_| tasks).map(|p| (p.value, p.sample_count));
    assert_eq!(period(average, 0, 1_000, None), Some((40.0, 2.0)));
    assert_eq!(period(average, 30_000, 60_000, None), Some(((40.0 * 60.0 + 60.0 * 120.0) / 180.0, 180.0)), "weighed by samples");
    assert_eq!(period(average, 0, 60_000, Some(1)), Some((80.0, 60.0)), "the load of two on one");
    assert_eq!(period(average, 0, 60_000, Some(0)), None, "no task, no utilization");
    assert_eq!(period(sum, 0, 60_000, None).map(|(value, _)| value.round()), Some(600.0));
    assert_eq!(period(sum, 60_000, 60_000, None), None);
    // Finer answers take the place of coarser ones.
    record.measured(average, &[Datapoint { at: START, value: 99.0, sample_count: 1.0 }], 1_000);
    assert_eq!((record.value(average, 0), record.value(average, 1)), (Some(99.0), Some(40.0)));
}
