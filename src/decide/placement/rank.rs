//! Where a task runs best: strategies in their order, the next one breaking the ties of the one before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde_json::{Value, json};

use super::{Request, Slot};

/// PlacementStrategy: "You can specify a maximum of 5 strategy rules per service"; more are cut off here, refused by `check`.
pub(super) const MAX_STRATEGIES: usize = 5;

/// Smallest is best. Derived ordering: the criteria one after the other, then the tie, then the place in the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// One per strategy; 0 where the strategy spreads over an attribute, for that is the same for all of a heap.
    criteria: [u64; MAX_STRATEGIES],
    tie: u64,
    slot: usize,
}

#[derive(Clone, Copy)]
pub(super) enum Strategy<'a> {
    SpreadInstances,
    SpreadAttribute(&'a str),
    PackCpu,
    PackMemory,
    Random,
}

/// The instances that agree in every attribute that the strategy spreads over, and of these the ones that a task fits on.
struct Bucket {
    /// Per strategy, an index into `Ranking::counts`.
    domains: [usize; MAX_STRATEGIES],
    fitting: BinaryHeap<Reverse<Score>>,
}

pub(super) struct Ranking<'a> {
    strategies: Vec<Strategy<'a>>,
    group: &'a str,
    seed: u64,
    buckets: Vec<Bucket>,
    /// Slot to bucket.
    bucket_of: Vec<usize>,
    /// Tasks of the group per attribute and value.
    counts: Vec<u64>,
    /// Slot to the moment of its next turn in the race that `random` is.
    turns: Vec<u64>,
    /// Of the slot chosen last, before it was given the task.
    last: [u64; MAX_STRATEGIES],
}

pub(super) fn ranking<'a>(request: &Request<'a>, slots: &[Slot]) -> Ranking<'a> {
    let mut ranking = Ranking {
        strategies: strategies(request),
        group: request.group,
        seed: request.seed,
        buckets: Vec::new(),
        bucket_of: Vec::with_capacity(slots.len()),
        counts: Vec::new(),
        turns: Vec::with_capacity(slots.len()),
        last: [0; MAX_STRATEGIES],
    };
    // An instance without the attribute belongs to a domain of its own kind, that of the instances without it.
    let mut domains: BTreeMap<(usize, Option<&str>), usize> = BTreeMap::new();
    let mut buckets: BTreeMap<[usize; MAX_STRATEGIES], usize> = BTreeMap::new();
    for (at, slot) in slots.iter().enumerate() {
        let mut of_slot = [0; MAX_STRATEGIES];
        for (which, strategy) in ranking.strategies.iter().enumerate() {
            if let Strategy::SpreadAttribute(name) = strategy {
                let value = slot.instance.attributes.get(*name).and_then(|v| v.as_deref());
                let next = ranking.counts.len();
                let domain = *domains.entry((which, value)).or_insert(next);
                if domain == next {
                    ranking.counts.push(0);
                }
                ranking.counts[domain] += u64::from(slot.group_tasks(request.group));
                of_slot[which] = domain;
            }
        }
        let next = ranking.buckets.len();
        let bucket = *buckets.entry(of_slot).or_insert(next);
        if bucket == next {
            ranking.buckets.push(Bucket { domains: of_slot, fitting: BinaryHeap::new() });
        }
        ranking.bucket_of.push(bucket);
        let id = hash(request.seed, slot.instance.id.as_str());
        ranking.turns.push(waiting_time(id));
        if slot.failed.is_none() {
            let score = ranking.score(at, slot);
            ranking.buckets[bucket].fitting.push(Reverse(score));
        }
    }
    ranking
}

/// ECS: a service without a strategy is balanced over zones, then over instances; RunTask without one is random.
pub(super) fn strategies<'a>(request: &Request<'a>) -> Vec<Strategy<'a>> {
    if request.strategy.is_empty() {
        return match request.of_service {
            true => vec![Strategy::SpreadAttribute("ecs.availability-zone"), Strategy::SpreadInstances],
            false => vec![Strategy::Random],
        };
    }
    let read = request.strategy.iter().take(MAX_STRATEGIES).filter_map(|s| {
        let field = s.field.as_deref().unwrap_or("");
        match (s.kind.as_deref()?, field) {
            ("random", _) => Some(Strategy::Random),
            ("spread", "instanceId" | "host") => Some(Strategy::SpreadInstances),
            ("spread", _) => field.strip_prefix("attribute:").map(Strategy::SpreadAttribute),
            // The console writes CPU and MEMORY.
            ("binpack", _) if field.eq_ignore_ascii_case("cpu") => Some(Strategy::PackCpu),
            ("binpack", _) if field.eq_ignore_ascii_case("memory") => Some(Strategy::PackMemory),
            _ => None,
        }
    });
    read.collect()
}

impl Ranking<'_> {
    /// The slot that the next task goes to.
    pub fn best(&mut self) -> Option<usize> {
        let heads = self.buckets.iter().filter_map(|bucket| {
            let Reverse(head) = bucket.fitting.peek()?;
            Some(self.across(*head, bucket))
        });
        let best = heads.min()?;
        self.last = best.criteria;
        Some(best.slot)
    }

    /// The slot chosen by `best` was given its task.
    pub fn placed(&mut self, at: usize, slot: &Slot) {
        self.turns[at] =
            self.turns[at].saturating_add(waiting_time(mix(self.turns[at] ^ hash(self.seed, slot.instance.id.as_str()))));
        let bucket = self.bucket_of[at];
        let domains = self.buckets[bucket].domains;
        for (which, strategy) in self.strategies.iter().enumerate() {
            if matches!(strategy, Strategy::SpreadAttribute(_)) {
                self.counts[domains[which]] += 1;
            }
        }
        self.buckets[bucket].fitting.pop();
        if slot.failed.is_none() {
            let score = self.score(at, slot);
            self.buckets[bucket].fitting.push(Reverse(score));
        }
    }

    fn score(&self, at: usize, slot: &Slot) -> Score {
        let mut criteria = [0; MAX_STRATEGIES];
        for (criterion, strategy) in criteria.iter_mut().zip(&self.strategies) {
            *criterion = match strategy {
                Strategy::SpreadAttribute(_) => 0,
                Strategy::SpreadInstances => u64::from(slot.group_tasks(self.group)),
                // The task is the same everywhere, so least left after it is least free before it.
                Strategy::PackCpu => u64::from(slot.free_cpu()),
                Strategy::PackMemory => u64::from(slot.free_memory()),
                Strategy::Random => self.turns[at],
            };
        }
        Score { criteria, tie: hash(self.seed, slot.instance.id.as_str()), slot: at }
    }

    /// A score that can be compared with those of other buckets.
    fn across(&self, mut score: Score, bucket: &Bucket) -> Score {
        for (which, strategy) in self.strategies.iter().enumerate() {
            if matches!(strategy, Strategy::SpreadAttribute(_)) {
                score.criteria[which] = self.counts[bucket.domains[which]];
            }
        }
        score
    }

    pub fn words(&self) -> String {
        words(&self.strategies)
    }

    /// What the slot chosen last was chosen by.
    pub fn explain(&self) -> Value {
        explain(&self.strategies, &self.last)
    }
}

/// The strategy as people write it.
pub(super) fn words(strategies: &[Strategy]) -> String {
    let words: Vec<String> = strategies.iter().map(Strategy::words).collect();
    if words.is_empty() { "no strategy".to_owned() } else { words.join(", ") }
}

/// Each strategy and its number, the smallest there was.
pub(super) fn explain(strategies: &[Strategy], score: &[u64]) -> Value {
    let explained = strategies.iter().zip(score).map(|(strategy, value)| match strategy {
        Strategy::Random => json!({ "by": strategy.words() }),
        _ => json!({ "by": strategy.words(), "value": value }),
    });
    explained.collect()
}

impl Strategy<'_> {
    fn words(&self) -> String {
        match self {
            Strategy::SpreadInstances => "spread(instanceId)".to_owned(),
            Strategy::SpreadAttribute(name) => format!("spread(attribute:{name})"),
            Strategy::PackCpu => "binpack(cpu)".to_owned(),
            Strategy::PackMemory => "binpack(memory)".to_owned(),
            Strategy::Random => "random".to_owned(),
        }
    }
}

/// `random` is a race: every instance waits exponentially distributed times between its turns, and the earliest turn wins. That is
/// a fair draw each time, although only the winner draws anew (independent Poisson processes have no memory).
fn waiting_time(random: u64) -> u64 {
    // 53 bits make a double in (0, 1]; 2^32 units on average leave room for 2^32 turns.
    let uniform = ((random >> 11) + 1) as f64 / (1u64 << 53) as f64;
    (-uniform.ln() * 4_294_967_296.0) as u64 + 1
}

/// FNV-1a, then mixed: the same on every machine, so that a run can be repeated.
fn hash(seed: u64, text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mix(fnv ^ mix(seed))
}

/// The finishing step of SplitMix64.
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
