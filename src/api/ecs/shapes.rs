//! Shapes that several nouns share, and the small translations to them.

use crate::model::arn::Home;
use crate::model::instance::Instance;
use crate::model::service::NetworkConfiguration;
use crate::shapes;

shapes! { "camelCase";
    output Failure { arn: Option<String>, reason: String, detail: Option<String> }
    output NameValue { name: String, value: String }
    shape Attribute {
        name: String, value: Option<String>, target_type: Option<TargetType>, target_id: Option<String>,
    }
    values TargetType { #[serde(rename = "container-instance")] ContainerInstance }
    values TagsField { #[serde(rename = "TAGS")] Tags }
    values PropagateTags {
        #[serde(rename = "TASK_DEFINITION")] TaskDefinition, #[serde(rename = "SERVICE")] Service, #[serde(rename = "NONE")] None,
    }
    values SchedulingStrategy { #[serde(rename = "REPLICA")] Replica, #[serde(rename = "DAEMON")] Daemon }
    output Empty {}
}

/// A list that a client gave with something in it.
pub type Given = Option<serde_json::Value>;

/// Empty lists and structures say nothing, and clients send them freely.
pub fn says(value: &Given) -> bool {
    match value {
        None | Some(serde_json::Value::Null) => false,
        Some(serde_json::Value::Array(items)) => !items.is_empty(),
        Some(serde_json::Value::Object(members)) => !members.is_empty(),
        Some(_) => true,
    }
}

/// Whether a structure switches something on: its `enable` or `enabled` is true.
pub fn enables(value: &Given) -> bool {
    let on = |name: &str| value.as_ref().and_then(|v| v.get(name)).and_then(|v| v.as_bool()).unwrap_or(false);
    on("enable") || on("enabled")
}

pub fn wants_tags(include: &Option<Vec<TagsField>>) -> bool {
    include.as_ref().is_some_and(|fields| fields.contains(&TagsField::Tags))
}

pub fn missing(arn: String) -> Failure {
    Failure { arn: Some(arn), reason: "MISSING".to_owned(), detail: None }
}

/// The ARN that `reference` stands for: itself when it is one.
pub fn arn_or(reference: &str, form: impl FnOnce(&str) -> String) -> String {
    if reference.starts_with("arn:") { reference.to_owned() } else { form(reference) }
}

pub fn instance_arn(home: &Home, instance: &Instance) -> String {
    home.container_instance(&instance.cluster, &instance.id)
}

/// What of a network configuration has no effect: `prefix` is `service` or `task`.
pub fn network_gaps(configuration: Option<&NetworkConfiguration>) -> [(&'static str, bool); 3] {
    let vpc = configuration.and_then(|n| n.awsvpc_configuration.as_ref());
    [
        ("subnets", vpc.is_some_and(|v| !v.subnets.is_empty())),
        ("securityGroups", vpc.and_then(|v| v.security_groups.as_ref()).is_some_and(|s| !s.is_empty())),
        ("assignPublicIp", vpc.and_then(|v| v.assign_public_ip.as_deref()) == Some("ENABLED")),
    ]
}
