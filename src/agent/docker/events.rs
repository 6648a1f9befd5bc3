//! Docker's events, merged with whether Docker can be reached. Never relies on what Docker replays (256 events at most): after a break
//! it says Back, and the agent lists and compares.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{EventMessage, HealthStatusEnum};
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptions};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{Shared, labels, lock, observe};
use crate::agent::engine::EngineEvent;
use crate::model::Timestamp;

const PING_FIRST: Duration = Duration::from_millis(100);
const PING_LAST: Duration = Duration::from_secs(2);

/// Until the engine is dropped or nobody listens any more.
pub async fn run(shared: Arc<Shared>, out: mpsc::Sender<EngineEvent>) {
    // From when the engine was asked to watch, so that nothing falls between a list and the subscription.
    let mut since = shared.config.clock.now();
    loop {
        let ended = tokio::select! {
            () = shared.stop.cancelled() => return,
            ended = watch(&shared, since, &out) => ended,
        };
        let Some(why) = ended else { return };
        tracing::warn!(why, "Docker's events broke off");
        if out.send(EngineEvent::Away { why }).await.is_err() {
            return;
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = until_it_answers(&shared) => {}
        }
        since = shared.config.clock.now();
        shared.pool.engine_came_back();
        if out.send(EngineEvent::Back).await.is_err() {
            return;
        }
    }
}

async fn until_it_answers(shared: &Shared) {
    let mut pause = PING_FIRST;
    loop {
        if matches!(tokio::time::timeout(Duration::from_secs(5), shared.docker.ping()).await, Ok(Ok(_))) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PING_LAST);
    }
}

/// Returns why the stream broke off; None when nobody listens any more.
async fn watch(shared: &Arc<Shared>, since: Timestamp, out: &mpsc::Sender<EngineEvent>) -> Option<String> {
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("label", vec![format!("{}={}", labels::INSTALLATION, shared.config.installation)]),
        ("event", ["die", "kill", "oom", "health_status"].map(str::to_owned).to_vec()),
    ]);
    let since = format!("{}.{:03}", since.0.div_euclid(1000), since.0.rem_euclid(1000));
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
    // A death that was missed would leave its kill behind.
    lock(&shared.killed).clear();
    let mut stream = shared.docker.events(Some(options));
    loop {
        match stream.next().await {
            Some(Ok(event)) => {
                if let Some(event) = understood(shared, event, out)
                    && out.send(event).await.is_err()
                {
                    return None;
                }
            }
            Some(Err(error)) => return Some(error.to_string()),
            None => return Some("the event stream ended".to_owned()),
        }
    }
}

fn understood(shared: &Arc<Shared>, event: EventMessage, out: &mpsc::Sender<EngineEvent>) -> Option<EngineEvent> {
    let actor = event.actor?;
    let runtime_id = actor.id?;
    let attributes = actor.attributes?;
    let action = event.action?;
    let name = attributes.get("name").map_or("", String::as_str);
    let owner = labels::owner(&shared.config.installation, name, &attributes);
    if action == "die" {
        let at = event.time_nano.map_or_else(|| shared.config.clock.now(), |nanos| Timestamp(nanos.div_euclid(1_000_000)));
        shared.container_ended(&runtime_id);
        let by_docker = lock(&shared.killed).remove(&runtime_id);
        let Some((task, container)) = owner else {
            // A warm pause.
            shared.pool.lost(&runtime_id);
            return None;
        };
        let exit_code = attributes.get("exitCode").and_then(|code| code.parse().ok());
        // Another exit code means that at most a child was killed for memory, which was told before. Where Docker sent the signal
        // itself there is nothing to ask, and a replacement need not wait for the answer.
        if exit_code != Some(KILLED) || by_docker {
            let oom_killed = lock(&shared.out_of_memory).contains(&runtime_id);
            return Some(EngineEvent::Died { runtime_id, task, container, exit_code, oom_killed, at });
        }
        let (shared, out) = (shared.clone(), out.clone());
        tokio::spawn(async move {
            let oom_killed = was_out_of_memory(&shared, &runtime_id).await;
            // Nobody listens: then there is nobody to tell.
            let _ = out.send(EngineEvent::Died { runtime_id, task, container, exit_code, oom_killed, at }).await;
        });
        return None;
    }
    if action == "kill" {
        // Told as soon as the signal is sent: before the death. Every other signal may be ignored or be slow.
        if attributes.get("signal").is_some_and(|signal| matches!(signal.as_str(), "9" | "KILL" | "SIGKILL")) {
            lock(&shared.killed).insert(runtime_id);
        }
        return None;
    }
    if action == "oom" {
        lock(&shared.out_of_memory).insert(runtime_id);
        return None;
    }
    let health = match action.strip_prefix("health_status: ")? {
        "healthy" => HealthStatusEnum::HEALTHY,
        "unhealthy" => HealthStatusEnum::UNHEALTHY,
        _ => HealthStatusEnum::NONE,
    };
    let (task, container) = owner?;
    Some(EngineEvent::Health { runtime_id, task, container, health: observe::health(health) })
}

const KILLED: i32 = 137;
const OOM_WAIT: Duration = Duration::from_millis(50);
const OOM_LOOKS: usize = 4;

/// containerd tells of the exit and of the memory in no fixed order, so for a moment a no may become a yes.
async fn was_out_of_memory(shared: &Shared, id: &str) -> bool {
    let inspected = async {
        let state = shared.docker.inspect_container(id, None::<InspectContainerOptions>).await.ok().and_then(|i| i.state);
        state.and_then(|s| s.oom_killed) == Some(true)
    };
    let told = async {
        for _ in 0..OOM_LOOKS {
            if lock(&shared.out_of_memory).contains(id) {
                return true;
            }
            tokio::time::sleep(OOM_WAIT).await;
        }
        lock(&shared.out_of_memory).contains(id)
    };
    // Together: while Docker takes a dead container apart, an answer about it takes as long as the wait for the event.
    tokio::pin!(inspected, told);
    tokio::select! {
        yes = &mut inspected => yes || told.await,
        yes = &mut told => yes || inspected.await,
    }
}
