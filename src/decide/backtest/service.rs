//! The simulated service: what it desires, what runs and what is on its way, second by second.

use std::collections::VecDeque;

use super::figures::Move;
use super::{Decided, Feedback, Outcome, Record, SECOND, Setup};
use crate::decide::autoscale::cooldown;
use crate::model::scaling::{ScalableTarget, Scaled};
use crate::model::{Millis, Timestamp};

pub struct Simulated {
    feedback: Feedback,
    start_delay_ms: Millis,
    pub target: ScalableTarget,
    desired: u32,
    running: u32,
    /// When how many tasks run that do not yet; soonest first.
    starting: VecDeque<(Timestamp, u32)>,
    /// What was done, and when to the millisecond; the record has whole seconds.
    moves: VecDeque<Move>,
    out_cooldown_ms: Millis,
    /// What has happened up to here is in the curves.
    passed: Timestamp,
    start: Timestamp,
    desired_curve: Vec<u32>,
    running_curve: Vec<u32>,
    pub(super) decided: Vec<Decided>,
}

impl Simulated {
    pub(super) fn new(setup: &Setup, record: &Record) -> Simulated {
        let at = record.index(setup.start).unwrap_or(0);
        let running = record.last_known(Record::running, at).unwrap_or(0);
        Simulated {
            feedback: setup.feedback,
            start_delay_ms: setup.start_delay_ms.max(0),
            target: setup.target.clone(),
            // A service of which nobody wrote down what it desires desires what it has.
            desired: record.last_known(Record::desired, at).unwrap_or(running),
            running,
            starting: VecDeque::new(),
            moves: setup.moves.iter().copied().filter(|step| step.at >= setup.start).collect(),
            out_cooldown_ms: setup
                .contenders
                .first()
                .and_then(|contender| cooldown::of(&contender.policy.kind, false))
                .unwrap_or(cooldown::DEFAULT_MS),
            passed: setup.start,
            start: setup.start,
            desired_curve: Vec::new(),
            running_curve: Vec::new(),
            decided: Vec::new(),
        }
        .with_starting(setup.start)
    }

    /// What is desired at the start and does not run yet is on its way; what runs beyond it goes.
    fn with_starting(mut self, now: Timestamp) -> Simulated {
        if self.feedback == Feedback::Closed {
            let desired = self.desired;
            self.reach(desired, now);
        }
        self
    }

    pub fn desired(&self) -> u32 {
        self.desired
    }

    pub fn running(&self) -> u32 {
        self.running
    }

    pub fn starting(&self) -> u32 {
        self.starting.iter().map(|(_, count)| count).sum()
    }

    /// How many tasks ran in a second of the record; None: as many as were recorded.
    pub fn tasks(&self, record: &Record, second: usize) -> Option<u32> {
        if self.feedback == Feedback::Open {
            return None;
        }
        let at = record.start + second as Millis * SECOND;
        let since = usize::try_from(at.since(self.start).div_euclid(SECOND)).ok()?;
        self.running_curve.get(since).copied()
    }

    /// Sets the desired count, with the target as it is after that. Answers when its tasks run; None where none had to be made.
    /// In the open nothing comes of it.
    pub fn carry_out(&mut self, desired: u32, after: ScalableTarget, now: Timestamp) -> Option<Timestamp> {
        if self.feedback == Feedback::Open {
            return None;
        }
        (self.target, self.desired) = (after, desired);
        self.reach(desired, now)
    }

    fn reach(&mut self, desired: u32, now: Timestamp) -> Option<Timestamp> {
        let coming = self.running + self.starting();
        if desired > coming {
            let ready = now + self.start_delay_ms;
            self.starting.push_back((ready, desired - coming));
            return Some(ready);
        }
        // What does not run yet goes first, the last that was asked for before the others.
        let mut over = coming - desired;
        while let Some((_, count)) = self.starting.back_mut().filter(|_| over > 0) {
            let gone = over.min(*count);
            *count -= gone;
            over -= gone;
            if *count == 0 {
                self.starting.pop_back();
            }
        }
        self.running -= over;
        None
    }

    /// Time passes up to `now`.
    pub(super) fn pass(&mut self, record: &Record, now: Timestamp) {
        while self.passed < now {
            let second = self.passed;
            match self.feedback {
                Feedback::Closed => self.start_due(second),
                Feedback::Open => {
                    self.as_done(second);
                    self.as_recorded(record, second);
                }
            }
            self.desired_curve.push(self.desired);
            self.running_curve.push(self.running);
            self.passed = second + SECOND;
        }
        match self.feedback {
            Feedback::Closed => self.start_due(now),
            Feedback::Open => self.as_done(now),
        }
    }

    fn start_due(&mut self, now: Timestamp) {
        while let Some(&(_, count)) = self.starting.front().filter(|(ready, _)| *ready <= now) {
            self.running += count;
            self.starting.pop_front();
        }
    }

    /// Capacity as it was in a second.
    fn as_recorded(&mut self, record: &Record, at: Timestamp) {
        let Some(second) = record.index(at) else { return };
        let whole = |count: f64| count.round().max(0.0) as u32;
        self.running = record.running(second).map_or(self.running, whole);
        self.desired = record.desired(second).map_or(self.desired, whole);
    }

    /// What was done before `now`, and with it what the cooldowns count from.
    fn as_done(&mut self, now: Timestamp) {
        while let Some(&Move { at, from, to }) = self.moves.front().filter(|step| step.at < now) {
            self.moves.pop_front();
            let policy = String::from("as recorded");
            if to > from {
                // As `autoscale::remember` has it: one inside the cooldown of the one before goes on from where that began.
                let before = self.target.last_out.as_ref().filter(|last| at < last.at + self.out_cooldown_ms && from >= last.to);
                let from = before.map_or(from, |last| last.from);
                self.target.last_out = Some(Scaled { at, from, to, policy });
            } else {
                self.target.last_in = Some(Scaled { at, from, to, policy });
            }
            self.desired = to;
        }
    }

    pub(super) fn outcome(self, setup: &Setup, record: &Record) -> Outcome {
        let first = record.index(setup.start).unwrap_or(0);
        let mut saturated_s = 0;
        let series = super::reactive::yardstick_series(setup, record);
        let metric = (0..self.running_curve.len())
            .map(|n| {
                let (value, _, beyond) = record.on(series?, first + n, self.tasks(record, first + n))?;
                saturated_s += u64::from(beyond);
                Some(value)
            })
            .collect();
        Outcome {
            start: setup.start,
            desired: self.desired_curve,
            running: self.running_curve,
            metric,
            decided: self.decided,
            saturated_s,
        }
    }
}
