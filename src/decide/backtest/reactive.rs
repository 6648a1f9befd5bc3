//! Alarms with their policies, as the control loops run them: judged when their next period is complete, asked while in ALARM.

use std::collections::BTreeMap;

use super::{Actor, Contender, Decided, Record, Setup, Simulated};
use crate::decide::alarm::{self as rules, Range};
use crate::decide::autoscale::{self, Inputs, Scaling, reaction};
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::decision::ReasonCode;
use crate::model::metric::Datapoint;
use crate::model::scaling::{PolicyKind, ScalingPolicy};
use crate::model::{Millis, Timestamp};

pub struct Reactive {
    settle_ms: Millis,
    contenders: Vec<Contender>,
    /// When each alarm is looked at next, by the places of its contender and of itself.
    due: BTreeMap<(Timestamp, usize, usize), ()>,
    /// The last answer of each alarm's policy, what was desired then, and since when the alarm was open.
    answers: BTreeMap<(usize, usize), (ReasonCode, u32, Timestamp)>,
}

impl Reactive {
    pub fn new(setup: &Setup) -> Reactive {
        let mut contenders = setup.contenders.clone();
        let mut due = BTreeMap::new();
        for (c, contender) in contenders.iter_mut().enumerate() {
            for (a, alarm) in contender.alarms.iter_mut().enumerate() {
                // As an alarm that was just made; its first evaluation looks at what was before.
                alarm.state = AlarmState::InsufficientData;
                alarm.recent.clear();
                due.insert((setup.start, c, a), ());
            }
        }
        Reactive { settle_ms: setup.settle_ms, contenders, due, answers: BTreeMap::new() }
    }

    /// What the loop of alarms does with one of them.
    fn evaluate(&mut self, record: &Record, service: &mut Simulated, c: usize, a: usize, now: Timestamp) {
        let alarm = &mut self.contenders[c].alarms[a];
        self.due.insert((rules::next_evaluation(alarm, now, self.settle_ms), c, a), ());
        let range = rules::range(alarm, now, self.settle_ms);
        let points = datapoints(record, service, alarm, range);
        let Some(verdict) = rules::evaluate(alarm, range, &points, now) else { return };
        alarm.recent = verdict.recent;
        if verdict.transition {
            alarm.state = verdict.state;
            alarm.state_reason_data = Some(verdict.state_reason_data);
            alarm.state_updated_at = now;
            alarm.state_transitioned_at = now;
        }
        if alarm.actions_enabled && alarm.state == AlarmState::Alarm {
            self.ask(service, c, a, now);
        }
    }

    /// What the loop of scaling does with an alarm that asks.
    fn ask(&mut self, service: &mut Simulated, c: usize, a: usize, now: Timestamp) {
        let Contender { policy, alarms } = &self.contenders[c];
        let alarm = &alarms[a];
        let others = self.contenders.iter().filter(|other| other.policy.name != policy.name && scales_in(&other.policy));
        let siblings: Vec<(&ScalingPolicy, Option<&Alarm>)> = others.map(|o| (&o.policy, o.alarms.get(1))).collect();
        let target = service.target.clone();
        let inputs = Inputs {
            policy,
            target: &target,
            alarm,
            desired: service.desired(),
            running: service.running(),
            deployment_in_progress: false,
            siblings: &siblings,
        };
        let (to, reason) = match autoscale::decide(&inputs, now) {
            Scaling::To { desired, reason } => (Some(desired), reason),
            Scaling::Not { reason, .. } | Scaling::Wait { reason, .. } => (None, reason),
        };
        let (from, coming) = (service.desired(), service.running() + service.starting());
        let before = self.answers.insert((c, a), (reason.code, from, alarm.state_transitioned_at));
        let known = match to {
            // Where nothing is carried out the same is wanted with every evaluation, until what was recorded moves.
            Some(_) => before == Some((reason.code, from, alarm.state_transitioned_at)),
            None => before.is_some_and(|(code, ..)| code == reason.code),
        };
        let (mut breach_at, mut ready_at) = (None, None);
        if let Some(to) = to {
            if to > from {
                breach_at = reaction::begin(&policy.name, alarm, &target, from, to, coming).breach_at;
            }
            let after = autoscale::remember(&inputs, to, now);
            ready_at = service.carry_out(to, after, now);
        }
        if !known || (to.is_some() && service.desired() != from) {
            let (policy, alarm) = (policy.name.clone(), alarm.name.clone());
            service.decided.push(Decided { at: now, policy, alarm, from, to, reason, breach_at, ready_at });
        }
    }
}

impl Actor for Reactive {
    fn next(&self) -> Timestamp {
        self.due.first_key_value().map_or(Timestamp(i64::MAX), |((at, ..), ())| *at)
    }

    fn look(&mut self, record: &Record, service: &mut Simulated, now: Timestamp) {
        while let Some(((_, c, a), ())) = self.due.first_entry().filter(|e| e.key().0 <= now).map(|e| e.remove_entry()) {
            self.evaluate(record, service, c, a, now);
        }
    }
}

fn scales_in(policy: &ScalingPolicy) -> bool {
    matches!(&policy.kind, PolicyKind::TargetTracking(tracking) if !tracking.disable_scale_in)
}

fn datapoints(record: &Record, service: &Simulated, alarm: &Alarm, range: Range) -> Vec<Datapoint> {
    let Some(series) = record.find(&alarm.metric, &alarm.statistic, alarm.unit.as_deref()) else { return Vec::new() };
    let periods = (0..i64::from(range.periods)).map(|n| range.start + n * range.period_ms);
    periods.filter_map(|at| record.period(series, at, range.period_ms, |second| service.tasks(record, second))).collect()
}

/// What a contender is measured by: its first alarm's metric.
pub fn yardstick_series(setup: &Setup, record: &Record) -> Option<usize> {
    let alarm = setup.contenders.first()?.alarms.first()?;
    record.find(&alarm.metric, &alarm.statistic, alarm.unit.as_deref())
}
