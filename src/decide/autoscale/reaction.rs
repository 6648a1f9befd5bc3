//! How long a scale-out took, hop by hop: from the breach to the open alarm, the new desired count, and tasks that are placed, run
//! and are healthy. Owns which tasks a scale-out counts as its own and when it is given up; sets nothing.

use serde_json::{Map, Value};

use crate::model::alarm::Alarm;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::scaling::{Reaction, ScalableTarget, Stage};
use crate::model::{Millis, Timestamp};

/// Tasks that are not there after so long are not waited for.
const GIVE_UP_MS: Millis = 600_000;

/// When the breach began that the alarm was raised by: the start of its oldest breaching datapoint, or when Prometheus' rule began
/// to fire. An alarm that was set by hand has neither, so its breach begins with it.
pub fn breach_began(alarm: &Alarm) -> Timestamp {
    if let Some(alert) = &alarm.external {
        let opened = alarm.state_transitioned_at;
        return if alert.reopened { opened } else { alert.starts_at.min(opened) };
    }
    let evaluated = || {
        let data: Value = serde_json::from_str(alarm.state_reason_data.as_deref()?).ok()?;
        let breaching = data["evaluatedDatapoints"]
            .as_array()?
            .iter()
            .filter(|point| point["value"].as_f64().is_some_and(|value| alarm.comparison.breaches(value, alarm.threshold)));
        breaching.filter_map(|point| Timestamp::parse_iso(point["timestamp"].as_str()?)).min()
    };
    evaluated().map_or(alarm.state_transitioned_at, |at| at.min(alarm.state_transitioned_at))
}

/// A policy scales out from `from` to `to`. `coming` tasks run or are on their way already and stay; `target` is as it was before.
pub fn begin(policy: &str, alarm: &Alarm, target: &ScalableTarget, from: u32, to: u32, coming: u32) -> Reaction {
    let opened = alarm.state_transitioned_at;
    let answered = target.last_out.as_ref().is_some_and(|last| last.at >= opened);
    let tasks = to.saturating_sub(coming);
    Reaction {
        policy: policy.to_owned(),
        alarm: alarm.name.clone(),
        from,
        to,
        tasks,
        breach_at: (!answered).then(|| breach_began(alarm)),
        alarm_at: (!answered).then_some(opened),
        placed_at: None,
        running_at: None,
        healthy_at: None,
        over: tasks == 0,
    }
}

/// What a task of the service says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    /// It runs, and its health check (if it has one) has passed.
    pub healthy: bool,
    pub checked: bool,
}

/// How far a scale-out that was decided at `decided` has come. The first tasks that were made since are its own, in each hop those
/// that came first: a task that failed on the way is made up for by the one that replaced it.
pub fn advance(reaction: &Reaction, decided: Timestamp, desired: u32, tasks: &[Made], now: Timestamp) -> Reaction {
    let mut next = reaction.clone();
    if reaction.over {
        return next;
    }
    let own: Vec<&Made> = tasks.iter().filter(|task| task.created_at >= decided).collect();
    next.placed_at = next.placed_at.or_else(|| nth(own.iter().map(|task| task.created_at), reaction.tasks));
    next.running_at = next.running_at.or_else(|| nth(own.iter().filter_map(|task| task.started_at), reaction.tasks));
    // Nobody notes when a health check passed: it is seen here, with the commit that said so.
    let healthy =
        own.iter().filter(|task| task.healthy).filter_map(|task| if task.checked { Some(now) } else { task.started_at });
    next.healthy_at = nth(healthy, reaction.tasks).filter(|_| next.running_at.is_some());
    next.over = next.healthy_at.is_some() || desired < reaction.to || now.since(decided) > GIVE_UP_MS;
    next
}

/// The moment at which there were `count` of them.
fn nth(moments: impl Iterator<Item = Timestamp>, count: u32) -> Option<Timestamp> {
    let mut moments: Vec<Timestamp> = moments.collect();
    moments.sort();
    moments.get((count as usize).checked_sub(1)?).copied()
}

/// The hops that are known, each from the end of the one before. Clocks of two hosts may disagree: no hop is less than nothing.
pub fn hops(reaction: &Reaction, decided: Timestamp) -> Vec<(Stage, Millis)> {
    let steps = [
        (Stage::Alert, reaction.breach_at, reaction.alarm_at),
        (Stage::Decision, reaction.alarm_at, Some(decided)),
        (Stage::Placed, Some(decided), reaction.placed_at),
        (Stage::Running, reaction.placed_at, reaction.running_at),
        (Stage::Healthy, reaction.running_at, reaction.healthy_at),
        (Stage::Total, reaction.breach_at, reaction.healthy_at),
    ];
    steps.into_iter().filter_map(|(stage, from, to)| Some((stage, to?.since(from?).max(0)))).collect()
}

/// What a ledger line says of a scale-out that is complete: in words, and by the millisecond as evidence.
pub fn reason(reaction: &Reaction, decided: Timestamp) -> Reason {
    let hops = hops(reaction, decided);
    let total = hops.iter().find(|(stage, _)| *stage == Stage::Total);
    let (took, since) = match total {
        Some((_, total)) => (*total, "the breach began"),
        None => (reaction.healthy_at.unwrap_or(decided).since(decided).max(0), "the decision, one more for the same breach"),
    };
    let each: Vec<String> = hops
        .iter()
        .filter(|(stage, _)| *stage != Stage::Total)
        .map(|(stage, took)| format!("{} {:.2} s", stage.as_str(), *took as f64 / 1e3))
        .collect();
    let sentence = format!("the new tasks serve {:.2} s after {since}: {}", took as f64 / 1e3, each.join(", "));
    let hops: Map<String, Value> = hops.iter().map(|(stage, took)| (stage.as_str().to_owned(), Value::from(*took))).collect();
    Reason::new(ReasonCode::ScaleOutDone, sentence)
        .with("hops_ms", hops)
        .with("policy", reaction.policy.clone())
        .with("alarm", reaction.alarm.clone())
        .with("from", reaction.from)
        .with("to", reaction.to)
        .with("tasks", reaction.tasks)
        .with("decided_at", decided.iso())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, high, target};
    use super::*;
    use crate::model::alarm::{Comparison, External};
    use crate::model::scaling::Scaled;

    fn open(at: Timestamp) -> Alarm {
        Alarm { state_transitioned_at: at, ..high(&[60.0, 70.0, 80.0]) }
    }

    fn point(ms: Millis, value: f64) -> String {
        format!(r#"{{"timestamp":"{}","value":{value}}}"#, (NOW + ms).in_reason_data())
    }

    #[test]
    fn a_breach_began_with_its_oldest_breaching_datapoint() {
        let newest_first = [point(2_000, 80.0), point(1_000, 70.0), point(0, 60.0), point(-1_000, 20.0)].join(",");
        let data = format!(r#"{{"version":"1.0","evaluatedDatapoints":[{newest_first}]}}"#);
        let alarm = Alarm { threshold: 50.0, comparison: Comparison::GreaterThanThreshold, ..open(NOW + 3_150) };
        for (name, data, began) in [
            ("by data", Some(data), NOW),
            ("by hand", None, NOW + 3_150),
            ("by hand, with data of the caller", Some("{}".to_owned()), NOW + 3_150),
            ("not JSON", Some("x".to_owned()), NOW + 3_150),
            ("a clock ahead", Some(format!(r#"{{"evaluatedDatapoints":[{}]}}"#, point(9_000, 60.0))), NOW + 3_150),
        ] {
            assert_eq!(breach_began(&Alarm { state_reason_data: data, ..alarm.clone() }), began, "{name}");
        }
        for (name, fired, began) in [("a rule", NOW + 2_000, NOW + 2_000), ("a clock ahead", NOW + 9_000, NOW + 3_150)] {
            let alert = External {
                rule: "High".to_owned(),
                group_key: String::new(),
                fingerprint: String::new(),
                starts_at: fired,
                labels: Default::default(),
                value: None,
                threshold: None,
                generator_url: String::new(),
                repeat_ms: 30_000,
                heard_at: NOW,
                resolved_at: None,
                reopened: false,
            };
            assert_eq!(breach_began(&Alarm { external: Some(alert), ..alarm.clone() }), began, "{name}");
        }
    }

    #[test]
    fn only_the_first_answer_to_a_breach_waited_for_the_alarm() {
        let (alarm, mut target) = (open(NOW), target(1, 9));
        let scaled = |at| Some(Scaled { at, from: 1, to: 2, policy: "p".to_owned() });
        for (name, last_out, first) in
            [("none", None, true), ("before the alarm", scaled(NOW - 1), true), ("since", scaled(NOW + 1), false)]
        {
            target.last_out = last_out;
            let reaction = begin("p", &alarm, &target, 1, 3, 1);
            assert_eq!((reaction.breach_at.is_some(), reaction.alarm_at.is_some()), (first, first), "{name}");
            assert_eq!((reaction.tasks, reaction.over), (2, false));
        }
        let nothing_to_make = begin("p", &alarm, &target, 1, 3, 4);
        assert!(nothing_to_make.over && nothing_to_make.tasks == 0);
    }

    fn made(created: Millis, started: Option<Millis>, healthy: bool) -> Made {
        Made { created_at: NOW + created, started_at: started.map(|ms| NOW + ms), healthy, checked: false }
    }

    /// Decided at NOW; two tasks are to be made.
    fn two() -> Reaction {
        let alarm = open(NOW - 100);
        Reaction { breach_at: Some(NOW - 1_100), ..begin("p", &alarm, &target(1, 9), 1, 3, 1) }
    }

    #[test]
    fn hops_are_counted_from_one_another() {
        let old = made(-9_000, Some(-8_000), true);
        let at = |ms: Option<Millis>| ms.map(|ms| NOW + ms);
        for (name, tasks, now, placed, running, healthy) in [
            ("nothing yet", vec![old], 5, None, None, None),
            ("one of two", vec![old, made(10, Some(300), true)], 301, None, None, None),
            ("placed", vec![old, made(10, None, false), made(20, None, false)], 21, Some(20), None, None),
            ("one runs", vec![made(10, Some(300), true), made(20, None, false)], 301, Some(20), None, None),
            (
                "both run, one is not healthy",
                vec![made(10, Some(300), true), made(20, Some(400), false)],
                401,
                Some(20),
                Some(400),
                None,
            ),
            (
                "no health check: healthy when running",
                vec![made(10, Some(300), true), made(20, Some(400), true)],
                405,
                Some(20),
                Some(400),
                Some(400),
            ),
            (
                "one failed and another replaced it",
                vec![made(10, None, false), made(20, Some(400), true), made(600, Some(900), true)],
                901,
                Some(20),
                Some(900),
                Some(900),
            ),
        ] {
            let next = advance(&two(), NOW, 3, &tasks, NOW + now);
            assert_eq!((next.placed_at, next.running_at, next.healthy_at), (at(placed), at(running), at(healthy)), "{name}");
            assert_eq!(next.over, healthy.is_some(), "{name}");
        }
    }

    #[test]
    fn health_is_noted_when_it_is_seen() {
        let checked = |task: Made| Made { checked: true, ..task };
        let unhealthy = [made(10, Some(300), false), made(20, Some(400), false)].map(checked);
        let runs = advance(&two(), NOW, 3, &unhealthy, NOW + 410);
        let healthy = advance(&runs, NOW, 3, &unhealthy.map(|task| Made { healthy: true, ..task }), NOW + 5_000);
        assert_eq!(healthy.healthy_at, Some(NOW + 5_000));
        assert_eq!(advance(&healthy, NOW, 3, &[], NOW + 9_000), healthy, "what is over stays as it was");
        let took: Vec<(&str, Millis)> = hops(&healthy, NOW).into_iter().map(|(stage, ms)| (stage.as_str(), ms)).collect();
        assert_eq!(
            took,
            [("alert", 1_000), ("decision", 100), ("placed", 20), ("running", 380), ("healthy", 4_600), ("total", 6_100)]
        );
        let reason = reason(&healthy, NOW);
        let hops_told = "alert 1.00 s, decision 0.10 s, placed 0.02 s, running 0.38 s, healthy 4.60 s";
        assert_eq!(reason.sentence, format!("the new tasks serve 6.10 s after the breach began: {hops_told}"));
        assert_eq!((&reason.evidence["hops_ms"]["running"], &reason.evidence["hops_ms"]["total"]), (&380.into(), &6_100.into()));
        let again = Reaction { breach_at: None, alarm_at: None, ..healthy };
        assert_eq!(
            hops(&again, NOW).iter().map(|(stage, _)| *stage).collect::<Vec<_>>(),
            [Stage::Placed, Stage::Running, Stage::Healthy]
        );
        let ahead = Reaction { breach_at: Some(NOW + 60_000), ..two() };
        assert_eq!(hops(&ahead, NOW)[0], (Stage::Alert, 0), "a clock that is ahead takes no time away");
    }

    #[test]
    fn what_will_not_come_is_given_up() {
        for (name, desired, now, over) in [
            ("waits", 3, 1_000, false),
            ("set back", 2, 1_000, true),
            ("more by now", 5, 1_000, false),
            ("too long", 3, 600_001, true),
        ] {
            assert_eq!(advance(&two(), NOW, desired, &[], NOW + now).over, over, "{name}");
        }
    }
}
