//! Amazon resource names: how Beaufort's things are addressed by AWS's clients, both ways.

use serde::{Deserialize, Serialize};

use super::{ClusterName, DefinitionKey, InstanceId, ServiceKey, TaskId};

/// The region and account that this Beaufort answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    pub region: String,
    pub account: String,
}

impl Home {
    pub fn new(region: &str, account: &str) -> Home {
        Home { region: region.to_owned(), account: account.to_owned() }
    }
    fn arn(&self, service: &str, rest: std::fmt::Arguments) -> String {
        format!("arn:aws:{service}:{}:{}:{rest}", self.region, self.account)
    }
    pub fn cluster(&self, name: &ClusterName) -> String {
        self.arn("ecs", format_args!("cluster/{name}"))
    }
    pub fn service(&self, key: &ServiceKey) -> String {
        self.arn("ecs", format_args!("service/{}/{}", key.cluster, key.service))
    }
    pub fn task(&self, cluster: &ClusterName, id: &TaskId) -> String {
        self.arn("ecs", format_args!("task/{cluster}/{id}"))
    }
    /// `uuid` is the container's own id inside its task.
    pub fn container(&self, cluster: &ClusterName, task: &TaskId, uuid: &str) -> String {
        self.arn("ecs", format_args!("container/{cluster}/{task}/{uuid}"))
    }
    pub fn task_definition(&self, key: &DefinitionKey) -> String {
        self.arn("ecs", format_args!("task-definition/{key}"))
    }
    pub fn container_instance(&self, cluster: &ClusterName, id: &InstanceId) -> String {
        self.arn("ecs", format_args!("container-instance/{cluster}/{id}"))
    }
    pub fn alarm(&self, name: &str) -> String {
        self.arn("cloudwatch", format_args!("alarm:{name}"))
    }
    pub fn log_group(&self, name: &str) -> String {
        self.arn("logs", format_args!("log-group:{name}"))
    }
    /// `uuid` is the policy's own id.
    pub fn scaling_policy(&self, uuid: &str, resource_id: &str, name: &str) -> String {
        self.arn("autoscaling", format_args!("scalingPolicy:{uuid}:resource/ecs/{resource_id}:policyName/{name}"))
    }
    pub fn scalable_target(&self, id: &str) -> String {
        self.arn("application-autoscaling", format_args!("scalable-target/{id}"))
    }
}

/// The last part of an ARN or of a path, or the name itself when it is neither: clients may say either everywhere.
pub fn short_name(arn_or_name: &str) -> &str {
    arn_or_name.rsplit('/').next().unwrap_or(arn_or_name)
}

/// The part behind `arn:aws:SERVICE:REGION:ACCOUNT:`, or None when this is no ARN.
pub fn resource(arn: &str) -> Option<&str> {
    arn.starts_with("arn:").then(|| arn.splitn(6, ':').nth(5)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_read_back() {
        let home = Home::new("us-east-1", "000000000000");
        let arn = home.service(&ServiceKey::new("default", "web"));
        assert_eq!(arn, "arn:aws:ecs:us-east-1:000000000000:service/default/web");
        assert_eq!(short_name(&arn), "web");
        assert_eq!(resource(&arn), Some("service/default/web"));
        assert_eq!(resource("web"), None);
        assert_eq!(short_name("web"), "web");
    }
}
