//! A stretch of capacity and metric in a few numbers, the same for what was and for what would have been.

use super::{Contender, Outcome};
use crate::model::alarm::{Alarm, Comparison};
use crate::model::decision::{Decision, ReasonCode};
use crate::model::scaling::{PolicyKind, Stage};
use crate::model::{Millis, Timestamp};

/// What over and under its target means: the thresholds of the alarms that scale out and in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Yardstick {
    /// What the policy aims at; a step policy's is where it begins to scale out.
    pub target: Option<f64>,
    pub over: Option<(Comparison, f64)>,
    pub under: Option<(Comparison, f64)>,
}

impl Yardstick {
    pub fn of(contender: &Contender) -> Yardstick {
        let side = |upward: bool| {
            let mut alarms = contender.alarms.iter().filter(|alarm| alarm.comparison.upward() == upward);
            alarms.next().map(|alarm: &Alarm| (alarm.comparison, alarm.threshold))
        };
        let (over, under) = (side(true), side(false));
        let target = match &contender.policy.kind {
            PolicyKind::TargetTracking(tracking) => Some(tracking.target),
            PolicyKind::Step(_) => over.or(under).map(|(_, threshold)| threshold),
        };
        Yardstick { target, over, under }
    }
}

/// A scale-out or -in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub at: Timestamp,
    pub from: u32,
    pub to: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub seconds: u64,
    pub over_s: u64,
    pub under_s: u64,
    /// Seconds without a datapoint: neither over nor under.
    pub no_data_s: u64,
    pub mean: Option<f64>,
    pub p95: Option<f64>,
    pub highest: Option<f64>,
    /// The integral of the running tasks.
    pub task_seconds: f64,
    pub most_tasks: f64,
    pub outs: usize,
    pub ins: usize,
    pub largest_step: u32,
    /// From a breach to the tasks that it asked for, of each scale-out that was the first answer to one.
    pub reactions: Vec<Millis>,
}

impl Figures {
    /// `running` has one entry a second, as `metric` has.
    pub fn of(metric: &[Option<f64>], running: &[f64], moves: &[Move], reactions: Vec<Millis>, yardstick: Yardstick) -> Figures {
        let breach =
            |value: f64, side: Option<(Comparison, f64)>| side.is_some_and(|(how, threshold)| how.breaches(value, threshold));
        let mut values: Vec<f64> = metric.iter().flatten().copied().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let count = |of: &dyn Fn(f64) -> bool| values.iter().filter(|value| of(**value)).count() as u64;
        let mut reactions = reactions;
        reactions.sort_unstable();
        Figures {
            seconds: metric.len() as u64,
            over_s: count(&|value| breach(value, yardstick.over)),
            under_s: count(&|value| breach(value, yardstick.under)),
            no_data_s: (metric.len() - values.len()) as u64,
            mean: (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64),
            // The nearest rank: a value that was there.
            p95: values.get((values.len() * 95).div_ceil(100).saturating_sub(1)).copied(),
            highest: values.last().copied(),
            task_seconds: running.iter().sum(),
            most_tasks: running.iter().copied().fold(0.0, f64::max),
            outs: moves.iter().filter(|step| step.to > step.from).count(),
            ins: moves.iter().filter(|step| step.to < step.from).count(),
            largest_step: moves.iter().map(|step| step.to.abs_diff(step.from)).max().unwrap_or(0),
            reactions,
        }
    }

    pub fn of_outcome(outcome: &Outcome, yardstick: Yardstick) -> Figures {
        let running: Vec<f64> = outcome.running.iter().map(|n| f64::from(*n)).collect();
        let took = |d: &super::Decided| Some(d.ready_at?.since(d.breach_at?));
        Figures::of(&outcome.metric, &running, &outcome.moves(), outcome.decided.iter().filter_map(took).collect(), yardstick)
    }

    pub fn task_hours(&self) -> f64 {
        self.task_seconds / 3_600.0
    }

    pub fn reaction_median(&self) -> Option<Millis> {
        self.reactions.get(self.reactions.len().saturating_sub(1) / 2).copied()
    }
}

impl Outcome {
    pub fn moves(&self) -> Vec<Move> {
        let moves = self.decided.iter().filter_map(|d| Some(Move { at: d.at, from: d.from, to: d.to? }));
        moves.filter(|step| step.from != step.to).collect()
    }
}

/// What policies did, by the ledger.
pub fn moves(decisions: &[Decision]) -> Vec<Move> {
    let scaled = decisions.iter().filter(|d| matches!(d.reason.code, ReasonCode::ScaledOut | ReasonCode::ScaledIn));
    scaled.filter_map(|d| step(&d.action).map(|(from, to)| Move { at: d.at, from, to })).collect()
}

/// Of `desired 2 -> 4`.
pub fn step(action: &str) -> Option<(u32, u32)> {
    let (from, to) = action.strip_prefix("desired ")?.split_once(" -> ")?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// How long scale-outs took, by the ledger: of a hop, or of hops together.
pub fn took(decisions: &[Decision], stages: &[Stage]) -> Vec<Millis> {
    let done = decisions.iter().filter(|d| d.reason.code == ReasonCode::ScaleOutDone);
    let hop = |d: &Decision, stage: &Stage| d.reason.evidence.get("hops_ms")?.get(stage.as_str())?.as_i64();
    done.filter_map(|d| stages.iter().map(|stage| hop(d, stage)).sum::<Option<Millis>>()).collect()
}

/// The middle one, or the lower of the two in the middle.
pub fn median(mut values: Vec<Millis>) -> Option<Millis> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Comparison::{GreaterThanThreshold, LessThanThreshold};

    #[test]
    fn a_few_seconds_in_numbers() {
        let metric = [Some(10.0), Some(60.0), None, Some(50.0), Some(80.0)];
        let yardstick =
            Yardstick { target: Some(50.0), over: Some((GreaterThanThreshold, 50.0)), under: Some((LessThanThreshold, 45.0)) };
        let step = |from, to| Move { at: Timestamp(0), from, to };
        let figures = Figures::of(&metric, &[1.0, 1.0, 2.0, 2.0, 3.5], &[step(1, 4), step(4, 2)], vec![9, 5, 7], yardstick);
        assert_eq!((figures.over_s, figures.under_s, figures.no_data_s, figures.seconds), (2, 1, 1, 5));
        assert_eq!((figures.mean, figures.p95, figures.highest), (Some(50.0), Some(80.0), Some(80.0)));
        assert_eq!((figures.task_seconds, figures.most_tasks), (9.5, 3.5));
        assert_eq!((figures.outs, figures.ins, figures.largest_step), (1, 1, 3));
        assert_eq!(figures.reaction_median(), Some(7));
        let none = Figures::of(&[None], &[0.0], &[], Vec::new(), yardstick);
        assert_eq!((none.mean, none.p95, none.reaction_median()), (None, None, None));
    }

    #[test]
    fn the_ledgers_words_are_read() {
        assert_eq!(step("desired 2 -> 14"), Some((2, 14)));
        assert_eq!((step("scaling: no change"), step("desired x -> 1")), (None, None));
        assert_eq!((median(vec![4, 1, 3]), median(vec![4, 1]), median(vec![])), (Some(3), Some(1), None));
    }
}
