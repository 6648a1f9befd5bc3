//! The generator against servers that behave and misbehave.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;

use super::*;

/// Serves on loopback: `answer` gives the status after it has waited as long as it likes.
async fn server<F>(answer: impl Fn(u64) -> F + Clone + Send + Sync + 'static) -> Target
where
    F: Future<Output = u16> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (answer, seen) = (answer.clone(), seen.clone());
            let service = hyper::service::service_fn(move |_| {
                let answered = answer(seen.fetch_add(1, Ordering::SeqCst));
                async move {
                    let response = Response::builder().status(answered.await).body(Full::<Bytes>::default()).unwrap();
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    Target { uri }
}

async fn load(text: &str, targets: Vec<Target>, options: Options) -> Report {
    let profile = Profile::parse(text).unwrap();
    let live = Live::new(&profile);
    run(&profile, watch::channel(targets).1, &options, &live, &CancellationToken::new()).await
}

/// Coordinated omission: a server that stands still for a second shows in the percentiles of all who came meanwhile, though each
/// request in itself, had it waited for the one before, would have been quick.
#[tokio::test]
async fn a_stall_is_in_the_percentiles() {
    let begin = Instant::now();
    let stalls = begin + Duration::from_millis(500);
    let free = stalls + Duration::from_millis(1000);
    let target = server(move |_| async move {
        if Instant::now() > stalls {
            tokio::time::sleep_until(free).await;
        }
        200
    })
    .await;
    let report = load("steady 100 2s", vec![target], Options::default()).await;
    assert_eq!((report.total.offered, report.total.completed), (200, 200));
    let latency = report.total.latency.unwrap();
    // A closed loop would have had one slow request in a hundred: its median and its p90 would be those of a calm server.
    assert!(latency.p90_ms > 600.0, "a hundred of two hundred waited up to a second: {latency:?}");
    assert!(latency.max_ms > 900.0 && latency.max_ms < 1_900.0, "{latency:?}");
}

#[tokio::test]
async fn arrivals_do_not_wait_for_answers_and_too_many_are_dropped() {
    let target = server(|_| std::future::pending()).await;
    let options = Options { in_flight: 10, timeout: Duration::from_secs(60), settle: Duration::from_millis(10) };
    let report = load("steady 100 300ms", vec![target], options).await;
    let total = report.total;
    assert_eq!((total.offered, total.completed, total.failed), (30, 0, 0));
    assert_eq!((total.in_flight, total.dropped), (10, 20));
}

#[tokio::test]
async fn failures_are_told_apart() {
    let broken = server(|n| async move { if n % 2 == 0 { 200 } else { 503 } }).await;
    let report = load("steady 200 200ms", vec![broken], Options::default()).await;
    assert_eq!((report.total.completed, report.failures["status 503"]), (20, 20));

    let silent = server(|_| std::future::pending()).await;
    let options = Options { timeout: Duration::from_millis(50), ..Options::default() };
    let report = load("steady 100 100ms", vec![silent], options).await;
    assert_eq!(report.failures["no answer within 50ms"], 10);
    assert!(report.total.latency.unwrap().p50_ms >= 50.0, "a timeout took as long as it took");

    let closed = Target { uri: "http://127.0.0.1:9/".parse().unwrap() };
    let report = load("steady 100 100ms", vec![closed], Options::default()).await;
    assert_eq!((report.failures["cannot connect"], report.total.latency), (10, None));
    assert_eq!(load("steady 100 100ms", vec![], Options::default()).await.failures["no target"], 10);
}

#[tokio::test]
async fn targets_take_turns_and_may_change_and_a_stop_ends_it() {
    let one = server(|_| async { 200 }).await;
    let other = server(|_| async { 404 }).await;
    let profile = Profile::steady(200.0, Duration::from_secs(60)).unwrap();
    let (sender, targets) = watch::channel(vec![one.clone(), other]);
    let (live, stop, options) = (Live::new(&profile), CancellationToken::new(), Options::default());
    let running = run(&profile, targets, &options, &live, &stop);
    let conductor = async {
        let count = |wanted: u64| {
            let live = live.clone();
            async move {
                while live.report(Duration::ZERO).total.completed < wanted {
                    tokio::task::yield_now().await;
                }
            }
        };
        count(10).await;
        let failed = live.report(Duration::ZERO).total.failed;
        assert!((8..=12).contains(&failed), "in turn: {failed} of the other");
        sender.send(vec![one]).unwrap();
        count(40).await;
        stop.cancel();
    };
    let (report, ()) = tokio::join!(running, conductor);
    assert!(report.total.completed >= 40);
    assert!(report.total.failed <= 14, "the other is asked no more: {:?}", report.total);
    assert!(report.seconds < 10.0);
}

#[tokio::test]
async fn the_generator_shows_itself_to_prometheus() {
    let broken = server(|n| async move { if n % 4 == 3 { 503 } else { 200 } }).await;
    let profile = Profile::steady(100.0, Duration::from_millis(400)).unwrap();
    let live = Live::new(&profile);
    let exposition = expose::Exposition::new(live.clone(), profile.clone(), Some(("shop", "web")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(expose::serve(listener, Arc::new(exposition)));
    let get = |path: &'static str| async move {
        let request = Request::get(format!("http://{at}{path}")).body(Empty::<Bytes>::new()).unwrap();
        let response = http_client().request(request).await.unwrap();
        let (status, kind) = (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap().to_owned());
        (status, kind, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    let (status, kind, before) = get("/metrics").await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    // The labels of a histogram come in any order.
    let value = |page: &str, name: &str| {
        let mut lines = page.lines().filter_map(|line| line.strip_prefix(&format!("beaufort_load_{name}{{"))?.split_once("} "));
        let found = lines.find(|(labels, _)| labels.contains("cluster=\"shop\"") && labels.contains("service=\"web\""));
        found.unwrap_or_else(|| panic!("{name} is not in\n{page}")).1.parse::<f64>().unwrap()
    };
    for zero in
        ["offered_total", "completed_total", "failed_total", "dropped_total", "in_flight", "request_duration_seconds_count"]
    {
        assert_eq!(value(&before, zero), 0.0, "{zero}");
    }
    assert_eq!(value(&before, "wanted_rate"), 100.0);
    run(&profile, watch::channel(vec![broken]).1, &Options::default(), &live, &CancellationToken::new()).await;
    let after = get("/metrics").await.2;
    for (name, count) in
        [("offered_total", 40.0), ("completed_total", 30.0), ("failed_total", 10.0), ("request_duration_seconds_count", 30.0)]
    {
        assert_eq!(value(&after, name), count, "{name}");
    }
    assert_eq!(get("/other").await.0, 404);
    serving.abort();
}
