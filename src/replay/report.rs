//! Several policies beside what was: their curves, figures and what all of it assumes.

use serde_json::{Value, json};

use super::Wrong;
use super::given::Given;
use super::recording::{Known, SETTLE_MS, Window};
use crate::decide::backtest::figures::{median, moves, took};
use crate::decide::backtest::{self, Contender, Feedback, Figures, Model, Outcome, Record, Setup, Yardstick};
use crate::model::decision::ReasonCode;
use crate::model::metric::Statistic;
use crate::model::scaling::{ScalableTarget, Stage};
use crate::model::{Millis, Timestamp};

/// Where neither the record nor the caller says how long tasks take to run.
pub const START_DELAY_MS: Millis = 5_000;

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub start_delay_ms: Option<Millis>,
    pub min: Option<u32>,
    pub max: Option<u32>,
}

/// One curve: what was, or what a policy would have made of it. One entry a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub running: Vec<Option<f64>>,
    pub metric: Vec<Option<f64>>,
    pub figures: Figures,
    pub target: Option<f64>,
    pub saturated_s: u64,
    pub decided: Vec<backtest::Decided>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub service: String,
    pub start: Timestamp,
    pub end: Timestamp,
    /// `CPUUtilization Average`, and its unit.
    pub metric: String,
    pub unit: String,
    pub bounds: (u32, u32),
    pub actual: Column,
    pub policies: Vec<Column>,
    pub notes: Vec<String>,
}

/// What the policies of each file would have made of the record. `records` has one for each file.
pub fn back_test(known: &Known, givens: &[Given], records: &[Record], window: Window, options: Options) -> Result<Report, Wrong> {
    let (Some(first), Some(record)) = (givens.first(), records.first()) else {
        return Err(Wrong::new("there is no policy to try", "name a file"));
    };
    let asked_since = window.since;
    let window = Window { since: known_since(record, window), ..window };
    let setup = |given: &Given| setup(known, given, window, options, Feedback::Closed);
    let yardstick = first.contenders.first().map(Yardstick::of).unwrap_or_default();
    let main = setup(first)?;
    let actual = actual(known, record, &main, yardstick);
    if actual.figures.no_data_s == actual.figures.seconds {
        let series = series_of(first).unwrap_or_else(|| "the policy's metric".to_owned());
        return Err(Wrong::new(
            format!("nothing is recorded of {series} from {} to {}", window.since.iso(), window.until.iso()),
            "is the service's name right, and was it running then? Seconds are kept for 3 hours, minutes for 15 days",
        ));
    }
    let mut policies = Vec::with_capacity(givens.len());
    for (given, record) in givens.iter().zip(records) {
        let outcome = backtest::run(&setup(given)?, record);
        let yardstick = given.contenders.first().map(Yardstick::of).unwrap_or_default();
        policies.push(column(&given.name, outcome, yardstick));
    }
    let bounds = (main.target.min, main.target.max);
    let mut notes = notes(known, givens, records, &main, options, &actual, &policies);
    if window.since.since(asked_since) > 60_000 {
        notes.push(format!("nothing is recorded from {} on: it begins at {}", asked_since.iso(), window.since.iso()));
    }
    let alarm = first.contenders.first().and_then(|contender| contender.alarms.first());
    Ok(Report {
        service: known.service.to_string(),
        start: main.start,
        end: main.end,
        metric: alarm.map_or(String::new(), |alarm| format!("{} {}", alarm.metric.name, alarm.statistic)),
        unit: alarm.and_then(|alarm| alarm.unit.clone()).unwrap_or_default(),
        bounds,
        actual,
        policies,
        notes,
    })
}

/// The first second from the window's start on of which anything is known.
fn known_since(record: &Record, window: Window) -> Timestamp {
    let seconds = (0..window.until.since(window.since) / 1_000).map(|n| window.since.floor(1_000) + n * 1_000);
    let known = |at: &Timestamp| {
        let Some(second) = record.index(*at) else { return false };
        record.running(second).is_some_and(|n| n > 0.0) || (0..record.series.len()).any(|s| record.value(s, second).is_some())
    };
    seconds.into_iter().find(known).unwrap_or(window.since)
}

fn series_of(given: &Given) -> Option<String> {
    Some(given.contenders.first()?.alarms.first()?.metric.to_string())
}

/// The bounds are the file's, else the target's, unless they are said.
pub fn setup(known: &Known, given: &Given, window: Window, options: Options, feedback: Feedback) -> Result<Setup, Wrong> {
    let of_target = known.target.as_ref().map(|target| (target.min, target.max));
    let bounds = given.bounds.or(of_target);
    let (min, max) = (options.min.or(bounds.map(|b| b.0)), options.max.or(bounds.map(|b| b.1)));
    let (Some(min), Some(max)) = (min, max) else {
        let what = format!("service/{} is no scalable target, so nothing bounds a policy", known.service);
        return Err(Wrong::new(what, "say --min and --max"));
    };
    crate::decide::autoscale::bounds::validate(min, max).map_err(|e| Wrong::new(e.to_string(), "say a larger --max"))?;
    let suspended = known.target.as_ref().map_or((false, false), |target| (target.suspend_in, target.suspend_out));
    let target = ScalableTarget {
        service: known.service.clone(),
        id: String::new(),
        min,
        max,
        suspend_in: suspended.0,
        suspend_out: suspended.1,
        suspend_scheduled: false,
        tags: Vec::new(),
        created_at: window.since,
        last_out: None,
        last_in: None,
    };
    Ok(Setup {
        start: window.since.floor(1_000),
        end: window.until.floor(1_000),
        settle_ms: SETTLE_MS,
        start_delay_ms: options.start_delay_ms.or(measured_delay(known)).unwrap_or(START_DELAY_MS),
        feedback,
        moves: moves(&known.decisions),
        target,
        contenders: given.contenders.clone(),
    })
}

/// From a decision to tasks that run, as recorded.
fn measured_delay(known: &Known) -> Option<Millis> {
    median(took(&known.decisions, &[Stage::Placed, Stage::Running]))
}

fn actual(known: &Known, record: &Record, setup: &Setup, yardstick: Yardstick) -> Column {
    let alarm = setup.contenders.first().and_then(|contender| contender.alarms.first());
    let series = alarm.and_then(|alarm| record.find(&alarm.metric, &alarm.statistic, alarm.unit.as_deref()));
    let first = record.index(setup.start).unwrap_or(0);
    let seconds = first..first + usize::try_from(setup.end.since(setup.start) / 1_000).unwrap_or(0);
    let metric: Vec<Option<f64>> = seconds.clone().map(|second| record.value(series?, second)).collect();
    let running: Vec<Option<f64>> = seconds.map(|second| record.running(second)).collect();
    let counts: Vec<f64> = running.iter().map(|n| n.unwrap_or(0.0)).collect();
    let figures = Figures::of(&metric, &counts, &moves(&known.decisions), took(&known.decisions, &[Stage::Total]), yardstick);
    Column { name: "actual".to_owned(), running, metric, figures, target: yardstick.target, saturated_s: 0, decided: Vec::new() }
}

fn column(name: &str, outcome: Outcome, yardstick: Yardstick) -> Column {
    Column {
        name: name.to_owned(),
        figures: Figures::of_outcome(&outcome, yardstick),
        running: outcome.running.iter().map(|n| Some(f64::from(*n))).collect(),
        metric: outcome.metric,
        target: yardstick.target,
        saturated_s: outcome.saturated_s,
        decided: outcome.decided,
    }
}

/// What the numbers rest on, one sentence each.
fn notes(
    known: &Known,
    givens: &[Given],
    records: &[Record],
    setup: &Setup,
    options: Options,
    actual: &Column,
    policies: &[Column],
) -> Vec<String> {
    let mut notes = Vec::new();
    let mut say = |note: String| {
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    for series in records.iter().flat_map(|record| &record.series) {
        let name = &series.metric.name;
        match series.model {
            Model::Constant => {
                say(format!("model constant: {name} is taken to be what it was, whatever the capacity (--capacity-model linear)"))
            }
            Model::Linear { ceiling } => {
                let most = ceiling.map_or(String::new(), |most| {
                    format!(
                        "; a share above {most:.0} {} counts as that, as nobody has measured beyond",
                        words(series.unit.as_deref())
                    )
                });
                say(format!(
                    "model linear: the load is {name} x running tasks as recorded, and the simulated tasks share it equally{most}"
                ));
            }
        }
        if matches!(series.statistic, Statistic::Percentile(_)) {
            say(format!("{name} {} over several seconds is the mean of the seconds' percentiles", series.statistic));
        }
    }
    let delay = setup.start_delay_ms as f64 / 1e3;
    let measured = took(&known.decisions, &[Stage::Placed, Stage::Running]).len();
    say(match options.start_delay_ms {
        Some(_) => format!("a new task runs {delay:.1} s after the decision, as --warmup says"),
        None if measured > 0 => {
            format!("a new task runs {delay:.1} s after the decision: the median of {measured} recorded scale-outs")
        }
        None => format!("a new task runs {delay:.1} s after the decision: no scale-out is recorded to measure it by (--warmup)"),
    });
    say("a task that goes is gone at once; deployments, failures and lack of room are not simulated".to_owned());
    let by_hand = known.decisions.iter().filter(|d| d.reason.code == ReasonCode::SetByUser && d.action.starts_with("desired "));
    let by_hand = by_hand.count();
    if by_hand > 0 {
        say(format!("the desired count was set by hand {by_hand} times; no policy did that, and none does it here"));
    }
    let full = actual.metric.iter().flatten().filter(|v| **v >= 99.5).count();
    let saturates = records.iter().flat_map(|r| &r.series).any(|s| matches!(s.model, Model::Linear { ceiling: Some(_) }));
    if saturates && full > 0 {
        say(format!("for {full} s the recorded metric was at 99.5 or more: the load may have been more than it shows"));
    }
    for column in policies.iter().filter(|column| column.saturated_s > 0) {
        say(format!("for {} s of {} the load was more than the simulated tasks could show", column.saturated_s, column.name));
    }
    let unknown = actual.running.iter().filter(|n| n.is_none()).count();
    if unknown > 0 {
        say(format!("for {unknown} s nobody wrote down how many tasks ran; they count as none"));
    }
    for given in givens.iter().filter(|given| given.contenders.len() > 1) {
        let names: Vec<&str> = given.contenders.iter().map(|c: &Contender| c.policy.name.as_str()).collect();
        say(format!("{} runs {} together", given.name, names.join(", ")));
    }
    notes
}

fn words(unit: Option<&str>) -> &str {
    match unit {
        Some("Percent") | None => "%",
        Some(unit) => unit,
    }
}

impl Report {
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        std::iter::once(&self.actual).chain(&self.policies)
    }

    pub fn json(&self) -> Value {
        let column = |column: &Column| {
            let f = &column.figures;
            json!({
                "name": column.name, "target": column.target, "seconds": f.seconds, "over_target_s": f.over_s,
                "under_target_s": f.under_s, "no_data_s": f.no_data_s, "metric_mean": f.mean, "metric_p95": f.p95,
                "metric_highest": f.highest, "task_hours": f.task_hours(), "most_tasks": f.most_tasks, "scale_outs": f.outs,
                "scale_ins": f.ins, "largest_step": f.largest_step, "breach_to_capacity_ms": f.reactions,
                "saturated_s": column.saturated_s,
                "capacity": changes(self.start, &column.running),
                "decisions": column.decided.iter().map(decided).collect::<Vec<_>>(),
            })
        };
        json!({
            "service": self.service, "since": self.start.iso(), "until": self.end.iso(), "metric": self.metric, "unit": self.unit,
            "min": self.bounds.0, "max": self.bounds.1, "actual": column(&self.actual),
            "policies": self.policies.iter().map(column).collect::<Vec<_>>(), "assumptions": self.notes,
        })
    }
}

pub fn decided(decided: &backtest::Decided) -> Value {
    json!({ "at": decided.at.iso(), "policy": decided.policy, "alarm": decided.alarm, "from": decided.from, "to": decided.to,
            "code": decided.reason.code, "reason": decided.reason.sentence })
}

/// A curve as the moments at which it moves.
fn changes(start: Timestamp, curve: &[Option<f64>]) -> Vec<Value> {
    let moved = curve.iter().enumerate().filter(|(n, now)| *n == 0 || curve[n - 1] != **now);
    moved.map(|(n, now)| json!({ "at": (start + n as Millis * 1_000).iso(), "tasks": now })).collect()
}
