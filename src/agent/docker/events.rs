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
        ("event", vec!["die".to_owned(), "oom".to_owned(), "health_status".to_owned()]),
    ]);
    let since = format!("{}.{:03}", since.0.div_euclid(1000), since.0.rem_euclid(1000));
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
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
        let Some((task, container)) = owner else {
            // A warm pause.
            shared.pool.lost(&runtime_id);
            return None;
        };
        let exit_code = attributes.get("exitCode").and_then(|code| code.parse().ok());
        // Another exit code means that at most a child was killed for memory, which was told before.
        if exit_code != Some(KILLED) {
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
    let inspected = shared.docker.inspect_container(id, None::<InspectContainerOptions>).await.ok();
    if inspected.and_then(|i| i.state).and_then(|s| s.oom_killed) == Some(true) {
        return true;
    }
    for _ in 0..OOM_LOOKS {
        if lock(&shared.out_of_memory).contains(id) {
            return true;
        }
        tokio::time::sleep(OOM_WAIT).await;
    }
    lock(&shared.out_of_memory).contains(id)
}
