//! Golden outputs of small recorded cases, and what files of policies may hold.

use serde_json::json;

use super::given::Document;
use super::recording::{CapacityModel, Known, Window, plan};
use super::report::{Options, Report, back_test};
use super::sides::rows;
use super::verify::Verified;
use super::*;
use crate::decide::backtest::Decided;
use crate::decide::backtest::figures::Move;
use crate::model::alarm::Alarm;
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::metric::Datapoint;
use crate::model::scaling::{PolicyKind, ScalableTarget};
use crate::model::{ServiceKey, Timestamp};

/// 2026-11-20T10:20:00Z.
pub const NOON: Timestamp = Timestamp(1_795_170_000_000);

fn web() -> ServiceKey {
    ServiceKey::new("shop", "web")
}

fn policy(target: f64) -> serde_json::Value {
    json!({"TargetTrackingScalingPolicyConfiguration": {"TargetValue": target, "ScaleOutCooldown": 10, "ScaleInCooldown": 10,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution"}}})
}

fn decision(at: Timestamp, action: &str, code: ReasonCode) -> Decision {
    let reason = Reason::new(code, "as recorded").with("policy", "cpu");
    Decision { at, subject: Subject::Service(web()), action: action.to_owned(), reason, trace: None }
}

fn known(min: u32, max: u32) -> Known {
    let target = ScalableTarget {
        service: web(),
        id: String::new(),
        min,
        max,
        suspend_in: false,
        suspend_out: false,
        suspend_scheduled: false,
        tags: Vec::new(),
        created_at: NOON,
        last_out: None,
        last_in: None,
    };
    Known { service: web(), target: Some(target), alarms: Vec::new(), decisions: Vec::new() }
}

/// Five minutes: two tasks at 40 %, from the second minute on twice the load, which a third task joins after a minute of it.
pub fn report() -> Report {
    let documents = [("cpu-50.json", policy(50.0)), ("deploy/cpu-90.json", policy(90.0))];
    let mut known = known(1, 8);
    known.decisions = vec![
        decision(NOON + 120_000, "desired 2 -> 3", ReasonCode::ScaledOut),
        Decision {
            reason: Reason::new(ReasonCode::ScaleOutDone, "")
                .with("hops_ms", json!({"placed": 20, "running": 980, "total": 62_000})),
            ..decision(NOON + 121_000, "scaled out 2 -> 3", ReasonCode::ScaleOutDone)
        },
    ];
    let window = Window { since: NOON, until: NOON + 300_000, step_ms: 1_000 };
    let (mut givens, mut records) = (Vec::new(), Vec::new());
    for (name, policy) in documents {
        let document = Document::parse(name, &policy.to_string()).unwrap();
        let given = document.of(&web(), &[], &files::Files::home(), NOON).unwrap();
        let plan = plan(&web(), &given.contenders.iter().collect::<Vec<_>>(), window, window.until);
        let answers: Vec<Vec<Datapoint>> = plan
            .fetches
            .iter()
            .map(|fetch| {
                let query = &fetch.query;
                let seconds = (query.start.0..query.end.0).step_by(1_000).map(Timestamp);
                let tasks = |at: Timestamp| if at < NOON + 121_000 { 2.0 } else { 3.0 };
                let load = |at: Timestamp| if at < NOON + 60_000 { 80.0 } else { 160.0 };
                let value = |at: Timestamp| match &*query.key.name {
                    "CPUUtilization" if query.statistic == crate::model::metric::Statistic::Average => load(at) / tasks(at),
                    _ => tasks(at),
                };
                seconds.map(|at| Datapoint { at, value: value(at), sample_count: 1.0 }).collect()
            })
            .collect();
        records.push(plan.record(&answers, None));
        givens.push(given);
    }
    back_test(&known, &givens, &records, window, Options::default()).unwrap()
}

#[test]
fn what_was_and_what_would_have_been() {
    let report = report();
    let said = report.json();
    assert_eq!(said["actual"]["task_hours"], json!((121.0 * 2.0 + 179.0 * 3.0) / 3_600.0));
    assert_eq!(said["actual"]["over_target_s"], json!(240), "80 % on two, 53 % on three: both above 50 %");
    assert_eq!(said["actual"]["breach_to_capacity_ms"], json!([62_000]));
    let moves = |n: usize| -> Vec<(u64, u64)> {
        let all = said["policies"][n]["decisions"].as_array().unwrap();
        all.iter().filter_map(|d| Some((d["from"].as_u64()?, d["to"].as_u64()?))).collect()
    };
    // 160 points of load: four tasks carry them at 40 %, as fewer would be above 50; two carry them below 90.
    assert_eq!(moves(0).last(), Some(&(5, 4)));
    assert_eq!(moves(1), [(2, 1), (1, 2)], "two are half of what one policy wants");
    assert_eq!(said["policies"][1]["largest_step"], json!(1));
    assert!(report.notes.iter().any(|n| n.contains("1.0 s after the decision: the median of 1 recorded")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|n| n.contains("the load is CPUUtilization x running tasks")), "{:?}", report.notes);
}

#[test]
fn a_chart_is_a_document_with_both_curves_a_title_and_a_description() {
    let mut report = report();
    report.policies[0].name = "a<b>&\"c\"".to_owned();
    let svg = chart::svg(&report);
    for part in [
        "<title id=\"t\">Back-test of a&lt;b&gt;&amp;&quot;c&quot;, cpu-90 on shop/web</title>",
        "data-curve=\"actual\"",
        "data-curve=\"cpu-90\"",
        "prefers-color-scheme:dark",
        "target 50",
        "target 90",
        ">10:21:00<",
        "CPUUtilization Average, %",
        "running tasks",
    ] {
        assert!(svg.contains(part), "{part} is not in {svg}");
    }
    assert_eq!(svg.matches("data-curve=\"actual\"").count(), 2, "once in each panel");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // Every element that is opened is closed: what a reader of XML insists on.
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn files_of_policies_and_their_refusals() {
    let of = |text: &str| {
        let document = Document::parse("p.json", text).map_err(|wrong| wrong.what)?;
        document.of(&web(), &[], &files::Files::home(), NOON).map_err(|wrong| wrong.what)
    };
    let whole = json!({"PolicyName": "cpu", "ServiceNamespace": "ecs", "ResourceId": "service/other/api",
        "ScalableDimension": "ecs:service:DesiredCount",
        "TargetTrackingScalingPolicyConfiguration": policy(50.0)["TargetTrackingScalingPolicyConfiguration"]});
    let given = of(&whole.to_string()).unwrap();
    assert_eq!((given.contenders[0].policy.name.as_str(), &given.contenders[0].policy.service), ("cpu", &web()));
    assert_eq!(given.contenders[0].alarms.len(), 2);
    assert_eq!(of(&policy(50.0).to_string()).unwrap().contenders[0].policy.name, "p", "named as its file");
    for (text, why) in [
        ("{", "it is no JSON"),
        ("[]", "it is empty"),
        ("3", "neither an object nor a list"),
        ("{}", "StepScalingPolicyConfiguration must be specified for policy type StepScaling."),
        (&policy(-1.0).to_string(), "Target value must be greater than zero: -1"),
        (r#"{"PolicyType": "PredictiveScaling"}"#, "Predictive scaling policies are not served in this release"),
        (r#"{"PolicyType": "Guessing"}"#, "Member must satisfy enum value set"),
        (&json!([whole, whole]).to_string(), "has no policy of service/shop/web"),
    ] {
        let refused = of(text).unwrap_err();
        assert!(refused.contains(why), "{text}: {refused}");
    }
}

#[test]
fn a_step_policy_brings_its_alarm_or_takes_the_one_that_there_is() {
    let steps = json!({"PolicyName": "deep", "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": {
        "AdjustmentType": "ChangeInCapacity", "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]}});
    let alarm = |action: &str| {
        json!({"AlarmName": "depth", "Namespace": "App", "MetricName": "Depth", "Statistic": "Maximum", "Period": 10,
            "EvaluationPeriods": 1, "Threshold": 100, "ComparisonOperator": "GreaterThanThreshold", "AlarmActions": [action]})
    };
    let of = |text: serde_json::Value, there: &[Alarm]| {
        Document::parse("p.json", &text.to_string()).unwrap().of(&web(), there, &files::Files::home(), NOON)
    };
    assert!(of(steps.clone(), &[]).unwrap_err().what.contains("no alarm runs the step policy deep"));
    let targets = json!([{"ResourceId": "service/shop/web", "MinCapacity": 2, "MaxCapacity": 5}]);
    for action in [
        "deep",
        "policy:service/shop/web:deep",
        "arn:aws:autoscaling:r:a:scalingPolicy:u:resource/ecs/service/shop/web:policyName/deep",
    ] {
        let given = of(json!({"scalingPolicies": [steps], "alarms": [alarm(action)], "scalableTargets": targets}), &[]).unwrap();
        assert_eq!((given.contenders[0].alarms.len(), given.bounds), (1, Some((2, 5))), "{action}");
        assert!(matches!(given.contenders[0].policy.kind, PolicyKind::Step(_)));
    }
    let there = [given::known_alarm(&alarm("x:policyName/deep:createdBy/1"), NOON).unwrap()];
    assert_eq!(of(steps.clone(), &there).unwrap().contenders[0].alarms[0].name, "depth");
    let bad = json!({"scalingPolicies": [steps], "alarms": [{"AlarmName": "depth"}]});
    assert!(of(bad, &[]).unwrap_err().what.contains("an alarm is refused: "));
}

#[test]
fn a_plan_asks_by_the_minute_where_seconds_are_gone() {
    let given = Document::parse("p.json", &policy(50.0).to_string()).unwrap();
    let given = given.of(&web(), &[], &files::Files::home(), NOON).unwrap();
    let contenders: Vec<_> = given.contenders.iter().collect();
    let day = Window { since: NOON - 86_400_000, until: NOON, step_ms: 1_000 };
    let periods: Vec<(i64, i64)> =
        plan(&web(), &contenders, day, NOON).fetches.iter().map(|f| (f.query.period_ms, NOON.since(f.query.start))).collect();
    assert!(periods[..5].iter().all(|(period, age)| *period == 60_000 && *age > 86_400_000), "{periods:?}");
    assert!(periods[5..].iter().all(|(period, age)| *period == 1_000 && *age <= 3 * 3_600_000), "{periods:?}");
    let minutes = Window { step_ms: 60_000, ..day };
    assert_eq!(plan(&web(), &contenders, minutes, NOON).fetches.len(), 5);
    // One who says so has any metric follow capacity, or none.
    let answers = vec![Vec::new(); 10];
    for (model, linear) in [(None, true), (Some(CapacityModel::Constant), false), (Some(CapacityModel::Linear), true)] {
        let record = plan(&web(), &contenders, day, NOON).record(&answers, model);
        assert_eq!(matches!(record.series[0].model, crate::decide::backtest::Model::Linear { .. }), linear);
    }
}

#[test]
fn decisions_and_answers_are_paired_by_time_and_direction() {
    let answer = |at: Timestamp, from, to| Decided {
        at,
        policy: "b".to_owned(),
        alarm: "a".to_owned(),
        from,
        to: Some(to),
        reason: Reason::new(ReasonCode::ScaledOut, "as tried"),
        breach_at: None,
        ready_at: None,
    };
    let was = [
        decision(NOON, "desired 2 -> 4", ReasonCode::ScaledOut),
        decision(NOON + 60_000, "desired 4 -> 6", ReasonCode::ScaledOut),
        decision(NOON + 120_000, "desired 6 -> 3", ReasonCode::ScaledIn),
        decision(NOON + 130_000, "scaling: no change", ReasonCode::InCooldown),
    ];
    let would =
        [answer(NOON - 2_000, 2, 4), answer(NOON + 61_000, 4, 9), answer(NOON + 119_000, 6, 8), answer(NOON + 300_000, 3, 2)];
    let told: Vec<(i64, Option<u32>, Option<u32>, bool)> = rows(&was, &would)
        .iter()
        .map(|row| {
            let to = |side: &Option<sides::Side>| side.as_ref().map(|s| s.step.to);
            (row.at.since(NOON) / 1_000, to(&row.was), to(&row.would), row.is_same())
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, Some(4), Some(4), true),
            (60, Some(6), Some(9), false),
            (119, None, Some(8), false),
            (120, Some(3), None, false),
            (300, None, Some(2), false)
        ]
    );
    assert_eq!(rows(&was, &[])[0].was.as_ref().map(|s| s.step), Some(Move { at: NOON, from: 2, to: 4 }));
}

#[test]
fn an_old_ledger_is_counted_and_not_guessed() {
    let mut verified = Verified::default();
    assert_eq!(verified.look(&decision(NOON, "desired 2 -> 4", ReasonCode::ScaledOut)), None);
    assert_eq!(verified.look(&decision(NOON, "start 2 tasks", ReasonCode::BelowDesired)), None);
    assert_eq!((verified.same, verified.parted, verified.without_inputs), (0, 0, 1));
}
