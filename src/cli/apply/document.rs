//! What `beaufort apply` is given: JSON in AWS's own shapes, checked before anything is asked of the server. A member that is written
//! wrongly would otherwise be taken by nobody and missed by nobody.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cli::ecs::short;
use crate::model::definition::{ContainerDefinition, Volume};

/// Things of one kind in all files together.
const MOST_OF_A_KIND: usize = 1_000;

/// In the order in which they are made: each may need those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Definition,
    Service,
    Target,
    Policy,
    Alarm,
}

pub const KINDS: [Kind; 5] = [Kind::Definition, Kind::Service, Kind::Target, Kind::Policy, Kind::Alarm];

impl Kind {
    /// The member of a document that lists them.
    pub fn member(self) -> &'static str {
        match self {
            Kind::Definition => "taskDefinitions",
            Kind::Service => "services",
            Kind::Target => "scalableTargets",
            Kind::Policy => "scalingPolicies",
            Kind::Alarm => "alarms",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Definition => "task definition",
            Kind::Service => "service",
            Kind::Target => "scalable target",
            Kind::Policy => "scaling policy",
            Kind::Alarm => "alarm",
        }
    }

    /// The operation whose input each is.
    pub fn operation(self) -> &'static str {
        match self {
            Kind::Definition => "RegisterTaskDefinition",
            Kind::Service => "CreateService",
            Kind::Target => "RegisterScalableTarget",
            Kind::Policy => "PutScalingPolicy",
            Kind::Alarm => "PutMetricAlarm",
        }
    }

    /// The members of the operation's input; those that must be there come first, so many as [`Kind::required`] says.
    fn members(self) -> &'static [&'static str] {
        match self {
            Kind::Definition => &[
                "family",
                "containerDefinitions",
                "taskRoleArn",
                "executionRoleArn",
                "networkMode",
                "volumes",
                "placementConstraints",
                "requiresCompatibilities",
                "cpu",
                "memory",
                "tags",
                "pidMode",
                "ipcMode",
                "runtimePlatform",
            ],
            Kind::Service => &[
                "serviceName",
                "taskDefinition",
                "cluster",
                "availabilityZoneRebalancing",
                "loadBalancers",
                "serviceRegistries",
                "desiredCount",
                "launchType",
                "capacityProviderStrategy",
                "platformVersion",
                "role",
                "deploymentConfiguration",
                "placementConstraints",
                "placementStrategy",
                "networkConfiguration",
                "healthCheckGracePeriodSeconds",
                "schedulingStrategy",
                "deploymentController",
                "tags",
                "enableECSManagedTags",
                "propagateTags",
                "enableExecuteCommand",
                "serviceConnectConfiguration",
                "volumeConfigurations",
                "vpcLatticeConfigurations",
                "monitoring",
            ],
            Kind::Target => &[
                "ResourceId",
                "MinCapacity",
                "MaxCapacity",
                "ServiceNamespace",
                "ScalableDimension",
                "SuspendedState",
                "RoleARN",
                "Tags",
            ],
            Kind::Policy => &[
                "PolicyName",
                "ResourceId",
                "ServiceNamespace",
                "ScalableDimension",
                "PolicyType",
                "StepScalingPolicyConfiguration",
                "TargetTrackingScalingPolicyConfiguration",
                "PredictiveScalingPolicyConfiguration",
            ],
            Kind::Alarm => &[
                "AlarmName",
                "AlarmDescription",
                "ActionsEnabled",
                "OKActions",
                "AlarmActions",
                "InsufficientDataActions",
                "MetricName",
                "Namespace",
                "Statistic",
                "ExtendedStatistic",
                "Dimensions",
                "Period",
                "Unit",
                "EvaluationPeriods",
                "DatapointsToAlarm",
                "Threshold",
                "ComparisonOperator",
                "TreatMissingData",
                "EvaluateLowSampleCountPercentile",
                "Metrics",
                "Tags",
                "ThresholdMetricId",
            ],
        }
    }

    fn required(self) -> &'static [&'static str] {
        let count = match self {
            Kind::Definition | Kind::Service | Kind::Policy => 2,
            Kind::Target => 3,
            Kind::Alarm => 1,
        };
        &self.members()[..count]
    }
}

/// Everything that the files ask for, by kind.
#[derive(Debug, Default)]
pub struct Document {
    lists: [Vec<Value>; KINDS.len()],
}

impl Document {
    pub fn of(&self, kind: Kind) -> &[Value] {
        &self.lists[kind as usize]
    }

    /// Adds a file's. `cluster` is that of services that name none.
    pub fn add(&mut self, text: &str, cluster: &str) -> Result<(), String> {
        let whole: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
        let Value::Object(members) = whole else { return Err("it is no JSON object".to_owned()) };
        for (member, list) in members {
            let Some(kind) = KINDS.into_iter().find(|k| k.member() == member) else {
                let known: Vec<_> = KINDS.iter().map(|k| k.member()).collect();
                return Err(format!("{member} is not known here: a document has {}", known.join(", ")));
            };
            let Value::Array(list) = list else { return Err(format!("{member} is no list")) };
            for (at, mut one) in list.into_iter().enumerate() {
                let place = format!("{member}[{at}]");
                let Value::Object(object) = &mut one else { return Err(format!("{place} is no object")) };
                check(kind, object, &place)?;
                fill(kind, object, cluster);
                self.lists[kind as usize].push(one);
            }
            if self.of(kind).len() > MOST_OF_A_KIND {
                return Err(format!("more than {MOST_OF_A_KIND} {member}: apply them in parts"));
            }
        }
        Ok(())
    }

    /// What only shows when all files are read: nothing twice, and every reference to a policy has one.
    pub fn check_whole(&self) -> Result<(), String> {
        for kind in KINDS {
            let mut seen = BTreeSet::new();
            for one in self.of(kind) {
                let name = title(kind, one);
                if !seen.insert(name.clone()) {
                    return Err(format!("{} {name} is asked for twice", kind.name()));
                }
            }
        }
        for alarm in self.of(Kind::Alarm) {
            for reference in references(alarm) {
                self.policy(&reference).map_err(|why| format!("alarm {}: {why}", title(Kind::Alarm, alarm)))?;
            }
        }
        Ok(())
    }

    /// The policy that `policy:NAME` or `policy:service/CLUSTER/SERVICE:NAME` means, by its place.
    pub fn policy(&self, reference: &str) -> Result<usize, String> {
        let rest = reference.strip_prefix(POLICY).unwrap_or(reference);
        let (resource, name) = rest.rsplit_once(':').map_or((None, rest), |(resource, name)| (Some(resource), name));
        let policies = self.of(Kind::Policy).iter().enumerate();
        let mut meant = policies.filter(|(_, p)| p["PolicyName"] == name && resource.is_none_or(|r| p["ResourceId"] == r));
        match (meant.next(), meant.next()) {
            (Some((at, _)), None) => Ok(at),
            (None, _) => Err(format!("{reference} means a scaling policy that is in no file")),
            _ => Err(format!("{reference} means more than one scaling policy: write policy:service/CLUSTER/SERVICE:NAME")),
        }
    }
}

/// An action that begins so is a reference to a policy of the same document.
pub const POLICY: &str = "policy:";
pub const ACTIONS: [&str; 3] = ["AlarmActions", "OKActions", "InsufficientDataActions"];

fn references(alarm: &Value) -> Vec<String> {
    let actions = ACTIONS.iter().flat_map(|member| alarm[*member].as_array().into_iter().flatten());
    actions.filter_map(Value::as_str).filter(|action| action.starts_with(POLICY)).map(str::to_owned).collect()
}

/// What a thing is called, among those of its kind.
pub fn title(kind: Kind, one: &Value) -> String {
    let text = |name: &str| one[name].as_str().unwrap_or_default();
    match kind {
        Kind::Definition => text("family").to_owned(),
        Kind::Service => format!("{}/{}", text("cluster"), text("serviceName")),
        Kind::Target => text("ResourceId").to_owned(),
        Kind::Policy => format!("{}:{}", text("ResourceId"), text("PolicyName")),
        Kind::Alarm => text("AlarmName").to_owned(),
    }
}

fn check(kind: Kind, object: &Map<String, Value>, place: &str) -> Result<(), String> {
    if let Some(unknown) = object.keys().find(|name| !kind.members().contains(&name.as_str())) {
        return Err(format!("{place}.{unknown} is no member of {} that Beaufort knows", kind.operation()));
    }
    if let Some(missing) = kind.required().iter().find(|name| object.get(**name).is_none_or(Value::is_null)) {
        return Err(format!("{place} has no {missing}"));
    }
    if kind == Kind::Definition {
        known::<ContainerDefinition>(object.get("containerDefinitions"), &format!("{place}.containerDefinitions"))?;
        known::<Volume>(object.get("volumes"), &format!("{place}.volumes"))?;
    }
    Ok(())
}

/// Every member of every element is one that the model has.
fn known<T: DeserializeOwned + Serialize>(list: Option<&Value>, place: &str) -> Result<(), String> {
    let Some(Value::Array(list)) = list else { return Ok(()) };
    for (at, given) in list.iter().enumerate() {
        let place = format!("{place}[{at}]");
        let read: T = serde_json::from_value(given.clone()).map_err(|e| format!("{place}: {e}"))?;
        let kept = serde_json::to_value(read).map_err(|e| format!("{place}: {e}"))?;
        if let Some(path) = lost(given, &kept) {
            return Err(format!("{place}{path} is no member that Beaufort knows"));
        }
    }
    Ok(())
}

/// The first member of `given` that is not in `kept`.
fn lost(given: &Value, kept: &Value) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => given.iter().find_map(|(name, value)| match kept.get(name) {
            None => Some(format!(".{name}")),
            Some(kept) => lost(value, kept).map(|rest| format!(".{name}{rest}")),
        }),
        (Value::Array(given), Value::Array(kept)) => {
            let mut pairs = given.iter().zip(kept).enumerate();
            pairs.find_map(|(at, (given, kept))| lost(given, kept).map(|rest| format!("[{at}]{rest}")))
        }
        _ => None,
    }
}

/// What every document would say in the same words.
fn fill(kind: Kind, object: &mut Map<String, Value>, cluster: &str) {
    let mut default = |name: &str, value: &str| {
        object.entry(name.to_owned()).or_insert_with(|| Value::from(value));
    };
    match kind {
        Kind::Service => {
            default("cluster", cluster);
            // An ARN means its name; so one service is one, however it is written.
            if let Some(Value::String(named)) = object.get_mut("cluster") {
                *named = if named.is_empty() { cluster.to_owned() } else { short(named).to_owned() };
            }
        }
        Kind::Target | Kind::Policy => {
            default("ServiceNamespace", "ecs");
            default("ScalableDimension", "ecs:service:DesiredCount");
        }
        Kind::Definition | Kind::Alarm => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(document: &Value) -> Result<Document, String> {
        let mut read = Document::default();
        read.add(&document.to_string(), "demo")?;
        read.check_whole().map(|()| read)
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let definition = |container: Value| json!({"taskDefinitions": [{"family": "web", "containerDefinitions": [container]}]});
        let service = json!({"serviceName": "web", "taskDefinition": "web"});
        let policy = |resource: &str| json!({"PolicyName": "out", "ResourceId": resource});
        let alarm = |action: &str| json!({"AlarmName": "a", "AlarmActions": [action]});
        let rows = [
            (json!([]), "no JSON object"),
            (json!({"tasks": []}), "tasks is not known here: a document has taskDefinitions, services,"),
            (json!({"services": {}}), "services is no list"),
            (json!({"services": [1]}), "services[0] is no object"),
            (json!({"services": [{"serviceName": "web"}]}), "services[0] has no taskDefinition"),
            (
                json!({"services": [{"serviceName": "web", "taskDefinition": "w", "desired": 1}]}),
                "services[0].desired is no member",
            ),
            (json!({"taskDefinitions": [{"family": "web"}]}), "taskDefinitions[0] has no containerDefinitions"),
            (definition(json!({"name": "a", "imgae": "x"})), "containerDefinitions[0].imgae is no member"),
            (
                definition(json!({"name": "a", "portMappings": [{"port": 80}]})),
                "containerDefinitions[0].portMappings[0].port is no",
            ),
            (definition(json!({"name": 1})), "containerDefinitions[0]: "),
            (json!({"services": [service, service]}), "service demo/web is asked for twice"),
            (json!({"alarms": [alarm("policy:out")]}), "alarm a: policy:out means a scaling policy that is in no file"),
            (
                json!({"scalingPolicies": [policy("service/d/a"), policy("service/d/b")], "alarms": [alarm("policy:out")]}),
                "means more than one scaling policy",
            ),
        ];
        for (document, told) in rows {
            let error = read(&document).expect_err(told);
            assert!(error.contains(told), "{document}: {error}");
        }
        assert!(Document::default().add("{", "demo").unwrap_err().contains("no JSON"));
    }

    #[test]
    fn what_every_document_would_say_is_filled_in() {
        let document = read(&json!({
            "services": [{"serviceName": "web", "taskDefinition": "web"}, {"serviceName": "web", "taskDefinition": "web", "cluster": "prod"}],
            "scalableTargets": [{"ResourceId": "service/demo/web", "MinCapacity": 1, "MaxCapacity": 4}],
            "scalingPolicies": [{"PolicyName": "out", "ResourceId": "service/demo/web"}, {"PolicyName": "out", "ResourceId": "service/demo/api"}],
            "alarms": [{"AlarmName": "a", "AlarmActions": ["policy:service/demo/api:out", "arn:aws:sns:x"]}],
        }))
        .unwrap();
        let services: Vec<_> = document.of(Kind::Service).iter().map(|s| title(Kind::Service, s)).collect();
        assert_eq!(services, ["demo/web", "prod/web"]);
        assert_eq!(document.of(Kind::Target)[0]["ScalableDimension"], "ecs:service:DesiredCount");
        assert_eq!(document.policy("policy:service/demo/api:out"), Ok(1));
    }
}
