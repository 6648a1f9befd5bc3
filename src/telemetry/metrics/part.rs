//! A part: the immutable points of many series over a stretch of time, in a file or, without a disk, in memory.
//!
//! Parts add up: two may hold points of the same series and time, which merge when read. So late data is just another part.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::bits::ByteReader;
use super::point::{Point, Second};
use super::{chunk, packed};

/// What a part's points are; also how a query knows which parts to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Kind {
    Seconds,
    /// Minutes as they were published.
    Minutes,
    /// Minutes rolled up from seconds: the same samples as `Seconds` has.
    RolledMinutes,
    FiveMinutes,
    Hours,
}

/// What the manifest keeps of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub file: String,
    pub kind: Kind,
    pub first: Second,
    pub last: Second,
    pub points: u64,
}

pub(super) struct Part {
    pub entry: Entry,
    /// By series id, ascending.
    index: Vec<Slot>,
    source: Source,
    format: Format,
    /// Of the file, with its index.
    bytes: u64,
    /// The file goes when the last reader is done.
    doomed: AtomicBool,
}

/// How the chunks are written; the file's first bytes say it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    /// As the head has them: read, no longer written.
    Grown,
    Packed,
}

enum Source {
    Memory(Arc<[u8]>),
    File(PathBuf),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub id: u32,
    points: u32,
    offset: u32,
    length: u32,
    crc: u32,
    /// The newest point's time, so that a restarted store knows which metrics are alive.
    pub last: u32,
}

const MAGIC_GROWN: &[u8; 8] = b"BEAUMET1";
const MAGIC: &[u8; 8] = b"BEAUMET2";
const SLOT_BYTES: usize = 24;
const FOOTER_BYTES: usize = 16;
/// Offsets are 32 bits; a part that would grow past this is split.
const MAX_BYTES: usize = 1 << 30;

/// Collects series in ascending order of id.
pub(super) struct Builder {
    kind: Kind,
    bytes: Vec<u8>,
    index: Vec<Slot>,
    first: Second,
    last: Second,
    points: u64,
    /// Where a chunk of this length and checksum is: a task of one container has its container's numbers, a service of one task its
    /// task's, and what is still is the same everywhere.
    written: HashMap<(u32, u32), u32>,
}

impl Builder {
    pub fn new(kind: Kind) -> Builder {
        let written = HashMap::new();
        Builder { kind, bytes: MAGIC.to_vec(), index: Vec::new(), first: i64::MAX, last: i64::MIN, points: 0, written }
    }

    /// `points` ascend.
    pub fn add(&mut self, id: u32, points: &[Point]) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        let chunk = packed::encode(points);
        let (length, crc) = (chunk.len() as u32, crc32fast::hash(&chunk));
        let same = |at: &u32| self.bytes.get(*at as usize..(*at + length) as usize) == Some(&chunk[..]);
        let offset = match self.written.get(&(length, crc)).copied().filter(same) {
            Some(there) => there,
            None => {
                let offset = self.bytes.len() as u32;
                self.bytes.extend_from_slice(&chunk);
                self.written.insert((length, crc), offset);
                offset
            }
        };
        let last_at = u32::try_from(last.at).unwrap_or(0);
        self.index.push(Slot { id, points: points.len() as u32, offset, length, crc, last: last_at });
        self.first = self.first.min(first.at);
        self.last = self.last.max(last.at);
        self.points += points.len() as u64;
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_BYTES
    }

    /// In memory until it is written; None when nothing was added.
    pub fn finish(mut self, file: String) -> Option<Part> {
        if self.index.is_empty() {
            return None;
        }
        let index_at = self.bytes.len();
        for slot in &self.index {
            for number in [slot.id, slot.points, slot.offset, slot.length, slot.crc, slot.last] {
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&self.bytes[index_at..]);
        self.bytes.extend_from_slice(&(index_at as u64).to_le_bytes());
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(&(self.index.len() as u32).to_le_bytes());
        let entry = Entry { file, kind: self.kind, first: self.first, last: self.last, points: self.points };
        Some(Part {
            entry,
            index: self.index,
            format: Format::Packed,
            bytes: self.bytes.len() as u64,
            source: Source::Memory(self.bytes.into()),
            doomed: AtomicBool::new(false),
        })
    }
}

impl Part {
    pub fn open(dir: &Path, entry: Entry) -> io::Result<Part> {
        let path = dir.join(&entry.file);
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a damaged index");
        let footer_at = length.checked_sub(FOOTER_BYTES as u64).ok_or_else(damaged)?;
        let mut magic = [0; MAGIC.len()];
        file.read_exact_at(&mut magic, 0)?;
        let format = match &magic {
            MAGIC => Format::Packed,
            MAGIC_GROWN => Format::Grown,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a format that this version does not know")),
        };
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at)?;
        let mut footer = ByteReader(&footer);
        let (Some(index_at), Some(crc), Some(count)) = (footer.u64(), footer.u32(), footer.u32()) else { return Err(damaged()) };
        if index_at.checked_add(count as u64 * SLOT_BYTES as u64) != Some(footer_at) {
            return Err(damaged());
        }
        let mut bytes = vec![0; count as usize * SLOT_BYTES];
        file.read_exact_at(&mut bytes, index_at)?;
        if crc32fast::hash(&bytes) != crc {
            return Err(damaged());
        }
        let mut input = ByteReader(&bytes);
        let mut next = || input.u32().ok_or_else(damaged);
        let mut index = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (id, points, offset, length, crc, last) = (next()?, next()?, next()?, next()?, next()?, next()?);
            index.push(Slot { id, points, offset, length, crc, last });
        }
        Ok(Part { entry, index, source: Source::File(path), format, bytes: length, doomed: AtomicBool::new(false) })
    }

    /// The same part, its bytes durable in a file. Written beside and renamed, so that a file is whole or not there.
    pub fn write(&self, dir: &Path) -> io::Result<Part> {
        let Source::Memory(bytes) = &self.source else { return Err(io::Error::other("a part that has a file already")) };
        let path = dir.join(&self.entry.file);
        write_durably(&path, bytes)?;
        Ok(Part {
            entry: self.entry.clone(),
            index: self.index.clone(),
            source: Source::File(path),
            format: self.format,
            bytes: self.bytes,
            doomed: AtomicBool::new(false),
        })
    }

    /// Appends the series' points, ascending. False: the bytes are damaged or cannot be read.
    pub fn read(&self, id: u32, out: &mut Vec<Point>) -> bool {
        let Ok(at) = self.index.binary_search_by_key(&id, |slot| slot.id) else { return true };
        let slot = self.index[at];
        let (start, length) = (slot.offset as usize, slot.length as usize);
        let before = out.len();
        let read = |chunk: &[u8], out: &mut Vec<Point>| {
            let decode = match self.format {
                Format::Grown => chunk::decode,
                Format::Packed => packed::decode,
            };
            crc32fast::hash(chunk) == slot.crc && decode(chunk, slot.points, out).is_some()
        };
        let whole = match &self.source {
            Source::Memory(bytes) => bytes.get(start..start + length).is_some_and(|chunk| read(chunk, out)),
            Source::File(path) => {
                let mut chunk = vec![0; length];
                let filled = File::open(path).and_then(|file| file.read_exact_at(&mut chunk, start as u64));
                filled.is_ok() && read(&chunk, out)
            }
        };
        if !whole {
            out.truncate(before);
        }
        whole
    }

    pub fn slots(&self) -> &[Slot] {
        &self.index
    }

    pub fn in_memory(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }

    pub fn memory_bytes(&self) -> u64 {
        let image = match &self.source {
            Source::Memory(bytes) => bytes.len(),
            Source::File(_) => 0,
        };
        (image + self.index.len() * size_of::<Slot>()) as u64
    }

    /// What it would take with its chunks as the head has them. None: it cannot be read.
    pub fn bytes_as_grown(&self) -> Option<u64> {
        let mut bytes = (MAGIC.len() + FOOTER_BYTES + self.index.len() * SLOT_BYTES) as u64;
        let mut points = Vec::new();
        for slot in &self.index {
            points.clear();
            if !self.read(slot.id, &mut points) {
                return None;
            }
            bytes += chunk::encode(&points).len() as u64;
        }
        Some(bytes)
    }

    /// At rest, with the index.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let (true, Source::File(path)) = (self.doomed.load(Ordering::Acquire), &self.source) {
            // One that is left over is deleted when the store is opened: the manifest does not name it.
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
        return written;
    }
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
