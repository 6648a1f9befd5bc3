//! Scalable targets. Registering one brings the service's desired count into its bounds at once, as an activity.

use super::errors::{constraint, invalid, not_found};
use super::page::page;
use super::shapes::{
    DescribeScalableTargetsInput, DescribeScalableTargetsOutput, Nothing, RegisterScalableTargetInput,
    RegisterScalableTargetOutput, ScalableTarget, SuspendedState, TargetInput,
};
use super::{Cx, DIMENSION, NAMESPACE, check_kind, named, policies, remember, service_key, tags, update};
use crate::api::App;
use crate::decide::autoscale::bounds;
use crate::model::ServiceKey;
use crate::model::arn::Home;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::scaling::ScalableTarget as Target;
use crate::model::service::ServiceStatus;
use crate::observe::traceparent;
use crate::schedule::{asked_by_user, scaling};
use crate::store::{Change, Tx};
use crate::wire::fault::Fault;
use crate::wire::types::Timestamp;

pub async fn register(cx: Cx, input: RegisterScalableTargetInput) -> Result<RegisterScalableTargetOutput, Fault> {
    let key = service_key(&input.service_namespace, &input.resource_id, &input.scalable_dimension)?;
    let min = capacity(input.min_capacity, "minCapacity")?;
    let max = capacity(input.max_capacity, "maxCapacity")?;
    let new_tags = tags::checked(input.tags.unwrap_or_default(), &input.resource_id)?;
    let suspended = input.suspended_state;
    update(&cx, "RegisterScalableTarget", move |tx, app| {
        let before = tx.state().targets.get(&key).cloned();
        let active = |tx: &Tx| tx.state().services.get(&key).is_some_and(|s| s.status == ServiceStatus::Active);
        if !active(tx) {
            return Err(invalid(format!("ECS service doesn't exist: {}", key.resource_id())));
        }
        let mut target = match &before {
            Some(before) => Target { min: min.unwrap_or(before.min), max: max.unwrap_or(before.max), ..(**before).clone() },
            None => {
                let both = min.zip(max);
                let (min, max) =
                    both.ok_or_else(|| invalid("MinCapacity and MaxCapacity must both be specified for a new scalable target"))?;
                new_target(app, &key, min, max, tx.now)
            }
        };
        bounds::validate(target.min, target.max).map_err(|e| invalid(e.to_string()))?;
        if let Some(suspended) = &suspended {
            // "Each member is false unless it is given."
            target.suspend_in = suspended.dynamic_scaling_in_suspended.unwrap_or(false);
            target.suspend_out = suspended.dynamic_scaling_out_suspended.unwrap_or(false);
            target.suspend_scheduled = suspended.scheduled_scaling_suspended.unwrap_or(false);
        }
        target.tags = tags::merged(&target.tags, &new_tags);
        tags::check_number(&target.tags, &key.resource_id())?;
        if before.as_deref() != Some(&target) {
            remember(tx, &key, format!("scalable target {} to {}", target.min, target.max), changed(before.as_deref(), &target));
        }
        let (arn, min, max) = (app.home.scalable_target(&target.id), target.min, target.max);
        tx.put(target);
        clamp(tx, app, &key, min, max);
        Ok(RegisterScalableTargetOutput { scalable_target_arn: arn })
    })
    .await
}

fn capacity(given: Option<i32>, member: &str) -> Result<Option<u32>, Fault> {
    let positive = |number: i32| {
        u32::try_from(number).map_err(|_| constraint(member, number, "Member must have value greater than or equal to 0"))
    };
    given.map(positive).transpose()
}

fn new_target(app: &App, key: &ServiceKey, min: u32, max: u32, now: crate::model::Timestamp) -> Target {
    Target {
        service: key.clone(),
        id: app.ids.uuid().replace('-', ""),
        min,
        max,
        suspend_in: false,
        suspend_out: false,
        suspend_scheduled: false,
        tags: Vec::new(),
        created_at: now,
        last_out: None,
        last_in: None,
    }
}

fn changed(before: Option<&Target>, after: &Target) -> Reason {
    let sentence = match before {
        None => "registered by a user",
        Some(_) => "changed by a user",
    };
    let mut reason = Reason::new(ReasonCode::BoundsChanged, sentence)
        .with("min", after.min)
        .with("max", after.max)
        .with("scale_in_suspended", after.suspend_in)
        .with("scale_out_suspended", after.suspend_out);
    if let Some(before) = before {
        reason = reason.with("min_before", before.min).with("max_before", before.max);
    }
    reason
}

/// "Every time a scalable target is registered its current capacity is brought into the bounds."
fn clamp(tx: &mut Tx, app: &App, key: &ServiceKey, min: u32, max: u32) {
    let Some(desired) = tx.state().services.get(key).map(|s| s.desired_count) else { return };
    let Some((to, cause)) = bounds::clamp(desired, min, max) else { return };
    let reason = Reason::new(ReasonCode::BoundsChanged, cause.clone())
        .with("desired_before", desired)
        .with("desired", to)
        .with("min", min)
        .with("max", max);
    let set = scaling::Set { desired: to, cause, reason, reaction: None, trace: traceparent() };
    scaling::set(&app.ids, tx, key, set);
}

pub async fn describe(cx: Cx, input: DescribeScalableTargetsInput) -> Result<DescribeScalableTargetsOutput, Fault> {
    check_kind(&input.service_namespace, input.scalable_dimension.as_deref())?;
    if input.resource_ids.as_ref().is_some_and(|ids| ids.len() > 50) {
        return Err(invalid("At most 50 resource IDs may be specified."));
    }
    if input.scalable_dimension.is_some() && input.resource_ids.as_ref().is_none_or(Vec::is_empty) {
        return Err(invalid("If you specify a scalable dimension, you must also specify a resource ID."));
    }
    let page = page::<ServiceKey>(input.next_token.as_deref(), input.max_results)?;
    let state = cx.app.store.snapshot();
    let wanted = |key: &ServiceKey| {
        page.after.as_ref().is_none_or(|after| key > after)
            && input.resource_ids.as_ref().is_none_or(|ids| ids.is_empty() || ids.contains(&key.resource_id()))
    };
    let targets = state.targets.values().filter(|t| wanted(&t.service)).map(|t| (t.service.clone(), shown(t, &cx.app.home)));
    let (scalable_targets, next_token) = page.of(targets);
    Ok(DescribeScalableTargetsOutput { scalable_targets, next_token })
}

fn shown(target: &Target, home: &Home) -> ScalableTarget {
    ScalableTarget {
        service_namespace: NAMESPACE.to_owned(),
        resource_id: target.service.resource_id(),
        scalable_dimension: DIMENSION.to_owned(),
        min_capacity: target.min,
        max_capacity: target.max,
        // The service-linked role that AWS shows for ECS, whatever role was given.
        role_arn: format!(
            "arn:aws:iam::{}:role/aws-service-role/ecs.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_ECSService",
            home.account
        ),
        creation_time: Timestamp(target.created_at.0),
        suspended_state: SuspendedState {
            dynamic_scaling_in_suspended: Some(target.suspend_in),
            dynamic_scaling_out_suspended: Some(target.suspend_out),
            scheduled_scaling_suspended: Some(target.suspend_scheduled),
        },
        scalable_target_arn: home.scalable_target(&target.id),
    }
}

/// Its policies and their alarms go with it; what they did stays describable.
pub async fn deregister(cx: Cx, input: TargetInput) -> Result<Nothing, Fault> {
    let key = service_key(&input.service_namespace, &input.resource_id, &input.scalable_dimension)?;
    update(&cx, "DeregisterScalableTarget", move |tx, app| {
        if !tx.state().targets.contains_key(&key) {
            return Err(not_found(format!("No scalable target found for {}", named(&key))));
        }
        let names: Vec<String> = tx.state().policies_of_service(&key).map(|p| p.name.clone()).collect();
        for name in names {
            policies::remove(tx, app, &key, &name);
        }
        remember(tx, &key, "deregister scalable target".to_owned(), asked_by_user("deregistered by a user"));
        tx.put(Change::Target(key, None));
        Ok(Nothing {})
    })
    .await
}
