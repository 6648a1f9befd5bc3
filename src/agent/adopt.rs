//! What already runs on the host when an agent starts: which of it belongs to an assigned task and how far that task had come, and
//! which belongs to nobody.

use std::collections::BTreeMap;

use super::engine::{Observed, ObservedState};
use crate::decide::container::{Known, PAUSE, State};
use crate::model::definition::{ContainerDefinition, NetworkMode};
use crate::model::link::{Assignment, Phase};
use crate::model::{ClusterName, ContainerName, DefinitionKey, TaskId, Timestamp};

/// Docker's own time stamps of one moment differ by less than this between an event and an inspection.
const SAME_MOMENT_MS: i64 = 50;

pub fn by_task(observed: Vec<Observed>) -> BTreeMap<TaskId, Vec<Observed>> {
    let mut tasks: BTreeMap<TaskId, Vec<Observed>> = BTreeMap::new();
    for one in observed {
        tasks.entry(one.task.clone()).or_default().push(one);
    }
    tasks
}

/// The state of an assigned task whose containers are these: a container that is there is taken over and never made again.
pub fn adopt(task: &Assignment, observed: &[Observed]) -> State {
    let known = |name: &str| newest(observed, name).map(known_of).unwrap_or_default();
    let mut state =
        State { pause: known(PAUSE), containers: task.containers.iter().map(|c| known(&c.name)).collect(), ..State::default() };
    state.address = observed.iter().find_map(|o| o.address.clone());
    state
}

/// An older twin can only be what is left of a creation whose answer was lost; the one that got furthest counts.
fn newest<'a>(observed: &'a [Observed], name: &str) -> Option<&'a Observed> {
    observed.iter().filter(|o| o.container.as_str() == name).max_by_key(|o| (o.started_at, o.runtime_id.as_str()))
}

pub fn known_of(observed: &Observed) -> Known {
    Known {
        phase: match observed.state {
            ObservedState::Created => Phase::Created,
            ObservedState::Running => Phase::Running,
            ObservedState::Exited => Phase::Stopped,
        },
        pulled: true,
        image_digest: observed.image_digest.clone(),
        runtime_id: Some(observed.runtime_id.clone()),
        started_at: observed.started_at,
        finished_at: observed.finished_at.filter(|_| observed.state == ObservedState::Exited),
        exit_code: observed.exit_code.filter(|_| observed.state == ObservedState::Exited),
        reason: observed.oom_killed.then(|| OOM.to_owned()),
        health: observed.health,
        bindings: observed.bindings.clone(),
        address: observed.address.clone(),
        network: observed.network.clone(),
        ..Known::default()
    }
}

pub const OOM: &str = "OutOfMemoryError: Container killed due to memory usage";

/// Whether a death that is told now is one that is known already.
pub fn known_death(known: &Known, at: Timestamp) -> bool {
    known.finished_at.is_some_and(|finished| at.since(finished) <= SAME_MOMENT_MS)
}

/// Whether the engine runs the container since later than we know: it ended and was started by somebody else.
pub fn started_anew(known: &Known, observed: &Observed) -> bool {
    matches!((known.started_at, observed.started_at), (Some(ours), Some(theirs)) if theirs.since(ours) > SAME_MOMENT_MS)
}

/// A task that nobody assigned: as much of an assignment as its labels tell, enough to stop it in the usual way.
pub fn stranger(task: &TaskId, observed: &[Observed]) -> Assignment {
    let mut names: Vec<&ContainerName> = observed.iter().map(|o| &o.container).filter(|n| n.as_str() != PAUSE).collect();
    names.sort();
    names.dedup();
    let container = |name: &&ContainerName| ContainerDefinition { name: name.to_string(), ..Default::default() };
    let own_network = observed.iter().any(|o| o.container.as_str() == PAUSE);
    Assignment {
        task: task.clone(),
        cluster: ClusterName::new(""),
        service: None,
        group: String::new(),
        definition: DefinitionKey::new("", 0),
        network_mode: if own_network { NetworkMode::Awsvpc } else { NetworkMode::None },
        cpu: None,
        memory: None,
        containers: names.iter().map(container).collect(),
        container_uuids: vec![String::new(); names.len()],
        volumes: vec![],
        pid_mode: None,
        ipc_mode: None,
        run: false,
        trace: None,
    }
}
