//! What the store knows in memory: groups, streams, the index of their blocks, and how far each source has come. Changed only by
//! [`State::apply`] and [`State::append`], alike when a change is made and when it is replayed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::block::Summary;
use super::segment::Block;
use super::wal::{Lines, Progress};
use crate::model::Timestamp;
use crate::model::log::ResumePoint;

/// A change of what there is besides events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Op {
    CreateGroup {
        name: String,
        at: Timestamp,
        class: String,
        tags: BTreeMap<String, String>,
        retention_days: Option<u32>,
    },
    DeleteGroup {
        name: String,
    },
    CreateStream {
        group: String,
        name: String,
        id: u64,
        at: Timestamp,
    },
    DeleteStream {
        group: String,
        name: String,
    },
    Retention {
        group: String,
        days: Option<u32>,
    },
    Tag {
        group: String,
        tags: BTreeMap<String, String>,
    },
    Untag {
        group: String,
        keys: Vec<String>,
    },
    /// Events of the stream below `base` are gone.
    Expire {
        stream: u64,
        base: u64,
    },
    ForgetSource {
        source: String,
    },
    Reset,
}

impl Op {
    pub fn takes_away(&self) -> bool {
        matches!(self, Op::DeleteGroup { .. } | Op::DeleteStream { .. } | Op::Expire { .. } | Op::ForgetSource { .. } | Op::Reset)
    }
}

#[derive(Default)]
pub struct State {
    pub groups: BTreeMap<String, Group>,
    /// By id: where a stream is found.
    pub names: HashMap<u64, (Arc<str>, Arc<str>)>,
    pub sources: HashMap<String, Source>,
    pub next_stream: u64,
    /// Bytes in open blocks, all streams together.
    pub open_bytes: u64,
    /// Blocks found on disk whose stream is not known yet, while the store opens.
    pub unclaimed: HashMap<u64, Vec<Block>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Source {
    pub next: u64,
    pub resume: String,
    pub at: i64,
}

pub struct Group {
    pub created: Timestamp,
    pub class: String,
    pub retention_days: Option<u32>,
    pub tags: BTreeMap<String, String>,
    pub streams: BTreeMap<Arc<str>, Stream>,
}

/// Blocks are in order of their first event's number, the open block behind them all.
pub struct Stream {
    pub id: u64,
    pub created: Timestamp,
    pub blocks: Vec<Block>,
    pub open: Open,
    /// Events below this number are gone: retention, or the store's own bound.
    pub base: u64,
    pub first_event: Option<i64>,
    pub last_event: Option<i64>,
    pub last_ingestion: Option<i64>,
    /// Lines that the agent knows to be lost.
    pub lost: u64,
}

pub struct Open {
    pub summary: Summary,
    pub bytes: Vec<u8>,
}

impl Stream {
    pub fn next(&self) -> u64 {
        self.open.summary.end()
    }

    /// Raw bytes held, for `storedBytes`.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|b| u64::from(b.raw)).sum::<u64>() + self.open.bytes.len() as u64
    }

    fn oldest(&self) -> Option<i64> {
        let open = Some(&self.open.summary).filter(|s| s.count > 0);
        self.blocks.iter().map(|b| &b.summary).chain(open).map(|s| s.min).min()
    }
}

impl State {
    pub fn stream(&self, group: &str, name: &str) -> Option<&Stream> {
        self.groups.get(group)?.streams.get(name)
    }

    pub fn find(&self, id: u64) -> Option<&Stream> {
        let (group, name) = self.names.get(&id)?;
        self.stream(group, name)
    }

    pub fn by_id(&mut self, id: u64) -> Option<&mut Stream> {
        let (group, name) = self.names.get(&id)?;
        self.groups.get_mut(&**group)?.streams.get_mut(name)
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::CreateGroup { name, at, class, tags, retention_days } => {
                let (created, class, tags) = (*at, class.clone(), tags.clone());
                let group = Group { created, class, retention_days: *retention_days, tags, streams: BTreeMap::new() };
                self.groups.insert(name.clone(), group);
            }
            Op::DeleteGroup { name } => {
                if let Some(group) = self.groups.remove(name) {
                    group.streams.values().for_each(|s| self.forget(s));
                }
            }
            Op::CreateStream { group, name, id, at } => self.create_stream(group, name, *id, *at),
            Op::DeleteStream { group, name } => {
                let removed = self.groups.get_mut(group).and_then(|g| g.streams.remove(name.as_str()));
                removed.iter().for_each(|s| self.forget(s));
            }
            Op::Retention { group, days } => {
                self.groups.entry(group.clone()).and_modify(|g| g.retention_days = *days);
            }
            Op::Tag { group, tags } => {
                self.groups.entry(group.clone()).and_modify(|g| g.tags.extend(tags.clone()));
            }
            Op::Untag { group, keys } => {
                self.groups.entry(group.clone()).and_modify(|g| g.tags.retain(|k, _| !keys.contains(k)));
            }
            Op::Expire { stream, base } => self.expire(*stream, *base),
            Op::ForgetSource { source } => {
                self.sources.remove(source);
            }
            // Ids are never used twice, so that no old block can be taken for a new stream's.
            Op::Reset => {
                let unclaimed = std::mem::take(&mut self.unclaimed);
                *self = State { next_stream: self.next_stream, unclaimed, ..State::default() };
            }
        }
    }

    fn forget(&mut self, stream: &Stream) {
        self.names.remove(&stream.id);
        self.open_bytes -= stream.open.bytes.len() as u64;
    }

    pub fn create_stream(&mut self, group: &str, name: &str, id: u64, at: Timestamp) {
        self.next_stream = self.next_stream.max(id + 1);
        let blocks = self.unclaimed.remove(&id).unwrap_or_default();
        let next = blocks.last().map_or(0, |b| b.summary.end());
        let base = blocks.first().map_or(0, |b| b.summary.first);
        let open = Open { summary: Summary::empty(next), bytes: Vec::new() };
        let name: Arc<str> = name.into();
        let mut stream =
            Stream { id, created: at, blocks, open, base, first_event: None, last_event: None, last_ingestion: None, lost: 0 };
        stream.first_event = stream.oldest();
        stream.last_event = stream.blocks.iter().map(|b| b.summary.max).max();
        if let Some(group_of) = self.groups.get_mut(group) {
            group_of.streams.insert(name.clone(), stream);
            self.names.insert(id, (group.into(), name));
        }
    }

    fn expire(&mut self, id: u64, base: u64) {
        let mut freed = 0;
        if let Some(stream) = self.by_id(id) {
            stream.base = stream.base.max(base);
            stream.blocks.retain(|b| b.summary.end() > base);
            if stream.open.summary.end() <= base {
                freed = stream.open.bytes.len() as u64;
                stream.open = Open { summary: Summary::empty(base), bytes: Vec::new() };
            }
            stream.first_event = stream.oldest();
        }
        self.open_bytes -= freed;
    }

    /// Adds events that are durable by now; what the stream has already is skipped. Answers the bytes in its open block.
    pub fn append(&mut self, lines: &Lines) -> usize {
        if let Some(progress) = &lines.source {
            self.advance(progress, lines.ingested);
        }
        let Some(stream) = self.by_id(lines.stream) else { return 0 };
        stream.lost += lines.source.as_ref().map_or(0, |p| p.lost);
        if lines.summary.count > 0 {
            stream.last_ingestion = stream.last_ingestion.max(Some(lines.ingested));
        }
        if lines.summary.count == 0 || lines.summary.first < stream.next() {
            return stream.open.bytes.len();
        }
        if stream.open.summary.count == 0 {
            stream.open.summary = Summary::empty(lines.summary.first);
            if stream.blocks.is_empty() {
                stream.base = stream.base.max(lines.summary.first);
            }
        }
        stream.open.summary.add(&lines.summary);
        stream.open.bytes.extend_from_slice(&lines.bytes);
        stream.first_event = Some(stream.first_event.map_or(lines.summary.min, |t| t.min(lines.summary.min)));
        stream.last_event = Some(stream.last_event.map_or(lines.summary.max, |t| t.max(lines.summary.max)));
        let open = stream.open.bytes.len();
        self.open_bytes += lines.bytes.len() as u64;
        open
    }

    fn advance(&mut self, progress: &Progress, at: i64) {
        if self.sources.get(&progress.source).is_none_or(|known| known.next <= progress.next) {
            let source = Source { next: progress.next, resume: progress.resume.clone(), at };
            self.sources.insert(progress.source.clone(), source);
        }
    }

    pub fn resume_point(&self, source: &str) -> Option<ResumePoint> {
        let known = self.sources.get(source)?;
        Some(ResumePoint { source: source.to_owned(), next: known.next, resume: known.resume.clone() })
    }

    /// A stream's open block has become `block`.
    pub fn sealed(&mut self, id: u64, block: Block) {
        let mut freed = 0;
        if let Some(stream) = self.by_id(id) {
            freed = stream.open.bytes.len() as u64;
            stream.open = Open { summary: Summary::empty(block.summary.end()), bytes: Vec::new() };
            stream.blocks.push(block);
        }
        self.open_bytes -= freed;
    }
}
