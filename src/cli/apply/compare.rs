//! Whether what is there is what a document asks for. The server fills in defaults at registration, so a thing that comes back is
//! never letter for letter the one that was sent.

use serde_json::Value;

/// Members of answers that no input has.
const TOLD: [&str; 22] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "PolicyARN",
    "Alarms",
    "CreationTime",
    "RoleARN",
    "ScalableTargetARN",
    "AlarmArn",
    "AlarmConfigurationUpdatedTimestamp",
    "StateValue",
    "StateReason",
    "StateReasonData",
    "StateUpdatedTimestamp",
    "StateTransitionedTimestamp",
    "StateReasonCode",
    "EvaluationState",
];
/// What is sent and not told again: it cannot be compared, so it does not count.
const NOT_TOLD: [&str; 3] = ["Tags", "RoleARN", "EvaluateLowSampleCountPercentile"];
/// Lists whose order means nothing.
const SETS: [&str; 5] = ["tags", "Dimensions", "requiresCompatibilities", "subnets", "securityGroups"];
/// Maps of the user's own names: nothing in them has a default.
const FREE: [&str; 4] = ["dockerLabels", "options", "driverOpts", "labels"];

/// Whether a whole thing is as asked for: nothing more, nothing less. For what an operation replaces as a whole.
pub fn same(wanted: &Value, is: &Value) -> bool {
    compare(wanted, is, true, true)
}

/// Whether every member that is asked for is so; others may be anything. For what an operation changes member by member.
pub fn covers(is: &Value, wanted: &Value) -> bool {
    compare(wanted, is, false, true)
}

/// `top`: of the thing itself, where answers have members of their own.
fn compare(wanted: &Value, is: &Value, whole: bool, top: bool) -> bool {
    match (wanted, is) {
        (Value::Object(wanted), Value::Object(is)) => {
            let not_told = |name: &String| top && NOT_TOLD.contains(&name.as_str());
            let as_asked = wanted.iter().filter(|(name, _)| !not_told(name)).all(|(name, value)| {
                let told = is.get(name).unwrap_or(&Value::Null);
                let set = SETS.contains(&name.as_str());
                if FREE.contains(&name.as_str()) {
                    return is_empty(value) && is_empty(told) || value == told;
                }
                match (is_neutral(name, value), is_neutral(name, told)) {
                    (true, true) => true,
                    _ if set => compare(&sorted(value), &sorted(told), whole, false),
                    _ => compare(value, told, whole, false),
                }
            });
            let told_only = |name: &String| top && TOLD.contains(&name.as_str());
            let more = || is.iter().filter(|(name, _)| !wanted.contains_key(*name) && !told_only(name));
            as_asked && (!whole || more().all(|(name, value)| is_neutral(name, value)))
        }
        (Value::Array(wanted), Value::Array(is)) => {
            wanted.len() == is.len() && wanted.iter().zip(is).all(|(wanted, is)| compare(wanted, is, whole, false))
        }
        // 50 is 50.0.
        (Value::Number(wanted), Value::Number(is)) => wanted.as_f64() == is.as_f64(),
        _ => wanted == is,
    }
}

fn is_empty(map: &Value) -> bool {
    map.as_object().map_or(map.is_null(), serde_json::Map::is_empty)
}

fn sorted(list: &Value) -> Value {
    let Value::Array(list) = list else { return list.clone() };
    let mut list = list.clone();
    list.sort_by_cached_key(Value::to_string);
    Value::Array(list)
}

/// As good as not given: the default where there is one, else whatever is empty.
fn is_neutral(name: &str, value: &Value) -> bool {
    let of_a_default: Option<&dyn Fn(&Value) -> bool> = match name {
        "essential" | "ActionsEnabled" => Some(&|v| *v == true),
        "protocol" => Some(&|v| v == "tcp"),
        "interval" => Some(&|v| *v == 30),
        "timeout" => Some(&|v| *v == 5),
        "retries" => Some(&|v| *v == 3),
        "restartAttemptPeriod" => Some(&|v| *v == 300),
        "TreatMissingData" => Some(&|v| v == "missing"),
        "MetricAggregationType" => Some(&|v| v == "Average"),
        "assignPublicIp" => Some(&|v| v == "DISABLED"),
        // ECS's cooldown where none is given; 0 is none at all.
        "Cooldown" | "ScaleOutCooldown" | "ScaleInCooldown" => Some(&|v| *v == 300),
        // Absent, a step has no bound on that side; 0 is the threshold itself.
        "MetricIntervalLowerBound" | "MetricIntervalUpperBound" => Some(&|_| false),
        // 0 forbids what absence leaves to Docker.
        "maxSwap" | "swappiness" => Some(&|_| false),
        _ if FREE.contains(&name) => Some(&is_empty),
        _ => None,
    };
    match (value, of_a_default) {
        (Value::Null, _) => true,
        // `essential: false` is no default, empty as it looks.
        (value, Some(is_default)) => is_default(value),
        (Value::Bool(b), None) => !b,
        (Value::Number(n), None) => n.as_f64() == Some(0.0),
        (Value::String(s), None) => s.is_empty(),
        (Value::Array(list), None) => list.is_empty(),
        (Value::Object(members), None) => members.iter().all(|(name, value)| is_neutral(name, value)),
    }
}

/// A task definition as registration leaves it: host ports follow the network mode, and the task's CPU and memory are told in units and MiB
/// (`0.25 vCPU` is 256, `0.5GB` is 512).
pub fn registered(definition: &Value) -> Value {
    let mut definition = definition.clone();
    for (member, unit) in [("cpu", "vcpu"), ("memory", "gb")] {
        let text = definition[member].as_str().map(|text| text.trim().to_ascii_lowercase());
        let number =
            text.as_deref().and_then(|text| text.strip_suffix(unit)).and_then(|number| number.trim().parse::<f64>().ok());
        if let Some(number) = number {
            definition[member] = Value::String((number * 1024.0).to_string());
        }
    }
    let shares_host_ports = matches!(definition["networkMode"].as_str(), Some("host" | "awsvpc"));
    let containers = definition["containerDefinitions"].as_array_mut().into_iter().flatten();
    for mapping in containers.flat_map(|c| c["portMappings"].as_array_mut().into_iter().flatten()) {
        if shares_host_ports && mapping["hostPort"].as_u64().is_none_or(|port| port == 0) {
            mapping["hostPort"] = mapping["containerPort"].clone();
        }
    }
    definition
}

/// The members of a service that UpdateService takes.
const UPDATABLE: [&str; 10] = [
    "taskDefinition",
    "desiredCount",
    "deploymentConfiguration",
    "networkConfiguration",
    "placementConstraints",
    "placementStrategy",
    "healthCheckGracePeriodSeconds",
    "enableECSManagedTags",
    "propagateTags",
    "enableExecuteCommand",
];
/// Those that only a new service can have otherwise.
const FIXED: [&str; 2] = ["launchType", "schedulingStrategy"];

/// What of a service is not as asked for. `definition`: the `family:revision` that its reference means, None when that is to be made
/// yet. A service whose count is scaled by policies keeps it. An error names what cannot be changed.
pub fn service_changes(wanted: &Value, is: &Value, definition: Option<&str>, scaled: bool) -> Result<Vec<&'static str>, String> {
    for name in FIXED {
        if !wanted[name].is_null() && wanted[name] != is[name] {
            return Err(format!("{name} is {} and cannot be changed to {}: delete the service first", is[name], wanted[name]));
        }
    }
    let differs = |name: &&&str| {
        let (wanted, is) = (&wanted[**name], &is[**name]);
        if wanted.is_null() {
            return false;
        }
        match **name {
            "taskDefinition" => definition != is.as_str().map(|arn| arn.rsplit('/').next().unwrap_or(arn)),
            "desiredCount" if scaled => false,
            // The rest of it is not told again.
            "deploymentConfiguration" => ["maximumPercent", "minimumHealthyPercent"]
                .iter()
                .any(|percent| !wanted[*percent].is_null() && wanted[*percent] != is[*percent]),
            "propagateTags" if wanted == "NONE" => !matches!(is.as_str(), None | Some("NONE" | "")),
            _ if is_neutral(name, wanted) && is_neutral(name, is) => false,
            _ => !covers(is, wanted),
        }
    };
    Ok(UPDATABLE.iter().filter(differs).copied().collect())
}

/// The tags that are not there with their value.
pub fn missing_tags(wanted: &Value, is: &Value) -> Vec<Value> {
    let there = is["tags"].as_array().map_or(&[][..], Vec::as_slice);
    let wanted = wanted["tags"].as_array().into_iter().flatten();
    wanted.filter(|tag| !there.iter().any(|t| t["key"] == tag["key"] && t["value"] == tag["value"])).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_server_s_defaults_are_no_difference_and_everything_else_is() {
        let wanted = json!({"family": "web", "networkMode": "awsvpc", "tags": [{"key": "b", "value": "2"}, {"key": "a", "value": "1"}],
            "containerDefinitions": [{"name": "app", "image": "i", "memory": 64, "portMappings": [{"containerPort": 80}],
            "healthCheck": {"command": ["CMD", "true"]}}]});
        let is = json!({"taskDefinitionArn": "arn", "revision": 3, "status": "ACTIVE", "family": "web", "networkMode": "awsvpc",
            "tags": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}], "volumes": [], "placementConstraints": [],
            "containerDefinitions": [{"name": "app", "image": "i", "cpu": 0, "memory": 64, "essential": true, "environment": [], "systemControls": [], "dockerLabels": {},
            "portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}],
            "healthCheck": {"command": ["CMD", "true"], "interval": 30, "timeout": 5, "retries": 3}}]});
        assert!(same(&registered(&wanted), &is));
        let changed = |change: fn(&mut Value)| {
            let mut other = wanted.clone();
            change(&mut other);
            !same(&registered(&other), &is)
        };
        assert!(changed(|w| w["containerDefinitions"][0]["image"] = json!("other")));
        assert!(changed(|w| w["containerDefinitions"][0]["essential"] = json!(false)));
        assert!(changed(|w| drop(w["containerDefinitions"][0].as_object_mut().unwrap().remove("healthCheck"))), "taken away");
        assert!(changed(|w| drop(w["containerDefinitions"][0].as_object_mut().unwrap().remove("memory"))));
        assert!(changed(|w| w["containerDefinitions"][0]["healthCheck"]["interval"] = json!(10)));
        assert!(changed(|w| w["containerDefinitions"][0]["portMappings"] = json!([])));
        assert!(changed(|w| w["networkMode"] = json!("bridge")));
        assert!(changed(|w| w["tags"][0]["value"] = json!("3")));
        assert!(changed(|w| w["containerDefinitions"][0]["dockerLabels"] = json!({"a": "b"})));
        assert!(
            changed(|w| w["containerDefinitions"][0]["dockerLabels"] = json!({"status": ""})),
            "a label of that name, and empty"
        );
        assert!(!changed(|w| w["containerDefinitions"][0]["dockerLabels"] = json!({})));
        assert!(!changed(|w| w["containerDefinitions"][0]["cpu"] = json!(0)));
        assert!(!changed(|w| w["containerDefinitions"][0]["environment"] = json!([])));
    }

    #[test]
    fn zero_is_not_nothing_where_absence_means_something_else() {
        let step = |bound: Value| json!({"StepScalingPolicyConfiguration": {"StepAdjustments": [bound]}});
        let (wrong, right) = (
            json!({"MetricIntervalLowerBound": 0, "ScalingAdjustment": -1}),
            json!({"MetricIntervalUpperBound": 0, "ScalingAdjustment": -1}),
        );
        assert!(!same(&step(right.clone()), &step(wrong)) && same(&step(right.clone()), &step(right)));
        let cooldown = |c: Value| json!({"StepScalingPolicyConfiguration": {"Cooldown": c}});
        assert!(!same(&cooldown(json!(0)), &cooldown(Value::Null)) && same(&cooldown(json!(300)), &cooldown(Value::Null)));
        assert!(!same(&json!({"linuxParameters": {"swappiness": 0}}), &json!({})));
        let labelled = json!({"containerDefinitions": [{"dockerLabels": {"revision": "7", "empty": ""}}]});
        assert!(!same(&json!({"containerDefinitions": [{}]}), &labelled), "labels that are asked for no more");
    }

    #[test]
    fn sizes_are_compared_as_they_are_told() {
        let is = json!({"cpu": "256", "memory": "512"});
        for (cpu, memory) in [("0.25 vCPU", "0.5GB"), ("256", "512"), (".25vcpu", "0.5 gb")] {
            assert!(same(&registered(&json!({"cpu": cpu, "memory": memory})), &is), "{cpu} {memory}");
        }
        assert!(!same(&registered(&json!({"cpu": "0.5 vCPU", "memory": "512"})), &is));
    }

    #[test]
    fn a_service_is_changed_where_it_differs() {
        let is = json!({"taskDefinition": "arn:aws:ecs:r:0:task-definition/web:3", "desiredCount": 4, "launchType": "EC2",
            "deploymentConfiguration": {"maximumPercent": 200, "minimumHealthyPercent": 100}, "enableECSManagedTags": false,
            "propagateTags": "NONE", "placementStrategy": [], "networkConfiguration":
            {"awsvpcConfiguration": {"subnets": ["b", "a"], "securityGroups": [], "assignPublicIp": "DISABLED"}}});
        let of = |wanted: Value, scaled| service_changes(&wanted, &is, Some("web:3"), scaled);
        let same = json!({"taskDefinition": "web", "desiredCount": 4, "launchType": "EC2", "enableECSManagedTags": false,
            "deploymentConfiguration": {"maximumPercent": 200, "alarms": {"enable": true}}, "placementStrategy": [],
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["a", "b"]}}});
        assert_eq!(of(same, false), Ok(vec![]));
        assert_eq!(of(json!({"desiredCount": 2}), false), Ok(vec!["desiredCount"]));
        assert_eq!(of(json!({"desiredCount": 2}), true), Ok(vec![]), "policies set it");
        let rolled = json!({"taskDefinition": "web", "deploymentConfiguration": {"maximumPercent": 150}});
        assert_eq!(service_changes(&rolled, &is, Some("web:4"), false), Ok(vec!["taskDefinition", "deploymentConfiguration"]));
        assert_eq!(service_changes(&json!({"taskDefinition": "web"}), &is, None, false), Ok(vec!["taskDefinition"]));
        assert!(of(json!({"launchType": "FARGATE"}), false).unwrap_err().contains("delete the service first"));
        let tags = json!({"tags": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]});
        let there = json!({"tags": [{"key": "a", "value": "1"}, {"key": "b", "value": "0"}]});
        assert_eq!(missing_tags(&tags, &there), [json!({"key": "b", "value": "2"})]);
    }

    #[test]
    fn policies_and_alarms_are_compared_as_a_whole() {
        let wanted = json!({"AlarmName": "a", "Period": 5, "Threshold": 100, "Dimensions": [{"Name": "B", "Value": "b"}, {"Name": "A", "Value": "a"}],
            "Tags": [{"Key": "k", "Value": "v"}]});
        let is = json!({"AlarmName": "a", "AlarmArn": "arn", "Period": 5, "Threshold": 100.0, "ActionsEnabled": true, "OKActions": [],
            "Dimensions": [{"Name": "A", "Value": "a"}, {"Name": "B", "Value": "b"}], "StateValue": "OK", "AlarmActions": []});
        assert!(same(&wanted, &is));
        let with_action =
            json!({"AlarmName": "a", "Period": 5, "Threshold": 100.0, "AlarmActions": ["x"], "Dimensions": is["Dimensions"]});
        assert!(!same(&wanted, &with_action), "an action that is asked for no more");
        assert!(covers(&with_action, &json!({"Period": 5})));
    }
}
