//! Messages by table: what is known, what is said, what becomes of it.

use super::*;
use crate::model::ServiceKey;
use crate::model::scaling::{AdjustmentType, Aggregation, Step, StepScaling, TargetTracking, TrackedMetric};

const NOW: Timestamp = Timestamp(1_795_170_000_000);
const REPEAT: Millis = 30_000;

fn policy() -> ScalingPolicy {
    let kind = PolicyKind::Step(StepScaling {
        adjustment: AdjustmentType::ChangeInCapacity,
        steps: vec![Step { lower: Some(0.0), upper: None, adjustment: 1 }],
        min_adjustment_magnitude: None,
        cooldown_ms: Some(5_000),
        aggregation: Aggregation::Average,
    });
    ScalingPolicy {
        service: ServiceKey::new("demo", "web"),
        name: "out".to_owned(),
        uuid: "u".to_owned(),
        arn: "arn:aws:autoscaling:r:a:scalingPolicy:u:resource/ecs/service/demo/web:policyName/out".to_owned(),
        kind,
        alarms: Vec::new(),
        created_at: NOW,
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn firing() -> Alert {
    Alert {
        firing: true,
        labels: map(&[("alertname", "High"), ("cluster", "demo"), ("service", "web"), ("policy", "out")]),
        annotations: map(&[("value", "250"), ("threshold", "100")]),
        starts_at: NOW - 700,
        ends_at: None,
        fingerprint: "f1".to_owned(),
        group_key: "{}:{}".to_owned(),
        generator_url: "http://p/graph".to_owned(),
        repeat_ms: REPEAT,
    }
}

fn resolved() -> Alert {
    Alert { firing: false, ends_at: Some(NOW + 4_000), ..firing() }
}

fn open() -> Alarm {
    match hear(None, &firing(), &policy(), NOW) {
        Heard::Opened { alarm, .. } => alarm,
        other => panic!("{other:?}"),
    }
}

fn close(alarm: &Alarm, at: Timestamp) -> Alarm {
    match hear(Some(alarm), &resolved(), &policy(), at) {
        Heard::Closed { alarm, .. } => alarm,
        other => panic!("{other:?}"),
    }
}

fn word(heard: &Heard) -> &'static str {
    match heard {
        Heard::Opened { .. } => "opened",
        Heard::Refreshed(_) => "refreshed",
        Heard::Closed { .. } => "closed",
        Heard::Duplicate => "duplicate",
    }
}

#[test]
fn an_alert_opens_an_alarm_that_runs_its_policy() {
    let Heard::Opened { alarm, reason } = hear(None, &firing(), &policy(), NOW) else { panic!("not opened") };
    assert_eq!(alarm.name, "Prometheus-service/demo/web-out-f1");
    assert_eq!((alarm.state, alarm.threshold, &alarm.recent[..]), (AlarmState::Alarm, 100.0, &[250.0][..]));
    assert_eq!(alarm.alarm_actions, [policy().arn]);
    assert_eq!(alarm.metric.to_string(), "Prometheus High ClusterName=demo ServiceName=web");
    assert!(alarm.configuration_updated_at >= alarm.state_updated_at, "the loop must look at it at once");
    assert_eq!(
        reason.sentence,
        "Prometheus' rule High fires since 2026-11-20T10:19:59.300Z: its value is 250, the threshold 100"
    );
    assert_eq!((&reason.evidence["labels"]["service"], &reason.evidence["told_after_ms"]), (&"web".into(), &700.into()));
    let data: serde_json::Value = serde_json::from_str(alarm.state_reason_data.as_deref().unwrap()).unwrap();
    assert_eq!(data["recentDatapoints"], serde_json::json!([250.0]));
}

#[test]
fn what_a_message_is_depends_on_what_is_known() {
    let opened = open();
    let closed = close(&opened, NOW + 5_000);
    let later = |alert: Alert| Alert { starts_at: NOW + 10_000, ..alert };
    let earlier = |alert: Alert| Alert { starts_at: NOW - 9_000, ..alert };
    let ended = |alert: Alert| Alert { ends_at: Some(NOW - 5_000), ..alert };
    let risen = Alert { annotations: map(&[("value", "300"), ("threshold", "100")]), ..firing() };
    let by_hand = Alarm { external: None, ..open() };
    let expired = Alarm { state: AlarmState::InsufficientData, ..open() };
    for (case, before, alert, at, expected) in [
        ("the first", None, firing(), 0, "opened"),
        ("an end without a beginning", None, resolved(), 0, "duplicate"),
        ("the other of a pair", Some(&opened), firing(), 200, "duplicate"),
        ("the other of a pair, with a newer value", Some(&opened), risen, 200, "refreshed"),
        ("a repeat", Some(&opened), firing(), REPEAT, "refreshed"),
        ("the end", Some(&opened), resolved(), 5_000, "closed"),
        ("the end, again", Some(&closed), resolved(), 5_200, "duplicate"),
        ("a straggler after the end", Some(&closed), firing(), 9_000, "duplicate"),
        ("it was only lost on the way, and fires on", Some(&closed), firing(), 25_000, "opened"),
        ("it fires anew", Some(&closed), later(firing()), 10_500, "opened"),
        ("it fires anew, and its end was lost", Some(&opened), later(firing()), 10_500, "refreshed"),
        ("the end of a life that was never told", Some(&opened), later(resolved()), 10_500, "closed"),
        ("the same, after the end of the life before", Some(&closed), later(resolved()), 10_500, "closed"),
        ("of two Prometheus one saw it earlier", Some(&opened), earlier(firing()), 200, "refreshed"),
        ("and its end is told with that start", Some(&opened), earlier(resolved()), 5_000, "closed"),
        ("the end of a life before", Some(&opened), ended(earlier(resolved())), 200, "duplicate"),
        ("a straggler with an earlier start", Some(&closed), earlier(firing()), 9_000, "duplicate"),
        ("it had expired, and is heard of with an earlier start", Some(&expired), earlier(firing()), 100_000, "opened"),
        ("it had expired and is heard again", Some(&expired), firing(), 100_000, "opened"),
        ("it had expired and is told to be over", Some(&expired), resolved(), 100_000, "closed"),
        ("somebody has made it an alarm of their own", Some(&by_hand), firing(), 200, "opened"),
    ] {
        assert_eq!(word(&hear(before, &alert, &policy(), NOW + at)), expected, "{case}");
    }
}

#[test]
fn one_that_was_taken_for_over_tells_nothing_of_reaction_times() {
    let of = |heard: Heard| match heard {
        Heard::Opened { alarm, .. } | Heard::Refreshed(alarm) => alarm,
        other => panic!("{other:?}"),
    };
    let expired = Alarm { state: AlarmState::InsufficientData, ..open() };
    let again = of(hear(Some(&expired), &firing(), &policy(), NOW + 3_600_000));
    assert!(!open().external.unwrap().reopened && again.external.as_ref().unwrap().reopened);
    let repeated = of(hear(Some(&again), &firing(), &policy(), NOW + 3_630_000));
    assert!(repeated.external.unwrap().reopened, "for as long as it lives");
    let anew = Alert { starts_at: NOW + 4_000_000, ..firing() };
    assert!(!of(hear(Some(&close(&again, NOW + 3_700_000)), &anew, &policy(), NOW + 4_000_100)).external.unwrap().reopened);
}

#[test]
fn a_message_that_was_heard_is_a_duplicate_or_a_repeat_however_often_it_comes() {
    let mut alarm = open();
    for n in 1..100 {
        match hear(Some(&alarm), &firing(), &policy(), NOW + n * 400) {
            Heard::Duplicate => {}
            Heard::Refreshed(again) => alarm = again,
            other => panic!("{other:?}"),
        }
        assert_eq!((alarm.state, alarm.state_transitioned_at), (AlarmState::Alarm, NOW));
    }
}

#[test]
fn the_breach_is_what_the_annotations_say() {
    let of = |annotations: &[(&str, &str)], direction: Option<&str>| {
        let mut labels = firing().labels;
        labels.extend(direction.map(|d| ("direction".to_owned(), d.to_owned())));
        Breach::of(&Alert { annotations: map(annotations), labels, ..firing() })
    };
    let breach = |value, threshold, upward, given| Breach { value, threshold, upward, given };
    let both = [("value", " 2.5e+02 "), ("threshold", "100")];
    assert_eq!(of(&both, None), breach(250.0, 100.0, true, true));
    assert_eq!(of(&both, Some("in")), breach(250.0, 100.0, true, true), "the numbers tell the side, not the label");
    assert_eq!(of(&[("value", "3"), ("threshold", "40")], None), breach(3.0, 40.0, false, true));
    assert_eq!(of(&[("value", "40"), ("threshold", "40")], Some("in")), breach(40.0, 40.0, false, true));
    for unusable in
        [&[("value", "250")][..], &[("value", "NaN"), ("threshold", "1")], &[("value", "+Inf"), ("threshold", "1")], &[]]
    {
        assert_eq!(of(unusable, None), breach(0.0, 0.0, true, false), "{unusable:?}");
        assert_eq!(of(unusable, Some("in")), breach(0.0, 0.0, false, false), "{unusable:?}");
    }
}

#[test]
fn an_alert_that_nobody_speaks_of_any_more_expires() {
    let alarm = open();
    let known = alarm.external.clone().unwrap();
    let at = |ms: Millis| look(&alarm, &known, NOW + ms);
    assert_eq!(at(0), Look::Ask { again: NOW + 1_000 });
    assert_eq!(at(89_500), Look::Ask { again: NOW + 90_000 }, "not a second after its end");
    let Look::Expired { alarm: expired, reason } = at(90_000) else { panic!("not expired") };
    assert_eq!(expired.state, AlarmState::InsufficientData);
    assert_eq!(reason.code, ReasonCode::AlarmNoData);
    assert!(reason.sentence.contains("for 90 s, and it is repeated every 30 s"), "{}", reason.sentence);
    assert_eq!(look(&expired, &known, NOW + 200_000), Look::Rest);
}

#[test]
fn target_tracking_looks_at_its_own_metric() {
    let alarm = open();
    let known = |direction: Option<&str>| {
        let mut known = alarm.external.clone().unwrap();
        known.labels.extend(direction.map(|d| ("direction".to_owned(), d.to_owned())));
        known
    };
    let tracking = |alarms: &[&str]| ScalingPolicy {
        kind: PolicyKind::TargetTracking(TargetTracking {
            target: 50.0,
            metric: TrackedMetric::Predefined { name: "ECSServiceAverageCPUUtilization".to_owned(), resource_label: None },
            out_cooldown_ms: None,
            in_cooldown_ms: None,
            disable_scale_in: alarms.len() == 1,
        }),
        alarms: alarms.iter().map(|&a| a.to_owned()).collect(),
        ..policy()
    };
    let (up, down) = (Comparison::GreaterThanThreshold, Comparison::LessThanThreshold);
    let of = |direction, alarms: &[&str]| own_metric(&alarm, &known(direction), &tracking(alarms));
    assert_eq!(of(None, &["high", "low"]), Some(("high".to_owned(), up)), "250 is above 100");
    assert_eq!(of(Some("in"), &["high", "low"]), Some(("low".to_owned(), down)));
    assert_eq!(of(Some("in"), &["high"]), Some(("high".to_owned(), down)));
    assert_eq!(of(None, &[]), None);
    assert_eq!(own_metric(&alarm, &known(None), &policy()), None, "a step policy takes the alert's value");
}

#[test]
fn an_alert_must_say_whom_it_is_for() {
    assert_eq!(addressed(&firing()), Ok(("demo", "web", "out")));
    for missing in ["cluster", "service", "policy"] {
        let mut alert = firing();
        alert.labels.insert(missing.to_owned(), String::new());
        assert_eq!(addressed(&alert), Err(Unusable::LabelMissing(missing)), "an empty label is no label");
    }
    let mut alert = firing();
    alert.labels.insert("direction".to_owned(), "up".to_owned());
    assert_eq!(addressed(&alert), Err(Unusable::Direction("up".to_owned())));
}
