//! The seam's calls on one container: list, create, start, stop, remove, and what is left of a task after its last one. Each may be
//! repeated without harm.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::{StreamExt, stream};

use super::connect::{CREATE, INSPECT, LIST, REMOVE, START, STOP, failed, failure, status};
use super::create::Resolved;
use super::follow::Followed;
use super::{Shared, apilog, cgroup, create as bodies, images, labels, lock, observe, pause_pool, volumes};
use crate::agent::engine::{ContainerSpec, EngineError, Observed, ObservedState, RuntimeId, Started};
use crate::model::{Millis, TaskId};

const INSPECTS_AT_ONCE: usize = 8;
/// How long a removal waits for the last lines to be taken, before it says so and is to be tried again.
const DRAIN_WAIT: Duration = Duration::from_secs(60);

async fn inspect(shared: &Shared, id: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
    match shared.docker.inspect_container(id, None::<InspectContainerOptions>).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(failed(INSPECT)(error)),
    }
}

/// Also takes up what an agent before this one left: its lines are followed and its usage is sampled from here on.
pub async fn list(shared: &Arc<Shared>) -> Result<Vec<Observed>, EngineError> {
    let mark = format!("{}={}", labels::INSTALLATION, shared.config.installation);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&HashMap::from([("label", vec![mark])])).build();
    let found = shared.docker.list_containers(Some(options)).await.map_err(failed(LIST))?;
    // Docker's list has neither pid, start time nor exit code.
    let ids = found.into_iter().filter_map(|c| c.id);
    let inspected: Vec<_> =
        stream::iter(ids).map(|id| async move { inspect(shared, &id).await }).buffered(INSPECTS_AT_ONCE).collect().await;
    let mut digests: HashMap<String, Option<String>> = HashMap::new();
    let mut all = Vec::new();
    for found in inspected {
        // None: removed meanwhile.
        let Some(found) = found? else { continue };
        let Some(mut observed) = observe::observed(&shared.config.installation, &found) else { continue };
        if let Some(image) = &found.image {
            if !digests.contains_key(image) {
                let inspected = shared.docker.inspect_image(image).await.ok();
                digests.insert(image.clone(), images::digest(inspected.and_then(|i| i.repo_digests)));
            }
            observed.image_digest = digests.get(image).cloned().flatten();
        }
        take_up(shared, &found, &observed);
        all.push(observed);
    }
    let running = all.iter().filter(|o| o.state == ObservedState::Running).map(|o| o.runtime_id.clone());
    let running: BTreeSet<RuntimeId> = running.collect();
    shared.watched.retain(&running);
    Ok(all)
}

/// Samples and follows a container that was started, from where its reader stood.
fn take_up(shared: &Arc<Shared>, found: &ContainerInspectResponse, observed: &Observed) {
    let id = observed.runtime_id.as_str();
    if observed.state == ObservedState::Created {
        return;
    }
    let ended = observed.state == ObservedState::Exited;
    if !ended && let Some(watched) = observe::watched(&shared.config.installation, found) {
        shared.watched.put(id, watched);
    }
    let target = observe::labels_of(found).and_then(labels::log_target);
    let lines = lock(&shared.lines).clone();
    if let (Some(target), Some(lines)) = (target, lines) {
        let entry = shared.followed.put(id, ended, || {
            let resume = lock(&shared.resume).get(id).cloned();
            Followed::new(target, log_path(shared, found, id), resume)
        });
        if let Some(entry) = entry.filter(|e| e.path.is_none()) {
            tokio::spawn(apilog::run(shared.clone(), id.to_owned(), entry, lines));
        }
    }
    // It may have ended between the inspect and now, its event already dealt with.
    if lock(&shared.ended).contains(id) {
        shared.watched.remove(id);
        shared.followed.end(id);
    }
}

/// None where the file cannot be read: then by the log API.
fn log_path(shared: &Shared, found: &ContainerInspectResponse, id: &str) -> Option<PathBuf> {
    if !shared.config.read_log_files {
        return None;
    }
    let said = found.log_path.as_ref().filter(|p| !p.is_empty()).map(PathBuf::from);
    let path = said.unwrap_or_else(|| shared.docker_root.join(format!("containers/{id}/{id}-json.log")));
    match std::fs::File::open(&path) {
        Ok(_) => Some(path),
        Err(error) => {
            tracing::warn!(container = id, %error, "a log file cannot be read: using Docker's log API, which may lose lines");
            None
        }
    }
}

pub async fn create(shared: &Shared, spec: &ContainerSpec) -> Result<RuntimeId, EngineError> {
    let config = &shared.config;
    let (pid_mode, ipc_mode) = namespaces(shared, spec).await?;
    let resolved = Resolved {
        binds: volumes::binds(&shared.docker, config, spec).await?,
        cgroup_parent: task_group(shared, spec),
        pid_mode,
        ipc_mode,
    };
    let name = labels::container_name(&config.installation, spec);
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    match shared.docker.create_container(Some(options), bodies::body(config, spec, resolved)).await {
        Ok(created) => {
            for warning in created.warnings {
                tracing::warn!(task = %spec.task, container = %spec.container.name, warning, "Docker warns");
            }
            Ok(created.id)
        }
        Err(error) if status(&error) == Some(409) => {
            // Made before, by a call whose answer was lost: the same container is never made twice.
            let found = inspect(shared, &name).await?;
            let ours = found.and_then(|found| observe::observed(&config.installation, &found));
            match ours.filter(|o| o.task == spec.task && o.container.as_str() == spec.container.name) {
                Some(observed) => Ok(observed.runtime_id),
                None => Err(failed(CREATE)(error)),
            }
        }
        Err(error) => Err(failed(CREATE)(error)),
    }
}

/// Docker's pid and ipc modes. `task` shares the pause container's namespaces, or without one the task's first container's.
async fn namespaces(shared: &Shared, spec: &ContainerSpec) -> Result<(Option<String>, Option<String>), EngineError> {
    let shares = |mode: &Option<String>| mode.as_deref() == Some("task");
    if !shares(&spec.pid_mode) && !shares(&spec.ipc_mode) {
        return Ok((spec.pid_mode.clone(), spec.ipc_mode.clone()));
    }
    let mut leader = spec.join_network.clone();
    for id in spec.siblings.values().filter(|_| spec.join_network.is_none()) {
        let found = inspect(shared, id).await?;
        if found.as_ref().and_then(observe::labels_of).is_some_and(|l| l.contains_key(labels::LEADER)) {
            leader = Some(id.clone());
        }
    }
    let joined = leader.map(|id| format!("container:{id}"));
    let of = |mode: &Option<String>, alone: Option<&str>| {
        if shares(mode) { joined.clone().or_else(|| alone.map(str::to_owned)) } else { mode.clone() }
    };
    Ok((of(&spec.pid_mode, None), of(&spec.ipc_mode, Some("shareable"))))
}

/// The task's parent cgroup, with the task's limits; none where the task has none, or where they cannot be enforced.
fn task_group(shared: &Shared, spec: &ContainerSpec) -> Option<String> {
    if spec.task_cpu.is_none() && spec.task_memory.is_none() {
        return None;
    }
    let group = labels::task_group(&shared.config.installation, &spec.task);
    match cgroup::make_task_group(&shared.cgroups, &group, spec.task_cpu, spec.task_memory) {
        Ok(group) => Some(group),
        Err(error) => {
            if !shared.told_unenforced.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "limits of whole tasks are not enforced on this host, only those of containers");
            }
            None
        }
    }
}

pub async fn start(shared: &Arc<Shared>, id: &str) -> Result<Started, EngineError> {
    let gone = || failure(START, format!("Error response from daemon: No such container: {id}"));
    let before = inspect(shared, id).await?.ok_or_else(gone)?;
    let mut found = before;
    if !observe::is_running(&found) {
        let network = observe::labels_of(&found).and_then(|l| l.get(labels::NETWORK)).map_or("own", String::as_str);
        let room = if matches!(network, "task" | "host") { &shared.joined_starts } else { &shared.own_network_starts };
        lock(&shared.ended).remove(id);
        lock(&shared.out_of_memory).remove(id);
        shared.pool.starts.fetch_add(1, Ordering::Relaxed);
        let permit = room.acquire().await;
        let result = shared.docker.start_container(id, None::<StartContainerOptions>).await;
        drop(permit);
        shared.pool.starts.fetch_sub(1, Ordering::Relaxed);
        match result {
            Err(error) if status(&error) != Some(304) => return Err(failed(START)(error)),
            _ => {}
        }
        found = inspect(shared, id).await?.ok_or_else(gone)?;
    }
    let at = observe::time(found.state.as_ref().and_then(|s| s.started_at.as_deref()));
    if let Some(observed) = observe::observed(&shared.config.installation, &found) {
        take_up(shared, &found, &observed);
    }
    Ok(Started {
        at: at.unwrap_or_else(|| shared.config.clock.now()),
        bindings: observe::bindings(&found),
        address: observe::address(&found),
        network: observe::task_network(&found),
    })
}

pub async fn stop(shared: &Shared, id: &str, grace_ms: Millis) -> Result<(), EngineError> {
    let seconds = (grace_ms.max(0) + 999) / 1000;
    // Docker answers when the process has ended, which is later than other calls' timeout for a long grace.
    let patient = shared.docker.clone().with_timeout(Duration::from_secs(seconds as u64 + 60));
    let options = StopContainerOptionsBuilder::default().t(seconds.min(i64::from(i32::MAX)) as i32).build();
    match patient.stop_container(id, Some(options)).await {
        Err(error) if !matches!(status(&error), Some(304 | 404)) => Err(failed(STOP)(error)),
        _ => Ok(()),
    }
}

pub async fn remove(shared: &Shared, id: &str) -> Result<(), EngineError> {
    let found = inspect(shared, id).await?;
    if found.as_ref().is_some_and(observe::is_running) {
        return Err(failure(REMOVE, format!("container {id} is running")));
    }
    if let Some(found) = &found {
        read_to_the_end(shared, id).await?;
        let options = RemoveContainerOptionsBuilder::default().v(true).build();
        match shared.docker.remove_container(id, Some(options)).await {
            // 409: its removal is under way.
            Err(error) if !matches!(status(&error), Some(404 | 409)) => return Err(failed(REMOVE)(error)),
            _ => {}
        }
        release_address(shared, found).await;
    }
    shared.watched.remove(id);
    shared.followed.remove(id);
    lock(&shared.ended).remove(id);
    lock(&shared.out_of_memory).remove(id);
    shared.pool.removed(id);
    lock(&shared.resume).remove(id);
    lock(&shared.stored).remove(id);
    Ok(())
}

/// Docker's file is the only copy of lines that are not durable yet.
async fn read_to_the_end(shared: &Shared, id: &str) -> Result<(), EngineError> {
    let Some(followed) = shared.followed.get(id) else { return Ok(()) };
    shared.followed.end(id);
    let Ok(progress) = tokio::time::timeout(DRAIN_WAIT, followed.drained()).await else {
        return Err(failure(REMOVE, format!("the last log lines of {id} were not taken in time")));
    };
    let stored = async {
        loop {
            let more = shared.stored_more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if lock(&shared.stored).get(id).copied().unwrap_or(0) >= progress.next {
                return;
            }
            more.await;
        }
    };
    let nothing_written = progress.next <= super::lines::FIRST;
    if !nothing_written {
        let wait = Duration::from_millis(shared.config.stored_wait_ms.max(0) as u64);
        // In vain: the lines are with the agent, which goes on trying.
        let _ = tokio::time::timeout(wait, stored).await;
    }
    Ok(())
}

async fn release_address(shared: &Shared, found: &ContainerInspectResponse) {
    let Some(cluster) = observe::labels_of(found).and_then(|l| l.get(labels::CLUSTER)) else { return };
    let networks = found.network_settings.as_ref().and_then(|n| n.networks.as_ref());
    let address = networks.and_then(|n| n.values().find_map(|e| e.ipam_config.as_ref()?.ipv4_address.clone()));
    if let Some(address) = address {
        pause_pool::release(shared, cluster, &address).await;
    }
}

pub async fn clean_up(shared: &Shared, task: &TaskId) -> Result<(), EngineError> {
    cgroup::remove_group(&shared.cgroups, &labels::task_group(&shared.config.installation, task));
    volumes::remove(&shared.docker, &shared.config, task).await
}

/// Docker never removes parent cgroups: those whose tasks have no container any more, left by a crash, go.
pub async fn sweep_task_groups(shared: &Shared) -> Result<(), EngineError> {
    let all = labels::groups(&shared.config.installation);
    let groups = cgroup::groups_below(&shared.cgroups, &all);
    if groups.is_empty() {
        cgroup::remove_group(&shared.cgroups, &all);
        return Ok(());
    }
    let mark = format!("{}={}", labels::INSTALLATION, shared.config.installation);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&HashMap::from([("label", vec![mark])])).build();
    let found = shared.docker.list_containers(Some(options)).await.map_err(failed(LIST))?;
    let used: BTreeSet<String> = found.into_iter().filter_map(|c| c.labels?.remove(labels::TASK)).collect();
    for task in groups.iter().filter(|task| !used.contains(*task)) {
        cgroup::remove_group(&shared.cgroups, &labels::task_group(&shared.config.installation, &TaskId::new(task)));
    }
    // The installation's own, when it was the last.
    cgroup::remove_group(&shared.cgroups, &all);
    Ok(())
}
