//! The policies that a file gives: PutScalingPolicy's input, one or several, or a document as `beaufort apply` takes it, with
//! alarms. Checked by the API's own functions, so that what is tried here is what could be put there.

use serde_json::{Map, Value, json};

use super::Wrong;
use crate::api::{autoscaling, cloudwatch};
use crate::decide::autoscale::{bounds, policy_alarms};
use crate::decide::backtest::Contender;
use crate::model::alarm::Alarm;
use crate::model::arn::Home;
use crate::model::scaling::{PolicyKind, ScalingPolicy};
use crate::model::{ServiceKey, Timestamp};

/// As the file has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The file's name without its ending: what it is called in tables and charts.
    pub name: String,
    policies: Vec<Map<String, Value>>,
    alarms: Vec<Value>,
    targets: Vec<Value>,
}

/// What the file comes to for one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub name: String,
    pub contenders: Vec<Contender>,
    /// The scalable target's bounds, where the file has it.
    pub bounds: Option<(u32, u32)>,
}

const SHAPE: &str = "write PutScalingPolicy's input as for `aws application-autoscaling put-scaling-policy --cli-input-json`, a list of \
                     them, or a document of `beaufort apply` with scalingPolicies and alarms";

impl Document {
    pub fn parse(name: &str, text: &str) -> Result<Document, Wrong> {
        let wrong = |why: &str| Wrong::new(format!("{name} holds no scaling policy: {why}"), SHAPE);
        let value: Value = serde_json::from_str(text).map_err(|e| wrong(&format!("it is no JSON ({e})")))?;
        let stem = name.rsplit('/').next().unwrap_or(name);
        let mut document = Document { name: stem.strip_suffix(".json").unwrap_or(stem).to_owned(), ..Document::default() };
        let policies = match value {
            Value::Array(policies) => policies,
            Value::Object(mut object) => {
                let mut list = |names: [&str; 2]| {
                    let found = names.iter().find_map(|name| object.remove(*name));
                    found.and_then(|value| value.as_array().cloned())
                };
                let (alarms, targets) = (list(["alarms", "MetricAlarms"]), list(["scalableTargets", "ScalableTargets"]));
                let policies = list(["scalingPolicies", "ScalingPolicies"]);
                document.alarms = alarms.unwrap_or_default();
                document.targets = targets.unwrap_or_default();
                policies.unwrap_or_else(|| vec![Value::Object(object)])
            }
            _ => return Err(wrong("it is neither an object nor a list")),
        };
        for policy in policies {
            match policy {
                Value::Object(policy) => document.policies.push(policy),
                _ => return Err(wrong("a policy is no object")),
            }
        }
        if document.policies.is_empty() {
            return Err(wrong("it is empty"));
        }
        Ok(document)
    }

    /// The service that the first policy names.
    pub fn service(&self) -> Option<ServiceKey> {
        ServiceKey::from_resource_id(self.policies.first()?.get("ResourceId")?.as_str()?)
    }

    /// The policies as of `service`: those that the file gives it, or, where the file has one of another, that one. `known` are the
    /// alarms that there are: a step policy without one in the file is run by those that name it.
    pub fn of(&self, service: &ServiceKey, known: &[Alarm], home: &Home, now: Timestamp) -> Result<Given, Wrong> {
        let resource = service.resource_id();
        let own = |value: Option<&Value>| value.and_then(Value::as_str).is_none_or(|id| id == resource);
        let mut chosen: Vec<&Map<String, Value>> = self.policies.iter().filter(|p| own(p.get("ResourceId"))).collect();
        if let ([], [only]) = (chosen.as_slice(), self.policies.as_slice()) {
            chosen.push(only);
        }
        if chosen.is_empty() {
            let next = "name with --service one of the services that the file is about";
            return Err(Wrong::new(format!("{} has no policy of {resource}", self.name), next));
        }
        let mut ids = (0..).map(|n| format!("{n:08x}-0000-0000-0000-000000000000"));
        let mut contenders = Vec::with_capacity(chosen.len());
        for policy in &chosen {
            let contender = self.contender(policy, service, known, home, now, &mut || ids.next().unwrap_or_default())?;
            if contenders.iter().any(|other: &Contender| other.policy.name == contender.policy.name) {
                return Err(Wrong::new(format!("{} has two policies named {}", self.name, contender.policy.name), "rename one"));
            }
            contenders.push(contender);
        }
        let target = self.targets.iter().find(|target| own(target.get("ResourceId")));
        let capacity = |name: &str| target.and_then(|t| t.get(name)?.as_u64()).and_then(|n| u32::try_from(n).ok());
        let bounds = capacity("MinCapacity").zip(capacity("MaxCapacity"));
        if let Some((min, max)) = bounds {
            bounds::validate(min, max).map_err(|e| Wrong::new(format!("{}: {e}", self.name), "set MaxCapacity higher"))?;
        }
        Ok(Given { name: self.name.clone(), contenders, bounds })
    }

    fn contender(
        &self,
        given: &Map<String, Value>,
        service: &ServiceKey,
        known: &[Alarm],
        home: &Home,
        now: Timestamp,
        new_uuid: &mut dyn FnMut() -> String,
    ) -> Result<Contender, Wrong> {
        let mut input = given.clone();
        input.insert("ResourceId".to_owned(), json!(service.resource_id()));
        for (member, value) in [
            ("ServiceNamespace", autoscaling::NAMESPACE),
            ("ScalableDimension", autoscaling::DIMENSION),
            ("PolicyName", &self.name),
        ] {
            input.entry(member).or_insert_with(|| json!(value));
        }
        let refused = |what: &str, message: String| Wrong::new(format!("{}: {what} is refused: {message}", self.name), SHAPE);
        let body = Value::Object(input).to_string();
        let (key, name, kind) =
            autoscaling::read_policy(body.as_bytes()).map_err(|fault| refused("the policy", fault.message))?;
        let arn = home.scaling_policy(&new_uuid(), &key.resource_id(), &name);
        let mut policy = ScalingPolicy { service: key, name, uuid: new_uuid(), arn, kind, alarms: Vec::new(), created_at: now };
        let alarms = match &policy.kind {
            PolicyKind::TargetTracking(_) => policy_alarms(&policy, home, new_uuid, now),
            PolicyKind::Step(_) => self.alarms_of(&policy, known, now)?,
        };
        policy.alarms = alarms.iter().map(|alarm| alarm.name.clone()).collect();
        Ok(Contender { policy, alarms })
    }

    fn alarms_of(&self, policy: &ScalingPolicy, known: &[Alarm], now: Timestamp) -> Result<Vec<Alarm>, Wrong> {
        let mut all = Vec::with_capacity(self.alarms.len());
        for alarm in &self.alarms {
            let read = cloudwatch::read_alarm(alarm.to_string().as_bytes(), now);
            let refused = |message| Wrong::new(format!("{}: an alarm is refused: {message}", self.name), SHAPE);
            all.push(read.map_err(|fault| refused(fault.message))?);
        }
        let names = |alarm: &&Alarm| alarm.alarm_actions.iter().any(|action| means(action, &policy.name));
        let mut found: Vec<Alarm> = all.iter().filter(names).cloned().collect();
        if found.is_empty() && self.policies.len() == 1 {
            found = all;
        }
        if found.is_empty() {
            found = known.iter().filter(names).cloned().collect();
        }
        if found.is_empty() {
            return Err(Wrong::new(
                format!("{}: no alarm runs the step policy {}", self.name, policy.name),
                "add the alarm (PutMetricAlarm's input) under alarms, beside scalingPolicies",
            ));
        }
        Ok(found)
    }
}

/// An ARN that ends in the name, `policy:RESOURCE:NAME` as documents of `beaufort apply` have it, or the name.
fn means(action: &str, policy: &str) -> bool {
    if let Some(rest) = action.strip_prefix("policy:service/") {
        return rest.split_once(':').is_some_and(|(_, name)| name == policy);
    }
    let named = action.split_once(":policyName/").map_or(action, |(_, rest)| rest.split(":createdBy/").next().unwrap_or(rest));
    named == policy
}

/// An alarm as DescribeAlarms shows it; None for one that PutMetricAlarm would not take.
pub fn known_alarm(shown: &Value, now: Timestamp) -> Option<Alarm> {
    cloudwatch::read_alarm(shown.to_string().as_bytes(), now).ok()
}
