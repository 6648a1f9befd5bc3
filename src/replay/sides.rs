//! What was decided beside what a policy would have decided on the same record: the same, another count, or only one of the two.

use super::Wrong;
use super::given::Given;
use super::recording::{Known, Window};
use super::report::{Options, setup};
use crate::decide::backtest::figures::{Move, step};
use crate::decide::backtest::{self, Decided, Feedback, Record};
use crate::model::decision::{Decision, ReasonCode};
use crate::model::{Millis, Timestamp};

/// An alarm may be judged a period sooner on the record than when its datapoints were still on their way.
const APART: Millis = 5_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    pub step: Move,
    pub policy: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub at: Timestamp,
    pub was: Option<Side>,
    pub would: Option<Side>,
}

impl Row {
    pub fn is_same(&self) -> bool {
        match (&self.was, &self.would) {
            (Some(was), Some(would)) => was.step.to == would.step.to,
            _ => false,
        }
    }
}

/// What the policies of a file would have said at each moment of what was, beside what was said.
pub fn compare(known: &Known, given: &Given, record: &Record, window: Window, options: Options) -> Result<Vec<Row>, Wrong> {
    let setup = setup(known, given, window, options, Feedback::Open)?;
    let within = |at: Timestamp| setup.start <= at && at <= setup.end;
    let decisions: Vec<Decision> = known.decisions.iter().filter(|d| within(d.at)).cloned().collect();
    Ok(rows(&decisions, &backtest::run(&setup, record).decided))
}

/// By time; a decision and an answer within a few seconds of each other, in the same direction, are one row.
pub fn rows(decisions: &[Decision], answers: &[Decided]) -> Vec<Row> {
    let was =
        decisions.iter().filter(|d| matches!(d.reason.code, ReasonCode::ScaledOut | ReasonCode::ScaledIn)).filter_map(|d| {
            let (from, to) = step(&d.action)?;
            let policy = d.reason.evidence.get("policy").and_then(|v| v.as_str()).unwrap_or_default().to_owned();
            Some(Side { step: Move { at: d.at, from, to }, policy, reason: d.reason.sentence.clone() })
        });
    let mut would: Vec<Side> = answers
        .iter()
        .filter_map(|answer| {
            let step = Move { at: answer.at, from: answer.from, to: answer.to? };
            Some(Side { step, policy: answer.policy.clone(), reason: answer.reason.sentence.clone() })
        })
        .collect();
    let mut rows: Vec<Row> = was
        .map(|was| {
            let near = |side: &Side| {
                let same_way = (side.step.to > side.step.from) == (was.step.to > was.step.from);
                same_way && side.step.at.since(was.step.at).abs() <= APART
            };
            let nearest = would.iter().enumerate().filter(|(_, side)| near(side));
            let nearest = nearest.min_by_key(|(_, side)| (side.step.to != was.step.to, side.step.at.since(was.step.at).abs()));
            let would = nearest.map(|(n, _)| n).map(|n| would.remove(n));
            Row { at: was.step.at, was: Some(was), would }
        })
        .collect();
    rows.extend(would.into_iter().map(|would| Row { at: would.step.at, was: None, would: Some(would) }));
    rows.sort_by_key(|row| row.at);
    rows
}
