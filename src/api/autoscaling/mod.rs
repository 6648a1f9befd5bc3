//! Application Auto Scaling: scalable targets, their policies and what these did. Only ECS services scale.
//!
//! Owns AWS's shapes, checks and words. Which alarms a policy makes and whether a desired count lies inside of its bounds is asked of
//! `decide::autoscale`; policies are run by the control loop that evaluates alarms. Scheduled actions and predictive scaling are not
//! served. Start at [`service`].

mod activities;
mod errors;
mod page;
mod policies;
mod policies_read;
mod shapes;
mod tags;
mod targets;
#[cfg(test)]
mod tests;

use super::{App, Cx};
use crate::model::ServiceKey;
use crate::model::decision::{Decision, Reason, Subject};
use crate::observe::traceparent;
use crate::store::Tx;
use crate::wire::fault::Fault;
use crate::wire::service::Service;
use errors::invalid;

pub use policies::read as read_policy;

pub const NAMESPACE: &str = "ecs";
pub const DIMENSION: &str = "ecs:service:DesiredCount";

pub fn service() -> Service<App> {
    Service::new("application-autoscaling")
        .target("AnyScaleFrontendService")
        .refuse(errors::refuse)
        .op("RegisterScalableTarget", targets::register)
        .op("DescribeScalableTargets", targets::describe)
        .op("DeregisterScalableTarget", targets::deregister)
        .op("PutScalingPolicy", policies::put)
        .op("DeleteScalingPolicy", policies::delete)
        .op("DescribeScalingPolicies", policies_read::describe)
        .op("DescribeScalingActivities", activities::describe)
        .op("TagResource", tags::tag)
        .op("UntagResource", tags::untag)
        .op("ListTagsForResource", tags::list)
}

/// See [`super::update`].
async fn update<T: Send + 'static>(
    cx: &Cx,
    operation: &str,
    change: impl FnOnce(&mut Tx, &App) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    super::update(cx, format!("application-autoscaling {operation}"), &errors::INTERNAL, change).await
}

/// What scales, as a request says it.
fn service_key(namespace: &str, resource_id: &str, dimension: &str) -> Result<ServiceKey, Fault> {
    check_kind(namespace, Some(dimension))?;
    ServiceKey::from_resource_id(resource_id).ok_or_else(unsupported)
}

fn check_kind(namespace: &str, dimension: Option<&str>) -> Result<(), Fault> {
    if namespace != NAMESPACE || dimension.is_some_and(|d| d != DIMENSION) {
        return Err(unsupported());
    }
    Ok(())
}

fn unsupported() -> Fault {
    invalid("Unsupported service namespace, resource type or scalable dimension")
}

/// `service namespace: ecs, resource ID: service/C/S, scalable dimension: ecs:service:DesiredCount`, as AWS's errors name it.
fn named(key: &ServiceKey) -> String {
    format!("service namespace: {NAMESPACE}, resource ID: {}, scalable dimension: {DIMENSION}", key.resource_id())
}

/// Every change of what scales a service is remembered with it.
fn remember(tx: &mut Tx, key: &ServiceKey, action: String, reason: Reason) {
    tx.decide(Decision { at: tx.now, subject: Subject::Service(key.clone()), action, reason, trace: traceparent() });
}
