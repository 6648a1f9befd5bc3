//! The write-ahead log: what is in it is durable, whatever else happens. Records are `length crc payload`; a torn tail is cut
//! off and counted when the log is opened.
//!
//! One file is written at a time, `wal-N`; a checkpoint begins the next and removes the older ones.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Error;
use super::block::{Cursor, Summary, crc};
use super::state::Op;

/// One durable step.
#[derive(Debug)]
pub enum Record {
    Op(Op),
    Lines(Lines),
}

/// Events of one stream, and how far their source has come: in one record, so that both are durable or neither.
#[derive(Debug)]
pub struct Lines {
    pub stream: u64,
    pub summary: Summary,
    pub ingested: i64,
    /// As `block::encode` writes them.
    pub bytes: Vec<u8>,
    pub source: Option<Progress>,
}

#[derive(Debug)]
pub struct Progress {
    pub source: String,
    pub next: u64,
    pub resume: String,
    pub lost: u64,
}

pub struct Wal {
    dir: PathBuf,
    pub number: u64,
    file: File,
    /// Bytes known to be whole and durable.
    length: u64,
    /// A write failed: what is behind `length` must be cut off before anything is written again.
    broken: bool,
    pub syncs: u64,
}

const OP: u8 = 0;
const LINES: u8 = 1;
/// A record is bounded by what one request may hold; anything longer is damage.
const MAX_RECORD: u32 = 64 << 20;

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("wal-{number:016}"))
}

/// The numbers of the files in `dir` whose names begin with `prefix`, ascending.
pub fn numbered(dir: &Path, prefix: &str) -> Result<Vec<u64>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|n| n.strip_prefix(prefix)).and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub fn sync_dir(dir: &Path) -> Result<(), Error> {
    Ok(File::open(dir)?.sync_all()?)
}

impl Wal {
    /// Begins file `number`, which does not exist or holds nothing that counts.
    pub fn begin(dir: &Path, number: u64) -> Result<Wal, Error> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path(dir, number))?;
        sync_dir(dir)?;
        Ok(Wal { dir: dir.to_owned(), number, file, length: 0, broken: false, syncs: 0 })
    }

    pub fn len(&self) -> u64 {
        self.length
    }

    /// Durable when it returns; on an error nothing of it will ever be read back.
    pub fn append(&mut self, records: &[u8]) -> Result<(), Error> {
        self.heal()?;
        self.broken = true;
        self.file.write_all(records)?;
        self.file.sync_data()?;
        self.broken = false;
        self.syncs += 1;
        self.length += records.len() as u64;
        Ok(())
    }

    fn heal(&mut self) -> Result<(), Error> {
        if self.broken {
            use std::io::{Seek, SeekFrom};
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            self.file.sync_data()?;
            self.broken = false;
        }
        Ok(())
    }

    /// So that a test can have a file that refuses writes.
    #[cfg(test)]
    pub fn replace_file(&mut self, file: File) {
        self.file = file;
    }

    /// Removes every file before this one.
    pub fn forget_older(&self) -> Result<(), Error> {
        for number in numbered(&self.dir, "wal-")?.into_iter().filter(|n| *n < self.number) {
            fs::remove_file(path(&self.dir, number))?;
        }
        Ok(())
    }
}

/// What replaying a file came upon, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Behind the last whole record: what a crash interrupts, and nobody was told to be stored.
    pub torn: u64,
    /// Before whole records: no crash does that. What was there is lost.
    pub damaged: u64,
}

/// Gives every whole record of file `number` to `apply`, with whether damage came before it. A damaged file is also kept beside.
pub fn replay(dir: &Path, number: u64, mut apply: impl FnMut(Record, bool)) -> Result<Replayed, Error> {
    let path = path(dir, number);
    let bytes = fs::read(&path)?;
    let (mut at, mut damaged) = (0, 0);
    while at < bytes.len() {
        if let Some((record, length)) = record_at(&bytes[at..]) {
            apply(record, damaged > 0);
            at += length;
            continue;
        }
        match (at + 1..bytes.len()).find(|next| record_at(&bytes[*next..]).is_some()) {
            Some(next) => {
                tracing::error!(
                    path = %path.display(), at, bytes = next - at,
                    "a file of the log store is damaged: the lines that were there are lost, those behind it are not. The file is kept \
                     beside as .damaged; look at the disk (dmesg, smartctl)"
                );
                damaged += next - at;
                at = next;
            }
            None => break,
        }
    }
    let torn = bytes.len() - at;
    if torn > 0 {
        tracing::warn!(path = %path.display(), bytes = torn, "the torn end of a file of the log store was cut: nothing of it was acknowledged");
    }
    if damaged > 0 {
        // Told already; without room for a copy there is none.
        let _ = fs::copy(&path, path.with_extension("damaged"));
    }
    Ok(Replayed { torn: torn as u64, damaged: damaged as u64 })
}

/// The record that begins here, and its whole length.
fn record_at(bytes: &[u8]) -> Option<(Record, usize)> {
    let mut cursor = Cursor(bytes);
    let (length, sum) = (cursor.u32().filter(|length| (1..=MAX_RECORD).contains(length))?, cursor.u32()?);
    let payload = cursor.bytes(length as usize)?;
    if !matches!(payload[0], OP | LINES) || crc(payload) != sum {
        return None;
    }
    Some((read(payload)?, length as usize + 8))
}

pub fn write_op(out: &mut Vec<u8>, op: &Op) -> Result<(), Error> {
    let json = serde_json::to_vec(op).map_err(std::io::Error::other)?;
    frame(out, |out| {
        out.push(OP);
        out.extend_from_slice(&json);
    });
    Ok(())
}

pub fn write_lines(out: &mut Vec<u8>, lines: &Lines) {
    frame(out, |out| {
        out.push(LINES);
        out.extend_from_slice(&lines.stream.to_le_bytes());
        out.extend_from_slice(&lines.summary.first.to_le_bytes());
        out.extend_from_slice(&lines.summary.count.to_le_bytes());
        out.extend_from_slice(&lines.summary.min.to_le_bytes());
        out.extend_from_slice(&lines.summary.max.to_le_bytes());
        out.extend_from_slice(&lines.ingested.to_le_bytes());
        let (source, next, resume, lost) = match &lines.source {
            Some(p) => (p.source.as_str(), p.next, p.resume.as_str(), p.lost),
            None => ("", 0, "", 0),
        };
        for text in [source, resume] {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&next.to_le_bytes());
        out.extend_from_slice(&lost.to_le_bytes());
        out.extend_from_slice(&lines.bytes);
    });
}

fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    write(out);
    let length = (out.len() - start - 8) as u32;
    let sum = crc(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}

fn read(payload: &[u8]) -> Option<Record> {
    let (&kind, rest) = payload.split_first()?;
    match kind {
        OP => serde_json::from_slice(rest).ok().map(Record::Op),
        LINES => {
            let mut cursor = Cursor(rest);
            let stream = cursor.u64()?;
            let (first, count) = (cursor.u64()?, cursor.u32()?);
            let (min, max) = (cursor.u64()? as i64, cursor.u64()? as i64);
            let ingested = cursor.u64()? as i64;
            let (source, resume) = (cursor.text()?, cursor.text()?);
            let (next, lost) = (cursor.u64()?, cursor.u64()?);
            let source = (!source.is_empty()).then_some(Progress { source, next, resume, lost });
            let summary = Summary { first, count, min, max };
            Some(Record::Lines(Lines { stream, summary, ingested, bytes: cursor.0.to_vec(), source }))
        }
        _ => None,
    }
}
