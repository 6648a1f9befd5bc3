//! Looks after the alarms that Prometheus' alerts have raised: while one goes on its policy is asked again, as for any alarm; one that
//! nobody speaks of any more is put into INSUFFICIENT_DATA. Run by the alarms' loop.

use std::sync::Arc;

use super::alarms::Schedule;
use super::{Control, scaling};
use crate::decide::alarm::{self as rules, history, judge};
use crate::decide::alert::{self, Look};
use crate::model::alarm::{Alarm, External};
use crate::model::decision::{Decision, Reason, Subject};
use crate::model::metric::Query;
use crate::observe::{self, AlertOutcome};
use crate::schedule::scaling::{policy_of, service_of};
use crate::store::{self, State};

pub async fn look(
    control: &Arc<Control>,
    schedule: &mut Schedule,
    asked: &mut scaling::Asked,
    state: &State,
    alarm: &Alarm,
    known: &External,
) {
    let now = control.clock.now();
    match alert::look(alarm, known, now) {
        Look::Rest => {
            schedule.at(&alarm.name, None);
            asked.forget(&alarm.name);
        }
        Look::Ask { again } => {
            schedule.at(&alarm.name, Some(again));
            if alarm.actions_enabled {
                scaling::on_alarm(control, asked, &measured(control, state, alarm, known)).await;
            }
        }
        Look::Expired { alarm: expired, reason } => {
            schedule.at(&alarm.name, None);
            let (to, why) = (expired.state.as_str(), reason.sentence.clone());
            match expire(control, alarm, *expired, reason).await {
                Ok(true) => {
                    observe::webhook_alert(AlertOutcome::Expired);
                    observe::alarm_transition(to);
                    tracing::warn!(alarm = %alarm.name, from = alarm.state.as_str(), to, reason = %why, "alarm changed");
                }
                // It was heard of meanwhile: that change has put it on the schedule.
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(alarm = %alarm.name, %error, "an alert's end could not be stored; it is tried again");
                    schedule.at(&alarm.name, Some(now + 1_000));
                }
            }
        }
    }
}

/// The alarm with what its policy is to look at: the alert's own value for a step policy, the policy's own metric for target tracking.
fn measured(control: &Control, state: &State, alarm: &Alarm, known: &External) -> Alarm {
    let policy = alarm.alarm_actions.first().and_then(|action| policy_of(state, action));
    let own = policy.and_then(|policy| alert::own_metric(alarm, known, policy));
    let Some((own, comparison)) = own.and_then(|(name, comparison)| Some((state.alarms.get(&name)?, comparison))) else {
        return alarm.clone();
    };
    let range = rules::range(own, control.clock.now(), control.settings.settle_ms);
    let points = control.metrics.query(&Query {
        key: own.metric.clone(),
        statistic: own.statistic.clone(),
        unit: own.unit.as_deref().map(Arc::from),
        start: range.start,
        end: range.end,
        period_ms: range.period_ms,
    });
    // Without data there is nothing to scale by, and the policy says so.
    let recent = judge::judge(own, range, &points).recent(rules::RECENT_AT_MOST);
    Alarm { metric: own.metric.clone(), threshold: own.threshold, comparison, recent, ..alarm.clone() }
}

async fn expire(control: &Arc<Control>, before: &Alarm, expired: Alarm, reason: Reason) -> Result<bool, store::Error> {
    let before = before.clone();
    control
        .store
        .update(format!("alarm {}", before.name), move |tx| {
            if tx.state().alarms.get(&before.name).is_none_or(|alarm| **alarm != before) {
                return Ok(false);
            }
            let now = tx.now;
            tx.alarm_history(history::state_set(&before, expired.state, &expired.state_reason, None, now));
            tx.decide(Decision {
                at: now,
                subject: Subject::Alarm { name: expired.name.clone(), service: service_of(&expired) },
                action: format!("alarm {} -> {}", before.state.as_str(), expired.state.as_str()),
                reason,
                trace: None,
            });
            tx.put(expired);
            Ok(true)
        })
        .await
}
