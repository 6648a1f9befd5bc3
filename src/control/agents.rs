//! Where agents come in: registers them, tells each what to run, takes in what they report. One session per connection; the same
//! code for the agent in this process and for those behind a WebSocket.
//!
//! Start reading at [`Hub::serve`]; [`dispatch`] tells sessions of commits, [`session`] is one connection, [`clock`] puts right what
//! an agent's clock gets wrong.

mod clock;
mod dispatch;
mod reports;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::dispatch::Seat;
use self::session::Session;
use super::Control;
use crate::model::InstanceId;
use crate::model::instance::{Instance, InstanceStatus};
use crate::model::link::{FromAgent, Hello, ToAgent};
use crate::observe::{self, Turned};
use crate::store::{self, Tx};

/// A connection that says nothing is no agent's.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Agents that register, or are taken off, at the same time: together they fill a commit, and an API call waits behind no more of
/// them when thousands return at once.
const AT_ONCE: usize = 128;
/// An agent with an identity that is in use is refused when the one that uses it speaks during this time: longer than the time
/// between two heartbeats.
const RIVAL_SPEAKS_WITHIN: Duration = Duration::from_secs(6);
/// Between a disconnection that could not be stored and the next try.
const NOTE_AGAIN: Duration = Duration::from_secs(1);
/// What it said before may still have been under way.
const UNDER_WAY: Duration = Duration::from_millis(500);

pub struct Hub {
    control: Arc<Control>,
    /// The newest session of each instance; an older one of the same instance is ended.
    sessions: Mutex<BTreeMap<InstanceId, Arc<Seat>>>,
    admission: Semaphore,
    stop: CancellationToken,
}

impl Hub {
    pub fn new(control: Arc<Control>, stop: CancellationToken) -> Arc<Hub> {
        Arc::new(Hub { control, sessions: Mutex::default(), admission: Semaphore::new(AT_ONCE), stop })
    }

    /// After a start nobody is connected yet, whatever the state says.
    pub async fn forget_connections(&self) -> Result<(), store::Error> {
        self.control
            .store
            .update("start", |tx| {
                let connected: Vec<Instance> =
                    tx.state().instances.values().filter(|i| i.agent_connected).map(|i| (**i).clone()).collect();
                for instance in connected {
                    tx.put(Instance { agent_connected: false, disconnected_at: Some(tx.now), ..instance });
                }
                Ok(())
            })
            .await
    }

    pub fn connected(&self) -> usize {
        self.lock().len()
    }

    /// One connection, from Hello to its end.
    pub async fn serve(self: &Arc<Self>, to: mpsc::Sender<ToAgent>, from: &mut mpsc::Receiver<FromAgent>) {
        // No refusal, which would be for good: an agent whose engine does not answer yet has nothing to say of itself.
        let Ok(Some(hello)) = tokio::time::timeout(HELLO_WITHIN, hello(from)).await else {
            observe::agent_turned_away(Turned::NoHello);
            return tracing::debug!("a connection is closed on which no Hello came");
        };
        let (arrived, said_at, process, host) =
            (self.control.clock.now(), hello.at, hello.process.clone(), hello.host_name.clone());
        let agreed = match (hello.common_version(), self.rival(&hello).await) {
            (Err(why), _) => Err((Turned::Version, why)),
            (_, Some(why)) => Err((Turned::Rival, why)),
            (Ok(version), None) => Ok(version),
        };
        let admission = self.admission.acquire().await;
        let id = hello.instance.clone().unwrap_or_else(|| self.control.ids.instance());
        let refuse = async |turned, why: String| {
            observe::agent_turned_away(turned);
            tracing::warn!(host, why, "an agent is refused");
            drop(to.send(ToAgent::Refused { why }).await);
        };
        let version = match agreed {
            Ok(version) => version,
            Err((turned, why)) => return refuse(turned, why).await,
        };
        // Before it is registered: the end of an older session must not make it seem disconnected.
        let seat = Arc::new(Seat::new(&process, &host, self.stop.child_token()));
        if let Some(older) = self.lock().insert(id.clone(), seat.clone()) {
            older.over.cancel();
        }
        let instance = match self.register(id.clone(), *hello).await {
            Ok(Ok(instance)) => instance,
            Ok(Err(why)) => {
                drop(admission);
                self.leave(&id, &seat).await;
                return refuse(Turned::Registration, why).await;
            }
            // No refusal either: the agent is right, and it tries again until there is room on our disk.
            Err(error) => {
                drop(admission);
                self.leave(&id, &seat).await;
                return tracing::warn!(%error, "an agent could not be registered; it tries again");
            }
        };
        tracing::info!(instance = %id, host, cluster = %instance.cluster, version, "container instance connected");
        let mut session = Session::new(self.clone(), seat.clone(), instance, to);
        let conversation = async {
            let begun = session.begin(version, said_at, arrived).await;
            drop(admission);
            if begun {
                session.run(from).await;
            }
        };
        tokio::select! {
            biased;
            () = seat.over.cancelled() => {}
            () = conversation => {}
        }
        self.leave(&id, &seat).await;
    }

    /// When a newer session of the same instance has taken over, it is still connected.
    async fn leave(self: &Arc<Self>, id: &InstanceId, seat: &Arc<Seat>) {
        let mine = {
            let mut sessions = self.lock();
            let mine = sessions.get(id).is_some_and(|known| Arc::ptr_eq(known, seat));
            if mine {
                sessions.remove(id);
            }
            mine
        };
        if mine {
            self.disconnected(id.clone()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<Seat>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.control.settings.agent_silence_ms as u64)
    }

    /// Two agents with one identity, as after a data directory was copied, would take the instance from each other for ever, and
    /// each would remove the other's containers. Some: another process uses this one's identity, as it still speaks. An agent that
    /// was started anew while its last connection only seems to live is let in after a moment.
    async fn rival(&self, hello: &Hello) -> Option<String> {
        let known = self.lock().get(hello.instance.as_ref()?).cloned()?;
        // Of an old agent it cannot be known: the newest connection is taken for the agent.
        if hello.process.is_empty() || known.process.is_empty() || known.process == hello.process {
            return None;
        }
        let came = Instant::now();
        let _ = tokio::time::timeout(RIVAL_SPEAKS_WITHIN, known.over.cancelled()).await;
        let gone = known.over.is_cancelled() || !self.lock().values().any(|seat| Arc::ptr_eq(seat, &known));
        (!gone && known.heard_at() > came + UNDER_WAY).then(|| {
            format!(
                "its identity is in use: an agent of host {} is connected as container instance {}. If the data directory was copied, \
                 remove the file agent-id from this one's, so that it gets an identity of its own; if the other agent is to go, end it \
                 first",
                known.host,
                hello.instance.as_ref().map_or("", |id| id.as_str())
            )
        })
    }

    /// Inside: registered, or refused and why.
    async fn register(&self, id: InstanceId, hello: Hello) -> Result<Result<Instance, String>, store::Error> {
        self.control.store.update(format!("register {id}"), move |tx| Ok(register(tx, id, hello))).await
    }

    async fn disconnected(self: &Arc<Self>, id: InstanceId) {
        tracing::warn!(instance = %id, "container instance disconnected; its tasks keep running");
        // Tried until it is stored: an instance that seems connected for ever has its tasks replaced never.
        let mut said = false;
        loop {
            let stored = {
                let _admission = self.admission.acquire().await;
                self.note_disconnection(id.clone()).await
            };
            let error = match stored {
                Ok(()) | Err(store::Error::Closed) => return,
                Err(error) => error,
            };
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(%error, instance = %id, "a disconnection could not be stored; it is tried again until it is");
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(NOTE_AGAIN) => {}
            }
        }
    }

    async fn note_disconnection(self: &Arc<Self>, id: InstanceId) -> Result<(), store::Error> {
        let hub = self.clone();
        self.control
            .store
            .update(format!("disconnect {id}"), move |tx| {
                if hub.lock().contains_key(&id) {
                    // It has come back meanwhile.
                    return Ok(());
                }
                if let Some(instance) = tx.state().instances.get(&id).filter(|i| i.agent_connected).cloned() {
                    let now = tx.now;
                    tx.put(Instance {
                        agent_connected: false,
                        disconnected_at: Some(now),
                        version: instance.version + 1,
                        ..(*instance).clone()
                    });
                }
                Ok::<_, store::Error>(())
            })
            .await
    }
}

/// What an agent still sent into a session that has ended comes before its Hello, and is said again after it.
async fn hello(from: &mut mpsc::Receiver<FromAgent>) -> Option<Box<Hello>> {
    loop {
        if let FromAgent::Hello(hello) = from.recv().await? {
            return Some(hello);
        }
    }
}

fn register(tx: &mut Tx, id: InstanceId, hello: Hello) -> Result<Instance, String> {
    let cluster = hello.cluster;
    if !tx.state().clusters.get(&cluster).is_some_and(|c| c.status == crate::model::cluster::ClusterStatus::Active) {
        return Err(format!("there is no cluster {cluster}: create it first (aws ecs create-cluster --cluster-name {cluster})"));
    }
    let known = tx.state().instances.get(&id).filter(|i| i.status != InstanceStatus::Inactive).cloned();
    if let Some(other) = known.as_ref().filter(|i| i.cluster != cluster) {
        return Err(format!("this agent is registered in cluster {}: start it with --cluster {}", other.cluster, other.cluster));
    }
    let instance = Instance {
        id,
        cluster,
        status: known.as_ref().map_or(InstanceStatus::Active, |i| i.status),
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: hello.registered,
        reserved_tcp_ports: hello.reserved_tcp_ports,
        // What was set through the API stays (ECS: the agent's own attributes apply at the first registration).
        attributes: match &known {
            Some(known) => hello.attributes.into_iter().chain(known.attributes.clone()).collect(),
            None => hello.attributes,
        },
        agent_version: hello.agent_version,
        docker_version: hello.docker_version,
        host_name: hello.host_name,
        host_address: hello.host_address,
        tags: known.as_ref().map(|i| i.tags.clone()).unwrap_or_default(),
        registered_at: known.as_ref().map_or(tx.now, |i| i.registered_at),
        version: known.map_or(1, |i| i.version + 1),
    };
    tx.put(instance.clone());
    Ok(instance)
}
