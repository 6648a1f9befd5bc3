//! Asking for services.

use super::ask;
use super::page::page;
use super::services_shapes::{ServiceShape, shape};
use super::shapes::{Failure, SchedulingStrategy, TagsField, arn_or, missing, wants_tags};
use crate::api::Cx;
use crate::model::ServiceKey;
use crate::model::service::ServiceStatus;
use crate::model::task::LaunchType;
use crate::shapes;
use crate::wire::fault::Fault;

shapes! { "camelCase";
    input DescribeServicesInput { cluster: Option<String>, services: Vec<String>, include: Option<Vec<TagsField>> }
    output DescribeServicesOutput { services: Vec<ServiceShape>, failures: Vec<Failure> }
    input ListServicesInput {
        cluster: Option<String>, next_token: Option<String>, max_results: Option<i32>, launch_type: Option<LaunchType>,
        scheduling_strategy: Option<SchedulingStrategy>,
    }
    output ListServicesOutput { service_arns: Vec<String>, next_token: Option<String> }
}

pub async fn describe(cx: Cx, input: DescribeServicesInput) -> Result<DescribeServicesOutput, Fault> {
    ask::check_batch("Services", input.services.len(), 10)?;
    let state = cx.app.store.snapshot();
    let cluster = &ask::cluster(&state, input.cluster.as_deref())?.name;
    let mut output = DescribeServicesOutput { services: Vec::new(), failures: Vec::new() };
    for reference in &input.services {
        let name = ask::within(cluster, "service", reference)?;
        match state.services.get(&ServiceKey::new(cluster, name)) {
            Some(service) => output.services.push(shape(&state, &cx.app.home, service, wants_tags(&input.include))),
            None => output.failures.push(missing(arn_or(reference, |n| cx.app.home.service(&ServiceKey::new(cluster, n))))),
        }
    }
    Ok(output)
}

/// A service that is being deleted "can no longer be viewed" in lists.
pub async fn list(cx: Cx, input: ListServicesInput) -> Result<ListServicesOutput, Fault> {
    let state = cx.app.store.snapshot();
    let cluster = &ask::cluster(&state, input.cluster.as_deref())?.name;
    let wanted = state.services_of_cluster(cluster).filter(|service| {
        service.status == ServiceStatus::Active
            && input.launch_type.is_none_or(|l| service.launch_type == l)
            && input.scheduling_strategy != Some(SchedulingStrategy::Daemon)
    });
    let (service_arns, next_token) =
        page(input.next_token, input.max_results, 10)?.of(wanted.map(|s| (s.key.service.as_str(), cx.app.home.service(&s.key))));
    Ok(ListServicesOutput { service_arns, next_token })
}
