//! What scaling writes inside a transaction, whoever asks for it: a policy, a person who moves a target's bounds, an alarm that
//! was set by hand. Decides nothing: the new count is `decide::autoscale`'s.

use std::sync::Arc;

use crate::decide::alarm::history;
use crate::decide::autoscale::activity;
use crate::ids::IdSource;
use crate::model::ServiceKey;
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::decision::Reason;
use crate::model::scaling::{ActivityStatus, Reaction, ScalingActivity, ScalingPolicy};
use crate::model::service::ServiceEvent;
use crate::store::{State, Tx};

/// The policy that an alarm's action names: `<policy ARN>` or `<policy ARN>:createdBy/<uuid>`.
pub fn policy_of<'a>(state: &'a State, action: &str) -> Option<&'a Arc<ScalingPolicy>> {
    let (_, rest) = action.split_once(":resource/ecs/")?;
    let (resource, rest) = rest.split_once(":policyName/")?;
    let name = rest.split(":createdBy/").next()?;
    let policy = state.policies.get(&(ServiceKey::from_resource_id(resource)?, name.to_owned()))?;
    names_policy(action, policy).then_some(policy)
}

/// Whether an alarm's action means this policy.
pub fn names_policy(action: &str, policy: &ScalingPolicy) -> bool {
    action.strip_prefix(policy.arn.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(":createdBy/"))
}

/// A new desired count, and why.
pub struct Set {
    pub desired: u32,
    pub cause: String,
    pub reason: Reason,
    /// Of a policy that scales out.
    pub reaction: Option<Reaction>,
    pub trace: Option<String>,
}

/// Sets the desired count as an activity: for policies, and for bounds that were moved.
pub fn set(ids: &IdSource, tx: &mut Tx, key: &ServiceKey, set: Set) {
    let Set { desired, cause, reason, reaction, trace } = set;
    super::set_desired(tx, key, desired, reason, trace);
    let now = tx.now;
    let open: Vec<Arc<ScalingActivity>> = open_activities(tx.state(), key);
    for older in open {
        tx.put(ScalingActivity { status: ActivityStatus::Overridden, ended_at: Some(now), ..(*older).clone() });
    }
    let message = activity::in_progress(desired);
    let event = ServiceEvent { id: ids.uuid(), at: now, message: activity::service_event(&message, &cause) };
    tx.put(ScalingActivity {
        id: ids.uuid(),
        service: key.clone(),
        description: activity::setting_desired(desired),
        cause,
        status: ActivityStatus::InProgress,
        status_message: Some(message),
        desired: Some(desired),
        not_scaled: Vec::new(),
        started_at: now,
        ended_at: None,
        reaction,
    });
    if let Some(service) = tx.state().services.get(key) {
        let mut service = (**service).clone();
        service.push_event(event);
        tx.put(service);
    }
}

/// Scale-outs whose new tasks are not all there yet, whatever became of the activity.
pub fn open_reactions(state: &State, key: &ServiceKey) -> Vec<Arc<ScalingActivity>> {
    let open = |a: &&Arc<ScalingActivity>| a.reaction.as_ref().is_some_and(|r| !r.over);
    state.activities_of_service(key).take(8).filter(open).cloned().collect()
}

pub fn open_activities(state: &State, key: &ServiceKey) -> Vec<Arc<ScalingActivity>> {
    // Only the newest few can be open: each new one closes those before it.
    state.activities_of_service(key).take(8).filter(|a| a.status == ActivityStatus::InProgress).cloned().collect()
}

/// The actions that a transition into the alarm's present state runs.
pub fn actions_of(alarm: &Alarm) -> impl Iterator<Item = &String> {
    let list = match alarm.state {
        AlarmState::Ok => &alarm.ok_actions,
        AlarmState::Alarm => &alarm.alarm_actions,
        AlarmState::InsufficientData => &alarm.insufficient_data_actions,
    };
    list.iter().filter(|_| alarm.actions_enabled)
}

/// The history says of every action that is no scaling policy that it was not delivered.
pub fn refuse_other_actions(tx: &mut Tx, alarm: &Alarm) {
    let now = tx.now;
    let others: Vec<&String> = actions_of(alarm).filter(|arn| policy_of(tx.state(), arn).is_none()).collect();
    for action in others {
        let failed = Err("Beaufort runs scaling policies only; no other action is delivered yet");
        tx.alarm_history(history::action(alarm, action, failed, now));
    }
}

/// The service that an alarm is about, by its metric's dimensions.
pub fn service_of(alarm: &Alarm) -> Option<ServiceKey> {
    Some(ServiceKey::new(alarm.metric.dimension("ClusterName")?, alarm.metric.dimension("ServiceName")?))
}
