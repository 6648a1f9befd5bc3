//! A journal told line by line: each commit with its causes and what it changed, and below it the decisions that it holds.

use std::collections::BTreeSet;
use std::iter::Peekable;

use serde_json::{Value, json};

use crate::model::decision::Decision;
use crate::model::{ServiceKey, TaskId, Timestamp};
use crate::store::journal::{Journal, Wanted};
use crate::store::{Change, Commit, Error, Record, RecordKind};

/// Of one kind in one commit, so many are named.
const NAMED: usize = 3;

#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    Commit { at: Timestamp, revision: u64, causes: Vec<String>, changes: Vec<String> },
    Decision { number: u64, decision: Decision },
}

impl Line {
    pub fn at(&self) -> Timestamp {
        match self {
            Line::Commit { at, .. } => *at,
            Line::Decision { decision, .. } => decision.at,
        }
    }

    pub fn json(&self) -> Value {
        match self {
            Line::Commit { at, revision, causes, changes } => {
                json!({ "kind": "commit", "at": at.iso(), "revision": revision, "causes": causes, "changes": changes })
            }
            Line::Decision { number, decision } => json!({
                "kind": "decision", "at": decision.at.iso(), "seq": number, "subject": decision.subject.path(),
                "action": decision.action, "code": decision.reason.code, "reason": decision.reason.sentence,
                "evidence": decision.reason.evidence,
            }),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub service: Option<ServiceKey>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub decisions_only: bool,
}

/// Where a reader stands, to go on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub revision: u64,
    pub record: u64,
}

type Read<'a, T> = Peekable<Box<dyn Iterator<Item = Result<T, Error>> + 'a>>;

/// The lines in order. A commit's decisions carry its time, which is what puts them below it: numbers join them to nothing.
pub struct Lines<'a> {
    filter: Filter,
    place: Place,
    of_service: BTreeSet<TaskId>,
    commits: Option<Read<'a, Commit>>,
    records: Read<'a, (u64, Record)>,
}

pub fn lines<'a>(journal: &'a Journal, filter: Filter, from: Place) -> Result<Lines<'a>, Error> {
    let wanted = Wanted {
        kind: Some(RecordKind::Decision),
        service: filter.service.as_ref().map(ToString::to_string),
        since: filter.since,
        until: filter.until,
        after: from.record,
    };
    let records: Box<dyn Iterator<Item = _>> = Box::new(journal.records(wanted));
    let commits = if filter.decisions_only {
        None
    } else {
        let first = filter.since.map(|since| journal.revision_at(since)).transpose()?.flatten().unwrap_or(0);
        let commits: Box<dyn Iterator<Item = _>> = Box::new(journal.commits(first.max(from.revision + 1)));
        Some(commits.peekable())
    };
    Ok(Lines { filter, place: from, of_service: BTreeSet::new(), commits, records: records.peekable() })
}

impl Lines<'_> {
    /// The last commit and record that were read, told or not.
    pub fn place(&self) -> Place {
        self.place
    }

    fn next_line(&mut self) -> Result<Option<Line>, Error> {
        loop {
            let commit_at = match self.commits.as_mut().and_then(Peekable::peek) {
                Some(Ok(commit)) => Some(commit.at),
                Some(Err(error)) => return Err(error.clone()),
                None => None,
            };
            let record_at = match self.records.peek() {
                Some(Ok((_, record))) => Some(record.at()),
                Some(Err(error)) => return Err(error.clone()),
                None => None,
            };
            let record_first = match (record_at, commit_at) {
                (Some(record), Some(commit)) => record < commit,
                (record, _) => record.is_some(),
            };
            if record_first {
                let Some(Ok((number, record))) = self.records.next() else { return Ok(None) };
                self.place.record = number;
                if let Record::Decision(decision) = record {
                    return Ok(Some(Line::Decision { number, decision }));
                }
                continue;
            }
            let Some(Ok(commit)) = self.commits.as_mut().and_then(Iterator::next) else { return Ok(None) };
            self.place.revision = commit.revision;
            if self.filter.until.is_some_and(|until| commit.at > until) {
                self.commits = None;
                continue;
            }
            let changes: Vec<&Change> = commit.changes.iter().filter(|change| self.is_asked(change)).collect();
            let all = self.filter.service.is_none();
            if all || !changes.is_empty() {
                let changes = told(&changes);
                return Ok(Some(Line::Commit { at: commit.at, revision: commit.revision, causes: commit.causes, changes }));
            }
        }
    }

    fn is_asked(&mut self, change: &Change) -> bool {
        let Some(service) = &self.filter.service else { return true };
        match change {
            Change::Service(key, _) | Change::Target(key, _) => key == service,
            Change::Policy((key, _), _) | Change::Activity((key, ..), _) => key == service,
            Change::Task(id, Some(task)) if task.service_key().as_ref() == Some(service) => {
                self.of_service.insert(id.clone());
                true
            }
            // One that is forgotten does not say whose it was.
            Change::Task(id, None) => self.of_service.remove(id),
            Change::Alarm(_, Some(alarm)) => crate::schedule::scaling::service_of(alarm).as_ref() == Some(service),
            _ => false,
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

/// `task 01234567 RUNNING`, `3 tasks` where there are many of a kind, in the order in which they were changed.
fn told(changes: &[&Change]) -> Vec<String> {
    let mut kinds: Vec<(&'static str, Vec<String>)> = Vec::new();
    for change in changes {
        let (kind, text) = one(change);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, texts)) => texts.push(text),
            None => kinds.push((kind, vec![text])),
        }
    }
    let told = |(kind, mut texts): (&str, Vec<String>)| {
        texts.dedup();
        match texts.len() {
            0..=NAMED => texts.into_iter().map(|text| format!("{kind} {text}")).collect(),
            many => vec![format!("{many} of {kind}")],
        }
    };
    kinds.into_iter().flat_map(told).collect()
}

fn one(change: &Change) -> (&'static str, String) {
    fn of<V>(key: impl std::fmt::Display, row: &Option<V>, say: impl FnOnce(&V) -> String) -> String {
        match row {
            Some(row) => format!("{key} {}", say(row)).trim_end().to_owned(),
            None => format!("{key} forgotten"),
        }
    }
    let short = |id: &str| id.get(..8).unwrap_or(id).to_owned();
    match change {
        Change::Cluster(key, row) => ("cluster", of(key, row, |_| String::new())),
        Change::Definition(key, row) => ("definition", of(key, row, |_| String::new())),
        Change::Service(key, row) => ("service", of(key, row, |service| format!("desired {}", service.desired_count))),
        Change::Task(id, row) => ("task", of(short(id.as_str()), row, |task| task.last_status.as_str().to_owned())),
        Change::Instance(id, row) => ("instance", of(short(id.as_str()), row, |instance| instance.status.as_str().to_owned())),
        Change::Alarm(name, row) => ("alarm", of(name, row, |alarm| alarm.state.as_str().to_owned())),
        Change::Target(key, row) => ("target", of(key, row, |target| format!("{} to {}", target.min, target.max))),
        Change::Policy((key, name), row) => ("policy", of(format!("{key}/{name}"), row, |_| String::new())),
        Change::Activity((key, ..), row) => ("activity", of(key, row, |activity| activity.status.as_str().to_owned())),
    }
}
