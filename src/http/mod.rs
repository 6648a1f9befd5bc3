//! The one port. warp lives only here: a capped body, a few fixed routes, and everything else to the wire. Handlers never reject.
//!
//! Owns bytes on sockets; knows no operation and decides nothing.

mod link;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use warp::Filter;
use warp::path::FullPath;

use crate::api::{App, native};
use crate::wire::fault::{Fault, SERIALIZATION};
use crate::wire::{MAX_BODY, Wire, too_large};

pub use link::AgentDoor;

/// How much of too large a body we still read and drop. Closing on a client that is still sending resets the connection, and the
/// client sees a broken pipe in place of our refusal.
const MAX_DRAINED: usize = 8 * MAX_BODY;
/// Requests that may be read or answered at the same time over all connections; more wait.
const MAX_IN_FLIGHT: usize = 1_024;
/// Connections that may wait to be accepted. When more come at once than tokio's usual 1,024, the kernel answers with SYN cookies, and
/// resets those whose last packet it had to drop.
const BACKLOG: u32 = 4_096;
/// Between two words on connections that cannot be accepted.
const SAY_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a stop waits for requests that are being answered.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(3);

pub struct Doors {
    pub app: Arc<App>,
    pub wire: Wire<App>,
    /// The Prometheus exposition.
    pub exposition: Box<dyn Fn() -> String + Send + Sync>,
    pub agents: AgentDoor,
}

/// Serves until `stop`, then lets what is being answered finish.
pub async fn serve(listener: TcpListener, doors: Arc<Doors>, stop: CancellationToken) {
    let service = warp::service(routes(doors));
    let mut said: Option<std::time::Instant> = None;
    let (graceful, http) = (GracefulShutdown::new(), auto::Builder::new(TokioExecutor::new()).http1_only());
    loop {
        let (socket, _) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: breathe, then try again.
                    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        said = Some(std::time::Instant::now());
                        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
                        tracing::warn!(
                            %error, limit,
                            "connections cannot be accepted; where that is for want of file descriptors, raise their limit (ulimit -n, \
                             LimitNOFILE=) and start again: each agent takes one"
                        );
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let _ = socket.set_nodelay(true);
        let service = hyper_util::service::TowerToHyperService::new(service.clone());
        let connection = graceful.watch(http.serve_connection_with_upgrades(TokioIo::new(socket), service).into_owned());
        tokio::spawn(async move {
            // A client that goes away in the middle is its own affair.
            let _ = connection.await;
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A start right after an end finds connections of before that linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn routes(doors: Arc<Doors>) -> impl Filter<Extract = (Response<Bytes>,), Error = Infallible> + Clone + Send + Sync + 'static {
    let permits = Arc::new(tokio::sync::Semaphore::new(MAX_IN_FLIGHT));
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let link = link::route(doors.clone());
    let rest =
        warp::method().and(warp::path::full()).and(query).and(warp::header::headers_cloned()).and(warp::body::stream()).then(
            move |method, path, query, headers, body| {
                let (doors, permits) = (doors.clone(), permits.clone());
                async move {
                    let _permit = permits.acquire_owned().await;
                    answer(&doors, method, path, query, headers, body).await
                }
            },
        );
    link.or(rest).unify().or(warp::any().map(|| Response::new(Bytes::new()))).unify()
}

async fn answer(
    doors: &Doors,
    method: Method,
    path: FullPath,
    query: String,
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Response<Bytes> {
    let uri = if query.is_empty() { path.as_str().to_owned() } else { format!("{}?{query}", path.as_str()) };
    let Ok(mut request) = http::Request::builder().method(method).uri(uri).body(()) else {
        return plain(400, "text/plain; charset=utf-8", "the request's path cannot be read\n");
    };
    *request.headers_mut() = headers;
    let head = request.into_parts().0;
    let body = match whole(body).await {
        Ok(body) => body,
        Err(fault) => {
            return match native::unread(&doors.app, head.uri.path(), &fault) {
                Some(answer) => plain(answer.status, answer.content_type, answer.body),
                None => doors.wire.refuse_unread(&head, fault),
            };
        }
    };
    if head.method == Method::GET && head.uri.path() == "/metrics" {
        return plain(200, "text/plain; version=0.0.4; charset=utf-8", (doors.exposition)());
    }
    match native(doors, &head, &body).await {
        Some(answer) => answer,
        None => doors.wire.answer(head, body).await,
    }
}

async fn native(doors: &Doors, head: &Parts, body: &Bytes) -> Option<Response<Bytes>> {
    let request = native::Request {
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or(""),
        authorization: head.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()),
        body,
    };
    let answer = native::answer(&doors.app, request).await?;
    Some(plain(answer.status, answer.content_type, answer.body))
}

fn plain(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

async fn whole(body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Bytes, Fault> {
    let (mut whole, mut seen) = (BytesMut::new(), 0);
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        // Never act on a body that was cut off: half a form is still a form.
        let Ok(chunk) = chunk else { return Err(Fault::new(&SERIALIZATION, "the body ended early")) };
        seen += chunk.remaining();
        if seen <= MAX_BODY {
            whole.put(chunk);
        } else if seen > MAX_DRAINED {
            break;
        }
    }
    if seen > MAX_BODY { Err(too_large()) } else { Ok(whole.freeze()) }
}
