//! The metrics store: CloudWatch's data model on disk, with its retention.
//!
//! Owns every datum: [`MetricStore::put`] and [`MetricStore::put_resolved`] in, [`MetricStore::query`] and
//! [`MetricStore::list`] out. Never decides anything and never changes what was measured.
//!
//! How it is built, from the newest data to the oldest:
//! - `head`: what came since the last checkpoint, in memory, in shards; every put is also a frame in the write-ahead log (`wal`).
//! - a checkpoint (`maintain`) freezes the head and writes it as `part`s: the seconds as they are and rolled up to minutes.
//!   One manifest, replaced atomically, names the live parts and the place in the log up to which they reach.
//! - parts add up, so late data is simply one more part, and small ones are merged by day.
//! - a day of minutes older than 15 days becomes 5-minute points, after 63 days hours, and after 455 days nothing, as CloudWatch
//!   documents (CloudWatch concepts, "Metrics retention").
//!
//! Start reading at [`MetricStore`].

mod bits;
mod chunk;
mod column;
mod head;
mod maintain;
mod packed;
mod part;
mod point;
mod query;
mod recover;
mod scale;
mod series;
mod store;
mod wal;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use query::ByUnit;
pub use series::{ListFilter, Series};
pub use store::{MetricStore, Touched};

use crate::model::Millis;

/// What bounds the store. Passing a bound is counted in [`Stats`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Series are metrics times units; data of a new one beyond this is refused.
    pub max_series: usize,
    /// A checkpoint is made when this much time has passed, or this many points have come.
    pub checkpoint_ms: Millis,
    pub checkpoint_points: u64,
    /// For parts that no disk holds: beyond this the oldest are dropped.
    pub memory_bytes: u64,
    /// A series of a single task (with the dimension `TaskId`) is forgotten after this long without data, as there is a new one
    /// for every task ever started. Its data stays for whoever reads the cluster's and the service's metrics.
    pub task_series_idle_ms: Millis,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_series: 1_000_000,
            checkpoint_ms: 10 * 60_000,
            checkpoint_points: 20_000_000,
            memory_bytes: 1 << 30,
            task_series_idle_ms: 15 * 86_400_000,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("metrics directory {path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error(
        "the metrics' file {path} is damaged ({why}): restore it from a backup, or move the directory metrics away to begin with none"
    )]
    Manifest { path: PathBuf, why: String },
    #[error(
        "the metrics are of a newer format ({found}) than this Beaufort reads ({known}): start the newer binary, or another --data-dir"
    )]
    Newer { found: u32, known: u32 },
}

/// What became of a put. What was accepted is stored, whatever happened to the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOutcome {
    pub accepted: u64,
    /// Would have been a series beyond [`Limits::max_series`].
    pub refused_series_limit: u64,
    /// More than two weeks old or more than two hours ahead.
    pub refused_time: u64,
    /// Not finite, no sample, or a minimum above the maximum.
    pub refused_value: u64,
    /// The disk did not take the log frame: stored, but lost if we crash before the next checkpoint. Of a put that must be durable:
    /// not stored.
    pub unlogged: u64,
}

/// For `/metrics`. Counters count since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub series: u64,
    pub points_accepted: u64,
    pub refused_series_limit: u64,
    pub refused_time: u64,
    pub refused_value: u64,
    /// Points since the last checkpoint.
    pub head_points: u64,
    pub parts: u64,
    pub part_points: u64,
    /// Their bytes at rest, in files or memory, with the indexes.
    pub part_bytes: u64,
    /// Parts and indexes in memory.
    pub memory_bytes: u64,
    pub wal_bytes: u64,
    pub wal_errors: u64,
    pub unlogged_points: u64,
    pub checkpoint_errors: u64,
    pub checkpoints: u64,
    /// Points dropped because memory was full while the disk took nothing.
    pub dropped_points: u64,
    /// Cut from torn log tails when the store was opened.
    pub torn_bytes: u64,
    /// Lost between whole frames of the log or the series file.
    pub damaged_bytes: u64,
    pub damaged_chunks: u64,
    /// Parts that could not be opened.
    pub damaged_parts: u64,
    pub forgotten_series: u64,
    /// The disk did not take the last write: data is served from memory and not safe.
    pub degraded: bool,
}
