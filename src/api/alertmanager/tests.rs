//! The webhook as Alertmanager asks it: a store in memory, a clock that stands.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::api::cloudwatch::tests::{Client, each};
use crate::api::native;
use crate::model::alarm::AlarmState;
use crate::store::{Record, RecordQuery};

const POLICY: &str = "requests-out";

struct Posted {
    status: u16,
    body: Value,
}

async fn ask(client: &Client, method: Method, path: &str, query: &str, authorization: Option<&str>, body: &[u8]) -> Posted {
    let body = Bytes::copy_from_slice(body);
    let request = native::Request { method: &method, path, query, authorization, body: &body };
    let answer = native::answer(&client.wire.app, request).await.unwrap();
    Posted { status: answer.status, body: serde_json::from_slice(&answer.body).unwrap() }
}

async fn post(client: &Client, body: &Value) -> Posted {
    let body = body.to_string();
    ask(client, Method::POST, super::PATH, "repeat_interval=1m", Some("Bearer test-token"), body.as_bytes()).await
}

/// As Alertmanager does: a message that is answered "try later", as on a machine that is busy, is sent again.
async fn told(client: &Client, body: &Value) {
    for _ in 0..100 {
        let posted = post(client, body).await;
        if posted.status != 503 {
            return assert_eq!(posted.status, 200);
        }
    }
    panic!("never taken");
}

async fn alerts(client: &Client) -> Value {
    ask(client, Method::GET, "/api/alerts", "", None, b"").await.body
}

fn alert(fingerprint: &str, status: &str, starts_at: &str, more: Value) -> Value {
    let mut labels = json!({ "alertname": "High", "cluster": "default", "service": "web", "policy": POLICY });
    labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "status": status, "labels": labels, "annotations": { "value": "250", "threshold": "100" }, "startsAt": starts_at,
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://prometheus/graph", "fingerprint": fingerprint })
}

fn body(alerts: &[Value]) -> Value {
    json!({ "version": "4", "groupKey": "{}:{}", "status": "firing", "truncatedAlerts": 0, "receiver": "beaufort", "alerts": alerts })
}

const STARTS: &str = "2026-11-20T10:00:00Z";

async fn with_policy() -> Client {
    let client = Client::new();
    client.service("web", 1).await;
    let of = json!({ "ServiceNamespace": "ecs", "ResourceId": "service/default/web", "ScalableDimension": "ecs:service:DesiredCount" });
    let with = |more: Value| {
        let mut input = of.clone();
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    client.ok("RegisterScalableTarget", with(json!({"MinCapacity": 1, "MaxCapacity": 5}))).await;
    let step = json!({ "AdjustmentType": "ChangeInCapacity", "StepAdjustments": [{ "MetricIntervalLowerBound": 0, "ScalingAdjustment": 1 }] });
    client
        .ok(
            "PutScalingPolicy",
            with(json!({"PolicyName": POLICY, "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": step})),
        )
        .await;
    client
}

#[tokio::test]
async fn an_alert_is_an_alarm_that_every_client_sees() {
    let client = with_policy().await;
    let fired = post(&client, &body(&[alert("f1", "firing", STARTS, json!({}))])).await;
    assert_eq!((fired.status, &fired.body["alerts"]), (200, &json!({ "opened": 1 })));
    let again = post(&client, &body(&[alert("f1", "firing", STARTS, json!({}))])).await;
    assert_eq!((again.status, &again.body["alerts"]), (200, &json!({ "duplicate": 1 })));

    let name = "Prometheus-service/default/web-requests-out-f1";
    let shown = client.ok("DescribeAlarms", json!({ "AlarmNames": [name] })).await["MetricAlarms"][0].clone();
    assert_eq!(
        (&shown["StateValue"], &shown["Namespace"], &shown["MetricName"]),
        (&json!("ALARM"), &json!("Prometheus"), &json!("High"))
    );
    assert!(shown["AlarmActions"][0].as_str().unwrap().ends_with(":policyName/requests-out"));
    let policies = client.ok("DescribeScalingPolicies", json!({ "ServiceNamespace": "ecs" })).await;
    assert_eq!(policies["ScalingPolicies"][0]["Alarms"][0]["AlarmName"], json!(name));
    let history = client.ok("DescribeAlarmHistory", json!({ "AlarmName": name })).await["AlarmHistoryItems"].clone();
    assert_eq!(each(&history, "HistorySummary"), ["Alarm updated from INSUFFICIENT_DATA to ALARM"]);

    let listed = alerts(&client).await;
    assert!(listed["alerts"][0]["expiresAt"].is_string());
    assert_eq!((&listed["alerts"][0]["alarm"], &listed["alerts"][0]["labels"]["policy"]), (&json!(name), &json!(POLICY)));

    let resolved = post(&client, &body(&[alert("f1", "resolved", STARTS, json!({}))])).await;
    assert_eq!(resolved.body["alerts"], json!({ "closed": 1 }));
    assert!(alerts(&client).await["alerts"][0]["expiresAt"].is_null(), "what is over expires no more");
    assert_eq!(client.app().store.snapshot().alarms[name].state, AlarmState::Ok);
    let decisions =
        client.app().store.records(RecordQuery { subject: Some(format!("alarm/{name}")), ..RecordQuery::decisions() });
    let said: Vec<String> = decisions
        .await
        .unwrap()
        .into_iter()
        .rev()
        .map(|(_, record)| match record {
            Record::Decision(d) => d.action,
            Record::Alarm(_) => panic!("asked for decisions"),
        })
        .collect();
    assert_eq!(said, ["alarm none -> ALARM", "alarm ALARM -> OK"]);
}

#[tokio::test]
async fn what_can_never_work_is_answered_200_counted_and_shown() {
    let client = with_policy().await;
    let many = [
        alert("f1", "firing", STARTS, json!({ "service": "nobody" })),
        alert("f2", "firing", STARTS, json!({ "policy": "typo" })),
        alert("f3", "firing", STARTS, json!({ "service": "" })),
        alert("f4", "firing", STARTS, json!({ "direction": "up" })),
        alert("f5", "firing", STARTS, json!({})),
        alert("f6", "firing", STARTS, json!({ "beaufort_action": "heartbeat", "service": "" })),
    ];
    let posted = post(&client, &body(&many)).await;
    assert_eq!((posted.status, &posted.body["alerts"]), (200, &json!({ "unknown": 4, "opened": 1, "heartbeat": 1 })));
    let listed = alerts(&client).await;
    let mut why: Vec<&str> = listed["unusable"].as_array().unwrap().iter().map(|u| u["why"].as_str().unwrap()).collect();
    why.sort_unstable();
    assert_eq!(
        why,
        [
            "service default/web has no scaling policy typo; aws application-autoscaling put-scaling-policy makes one",
            "the alert has no label service; a scaling rule needs cluster, service and policy (alerts/README.md)",
            "the label direction is \"up\"; it is out, in or absent",
            "there is no service default/nobody",
        ]
    );
    assert!(listed["lastHeartbeatAt"].is_string());
}

#[tokio::test]
async fn a_storm_of_alerts_is_bounded_and_harms_no_other_service() {
    let client = with_policy().await;
    // A name that begins with the other's.
    client.service("web-2", 1).await;
    let storm: Vec<Value> =
        (0..10_000).map(|n| alert(&format!("f{n}"), "firing", STARTS, json!({ "task": n.to_string() }))).collect();
    for part in storm.chunks(2_500) {
        told(&client, &body(part)).await;
    }
    let state = client.app().store.snapshot();
    assert_eq!(state.alarms.values().filter(|a| a.external.is_some()).count(), super::MOST_OPEN);
    assert!(state.alarms.values().all(|a| a.name.starts_with("Prometheus-service/default/web-requests-out-")));
    let key = crate::model::ServiceKey::new("default", "web-2");
    assert_eq!(super::alarms_of(&state, &key).count(), 0);
    // What is over makes room, so that the rule that was put right is heard.
    let refused = post(&client, &body(&[alert("right", "firing", STARTS, json!({}))])).await;
    assert_eq!(refused.body["alerts"], json!({ "refused": 1 }));
    assert_eq!(post(&client, &body(&[alert("f7", "resolved", STARTS, json!({}))])).await.body["alerts"], json!({ "closed": 1 }));
    let heard = post(&client, &body(&[alert("right", "firing", STARTS, json!({}))])).await;
    assert_eq!(heard.body["alerts"], json!({ "opened": 1 }));
    assert_eq!(
        super::alarms_of(&client.app().store.snapshot(), &crate::model::ServiceKey::new("default", "web")).count(),
        super::MOST_OPEN
    );
    let unknown: Vec<Value> = (0..1_000).map(|n| alert(&format!("u{n}"), "firing", STARTS, json!({ "service": "x" }))).collect();
    assert_eq!(post(&client, &body(&unknown)).await.body["alerts"], json!({ "unknown": 1_000 }));
    assert_eq!(alerts(&client).await["unusable"].as_array().unwrap().len(), 100, "only the newest are remembered");
}

#[tokio::test]
async fn who_may_say_what() {
    let client = with_policy().await;
    let good = body(&[]).to_string();
    let with = |authorization: Option<&'static str>| ask(&client, Method::POST, super::PATH, "", authorization, good.as_bytes());
    assert_eq!(with(Some("Bearer test-token")).await.status, 200);
    assert_eq!(with(Some("bearer test-token")).await.status, 200, "a scheme's case is nothing");
    for wrong in
        [None, Some(""), Some("test-token"), Some("Bearer test-toke"), Some("Bearer test-tokenn"), Some("Basic test-token")]
    {
        let refused = with(wrong).await;
        assert_eq!(refused.status, 401, "{wrong:?}");
        assert!(!refused.body.to_string().contains("test-token"), "the secret is not told");
    }
    let token = Some("Bearer test-token");
    for (query, text) in [
        ("", "{"),
        ("", "[]"),
        ("", r#"{"version":"5"}"#),
        ("", r#"{"version":"4"}"#),
        ("repeat_interval=soon", good.as_str()),
        ("repeat_interval=0s", good.as_str()),
        ("repeat_interval=9999999999999d", good.as_str()),
    ] {
        let refused = ask(&client, Method::POST, super::PATH, query, token, text.as_bytes()).await;
        assert_eq!(refused.status, 400, "{query} {text}");
        assert!(refused.body["error"].is_string() && refused.body["hint"].is_string());
    }
    assert_eq!(ask(&client, Method::GET, super::PATH, "", token, b"").await.status, 405);
    assert_eq!(ask(&client, Method::POST, "/alertmanager/v1/scale", "", token, b"").await.status, 404);
}
