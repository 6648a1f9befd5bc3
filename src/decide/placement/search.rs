//! The best instance without asking every one: strategies narrow down which kinds of instances and which numbers are best, one after
//! the other, and each step looks at summaries of sixty-four instances first.
//!
//! For n instances of k kinds, a task costs O(k + n / 64) steps of a few instructions at the worst, where little fits; where there is
//! room the first block looked at mostly has the answer. What a scan of all instances would choose has the same score.

#[cfg(test)]
mod tests;

use crate::model::InstanceId;
use crate::model::instance::{Instance, Load};
use crate::model::room::{Block, Group, Head, Kind, Protocol, Room, SLOTS};

use super::filter::{Rules, rules};
use super::rank::{MAX_STRATEGIES, Strategy, mix, strategies};
use super::{Request, Spot, placed_reason};
use crate::model::decision::Reason;

/// Draws of `random` before it counts what fits: where one instance in ten does, one in a thousand placements counts.
const DRAWS: usize = 64;

/// Places the tasks of one request, one after the other, in a room that changes only by what is placed.
pub struct Placer<'a> {
    request: &'a Request<'a>,
    rules: Rules<'a>,
    strategies: Vec<Strategy<'a>>,
    kinds: Vec<Among>,
    /// Tasks of the group per attribute and value.
    counts: Vec<u64>,
    picks: u64,
    words: String,
}

/// A kind that a task may be placed on.
struct Among {
    kind: u32,
    /// Per strategy, an index into `Placer::counts`.
    domains: [usize; MAX_STRATEGIES],
    /// memberOf cannot be answered for the kind: each instance is asked.
    ask: bool,
    /// Nothing fits any more, and placing more makes no room.
    full: bool,
    /// No instance that fits runs fewer tasks of the group: placing more only raises it.
    least: u32,
}

/// Only instances with these numbers: what the strategies before have found to be best.
#[derive(Clone, Copy, Default)]
struct Limit {
    tasks: Option<u32>,
    cpu: Option<u32>,
    memory: Option<u32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Cpu,
    Memory,
}

/// An instance by its place in the room.
#[derive(Clone, Copy)]
struct At {
    among: usize,
    block: u32,
    slot: u32,
}

/// What an instance's row and load are, for expressions that ask about more than the kind knows.
pub type Look<'a> = &'a dyn Fn(&InstanceId, &mut dyn FnMut(&Instance, &Load));

/// One look at a room.
struct Search<'s> {
    placer: &'s Placer<'s>,
    room: &'s Room,
    group: Option<&'s Group>,
    look: Look<'s>,
}

impl<'a> Placer<'a> {
    /// None: the strategy spreads over an attribute that the room does not know apart, so [`super::place`] must do it.
    pub fn new(request: &'a Request<'a>, room: &Room) -> Option<Placer<'a>> {
        let mut strategies = strategies(request);
        let words = super::rank::words(&strategies);
        // No two draws are alike, so what comes after `random` breaks no tie.
        if let Some(random) = strategies.iter().position(|s| matches!(s, Strategy::Random)) {
            strategies.truncate(random + 1);
        }
        let mut placer =
            Placer { request, rules: rules(request), words, strategies, kinds: Vec::new(), counts: Vec::new(), picks: 0 };
        let group = room.group(request.group);
        let mut seen: Vec<(usize, Option<&str>)> = Vec::new();
        for (number, kind) in room.kinds() {
            let mut domains = [0; MAX_STRATEGIES];
            for (which, strategy) in placer.strategies.iter().enumerate() {
                let Strategy::SpreadAttribute(name) = strategy else { continue };
                let value = (which, kind.attribute(name)?);
                let domain = seen.iter().position(|known| *known == value).unwrap_or_else(|| {
                    seen.push(value);
                    placer.counts.push(0);
                    seen.len() - 1
                });
                placer.counts[domain] += group.map_or(0, |g| g.of_kind(number));
                domains[which] = domain;
            }
            let (may, ask) = placer.members(kind);
            if may {
                placer.kinds.push(Among { kind: number, domains, ask, full: false, least: 0 });
            }
        }
        Some(placer)
    }

    /// Whether instances of the kind may pass memberOf, and whether each must be asked.
    fn members(&self, kind: &Kind) -> (bool, bool) {
        let Some(attributes) = kind.attributes() else { return (true, !self.rules.member_of.is_empty()) };
        let mut ask = false;
        for member_of in &self.rules.member_of {
            match member_of.accepts_kind(attributes) {
                Some(false) => return (false, false),
                Some(true) => {}
                None => ask = true,
            }
        }
        (true, ask)
    }

    /// Where the next task goes, which the caller then puts there before it asks again. None: it fits nowhere.
    pub fn next(&mut self, room: &Room, look: Look) -> Option<(InstanceId, Reason)> {
        let random = mix(self.request.seed ^ mix(self.picks));
        self.picks += 1;
        let search = Search { placer: self, room, group: room.group(self.request.group), look };
        let mut score = [0; MAX_STRATEGIES];
        let mut learnt = Vec::new();
        let at = search.best(random, &mut score, &mut learnt);
        for news in learnt {
            match news {
                Learnt::Full(among) => self.kinds[among].full = true,
                Learnt::Least(among, least) => self.kinds[among].least = least,
            }
        }
        let at = at?;
        let (block, kind) = (room.block(at.block)?, room.kind(self.kinds[at.among].kind)?);
        let instance = block.id(at.slot)?.clone();
        for (which, strategy) in self.strategies.iter().enumerate() {
            if matches!(strategy, Strategy::SpreadAttribute(_)) {
                self.counts[self.kinds[at.among].domains[which]] += 1;
            }
        }
        let left = |free: u32, need: u32| free.saturating_sub(need);
        let reason = placed_reason(
            self.request,
            &Spot {
                instance: &instance,
                zone: kind.attribute(crate::model::room::ZONE).flatten().unwrap_or(""),
                cpu_left: left(block.free_cpu(at.slot), self.request.resources.cpu),
                memory_left: left(block.free_memory(at.slot), self.request.resources.memory),
            },
            &self.words,
            super::rank::explain(&self.strategies, &score),
            room.instances(),
            None,
        );
        Some((instance, reason))
    }
}

/// What a search finds out that stays true for the searches after it.
enum Learnt {
    Full(usize),
    Least(usize, u32),
}

impl<'s> Search<'s> {
    fn best(&self, random: u64, score: &mut [u64], learnt: &mut Vec<Learnt>) -> Option<At> {
        let mut limit = Limit::default();
        let mut left: Vec<usize> = (0..self.placer.kinds.len()).filter(|&n| !self.placer.kinds[n].full).collect();
        for (which, strategy) in self.placer.strategies.iter().enumerate() {
            score[which] = match strategy {
                Strategy::SpreadAttribute(_) => self.least_of_domains(which, &mut left, &limit, random, learnt)?,
                Strategy::SpreadInstances => {
                    let fresh = limit.cpu.is_none() && limit.memory.is_none();
                    let least = self.least_of_kinds(&mut left, |n| {
                        let floor = if fresh { self.placer.kinds[n].least } else { 0 };
                        let least = self.least_tasks(n, &limit, floor, random);
                        learnt.extend(least.filter(|_| fresh).map(|least| Learnt::Least(n, least)));
                        least
                    })?;
                    limit.tasks = Some(least);
                    u64::from(least)
                }
                Strategy::PackCpu => {
                    let least = self.least_of_kinds(&mut left, |n| self.least_free(n, &limit, Measure::Cpu))?;
                    limit.cpu = Some(least);
                    u64::from(least)
                }
                Strategy::PackMemory => {
                    let least = self.least_of_kinds(&mut left, |n| self.least_free(n, &limit, Measure::Memory))?;
                    limit.memory = Some(least);
                    u64::from(least)
                }
                Strategy::Random => return self.draw(&left, &limit, random),
            };
        }
        self.some(&left, &limit, random)
    }

    /// Keeps the kinds in the domains with the fewest tasks of the group that have an instance on which the task fits.
    fn least_of_domains(
        &self,
        which: usize,
        left: &mut Vec<usize>,
        limit: &Limit,
        random: u64,
        learnt: &mut Vec<Learnt>,
    ) -> Option<u64> {
        let count = |n: usize| self.placer.counts[self.placer.kinds[n].domains[which]];
        left.sort_by_key(|&n| count(n));
        let mut kept: Vec<usize> = Vec::with_capacity(left.len());
        for &n in left.iter() {
            if kept.first().is_some_and(|&first| count(first) < count(n)) {
                break;
            }
            if self.first(n, limit, random).is_some() {
                kept.push(n);
            } else if which == 0 {
                learnt.push(Learnt::Full(n));
            }
        }
        *left = kept;
        left.first().map(|&n| count(n))
    }

    fn least_of_kinds(&self, left: &mut Vec<usize>, mut measure: impl FnMut(usize) -> Option<u32>) -> Option<u32> {
        let measured: Vec<(usize, u32)> = left.iter().filter_map(|&n| Some((n, measure(n)?))).collect();
        let least = measured.iter().map(|(_, value)| *value).min()?;
        *left = measured.into_iter().filter(|(_, value)| *value == least).map(|(n, _)| n).collect();
        Some(least)
    }

    fn kind(&self, n: usize) -> Option<&'s Kind> {
        self.room.kind(self.placer.kinds[n].kind)
    }

    /// The blocks of a kind on which something may fit, from a place of chance on.
    fn heads(&self, n: usize, random: u64) -> impl Iterator<Item = &'s Head> + use<'s> {
        let heads = self.kind(n).map_or(&[][..], Kind::heads);
        let (before, after) = heads.split_at(random as usize % heads.len().max(1));
        let (cpu, memory) = (self.placer.request.resources.cpu, self.placer.request.resources.memory);
        after.iter().chain(before).filter(move |h| h.summary.most_cpu > cpu && h.summary.most_memory > memory)
    }

    /// The instances of a block on which the task fits, within the limit.
    fn mask(&self, n: usize, number: u32, limit: &Limit) -> u64 {
        let Some(block) = self.room.block(number) else { return 0 };
        let needs = self.placer.request.resources;
        let mut mask = block.fitting(needs.cpu, needs.memory);
        let tally = || self.group.and_then(|g| g.of_block(number));
        if self.placer.rules.distinct {
            mask &= tally().map_or(u64::MAX, |t| !t.any());
        }
        if let Some(tasks) = limit.tasks {
            mask &= tally().map_or(if tasks == 0 { u64::MAX } else { 0 }, |t| t.is(tasks));
        }
        for (protocol, ports) in [(Protocol::Tcp, &needs.tcp_ports), (Protocol::Udp, &needs.udp_ports)] {
            for &port in ports {
                mask &= !self.room.taken(protocol, port, number);
            }
        }
        if limit.cpu.is_some() || limit.memory.is_some() || self.placer.kinds[n].ask {
            let kept = |slot: u32| {
                limit.cpu.is_none_or(|cpu| block.free_cpu(slot) == cpu)
                    && limit.memory.is_none_or(|memory| block.free_memory(slot) == memory)
                    && (!self.placer.kinds[n].ask || self.is_member(block, slot))
            };
            mask = slots(mask).filter(|&slot| kept(slot)).fold(0, |kept, slot| kept | 1 << slot);
        }
        mask
    }

    fn is_member(&self, block: &Block, slot: u32) -> bool {
        let Some(id) = block.id(slot) else { return false };
        let mut member = false;
        (self.look)(id, &mut |instance, load| {
            member = self.placer.rules.member_of.iter().all(|m| m.accepts(instance, load));
        });
        member
    }

    fn first(&self, n: usize, limit: &Limit, random: u64) -> Option<At> {
        let turn = (random >> 32) as u32 % SLOTS;
        self.heads(n, random).find_map(|head| {
            let mask = self.mask(n, head.block, limit).rotate_right(turn);
            (mask != 0).then(|| At { among: n, block: head.block, slot: (mask.trailing_zeros() + turn) % SLOTS })
        })
    }

    fn least_tasks(&self, n: usize, limit: &Limit, floor: u32, random: u64) -> Option<u32> {
        let mut least = None;
        for head in self.heads(n, random) {
            let mask = self.mask(n, head.block, limit);
            if mask == 0 {
                continue;
            }
            let here = self.group.and_then(|g| g.of_block(head.block)).map_or(0, |t| t.least(mask));
            least = Some(least.map_or(here, |least: u32| least.min(here)));
            if here <= floor {
                break;
            }
        }
        least
    }

    fn least_free(&self, n: usize, limit: &Limit, measure: Measure) -> Option<u32> {
        let mut least = None;
        for head in self.heads(n, 0) {
            let at_least = match measure {
                Measure::Cpu => head.summary.least_cpu,
                Measure::Memory => head.summary.least_memory,
            };
            // The summary counts one more than is free.
            if least.is_some_and(|least| at_least > least) {
                continue;
            }
            let Some(block) = self.room.block(head.block) else { continue };
            let free = |slot| if measure == Measure::Cpu { block.free_cpu(slot) } else { block.free_memory(slot) };
            least = slots(self.mask(n, head.block, limit)).map(free).chain(least).min();
        }
        least
    }

    /// Any of the instances that are equally good: kinds by how many instances they have, so that none of them is preferred.
    fn some(&self, left: &[usize], limit: &Limit, random: u64) -> Option<At> {
        let first = self.weighted(left, random)?;
        (0..left.len()).find_map(|step| self.first(left[(first + step) % left.len()], limit, mix(random)))
    }

    fn weighted(&self, left: &[usize], random: u64) -> Option<usize> {
        let open = |n: usize| u64::from(self.kind(n).map_or(0, Kind::open));
        let all: u64 = left.iter().map(|&n| open(n)).sum();
        let mut at = random.checked_rem(all)?;
        left.iter().position(|&n| {
            let here = at < open(n);
            at = at.saturating_sub(open(n));
            here
        })
    }

    /// Each of the instances with the same chance: drawn and drawn again while it does not fit, or counted where few do.
    fn draw(&self, left: &[usize], limit: &Limit, mut random: u64) -> Option<At> {
        let blocks = |n: usize| self.kind(n).map_or(0, |kind| kind.heads().len());
        let all: usize = left.iter().map(|&n| blocks(n)).sum();
        for _ in 0..if all == 0 { 0 } else { DRAWS } {
            random = mix(random);
            let (mut at, slot) = (random as u32 as usize % all, (random >> 32) as u32 % SLOTS);
            let Some(&n) = left.iter().find(|&&n| {
                let here = at < blocks(n);
                at -= if here { 0 } else { blocks(n) };
                here
            }) else {
                break;
            };
            let Some(head) = self.kind(n).and_then(|kind| kind.heads().get(at)) else { break };
            if self.mask(n, head.block, limit) >> slot & 1 == 1 {
                return Some(At { among: n, block: head.block, slot });
            }
        }
        let fitting: Vec<(usize, u32, u64)> =
            left.iter().flat_map(|&n| self.heads(n, 0).map(move |h| (n, h.block, self.mask(n, h.block, limit)))).collect();
        let all: u64 = fitting.iter().map(|(_, _, mask)| u64::from(mask.count_ones())).sum();
        let mut at = mix(random).checked_rem(all)?;
        for (among, block, mask) in fitting {
            let here = u64::from(mask.count_ones());
            if at < here {
                return slots(mask).nth(at as usize).map(|slot| At { among, block, slot });
            }
            at -= here;
        }
        None
    }
}

fn slots(mut mask: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let slot = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some(slot)
    })
}
