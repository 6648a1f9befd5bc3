//! The agents' link: a WebSocket that carries `model::link`'s messages as JSON text frames, one each.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Response;
use tokio::sync::mpsc;
use warp::ws::{Message, WebSocket, Ws};
use warp::{Filter, Reply};

use super::Doors;
use crate::api::same_secret;
use crate::model::link::{FromAgent, ToAgent};

/// The largest frame either side sends.
const MAX_FRAME: usize = 16 << 20;
/// Messages that may wait on either side of a session; senders wait for a place.
const DEPTH: usize = 256;

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
        .and(warp::ws())
        .then(move |given: Option<String>, ws: Ws| {
            let doors = doors.clone();
            async move { Ok::<_, Infallible>(join(doors, given, ws)) }
        })
        .map(|answer: Result<Response<Bytes>, Infallible>| match answer {
            Ok(response) => response,
            Err(never) => match never {},
        })
}

fn join(doors: Arc<Doors>, given: Option<String>, ws: Ws) -> Response<Bytes> {
    let Some(token) = &doors.agents.token else {
        return super::plain(403, "text/plain; charset=utf-8", "this server takes no agents: start it with --agent-token\n");
    };
    if !given.as_deref().and_then(|g| g.strip_prefix("Bearer ")).is_some_and(|given| same_secret(given, token)) {
        return super::plain(
            401,
            "text/plain; charset=utf-8",
            "wrong or missing agent token: give the one of the server's --agent-token\n",
        );
    }
    let response = ws
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME)
        .on_upgrade(move |socket| async move { carry(&doors, socket).await })
        .into_response();
    response.map(|_| Bytes::new())
}

/// Frames to channels and back, until either side ends.
async fn carry(doors: &Doors, socket: WebSocket) {
    let (mut out, mut inward) = socket.split();
    let (to, mut from_session) = mpsc::channel::<ToAgent>(DEPTH);
    let (to_session, from) = mpsc::channel::<FromAgent>(DEPTH);
    (doors.agents.session)(to, from);
    let write = async {
        while let Some(message) = from_session.recv().await {
            let Ok(text) = serde_json::to_string(&message) else { break };
            if out.send(Message::text(text)).await.is_err() {
                break;
            }
        }
        let _ = out.close().await;
    };
    let read = async {
        while let Some(Ok(frame)) = inward.next().await {
            let Ok(text) = frame.to_str() else { if frame.is_close() { break } else { continue } };
            match serde_json::from_str(text) {
                Ok(message) => {
                    if to_session.send(message).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "an agent sent a message that cannot be read; the connection is closed");
                    break;
                }
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
}
