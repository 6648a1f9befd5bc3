//! What the demo has seen, and what it comes to. Pure.

use std::fmt;

use serde::Serialize;

use crate::load::stats::Report;

/// All times in milliseconds since the load began.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// When the load began to rise, and when it was low again.
    pub rises_ms: i64,
    pub falls_ms: i64,
    pub samples: Vec<Sample>,
    /// The service's part of the ledger, oldest first.
    pub decisions: Vec<Seen>,
}

/// One look at the service.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub at_ms: i64,
    pub desired: u32,
    pub running: u32,
    /// CPUUtilization's newest datapoint, percent of what is reserved.
    pub cpu: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    pub seq: u64,
    pub at_ms: i64,
    pub subject: String,
    pub action: String,
    pub code: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub scaled_out: bool,
    pub scaled_in: bool,
    /// From when the load began to rise to the first decision to scale out.
    pub load_to_decision_ms: Option<i64>,
    /// From that decision to the first of its tasks running.
    pub decision_to_running_ms: Option<i64>,
    pub load_to_running_ms: Option<i64>,
    /// From when the load was low again to the first decision to scale in.
    pub drop_to_scale_in_ms: Option<i64>,
    /// From that decision to one task less running.
    pub scale_in_to_stopped_ms: Option<i64>,
    pub peak_tasks: u32,
    /// How many tasks ran, whenever that changed: second and count.
    pub tasks_over_time: Vec<(f64, u32)>,
    pub scaling: Vec<Seen>,
    pub load: Report,
}

pub fn summarize(seen: &Recording, load: Report) -> Summary {
    let first = |code: &str, from: i64| seen.decisions.iter().find(|d| d.code == code && d.at_ms >= from);
    let out = first("scaled_out", seen.rises_ms);
    let running = out.and_then(|out| first("task_running", out.at_ms));
    // A scale-in before the load fell would not be the answer to its fall.
    let scale_in = first("scaled_in", seen.falls_ms);
    let peak_tasks = seen.samples.iter().map(|s| s.running).max().unwrap_or(0);
    let fewer = scale_in.and_then(|decided| {
        let before = seen.samples.iter().rfind(|s| s.at_ms <= decided.at_ms)?.running;
        seen.samples.iter().find(|s| s.at_ms > decided.at_ms && s.running < before)
    });
    let reached_two = |decided: &Seen| seen.samples.iter().any(|s| s.at_ms >= decided.at_ms && s.running > 1);
    Summary {
        scaled_out: out.is_some_and(reached_two),
        scaled_in: fewer.is_some(),
        load_to_decision_ms: out.map(|d| d.at_ms - seen.rises_ms),
        decision_to_running_ms: out.zip(running).map(|(out, running)| running.at_ms - out.at_ms),
        load_to_running_ms: running.map(|d| d.at_ms - seen.rises_ms),
        drop_to_scale_in_ms: scale_in.map(|d| d.at_ms - seen.falls_ms),
        scale_in_to_stopped_ms: scale_in.zip(fewer).map(|(decided, sample)| sample.at_ms - decided.at_ms),
        peak_tasks,
        tasks_over_time: steps(&seen.samples),
        scaling: seen.decisions.iter().filter(|d| matches!(d.code.as_str(), "scaled_out" | "scaled_in")).cloned().collect(),
        load,
    }
}

fn steps(samples: &[Sample]) -> Vec<(f64, u32)> {
    let mut steps: Vec<(f64, u32)> = Vec::new();
    for sample in samples {
        if steps.last().is_none_or(|(_, running)| *running != sample.running) {
            steps.push((sample.at_ms as f64 / 1e3, sample.running));
        }
    }
    steps
}

impl Summary {
    /// Why the demo did not show what it is there to show; None when it did.
    pub fn missing(&self) -> Option<String> {
        match (self.scaled_out, self.scaled_in) {
            (true, true) => None,
            (false, _) if self.load_to_decision_ms.is_none() => Some("no decision to scale out was made".to_owned()),
            (false, _) => Some("the decision to scale out was made, but no second task came to run".to_owned()),
            (true, false) if self.drop_to_scale_in_ms.is_none() => {
                Some("no decision to scale in was made after the load fell".to_owned())
            }
            (true, false) => Some("the decision to scale in was made, but no task ended".to_owned()),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let time = |ms: Option<i64>| ms.map_or("-".to_owned(), |ms| format!("{:.2} s", ms as f64 / 1e3));
        let rows = [
            ("load rises -> scale-out decided", time(self.load_to_decision_ms)),
            ("scale-out decided -> first new task running", time(self.decision_to_running_ms)),
            ("load rises -> first new task running", time(self.load_to_running_ms)),
            ("load falls -> scale-in decided", time(self.drop_to_scale_in_ms)),
            ("scale-in decided -> fewer tasks running", time(self.scale_in_to_stopped_ms)),
            ("most tasks at once", self.peak_tasks.to_string()),
            ("requests completed", format!("{} of {} offered", self.load.total.completed, self.load.total.offered)),
            ("requests failed, dropped", format!("{}, {}", self.load.total.failed, self.load.total.dropped)),
        ];
        for (name, value) in rows {
            writeln!(f, "{name:<46}{value}")?;
        }
        let steps: Vec<String> = self.tasks_over_time.iter().map(|(at, running)| format!("{running} ({at:.0} s)")).collect();
        writeln!(f, "{:<46}{}", "tasks over time", steps.join(" -> "))?;
        write!(f, "\n{}", self.load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::profile::Profile;
    use crate::load::stats::Live;
    use std::time::Duration;

    fn report() -> Report {
        Live::new(&Profile::parse("calm 1 1s").unwrap()).report(Duration::from_secs(1))
    }

    fn seen(seq: u64, at_ms: i64, code: &str) -> Seen {
        let of = |text: &str| text.to_owned();
        Seen { seq, at_ms, subject: of("service/demo/web"), action: of("desired 1 -> 2"), code: of(code), reason: of("because") }
    }

    fn samples(running: &[(i64, u32)]) -> Vec<Sample> {
        running.iter().map(|(at_ms, running)| Sample { at_ms: *at_ms, desired: *running, running: *running, cpu: None }).collect()
    }

    fn recording() -> Recording {
        Recording {
            rises_ms: 4_000,
            falls_ms: 20_000,
            samples: samples(&[(0, 1), (500, 1), (9_000, 2), (13_000, 4), (50_000, 4), (52_000, 2)]),
            decisions: vec![
                seen(1, -3_000, "task_running"),
                seen(2, 8_100, "scaled_out"),
                seen(3, 8_100, "below_desired"),
                seen(4, 8_700, "task_running"),
                seen(5, 12_100, "scaled_out"),
                seen(6, 12_900, "task_running"),
                seen(7, 51_000, "scaled_in"),
            ],
        }
    }

    #[test]
    fn a_whole_run() {
        let summary = summarize(&recording(), report());
        assert_eq!(summary.missing(), None);
        assert_eq!(summary.load_to_decision_ms, Some(4_100));
        assert_eq!(summary.decision_to_running_ms, Some(600));
        assert_eq!(summary.load_to_running_ms, Some(4_700));
        assert_eq!(summary.drop_to_scale_in_ms, Some(31_000));
        assert_eq!(summary.scale_in_to_stopped_ms, Some(1_000));
        assert_eq!(summary.peak_tasks, 4);
        assert_eq!(summary.tasks_over_time, [(0.0, 1), (9.0, 2), (13.0, 4), (52.0, 2)]);
        assert_eq!(summary.scaling.len(), 3);
        let text = summary.to_string();
        assert!(text.contains("4.70 s") && text.contains("1 (0 s) -> 2 (9 s) -> 4 (13 s) -> 2 (52 s)"), "{text}");
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!((&json["peak_tasks"], &json["load_to_running_ms"]), (&4.into(), &4_700.into()));
    }

    #[test]
    fn what_is_missing_is_said() {
        let missing = |change: &dyn Fn(&mut Recording)| {
            let mut recording = recording();
            change(&mut recording);
            summarize(&recording, report()).missing().unwrap_or_default()
        };
        assert!(missing(&|r| r.decisions.clear()).contains("no decision to scale out"));
        assert!(missing(&|r| r.samples = samples(&[(0, 1), (9_000, 1)])).contains("no second task"));
        assert!(missing(&|r| r.decisions.truncate(6)).contains("no decision to scale in"));
        assert!(missing(&|r| r.samples.truncate(r.samples.len() - 1)).contains("no task ended"));
        // Scaled in while the load was still high: not the answer that is waited for.
        assert!(missing(&|r| r.falls_ms = 60_000).contains("no decision to scale in"));
        assert!(missing(&|r| *r = Recording::default()).contains("no decision"));
    }
}
