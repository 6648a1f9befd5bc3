//! The open-loop load generator: requests leave when their time has come, whether or not earlier ones were answered, so that an
//! overloaded service looks as bad as it is. A closed loop would slow down with it and report calm.
//!
//! Owns no terminal and no control plane: [`command`] is the program around it, [`resolve`] finds a service's tasks,
//! [`expose`] shows it to Prometheus. Start at [`run`].

pub mod client;
pub mod command;
pub mod expose;
pub mod profile;
pub mod reactions;
pub mod resolve;
pub mod stats;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use profile::Profile;
use stats::{Live, Outcome, Report};

/// Of an answer that much is read; more is a failure.
const MAX_ANSWER: usize = 4 << 20;
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// One place that serves requests. Only plain HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub uri: Uri,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Requests under way at the same time; one that would be more is dropped, and counted as such.
    pub in_flight: usize,
    /// From when a request is due to when its answer must be whole.
    pub timeout: Duration,
    /// How long the end waits for what is in flight.
    pub settle: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { in_flight: 1_000, timeout: Duration::from_secs(10), settle: Duration::from_secs(5) }
    }
}

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// Offers the profile's requests to the targets in turn, whichever there are at the time, until the profile or `stop` ends it.
pub async fn run(
    profile: &Profile,
    targets: watch::Receiver<Vec<Target>>,
    options: &Options,
    live: &Live,
    stop: &CancellationToken,
) -> Report {
    let client = http_client();
    let permits = Arc::new(Semaphore::new(options.in_flight.max(1)));
    let mut under_way = tokio::task::JoinSet::new();
    let start = Instant::now();
    for (turn, arrival) in profile.arrivals().enumerate() {
        let due = start + arrival.at;
        // At most a millisecond late, and never early: what is late follows at once.
        if due > Instant::now() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
        if stop.is_cancelled() {
            break;
        }
        while under_way.try_join_next().is_some() {}
        live.offered(arrival.phase, arrival.at);
        let target = {
            let targets = targets.borrow();
            (!targets.is_empty()).then(|| targets[turn % targets.len()].clone())
        };
        let Some(target) = target else {
            live.ended(arrival.phase, start.elapsed(), due.elapsed(), &Outcome::Refused("no target".to_owned()));
            continue;
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            live.dropped(arrival.phase, start.elapsed());
            continue;
        };
        let (client, live, timeout) = (client.clone(), live.clone(), options.timeout);
        under_way.spawn(async move {
            let outcome = tokio::time::timeout_at(due + timeout, ask(&client, &target)).await;
            let outcome = outcome.unwrap_or_else(|_| Outcome::Failed(format!("no answer within {timeout:?}")));
            live.ended(arrival.phase, start.elapsed(), due.elapsed(), &outcome);
            drop(permit);
        });
        if turn % 64 == 63 {
            // Far behind, nothing above would ever wait, and the answers must be taken too.
            tokio::task::yield_now().await;
        }
    }
    if !stop.is_cancelled() {
        // The last arrival is not the end of a profile that fades out.
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(start + profile.length()) => {}
        }
    }
    let took = start.elapsed();
    if !stop.is_cancelled() {
        let settled = async { while under_way.join_next().await.is_some() {} };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = tokio::time::timeout(options.settle, settled) => {}
        }
    }
    // First the count, then the end of what is still under way.
    let report = live.report(took);
    under_way.abort_all();
    report
}

fn http_client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_WITHIN));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(5)).build(connector)
}

async fn ask(client: &HttpClient, target: &Target) -> Outcome {
    let request = match Request::get(target.uri.clone()).header("user-agent", "beaufort-load").body(Empty::new()) {
        Ok(request) => request,
        Err(_) => return Outcome::Refused("the URL is no request target".to_owned()),
    };
    let response = match client.request(request).await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Outcome::Refused("cannot connect".to_owned()),
        Err(_) => return Outcome::Refused("the connection ended before an answer".to_owned()),
    };
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    match body {
        Err(_) => Outcome::Failed("the answer was cut off or too long".to_owned()),
        Ok(_) if status.is_success() || status.is_redirection() => Outcome::Completed,
        // An error that costs the server nothing would improve its percentiles.
        Ok(_) => Outcome::Refused(format!("status {}", status.as_u16())),
    }
}

#[cfg(test)]
mod tests;
