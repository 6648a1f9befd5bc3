//! The agent's end of the link to its control plane: a pair of channels, whatever is behind them. In one process the other end is the
//! control plane itself ([`pair`]); else it is a WebSocket client that connects for ever ([`connect_forever`]).

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, InvalidHeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use crate::frames::{AgentEnd, Frame, MAX_FRAME, Unreadable};
use crate::model::link::{FromAgent, ToAgent};

pub const PATH: &str = "/agent/v1/link";
/// The agent speaks at least this often; the control plane answers pings, so silence means a dead connection.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A server that said no will not say yes a moment later: it is asked rarely, until somebody has put it right.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// What waits here is older than what could be said instead, so little waits.
const CAPACITY: usize = 16;
/// What the socket reads at once.
const READ_BUFFER: usize = 16 << 10;

/// What the runtime holds.
pub struct Link {
    pub to: mpsc::Sender<FromAgent>,
    pub from: mpsc::Receiver<ToAgent>,
    /// The number of the connection, growing; 0 while there is none.
    pub connection: watch::Receiver<u64>,
}

/// What is on the other side of a [`Link`].
pub struct FarEnd {
    pub from: mpsc::Receiver<FromAgent>,
    pub to: mpsc::Sender<ToAgent>,
    pub connection: watch::Sender<u64>,
}

/// A link inside one process, connected from the start.
pub fn pair(capacity: usize) -> (Link, FarEnd) {
    let (to_control, from_agent) = mpsc::channel(capacity);
    let (to_agent, from_control) = mpsc::channel(capacity);
    let (connection, connected) = watch::channel(1);
    (Link { to: to_control, from: from_control, connection: connected }, FarEnd { from: from_agent, to: to_agent, connection })
}

#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    Socket(#[from] Box<tungstenite::Error>),
    #[error("the token cannot be sent in a header")]
    Token(#[from] InvalidHeaderValue),
    /// Somebody answered, and no: their own words say why and what to do.
    #[error("{0}")]
    Turned(String),
    /// The server does not want this agent.
    #[error("{0}")]
    Refused(String),
    #[error("no answer within {}s", CONNECT.as_secs())]
    NoAnswer,
    #[error("silent for {}s", SILENCE.as_secs())]
    Silent,
    #[error("closed by the control plane{0}")]
    Closed(String),
    #[error("what the control plane sent could not be read: {0}")]
    Garbled(#[from] Unreadable),
    #[error("a message could not be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

impl From<tungstenite::Error> for Broken {
    fn from(error: tungstenite::Error) -> Broken {
        match error {
            tungstenite::Error::Http(answer) => {
                let words = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                let said = format!("refused with {}: {}", answer.status(), words.trim().chars().take(300).collect::<String>());
                match answer.status().as_u16() {
                    401 | 403 => Broken::Refused(said),
                    _ => Broken::Turned(said),
                }
            }
            other => Broken::Socket(Box::new(other)),
        }
    }
}

impl Broken {
    /// The server is there and does not want us: the token is wrong, most likely.
    fn is_refusal(&self) -> bool {
        matches!(self, Broken::Refused(_) | Broken::Token(_))
    }
}

/// Gives numbers to spread reconnections by, so that a thousand agents do not return at once.
pub type Numbers = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Connects to `url` (`http://HOST:PORT` or `ws://HOST:PORT`) and again whenever the connection breaks, until `shutdown`.
pub fn connect_forever(url: &str, token: &str, numbers: Numbers, shutdown: CancellationToken) -> Link {
    let (link, far) = pair(CAPACITY);
    far.connection.send_replace(0);
    let url = address(url);
    let token = token.to_owned();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = keep_connected(&url, &token, numbers, far) => {}
        }
    });
    link
}

/// `https` and `wss` stay what they are: the socket refuses them by name rather than that a token goes out in the clear.
fn address(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some(("https" | "wss", rest)) => ("wss", rest),
        Some((_, rest)) => ("ws", rest),
        None => ("ws", url),
    };
    let host = rest.trim_end_matches('/');
    format!("{scheme}://{}{PATH}", host.strip_suffix(PATH).unwrap_or(host))
}

/// Returns when the runtime is gone.
async fn keep_connected(url: &str, token: &str, numbers: Numbers, mut far: FarEnd) {
    let mut connections = 0;
    let mut failures = 0;
    while !far.to.is_closed() {
        let why = match connect(url, token).await {
            Ok(socket) => {
                let since = Instant::now();
                connections += 1;
                tracing::info!(url, connections, "connected to the control plane");
                far.connection.send_replace(connections);
                let why = converse(socket, &mut far).await;
                far.connection.send_replace(0);
                // One that is closed at once is a failure like one that is not made.
                if since.elapsed() >= SILENCE {
                    failures = 0;
                }
                why
            }
            Err(why) => Err(why),
        };
        let Err(why) = why else { return };
        let wait = if why.is_refusal() { spread(REFUSED_WAIT, numbers()) } else { wait_after(failures, numbers()) };
        failures += 1;
        if why.is_refusal() {
            tracing::error!(
                url, %why, wait_ms = wait.as_millis() as u64,
                "the control plane refuses this agent; tasks go on, and it is asked again now and then: start the agent anew with the \
                 right token"
            );
        } else {
            tracing::warn!(url, %why, wait_ms = wait.as_millis() as u64, "no connection to the control plane; tasks go on");
        }
        // Nobody reads while there is no connection; what was said to the last one is not for the next.
        let _ = tokio::time::timeout(wait, discard(&mut far.from)).await;
    }
}

/// Doubling, up to a bound.
fn wait_after(failures: u32, number: u64) -> Duration {
    spread(FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT), number)
}

/// Between half of it and the whole.
fn spread(whole: Duration, number: u64) -> Duration {
    whole / 2 + whole.mul_f64((number % 1_000) as f64 / 2_000.0)
}

async fn discard(from: &mut mpsc::Receiver<FromAgent>) {
    while from.recv().await.is_some() {}
    // The runtime is gone: the caller finds out by itself.
    std::future::pending::<()>().await;
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(url: &str, token: &str) -> Result<Socket, Broken> {
    let mut request = url.into_client_request()?;
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    let connecting = tokio_tungstenite::connect_async_with_config(request, Some(limits), true);
    let (socket, _) = tokio::time::timeout(CONNECT, connecting).await.map_err(|_| Broken::NoAnswer)??;
    Ok(socket)
}

/// Moves messages both ways until the connection breaks (the error) or the runtime is gone (Ok).
async fn converse(socket: Socket, far: &mut FarEnd) -> Result<(), Broken> {
    let (mut out, mut inward) = socket.split();
    let mut end = AgentEnd::default();
    let mut introduced = false;
    let mut heard = Instant::now();
    let mut ping = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            message = far.from.recv() => {
                let Some(message) = message else { return Ok(()) };
                // What is left from an earlier connection must not go before this one's Hello.
                introduced |= matches!(message, FromAgent::Hello(_));
                if introduced {
                    let frame = match end.frame(&message)? {
                        Frame::Text(text) => Message::Text(text.into()),
                        Frame::Binary(bytes) => Message::Binary(bytes.into()),
                    };
                    let sending = out.send(frame);
                    tokio::time::timeout(SILENCE, sending).await.map_err(|_| Broken::Silent)??;
                }
            }
            frame = inward.next() => {
                heard = Instant::now();
                match frame.ok_or_else(|| Broken::Closed(String::new()))?? {
                    Message::Text(text) => {
                        let message = end.read(text.as_str())?;
                        if far.to.send(message).await.is_err() {
                            return Ok(());
                        }
                    }
                    Message::Close(why) => {
                        let why = why.map(|frame| format!(": {}", frame.reason)).filter(|why| why.len() > 2);
                        return Err(Broken::Closed(why.unwrap_or_default()));
                    }
                    _ => {}
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() >= SILENCE {
                    return Err(Broken::Silent);
                }
                let sending = out.send(Message::Ping(Default::default()));
                tokio::time::timeout(SILENCE, sending).await.map_err(|_| Broken::Silent)??;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use tokio::net::TcpListener;

    #[test]
    fn addresses_and_waits() {
        for url in ["http://h:1", "http://h:1/", "ws://h:1", "h:1", "ws://h:1/agent/v1/link"] {
            assert_eq!(address(url), "ws://h:1/agent/v1/link");
        }
        assert_eq!(address("https://h:1"), "wss://h:1/agent/v1/link");
        assert_eq!(wait_after(0, 0), FIRST_WAIT / 2);
        assert!(wait_after(3, 999) <= FIRST_WAIT * 8 && wait_after(3, 999) > FIRST_WAIT * 7);
        assert!(wait_after(60, 999) <= LONGEST_WAIT);
        assert!(Broken::Refused("refused with 401".into()).is_refusal() && !Broken::Turned("with 503".into()).is_refusal());
    }

    fn heartbeat(at: i64) -> FromAgent {
        FromAgent::Heartbeat { at: Timestamp(at), engine_up: true, generation: None }
    }

    fn hello() -> FromAgent {
        FromAgent::Hello(Box::new(crate::model::link::Hello {
            link_version: 1,
            link_newest: 2,
            process: String::new(),
            instance: None,
            cluster: "c".into(),
            agent_version: String::new(),
            docker_version: String::new(),
            host_name: String::new(),
            host_address: String::new(),
            registered: Default::default(),
            reserved_tcp_ports: vec![],
            attributes: Default::default(),
            at: Timestamp(0),
        }))
    }

    async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
        tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap()
    }

    async fn read(socket: &mut WebSocketStream<TcpStream>) -> FromAgent {
        loop {
            if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
                return serde_json::from_str(text.as_str()).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn each_connection_begins_with_hello_and_a_broken_one_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let mut link = connect_forever(&url, "secret", Arc::new(|| 0), shutdown.clone());
        for round in 1..3 {
            let mut socket = accept(&listener).await;
            link.connection.wait_for(|n| *n == round).await.unwrap();
            link.to.send(heartbeat(1)).await.unwrap();
            link.to.send(hello()).await.unwrap();
            link.to.send(heartbeat(2)).await.unwrap();
            assert!(matches!(read(&mut socket).await, FromAgent::Hello(_)));
            assert!(matches!(read(&mut socket).await, FromAgent::Heartbeat { at: Timestamp(2), .. }));
            let answer = serde_json::to_string(&ToAgent::LinesStored(vec![])).unwrap();
            socket.send(Message::Text(answer.into())).await.unwrap();
            assert!(matches!(link.from.recv().await, Some(ToAgent::LinesStored(_))));
            drop(socket);
            link.connection.wait_for(|n| *n != round).await.unwrap();
        }
        shutdown.cancel();
        assert!(link.from.recv().await.is_none());
    }
}
