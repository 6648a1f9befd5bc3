//! `beaufort web`: a sample service to scale. Each request burns a known amount of CPU, so that load becomes utilization.
//!
//! Owns its knobs, its own Prometheus metrics, its spans and its log lines; knows nothing of Beaufort. Start reading at [`serve`].

mod knobs;
mod metrics;
mod work;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Args as ClapArgs;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use knobs::Knobs;

use crate::observe;
use knobs::{MAX_CONCURRENCY, Panel};
use metrics::Metrics;

/// Requests that may wait for their turn at the CPU; more are told 503 at once.
const MAX_WAITING: usize = 4_096;
const MAX_CONNECTIONS: usize = 8_192;
const FINISH_WITHIN: Duration = Duration::from_secs(10);
/// A line is logged for so many requests.
const LOG_EVERY: u64 = 100;

const EXAMPLES: &str = "\
Examples:
  beaufort web                                          2 ms of CPU for each request, on port 8080
  beaufort web --port 9000 --cpu-ms 10 --error-rate 0.05
  WEB_CPU_MS=5 WEB_LATENCY_MS=20 beaufort web           as in a task definition's environment

Serves / (the work), /healthz, /metrics and /knobs: POST /knobs?cpu_ms=20&error_rate=0.1 turns them while it runs (cpu_ms,
latency_ms, error_rate, memory_mib, concurrency). With OTEL_EXPORTER_OTLP_ENDPOINT set it sends a span for one request in a hundred,
or for the share in OTEL_TRACES_SAMPLER_ARG, and for every request whose traceparent says so.";

/// A sample service with a tunable appetite
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[arg(long, env = "WEB_PORT", default_value_t = 8080)]
    pub port: u16,
    /// CPU time that each request burns
    #[arg(long, env = "WEB_CPU_MS", default_value_t = 2.0, value_parser = milliseconds)]
    pub cpu_ms: f64,
    /// Time that each request waits besides
    #[arg(long, env = "WEB_LATENCY_MS", default_value_t = 0.0, value_parser = milliseconds)]
    pub latency_ms: f64,
    /// Share of requests that are answered with 500, from 0 to 1
    #[arg(long, env = "WEB_ERROR_RATE", default_value_t = 0.0, value_parser = share)]
    pub error_rate: f64,
    /// Memory that is held
    #[arg(long, env = "WEB_MEMORY_MIB", default_value_t = 0)]
    pub memory_mib: usize,
    /// Requests that are worked on at the same time; others wait [default: the number of CPUs]
    #[arg(long, env = "WEB_CONCURRENCY")]
    pub concurrency: Option<usize>,
    /// How long requests are still taken after SIGTERM, until those who send them know
    #[arg(long, env = "WEB_DRAIN_MS", default_value_t = 1_000.0, value_parser = milliseconds)]
    pub drain_ms: f64,
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text} is no number of milliseconds"))?;
    if (0.0..=60_000.0).contains(&number) { Ok(number) } else { Err("it is 0 to 60000 milliseconds".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text} is no share"))?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("it is 0 to 1".to_owned()) }
}

struct Web {
    panel: Panel,
    metrics: Metrics,
    waiting: AtomicUsize,
    served: AtomicU64,
    errors: AtomicU64,
    stopping: CancellationToken,
}

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let concurrency =
        args.concurrency.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())).clamp(1, MAX_CONCURRENCY);
    let of = |ms: f64| Duration::from_secs_f64(ms / 1e3);
    let knobs = Knobs {
        cpu: of(args.cpu_ms),
        latency: of(args.latency_ms),
        error_rate: args.error_rate,
        concurrency,
        drain: of(args.drain_ms),
    };
    let held = work::hold(args.memory_mib).context("so much memory cannot be had; choose a smaller --memory-mib")?;
    let address = SocketAddr::from(([0, 0, 0, 0], args.port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("port {} cannot be listened on", args.port))?;
    println!("listening on {address}: {knobs:?}, holding {} MiB", held.len() >> 20);
    let traces =
        observe::otlp::init_spans("beaufort-web").context("the spans for OTEL_EXPORTER_OTLP_ENDPOINT cannot be set up")?;
    let stop = CancellationToken::new();
    tokio::spawn(on_signal(stop.clone())?);
    let served = serve(listener, knobs, held, stop).await;
    if let Some(traces) = traces {
        // A collector that is away now has had its chances.
        let _ = tokio::task::spawn_blocking(|| traces.shutdown()).await;
    }
    println!("ended after {served} requests");
    Ok(())
}

/// PID 1 has no default action for signals, so they are waited for.
fn on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => println!("SIGTERM: finishing what is under way"),
            _ = interrupt.recv() => println!("interrupted: finishing what is under way"),
        }
        stop.cancel();
    })
}

/// Serves until `stop`, then takes requests for [`Knobs::drain`] longer and finishes what it has. Returns how many it worked on.
/// `held` is the memory to begin with.
pub async fn serve(listener: TcpListener, knobs: Knobs, held: Vec<u8>, stop: CancellationToken) -> u64 {
    let drain = knobs.drain;
    let web = Arc::new(Web {
        panel: Panel::new(knobs, held),
        metrics: Metrics::new(),
        waiting: AtomicUsize::new(0),
        served: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        stopping: stop.clone(),
    });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let ended = async {
        stop.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    let mut ended = std::pin::pin!(ended);
    loop {
        let accepted = tokio::select! {
            () = &mut ended => break,
            Some(_) = connections.join_next(), if connections.len() >= MAX_CONNECTIONS => continue,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, most likely: some are about to be freed.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let web = web.clone();
        let service = hyper::service::service_fn(move |request| {
            let web = web.clone();
            async move { Ok::<_, Infallible>(route(&web, &request).await) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        // A client that opens a connection and says nothing does not keep it for ever.
        builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
        connections.spawn(graceful.watch(builder.serve_connection(TokioIo::new(socket), service)));
    }
    drop(listener);
    let _ = tokio::time::timeout(FINISH_WITHIN, graceful.shutdown()).await;
    web.served.load(Ordering::Relaxed)
}

async fn route<B>(web: &Arc<Web>, request: &Request<B>) -> Response<Full<Bytes>> {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::POST, "/") => {
            let span = observe::request_span(request.method().as_str(), "/", request.headers());
            let response = answer(web).instrument(span.clone()).await;
            observe::request_answered(&span, response.status().as_u16());
            response
        }
        (&Method::GET, "/knobs") => text(StatusCode::OK, web.panel.show()),
        (&Method::POST, "/knobs") => turn(web, request.uri().query().unwrap_or_default()).await,
        (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/metrics") => {
            let mut response = text(StatusCode::OK, web.metrics.render());
            response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; version=0.0.4"));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "served here: /, /healthz, /metrics, /knobs\n"),
    };
    if web.stopping.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

/// Memory is touched page by page, which takes its time.
async fn turn(web: &Arc<Web>, query: &str) -> Response<Full<Bytes>> {
    let (inner, query) = (web.clone(), query.to_owned());
    match tokio::task::spawn_blocking(move || inner.panel.turn(&query)).await {
        Ok(Ok(())) => {
            println!("knobs turned: {}", web.panel.show().trim_end());
            text(StatusCode::OK, web.panel.show())
        }
        Ok(Err(why)) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the knobs could not be turned\n"),
    }
}

async fn answer(web: &Arc<Web>) -> Response<Full<Bytes>> {
    let began = Instant::now();
    let _in_flight = web.metrics.begin();
    let status = worked(web).await;
    web.metrics.end(status.as_u16(), began.elapsed());
    let served = web.served.fetch_add(1, Ordering::Relaxed) + 1;
    if !status.is_success() {
        web.errors.fetch_add(1, Ordering::Relaxed);
    }
    if served.is_multiple_of(LOG_EVERY) {
        println!(
            "requests={served} errors={} in_flight={} last_ms={}",
            web.errors.load(Ordering::Relaxed),
            web.metrics.in_flight(),
            began.elapsed().as_millis()
        );
    }
    match status {
        StatusCode::OK => text(status, "done\n"),
        StatusCode::SERVICE_UNAVAILABLE => text(status, "too many are waiting\n"),
        _ => text(status, "an error, as asked for with the error rate\n"),
    }
}

/// Waits for a turn, burns, waits.
async fn worked(web: &Arc<Web>) -> StatusCode {
    if web.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
        web.waiting.fetch_sub(1, Ordering::Relaxed);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    // Counted down also when the client goes away and this future is dropped.
    let waiting = Waiting(&web.waiting);
    let (knobs, turns) = web.panel.now();
    let turn = turns.acquire().instrument(tracing::info_span!("wait for a turn")).await;
    drop(waiting);
    if !knobs.cpu.is_zero() {
        let burnt = tokio::task::spawn_blocking(move || work::burn(knobs.cpu));
        if burnt.instrument(tracing::info_span!("burn")).await.is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    if !knobs.latency.is_zero() {
        tokio::time::sleep(knobs.latency).instrument(tracing::info_span!("sleep")).await;
    }
    drop(turn);
    let nth = web.metrics.count();
    if work::is_error(nth, knobs.error_rate) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests;
