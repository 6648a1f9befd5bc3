//! A small client of Beaufort's own API: AWS calls as JSON, and the native routes.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 16 << 20;

/// Services by the prefix of their X-Amz-Target.
pub const ECS: &str = "AmazonEC2ContainerServiceV20141113";
pub const SCALING: &str = "AnyScaleFrontendService";
pub const LOGS: &str = "Logs_20140328";
pub const CLOUDWATCH: &str = "GraniteServiceVersion20100801";

#[derive(Clone)]
pub struct Api {
    endpoint: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Api {
    /// `http://127.0.0.1:4566`
    pub fn new(endpoint: &str) -> anyhow::Result<Api> {
        let uri: Uri = endpoint.parse().with_context(|| format!("{endpoint} is no URL"))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            bail!("{endpoint} is no endpoint: it is written http://HOST:PORT");
        }
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(HttpConnector::new());
        Ok(Api { endpoint: endpoint.trim_end_matches('/').to_owned(), client })
    }

    /// The endpoint's host where it is not this one: then a task's ports on its host are not here either.
    pub fn elsewhere(&self) -> Option<String> {
        let uri: Uri = self.endpoint.parse().ok()?;
        let host = uri.host()?;
        let address: Option<std::net::IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        (!here).then(|| host.to_owned())
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// An AWS call; an error answer is an error with AWS's own words.
    pub async fn aws(&self, service: &str, operation: &str, input: &Value) -> anyhow::Result<Value> {
        let version = if service == CLOUDWATCH { "1.0" } else { "1.1" };
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.endpoint)
            .header("content-type", format!("application/x-amz-json-{version}"))
            .header("x-amz-target", format!("{service}.{operation}"))
            .body(Full::from(serde_json::to_vec(input)?))?;
        self.send(request).await.with_context(|| format!("{operation} failed"))
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = Request::get(format!("{}{path}", self.endpoint)).body(Full::default())?;
        self.send(request).await.with_context(|| format!("GET {path} failed"))
    }

    pub async fn post(&self, path: &str) -> anyhow::Result<Value> {
        let request = Request::post(format!("{}{path}", self.endpoint)).body(Full::default())?;
        self.send(request).await.with_context(|| format!("POST {path} failed"))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
        let answer = async {
            let response = self.client.request(request).await.with_context(|| format!("{} cannot be reached", self.endpoint))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?.to_bytes();
            anyhow::Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(ANSWER_WITHIN, answer).await.context("no answer in time")??;
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).context("the answer is no JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_here_or_elsewhere() {
        for (endpoint, host) in [
            ("http://127.0.0.1:4566", None),
            ("http://localhost:4566", None),
            ("http://[::1]:4566", None),
            ("http://beaufort:4566", Some("beaufort")),
            ("http://10.1.2.3:4566/", Some("10.1.2.3")),
        ] {
            assert_eq!(Api::new(endpoint).unwrap().elsewhere().as_deref(), host, "{endpoint}");
        }
    }
}
