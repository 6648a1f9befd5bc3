//! Opening a directory: manifest, series, parts, and what the log holds beyond them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::maintain::{FORMAT, MANIFEST, Manifest, SERIES_FILE, part_number};
use super::part::Part;
use super::series::read_series;
use super::store::{MetricStore, Tables, lock, write};
use super::wal::{Frames, Record, Wal, read_frames, read_record, segment_of, segment_path};
use super::{Error, Limits};
use crate::clock::SharedClock;

const LOCK_FILE: &str = "lock";
/// Where the log of a new store begins.
const FIRST_SEGMENT: u64 = 1;

pub(super) fn open(dir: &Path, clock: SharedClock, limits: Limits) -> Result<MetricStore, Error> {
    let failed = |error| Error::Io { path: dir.to_path_buf(), error };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let owner = File::create(dir.join(LOCK_FILE)).map_err(failed)?;
    owner.try_lock().map_err(|error| failed(io::Error::new(io::ErrorKind::ResourceBusy, error.to_string())))?;
    let manifest = read_manifest(dir)?;
    let (segments, last_part) = tidy(dir, &manifest).map_err(failed)?;

    let first = segments.first().copied().unwrap_or(manifest.wal.segment);
    let next = segments.last().copied().unwrap_or(0).max(manifest.wal.segment) + 1;
    let mut store = MetricStore::empty(Some(dir.to_path_buf()), Some(Wal::start(dir, first, next)), clock, limits);
    store.owner = Some(owner);
    store.counters.next_part.store(last_part.map_or(0, |n| n + 1), Ordering::Relaxed);
    if manifest.next_series > 0 && !dir.join(SERIES_FILE).exists() {
        return Err(Error::Manifest { path: dir.join(SERIES_FILE), why: "it is missing, and parts are there".to_owned() });
    }
    recover_series(&store, dir).map_err(failed)?;
    write(&store.table).skip_to(manifest.next_series);
    recover_parts(&store, dir, &manifest);
    for segment in segments {
        let skip = if segment == manifest.wal.segment { manifest.wal.offset } else { 0 };
        replay(&store, &segment_path(dir, segment), skip).map_err(failed)?;
    }
    lock(&store.maintenance).cut = manifest.wal;
    Ok(store)
}

/// What a directory holds, for one who reads beside its owner: no lock is taken and nothing is tidied, cut or set aside. Of a
/// store that is open, what came since is not seen; a checkpoint in the middle of this is, and then it begins anew.
pub(super) fn open_to_read(dir: &Path, clock: SharedClock, limits: Limits) -> Result<MetricStore, Error> {
    const TRIES: usize = 5;
    let failed = |error| Error::Io { path: dir.to_path_buf(), error };
    let mut moved = None;
    for _ in 0..TRIES {
        let manifest = read_manifest(dir)?;
        match read_all(dir, &manifest, clock.clone(), limits.clone()) {
            Ok(store) if read_manifest(dir)? == manifest => return Ok(store),
            Ok(_) => moved = None,
            Err(error) => moved = Some(error),
        }
    }
    Err(failed(moved.unwrap_or_else(|| io::Error::other("it changes faster than it can be read"))))
}

fn read_all(dir: &Path, manifest: &Manifest, clock: SharedClock, limits: Limits) -> io::Result<MetricStore> {
    let store = MetricStore::empty(None, None, clock, limits);
    let now = store.clock.now();
    let series = match std::fs::read(dir.join(SERIES_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes?,
    };
    read_frames(&series, |payload| {
        if let Some(Record::Series(series)) = read_record(payload) {
            read_series(series, &mut write(&store.table), now.0);
        }
    });
    let parts = manifest.parts.iter().map(|entry| Part::open(dir, entry.clone()).map(Arc::new)).collect::<io::Result<_>>()?;
    *write(&store.tables) = Arc::new(Tables { frozen: None, parts });
    let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    let mut segments: Vec<u64> = names.iter().filter_map(|name| segment_of(name.to_str()?)).collect();
    segments.retain(|segment| *segment >= manifest.wal.segment);
    segments.sort_unstable();
    for segment in segments {
        let skip = if segment == manifest.wal.segment { manifest.wal.offset } else { 0 };
        read_segment(&store, &segment_path(dir, segment), skip)?;
    }
    Ok(store)
}

fn read_manifest(dir: &Path) -> Result<Manifest, Error> {
    /// Read first: a newer one may hold what this version has no name for.
    #[derive(serde::Deserialize)]
    struct Head {
        version: u32,
    }
    let path = dir.join(MANIFEST);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return first_manifest(dir, path),
        Err(error) => return Err(Error::Io { path, error }),
    };
    let damaged = |error: serde_json::Error| Error::Manifest { path: path.clone(), why: error.to_string() };
    let Head { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if version > FORMAT {
        return Err(Error::Newer { found: version, known: FORMAT });
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}

/// There is none before the first checkpoint. Parts are there then only when that was interrupted, and the log holds all of theirs;
/// else they would be taken for left over, and removed.
fn first_manifest(dir: &Path, path: PathBuf) -> Result<Manifest, Error> {
    let failed = |error| Error::Io { path: dir.to_path_buf(), error };
    let mut parts = false;
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        parts |= entry.map_err(failed)?.file_name().to_str().and_then(part_number).is_some();
    }
    if parts && !segment_path(dir, FIRST_SEGMENT).exists() {
        return Err(Error::Manifest { path, why: "it is missing, and parts are there".to_owned() });
    }
    Ok(Manifest::default())
}

/// Removes what a crash left over. Answers the log segments to replay, ascending, and the highest part number.
fn tidy(dir: &Path, manifest: &Manifest) -> io::Result<(Vec<u64>, Option<u32>)> {
    let mut segments = Vec::new();
    let mut last_part = None;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let part = part_number(&name);
        last_part = last_part.max(part);
        let left_over = match segment_of(&name) {
            Some(segment) => segment < manifest.wal.segment,
            None => name.ends_with(".tmp") || part.is_some() && !manifest.parts.iter().any(|p| p.file == name),
        };
        if left_over {
            std::fs::remove_file(entry.path())?;
        } else {
            segments.extend(segment_of(&name));
        }
    }
    segments.sort_unstable();
    Ok((segments, last_part))
}

fn recover_series(store: &MetricStore, dir: &Path) -> io::Result<()> {
    let path = dir.join(SERIES_FILE);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    let now = store.clock.now();
    let mut table = write(&store.table);
    let frames = read_frames(&bytes, |payload| {
        if let Some(Record::Series(series)) = read_record(payload) {
            read_series(series, &mut table, now.0);
        }
    });
    lock(&store.maintenance).saved_series = table.next_id();
    told(store, &path, &frames, 0);
    cut_tail(store, &path, bytes.len(), frames.end)
}

fn recover_parts(store: &MetricStore, dir: &Path, manifest: &Manifest) {
    let mut parts = Vec::with_capacity(manifest.parts.len());
    let table = write(&store.table);
    for entry in &manifest.parts {
        match Part::open(dir, entry.clone()) {
            Ok(part) => {
                for slot in part.slots() {
                    if let Some(series) = table.get(slot.id) {
                        series.touch(slot.last as i64 * 1000);
                    }
                }
                parts.push(Arc::new(part));
            }
            Err(error) => {
                store.counters.damaged_parts.fetch_add(1, Ordering::Relaxed);
                tracing::error!(file = entry.file, %error, "a part of the metrics cannot be read and is set aside");
                let _ = std::fs::rename(dir.join(&entry.file), dir.join(format!("{}.damaged", entry.file)));
            }
        }
    }
    *write(&store.tables) = Arc::new(Tables { frozen: None, parts });
}

fn replay(store: &MetricStore, path: &Path, skip: u64) -> io::Result<()> {
    let Segment { length, skip, frames } = read_segment(store, path, skip)?;
    told(store, path, &frames, skip);
    cut_tail(store, path, length, skip + frames.end)
}

/// A segment of the log, as it was read from `skip` on.
struct Segment {
    length: usize,
    skip: usize,
    frames: Frames,
}

fn read_segment(store: &MetricStore, path: &Path, skip: u64) -> io::Result<Segment> {
    let bytes = std::fs::read(path)?;
    // A segment shorter than the cut was torn where parts hold everything.
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
    let mut table = write(&store.table);
    let now = store.clock.now();
    let mut points_read = 0;
    let frames = read_frames(&bytes[skip..], |payload| match read_record(payload) {
        Some(Record::Series(series)) => {
            read_series(series, &mut table, now.0);
        }
        Some(Record::Points(points)) => {
            for (id, resolution, point) in points {
                let Some(series) = table.get(id) else { continue };
                series.touch(point.at.saturating_mul(1000));
                lock(&store.shards[id as usize % store.shards.len()]).series.entry(id).or_default().add(point, resolution);
                points_read += 1;
            }
        }
        None => {
            store.counters.torn_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        }
    });
    store.counters.head_points.fetch_add(points_read, Ordering::Relaxed);
    Ok(Segment { length: bytes.len(), skip, frames })
}

fn told(store: &MetricStore, path: &Path, frames: &Frames, skip: usize) {
    if frames.damaged == 0 {
        return;
    }
    store.counters.damaged_bytes.fetch_add(frames.damaged as u64, Ordering::Relaxed);
    tracing::error!(
        path = %path.display(), bytes = frames.damaged, before = skip + frames.end,
        "a file of the metrics is damaged: the points that were there are lost, those behind them are not. The file is kept beside as \
         .damaged; look at the disk (dmesg, smartctl)"
    );
    // Told already; without room for a copy there is none.
    let _ = std::fs::copy(path, path.with_extension("damaged"));
}

fn cut_tail(store: &MetricStore, path: &Path, length: usize, whole: usize) -> io::Result<()> {
    if whole == length {
        return Ok(());
    }
    store.counters.torn_bytes.fetch_add((length - whole) as u64, Ordering::Relaxed);
    tracing::warn!(path = %path.display(), bytes = length - whole, "the torn end of a metrics file was cut");
    File::options().write(true).open(path)?.set_len(whole as u64)
}
