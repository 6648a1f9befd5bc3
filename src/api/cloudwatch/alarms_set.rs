//! What is done to an alarm that exists: its state set by hand, its actions switched on and off.

use super::alarms::checked_names;
use super::metric::short;
use super::shapes::{AlarmNamesInput, SetAlarmStateInput};
use super::{Cx, errors, update};
use crate::decide::alarm::RECENT_AT_MOST;
use crate::decide::alarm::history::{self, Configuration};
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::observe::traceparent;
use crate::schedule::scaling::{refuse_other_actions, service_of};
use crate::wire::fault::Fault;

const MOST_REASON: usize = 1_023;
const MOST_REASON_DATA: usize = 4_000;

/// "If you use SetAlarmState for a metric alarm, it returns to its actual state at its next evaluation." Actions run only when the
/// state becomes another; scaling policies run in the control loop, which sees the decision.
pub async fn set_state(cx: Cx, input: SetAlarmStateInput) -> Result<(), Fault> {
    check_length("stateReason", &input.state_reason, MOST_REASON)?;
    check_length("stateReasonData", input.state_reason_data.as_deref().unwrap_or_default(), MOST_REASON_DATA)?;
    let recent = input.state_reason_data.as_deref().map(recent_values).transpose()?.unwrap_or_default();
    let trace = traceparent();
    update(&cx, "SetAlarmState", move |tx, _| {
        let before = tx.state().alarms.get(&input.alarm_name).cloned().ok_or_else(errors::alarm_not_found)?;
        let (now, state) = (tx.now, AlarmState::from(input.state_value));
        let moved = before.state != state;
        let changed = Alarm {
            state,
            state_reason: input.state_reason.clone(),
            state_reason_data: input.state_reason_data.clone(),
            recent: recent.clone(),
            state_updated_at: now,
            state_transitioned_at: if moved { now } else { before.state_transitioned_at },
            trace: trace.clone(),
            ..(*before).clone()
        };
        let reason = Reason::new(ReasonCode::AlarmSetByUser, format!("set by a user: {}", input.state_reason))
            .with("state_before", before.state.as_str())
            .with("recent", recent);
        tx.decide(Decision {
            at: now,
            subject: Subject::Alarm { name: changed.name.clone(), service: service_of(&changed) },
            action: format!("alarm {} -> {}", before.state.as_str(), state.as_str()),
            reason,
            trace,
        });
        if moved {
            tx.alarm_history(history::state_set(&before, state, &input.state_reason, input.state_reason_data.as_deref(), now));
            refuse_other_actions(tx, &changed);
        }
        tx.put(changed);
        Ok(())
    })
    .await
}

fn check_length(member: &str, text: &str, most: usize) -> Result<(), Fault> {
    if text.chars().count() > most {
        return Err(errors::constraint(member, &short(text), &format!("Member must have length less than or equal to {most}")));
    }
    Ok(())
}

/// What a scaling policy takes its metric from: "StateReasonData ... must be valid JSON"; the reason data's `recentDatapoints`.
fn recent_values(data: &str) -> Result<Vec<f64>, Fault> {
    let data: serde_json::Value = serde_json::from_str(data).map_err(|_| errors::format("StateReasonData is not valid JSON."))?;
    let recent = data.get("recentDatapoints").and_then(|r| r.as_array());
    let mut values: Vec<f64> = recent.into_iter().flatten().filter_map(serde_json::Value::as_f64).collect();
    values.drain(..values.len().saturating_sub(RECENT_AT_MOST));
    Ok(values)
}

pub async fn enable_actions(cx: Cx, input: AlarmNamesInput) -> Result<(), Fault> {
    actions(cx, "EnableAlarmActions", input, true).await
}

pub async fn disable_actions(cx: Cx, input: AlarmNamesInput) -> Result<(), Fault> {
    actions(cx, "DisableAlarmActions", input, false).await
}

/// Unknown names are passed over, and so are alarms that stand as asked.
async fn actions(cx: Cx, operation: &'static str, input: AlarmNamesInput, enabled: bool) -> Result<(), Fault> {
    let names = checked_names(input)?;
    update(&cx, operation, move |tx, app| {
        let now = tx.now;
        for name in names {
            let Some(before) = tx.state().alarms.get(&name).filter(|a| a.actions_enabled != enabled).cloned() else { continue };
            let alarm = Alarm { actions_enabled: enabled, configuration_updated_at: now, ..(*before).clone() };
            tx.alarm_history(history::configuration_update(Configuration::Updated, &alarm, &app.home, now));
            tx.put(alarm);
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_reason_data() {
        let values = |text: &str| recent_values(text).map_err(|fault| fault.code.query);
        assert_eq!(values(r#"{"recentDatapoints":[80.0, 90],"threshold":70}"#), Ok(vec![80.0, 90.0]));
        assert_eq!(values("{}"), Ok(vec![]));
        assert_eq!(values("[1]"), Ok(vec![]));
        assert_eq!(values("{"), Err("InvalidFormat"));
    }
}
