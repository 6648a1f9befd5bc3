//! The agents' link: a WebSocket that carries `model::link`'s messages in the frames of [`crate::frames`].
//!
//! The handshake is made here and not by warp, whose sockets hold, and clear at every read, a buffer of 128 KiB each: five thousand
//! agents would cost more by that than by all they say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Response;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use warp::Filter;

use super::Doors;
use crate::api::same_secret;
use crate::frames::{Frame, MAX_FRAME, ServerEnd};
use crate::model::link::{FromAgent, ToAgent};
use crate::observe::{self, Turned};

/// Messages that may wait on either side of a session; senders wait for a place, and behind them the agent.
const DEPTH: usize = 16;
/// What a socket reads at once; most frames are smaller.
const READ_BUFFER: usize = 4 << 10;
/// For the last words to a peer that may not read them.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// The longest reason that a closing frame can say.
const LONGEST_REASON: usize = 123;

type Session = Box<dyn Fn(mpsc::Sender<ToAgent>, mpsc::Receiver<FromAgent>) + Send + Sync>;

/// What lets an agent in: its token, and who talks to it then.
pub struct AgentDoor {
    /// None: no agent may join from outside.
    pub token: Option<String>,
    pub session: Session,
}

pub(super) fn route(
    doors: Arc<Doors>,
) -> impl Filter<Extract = (Response<Bytes>,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    warp::path!("agent" / "v1" / "link")
        .and(warp::header::optional::<String>("authorization"))
        .and(warp::header::exact_ignore_case("upgrade", "websocket"))
        .and(warp::header::exact("sec-websocket-version", "13"))
        .and(warp::header::<String>("sec-websocket-key"))
        .and(warp::ext::get::<OnUpgrade>())
        .then(move |given: Option<String>, key: String, upgrade: OnUpgrade| {
            let doors = doors.clone();
            async move { Ok::<_, Infallible>(join(doors, given, &key, upgrade)) }
        })
        .map(|answer: Result<Response<Bytes>, Infallible>| match answer {
            Ok(response) => response,
            Err(never) => match never {},
        })
}

fn join(doors: Arc<Doors>, given: Option<String>, key: &str, upgrade: OnUpgrade) -> Response<Bytes> {
    let Some(token) = &doors.agents.token else {
        return super::plain(403, "text/plain; charset=utf-8", "this server takes no agents: start it with --agent-token\n");
    };
    if !given.as_deref().and_then(|g| g.strip_prefix("Bearer ")).is_some_and(|given| same_secret(given, token)) {
        observe::agent_turned_away(Turned::Token);
        return super::plain(
            401,
            "text/plain; charset=utf-8",
            "wrong or missing agent token: give the one of the server's --agent-token\n",
        );
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, http::HeaderValue::from_static("websocket"));
    let Ok(accept) = http::HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return super::plain(400, "text/plain; charset=utf-8", "Sec-WebSocket-Key cannot be read\n");
    };
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    tokio::spawn(async move {
        // One that goes away before it is upgraded is its own affair.
        let Ok(upgraded) = upgrade.await else { return };
        let limits = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
        carry(&doors, socket).await;
    });
    response
}

/// Frames to channels and back, until either side ends.
async fn carry(doors: &Doors, socket: WebSocketStream<TokioIo<Upgraded>>) {
    let (mut out, mut inward) = socket.split();
    let (to, mut from_session) = mpsc::channel::<ToAgent>(DEPTH);
    let (to_session, from) = mpsc::channel::<FromAgent>(DEPTH);
    (doors.agents.session)(to, from);
    let mut end = ServerEnd::default();
    let ended: Option<CloseFrame> = {
        let write = async {
            let mut end = ServerEnd::default();
            while let Some(message) = from_session.recv().await {
                let frame = match end.frame(&message) {
                    Ok(Frame::Text(text)) => Message::Text(text.into()),
                    Ok(Frame::Binary(bytes)) => Message::Binary(bytes.into()),
                    Err(error) => {
                        tracing::error!(%error, "a message to an agent could not be written");
                        break;
                    }
                };
                if out.send(frame).await.is_err() {
                    break;
                }
            }
        };
        let read = async {
            loop {
                let read = match inward.next().await {
                    Some(Ok(Message::Text(text))) => end.read_text(text.as_str()),
                    Some(Ok(Message::Binary(bytes))) => end.read_binary(&bytes),
                    Some(Ok(Message::Close(_))) | None => return None,
                    Some(Ok(_)) => continue,
                    Some(Err(tungstenite::Error::Capacity(error))) => {
                        observe::agent_turned_away(Turned::Oversized);
                        return Some(closing(CloseCode::Size, &format!("a message is too large: {error}")));
                    }
                    Some(Err(_)) => return None,
                };
                match read {
                    Ok(message) => {
                        if to_session.send(message).await.is_err() {
                            return None;
                        }
                    }
                    Err(error) => {
                        observe::agent_turned_away(Turned::Unreadable);
                        return Some(closing(CloseCode::Invalid, &format!("a frame cannot be read: {error}")));
                    }
                }
            }
        };
        // A peer that neither reads nor speaks keeps nothing once its session is over.
        let over = async {
            to_session.closed().await;
            tokio::time::sleep(CLOSE_WITHIN).await;
        };
        tokio::select! {
            () = write => None,
            ended = read => ended,
            () = over => None,
        }
    };
    if let Some(why) = &ended {
        tracing::warn!(why = %why.reason, "the connection of an agent is closed for what it sent; it will connect anew");
    }
    let _ = tokio::time::timeout(CLOSE_WITHIN, out.send(Message::Close(ended))).await;
}

fn closing(code: CloseCode, why: &str) -> CloseFrame {
    let end = (0..=why.len().min(LONGEST_REASON)).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
    CloseFrame { code, reason: why[..end].to_owned().into() }
}
