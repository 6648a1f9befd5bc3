//! What must always hold, judged from outside: by the commits, by what is on disk after a crash, by what clients were told, and by
//! what runs on the hosts. Nothing here asks `decide`; the bounds are counted anew. One file per kind of rule.

mod hosts;
mod instance;
mod journal;
mod rest;
mod service;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::clients::Clients;
use super::host::Host;
use super::seen::Seen;
use crate::model::decision::{Decision, Subject};
use crate::model::service::Service;
use crate::model::{ServiceKey, TaskId, Timestamp};
use crate::store::{Change, Commit, Record, State};

/// A run that is broken all over is not told of in full.
const MOST_BREACHES: usize = 50;

/// What is broken by a breach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The checks themselves saw everything.
    Checks,
    /// What was durable is there after a crash, and nothing else.
    Durable,
    /// What a client was told is there.
    Acknowledged,
    /// No task runs twice, and no container.
    Once,
    /// No instance has more than it can carry.
    Capacity,
    /// Our own hand keeps a service within its two percentages.
    Percent,
    /// Policies scale within their target's bounds.
    Scaling,
    /// A task only goes on, never back.
    Order,
    /// Whatever is decided has a reason.
    Ledger,
    /// Without faults everything comes to what was asked for.
    Settled,
    /// Commits, added up, are the state.
    Live,
    /// The journal on disk, replayed, is the state.
    Journal,
}

impl Rule {
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Checks => "checks",
            Rule::Durable => "durable",
            Rule::Acknowledged => "acknowledged",
            Rule::Once => "once",
            Rule::Capacity => "capacity",
            Rule::Percent => "percent",
            Rule::Scaling => "scaling",
            Rule::Order => "order",
            Rule::Ledger => "ledger",
            Rule::Settled => "settled",
            Rule::Live => "live",
            Rule::Journal => "journal",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Breach {
    pub at: Timestamp,
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}: {}", self.at.clock(), self.rule.as_str(), self.what)
    }
}

#[derive(Default)]
pub struct Checks {
    pub seen: Seen,
    pub breaches: Vec<Breach>,
    pub commits: u64,
    pub decisions: u64,
    /// Of everything that was committed, in order: two runs with the same digest did the same.
    pub digest: u32,
    /// Every decision, when somebody wants to read them.
    pub ledger: Option<Vec<(Timestamp, Decision)>>,
    /// The world's time.
    pub now: Timestamp,
}

impl Checks {
    pub fn breach(&mut self, rule: Rule, what: String) {
        if self.breaches.len() < MOST_BREACHES {
            self.breaches.push(Breach { at: self.now, rule, what });
        }
    }

    fn all(&mut self, rule: Rule, what: impl IntoIterator<Item = String>) {
        what.into_iter().for_each(|what| self.breach(rule, what));
    }

    /// At the start of each life of the control plane, before it does anything: what it found on disk.
    pub fn compare_disk(&mut self, found: &State) {
        if self.commits > 0
            && let Some(difference) = self.seen.differs(found)
        {
            self.breach(Rule::Durable, format!("a crash lost or changed what was durable: {difference}"));
        }
        let forgotten = std::mem::take(&mut self.seen.forgotten);
        self.seen = Seen::of(found);
        self.seen.forgotten = forgotten;
    }

    pub fn compare_clients(&mut self, clients: &Clients, state: &State) {
        self.all(Rule::Acknowledged, clients.missing(state, &self.seen));
    }

    pub fn compare_live(&mut self, state: &State) {
        self.all(Rule::Live, self.seen.differs(state).map(|d| format!("the commits do not add up to the state: {d}")));
    }

    /// What the files in `dir` tell of all commits so far.
    pub fn compare_journal(&mut self, dir: &Path, state: &State) {
        self.all(Rule::Journal, journal::differs(dir, state));
    }

    pub fn commit(&mut self, commit: &Commit) {
        self.commits += 1;
        if commit.revision != self.seen.revision + 1 {
            self.breach(Rule::Durable, format!("commit {} follows {}", commit.revision, self.seen.revision));
        }
        self.digest(commit);
        let explained = self.explained(commit);
        let before: BTreeMap<ServiceKey, Arc<Service>> = self.seen.services.clone();
        let mut moves: BTreeMap<ServiceKey, service::Moves> = BTreeMap::new();
        let mut instances = BTreeSet::new();
        for change in &commit.changes {
            if let Change::Task(id, Some(new)) = change {
                let old = self.seen.tasks.get(id).cloned();
                instances.insert(new.instance.clone());
                for (rule, what) in task::judge(old.as_deref(), new, explained.contains(id)) {
                    self.breach(rule, what);
                }
                if let Some(key) = new.service_key() {
                    let moves =
                        moves.entry(key.clone()).or_insert_with(|| service::Moves::from(service::serving(&self.seen, &key)));
                    moves.note(old.as_deref(), new);
                }
            }
            self.seen.apply(change);
        }
        self.seen.revision = commit.revision;
        for (key, moved) in moves {
            self.all(Rule::Percent, service::within_percents(&self.seen, &key, before.get(&key), &moved));
        }
        for change in &commit.changes {
            if let Change::Service(key, Some(new)) = change {
                self.all(Rule::Scaling, service::within_target(&self.seen, before.get(key).map(|s| s.desired_count), new));
            }
        }
        for id in instances {
            self.all(Rule::Capacity, instance::overcommitted(&self.seen, &id));
        }
    }

    fn digest(&mut self, commit: &Commit) {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.digest);
        hasher.update(&commit.at.0.to_le_bytes());
        // A call's cause ends in its request's id, which is of no seed.
        let kinds = commit.causes.iter().filter_map(|cause| cause.split(' ').next());
        kinds.for_each(|kind| hasher.update(kind.as_bytes()));
        for record in &commit.records {
            match record {
                Record::Decision(decision) => hasher.update(decision.reason.sentence.as_bytes()),
                Record::Alarm(history) => hasher.update(history.summary.as_bytes()),
            }
        }
        for change in &commit.changes {
            if let Change::Task(id, task) = change {
                hasher.update(id.as_str().as_bytes());
                let status = task.as_ref().map_or(0, |task| 1 + task.last_status as u8 + 16 * u8::from(task.is_stopping()));
                hasher.update(&[status]);
            }
        }
        self.digest = hasher.finalize();
    }

    /// The tasks that this commit gives a reason for, and that every reason says something.
    fn explained(&mut self, commit: &Commit) -> BTreeSet<TaskId> {
        let mut tasks = BTreeSet::new();
        for record in &commit.records {
            let Record::Decision(decision) = record else { continue };
            self.decisions += 1;
            if decision.reason.sentence.is_empty() || decision.action.is_empty() {
                self.breach(Rule::Ledger, format!("a decision without a reason: {decision:?}"));
            }
            if let Some(ledger) = &mut self.ledger {
                ledger.push((self.now, decision.clone()));
            }
            if let Subject::Task { task, .. } = &decision.subject {
                tasks.insert(task.clone());
            }
        }
        tasks
    }

    /// No container twice, and no task on two hosts.
    pub fn look_at_hosts(&mut self, hosts: &[Host], now: Timestamp) {
        self.now = now;
        let running = hosts.iter().enumerate().flat_map(|(n, host)| host.running().map(move |(task, name, _)| (n, task, name)));
        let twice = hosts::twice(running);
        self.all(Rule::Once, twice);
    }

    /// What is not as it was asked for: nothing, when a world without faults has come to rest.
    pub fn unsettled(&self, hosts: &[Host]) -> Vec<String> {
        rest::unsettled(&self.seen, hosts)
    }
}
