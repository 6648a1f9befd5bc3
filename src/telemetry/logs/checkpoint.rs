//! The snapshot of everything but events, so that the write-ahead log can be cut: written beside, synced, then renamed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use super::state::{Op, Source, State};
use super::wal::{numbered, sync_dir};
use crate::model::Timestamp;

#[derive(Default, Serialize, Deserialize)]
pub struct Snapshot {
    format: u32,
    /// The first write-ahead log file that holds what this snapshot does not.
    pub wal: u64,
    /// The first segment of which the end was perhaps not synced.
    pub segment: u64,
    /// Up to here that one was synced.
    #[serde(default)]
    pub segment_length: u64,
    next_stream: u64,
    groups: Vec<SavedGroup>,
    sources: HashMap<String, Source>,
}

#[derive(Serialize, Deserialize)]
struct SavedGroup {
    name: String,
    created: Timestamp,
    class: String,
    retention_days: Option<u32>,
    tags: BTreeMap<String, String>,
    streams: Vec<SavedStream>,
}

#[derive(Serialize, Deserialize)]
struct SavedStream {
    name: String,
    id: u64,
    created: Timestamp,
    base: u64,
    last_event: Option<i64>,
    last_ingestion: Option<i64>,
    lost: u64,
}

const FORMAT: u32 = 1;
const NAME: &str = "snapshot.json";

/// `segment`: the one that is written, and how long it is by now.
pub fn take(state: &State, wal: u64, (segment, segment_length): (u64, u64)) -> Snapshot {
    let groups = state
        .groups
        .iter()
        .map(|(name, group)| SavedGroup {
            name: name.clone(),
            created: group.created,
            class: group.class.clone(),
            retention_days: group.retention_days,
            tags: group.tags.clone(),
            streams: group
                .streams
                .iter()
                .map(|(name, s)| SavedStream {
                    name: name.to_string(),
                    id: s.id,
                    created: s.created,
                    base: s.base,
                    last_event: s.last_event,
                    last_ingestion: s.last_ingestion,
                    lost: s.lost,
                })
                .collect(),
        })
        .collect();
    Snapshot {
        format: FORMAT,
        wal,
        segment,
        segment_length,
        next_stream: state.next_stream,
        groups,
        sources: state.sources.clone(),
    }
}

pub fn save(dir: &Path, snapshot: &Snapshot) -> Result<(), Error> {
    let beside = dir.join("snapshot.new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(snapshot).map_err(std::io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(beside, dir.join(NAME))?;
    sync_dir(dir)
}

/// The empty snapshot when there is none yet.
pub fn load(dir: &Path) -> Result<Snapshot, Error> {
    let text = match fs::read(dir.join(NAME)) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // It is there before the first line is taken: without it the lines would be nobody's.
            for prefix in ["wal-", "seg-"] {
                for number in numbered(dir, prefix)? {
                    if fs::metadata(dir.join(format!("{prefix}{number:016}")))?.len() > 0 {
                        return Err(Error::Damaged(format!("{} (it is missing, and lines are there)", dir.join(NAME).display())));
                    }
                }
            }
            return Ok(Snapshot::default());
        }
        Err(e) => return Err(e.into()),
    };
    /// Read first: a newer one may hold what this version has no name for.
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let damaged = |e: serde_json::Error| Error::Damaged(format!("{} ({e})", dir.join(NAME).display()));
    let head: Head = serde_json::from_slice(&text).map_err(damaged)?;
    if head.format > FORMAT {
        return Err(Error::Format(head.format));
    }
    let snapshot: Snapshot = serde_json::from_slice(&text).map_err(damaged)?;
    Ok(snapshot)
}

/// Puts the snapshot into a state that has only unclaimed blocks yet.
pub fn restore(snapshot: Snapshot, state: &mut State) {
    for group in snapshot.groups {
        let (at, retention_days) = (group.created, group.retention_days);
        let name = group.name;
        state.apply(&Op::CreateGroup { name: name.clone(), at, class: group.class, tags: group.tags, retention_days });
        for saved in group.streams {
            state.create_stream(&name, &saved.name, saved.id, saved.created);
            if let Some(stream) = state.by_id(saved.id) {
                stream.last_event = stream.last_event.max(saved.last_event);
                stream.last_ingestion = saved.last_ingestion;
                stream.lost = saved.lost;
            }
            state.apply(&Op::Expire { stream: saved.id, base: saved.base });
        }
    }
    state.next_stream = state.next_stream.max(snapshot.next_stream);
    state.sources = snapshot.sources;
}
