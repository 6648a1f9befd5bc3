//! Amazon ECS: one line per operation, one file per noun.
//!
//! Owns AWS's shapes, validations and words. What is to happen is asked of `decide` and `schedule` inside of one store update, so
//! that an answer says only what is durable. Never talks to agents: loops see the change and act.
//!
//! Start reading at [`service`].

mod ask;
mod attributes;
mod clusters;
mod definitions;
mod errors;
mod instances;
mod page;
mod services;
mod services_read;
mod services_shapes;
mod shapes;
mod tags;
mod tasks;
mod tasks_read;
mod tasks_shapes;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use super::{App, Cx};
use crate::store::Tx;
use crate::wire::fault::Fault;
use crate::wire::service::Service;

pub fn service() -> Service<App> {
    let tokens = Arc::new(tokens::Tokens::default());
    Service::new("ecs")
        .target("AmazonEC2ContainerServiceV20141113")
        .refuse(errors::refuse)
        .op("CreateCluster", clusters::create)
        .op("DescribeClusters", clusters::describe)
        .op("ListClusters", clusters::list)
        .op("DeleteCluster", clusters::delete)
        .op("UpdateCluster", clusters::update)
        .op("UpdateClusterSettings", clusters::update_settings)
        .op("RegisterTaskDefinition", definitions::register)
        .op("DescribeTaskDefinition", definitions::describe)
        .op("DeregisterTaskDefinition", definitions::deregister)
        .op("DeleteTaskDefinitions", definitions::delete)
        .op("ListTaskDefinitions", definitions::list)
        .op("ListTaskDefinitionFamilies", definitions::families)
        .op("RunTask", move |cx, input| tasks::run(cx, input, tokens.clone()))
        .op("StartTask", tasks::start)
        .op("StopTask", tasks::stop)
        .op("DescribeTasks", tasks_read::describe)
        .op("ListTasks", tasks_read::list)
        .op("CreateService", services::create)
        .op("UpdateService", services::update)
        .op("DeleteService", services::delete)
        .op("DescribeServices", services_read::describe)
        .op("ListServices", services_read::list)
        .op("ListContainerInstances", instances::list)
        .op("DescribeContainerInstances", instances::describe)
        .op("UpdateContainerInstancesState", instances::update_state)
        .op("DeregisterContainerInstance", instances::deregister)
        .op("PutAttributes", attributes::put)
        .op("ListAttributes", attributes::list)
        .op("DeleteAttributes", attributes::delete)
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
    super::update(cx, format!("ecs {operation}"), &errors::SERVER, change).await
}
