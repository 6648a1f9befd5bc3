//! Why no instance would do, in numbers, in a sentence for `why`, and in ECS's own words.

use std::cmp::Reverse;

use serde_json::{Map, Value};

use super::filter::Rules;
use super::{Filter, Refusal, Request, Slot, counted};
use crate::model::decision::{Reason, ReasonCode};
use crate::model::instance::InstanceStatus;

const UNABLE: &str = "was unable to place a task because no container instance met all of its requirements.";
const SEE: &str = "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.";

impl Refusal {
    /// What follows "(service NAME) " in the service's event ("Service event messages" in the Amazon ECS Developer Guide).
    pub fn event_text(&self) -> String {
        let why = match &self.closest {
            // Instances that are not ACTIVE are none to ECS's scheduler.
            None | Some((_, Filter::Active)) => "Reason: No Container Instances were found in your cluster.".to_owned(),
            Some((id, filter)) => {
                let what = match filter {
                    Filter::Cpu => "has insufficient CPU units available.".to_owned(),
                    Filter::Memory => "has insufficient memory available.".to_owned(),
                    Filter::Ports => "is already using a port required by your task.".to_owned(),
                    _ => format!("encountered error \"{}\".", filter.failure_code()),
                };
                format!("The closest matching (container-instance {id}) {what}")
            }
        };
        format!("{UNABLE} {why} {SEE}")
    }
}

/// For slots of which none fits.
pub(super) fn refusal(request: &Request, rules: &Rules, slots: &[Slot]) -> Refusal {
    let failed = || slots.iter().filter_map(|slot| Some((slot, slot.failed?)));
    let mut tally: Vec<(Filter, u32)> =
        Filter::ALL.into_iter().map(|filter| (filter, failed().filter(|(_, f)| *f == filter).count() as u32)).collect();
    tally.retain(|&(_, count)| count > 0);
    tally.sort_by_key(|&(filter, count)| (Reverse(count), filter));
    // Furthest along the filters; among equals the one with the most room, then the first by id.
    let closest = failed()
        .max_by_key(|(slot, filter)| (*filter, slot.free_memory(), slot.free_cpu(), Reverse(slot.instance.id.as_str())))
        .map(|(slot, filter)| (slot.instance.id.clone(), filter));
    let failures = failed().map(|(slot, filter)| (slot.instance.id.clone(), filter)).collect();
    let reason = reason(request, rules, slots, &tally, closest.as_ref().map(|(id, _)| id.as_str()));
    Refusal { tally, closest, failures, reason }
}

fn reason(request: &Request, rules: &Rules, slots: &[Slot], tally: &[(Filter, u32)], closest: Option<&str>) -> Reason {
    if slots.is_empty() {
        return Reason::new(ReasonCode::NoInstances, "not placed: the cluster has no container instances")
            .with("candidates", 0)
            .with("group", request.group);
    }
    let causes: Vec<String> = tally.iter().flat_map(|&(filter, count)| causes(filter, count, rules, slots)).collect();
    let sentence = format!("not placed, {}: {}", counted(slots.len() as u32, "instance", "instances"), causes.join(", "));
    let counts: Map<String, Value> = tally.iter().map(|&(f, count)| (f.name().to_owned(), count.into())).collect();
    Reason::new(ReasonCode::NotPlaced, sentence)
        .with("candidates", slots.len())
        .with("group", request.group)
        .with("tally", counts)
        .with("closest", closest)
        .with("cpu_needed", rules.needs.cpu)
        .with("memory_needed", rules.needs.memory)
        .with("most_cpu_free", most(slots, None, |slot| slot.free_cpu()))
        .with("most_memory_free", most(slots, None, |slot| slot.free_memory()))
}

/// One filter's part of the sentence; memberOf has a part per expression, so that the reader sees which one it is.
fn causes(filter: Filter, count: u32, rules: &Rules, slots: &[Slot]) -> Vec<String> {
    let verb = |one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    match filter {
        Filter::Active => {
            let draining = slots.iter().filter(|s| s.instance.status == InstanceStatus::Draining).count();
            vec![format!("{} not ACTIVE ({draining} DRAINING)", verb("is", "are"))]
        }
        Filter::Connected => {
            let subject = if count == 1 { "agent is" } else { "agents are" };
            vec![format!("{count} {subject} disconnected")]
        }
        Filter::Cpu => {
            let free = most(slots, Some(filter), |slot| slot.free_cpu());
            vec![format!("{} CPU (need {} units, most free {free})", verb("lacks", "lack"), rules.needs.cpu)]
        }
        Filter::Memory => {
            let free = most(slots, Some(filter), |slot| slot.free_memory());
            vec![format!("{} memory (need {} MiB, most free {free})", verb("lacks", "lack"), rules.needs.memory)]
        }
        Filter::Ports => {
            let example =
                slots.iter().filter(|s| s.failed == Some(filter)).find_map(|s| rules.taken_ports(s.instance, &s.load).next());
            let example = example.map(|(port, protocol)| format!(" ({protocol} {port})")).unwrap_or_default();
            vec![format!("{} a host port that is taken{example}", verb("lacks", "lack"))]
        }
        Filter::DistinctInstance => {
            vec![format!("{} a task of the group (distinctInstance)", verb("already runs", "already run"))]
        }
        Filter::MemberOf => member_of_causes(rules, slots),
    }
}

fn member_of_causes(rules: &Rules, slots: &[Slot]) -> Vec<String> {
    let mut counts = vec![0u32; rules.member_of.len()];
    for slot in slots.iter().filter(|slot| slot.failed == Some(Filter::MemberOf)) {
        if let Some(first) = rules.member_of.iter().position(|m| !m.accepts(slot.instance, &slot.load)) {
            counts[first] += 1;
        }
    }
    let failing = rules.member_of.iter().zip(counts).filter(|(_, count)| *count > 0);
    let cause = |(member_of, count): (&super::filter::MemberOf, u32)| {
        let verb = if count == 1 { "fails" } else { "fail" };
        let unreadable = if member_of.is_readable() { "" } else { " (not understood)" };
        format!("{count} {verb} memberOf {}{unreadable}", member_of.text)
    };
    failing.map(cause).collect()
}

/// The most that is free on an instance that failed this filter, or on any at all.
fn most(slots: &[Slot], failed: Option<Filter>, free: fn(&Slot) -> u32) -> u32 {
    slots.iter().filter(|slot| failed.is_none() || slot.failed == failed).map(free).max().unwrap_or(0)
}
