//! Runs `golden/*.txt`: a tiny language in which an alarm, a series and what is expected of them fit on a few lines.
//!
//! - `alarm key=value ...` a fresh alarm in INSUFFICIENT_DATA, without data.
//! - `load TIME v _ v ...` one datapoint per period from TIME on; `_` is a missing one.
//! - `series TIME COUNT v` the same value COUNT seconds long, as a metric of one-second points: the window aggregates them.
//! - `at TIME STATE|keep` evaluates; the alarm keeps the new state. `reason TEXT` and `data JSON` check the verdict of that moment.
//! - `table PATTERN a b c d` the evaluation range as a pattern, and the states under the four ways to treat missing data.

use std::collections::BTreeMap;

use super::tests::alarm;
use super::{Range, Verdict, evaluate, range};
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, Comparison, MissingData};
use crate::model::metric::{Datapoint, MetricKey};

#[test]
fn missing_data() {
    run(include_str!("golden/missing_data.txt"));
}

#[test]
fn texts() {
    run(include_str!("golden/texts.txt"));
}

#[test]
fn timelines() {
    run(include_str!("golden/timelines.txt"));
}

const MODES: [MissingData; 4] = [MissingData::Missing, MissingData::Ignore, MissingData::Breaching, MissingData::NotBreaching];

struct Stage {
    alarm: Alarm,
    /// Raw points by their second.
    points: BTreeMap<Timestamp, f64>,
    verdict: Option<Verdict>,
}

fn run(script: &str) {
    let mut stage = Stage { alarm: alarm(), points: BTreeMap::new(), verdict: None };
    let mut expectations = 0;
    for (number, line) in script.lines().enumerate() {
        let line = line.trim();
        let Some((verb, rest)) = line.split_once(' ').filter(|_| !line.starts_with('#')) else {
            assert!(line.is_empty() || line.starts_with('#'), "line {}: {line}", number + 1);
            continue;
        };
        let place = format!("line {}: {line}", number + 1);
        expectations += usize::from(["at", "reason", "data", "table"].contains(&verb));
        match verb {
            "alarm" => stage = Stage { alarm: read_alarm(rest), points: BTreeMap::new(), verdict: None },
            "load" => load(&mut stage, rest),
            "series" => series(&mut stage, rest),
            "at" => at(&mut stage, rest, &place),
            "reason" => assert_eq!(stage.verdict.as_ref().expect(&place).state_reason, rest.trim(), "{place}"),
            "data" => assert_eq!(stage.verdict.as_ref().expect(&place).state_reason_data, rest.trim(), "{place}"),
            "table" => table(&stage.alarm, rest, &place),
            _ => panic!("{place}: unknown verb"),
        }
    }
    assert!(expectations > 0, "a script that expects nothing");
}

fn read_alarm(text: &str) -> Alarm {
    let mut alarm = alarm();
    for (key, value) in text.split_whitespace().map(|pair| pair.split_once('=').expect(pair)) {
        match key {
            "namespace" => alarm.metric = MetricKey::new(value, "Depth", []),
            "periods" => alarm.evaluation_periods = value.parse().expect(value),
            "datapoints" => alarm.datapoints_to_alarm = Some(value.parse().expect(value)),
            "period" => alarm.period_s = value.parse().expect(value),
            "threshold" => alarm.threshold = value.parse().expect(value),
            "unit" => alarm.unit = Some(value.to_owned()),
            "comparison" => {
                let all = [
                    Comparison::GreaterThanThreshold,
                    Comparison::GreaterThanOrEqualToThreshold,
                    Comparison::LessThanThreshold,
                    Comparison::LessThanOrEqualToThreshold,
                ];
                alarm.comparison = all.into_iter().find(|c| c.as_str() == value).expect(value);
            }
            "missing" => alarm.missing = MODES.into_iter().find(|m| m.as_str() == value).expect(value),
            _ => panic!("alarm {key}"),
        }
    }
    alarm
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse_iso(&format!("2026-11-20T{text}Z")).expect(text)
}

fn load(stage: &mut Stage, text: &str) {
    let mut words = text.split_whitespace();
    let mut at = time(words.next().expect("a time"));
    for word in words {
        if word != "_" {
            stage.points.insert(at, word.parse().expect(word));
        }
        at = at + i64::from(stage.alarm.period_s) * 1000;
    }
}

fn series(stage: &mut Stage, text: &str) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [start, count, value] = words.as_slice() else { panic!("series TIME COUNT VALUE: {text}") };
    let start = time(start);
    for second in 0..count.parse::<i64>().expect(count) {
        stage.points.insert(start + second * 1000, value.parse().expect(value));
    }
}

/// What a metric store answers for the range: the average of each period that has points.
fn fetch(points: &BTreeMap<Timestamp, f64>, range: Range) -> Vec<Datapoint> {
    (0..i64::from(range.periods))
        .filter_map(|index| {
            let at = range.start + index * range.period_ms;
            let values: Vec<f64> = points.range(at..at + range.period_ms).map(|(_, v)| *v).collect();
            let count = values.len() as f64;
            (!values.is_empty()).then(|| Datapoint { at, value: values.iter().sum::<f64>() / count, sample_count: count })
        })
        .collect()
}

fn at(stage: &mut Stage, text: &str, place: &str) {
    let (moment, expected) = text.split_once(' ').expect(place);
    let now = time(moment);
    let range = range(&stage.alarm, now, 0);
    stage.verdict = evaluate(&stage.alarm, range, &fetch(&stage.points, range), now);
    let state = stage.verdict.as_ref().map_or("keep", |v| v.state.as_str());
    assert_eq!(state, expected.trim(), "{place}");
    if let Some(verdict) = &stage.verdict {
        assert_eq!(verdict.transition, verdict.state != stage.alarm.state, "{place}");
        stage.alarm.state = verdict.state;
    }
}

fn table(alarm: &Alarm, text: &str, place: &str) {
    let mut words = text.split_whitespace();
    let pattern = words.next().expect(place);
    let expected: Vec<&str> = words.collect();
    assert_eq!(expected.len(), MODES.len(), "{place}");
    let now = time("12:00:00");
    let range = range(alarm, now, 0);
    assert_eq!(pattern.len(), range.periods as usize, "{place}: the pattern is not as long as the evaluation range");
    let points: Vec<Datapoint> = pattern
        .chars()
        .enumerate()
        .filter(|(_, mark)| *mark != '-')
        .map(|(index, mark)| Datapoint {
            at: range.start + index as i64 * range.period_ms,
            value: if mark == 'X' { 2.0 } else { 0.0 },
            sample_count: 1.0,
        })
        .collect();
    for (mode, expected) in MODES.into_iter().zip(expected) {
        let alarm = Alarm { missing: mode, ..alarm.clone() };
        let state = evaluate(&alarm, range, &points, now).map_or("keep", |v| v.state.as_str());
        assert_eq!(state, expected, "{place}, {}", mode.as_str());
    }
}
