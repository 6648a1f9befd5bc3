//! The write-ahead log: frames of a length, a CRC-32 and a payload, in numbered segments.
//!
//! A put is acknowledged when its frame was handed to the operating system, so that a crash of ours loses nothing; the disk is
//! synchronised about once a second, so that a power failure loses about a second. A torn tail is cut where the last whole frame
//! ends. What could not be written (disk full) stays in memory and reaches the disk with the next checkpoint that succeeds.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::bits::{ByteReader, put_varint, unzigzag, zigzag};
use super::chunk;
use super::head::Resolution;
use super::point::{Point, is_single};
use super::series::Series;

/// Everything before this is in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) struct Cut {
    pub segment: u64,
    pub offset: u64,
}

pub(super) struct Wal {
    dir: PathBuf,
    segment: u64,
    file: Option<File>,
    length: u64,
    /// Segments before this have been deleted.
    first: u64,
    dirty: bool,
}

const SEGMENT_BYTES: u64 = 64 << 20;
const FRAME_HEADER: usize = 8;
/// Larger than any put; a greater length is a torn frame.
const MAX_FRAME: usize = 64 << 20;

const POINTS: u8 = 1;
const SERIES: u8 = 2;

impl Wal {
    pub fn start(dir: &Path, first: u64, segment: u64) -> Wal {
        Wal { dir: dir.to_path_buf(), segment, file: None, length: 0, first, dirty: false }
    }

    pub fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.length >= SEGMENT_BYTES {
            self.sync_handle()?.map_or(Ok(()), |file| file.sync_data())?;
            (self.segment, self.file, self.length) = (self.segment + 1, None, 0);
        }
        let mut frame = Vec::with_capacity(payload.len() + FRAME_HEADER);
        put_frame(&mut frame, payload);
        let length = self.length;
        let file = self.open()?;
        if let Err(error) = file.write_all(&frame) {
            // Half a frame would hide every later one from recovery.
            let mended = file.set_len(length).and_then(|()| file.seek(SeekFrom::Start(length)));
            if mended.is_err() {
                (self.segment, self.file, self.length) = (self.segment + 1, None, 0);
            }
            return Err(error);
        }
        self.length += frame.len() as u64;
        self.dirty = true;
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let path = segment_path(&self.dir, self.segment);
            let file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
            // Else a power failure could take the file's name, and with it what was synchronised into it.
            File::open(&self.dir)?.sync_all()?;
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("no segment"))
    }

    /// A handle to synchronise without holding up those who append; None when there is nothing to do.
    pub fn sync_handle(&mut self) -> io::Result<Option<File>> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(None);
        }
        self.file.as_ref().map(File::try_clone).transpose()
    }

    /// The disk did not take it: try again.
    pub fn sync_failed(&mut self) {
        self.dirty = true;
    }

    pub fn cut(&self) -> Cut {
        Cut { segment: self.segment, offset: self.length }
    }

    /// Also ends the current segment when all of it is covered, so that segments do not outlive their use.
    pub fn delete_before(&mut self, cut: Cut) {
        if cut == self.cut() && cut.offset > 0 {
            (self.segment, self.file, self.length, self.dirty) = (self.segment + 1, None, 0, false);
        }
        let end = if cut.segment < self.segment && cut.offset >= self.segment_length(cut.segment) {
            cut.segment + 1
        } else {
            cut.segment
        };
        for segment in self.first..end {
            // One that is left over is deleted when the store is opened.
            let _ = std::fs::remove_file(segment_path(&self.dir, segment));
        }
        self.first = self.first.max(end);
    }

    fn segment_length(&self, segment: u64) -> u64 {
        std::fs::metadata(segment_path(&self.dir, segment)).map_or(0, |m| m.len())
    }

    pub fn bytes(&self) -> u64 {
        (self.first..self.segment).map(|s| self.segment_length(s)).sum::<u64>() + self.length
    }
}

pub(super) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("wal-{segment:016x}.log"))
}

pub(super) fn segment_of(file_name: &str) -> Option<u64> {
    u64::from_str_radix(file_name.strip_prefix("wal-")?.strip_suffix(".log")?, 16).ok()
}

pub(super) fn put_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// What reading a file of frames came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames {
    /// Where the last whole frame ends: what follows was being written in a crash.
    pub end: usize,
    /// Bytes between whole frames, which no crash leaves.
    pub damaged: usize,
}

/// Gives every whole frame to `each`, those behind damage too.
pub(super) fn read_frames(bytes: &[u8], mut each: impl FnMut(&[u8])) -> Frames {
    let (mut at, mut damaged) = (0, 0);
    while at < bytes.len() {
        if let Some(payload) = frame_at(&bytes[at..]) {
            each(payload);
            at += FRAME_HEADER + payload.len();
            continue;
        }
        let Some(next) = (at + 1..bytes.len()).find(|next| frame_at(&bytes[*next..]).is_some()) else { break };
        damaged += next - at;
        at = next;
    }
    Frames { end: at, damaged }
}

fn frame_at(bytes: &[u8]) -> Option<&[u8]> {
    let mut input = ByteReader(bytes);
    let (length, crc) = (input.u32()? as usize, input.u32()?);
    // No payload is empty, so that a hole of zeros is no row of empty frames.
    let payload = input.take(length).filter(|_| (1..=MAX_FRAME).contains(&length))?;
    (matches!(payload[0], POINTS | SERIES) && crc32fast::hash(payload) == crc).then_some(payload)
}

/// One payload, as recovery sees it.
pub(super) enum Record<'a> {
    Series(&'a [u8]),
    Points(Vec<(u32, Resolution, Point)>),
}

pub(super) fn series_payload(series: &Series) -> Vec<u8> {
    let mut out = vec![SERIES];
    series.write(&mut out);
    out
}

pub(super) struct PointsPayload {
    out: Vec<u8>,
    last_at: i64,
}

impl PointsPayload {
    pub fn new(points: usize) -> PointsPayload {
        let mut out = Vec::with_capacity(points * 16 + 8);
        out.push(POINTS);
        PointsPayload { out, last_at: 0 }
    }

    pub fn push(&mut self, id: u32, resolution: Resolution, point: &Point) {
        put_varint(&mut self.out, id as u64);
        put_varint(&mut self.out, zigzag(point.at.wrapping_sub(self.last_at)));
        self.last_at = point.at;
        let minute = (resolution == Resolution::Minute) as u8;
        if is_single(&point.set) {
            self.out.push(minute);
            self.out.extend_from_slice(&point.set.sum.to_le_bytes());
        } else {
            self.out.push(2 | minute);
            let chunk = chunk::encode(std::slice::from_ref(point));
            put_varint(&mut self.out, chunk.len() as u64);
            self.out.extend_from_slice(&chunk);
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.out
    }
}

/// None: not a payload of this version.
pub(super) fn read_record(payload: &[u8]) -> Option<Record<'_>> {
    let mut input = ByteReader(payload);
    match input.u8()? {
        SERIES => Some(Record::Series(input.0)),
        POINTS => {
            let mut points = Vec::new();
            let mut at = 0i64;
            while !input.0.is_empty() {
                let id = u32::try_from(input.varint()?).ok()?;
                at = at.wrapping_add(unzigzag(input.varint()?));
                let tag = input.u8()?;
                let resolution = if tag & 1 == 1 { Resolution::Minute } else { Resolution::Second };
                if tag & 2 == 0 {
                    points.push((id, resolution, Point::single(at, input.f64()?)));
                } else {
                    let length = usize::try_from(input.varint()?).ok()?;
                    let mut one = Vec::with_capacity(1);
                    chunk::decode(input.take(length)?, 1, &mut one)?;
                    points.push((id, resolution, one.pop()?));
                }
            }
            Some(Record::Points(points))
        }
        _ => None,
    }
}
