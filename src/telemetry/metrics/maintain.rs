//! Checkpoints, merging and retention: what turns the head into parts and parts into fewer and coarser ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError};

use serde::{Deserialize, Serialize};

use super::head::Shard;
use super::part::{Builder, Entry, Kind, Part, write_durably};
use super::point::{Point, normalise, roll_up};
use super::series::Series;
use super::store::{MetricStore, SECONDS_KEPT_MS, Tables, lock, read, write};
use super::wal::{Cut, put_frame, series_payload};
use crate::model::{Millis, Timestamp};

/// What only the one who maintains knows.
#[derive(Default)]
pub(super) struct Maintenance {
    /// Parts hold everything before this; true of the manifest once it is written.
    pub cut: Cut,
    /// Series with smaller ids are in the series file.
    pub saved_series: u32,
    /// The series file holds forgotten ones.
    pub rewrite_series: bool,
    /// Replaced parts that the manifest on disk may still name.
    replaced: Vec<Arc<Part>>,
    forgot_on: i64,
}

/// What is alive, replaced atomically: a crash at any instant leaves the old state or the new one.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub version: u32,
    pub wal: Cut,
    /// Ids of forgotten series must not be used again while parts hold their points.
    pub next_series: u32,
    pub parts: Vec<Entry>,
}

/// One more when an older Beaufort would misread what is written. 2: parts may be packed.
pub(super) const FORMAT: u32 = 2;
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const SERIES_FILE: &str = "series.log";

const DAY: i64 = 86_400;
const DAY_MS: Millis = DAY * 1000;
/// Nothing is retired at the very edge of what a query may still ask for.
const MARGIN_MS: Millis = 3_600_000;
const HOURS_KEPT_MS: Millis = 455 * DAY_MS;
/// So many small parts of one day are merged into one.
const MERGE_AT: usize = 8;
/// How soon after a failed write the disk is tried again.
const RETRY_MS: Millis = 30_000;

impl MetricStore {
    pub(super) fn checkpoint_is_due(&self, now: Timestamp) -> bool {
        now.0 >= self.next_checkpoint.load(Ordering::Relaxed)
            || self.counters.head_points.load(Ordering::Relaxed) >= self.limits.checkpoint_points
    }

    /// What the log did not take is safe with the next checkpoint that succeeds.
    pub(super) fn checkpoint_soon(&self, now: Timestamp) {
        self.next_checkpoint.fetch_min((now + RETRY_MS).0, Ordering::Relaxed);
    }

    /// A checkpoint, and whatever merging and retiring is due. Returns at once when another thread is at it.
    pub fn maintain(&self, now: Timestamp) {
        let mut m = match self.maintenance.try_lock() {
            Ok(m) => m,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.checkpoint_locked(&mut m, now);
        self.retire(&mut m, now);
        self.forget_idle(&mut m, now);
    }

    pub(super) fn checkpoint(&self, now: Timestamp) {
        self.checkpoint_locked(&mut lock(&self.maintenance), now);
    }

    fn checkpoint_locked(&self, m: &mut Maintenance, now: Timestamp) {
        self.next_checkpoint.store((now + self.limits.checkpoint_ms).0, Ordering::Relaxed);
        let frozen = self.freeze(m);
        self.save_frozen(m, &frozen, now);
    }

    pub(super) fn save_frozen(&self, m: &mut Maintenance, frozen: &[Shard], now: Timestamp) {
        let built = self.build(frozen);
        self.replace_tables(|tables| {
            tables.frozen = None;
            tables.parts.extend(built);
        });
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.save(m) {
            self.counters.checkpoint_errors.fetch_add(1, Ordering::Relaxed);
            self.degrade("checkpoint", &error);
            self.checkpoint_soon(now);
        }
        self.bound_memory();
    }

    /// Takes the head away. Readers find it in the tables; whoever puts goes on with an empty one.
    pub(super) fn freeze(&self, m: &mut Maintenance) -> Arc<Vec<Shard>> {
        let mut gate = write(&self.tables);
        let shards: Vec<Shard> = self.shards.iter().map(|shard| std::mem::take(&mut *lock(shard))).collect();
        if let Some(wal) = &self.wal {
            m.cut = lock(wal).cut();
        }
        self.counters.head_points.store(0, Ordering::Relaxed);
        let frozen = Arc::new(shards);
        *gate = Arc::new(Tables { frozen: Some(frozen.clone()), parts: gate.parts.clone() });
        frozen
    }

    fn build(&self, frozen: &[Shard]) -> Vec<Arc<Part>> {
        let ids: BTreeSet<u32> = frozen.iter().flat_map(|shard| shard.series.keys().copied()).collect();
        let mut builders = Builders::new(self);
        for id in ids {
            let Some(head) = frozen[id as usize % frozen.len()].series.get(&id) else { continue };
            let seconds = head.seconds();
            builders.add(Kind::Seconds, 0, id, &seconds);
            // Parts of minutes hold one day each, so that a day can be merged and retired as a whole.
            for (day, minutes) in by_day(roll_up(&seconds, 60)) {
                builders.add(Kind::RolledMinutes, day, id, &minutes);
            }
            for (day, minutes) in by_day(head.minutes().to_vec()) {
                builders.add(Kind::Minutes, day, id, &minutes);
            }
        }
        builders.finish()
    }

    fn replace_tables(&self, change: impl FnOnce(&mut Tables)) {
        let mut gate = write(&self.tables);
        let mut tables = Tables::clone(&gate);
        change(&mut tables);
        *gate = Arc::new(tables);
    }

    /// Brings everything that is only in memory to disk, then the manifest, and then deletes what it no longer needs.
    fn save(&self, m: &mut Maintenance) -> io::Result<()> {
        let (Some(dir), Some(wal)) = (&self.dir, &self.wal) else {
            m.replaced.clear();
            return Ok(());
        };
        self.save_series(m, dir)?;
        let parts = read(&self.tables).parts.clone();
        for part in parts.iter().filter(|part| part.in_memory()) {
            let written = Arc::new(part.write(dir)?);
            self.replace_tables(|tables| {
                tables.parts.iter_mut().filter(|p| Arc::ptr_eq(p, part)).for_each(|p| *p = written.clone());
            });
        }
        let parts = read(&self.tables).parts.iter().map(|part| part.entry.clone()).collect();
        let next_series = m.saved_series;
        let manifest = Manifest { version: FORMAT, wal: m.cut, next_series, parts };
        write_durably(&dir.join(MANIFEST), &serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?)?;
        m.replaced.drain(..).for_each(|part| part.doom());
        lock(wal).delete_before(m.cut);
        self.counters.degraded.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn save_series(&self, m: &mut Maintenance, dir: &Path) -> io::Result<()> {
        let (new, next) = {
            let table = read(&self.table);
            (table.since(if m.rewrite_series { 0 } else { m.saved_series }), table.next_id())
        };
        let mut frames = Vec::new();
        new.iter().for_each(|series| put_frame(&mut frames, &series_payload(series)));
        let path = dir.join(SERIES_FILE);
        if m.rewrite_series {
            write_durably(&path, &frames)?;
        } else if !frames.is_empty() {
            append_durably(&path, &frames)?;
        }
        (m.saved_series, m.rewrite_series) = (next, false);
        Ok(())
    }

    /// The disk takes nothing: the oldest go first, seconds before minutes (their minutes are the same samples).
    fn bound_memory(&self) {
        let mut parts = read(&self.tables).parts.clone();
        parts.retain(|part| part.in_memory());
        let mut bytes: u64 = parts.iter().map(|part| part.memory_bytes()).sum();
        if bytes <= self.limits.memory_bytes {
            return;
        }
        parts.sort_by_key(|part| (part.entry.kind != Kind::Seconds, part.entry.last));
        let mut dropped: Vec<Arc<Part>> = Vec::new();
        for part in parts {
            if bytes <= self.limits.memory_bytes {
                break;
            }
            bytes -= part.memory_bytes();
            self.counters.dropped.fetch_add(part.entry.points, Ordering::Relaxed);
            dropped.push(part);
        }
        tracing::warn!(parts = dropped.len(), "metrics were dropped: the memory for what no disk holds is full");
        self.replace_tables(|tables| tables.parts.retain(|part| !dropped.iter().any(|d| Arc::ptr_eq(d, part))));
    }

    fn retire(&self, m: &mut Maintenance, now: Timestamp) {
        let mut parts = read(&self.tables).parts.clone();
        // While the disk takes nothing, what is safe on it stays there.
        if self.dir.is_some() && parts.iter().any(|part| part.in_memory()) {
            parts.retain(|part| part.in_memory());
        }
        let plan = plan(&parts, now);
        if plan.is_empty() {
            return;
        }
        for Step { from, into } in plan {
            let merged = into.map_or(Vec::new(), |kind| self.merge(&from, kind));
            self.replace_tables(|tables| {
                tables.parts.retain(|part| !from.iter().any(|f| Arc::ptr_eq(f, part)));
                tables.parts.extend(merged);
            });
            m.replaced.extend(from);
        }
        if let Err(error) = self.save(m) {
            self.counters.checkpoint_errors.fetch_add(1, Ordering::Relaxed);
            self.degrade("merging", &error);
        }
    }

    fn merge(&self, from: &[Arc<Part>], kind: Kind) -> Vec<Arc<Part>> {
        let ids: BTreeSet<u32> = from.iter().flat_map(|part| part.slots().iter().map(|slot| slot.id)).collect();
        let mut builders = Builders::new(self);
        for id in ids {
            // A forgotten series' points can never be asked for again.
            if !read(&self.table).contains(id) {
                continue;
            }
            let mut points = Vec::new();
            for part in from {
                if !part.read(id, &mut points) {
                    self.damaged_chunk(&part.entry.file, id);
                }
            }
            normalise(&mut points);
            let points = match kind {
                Kind::FiveMinutes => roll_up(&points, 300),
                Kind::Hours => roll_up(&points, 3600),
                _ => points,
            };
            builders.add(kind, 0, id, &points);
        }
        builders.finish()
    }

    /// Once a day: series without data for as long as data is kept, and single tasks' much earlier.
    fn forget_idle(&self, m: &mut Maintenance, now: Timestamp) {
        let today = now.0.div_euclid(DAY_MS);
        if m.forgot_on == today {
            return;
        }
        m.forgot_on = today;
        let idle = |series: &Series| {
            let kept = if series.key.dimension("TaskId").is_some() { self.limits.task_series_idle_ms } else { HOURS_KEPT_MS };
            series.idle_since_ms() < now.0 - kept
        };
        let _gate = write(&self.tables);
        let forgotten = write(&self.table).forget(idle);
        m.rewrite_series |= forgotten > 0;
        self.counters.forgotten.fetch_add(forgotten as u64, Ordering::Relaxed);
    }

    /// What the parts would take in the codec of the head, which is Gorilla's: the reference for [`super::Stats::part_bytes`]. Reads
    /// everything, so it is for benchmarks.
    pub fn bytes_as_grown(&self) -> u64 {
        let parts = read(&self.tables).parts.clone();
        parts.iter().filter_map(|part| part.bytes_as_grown()).sum()
    }

    /// Forgets everything.
    pub fn reset(&self) {
        let mut m = lock(&self.maintenance);
        {
            let mut gate = write(&self.tables);
            write(&self.table).forget(|_| true);
            self.shards.iter().for_each(|shard| *lock(shard) = Shard::default());
            m.replaced.extend(gate.parts.iter().cloned());
            *gate = Arc::default();
            if let Some(wal) = &self.wal {
                m.cut = lock(wal).cut();
            }
            self.counters.head_points.store(0, Ordering::Relaxed);
        }
        m.rewrite_series = true;
        if let Err(error) = self.save(&mut m) {
            self.counters.checkpoint_errors.fetch_add(1, Ordering::Relaxed);
            self.degrade("reset", &error);
        }
    }
}

fn append_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a frame would hide every later one; if even this fails, the next start finds these series in the log.
        let _ = file.set_len(length);
    }
    written
}

/// One builder for each kind and day, a new one when it is full.
struct Builders<'a> {
    store: &'a MetricStore,
    open: BTreeMap<(Kind, i64), Builder>,
    full: Vec<Arc<Part>>,
}

impl Builders<'_> {
    fn new(store: &MetricStore) -> Builders<'_> {
        Builders { store, open: BTreeMap::new(), full: Vec::new() }
    }

    fn add(&mut self, kind: Kind, day: i64, id: u32, points: &[Point]) {
        if points.is_empty() {
            return;
        }
        let builder = self.open.entry((kind, day)).or_insert_with(|| Builder::new(kind));
        builder.add(id, points);
        if builder.is_full() {
            let builder = std::mem::replace(builder, Builder::new(kind));
            self.end(builder);
        }
    }

    fn end(&mut self, builder: Builder) {
        let number = self.store.counters.next_part.fetch_add(1, Ordering::Relaxed);
        self.full.extend(builder.finish(part_name(number)).map(Arc::new));
    }

    fn finish(mut self) -> Vec<Arc<Part>> {
        for builder in std::mem::take(&mut self.open).into_values() {
            self.end(builder);
        }
        self.full
    }
}

fn by_day(points: Vec<Point>) -> BTreeMap<i64, Vec<Point>> {
    let mut days: BTreeMap<i64, Vec<Point>> = BTreeMap::new();
    for point in points {
        days.entry(point.at.div_euclid(DAY)).or_default().push(point);
    }
    days
}

pub(super) fn part_name(number: u32) -> String {
    format!("part-{number:08x}.bin")
}

pub(super) fn part_number(file_name: &str) -> Option<u32> {
    u32::from_str_radix(file_name.strip_prefix("part-")?.strip_suffix(".bin")?, 16).ok()
}

/// These parts are to become one of this kind, or nothing.
struct Step {
    from: Vec<Arc<Part>>,
    into: Option<Kind>,
}

fn plan(parts: &[Arc<Part>], now: Timestamp) -> Vec<Step> {
    let mut expired = Vec::new();
    let mut groups: BTreeMap<(Kind, i64), Vec<Arc<Part>>> = BTreeMap::new();
    for part in parts {
        let Entry { kind, first, last, .. } = part.entry;
        let age = now.0 - last * 1000;
        // The end of the day counts, so that a day goes as a whole.
        let day = first.div_euclid(DAY);
        let day_age = now.0 - (day + 1) * DAY_MS;
        match kind {
            Kind::Seconds if age > SECONDS_KEPT_MS + MARGIN_MS => expired.push(part.clone()),
            Kind::Hours if age > HOURS_KEPT_MS + MARGIN_MS => expired.push(part.clone()),
            Kind::Minutes | Kind::RolledMinutes if day_age > 15 * DAY_MS + MARGIN_MS => {
                groups.entry((Kind::FiveMinutes, day)).or_default().push(part.clone());
            }
            Kind::FiveMinutes if day_age > 63 * DAY_MS + MARGIN_MS => {
                groups.entry((Kind::Hours, day)).or_default().push(part.clone())
            }
            Kind::Minutes | Kind::RolledMinutes => groups.entry((kind, day)).or_default().push(part.clone()),
            _ => {}
        }
    }
    let mut steps = Vec::new();
    if !expired.is_empty() {
        steps.push(Step { from: expired, into: None });
    }
    for ((kind, _), from) in groups {
        if matches!(kind, Kind::FiveMinutes | Kind::Hours) || from.len() >= MERGE_AT {
            steps.push(Step { from, into: Some(kind) });
        }
    }
    steps
}
