//! What scaling did, newest first.

use std::sync::Arc;

use super::errors::invalid;
use super::page::page;
use super::shapes::{DescribeScalingActivitiesInput, DescribeScalingActivitiesOutput, NotScaledReason, ScalingActivity};
use super::{Cx, DIMENSION, NAMESPACE, check_kind};
use crate::model::ServiceKey;
use crate::model::scaling::ScalingActivity as Activity;
use crate::store::State;
use crate::wire::fault::Fault;
use crate::wire::types::Timestamp;

/// An activity's place among all: when it began, and its id.
type Place = (i64, String);

pub async fn describe(cx: Cx, input: DescribeScalingActivitiesInput) -> Result<DescribeScalingActivitiesOutput, Fault> {
    check_kind(&input.service_namespace, input.scalable_dimension.as_deref())?;
    if input.scalable_dimension.is_some() && input.resource_id.is_none() {
        return Err(invalid("If you specify a scalable dimension, you must also specify a resource ID."));
    }
    let page = page::<Place>(input.next_token.as_deref(), input.max_results)?;
    let with_not_scaled = input.include_not_scaled_activities.unwrap_or(false);
    let state = cx.app.store.snapshot();
    let wanted = |activity: &Activity| {
        let place = (activity.started_at.0, &activity.id);
        (with_not_scaled || activity.not_scaled.is_empty()) && page.after.as_ref().is_none_or(|(at, id)| place < (*at, id))
    };
    let activities = newest_first(&state, input.resource_id.as_deref());
    let activities = activities
        .iter()
        .filter(|activity| wanted(activity))
        .map(|activity| ((activity.started_at.0, activity.id.clone()), shown(activity, with_not_scaled)));
    let (scaling_activities, next_token) = page.of(activities);
    Ok(DescribeScalingActivitiesOutput { scaling_activities, next_token })
}

fn newest_first(state: &State, resource_id: Option<&str>) -> Vec<Arc<Activity>> {
    match resource_id.map(ServiceKey::from_resource_id) {
        Some(None) => Vec::new(),
        Some(Some(key)) => state.activities_of_service(&key).cloned().collect(),
        None => {
            // The table is in the order of services.
            let mut all: Vec<Arc<Activity>> = state.activities.values().cloned().collect();
            all.sort_by(|a, b| (b.started_at, &b.id).cmp(&(a.started_at, &a.id)));
            all
        }
    }
}

fn shown(activity: &Activity, with_not_scaled: bool) -> ScalingActivity {
    let reasons = activity.not_scaled.iter().map(|why| NotScaledReason {
        code: why.code.as_str().to_owned(),
        max_capacity: why.max,
        min_capacity: why.min,
        current_capacity: why.current,
    });
    ScalingActivity {
        activity_id: activity.id.clone(),
        service_namespace: NAMESPACE.to_owned(),
        resource_id: activity.service.resource_id(),
        scalable_dimension: DIMENSION.to_owned(),
        description: activity.description.clone(),
        cause: activity.cause.clone(),
        start_time: Timestamp(activity.started_at.0),
        end_time: activity.ended_at.map(|at| Timestamp(at.0)),
        status_code: activity.status.as_str().to_owned(),
        status_message: activity.status_message.clone(),
        not_scaled_reasons: with_not_scaled.then(|| reasons.collect::<Vec<_>>()).filter(|r| !r.is_empty()),
    }
}
