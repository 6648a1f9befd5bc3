//! A small client of Beaufort's API: AWS JSON 1.1 operations by `X-Amz-Target`, and the native paths. Plain HTTP; bodies and times are
//! bounded; errors say what happened and what to do.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::failure::Failure;

/// The largest answer that is read: a page of ten thousand log events of the largest size has about this.
const MAX_ANSWER: usize = 64 << 20;
const CONNECT: Duration = Duration::from_secs(3);
const WHOLE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Ecs,
    Logs,
    Scaling,
    CloudWatch,
}

impl Service {
    fn target(self) -> &'static str {
        match self {
            Service::Ecs => "AmazonEC2ContainerServiceV20141113",
            Service::Logs => "Logs_20140328",
            Service::Scaling => "AnyScaleFrontendService",
            Service::CloudWatch => "GraniteServiceVersion20100801",
        }
    }

    fn content_type(self) -> &'static str {
        if self == Service::CloudWatch { "application/x-amz-json-1.0" } else { "application/x-amz-json-1.1" }
    }
}

pub struct Client {
    endpoint: String,
    http: Hyper<HttpConnector, Full<Bytes>>,
}

/// An error that the server answered with.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refused {
    pub code: String,
    pub message: String,
}

impl Client {
    pub fn new(endpoint: &str) -> Result<Client, Failure> {
        let endpoint = endpoint.trim_end_matches('/');
        let wrong = |why: &str| {
            Failure::new(
                format!("{endpoint} is no endpoint: {why}"),
                "write http://HOST:PORT, in --endpoint or BEAUFORT_ENDPOINT; for a server behind TLS, open a tunnel (ssh -L)",
            )
        };
        let uri: Uri = endpoint.parse().map_err(|_| wrong("it is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("only http:// is spoken here"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Ok(Client { endpoint: endpoint.to_owned(), http: Hyper::builder(TokioExecutor::new()).build(connector) })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// An AWS operation.
    pub async fn call(&self, service: Service, operation: &str, input: &Value) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/", self.endpoint))
            .header("content-type", service.content_type())
            .header("x-amz-target", format!("{}.{operation}", service.target()))
            .body(Full::new(Bytes::from(serde_json::to_vec(input)?)))?;
        let (status, body) = self.send(request).await?;
        if status < 300 {
            return self.understand(&body);
        }
        Err(self.refused(status, &body))
    }

    /// A native path with a query: `("/api/why", &[("subject", "service/web")])`.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let (status, value) = self.get_any(path, query).await?;
        if status < 300 { Ok(value) } else { Err(native_refused(status, &value)) }
    }

    /// The same, whatever the status.
    pub async fn get_any(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<(u16, Value)> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let uri = if query.is_empty() { format!("{}{path}", self.endpoint) } else { format!("{}{path}?{query}", self.endpoint) };
        let (status, body) = self.send(Request::builder().uri(uri).body(Full::default())?).await?;
        Ok((status, self.understand(&body)?))
    }

    /// A native path that answers bytes.
    pub async fn get_bytes(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Bytes> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let uri = format!("{}{path}?{query}", self.endpoint);
        let (status, body) = self.send(Request::builder().uri(uri).body(Full::default())?).await?;
        if status < 300 { Ok(body) } else { Err(native_refused(status, &self.understand(&body)?)) }
    }

    pub async fn post(&self, path: &str, input: &Value) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.endpoint))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(input)?)))?;
        let (status, body) = self.send(request).await?;
        let value = self.understand(&body)?;
        if status < 300 { Ok(value) } else { Err(native_refused(status, &value)) }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), Failure> {
        let whole = async {
            let answer = self.http.request(request).await.map_err(|e| self.unreachable(&e))?;
            let (head, body) = answer.into_parts();
            let body =
                Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| match e.downcast_ref::<LengthLimitError>() {
                    Some(_) => Failure::new(
                        format!("the answer is larger than {} MiB", MAX_ANSWER >> 20),
                        "ask for less: --since, --tail",
                    ),
                    None => Failure::new(
                        format!("the answer of {} ended early: {e}", self.endpoint),
                        "is it being stopped? Try again",
                    ),
                })?;
            Ok((head.status.as_u16(), body.to_bytes()))
        };
        tokio::time::timeout(WHOLE, whole).await.unwrap_or_else(|_| {
            Err(Failure::new(
                format!("{} gave no answer within {} s", self.endpoint, WHOLE.as_secs()),
                "look at the server's log; `beaufort health` tells whether it answers at all",
            ))
        })
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> Failure {
        let mut root: &dyn std::error::Error = error;
        while let Some(source) = root.source() {
            root = source;
        }
        let next = "start one with `beaufort up`, or name another with --endpoint / BEAUFORT_ENDPOINT";
        Failure::new(format!("nothing answers at {} ({root})", self.endpoint), next)
    }

    fn understand(&self, body: &[u8]) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(body).map_err(|_| self.stranger())?)
    }

    fn stranger(&self) -> Failure {
        Failure::new(
            format!("what answers at {} is no Beaufort: its answer is no JSON", self.endpoint),
            "name another with --endpoint / BEAUFORT_ENDPOINT",
        )
    }

    fn refused(&self, status: u16, body: &[u8]) -> anyhow::Error {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return self.stranger().into() };
        let text = |names: &[&str]| names.iter().find_map(|n| value[*n].as_str()).unwrap_or_default().to_owned();
        let kind = text(&["__type", "code"]);
        let code = kind.rsplit('#').next().unwrap_or_default().to_owned();
        let code = if code.is_empty() { format!("status {status}") } else { code };
        let refused = Refused { message: text(&["message", "Message"]), code };
        match hint(&refused.code) {
            Some(next) => anyhow::Error::new(Failure::new(refused.to_string(), next)).context(refused),
            None => refused.into(),
        }
    }
}

fn native_refused(status: u16, value: &Value) -> anyhow::Error {
    let what = value["error"].as_str().map_or_else(|| format!("the server answered with status {status}"), str::to_owned);
    match value["hint"].as_str() {
        Some(next) => Failure::new(what, next).into(),
        None => anyhow::anyhow!(what),
    }
}

fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "ClusterNotFoundException" => "`aws ecs list-clusters` lists the clusters; name one with --cluster",
        "ServiceNotFoundException" | "ServiceNotActiveException" => {
            "`beaufort services` lists the services; --cluster names another cluster"
        }
        "ResourceNotFoundException" => "`aws logs describe-log-groups` lists the log groups",
        "ThrottlingException" => "try again in a moment",
        "ServerException" | "InternalFailure" | "ServiceUnavailableException" => "look at the server's log",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request with `response` and gives back what was asked.
    async fn answer_once(response: String) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 16_384];
            let n = socket.read(&mut seen).await.unwrap();
            socket.write_all(response.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&seen[..n]).into_owned()
        });
        (endpoint, served)
    }

    fn response(status: u16, body: &str) -> String {
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    #[test]
    fn endpoints_that_cannot_be() {
        for (endpoint, why) in
            [("https://h:1", "only http://"), ("h", "only http://"), ("http://h/x", "a path"), ("http://h h", "no URL")]
        {
            let failure = Client::new(endpoint).err().unwrap();
            assert!(failure.what.contains(why), "{endpoint}: {}", failure.what);
        }
        assert_eq!(Client::new("http://h:1/").unwrap().endpoint(), "http://h:1");
    }

    #[tokio::test]
    async fn operations_are_asked_as_the_sdks_ask_them() {
        let (endpoint, served) = answer_once(response(200, r#"{"taskArns":[]}"#)).await;
        let client = Client::new(&endpoint).unwrap();
        let output = client.call(Service::Ecs, "ListTasks", &json!({ "cluster": "c" })).await.unwrap();
        assert_eq!(output, json!({ "taskArns": [] }));
        let asked = served.await.unwrap();
        assert!(asked.contains("x-amz-target: AmazonEC2ContainerServiceV20141113.ListTasks"), "{asked}");
        assert!(asked.contains("content-type: application/x-amz-json-1.1") && asked.ends_with(r#"{"cluster":"c"}"#), "{asked}");
    }

    #[tokio::test]
    async fn refusals_say_what_to_do() {
        let body = r#"{"__type":"com.amazonaws.ecs#ClusterNotFoundException","message":"Cluster not found."}"#;
        let (endpoint, _served) = answer_once(response(400, body)).await;
        let error = Client::new(&endpoint).unwrap().call(Service::Ecs, "ListTasks", &json!({})).await.unwrap_err();
        let failure = error.downcast_ref::<Failure>().unwrap();
        assert_eq!(failure.what, "ClusterNotFoundException: Cluster not found.");
        assert!(failure.next.contains("--cluster"));

        let (endpoint, _served) = answer_once(response(404, r#"{"error":"nothing is known of x","hint":"look"}"#)).await;
        let error = Client::new(&endpoint).unwrap().get("/api/why", &[("subject", "a b")]).await.unwrap_err();
        let failure = error.downcast_ref::<Failure>().unwrap();
        assert_eq!((failure.what.as_str(), failure.next.as_str()), ("nothing is known of x", "look"));
    }

    #[tokio::test]
    async fn nobody_there_or_somebody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Client::new(&endpoint).unwrap().get("/health", &[]).await.unwrap_err();
        let failure = error.downcast_ref::<Failure>().unwrap();
        assert!(failure.what.starts_with(&format!("nothing answers at {endpoint} (")), "{}", failure.what);
        assert!(failure.next.contains("beaufort up") && failure.next.contains("BEAUFORT_ENDPOINT"));

        let (endpoint, _served) = answer_once(response(200, "<html>")).await;
        let error = Client::new(&endpoint).unwrap().get("/health", &[]).await.unwrap_err();
        assert!(error.to_string().contains("no Beaufort"), "{error}");
    }

    #[tokio::test]
    async fn an_answer_cut_off_is_not_read_as_whole() {
        let (endpoint, _served) = answer_once("HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{}".to_owned()).await;
        let error = Client::new(&endpoint).unwrap().get("/health", &[]).await.unwrap_err();
        assert!(error.to_string().contains("ended early"), "{error}");
    }
}
