//! Scaling policies. A target-tracking policy makes its own two alarms and takes them along when it goes; a step policy is named by
//! alarms that people make.

use super::errors::{constraint, invalid, limit, not_found};
use super::shapes::{
    Alarm as ShownAlarm, CustomizedMetricSpecification, DeleteScalingPolicyInput, Nothing, PolicyType, PutScalingPolicyInput,
    PutScalingPolicyOutput, StepScaling as StepInput, TargetTrackingInput,
};
use super::{Cx, named, policies_read, remember, service_key, update};
use crate::api::App;
use crate::decide::alarm::history::{Configuration, configuration_update};
use crate::decide::autoscale::{Invalid, policy_alarms, same_metric, validate};
use crate::model::alarm::Alarm;
use crate::model::metric::MetricKey;
use crate::model::scaling::{AdjustmentType, PolicyKind, ScalingPolicy, Step, StepScaling, TargetTracking, TrackedMetric};
use crate::model::{Millis, ServiceKey};
use crate::schedule::asked_by_user;
use crate::schedule::scaling::names_policy;
use crate::store::{Change, Tx};
use crate::wire::decode::{Unknown, decode};
use crate::wire::fault::{Fault, SERIALIZATION};
use crate::wire::json;
use crate::wire::node::Malformed;

/// Application Auto Scaling quotas: "Scaling policies per scalable target: 50".
const MOST_POLICIES: usize = 50;
/// Seconds. A custom metric of a policy is looked at once a minute, as on AWS.
const CUSTOM_PERIOD_S: u32 = 60;

pub async fn put(cx: Cx, input: PutScalingPolicyInput) -> Result<PutScalingPolicyOutput, Fault> {
    let key = service_key(&input.service_namespace, &input.resource_id, &input.scalable_dimension)?;
    check(&input)?;
    update(&cx, "PutScalingPolicy", move |tx, app| {
        if !tx.state().targets.contains_key(&key) {
            return Err(not_found(format!("No scalable target registered for {}", named(&key))));
        }
        let before = tx.state().policies.get(&(key.clone(), input.policy_name.clone())).cloned();
        let kind = kind(input.policy_type, input.tracking, input.step, before.as_deref().map(|p| &p.kind))?;
        validate(&kind).map_err(|Invalid(message)| invalid(message))?;
        check_others(tx, &key, &input.policy_name, &kind)?;
        let policy = match before.as_deref() {
            Some(before) => ScalingPolicy { kind, ..before.clone() },
            None => {
                let uuid = app.ids.uuid();
                let arn = app.home.scaling_policy(&uuid, &key.resource_id(), &input.policy_name);
                let name = input.policy_name;
                ScalingPolicy { service: key.clone(), name, uuid, arn, kind, alarms: Vec::new(), created_at: tx.now }
            }
        };
        // Making the same alarms anew would forget how long they have been watching.
        let unchanged = before.as_deref().is_some_and(|before| before.kind == policy.kind)
            && policy.alarms.iter().all(|name| tx.state().alarms.contains_key(name));
        let policy = if unchanged { policy } else { with_new_alarms(tx, app, policy) };
        if !unchanged {
            let verb = if before.is_some() { "changed" } else { "made" };
            let reason =
                asked_by_user(format!("scaling policy {} {verb} by a user", policy.name)).with("policy", said(&policy.kind));
            remember(tx, &key, format!("put scaling policy {}", policy.name), reason);
        }
        let alarms = policies_read::alarms_of(tx.state(), &policy, &app.home);
        let policy_arn = policy.arn.clone();
        tx.put(policy);
        Ok(PutScalingPolicyOutput { policy_arn, alarms })
    })
    .await
}

/// What must hold whatever there is already.
fn check(input: &PutScalingPolicyInput) -> Result<(), Fault> {
    check_name(&input.policy_name)?;
    if input.policy_type == Some(PolicyType::PredictiveScaling) || input.predictive.is_some() {
        return Err(invalid(
            "Predictive scaling policies are not served in this release; use TargetTrackingScaling or StepScaling.",
        ));
    }
    if input.tracking.is_some() && input.step.is_some() {
        return Err(invalid(
            "Only one of StepScalingPolicyConfiguration and TargetTrackingScalingPolicyConfiguration may be specified.",
        ));
    }
    Ok(())
}

/// A policy that nobody puts: PutScalingPolicy's input, with its checks and its words, for those who ask what it would do.
pub fn read(body: &[u8]) -> Result<(ServiceKey, String, PolicyKind), Fault> {
    let node = json::parse(body).map_err(|Malformed(why)| Fault::new(&SERIALIZATION, why))?;
    let input: PutScalingPolicyInput = decode(node, &Unknown::default()).map_err(|e| super::errors::refuse(&e))?;
    let key = service_key(&input.service_namespace, &input.resource_id, &input.scalable_dimension)?;
    check(&input)?;
    let kind = kind(input.policy_type, input.tracking, input.step, None)?;
    validate(&kind).map_err(|Invalid(message)| invalid(message))?;
    Ok((key, input.policy_name, kind))
}

fn said(kind: &PolicyKind) -> serde_json::Value {
    serde_json::to_value(kind).unwrap_or_default()
}

/// PolicyName: 1 to 256 printable characters.
fn check_name(name: &str) -> Result<(), Fault> {
    if name.is_empty() || name.chars().count() > 256 || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(64).collect();
        return Err(constraint("policyName", shown, "Member must satisfy regular expression pattern: \\p{Print}+"));
    }
    Ok(())
}

/// The type that is asked, or that the given configuration is of, or that the policy already has.
fn kind(
    asked: Option<PolicyType>,
    tracking: Option<TargetTrackingInput>,
    step: Option<StepInput>,
    before: Option<&PolicyKind>,
) -> Result<PolicyKind, Fault> {
    let is_tracking = match asked {
        Some(asked) => asked == PolicyType::TargetTrackingScaling,
        None => tracking.is_some() || (step.is_none() && matches!(before, Some(PolicyKind::TargetTracking(_)))),
    };
    match (is_tracking, tracking, step) {
        (true, Some(tracking), None) => Ok(PolicyKind::TargetTracking(target_tracking(tracking)?)),
        (false, None, Some(step)) => {
            let old = match before {
                Some(PolicyKind::Step(old)) => Some(old),
                _ => None,
            };
            Ok(PolicyKind::Step(step_scaling(step, old)?))
        }
        (true, ..) => {
            Err(invalid("TargetTrackingScalingPolicyConfiguration must be specified for policy type TargetTrackingScaling."))
        }
        (false, ..) => Err(invalid("StepScalingPolicyConfiguration must be specified for policy type StepScaling.")),
    }
}

fn target_tracking(input: TargetTrackingInput) -> Result<TargetTracking, Fault> {
    let metric = match (input.predefined_metric_specification, input.customized_metric_specification) {
        (Some(predefined), None) => {
            TrackedMetric::Predefined { name: predefined.predefined_metric_type, resource_label: predefined.resource_label }
        }
        (None, Some(custom)) => custom_metric(custom)?,
        _ => {
            return Err(invalid(
                "Exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification must be specified.",
            ));
        }
    };
    Ok(TargetTracking {
        target: input.target_value,
        metric,
        out_cooldown_ms: input.scale_out_cooldown.map(seconds),
        in_cooldown_ms: input.scale_in_cooldown.map(seconds),
        disable_scale_in: input.disable_scale_in.unwrap_or(false),
    })
}

fn custom_metric(custom: CustomizedMetricSpecification) -> Result<TrackedMetric, Fault> {
    if custom.metrics.is_some() {
        return Err(invalid(
            "Metric math (Metrics) is not served in a customized metric specification; name one metric with MetricName, Namespace and Statistic.",
        ));
    }
    let required = |member: &str| invalid(format!("A customized metric specification must have a {member}."));
    let (namespace, name) =
        (custom.namespace.ok_or_else(|| required("Namespace"))?, custom.metric_name.ok_or_else(|| required("MetricName"))?);
    let dimensions = custom.dimensions.unwrap_or_default();
    if dimensions.len() > 30 {
        return Err(invalid("A metric can have at most 30 dimensions."));
    }
    Ok(TrackedMetric::Custom {
        metric: MetricKey::new(&namespace, &name, dimensions.iter().map(|d| (d.name.as_str(), d.value.as_str()))),
        statistic: custom.statistic.ok_or_else(|| required("Statistic"))?.into(),
        unit: custom.unit,
        period_s: CUSTOM_PERIOD_S,
    })
}

/// On an update AdjustmentType and StepAdjustments keep their old values when they are left out; the others go back to their defaults.
fn step_scaling(input: StepInput, old: Option<&StepScaling>) -> Result<StepScaling, Fault> {
    let adjustment: Option<AdjustmentType> = input.adjustment_type.map(Into::into).or(old.map(|old| old.adjustment));
    let steps = input.step_adjustments.map(|steps| {
        let step = |s: super::shapes::StepAdjustment| Step {
            lower: s.metric_interval_lower_bound,
            upper: s.metric_interval_upper_bound,
            adjustment: s.scaling_adjustment,
        };
        steps.into_iter().map(step).collect()
    });
    let magnitude = |number: i32| {
        u32::try_from(number).map_err(|_| {
            constraint(
                "stepScalingPolicyConfiguration.minAdjustmentMagnitude",
                number,
                "Member must have value greater than or equal to 0",
            )
        })
    };
    Ok(StepScaling {
        adjustment: adjustment.ok_or_else(|| invalid("An adjustment type must be specified."))?,
        steps: steps.or(old.map(|old| old.steps.clone())).unwrap_or_default(),
        min_adjustment_magnitude: input.min_adjustment_magnitude.map(magnitude).transpose()?,
        cooldown_ms: input.cooldown.map(seconds),
        aggregation: input.metric_aggregation_type.map(Into::into).unwrap_or_default(),
    })
}

fn seconds(number: i32) -> Millis {
    Millis::from(number) * 1_000
}

fn check_others(tx: &Tx, key: &ServiceKey, name: &str, kind: &PolicyKind) -> Result<(), Fault> {
    let mut others = 0;
    for other in tx.state().policies_of_service(key).filter(|p| p.name != name) {
        others += 1;
        if let (PolicyKind::TargetTracking(a), PolicyKind::TargetTracking(b)) = (kind, &other.kind)
            && same_metric(&a.metric, &b.metric)
        {
            return Err(invalid("Only one TargetTrackingScaling policy for a given metric specification is allowed."));
        }
    }
    if others >= MOST_POLICIES {
        return Err(limit(format!("A scalable target can have at most {MOST_POLICIES} scaling policies.")));
    }
    Ok(())
}

/// An update replaces the alarms that the policy made, under new names.
fn with_new_alarms(tx: &mut Tx, app: &App, policy: ScalingPolicy) -> ScalingPolicy {
    drop_alarms(tx, app, &policy);
    let alarms = policy_alarms(&policy, &app.home, &mut || app.ids.uuid(), tx.now);
    let names = alarms.iter().map(|alarm| alarm.name.clone()).collect();
    for alarm in alarms {
        tx.alarm_history(configuration_update(Configuration::Created, &alarm, &app.home, tx.now));
        tx.put(alarm);
    }
    ScalingPolicy { alarms: names, ..policy }
}

fn drop_alarms(tx: &mut Tx, app: &App, policy: &ScalingPolicy) {
    for name in &policy.alarms {
        let own = tx.state().alarms.get(name).filter(|a| a.owned_by_policy.as_deref() == Some(policy.arn.as_str())).cloned();
        if let Some(alarm) = own {
            tx.alarm_history(configuration_update(Configuration::Deleted, &alarm, &app.home, tx.now));
            tx.put(Change::Alarm(name.clone(), None));
        }
    }
}

pub async fn delete(cx: Cx, input: DeleteScalingPolicyInput) -> Result<Nothing, Fault> {
    let key = service_key(&input.service_namespace, &input.resource_id, &input.scalable_dimension)?;
    update(&cx, "DeleteScalingPolicy", move |tx, app| {
        let name = &input.policy_name;
        if !remove(tx, app, &key, name) {
            return Err(not_found(format!("No scaling policy found for {}, policy name: {name}", named(&key))));
        }
        let reason = asked_by_user(format!("scaling policy {name} deleted by a user"));
        remember(tx, &key, format!("delete scaling policy {name}"), reason);
        Ok(Nothing {})
    })
    .await
}

/// "Deleting a step scaling policy deletes the underlying alarm action, but does not delete the CloudWatch alarm"; a target-tracking
/// policy's own alarms are deleted. False: there is no such policy.
pub fn remove(tx: &mut Tx, app: &App, key: &ServiceKey, name: &str) -> bool {
    let Some(policy) = tx.state().policies.get(&(key.clone(), name.to_owned())).cloned() else { return false };
    drop_alarms(tx, app, &policy);
    let now = tx.now;
    let naming: Vec<Alarm> = tx
        .state()
        .alarms
        .values()
        .filter(|alarm| policies_read::actions(alarm).any(|action| names_policy(action, &policy)))
        .map(|alarm| (**alarm).clone())
        .collect();
    for mut alarm in naming {
        for list in [&mut alarm.ok_actions, &mut alarm.alarm_actions, &mut alarm.insufficient_data_actions] {
            list.retain(|action| !names_policy(action, &policy));
        }
        alarm.configuration_updated_at = now;
        tx.alarm_history(configuration_update(Configuration::Updated, &alarm, &app.home, now));
        tx.put(alarm);
    }
    tx.put(Change::Policy((key.clone(), name.to_owned()), None));
    true
}

/// As answers name an alarm.
pub fn shown_alarm(name: &str, home: &crate::model::arn::Home) -> ShownAlarm {
    ShownAlarm { alarm_name: name.to_owned(), alarm_arn: home.alarm(name) }
}
