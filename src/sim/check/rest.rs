//! What a world without faults comes to: everything as it was asked for, and nothing else.

use std::collections::BTreeSet;

use super::service::is_serving;
use crate::model::service::{Rollout, Service, ServiceStatus};
use crate::model::{InstanceId, TaskId, Timestamp};
use crate::sim::clients::behaviour;
use crate::sim::generate::is_doomed;
use crate::sim::host::Host;
use crate::sim::seen::Seen;

pub fn unsettled(seen: &Seen, hosts: &[Host]) -> Vec<String> {
    let here: BTreeSet<InstanceId> = hosts.iter().filter_map(Host::instance).collect();
    let running: BTreeSet<TaskId> =
        hosts.iter().flat_map(Host::running).map(|(task, _, _)| task).filter(|task| !task.as_str().is_empty()).collect();
    let mut unsettled = services(seen);
    for id in here.iter().filter(|id| !seen.instances.get(*id).is_some_and(|instance| instance.agent_connected)) {
        unsettled.push(format!("instance {id} is not connected"));
    }
    if here.len() < hosts.len() {
        unsettled.push(format!("{} of {} hosts are registered", here.len(), hosts.len()));
    }
    unsettled.extend(against_hosts(seen, &running));
    unsettled
}

/// One whose tasks cannot stay comes to no rest, and need not.
fn is_to_rest(seen: &Seen, service: &Service) -> bool {
    let definitions = service.deployments.iter().filter_map(|d| seen.definitions.get(&d.definition));
    service.status != ServiceStatus::Inactive && !definitions.into_iter().any(|definition| is_doomed(behaviour(definition)))
}

pub fn services(seen: &Seen) -> Vec<String> {
    let mut unsettled = Vec::new();
    for service in seen.services.values().filter(|service| is_to_rest(seen, service)) {
        let (key, desired) = (&service.key, service.desired_count as usize);
        let running = seen.live_of_service(key).filter(|t| is_serving(t)).count();
        let live = seen.live_of_service(key).count();
        if (running, live) != (desired, desired) {
            unsettled.push(format!("{key}: {running} of {desired} desired tasks run, {live} are there: {}", tell(seen, service)));
        }
        if service.deployments.len() != 1 || service.deployments[0].rollout != Rollout::Completed {
            unsettled.push(format!("{key}: its deployment has not completed: {}", tell(seen, service)));
        }
    }
    unsettled
}

pub fn against_hosts(seen: &Seen, running: &BTreeSet<TaskId>) -> Vec<String> {
    // A task that cannot stay is here and gone between two looks.
    let stays = |task: &&TaskId| {
        let definition = seen.tasks.get(*task).and_then(|task| seen.definitions.get(&task.definition));
        definition.is_none_or(|definition| !is_doomed(behaviour(definition)))
    };
    let wanted: BTreeSet<&TaskId> = seen.live().map(|t| &t.id).collect();
    let strange = running.iter().filter(|t| !wanted.contains(t)).filter(stays);
    let missing = wanted.iter().copied().filter(|t| !running.contains(*t)).filter(stays);
    let strange = strange.map(|t| format!("task {t} runs and nobody wants it"));
    strange.chain(missing.map(|t| format!("task {t} is wanted and runs nowhere"))).collect()
}

fn tell(seen: &Seen, service: &Service) -> String {
    let deployments = service.deployments.iter().map(|d| {
        let throttled = d.throttled_until.map(Timestamp::clock);
        format!("{} {} failed {} throttled until {throttled:?}", d.definition, d.rollout.as_str(), d.failed_tasks)
    });
    let tasks = seen.live_of_service(&service.key).map(|t| {
        let connected = seen.instances.get(&t.instance).is_some_and(|i| i.agent_connected);
        let (status, started) = (t.last_status.as_str(), t.started_at.map(Timestamp::clock));
        format!("{} of {} {status} since {started:?}, agent connected: {connected}", t.id, t.definition)
    });
    deployments.chain(tasks).collect::<Vec<_>>().join("; ")
}
