//! Application Auto Scaling as clients call it: through the wire, on a store in memory and a clock that stands.

use serde_json::{Value, json};

use crate::api::cloudwatch::tests::{Client, each};
use crate::model::ServiceKey;
use crate::model::Timestamp;
use crate::model::decision::ReasonCode;
use crate::model::scaling::{ActivityStatus, NotScaledCode, NotScaledReason, ScalingActivity};
use crate::store::{Record, RecordQuery};

const ID: &str = "service/default/web";

fn of(more: Value) -> Value {
    let mut input = json!({"ServiceNamespace": "ecs", "ResourceId": ID, "ScalableDimension": "ecs:service:DesiredCount"});
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    input
}

fn tracking(target: f64) -> Value {
    let metric = json!({"PredefinedMetricType": "ECSServiceAverageCPUUtilization"});
    let config = json!({"TargetValue": target, "PredefinedMetricSpecification": metric, "ScaleOutCooldown": 30});
    of(json!({"PolicyName": "cpu", "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": config}))
}

async fn registered(desired: u32) -> (Client, ServiceKey) {
    let client = Client::new();
    let key = client.service("web", desired).await;
    client.ok("RegisterScalableTarget", of(json!({"MinCapacity": 1, "MaxCapacity": 10}))).await;
    (client, key)
}

async fn alarm_names(client: &Client) -> Vec<String> {
    client.app().store.snapshot().alarms.keys().cloned().collect()
}

async fn policies(client: &Client) -> Value {
    client.ok("DescribeScalingPolicies", json!({"ServiceNamespace": "ecs"})).await["ScalingPolicies"].clone()
}

async fn actions(client: &Client) -> Vec<(String, ReasonCode)> {
    let records = client.app().store.records(RecordQuery::decisions()).await.unwrap();
    let decision = |record: Record| match record {
        Record::Decision(d) => (d.action, d.reason.code),
        Record::Alarm(_) => panic!("asked for decisions"),
    };
    records.into_iter().rev().map(|(_, record)| decision(record)).collect()
}

#[tokio::test]
async fn registering_brings_the_service_into_its_bounds() {
    let client = Client::new();
    let key = client.service("web", 0).await;
    let answer =
        client.ok("RegisterScalableTarget", of(json!({"MinCapacity": 2, "MaxCapacity": 10, "Tags": {"team": "a"}}))).await;
    let arn = answer["ScalableTargetARN"].as_str().unwrap().to_owned();
    assert!(arn.starts_with("arn:aws:application-autoscaling:us-east-1:000000000000:scalable-target/"), "{arn}");
    let service = |client: &Client| client.app().store.snapshot().services[&key].clone();
    assert_eq!(service(&client).desired_count, 2);
    client.clock.advance(1_000);
    let suspended = json!({"DynamicScalingInSuspended": true});
    let again =
        client.ok("RegisterScalableTarget", of(json!({"MinCapacity": 0, "MaxCapacity": 1, "SuspendedState": suspended}))).await;
    assert_eq!(again["ScalableTargetARN"], json!(arn));
    assert_eq!(service(&client).desired_count, 1);
    let message = "Message: Successfully set desired count to 1. Waiting for change to be fulfilled by ecs. Cause: maximum capacity was set to 1";
    assert_eq!(service(&client).events[0].message, message);

    let activities = client.ok("DescribeScalingActivities", of(json!({}))).await["ScalingActivities"].clone();
    assert_eq!(each(&activities, "Description"), ["Setting desired count to 1.", "Setting desired count to 2."]);
    assert_eq!(each(&activities, "Cause"), ["maximum capacity was set to 1", "minimum capacity was set to 2"]);
    assert_eq!(each(&activities, "StatusCode"), ["InProgress", "Overridden"]);
    assert!(activities[0].get("EndTime").is_none() && activities[1].get("EndTime").is_some());

    let target = client.ok("DescribeScalableTargets", json!({"ServiceNamespace": "ecs"})).await["ScalableTargets"][0].clone();
    assert_eq!((&target["MinCapacity"], &target["MaxCapacity"]), (&json!(0), &json!(1)));
    let state =
        json!({"DynamicScalingInSuspended": true, "DynamicScalingOutSuspended": false, "ScheduledScalingSuspended": false});
    assert_eq!(target["SuspendedState"], state);
    // The order in which one transaction's decisions were made.
    let expected = [
        ("scalable target 2 to 10", ReasonCode::BoundsChanged),
        ("desired 0 -> 2", ReasonCode::BoundsChanged),
        ("scalable target 0 to 1", ReasonCode::BoundsChanged),
        ("desired 2 -> 1", ReasonCode::BoundsChanged),
    ];
    let said = actions(&client).await;
    assert_eq!(said.iter().map(|(a, c)| (a.as_str(), *c)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn targets_that_are_refused() {
    let client = Client::new();
    client.service("web", 1).await;
    let unsupported = "Unsupported service namespace, resource type or scalable dimension";
    let mut dynamo = of(json!({"MinCapacity": 1, "MaxCapacity": 2}));
    dynamo["ServiceNamespace"] = json!("dynamodb");
    let mut other = of(json!({"MinCapacity": 1, "MaxCapacity": 2}));
    other["ResourceId"] = json!("service/default/other");
    let mut odd = of(json!({}));
    odd["ResourceId"] = json!("cluster/default");
    let mut none = of(json!({}));
    none.as_object_mut().unwrap().remove("ResourceId");
    let cases = [
        (dynamo, unsupported),
        (odd, unsupported),
        (other, "ECS service doesn't exist: service/default/other"),
        (of(json!({"MinCapacity": 1})), "MinCapacity and MaxCapacity must both be specified for a new scalable target"),
        (
            of(json!({"MinCapacity": -1, "MaxCapacity": 2})),
            "1 validation error detected: Value '-1' at 'minCapacity' failed to satisfy constraint: Member must have value greater than or equal to 0",
        ),
        (
            of(json!({"MinCapacity": 3, "MaxCapacity": 2})),
            "Maximum capacity cannot be less than minimum capacity: 2 is less than 3",
        ),
        (none, "1 validation error detected: Value null at 'resourceId' failed to satisfy constraint: Member must not be null"),
    ];
    for (input, message) in cases {
        client.refused("RegisterScalableTarget", input, "ValidationException", message).await;
    }
    let gone = "No scalable target found for service namespace: ecs, resource ID: service/default/web, scalable dimension: ecs:service:DesiredCount";
    client.refused("DeregisterScalableTarget", of(json!({})), "ObjectNotFoundException", gone).await;
    let unregistered = "No scalable target registered for service namespace: ecs, resource ID: service/default/web, scalable dimension: ecs:service:DesiredCount";
    client.refused("PutScalingPolicy", tracking(50.0), "ObjectNotFoundException", unregistered).await;
    let no_policy = "No scaling policy found for service namespace: ecs, resource ID: service/default/web, scalable dimension: ecs:service:DesiredCount, policy name: cpu";
    client.refused("DeleteScalingPolicy", of(json!({"PolicyName": "cpu"})), "ObjectNotFoundException", no_policy).await;
}

#[tokio::test]
async fn target_tracking_makes_its_two_alarms() {
    let (client, _) = registered(1).await;
    let answer = client.ok("PutScalingPolicy", tracking(70.0)).await;
    let arn = answer["PolicyARN"].as_str().unwrap().to_owned();
    assert!(arn.starts_with("arn:aws:autoscaling:us-east-1:000000000000:scalingPolicy:"), "{arn}");
    assert!(arn.ends_with(":resource/ecs/service/default/web:policyName/cpu"), "{arn}");
    let names = each(&answer["Alarms"], "AlarmName");
    assert!(names[0].starts_with("TargetTracking-service/default/web-AlarmHigh-"), "{names:?}");
    assert!(names[1].starts_with("TargetTracking-service/default/web-AlarmLow-"), "{names:?}");
    let alarms = client.ok("DescribeAlarms", json!({"AlarmNamePrefix": "TargetTracking-"})).await["MetricAlarms"].clone();
    assert_eq!(each(&alarms, "AlarmName"), names);
    assert_eq!((&alarms[0]["Threshold"], &alarms[1]["Threshold"]), (&json!(70.0), &json!(63.0)));
    assert!(alarms[0]["AlarmActions"][0].as_str().unwrap().starts_with(&format!("{arn}:createdBy/")));
    let policy = policies(&client).await[0].clone();
    assert_eq!(policy["Alarms"], answer["Alarms"]);
    assert_eq!(policy["TargetTrackingScalingPolicyConfiguration"]["ScaleOutCooldown"], json!(30));
    assert!(policy["TargetTrackingScalingPolicyConfiguration"].get("ScaleInCooldown").is_none());

    let same = client.ok("PutScalingPolicy", tracking(70.0)).await;
    assert_eq!(same["Alarms"], answer["Alarms"], "nothing changed");
    let changed = client.ok("PutScalingPolicy", tracking(50.0)).await;
    assert_eq!(changed["PolicyARN"], answer["PolicyARN"]);
    let new = alarm_names(&client).await;
    assert_eq!(each(&changed["Alarms"], "AlarmName"), new);
    assert!(new.iter().all(|name| !names.contains(&name.as_str())), "the old alarms are gone");

    let mut second = tracking(40.0);
    second["PolicyName"] = json!("cpu-2");
    let twice = "Only one TargetTrackingScaling policy for a given metric specification is allowed.";
    client.refused("PutScalingPolicy", second.clone(), "ValidationException", twice).await;
    second["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"]["PredefinedMetricType"] =
        json!("ECSServiceAverageMemoryUtilization");
    second["TargetTrackingScalingPolicyConfiguration"]["DisableScaleIn"] = json!(true);
    assert_eq!(client.ok("PutScalingPolicy", second).await["Alarms"].as_array().unwrap().len(), 1);

    client.ok("DeleteScalingPolicy", of(json!({"PolicyName": "cpu"}))).await;
    assert_eq!(alarm_names(&client).await.len(), 1);
    client.ok("DeregisterScalableTarget", of(json!({}))).await;
    assert!(alarm_names(&client).await.is_empty());
    assert_eq!(policies(&client).await, json!([]));
    let said: Vec<String> = actions(&client).await.into_iter().map(|(action, _)| action).collect();
    let expected = [
        "scalable target 1 to 10",
        "put scaling policy cpu",
        "put scaling policy cpu",
        "put scaling policy cpu-2",
        "delete scaling policy cpu",
        "deregister scalable target",
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_step_policy_is_named_by_alarms() {
    let (client, _) = registered(1).await;
    let config = json!({"AdjustmentType": "ChangeInCapacity", "Cooldown": 60,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 2}]});
    let put = of(json!({"PolicyName": "out", "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": config}));
    let answer = client.ok("PutScalingPolicy", put).await;
    assert_eq!(answer["Alarms"], json!([]));
    let alarm = json!({"AlarmName": "busy", "Namespace": "Shop", "MetricName": "m", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1,
        "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold", "AlarmActions": [answer["PolicyARN"], "arn:aws:sns:x"]});
    client.ok("PutMetricAlarm", alarm).await;
    let policy = policies(&client).await[0].clone();
    assert_eq!(each(&policy["Alarms"], "AlarmName"), ["busy"]);
    let shown = &policy["StepScalingPolicyConfiguration"];
    assert_eq!((&shown["AdjustmentType"], &shown["Cooldown"]), (&json!("ChangeInCapacity"), &json!(60)));
    assert_eq!(shown["StepAdjustments"], json!([{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 2}]));

    // Left out on an update: the steps stay, the cooldown does not.
    let update = of(json!({"PolicyName": "out", "StepScalingPolicyConfiguration": {"MetricAggregationType": "Maximum"}}));
    client.ok("PutScalingPolicy", update).await;
    let shown = policies(&client).await[0]["StepScalingPolicyConfiguration"].clone();
    assert_eq!(shown["StepAdjustments"].as_array().unwrap().len(), 1);
    assert_eq!((&shown["MetricAggregationType"], shown.get("Cooldown")), (&json!("Maximum"), None));

    client.ok("DeleteScalingPolicy", of(json!({"PolicyName": "out"}))).await;
    let alarm = client.ok("DescribeAlarms", json!({})).await["MetricAlarms"][0].clone();
    assert_eq!(alarm["AlarmActions"], json!(["arn:aws:sns:x"]), "the alarm stays, its action goes");
}

#[tokio::test]
async fn policies_that_are_refused() {
    let (client, _) = registered(1).await;
    let both = of(json!({"PolicyName": "p", "StepScalingPolicyConfiguration": {},
        "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 1.0}}));
    let mut math = tracking(1.0);
    math["TargetTrackingScalingPolicyConfiguration"] =
        json!({"TargetValue": 1.0, "CustomizedMetricSpecification": {"Metrics": [{"Id": "m1"}]}});
    let mut wrong = tracking(1.0);
    wrong["PolicyType"] = json!("StepScaling");
    let cases = [
        (
            of(json!({"PolicyName": "p", "PolicyType": "PredictiveScaling", "PredictiveScalingPolicyConfiguration": {}})),
            "Predictive scaling policies are not served in this release; use TargetTrackingScaling or StepScaling.",
        ),
        (both, "Only one of StepScalingPolicyConfiguration and TargetTrackingScalingPolicyConfiguration may be specified."),
        (
            math,
            "Metric math (Metrics) is not served in a customized metric specification; name one metric with MetricName, Namespace and Statistic.",
        ),
        (wrong, "StepScalingPolicyConfiguration must be specified for policy type StepScaling."),
        (tracking(0.0), "Target value must be greater than zero: 0"),
        (of(json!({"PolicyName": "p", "StepScalingPolicyConfiguration": {}})), "An adjustment type must be specified."),
        (
            of(json!({"PolicyName": "", "StepScalingPolicyConfiguration": {}})),
            "1 validation error detected: Value '' at 'policyName' failed to satisfy constraint: Member must satisfy regular expression pattern: \\p{Print}+",
        ),
    ];
    for (input, message) in cases {
        client.refused("PutScalingPolicy", input, "ValidationException", message).await;
    }
}

#[tokio::test]
async fn activities_come_in_pages_newest_first() {
    let (client, key) = registered(1).await;
    for n in 0..5_i64 {
        let not_scaled = NotScaledReason { code: NotScaledCode::AlreadyAtMaxCapacity, max: Some(10), min: None, current: None };
        let activity = ScalingActivity {
            id: format!("activity-{n}"),
            service: key.clone(),
            description: "d".to_owned(),
            cause: "c".to_owned(),
            status: ActivityStatus::Successful,
            status_message: None,
            desired: Some(1),
            not_scaled: if n == 2 { vec![not_scaled] } else { Vec::new() },
            // Two began in the same millisecond.
            started_at: Timestamp(1_000 * n.min(3)),
            ended_at: None,
            reaction: None,
        };
        client.change(activity).await;
    }
    for (input, expected) in [
        (of(json!({})), vec!["activity-4", "activity-3", "activity-1", "activity-0"]),
        (json!({"ServiceNamespace": "ecs"}), vec!["activity-4", "activity-3", "activity-1", "activity-0"]),
        (
            of(json!({"IncludeNotScaledActivities": true})),
            vec!["activity-4", "activity-3", "activity-2", "activity-1", "activity-0"],
        ),
    ] {
        let mut input = input;
        input["MaxResults"] = json!(1);
        let mut seen = Vec::new();
        loop {
            let answer = client.ok("DescribeScalingActivities", input.clone()).await;
            seen.extend(each(&answer["ScalingActivities"], "ActivityId").iter().map(|id| id.to_string()));
            match answer.get("NextToken") {
                Some(token) => input["NextToken"] = token.clone(),
                None => break,
            }
        }
        assert_eq!(seen, expected);
    }
    let all = client.ok("DescribeScalingActivities", of(json!({"IncludeNotScaledActivities": true}))).await;
    let reasons = json!([{"Code": "AlreadyAtMaxCapacity", "MaxCapacity": 10}]);
    assert_eq!(all["ScalingActivities"][2]["NotScaledReasons"], reasons);
    let token = of(json!({"NextToken": "x"}));
    client.refused("DescribeScalingActivities", token, "InvalidNextTokenException", "The next token is not valid.").await;
}

#[tokio::test]
async fn targets_are_found_and_tagged() {
    let (client, _) = registered(1).await;
    client.service("api", 1).await;
    let mut second = of(json!({"MinCapacity": 1, "MaxCapacity": 2}));
    second["ResourceId"] = json!("service/default/api");
    client.ok("RegisterScalableTarget", second).await;
    let first = client.ok("DescribeScalableTargets", json!({"ServiceNamespace": "ecs", "MaxResults": 1})).await;
    assert_eq!(each(&first["ScalableTargets"], "ResourceId"), ["service/default/api"]);
    let rest = json!({"ServiceNamespace": "ecs", "MaxResults": 1, "NextToken": first["NextToken"]});
    let rest = client.ok("DescribeScalableTargets", rest).await;
    assert_eq!(each(&rest["ScalableTargets"], "ResourceId"), [ID]);
    assert!(rest.get("NextToken").is_none());
    let named = client.ok("DescribeScalableTargets", json!({"ServiceNamespace": "ecs", "ResourceIds": [ID]})).await;
    let arn = named["ScalableTargets"][0]["ScalableTargetARN"].clone();

    let call = async |operation: &str, input: Value| client.json_to("AnyScaleFrontendService", operation, input).await;
    assert_eq!(call("TagResource", json!({"ResourceARN": arn, "Tags": {"team": "a", "env": "x"}})).await.status, 200);
    assert_eq!(call("UntagResource", json!({"ResourceARN": arn, "TagKeys": ["env"]})).await.status, 200);
    let tags = call("ListTagsForResource", json!({"ResourceARN": arn})).await.value();
    assert_eq!(tags["Tags"], json!({"team": "a"}));
    let gone = call("ListTagsForResource", json!({"ResourceARN": "arn:x"})).await;
    assert_eq!(gone.value()["__type"], "ResourceNotFoundException");
}
