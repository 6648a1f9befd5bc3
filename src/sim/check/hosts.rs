//! What runs on the hosts, whatever anybody believes: no task on two of them, and no container twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::TaskId;

/// By host, task and container, as they run.
pub fn twice(running: impl Iterator<Item = (usize, TaskId, String)>) -> Vec<String> {
    let mut host_of: BTreeMap<TaskId, usize> = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut broken = Vec::new();
    // Pauses that wait for a task are the engine's own.
    for (host, task, container) in running.filter(|(_, task, _)| !task.as_str().is_empty()) {
        if host_of.insert(task.clone(), host).is_some_and(|other| other != host) {
            broken.push(format!("task {task} runs on two hosts"));
        }
        if !known.insert((host, task.clone(), container.clone())) {
            broken.push(format!("container {container} of task {task} runs twice"));
        }
    }
    broken
}
