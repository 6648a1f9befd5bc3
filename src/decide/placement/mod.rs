//! Where a task goes: filters say where it may run, strategies say where it runs best, and a refusal counts what each filter
//! turned away.
//!
//! Two ways to the same choice. [`Placer`] places in a [`Room`](crate::model::room::Room), which is kept up on every change, without
//! looking at every instance. [`place`] looks at all the candidates it is given: it is what the other is tested against, it tells
//! why nothing fits, and it answers what-if. For n instances, t tasks and d combinations of the attribute values that the strategy
//! spreads over (zones: a handful) it costs O(n log n) once and O(d + log n) per task: instances wait in one heap per combination
//! and only the heads are compared.

mod check;
mod filter;
mod rank;
mod refuse;
mod search;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::model::InstanceId;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::instance::{Instance, Load};
use crate::model::placement::{PlacementConstraint, PlacementStrategy};
use crate::model::task::Resources;

pub use check::{check, check_of_definition};
pub use search::{Look, Placer};

use filter::{Rules, rules};
use rank::{Ranking, ranking};

/// What is to be placed: `count` tasks that are alike.
pub struct Request<'a> {
    pub count: u32,
    pub resources: &'a Resources,
    /// Spreading and distinctInstance count the tasks of this group.
    pub group: &'a str,
    /// The caller's and the task definition's together.
    pub constraints: &'a [PlacementConstraint],
    pub strategy: &'a [PlacementStrategy],
    /// A service without a strategy is spread over zones, then instances; a standalone task goes anywhere.
    pub of_service: bool,
    /// For `random`, and to break the last ties.
    pub seed: u64,
}

pub struct Candidate<'a> {
    pub instance: &'a Instance,
    pub load: &'a Load,
}

#[derive(Debug, PartialEq)]
pub enum Outcome {
    Placed { instance: InstanceId, reason: Reason },
    Refused(Refusal),
}

/// Why no instance would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// How many instances each filter turned away, worst first.
    pub tally: Vec<(Filter, u32)>,
    /// The instance that passed the most filters, and the one it failed.
    pub closest: Option<(InstanceId, Filter)>,
    /// Per instance: RunTask's `failures`. They stand in the first refusal of a call only: the tasks are alike, so the later
    /// refusals would repeat the same list, and thousands of tasks times thousands of instances would be a flood.
    pub failures: Vec<(InstanceId, Filter)>,
    pub reason: Reason,
}

/// In the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    Active,
    Connected,
    Cpu,
    Memory,
    Ports,
    DistinctInstance,
    MemberOf,
}

/// A candidate while tasks are being placed on it.
struct Slot<'a> {
    instance: &'a Instance,
    /// Owned from the first task on that this call puts here.
    load: Cow<'a, Load>,
    /// None: the next task fits.
    failed: Option<Filter>,
}

impl Slot<'_> {
    fn group_tasks(&self, group: &str) -> u32 {
        self.load.groups.get(group).copied().unwrap_or(0)
    }
    fn free_cpu(&self) -> u32 {
        self.instance.registered.cpu.saturating_sub(self.load.cpu)
    }
    fn free_memory(&self) -> u32 {
        self.instance.registered.memory.saturating_sub(self.load.memory)
    }
}

/// One outcome per task asked for; tasks placed earlier count for the later ones. An unreadable memberOf expression places nothing:
/// check it with `expression::parse` when the client gives it.
pub fn place(request: &Request, candidates: &[Candidate]) -> Vec<Outcome> {
    let rules = rules(request);
    let mut slots: Vec<Slot> = candidates
        .iter()
        .map(|c| Slot { instance: c.instance, load: Cow::Borrowed(c.load), failed: rules.first_failed(c.instance, c.load) })
        .collect();
    let mut fitting = slots.iter().filter(|slot| slot.failed.is_none()).count();
    let mut ranking = ranking(request, &slots);
    let mut outcomes = Vec::with_capacity(request.count as usize);
    while outcomes.len() < request.count as usize {
        let Some(chosen) = ranking.best() else { break };
        let fitted = fitting;
        take(request, &rules, &mut slots[chosen]);
        fitting -= usize::from(slots[chosen].failed.is_some());
        let reason = placed(request, &slots[chosen], fitted, candidates.len(), &ranking);
        ranking.placed(chosen, &slots[chosen]);
        outcomes.push(Outcome::Placed { instance: slots[chosen].instance.id.clone(), reason });
    }
    // A refusal changes nothing, so all the tasks that are left are refused alike.
    let left = request.count as usize - outcomes.len();
    if left > 0 {
        let refusal = refuse::refusal(request, &rules, &slots);
        let later = Refusal { failures: Vec::new(), ..refusal.clone() };
        outcomes.push(Outcome::Refused(refusal));
        outcomes.extend((1..left).map(|_| Outcome::Refused(later.clone())));
    }
    outcomes
}

/// For StartTask, which names its instances: the first filter that this one does not pass, or None when one such task fits on it.
pub fn first_failed(request: &Request, candidate: &Candidate) -> Option<Filter> {
    rules(request).first_failed(candidate.instance, candidate.load)
}

fn take(request: &Request, rules: &Rules, slot: &mut Slot) {
    let load = slot.load.to_mut();
    load.cpu = load.cpu.saturating_add(request.resources.cpu);
    load.memory = load.memory.saturating_add(request.resources.memory);
    load.tcp_ports.extend(&request.resources.tcp_ports);
    load.udp_ports.extend(&request.resources.udp_ports);
    load.tasks += 1;
    match load.groups.get_mut(request.group) {
        Some(tasks) => *tasks += 1,
        None => {
            load.groups.insert(request.group.into(), 1);
        }
    }
    slot.failed = rules.first_failed(slot.instance, &slot.load);
}

fn placed(request: &Request, slot: &Slot, fitting: usize, candidates: usize, ranking: &Ranking) -> Reason {
    let spot = Spot {
        instance: &slot.instance.id,
        zone: slot.instance.zone(),
        cpu_left: slot.free_cpu(),
        memory_left: slot.free_memory(),
    };
    placed_reason(request, &spot, &ranking.words(), ranking.explain(), candidates, Some(fitting))
}

/// Where a task was put, and what is left there.
struct Spot<'a> {
    instance: &'a InstanceId,
    zone: &'a str,
    cpu_left: u32,
    memory_left: u32,
}

/// `fitting` is said where it was counted.
fn placed_reason(
    request: &Request,
    spot: &Spot,
    strategy: &str,
    score: serde_json::Value,
    candidates: usize,
    fitting: Option<usize>,
) -> Reason {
    let Spot { instance, zone, cpu_left, memory_left } = spot;
    let of = match fitting {
        Some(fitting) => format!("{fitting} that fit, of {candidates}"),
        None => counted(candidates as u32, "instance", "instances"),
    };
    let sentence = format!(
        "placed on container instance {instance}: best by {strategy} of {of}; {cpu_left} CPU units and {memory_left} MiB stay free"
    );
    let reason = Reason::new(ReasonCode::Placed, sentence)
        .with("instance", instance.as_str())
        .with("zone", *zone)
        .with("group", request.group)
        .with("candidates", candidates)
        .with("score", score)
        .with("cpu_left", *cpu_left)
        .with("memory_left", *memory_left);
    match fitting {
        Some(fitting) => reason.with("fitting", fitting),
        None => reason,
    }
}

fn counted(count: u32, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
