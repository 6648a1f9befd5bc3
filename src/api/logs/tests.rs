//! The API as a client calls it, through the wire.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::App;
use crate::api::testing;
use crate::clock::ManualClock;
use crate::model::Timestamp;
use crate::wire::Wire;

const NOW: i64 = 1_795_000_000_000;

fn wire() -> Wire<App> {
    let clock = ManualClock::at(Timestamp(NOW));
    testing::wire(Arc::new(testing::app(clock)))
}

async fn call(wire: &Wire<App>, operation: &str, input: Value) -> (u16, Value) {
    let request = Request::post("/")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("Logs_20140328.{operation}"))
        .body(())
        .unwrap();
    let answer = wire.answer(request.into_parts().0, Bytes::from(input.to_string())).await;
    let body = answer.body();
    (answer.status().as_u16(), if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() })
}

async fn ok(wire: &Wire<App>, operation: &str, input: Value) -> Value {
    let (status, body) = call(wire, operation, input).await;
    assert_eq!(status, 200, "{operation}: {body}");
    body
}

async fn refused(wire: &Wire<App>, operation: &str, input: Value, code: &str, message: &str) {
    let (status, body) = call(wire, operation, input).await;
    assert_eq!((status, &body["__type"]), (400, &json!(code)), "{operation}: {body}");
    assert_eq!(body["message"], message);
}

async fn group_and_stream(wire: &Wire<App>) {
    ok(wire, "CreateLogGroup", json!({"logGroupName": "/ecs/web", "tags": {"team": "a"}})).await;
    ok(wire, "CreateLogStream", json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1"})).await;
}

fn events(times: &[i64]) -> Value {
    times.iter().map(|t| json!({"timestamp": NOW + t, "message": format!("line at {t}")})).collect()
}

fn said(page: &Value) -> Vec<&str> {
    page["events"].as_array().unwrap().iter().map(|e| e["message"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn groups_live_and_die() {
    let wire = wire();
    group_and_stream(&wire).await;
    let exists = "ResourceAlreadyExistsException";
    let group = json!({"logGroupName": "/ecs/web"});
    refused(&wire, "CreateLogGroup", group.clone(), exists, "The specified log group already exists").await;
    let stream = json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1"});
    refused(&wire, "CreateLogStream", stream, exists, "The specified log stream already exists").await;
    ok(&wire, "PutRetentionPolicy", json!({"logGroupName": "/ecs/web", "retentionInDays": 7})).await;
    let found = ok(&wire, "DescribeLogGroups", json!({"logGroupNamePrefix": "/ecs"})).await;
    let group_found = &found["logGroups"][0];
    let arn = "arn:aws:logs:us-east-1:000000000000:log-group:/ecs/web";
    assert_eq!((&group_found["arn"], &group_found["logGroupArn"]), (&json!(format!("{arn}:*")), &json!(arn)));
    assert_eq!((&group_found["retentionInDays"], &group_found["creationTime"]), (&json!(7), &json!(NOW)));
    assert_eq!(found.get("nextToken"), None);
    ok(&wire, "TagResource", json!({"resourceArn": arn, "tags": {"k": "v"}})).await;
    ok(&wire, "UntagLogGroup", json!({"logGroupName": "/ecs/web", "tags": ["team"]})).await;
    let by_arn = ok(&wire, "ListTagsForResource", json!({"resourceArn": format!("{arn}:*")})).await;
    assert_eq!(by_arn, json!({"tags": {"k": "v"}}));
    assert_eq!(ok(&wire, "ListTagsLogGroup", group.clone()).await, by_arn);
    ok(&wire, "DeleteRetentionPolicy", group.clone()).await;
    ok(&wire, "DeleteLogGroup", group.clone()).await;
    let missing = "The specified log group does not exist.";
    refused(&wire, "DeleteLogGroup", group.clone(), "ResourceNotFoundException", missing).await;
    refused(&wire, "ListTagsLogGroup", group, "ResourceNotFoundException", missing).await;
}

#[tokio::test]
async fn constraints_are_worded_as_aws_words_them() {
    let wire = wire();
    group_and_stream(&wire).await;
    let invalid = "InvalidParameterException";
    let cases = [
        (
            "GetLogEvents",
            json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1", "limit": 10001}),
            "1 validation error detected: Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000",
        ),
        (
            "GetLogEvents",
            json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1", "nextToken": "x"}),
            "The specified nextToken is invalid.",
        ),
        (
            "CreateLogGroup",
            json!({"logGroupName": "a".repeat(513)}),
            "Invalid LogGroup or LogStream, both must have length less than or equal to 512.",
        ),
        (
            "DescribeLogGroups",
            json!({"logGroupNamePrefix": "a", "logGroupNamePattern": "b"}),
            "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.",
        ),
        (
            "CreateLogGroup",
            json!({}),
            "1 validation error detected: Value null at 'logGroupName' failed to satisfy constraint: Member must not be null",
        ),
        (
            "CreateLogGroup",
            json!({"logGroupName": "a:b"}),
            "1 validation error detected: Value 'a:b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+",
        ),
        (
            "PutLogEvents",
            json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1", "logEvents": events(&[2, 1])}),
            "Log events in a single PutLogEvents request must be in chronological order.",
        ),
        (
            "PutLogEvents",
            json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1", "logEvents": events(&[-86_400_001, 0])}),
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        ),
        (
            "PutLogEvents",
            json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1", "logEvents": [{"timestamp": 1, "message": "x".repeat(1_048_551)}]}),
            "Upload too large: 1048577 bytes exceeds limit of 1048576",
        ),
        (
            "FilterLogEvents",
            json!({"logGroupName": "/ecs/web", "filterPattern": "a-b"}),
            "Invalid filter pattern: Invalid character(s) in term 'a-b'",
        ),
    ];
    for (operation, input, message) in cases {
        refused(&wire, operation, input, invalid, message).await;
    }
    let missing = json!({"logGroupName": "/ecs/web", "logStreamName": "no", "logEvents": events(&[0])});
    refused(&wire, "PutLogEvents", missing, "ResourceNotFoundException", "The specified log stream does not exist.").await;
}

#[tokio::test]
async fn events_go_in_and_come_out_by_their_tokens() {
    let wire = wire();
    group_and_stream(&wire).await;
    let put = |times: &[i64]| json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1", "logEvents": events(times)});
    let done = ok(&wire, "PutLogEvents", put(&[-3, -2, -1, 3 * 3_600_000])).await;
    assert_eq!(done["rejectedLogEventsInfo"], json!({"tooNewLogEventStartIndex": 3}));
    assert_eq!(done["nextSequenceToken"].as_str().unwrap().len(), 56);
    let get = |more: Value| {
        let mut input = json!({"logGroupName": "/ecs/web", "logStreamName": "app/web/1"});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let newest = ok(&wire, "GetLogEvents", get(json!({"limit": 2}))).await;
    assert_eq!(said(&newest), ["line at -2", "line at -1"]);
    assert_eq!(newest["events"][0]["ingestionTime"], NOW);
    let older = ok(&wire, "GetLogEvents", get(json!({"nextToken": newest["nextBackwardToken"]}))).await;
    assert_eq!(said(&older), ["line at -3"]);
    let forward = &newest["nextForwardToken"];
    let end = ok(&wire, "GetLogEvents", get(json!({"nextToken": forward}))).await;
    assert_eq!((said(&end).len(), &end["nextForwardToken"]), (0, forward));
    ok(&wire, "PutLogEvents", put(&[1])).await;
    assert_eq!(said(&ok(&wire, "GetLogEvents", get(json!({"nextToken": forward}))).await), ["line at 1"]);
    // endTime is exclusive here and inclusive in FilterLogEvents.
    let times = json!({"startTime": NOW - 2, "endTime": NOW + 1, "startFromHead": true});
    assert_eq!(said(&ok(&wire, "GetLogEvents", get(times)).await), ["line at -2", "line at -1"]);
    let filter = json!({"logGroupIdentifier": "arn:aws:logs:us-east-1:000000000000:log-group:/ecs/web", "startTime": NOW - 2,
        "endTime": NOW + 1, "filterPattern": "\"line at\"", "limit": 2});
    let first = ok(&wire, "FilterLogEvents", filter.clone()).await;
    assert_eq!(said(&first), ["line at -2", "line at -1"]);
    assert_eq!((&first["searchedLogStreams"], first["events"][0]["eventId"].as_str().unwrap().len()), (&json!([]), 56));
    let mut rest = filter;
    rest["nextToken"] = first["nextToken"].clone();
    let second = ok(&wire, "FilterLogEvents", rest).await;
    assert_eq!((said(&second), second.get("nextToken")), (vec!["line at 1"], None));
    let streams = json!({"logGroupName": "/ecs/web", "orderBy": "LastEventTime", "descending": true});
    let streams = ok(&wire, "DescribeLogStreams", streams).await;
    let stream = &streams["logStreams"][0];
    assert_eq!((&stream["firstEventTimestamp"], &stream["lastEventTimestamp"]), (&json!(NOW - 3), &json!(NOW + 1)));
    assert_eq!((&stream["storedBytes"], stream["uploadSequenceToken"].as_str().unwrap().len()), (&json!(0), 56));
}
