//! Which of many tasks goes first, by the scale-in rule of services without a placement strategy (Developer Guide, "Amazon ECS
//! services"): from the zone with the most tasks of the service, there from the instance with the most; then the newest.

use std::collections::{BTreeMap, BTreeSet};

use super::census::{Seen, Stage};
use crate::model::InstanceId;

#[derive(Default)]
struct Zone<'a> {
    tasks: u32,
    /// Instances with candidates left, by their tasks.
    instances: BTreeSet<(u32, &'a InstanceId)>,
}

#[derive(Default)]
struct Host<'a> {
    tasks: u32,
    /// Oldest first, so that the newest is at the end.
    candidates: Vec<Seen<'a>>,
}

/// `count` of `candidates` (or all), lowest stage first. `all` are the service's tasks, candidates included: they say where most are.
/// Every choice counts for the next one. O(n log n).
pub(super) fn choose<'a>(all: &[Seen<'a>], candidates: Vec<Seen<'a>>, count: u32) -> Vec<Seen<'a>> {
    let count = count as usize;
    if count >= candidates.len() {
        return candidates;
    }
    let mut by_stage: BTreeMap<Stage, Vec<Seen<'a>>> = BTreeMap::new();
    for candidate in candidates {
        by_stage.entry(candidate.stage).or_default().push(candidate);
    }
    let mut zones: BTreeMap<&str, Zone> = BTreeMap::new();
    let mut hosts: BTreeMap<&InstanceId, Host> = BTreeMap::new();
    for seen in all {
        zones.entry(seen.zone).or_default().tasks += 1;
        hosts.entry(&seen.task.instance).or_default().tasks += 1;
    }
    let mut chosen = Vec::with_capacity(count);
    for (_, stage) in by_stage {
        let wanted = count - chosen.len();
        chosen.extend(from_the_fullest(stage, wanted, &mut zones, &mut hosts));
    }
    chosen
}

fn from_the_fullest<'a>(
    candidates: Vec<Seen<'a>>,
    count: usize,
    zones: &mut BTreeMap<&'a str, Zone<'a>>,
    hosts: &mut BTreeMap<&'a InstanceId, Host<'a>>,
) -> Vec<Seen<'a>> {
    for seen in candidates {
        let host = hosts.entry(&seen.task.instance).or_default();
        host.candidates.push(seen);
        zones.entry(seen.zone).or_default().instances.insert((host.tasks, &seen.task.instance));
    }
    for host in hosts.values_mut() {
        host.candidates.sort_by(|a, b| (a.task.created_at, &a.task.id).cmp(&(b.task.created_at, &b.task.id)));
    }
    let mut fullest: BTreeSet<(u32, &str)> =
        zones.iter().filter(|(_, zone)| !zone.instances.is_empty()).map(|(name, zone)| (zone.tasks, *name)).collect();

    let mut chosen = Vec::new();
    while chosen.len() < count {
        let Some((_, name)) = fullest.pop_last() else { break };
        let Some(zone) = zones.get_mut(name) else { break };
        let Some((_, instance)) = zone.instances.pop_last() else { continue };
        let Some(host) = hosts.get_mut(instance) else { continue };
        if let Some(seen) = host.candidates.pop() {
            chosen.push(seen);
            host.tasks -= 1;
            zone.tasks -= 1;
        }
        if !host.candidates.is_empty() {
            zone.instances.insert((host.tasks, instance));
        }
        if !zone.instances.is_empty() {
            fullest.insert((zone.tasks, name));
        }
    }
    for zone in zones.values_mut() {
        zone.instances.clear();
    }
    for host in hosts.values_mut() {
        host.candidates.clear();
    }
    chosen
}
