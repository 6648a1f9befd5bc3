//! Evaluates alarms: each when its next period is complete, on the data that the metrics store holds. A transition is a commit; an
//! evaluation that changes nothing is not. While an alarm is in ALARM, every evaluation asks its scaling policies again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Control, alerts, scaling};
use crate::decide::alarm::{self as rules, Verdict, history};
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::decision::{Decision, ReasonCode, Subject};
use crate::model::metric::Query;
use crate::observe;
use crate::schedule::scaling::{refuse_other_actions, service_of};
use crate::store::{self, Change, Commit, Record, State};

pub async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut watch = control.store.watch();
    let mut schedule = Schedule::default();
    let mut asked = scaling::Asked::default();
    schedule.all(&control.store.snapshot(), control.clock.now());
    let mut set_back = super::SetBack::at(control.clock.now());
    loop {
        let now = control.clock.now();
        if set_back.since_last(now) {
            schedule.anew(now);
        }
        for name in schedule.due(now) {
            evaluate(&control, &mut schedule, &mut asked, &name).await;
        }
        // In this order each time, so that in a simulation the seed alone decides.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = super::until(&control.clock, super::alive(&control, "alarms", schedule.next())) => {}
            commit = watch.recv() => match commit {
                Ok(commit) => {
                    schedule.note(&commit, control.clock.now());
                    for alarm in raised_by_hand(&commit) {
                        scaling::on_alarm(&control, &mut asked, alarm).await;
                    }
                }
                Err(RecvError::Lagged(_)) => schedule.all(&control.store.snapshot(), control.clock.now()),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Alarms that someone put into ALARM with SetAlarmState: their scaling policies run as they would after an evaluation
/// (CloudWatch, SetAlarmState). The evaluation that follows on time may well put the alarm back.
fn raised_by_hand(commit: &Commit) -> impl Iterator<Item = &Alarm> {
    let set = commit.records.iter().filter_map(|record| match record {
        Record::Decision(Decision { at, subject: Subject::Alarm { name, .. }, reason, .. })
            if reason.code == ReasonCode::AlarmSetByUser =>
        {
            Some((name, *at))
        }
        _ => None,
    });
    set.filter_map(|(name, at)| {
        let alarm = commit.changes.iter().rev().find_map(|change| match change {
            Change::Alarm(changed, alarm) if changed == name => Some(alarm.as_deref()),
            _ => None,
        })??;
        // Setting the state that it has already runs nothing.
        let raised = alarm.state == AlarmState::Alarm && alarm.state_transitioned_at == at;
        (raised && alarm.actions_enabled).then_some(alarm)
    })
}

/// When each alarm is looked at next.
#[derive(Default)]
pub struct Schedule {
    by_time: BTreeSet<(Timestamp, String)>,
    by_name: BTreeMap<String, Timestamp>,
}

impl Schedule {
    pub fn all(&mut self, state: &State, now: Timestamp) {
        self.by_name.retain(|name, _| state.alarms.contains_key(name));
        self.by_time.retain(|(_, name)| state.alarms.contains_key(name));
        let new: Vec<String> = state.alarms.keys().filter(|name| !self.by_name.contains_key(*name)).cloned().collect();
        new.iter().for_each(|name| self.at(name, Some(now)));
    }

    /// Every one is looked at now.
    fn anew(&mut self, now: Timestamp) {
        let names: Vec<String> = self.by_name.keys().cloned().collect();
        names.iter().for_each(|name| self.at(name, Some(now)));
    }

    /// An alarm that was changed is looked at at once; one whose state we ourselves moved keeps its time.
    pub fn note(&mut self, commit: &Commit, now: Timestamp) {
        for change in &commit.changes {
            match change {
                Change::Alarm(name, None) => self.at(name, None),
                Change::Alarm(name, Some(alarm)) => {
                    let configured = alarm.configuration_updated_at >= alarm.state_updated_at;
                    if configured || !self.by_name.contains_key(name) {
                        self.at(name, Some(now));
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn at(&mut self, name: &str, when: Option<Timestamp>) {
        if let Some(old) = self.by_name.remove(name) {
            self.by_time.remove(&(old, name.to_owned()));
        }
        if let Some(when) = when {
            self.by_time.insert((when, name.to_owned()));
            self.by_name.insert(name.to_owned(), when);
        }
    }

    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub fn due(&mut self, now: Timestamp) -> Vec<String> {
        let due: Vec<String> = self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone()).collect();
        due.iter().for_each(|name| self.at(name, None));
        due
    }
}

/// Looks at one alarm now and says when to look again.
pub async fn evaluate(control: &Arc<Control>, schedule: &mut Schedule, asked: &mut scaling::Asked, name: &str) {
    let (state, now) = (control.store.snapshot(), control.clock.now());
    let Some(alarm) = state.alarms.get(name).cloned() else { return asked.forget(name) };
    let settle = control.settings.settle_ms;
    if let Some(known) = &alarm.external {
        return alerts::look(control, schedule, asked, &state, &alarm, known).await;
    }
    schedule.at(name, Some(rules::next_evaluation(&alarm, now, settle)));
    let range = rules::range(&alarm, now, settle);
    let points = control.metrics.query(&Query {
        key: alarm.metric.clone(),
        statistic: alarm.statistic.clone(),
        unit: alarm.unit.as_deref().map(Arc::from),
        start: range.start,
        end: range.end,
        period_ms: range.period_ms,
    });
    observe::alarm_evaluated();
    let Some(verdict) = rules::evaluate(&alarm, range, &points, now) else { return };
    let mut current = (*alarm).clone();
    if verdict.transition {
        match transition(control, &alarm, verdict).await {
            Ok(Some(changed)) => current = changed,
            // It was changed meanwhile: that change has put it on the schedule.
            Ok(None) => return,
            Err(error) => {
                return tracing::error!(alarm = name, %error, "an alarm's new state could not be stored; it is evaluated again");
            }
        }
    } else {
        current.recent = verdict.recent;
    }
    asked.saw(&current);
    if current.actions_enabled && current.state == AlarmState::Alarm {
        scaling::on_alarm(control, asked, &current).await;
    }
}

async fn transition(control: &Arc<Control>, before: &Alarm, verdict: Verdict) -> Result<Option<Alarm>, store::Error> {
    let span = tracing::info_span!("alarm.transition", alarm = %before.name, from = before.state.as_str(), to = verdict.state.as_str(),
        reason = %verdict.state_reason, otel.name = "alarm.transition");
    let trace = span.in_scope(observe::traceparent);
    tracing::info!(alarm = %before.name, from = before.state.as_str(), to = verdict.state.as_str(), reason = %verdict.state_reason, "alarm changed");
    observe::alarm_transition(verdict.state.as_str());
    let before = before.clone();
    control
        .store
        .update(format!("alarm {}", before.name), move |tx| {
            let Some(alarm) = tx.state().alarms.get(&before.name).cloned() else { return Ok(None) };
            let same = alarm.configuration_updated_at == before.configuration_updated_at && alarm.state == before.state;
            if !same {
                return Ok(None);
            }
            let now = tx.now;
            let changed = Alarm {
                state: verdict.state,
                state_reason: verdict.state_reason.clone(),
                state_reason_data: Some(verdict.state_reason_data.clone()),
                recent: verdict.recent.clone(),
                state_updated_at: now,
                state_transitioned_at: now,
                trace: trace.clone(),
                ..(*alarm).clone()
            };
            tx.alarm_history(history::state_update(&alarm, &verdict, now));
            tx.decide(Decision {
                at: now,
                subject: Subject::Alarm { name: changed.name.clone(), service: service_of(&changed) },
                action: format!("alarm {} -> {}", alarm.state.as_str(), changed.state.as_str()),
                reason: verdict.reason.clone(),
                trace,
            });
            refuse_other_actions(tx, &changed);
            tx.put(changed.clone());
            Ok(Some(changed))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::alarm::INITIAL_STATE_REASON;
    use crate::model::alarm::{Comparison, MissingData};
    use crate::model::decision::Reason;
    use crate::model::metric::{MetricKey, Statistic};

    fn alarm(state: AlarmState, transitioned_s: i64, actions_enabled: bool) -> Alarm {
        let at = Timestamp(transitioned_s * 1_000);
        Alarm {
            name: "high".to_owned(),
            description: None,
            actions_enabled,
            ok_actions: Vec::new(),
            alarm_actions: Vec::new(),
            insufficient_data_actions: Vec::new(),
            metric: MetricKey::new("Shop", "m", []),
            statistic: Statistic::Sum,
            period_s: 60,
            unit: None,
            evaluation_periods: 1,
            datapoints_to_alarm: None,
            threshold: 1.0,
            comparison: Comparison::GreaterThanThreshold,
            missing: MissingData::Missing,
            missing_given: false,
            owned_by_policy: None,
            state,
            state_reason: INITIAL_STATE_REASON.to_owned(),
            state_reason_data: None,
            recent: Vec::new(),
            state_updated_at: at,
            state_transitioned_at: at,
            configuration_updated_at: Timestamp(0),
            tags: Vec::new(),
            trace: None,
            external: None,
        }
    }

    fn commit(alarm: Alarm, code: ReasonCode) -> Commit {
        let at = Timestamp(9_000);
        let subject = Subject::Alarm { name: alarm.name.clone(), service: None };
        let decision = Decision { at, subject, action: String::new(), reason: Reason::new(code, ""), trace: None };
        Commit {
            revision: 1,
            at,
            causes: Vec::new(),
            changes: vec![Change::from(alarm)],
            records: vec![Record::Decision(decision)],
        }
    }

    #[test]
    fn only_an_alarm_that_was_raised_by_hand_runs_its_policies_at_once() {
        let raised = |state, transitioned_s, enabled, code| {
            raised_by_hand(&commit(alarm(state, transitioned_s, enabled), code)).count() == 1
        };
        assert!(raised(AlarmState::Alarm, 9, true, ReasonCode::AlarmSetByUser));
        assert!(!raised(AlarmState::Alarm, 8, true, ReasonCode::AlarmSetByUser), "it was in ALARM already");
        assert!(!raised(AlarmState::Ok, 9, true, ReasonCode::AlarmSetByUser));
        assert!(!raised(AlarmState::Alarm, 9, false, ReasonCode::AlarmSetByUser));
        assert!(!raised(AlarmState::Alarm, 9, true, ReasonCode::AlarmRaised), "the loop itself has run them");
    }
}
