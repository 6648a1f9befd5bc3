use serde_json::{Value, json};

use super::{Client, SECOND, each};
use crate::model::decision::{ReasonCode, Subject};
use crate::store::{Record, RecordQuery};

fn high() -> Value {
    json!({
        "AlarmName": "high", "Namespace": "Shop", "MetricName": "Latency", "Statistic": "Average", "Period": 60,
        "EvaluationPeriods": 3, "Threshold": 70, "ComparisonOperator": "GreaterThanThreshold",
        "Dimensions": [{"Name": "host", "Value": "a"}], "AlarmActions": ["arn:aws:sns:us-east-1:000000000000:pager"],
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut alarm = high();
    match value {
        Value::Null => drop(alarm.as_object_mut().unwrap().remove(member)),
        value => alarm[member] = value,
    }
    alarm
}

async fn only(client: &Client) -> Value {
    client.ok("DescribeAlarms", json!({})).await["MetricAlarms"][0].clone()
}

#[tokio::test]
async fn an_alarm_in_every_protocol() {
    let client = Client::new();
    client.ok("PutMetricAlarm", high()).await;
    let alarm = only(&client).await;
    let expected = json!({
        "AlarmName": "high", "AlarmArn": "arn:aws:cloudwatch:us-east-1:000000000000:alarm:high", "ActionsEnabled": true,
        "OKActions": [], "AlarmActions": ["arn:aws:sns:us-east-1:000000000000:pager"], "InsufficientDataActions": [],
        "StateValue": "INSUFFICIENT_DATA", "StateReason": "Unchecked: Initial alarm creation", "MetricName": "Latency",
        "Namespace": "Shop", "Statistic": "Average", "Dimensions": [{"Name": "host", "Value": "a"}], "Period": 60,
        "EvaluationPeriods": 3, "Threshold": 70.0, "ComparisonOperator": "GreaterThanThreshold",
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(alarm[member], *value, "{member}");
    }
    for member in ["StateReasonData", "Unit", "TreatMissingData", "DatapointsToAlarm", "ExtendedStatistic", "AlarmDescription"] {
        assert!(alarm.get(member).is_none(), "{member}");
    }
    for member in ["StateUpdatedTimestamp", "AlarmConfigurationUpdatedTimestamp", "StateTransitionedTimestamp"] {
        assert_eq!(alarm[member].as_f64(), Some(SECOND as f64), "{member}");
    }

    let form = "Action=PutMetricAlarm&Version=2010-08-01&AlarmName=low&Namespace=Shop&MetricName=Latency&ExtendedStatistic=p99\
        &Period=10&EvaluationPeriods=2&DatapointsToAlarm=1&Threshold=5&ComparisonOperator=LessThanThreshold&TreatMissingData=breaching";
    let said = client.query(form).await;
    assert_eq!(said.status, 200, "{}", said.text());
    let text = client.query("Action=DescribeAlarms&Version=2010-08-01&AlarmNamePrefix=lo").await.text();
    assert!(text.contains("<MetricAlarms><member><AlarmName>low</AlarmName>"), "{text}");
    assert!(text.contains("<ExtendedStatistic>p99</ExtendedStatistic>"), "{text}");
    assert!(text.contains("<TreatMissingData>breaching</TreatMissingData>"), "{text}");

    let mut third = high();
    third["AlarmName"] = json!("third");
    assert_eq!(client.cbor("PutMetricAlarm", third).await.0.status, 200);
    let (_, answer) = client.cbor("DescribeAlarms", json!({"AlarmNames": ["third", "nobody"]})).await;
    assert_eq!(each(&answer["MetricAlarms"], "AlarmName"), ["third"]);
    assert_eq!(answer["MetricAlarms"][0]["Threshold"].as_f64(), Some(70.0));
}

#[tokio::test]
async fn an_update_replaces_the_configuration_and_keeps_the_state() {
    let client = Client::new();
    let mut tagged = high();
    tagged["Tags"] = json!([{"Key": "team", "Value": "a"}]);
    client.ok("PutMetricAlarm", tagged).await;
    let state = json!({"AlarmName": "high", "StateValue": "OK", "StateReason": "by hand"});
    client.ok("SetAlarmState", state).await;
    client.clock.advance(5_000);
    let mut changed = with("Threshold", json!(80));
    changed["AlarmActions"] = json!([]);
    changed["Tags"] = json!([{"Key": "ignored", "Value": "x"}]);
    client.ok("PutMetricAlarm", changed).await;
    let alarm = only(&client).await;
    assert_eq!((&alarm["Threshold"], &alarm["AlarmActions"]), (&json!(80.0), &json!([])));
    assert_eq!((&alarm["StateValue"], &alarm["StateReason"]), (&json!("OK"), &json!("by hand")));
    let arn = json!({"ResourceARN": alarm["AlarmArn"]});
    assert_eq!(client.ok("ListTagsForResource", arn).await["Tags"], json!([{"Key": "team", "Value": "a"}]));
    client.ok("DeleteAlarms", json!({"AlarmNames": ["high", "nobody"]})).await;
    assert_eq!(client.ok("DescribeAlarms", json!({})).await["MetricAlarms"], json!([]));
    let history = client.ok("DescribeAlarmHistory", json!({"AlarmName": "high"})).await;
    let said = each(&history["AlarmHistoryItems"], "HistorySummary");
    assert_eq!(
        said,
        [
            "Alarm \"high\" deleted",
            "Alarm \"high\" updated",
            "Alarm updated from INSUFFICIENT_DATA to OK",
            "Alarm \"high\" created"
        ]
    );
}

#[tokio::test]
async fn alarms_that_are_refused() {
    let client = Client::new();
    let value = "InvalidParameterValueException";
    let cases = [
        (with("MetricName", Value::Null), "ValidationException", "MetricName must not be null"),
        (with("Period", Value::Null), "ValidationException", "Period must not be null"),
        (with("Period", json!(-60)), "ValidationException", "Period must be 1, 5, 10, 20, 30 or a multiple of 60"),
        (with("Threshold", Value::Null), "ValidationException", "Threshold must not be null"),
        (
            with("DatapointsToAlarm", json!(4)),
            "ValidationException",
            "DatapointsToAlarm must be less than or equal to EvaluationPeriods",
        ),
        (
            with("TreatMissingData", json!("never")),
            "ValidationException",
            "The value never is not supported for TreatMissingData parameter. Supported values are [breaching, notBreaching, ignore, missing].",
        ),
        (with("Metrics", json!([{"Id": "m1"}])), "ValidationException", "Statistic should not be set if list of Metrics is set."),
        (
            with("ComparisonOperator", json!("GreaterThanUpperThreshold")),
            "ValidationException",
            "Anomaly detection alarms are not served in this release; compare with a Threshold.",
        ),
        (
            with("EvaluationCriteria", json!({"PromQLCriteria": {}})),
            "ValidationException",
            "EvaluationCriteria is not served in this release.",
        ),
    ];
    for (input, code, message) in cases {
        client.refused("PutMetricAlarm", input, code, message).await;
    }
    let mut extended = with("Statistic", Value::Null);
    client
        .refused(
            "PutMetricAlarm",
            extended.clone(),
            "ValidationException",
            "Either Statistic or ExtendedStatistic must be specified.",
        )
        .await;
    extended["ExtendedStatistic"] = json!("tm90");
    client.refused("PutMetricAlarm", extended, value, "The value tm90 for parameter ExtendedStatistic is not supported.").await;
}

#[tokio::test]
async fn a_state_set_by_hand() {
    let client = Client::new();
    let set = |state: &str, data: &str| json!({"AlarmName": "high", "StateValue": state, "StateReason": "drill", "StateReasonData": data});
    let said = client.json("SetAlarmState", set("ALARM", "{}")).await;
    assert_eq!((said.status, said.query_error.as_str()), (404, "ResourceNotFound;Sender"));
    client.ok("PutMetricAlarm", high()).await;
    let odd = "1 validation error detected: Value 'INVALID' at 'stateValue' failed to satisfy constraint: Member must satisfy enum value set: [INSUFFICIENT_DATA, ALARM, OK]";
    client.refused("SetAlarmState", set("INVALID", "{}"), "ValidationException", odd).await;
    client.refused("SetAlarmState", set("ALARM", "{"), "InvalidFormatFault", "StateReasonData is not valid JSON.").await;

    client.clock.advance(1_000);
    client.ok("SetAlarmState", set("ALARM", r#"{"recentDatapoints":[80.0,90.0]}"#)).await;
    client.clock.advance(1_000);
    client.ok("SetAlarmState", set("ALARM", "{}")).await;
    let alarm = only(&client).await;
    assert_eq!((&alarm["StateValue"], &alarm["StateReason"]), (&json!("ALARM"), &json!("drill")));
    assert_eq!(alarm["StateTransitionedTimestamp"].as_f64(), Some((SECOND + 1) as f64));
    assert_eq!(alarm["StateUpdatedTimestamp"].as_f64(), Some((SECOND + 2) as f64));
    let history = client.ok("DescribeAlarmHistory", json!({"AlarmName": "high", "ScanBy": "TimestampAscending"})).await;
    let said = each(&history["AlarmHistoryItems"], "HistorySummary");
    assert_eq!(&said[..2], ["Alarm \"high\" created", "Alarm updated from INSUFFICIENT_DATA to ALARM"]);
    assert!(said[2].starts_with("Failed to execute action arn:aws:sns:"), "{said:?}");
    assert_eq!(said.len(), 3, "the same state again runs nothing");
    let decided = client.app().store.records(RecordQuery::decisions()).await.unwrap();
    let Record::Decision(decision) = &decided[1].1 else { panic!("a decision") };
    assert_eq!(
        (decision.reason.code, decision.action.as_str()),
        (ReasonCode::AlarmSetByUser, "alarm INSUFFICIENT_DATA -> ALARM")
    );
    assert_eq!(decision.subject, Subject::Alarm { name: "high".to_owned(), service: None });
    assert_eq!(decision.reason.evidence["recent"], json!([80.0, 90.0]));
}

#[tokio::test]
async fn actions_are_switched_off_and_on() {
    let client = Client::new();
    client.ok("PutMetricAlarm", high()).await;
    let names = json!({"AlarmNames": ["high", "nobody"]});
    client.ok("DisableAlarmActions", names.clone()).await;
    assert_eq!(only(&client).await["ActionsEnabled"], json!(false));
    client.ok("SetAlarmState", json!({"AlarmName": "high", "StateValue": "ALARM", "StateReason": "drill"})).await;
    let actions = client.ok("DescribeAlarmHistory", json!({"HistoryItemType": "Action"})).await;
    assert_eq!(actions["AlarmHistoryItems"], json!([]));
    client.ok("EnableAlarmActions", names.clone()).await;
    client.ok("EnableAlarmActions", names).await;
    assert_eq!(only(&client).await["ActionsEnabled"], json!(true));
    let changes = client.ok("DescribeAlarmHistory", json!({"HistoryItemType": "ConfigurationUpdate"})).await;
    assert_eq!(changes["AlarmHistoryItems"].as_array().unwrap().len(), 3, "created, off, on");
}

#[tokio::test]
async fn alarms_are_found_and_come_in_pages() {
    let client = Client::new();
    for name in ["a1", "a2", "a3", "b1"] {
        let mut alarm = high();
        alarm["AlarmName"] = json!(name);
        if name == "b1" {
            alarm["OKActions"] = json!(["arn:aws:autoscaling:x"]);
            alarm["Dimensions"] = json!([]);
        }
        client.ok("PutMetricAlarm", alarm).await;
    }
    client.ok("SetAlarmState", json!({"AlarmName": "a2", "StateValue": "OK", "StateReason": "x"})).await;
    let names = async |input: Value| -> Vec<String> {
        let answer = client.ok("DescribeAlarms", input).await;
        each(&answer["MetricAlarms"], "AlarmName").iter().map(|n| n.to_string()).collect()
    };
    assert_eq!(names(json!({"AlarmNamePrefix": "a"})).await, ["a1", "a2", "a3"]);
    assert_eq!(names(json!({"StateValue": "OK"})).await, ["a2"]);
    assert_eq!(names(json!({"ActionPrefix": "arn:aws:autoscaling"})).await, ["b1"]);
    assert!(names(json!({"AlarmTypes": ["CompositeAlarm"]})).await.is_empty());
    let metric = json!({"Namespace": "Shop", "MetricName": "Latency", "Dimensions": [{"Name": "host", "Value": "a"}], "Statistic": "Average"});
    let answer = client.ok("DescribeAlarmsForMetric", metric).await;
    assert_eq!(each(&answer["MetricAlarms"], "AlarmName"), ["a1", "a2", "a3"]);

    let mut seen = Vec::new();
    let mut input = json!({"MaxRecords": 3});
    loop {
        let answer = client.ok("DescribeAlarms", input.clone()).await;
        seen.push(answer["MetricAlarms"].as_array().unwrap().len());
        match answer.get("NextToken") {
            Some(token) => input["NextToken"] = token.clone(),
            None => break,
        }
    }
    assert_eq!(seen, [3, 1]);
    let many = "1 validation error detected: Value '101' at 'maxRecords' failed to satisfy constraint: Member must have value less than or equal to 100";
    client.refused("DescribeAlarms", json!({"MaxRecords": 101}), "ValidationException", many).await;
    client
        .refused("DescribeAlarms", json!({"NextToken": "x"}), "InvalidNextToken", "The specified next token is not valid.")
        .await;
}

#[tokio::test]
async fn history_comes_in_pages_both_ways() {
    let client = Client::new();
    client.ok("PutMetricAlarm", high()).await;
    for n in 0..4 {
        client.clock.advance(1_000);
        let state = if n % 2 == 0 { "OK" } else { "INSUFFICIENT_DATA" };
        client.ok("SetAlarmState", json!({"AlarmName": "high", "StateValue": state, "StateReason": "x"})).await;
    }
    for (scan, kind) in
        [("TimestampDescending", None), ("TimestampAscending", None), ("TimestampDescending", Some("StateUpdate"))]
    {
        let mut input = json!({"MaxRecords": 2, "ScanBy": scan});
        if let Some(kind) = kind {
            input["HistoryItemType"] = json!(kind);
        }
        let mut times = Vec::new();
        loop {
            let answer = client.ok("DescribeAlarmHistory", input.clone()).await;
            let items = answer["AlarmHistoryItems"].as_array().unwrap();
            times.extend(items.iter().map(|i| i["Timestamp"].as_f64().unwrap() as i64 - SECOND));
            match answer.get("NextToken") {
                Some(token) => input["NextToken"] = token.clone(),
                None => break,
            }
        }
        let mut expected: Vec<i64> = (if kind.is_some() { 1 } else { 0 }..=4).collect();
        if scan == "TimestampDescending" {
            expected.reverse();
        }
        assert_eq!(times, expected, "{scan} {kind:?}");
    }
    let since = client.ok("DescribeAlarmHistory", json!({"StartDate": SECOND + 2, "EndDate": SECOND + 3})).await;
    assert_eq!(since["AlarmHistoryItems"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn tags_of_an_alarm() {
    let client = Client::new();
    client.ok("PutMetricAlarm", high()).await;
    let arn = "arn:aws:cloudwatch:us-east-1:000000000000:alarm:high";
    let tags = json!([{"Key": "team", "Value": "a"}, {"Key": "env", "Value": "test"}]);
    client.ok("TagResource", json!({"ResourceARN": arn, "Tags": tags})).await;
    client.ok("TagResource", json!({"ResourceARN": arn, "Tags": [{"Key": "team", "Value": "b"}]})).await;
    client.ok("UntagResource", json!({"ResourceARN": arn, "TagKeys": ["env"]})).await;
    assert_eq!(
        client.ok("ListTagsForResource", json!({"ResourceARN": arn})).await["Tags"],
        json!([{"Key": "team", "Value": "b"}])
    );
    let gone = format!("{arn}er");
    let said = client.json("ListTagsForResource", json!({"ResourceARN": gone})).await;
    assert_eq!((said.status, said.query_error.as_str()), (404, "ResourceNotFoundException;Sender"));
}
