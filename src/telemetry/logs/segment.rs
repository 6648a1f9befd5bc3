//! Segment files: sealed blocks one after another, each behind its header, so that the index of a segment is read off its
//! headers. Without a directory the blocks stay in memory.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::block::{self, HEADER, Header, Summary};
use super::wal::{numbered, sync_dir};

/// A sealed block: what is known of it, and where it is.
#[derive(Clone, Debug)]
pub struct Block {
    pub summary: Summary,
    pub raw: u32,
    pub length: u32,
    pub crc: u32,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub enum Place {
    Memory(Arc<[u8]>),
    /// `at` is where the header begins.
    Disk {
        segment: u64,
        file: Arc<File>,
        at: u64,
    },
}

#[derive(Default)]
pub struct Segments {
    dir: Option<PathBuf>,
    files: BTreeMap<u64, Segment>,
    /// The file that is being written; the others are full.
    current: u64,
}

struct Segment {
    file: Arc<File>,
    length: u64,
    dirty: bool,
}

impl Block {
    /// The events' bytes. `Damaged` when they are no longer what was written.
    pub fn load(&self) -> Result<Arc<[u8]>, Error> {
        match &self.place {
            Place::Memory(body) => block::unseal(body, self.raw),
            Place::Disk { segment, file, at } => {
                let damaged = || Error::Damaged(format!("seg-{segment:016} at {at}"));
                let mut body = vec![0; self.length as usize];
                file.read_exact_at(&mut body, at + HEADER as u64).map_err(|e| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => damaged(),
                    _ => e.into(),
                })?;
                if block::crc(&body) != self.crc {
                    return Err(damaged());
                }
                block::unseal(&body, self.raw)
            }
        }
    }
    pub fn segment(&self) -> Option<u64> {
        match self.place {
            Place::Memory(_) => None,
            Place::Disk { segment, .. } => Some(segment),
        }
    }
    pub fn stored(&self) -> u64 {
        u64::from(self.length) + HEADER as u64
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("seg-{number:016}"))
}

impl Segments {
    pub fn in_memory() -> Segments {
        Segments::default()
    }

    /// Reads the headers of every segment. `synced`: a segment, and how much of it is known to be on the disk; what follows was perhaps
    /// never synced, so there bodies are checked too and the file is cut at the first damaged one: the write-ahead log still has what
    /// was behind it. Answers the bytes that were cut, and those that are damaged though they were synced.
    pub fn open(dir: &Path, synced: (u64, u64), mut found: impl FnMut(u64, Block)) -> Result<(Segments, u64, u64), Error> {
        let mut segments = Segments { dir: Some(dir.to_owned()), ..Segments::default() };
        let (mut cut, mut damaged) = (0, 0);
        for number in numbered(dir, "seg-")? {
            let file = Arc::new(OpenOptions::new().read(true).write(true).open(path(dir, number))?);
            let size = file.metadata()?.len();
            let sure = match number.cmp(&synced.0) {
                Ordering::Less => size,
                Ordering::Equal => synced.1.min(size),
                Ordering::Greater => 0,
            };
            let mut at = 0;
            while at < size {
                if let Some(header) = header_at(&file, at, size, at >= sure)? {
                    let place = Place::Disk { segment: number, file: file.clone(), at };
                    let Header { summary, raw, length, crc, .. } = header;
                    found(header.stream, Block { summary, raw, length, crc, place });
                    at += HEADER as u64 + u64::from(length);
                    continue;
                }
                if at >= sure {
                    break;
                }
                // Left as it is, for whoever wants to look at it.
                let next = next_header(&file, at + 1, size)?.unwrap_or(size);
                tracing::error!(
                    path = %path(dir, number).display(), at, bytes = next - at,
                    "a segment of the log store is damaged: the lines that were there are lost, those behind it are not. \
                     Look at the disk (dmesg, smartctl)"
                );
                damaged += next - at;
                at = next;
            }
            if at < size {
                cut += size - at;
                file.set_len(at)?;
            }
            segments.files.insert(number, Segment { file, length: at, dirty: true });
            segments.current = number;
        }
        Ok((segments, cut, damaged))
    }

    pub fn append(&mut self, header: &Header, body: Vec<u8>, segment_bytes: u64) -> Result<Block, Error> {
        let made = |place| Block { summary: header.summary, raw: header.raw, length: header.length, crc: header.crc, place };
        let Some(dir) = &self.dir else { return Ok(made(Place::Memory(body.into()))) };
        if self.files.get(&self.current).is_none_or(|s| s.length >= segment_bytes) {
            let number = self.current + 1;
            let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path(dir, number))?;
            sync_dir(dir)?;
            self.files.insert(number, Segment { file: Arc::new(file), length: 0, dirty: false });
            self.current = number;
        }
        let number = self.current;
        let segment = self.files.get_mut(&number).expect("the current segment was just made sure of");
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&header.write());
        bytes.extend_from_slice(&body);
        segment.dirty = true;
        // After a failed write the next one overwrites the same place.
        segment.file.write_all_at(&bytes, segment.length)?;
        let at = segment.length;
        segment.length += bytes.len() as u64;
        Ok(made(Place::Disk { segment: number, file: segment.file.clone(), at }))
    }

    pub fn sync(&mut self) -> Result<(), Error> {
        for segment in self.files.values_mut().filter(|s| s.dirty) {
            segment.file.sync_data()?;
            segment.dirty = false;
        }
        Ok(())
    }

    /// The segment that is written, and its length.
    pub fn current(&self) -> (u64, u64) {
        (self.current, self.files.get(&self.current).map_or(0, |s| s.length))
    }

    pub fn bytes(&self) -> u64 {
        self.files.values().map(|s| s.length).sum()
    }

    /// Full segments and their lengths.
    pub fn full(&self) -> Vec<(u64, u64)> {
        self.files.iter().filter(|(n, _)| **n != self.current).map(|(n, s)| (*n, s.length)).collect()
    }

    /// A reader that still holds one of its blocks reads on: the file goes when the last handle goes.
    pub fn remove(&mut self, number: u64) -> Result<(), Error> {
        if let (Some(dir), Some(_)) = (&self.dir, self.files.remove(&number)) {
            fs::remove_file(path(dir, number))?;
        }
        Ok(())
    }
}

/// Where the next whole block begins, from `from` on.
fn next_header(file: &File, from: u64, size: u64) -> Result<Option<u64>, Error> {
    let mut rest = vec![0; size.saturating_sub(from) as usize];
    file.read_exact_at(&mut rest, from)?;
    let magic = block::MAGIC.to_le_bytes();
    for at in 0..rest.len().saturating_sub(HEADER) {
        if rest[at..].starts_with(&magic) && header_at(file, from + at as u64, size, true)?.is_some() {
            return Ok(Some(from + at as u64));
        }
    }
    Ok(None)
}

fn header_at(file: &File, at: u64, size: u64, check: bool) -> Result<Option<Header>, Error> {
    if at + HEADER as u64 > size {
        return Ok(None);
    }
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, at)?;
    let Some(header) = Header::read(&bytes) else { return Ok(None) };
    if at + HEADER as u64 + u64::from(header.length) > size {
        return Ok(None);
    }
    if check {
        let mut body = vec![0; header.length as usize];
        file.read_exact_at(&mut body, at + HEADER as u64)?;
        if block::crc(&body) != header.crc {
            return Ok(None);
        }
    }
    Ok(Some(header))
}
