//! CloudWatch as clients call it: through the wire, in each of its three protocols, on stores in memory and a clock that stands.

mod alarms;
mod metrics;

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::api::{App, autoscaling, cloudwatch, gaps, sts};
use crate::clock::ManualClock;
use crate::ids::IdSource;
use crate::model::arn::Home;
use crate::model::service::{Service, ServiceStatus};
use crate::model::task::LaunchType;
use crate::model::{ClusterName, DefinitionKey, ServiceKey, Timestamp};
use crate::store::{self, Change, Store};
use crate::telemetry::ingest::Ingest;
use crate::telemetry::logs::{self, LogStore};
use crate::telemetry::metrics::{Limits, MetricStore};
use crate::wire::decode::{Unknown, decode};
use crate::wire::encode::encode;
use crate::wire::{Wire, cbor};

/// 2026-11-20T12:40:00Z.
pub const NOW: i64 = 1_795_178_400_000;
pub const SECOND: i64 = NOW / 1_000;

pub struct Client {
    pub wire: Wire<App>,
    pub clock: Arc<ManualClock>,
}

/// What came back: status, `x-amzn-query-error`, body.
pub struct Said {
    pub status: u16,
    pub query_error: String,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new() -> Client {
        let clock = ManualClock::at(Timestamp(NOW));
        let metrics = MetricStore::open(None, clock.clone(), Limits::default()).unwrap();
        let app = App {
            store: Store::open(None, clock.clone(), "test").unwrap(),
            ingest: Arc::new(Ingest::new(metrics.clone())),
            metrics,
            logs: LogStore::open(None, clock.clone(), logs::Limits::default()).unwrap(),
            home: Home::new("us-east-1", "000000000000"),
            clock: clock.clone(),
            ids: IdSource::seeded(7),
            gaps: gaps::Gaps::default(),
            first_cluster: ClusterName::new("default"),
            alerts: Default::default(),
            backups: Default::default(),
            webhook_token: Some("test-token".to_owned()),
            ephemeral: true,
            local_instance: None,
            started_at: Timestamp(NOW),
        };
        let services = vec![cloudwatch::service(), autoscaling::service(), sts::service()];
        Client { wire: Wire { app: Arc::new(app), services, observe: |_, _| (), span: |_, _, _| tracing::Span::none() }, clock }
    }

    pub fn app(&self) -> &App {
        &self.wire.app
    }

    async fn send(&self, request: http::request::Builder, body: Vec<u8>) -> Said {
        let head = request.body(()).unwrap().into_parts().0;
        let answer = self.wire.answer(head, Bytes::from(body)).await;
        let header = answer.headers().get("x-amzn-query-error").map(|v| v.to_str().unwrap().to_owned());
        Said { status: answer.status().as_u16(), query_error: header.unwrap_or_default(), body: answer.body().to_vec() }
    }

    pub async fn json(&self, operation: &str, input: Value) -> Said {
        let target = match operation {
            op if autoscaling::service().operation(op).is_some() && cloudwatch::service().operation(op).is_none() => {
                "AnyScaleFrontendService"
            }
            _ => "GraniteServiceVersion20100801",
        };
        self.json_to(target, operation, input).await
    }

    pub async fn json_to(&self, target: &str, operation: &str, input: Value) -> Said {
        let request = Request::post("/")
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("{target}.{operation}"));
        self.send(request, input.to_string().into_bytes()).await
    }

    pub async fn query(&self, form: &str) -> Said {
        let request = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
        self.send(request, form.as_bytes().to_vec()).await
    }

    pub async fn cbor(&self, operation: &str, input: Value) -> (Said, Value) {
        let path = format!("/service/GraniteServiceVersion20100801/operation/{operation}");
        let request = Request::post(path).header("content-type", "application/cbor").header("smithy-protocol", "rpc-v2-cbor");
        let mut body = cbor::Cbor::default();
        encode(&input, &mut body).unwrap();
        let said = self.send(request, body.0).await;
        let value = decode(cbor::parse(&said.body).unwrap(), &Unknown::default()).unwrap();
        (said, value)
    }

    /// Over JSON; must succeed.
    pub async fn ok(&self, operation: &str, input: Value) -> Value {
        let said = self.json(operation, input).await;
        assert_eq!(said.status, 200, "{operation}: {}", said.text());
        said.value()
    }

    /// Over JSON; must be refused. `code` is the error's shape.
    pub async fn refused(&self, operation: &str, input: Value, code: &str, message: &str) {
        let said = self.json(operation, input.clone()).await;
        let body = said.value();
        assert_ne!(said.status, 200, "{operation} {input}");
        assert_eq!((body["__type"].as_str().unwrap(), body["message"].as_str().unwrap()), (code, message), "{operation} {input}");
    }

    pub async fn change(&self, change: impl Into<Change> + Send + 'static) {
        let put = move |tx: &mut store::Tx| {
            tx.put(change);
            Ok::<_, store::Error>(())
        };
        self.app().store.update("test", put).await.unwrap();
    }

    pub async fn service(&self, name: &str, desired: u32) -> ServiceKey {
        let key = ServiceKey::new("default", name);
        self.change(service(key.clone(), desired)).await;
        key
    }
}

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn value(&self) -> Value {
        if self.body.is_empty() { Value::Null } else { serde_json::from_slice(&self.body).unwrap() }
    }
}

fn service(key: ServiceKey, desired_count: u32) -> Service {
    Service {
        key,
        status: ServiceStatus::Active,
        definition: DefinitionKey::new("web", 1),
        desired_count,
        desired_trace: None,
        launch_type: LaunchType::Ec2,
        minimum_healthy_percent: 100,
        maximum_percent: 200,
        health_check_grace_period_s: None,
        placement_constraints: Vec::new(),
        placement_strategy: Vec::new(),
        network_configuration: None,
        propagate_tags: None,
        enable_ecs_managed_tags: false,
        enable_execute_command: false,
        role_arn: None,
        client_token: None,
        deployments: Vec::new(),
        events: Default::default(),
        steady: true,
        tags: Vec::new(),
        created_at: Timestamp(NOW),
        updated_at: Timestamp(NOW),
    }
}

/// The named member of every item of a list.
pub fn each<'a>(list: &'a Value, member: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|item| item[member].as_str().unwrap()).collect()
}

#[tokio::test]
async fn sts_says_who_one_is() {
    let said = Client::new().query("Action=GetCallerIdentity&Version=2011-06-15").await;
    assert_eq!(said.status, 200);
    let text = said.text();
    assert!(text.contains("<Arn>arn:aws:iam::000000000000:root</Arn>"), "{text}");
    assert!(text.contains("<Account>000000000000</Account>"), "{text}");
    assert!(text.starts_with("<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"), "{text}");
}

#[tokio::test]
async fn an_unknown_operation_is_said_to_be_one() {
    let said = Client::new().json("PutDashboard", json!({})).await;
    assert_eq!((said.status, said.query_error.as_str()), (400, "InvalidAction;Sender"));
}
