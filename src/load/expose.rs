//! The generator's own metrics over HTTP (`--metrics-listen`), so that what was offered stands beside what was served.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::profile::Profile;
use super::stats::Live;
use crate::export::families::{Kind, Page, labels};

/// Prometheus needs one; who opens more waits.
const MAX_CONNECTIONS: usize = 16;

pub struct Exposition {
    live: Live,
    profile: Profile,
    began: Instant,
    /// `cluster` and `service` of a service that is asked; none for plain URLs.
    labels: String,
    durations: Registry,
}

impl Exposition {
    /// Of a load that begins now.
    pub fn new(live: Live, profile: Profile, service: Option<(&str, &str)>) -> Exposition {
        let pairs =
            service.map_or([("cluster", ""), ("service", "")], |(cluster, name)| [("cluster", cluster), ("service", name)]);
        let constant = service.is_some().then(|| pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let durations = Registry::new_custom(None, constant).unwrap_or_default();
        // Refused only for a name that is there already, and the registry is new.
        let _ = durations.register(Box::new(live.durations()));
        Exposition { live, profile, began: Instant::now(), labels: labels(pairs), durations }
    }

    pub fn render(&self) -> String {
        let at = self.began.elapsed();
        let total = self.live.report(at).total;
        let mut page = Page::default();
        let mut one = |name: &str, kind: Kind, help: &str, value: f64| page.family(name, kind, help, [(&self.labels, value)]);
        let count = |n: u64| n as f64;
        one("beaufort_load_offered_total", Kind::Counter, "Requests that were due.", count(total.offered));
        one("beaufort_load_completed_total", Kind::Counter, "Requests answered with success.", count(total.completed));
        one(
            "beaufort_load_failed_total",
            Kind::Counter,
            "Requests refused, failed or not answered in time.",
            count(total.failed),
        );
        one("beaufort_load_dropped_total", Kind::Counter, "Requests not sent: too many were in flight.", count(total.dropped));
        one("beaufort_load_in_flight", Kind::Gauge, "Requests without an answer yet.", count(total.in_flight));
        one("beaufort_load_wanted_rate", Kind::Gauge, "Requests a second that the profile asks for now.", self.profile.rate(at));
        let mut durations = Vec::new();
        // Fails only on a metric without samples, which is then left out.
        let _ = TextEncoder::new().encode(&self.durations.gather(), &mut durations);
        page.text.push_str(&String::from_utf8_lossy(&durations));
        page.text
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, exposition: Arc<Exposition>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next(), if connections.len() >= MAX_CONNECTIONS => continue,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, most likely: some are about to be freed.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let exposition = exposition.clone();
        let service = hyper::service::service_fn(move |request| {
            let answer = route(&exposition, &request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
        connections.spawn(builder.serve_connection(TokioIo::new(socket), service));
    }
}

fn route<B>(exposition: &Exposition, request: &Request<B>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", exposition.render()),
        (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "served here: /metrics, /healthz\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
