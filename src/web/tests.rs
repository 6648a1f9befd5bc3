//! The sample service asked over HTTP.

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nix::time::{ClockId, clock_gettime};

use super::*;

fn knobs() -> Knobs {
    Knobs { cpu: Duration::ZERO, latency: Duration::ZERO, error_rate: 0.0, concurrency: 2, drain: Duration::ZERO }
}

struct Served {
    client: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<u64>,
}

async fn served(knobs: Knobs) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, knobs, Vec::new(), stop.clone()));
    Served { client: Client::builder(TokioExecutor::new()).build_http(), base, stop, serving }
}

impl Served {
    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(Method::GET, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base)).body(Empty::new()).unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn requests_burn_what_they_should_and_are_counted() {
    let process = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    let web = served(Knobs { cpu: Duration::from_millis(20), error_rate: 0.5, ..knobs() }).await;
    let before = process();
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(web.get("/").await.0);
    }
    assert!(process() - before >= Duration::from_millis(80), "four times 20 ms of CPU");
    assert_eq!(codes, [200, 500, 200, 500]);
    let (status, metrics) = web.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "app_requests_total{code=\"200\"} 2",
        "app_requests_total{code=\"500\"} 2",
        "app_requests_total{code=\"503\"} 0",
        "app_request_duration_seconds_count 4",
        "app_request_duration_seconds_bucket{le=\"0.01\"} 0",
        "app_in_flight 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn latency_and_concurrency_hold() {
    let web = served(Knobs { latency: Duration::from_millis(60), concurrency: 1, ..knobs() }).await;
    let began = Instant::now();
    let answers = tokio::join!(web.get("/"), web.get("/"), web.get("/"));
    assert_eq!([answers.0.0, answers.1.0, answers.2.0], [200; 3]);
    assert!(began.elapsed() >= Duration::from_millis(180), "one after the other");
    assert_eq!(web.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(web.get("/other").await.0, 404);
}

#[tokio::test]
async fn knobs_turn_while_it_serves() {
    let web = served(knobs()).await;
    assert_eq!(web.get("/").await.0, 200);
    let (status, said) = web.ask(Method::POST, "/knobs?error_rate=1&latency_ms=60&memory_mib=2").await;
    assert_eq!((status, said), (200, web.get("/knobs").await.1));
    let began = Instant::now();
    assert_eq!(web.get("/").await.0, 500);
    assert!(began.elapsed() >= Duration::from_millis(60));
    let (status, why) = web.ask(Method::POST, "/knobs?error_rate=0&cpu_ms=x").await;
    assert!(status == 400 && why.contains("cpu_ms=x"), "{why}");
    assert_eq!(web.get("/").await.0, 500, "nothing of it was taken");
    web.ask(Method::POST, "/knobs?error_rate=0&latency_ms=80&concurrency=1").await;
    let began = Instant::now();
    assert_eq!(tokio::join!(web.get("/"), web.get("/")), ((200, "done\n".to_owned()), (200, "done\n".to_owned())));
    assert!(began.elapsed() >= Duration::from_millis(160), "one after the other");
    assert_eq!(web.ask(Method::PUT, "/knobs?cpu_ms=1").await.0, 404);
}

#[tokio::test]
async fn a_stop_takes_what_still_comes_and_finishes_what_it_has() {
    let web = served(Knobs { latency: Duration::from_millis(100), drain: Duration::from_millis(300), ..knobs() }).await;
    let (first, ()) = tokio::join!(web.get("/"), async { web.stop.cancel() });
    assert_eq!(first.0, 200);
    assert_eq!(web.get("/").await.0, 200, "who does not know yet is still served");
    assert_eq!(web.serving.await.unwrap(), 2);
}

#[test]
fn knobs_are_checked() {
    assert_eq!(milliseconds("2.5"), Ok(2.5));
    assert!(milliseconds("-1").is_err() && milliseconds("x").is_err() && milliseconds("60001").is_err());
    assert_eq!(share("0.25"), Ok(0.25));
    assert!(share("1.1").is_err() && share("NaN").is_err());
}
