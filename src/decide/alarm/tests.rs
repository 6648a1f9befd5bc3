//! What the golden cases do not say: windows, cadence, histories, refusals, and properties over any data.

use proptest::prelude::*;
use serde_json::Value;

use super::history::{self, Configuration};
use super::reason::{REASON_DATA_AT_MOST, decimal};
use super::*;
use crate::model::alarm::{Comparison, HistoryKind, MissingData};
use crate::model::arn::Home;
use crate::model::metric::{MetricKey, Statistic};

pub(super) fn alarm() -> Alarm {
    Alarm {
        name: "deep-queue".to_owned(),
        description: None,
        actions_enabled: true,
        ok_actions: Vec::new(),
        alarm_actions: Vec::new(),
        insufficient_data_actions: Vec::new(),
        metric: MetricKey::new("Shop", "Depth", []),
        statistic: Statistic::Average,
        period_s: 60,
        unit: None,
        evaluation_periods: 1,
        datapoints_to_alarm: None,
        threshold: 1.0,
        comparison: Comparison::GreaterThanThreshold,
        missing: MissingData::Missing,
        missing_given: false,
        owned_by_policy: None,
        state: AlarmState::InsufficientData,
        state_reason: INITIAL_STATE_REASON.to_owned(),
        state_reason_data: None,
        recent: Vec::new(),
        state_updated_at: Timestamp(1_795_170_000_000),
        state_transitioned_at: Timestamp::ZERO,
        configuration_updated_at: Timestamp::ZERO,
        tags: Vec::new(),
        trace: None,
        external: None,
    }
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse_iso(&format!("2026-11-20T{text}Z")).expect(text)
}

#[test]
fn the_window_ends_with_the_last_complete_period() {
    let cases = [
        // namespace, period, N, now, settle, start, end, next evaluation
        ("AWS/ECS", 1, 3, "10:00:07.250", 0, "10:00:02", "10:00:07", "10:00:08"),
        ("AWS/ECS", 1, 3, "10:00:07.250", 500, "10:00:01", "10:00:06", "10:00:07.500"),
        ("AWS/ECS", 5, 3, "10:00:07", 0, "09:59:40", "10:00:05", "10:00:10"),
        ("AWS/ECS", 30, 1, "10:00:25", 0, "09:58:50", "10:00:20", "10:00:30"),
        ("AWS/ECS", 60, 1, "10:00:25", 0, "09:57:20", "10:00:20", "10:00:30"),
        ("Shop", 60, 1, "10:00:25", 0, "09:57:00", "10:00:00", "10:00:30"),
        ("Shop", 300, 12, "10:07:03", 2_000, "08:47:00", "10:07:00", "10:07:12"),
    ];
    for (namespace, period_s, evaluation_periods, now, settle, start, end, next) in cases {
        let metric = MetricKey::new(namespace, "M", []);
        let alarm = Alarm { metric, period_s, evaluation_periods, ..alarm() };
        let found = range(&alarm, at(now), settle);
        assert_eq!(
            (found.start.clock(), found.end.clock()),
            (at(start).clock(), at(end).clock()),
            "{namespace} {period_s} {now}"
        );
        assert_eq!(found.end.since(found.start), found.period_ms * i64::from(found.periods));
        assert_eq!(next_evaluation(&alarm, at(now), settle), at(next), "{namespace} {period_s} {now}");
    }
}

#[test]
fn more_than_a_day_is_looked_at_hourly() {
    let alarm = Alarm { period_s: 3600, evaluation_periods: 25, ..alarm() };
    assert_eq!(range(&alarm, at("10:07:00"), 0).end, at("10:00:00"));
    assert_eq!(next_evaluation(&alarm, at("10:07:00"), 1_000), at("11:00:01"));
}

#[test]
fn numbers_are_written_as_java_writes_them() {
    let cases = [
        (70.0, "70.0"),
        (0.0, "0.0"),
        (-1.5, "-1.5"),
        (1e7, "1.0E7"),
        (9_999_999.0, "9999999.0"),
        (12_345_678.9, "1.23456789E7"),
        (0.001, "0.001"),
        (0.0005, "5.0E-4"),
        (40.760000000000005, "40.760000000000005"),
    ];
    for (value, text) in cases {
        assert_eq!(decimal(value), text);
    }
}

fn raised() -> (Alarm, Verdict) {
    let alarm = alarm();
    let now = at("10:01:00");
    let range = range(&alarm, now, 0);
    let points = [Datapoint { at: at("10:00:00"), value: 2.0, sample_count: 1.0 }];
    let verdict = evaluate(&alarm, range, &points, now).expect("a datapoint decides");
    (alarm, verdict)
}

#[test]
fn a_verdict_carries_its_numbers() {
    let (_, verdict) = raised();
    assert!(verdict.transition);
    assert_eq!(verdict.recent, [2.0]);
    assert_eq!(verdict.reason.code, ReasonCode::AlarmRaised);
    assert_eq!(verdict.reason.sentence, verdict.state_reason);
    for name in ["threshold", "period_s", "datapoints_to_alarm", "recent", "rule", "metric"] {
        assert!(verdict.reason.evidence.contains_key(name), "{name}");
    }
}

#[test]
fn a_transition_is_remembered_with_both_states() {
    let (alarm, verdict) = raised();
    let entry = history::state_update(&alarm, &verdict, at("10:01:00"));
    assert_eq!(entry.kind, HistoryKind::StateUpdate);
    assert_eq!(entry.summary, "Alarm updated from INSUFFICIENT_DATA to ALARM");
    let head = r#"{"version":"1.0","oldState":{"stateValue":"INSUFFICIENT_DATA","stateReason":"Unchecked: Initial alarm creation"},"newState":{"stateValue":"ALARM","#;
    assert!(entry.data.starts_with(head), "{}", entry.data);
    let data: Value = serde_json::from_str(&entry.data).expect("JSON");
    assert_eq!(data["newState"]["stateReasonData"]["recentDatapoints"], json!([2.0]));

    // Reason data that someone set and that is no JSON stays a string.
    let entry = history::state_set(&alarm, AlarmState::Ok, "by \"hand\"", Some("not json"), at("10:01:00"));
    let data: Value = serde_json::from_str(&entry.data).expect("JSON");
    assert_eq!(data["newState"]["stateReasonData"], "not json");
    assert_eq!(data["newState"]["stateReason"], "by \"hand\"");
}

#[test]
fn configurations_and_actions_are_remembered() {
    let home = Home::new("us-east-1", "000000000000");
    let entry = history::configuration_update(Configuration::Created, &alarm(), &home, at("10:00:00"));
    assert_eq!(entry.summary, "Alarm \"deep-queue\" created");
    let data: Value = serde_json::from_str(&entry.data).expect("JSON");
    assert_eq!(data["type"], "Create");
    assert_eq!(data["createdAlarm"]["alarmArn"], "arn:aws:cloudwatch:us-east-1:000000000000:alarm:deep-queue");
    assert_eq!(data["createdAlarm"].get("datapointsToAlarm"), None);

    let entry = history::action(&alarm(), "arn:x", Ok(None), at("10:00:00"));
    assert_eq!(entry.summary, "Successfully executed action arn:x");
    let entry = history::action(&alarm(), "arn:x", Err("gone"), at("10:00:00"));
    assert_eq!(entry.summary, "Failed to execute action arn:x. Received error: \"gone\"");
    let data: Value = serde_json::from_str(&entry.data).expect("JSON");
    assert_eq!((&data["actionState"], &data["error"]), (&json!("Failed"), &json!("gone")));
    assert_eq!(data["stateUpdateTimestamp"], 1_795_170_000_000_i64);
}

#[test]
fn refusals_use_cloudwatchs_words() {
    type Change = fn(&mut Alarm);
    let cases: [(Change, Option<&str>); 15] = [
        (|_| {}, None),
        (|a| a.period_s = 1, None),
        (|a| a.period_s = 5, None),
        (|a| (a.period_s, a.evaluation_periods) = (86_400, 7), None),
        (
            |a| a.name.clear(),
            Some("at 'alarmName' failed to satisfy constraint: Member must have length greater than or equal to 1"),
        ),
        (|a| a.name = "x".repeat(256), Some("Member must have length less than or equal to 255")),
        (|a| a.name.push('\n'), Some("control characters")),
        (|a| a.period_s = 90, Some("Period must be 1, 5, 10, 20, 30 or a multiple of 60")),
        (|a| a.period_s = 0, Some("Period must be")),
        (|a| a.evaluation_periods = 0, Some("Value '0' at 'evaluationPeriods'")),
        (|a| a.datapoints_to_alarm = Some(2), Some("DatapointsToAlarm must be less than or equal to EvaluationPeriods")),
        (|a| a.evaluation_periods = 1441, Some("more than a day (EvaluationPeriods * Period must be <= 86400)")),
        (
            |a| (a.period_s, a.evaluation_periods) = (86_400, 8),
            Some("more than a week (EvaluationPeriods * Period must be <= 604800)"),
        ),
        (|a| a.alarm_actions = vec!["arn:x".to_owned(); 6], Some("at 'alarmActions' failed to satisfy constraint")),
        (|a| a.threshold = f64::NAN, Some("Threshold")),
    ];
    for (change, expected) in cases {
        let mut alarm = alarm();
        change(&mut alarm);
        match (validate(&alarm), expected) {
            (Ok(()), None) => {}
            (Err(refusal), Some(text)) => assert!(refusal.0.contains(text), "{refusal} should say {text}"),
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        }
    }
}

fn any_alarm() -> impl Strategy<Value = Alarm> {
    let modes = [MissingData::Missing, MissingData::Ignore, MissingData::Breaching, MissingData::NotBreaching];
    (1_u32..40, 0_u32..40, proptest::sample::select(modes.to_vec()), any::<bool>()).prop_map(|(n, m, missing, named)| Alarm {
        evaluation_periods: n,
        datapoints_to_alarm: named.then_some(1 + m % n),
        missing,
        ..alarm()
    })
}

proptest! {
    /// Any alarm, any gaps: texts within CloudWatch's limits, JSON that parses, and no dependence on the state before.
    #[test]
    fn every_verdict_is_well_formed(alarm in any_alarm(), values in proptest::collection::vec(proptest::option::of(-3.0..3.0), 60)) {
        let now = at("10:00:00");
        let range = range(&alarm, now, 0);
        let points: Vec<Datapoint> = values
            .iter()
            .take(range.periods as usize)
            .enumerate()
            .filter_map(|(i, v)| v.map(|value| Datapoint { at: range.start + i as i64 * range.period_ms, value, sample_count: 1.0 }))
            .collect();
        let verdict = evaluate(&alarm, range, &points, now);
        let raised = Alarm { state: AlarmState::Alarm, ..alarm.clone() };
        prop_assert_eq!(verdict.as_ref().map(|v| v.state), evaluate(&raised, range, &points, now).map(|v| v.state));
        if let Some(verdict) = verdict {
            prop_assert!(verdict.state_reason.len() <= 1023, "{}", verdict.state_reason);
            prop_assert!(verdict.state_reason_data.len() <= REASON_DATA_AT_MOST);
            prop_assert!(serde_json::from_str::<Value>(&verdict.state_reason_data).is_ok());
            prop_assert!(verdict.recent.len() <= alarm.evaluation_periods as usize);
            let newest: Vec<f64> = points.iter().rev().take(verdict.recent.len()).rev().map(|p| p.value).collect();
            prop_assert_eq!(&verdict.recent, &newest);
        }
    }

    /// Next evaluations move on, and never by more than an hour.
    #[test]
    fn the_next_evaluation_is_later(alarm in any_alarm(), period in proptest::sample::select(&[1_u32, 5, 10, 20, 30, 60, 300, 3600][..]), now in 0_i64..4_000_000_000_000, settle in 0_i64..60_000) {
        let alarm = Alarm { period_s: period, ..alarm };
        let next = next_evaluation(&alarm, Timestamp(now), settle);
        prop_assert!(next > Timestamp(now) && next.since(Timestamp(now)) <= HOUR);
        prop_assert!(range(&alarm, next, settle).end >= range(&alarm, Timestamp(now), settle).end);
    }
}
