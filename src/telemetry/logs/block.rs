//! How events are written, in the write-ahead log and in blocks alike, and what is known of a block without reading it.
//!
//! An event is `varint(time) zigzag(ingestion - time) varint(length) bytes`: nothing depends on the event before it, so a
//! record of the write-ahead log goes into a block by one copy, and a block may be cut anywhere between two events.

use std::sync::Arc;

use super::Error;
use crate::model::Timestamp;
use crate::model::log::LogEvent;

/// `magic stream first count min max raw length crc`, little-endian, in front of each block of a segment.
pub const HEADER: usize = 4 + 8 + 8 + 4 + 8 + 8 + 4 + 4 + 4;
pub const MAGIC: u32 = 0x4b4c_4642;
/// zstd's fastest ordinary level: 128 KiB of log lines take a third of a millisecond.
const LEVEL: i32 = 1;

/// What is known of a run of events of one stream. `first` is the number of its first event in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub first: u64,
    pub count: u32,
    pub min: i64,
    pub max: i64,
}

impl Summary {
    pub fn empty(first: u64) -> Summary {
        Summary { first, count: 0, min: i64::MAX, max: i64::MIN }
    }
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
    pub fn add(&mut self, other: &Summary) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
    /// Whether an event between the two moments, both inclusive, can be inside.
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.count > 0 && self.max >= start && self.min <= end
    }
}

/// A block's header: `length` compressed bytes follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub stream: u64,
    pub summary: Summary,
    pub raw: u32,
    pub length: u32,
    pub crc: u32,
}

/// An event inside a block's bytes.
pub struct RawEvent<'a> {
    pub at: i64,
    pub ingested: i64,
    pub message: &'a str,
}

pub fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

pub fn encode(events: &[LogEvent], ingested: Timestamp, first: u64) -> (Vec<u8>, Summary) {
    let mut out = Vec::with_capacity(events.iter().map(|e| e.message.len() + 14).sum());
    let mut summary = Summary::empty(first);
    for event in events {
        // Times before 1970 do not exist in CloudWatch Logs (Timestamp: minimum value of 0).
        let at = event.at.0.max(0);
        varint(&mut out, at as u64);
        let late = ingested.0 - at;
        varint(&mut out, ((late << 1) ^ (late >> 63)) as u64);
        varint(&mut out, event.message.len() as u64);
        out.extend_from_slice(event.message.as_bytes());
        summary.count += 1;
        summary.min = summary.min.min(at);
        summary.max = summary.max.max(at);
    }
    (out, summary)
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Walks the events in `bytes`; ends early on bytes that are no events.
pub struct Events<'a> {
    bytes: &'a [u8],
}

impl<'a> Events<'a> {
    pub fn of(bytes: &'a [u8]) -> Events<'a> {
        Events { bytes }
    }
    fn varint(&mut self) -> Option<u64> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            v |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(v);
            }
        }
        None
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = RawEvent<'a>;
    fn next(&mut self) -> Option<RawEvent<'a>> {
        let at = self.varint()? as i64;
        let late = self.varint()?;
        let ingested = at.wrapping_add((late >> 1) as i64 ^ -((late & 1) as i64));
        let length = usize::try_from(self.varint()?).ok()?;
        let (message, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(RawEvent { at, ingested, message: std::str::from_utf8(message).ok()? })
    }
}

/// Header and compressed bytes, as they are appended to a segment.
pub fn seal(stream: u64, summary: Summary, raw: &[u8]) -> Result<(Header, Vec<u8>), Error> {
    let body = zstd::bulk::compress(raw, LEVEL)?;
    let header = Header { stream, summary, raw: raw.len() as u32, length: body.len() as u32, crc: crc(&body) };
    Ok((header, body))
}

pub fn unseal(body: &[u8], raw: u32) -> Result<Arc<[u8]>, Error> {
    Ok(zstd::bulk::decompress(body, raw as usize)?.into())
}

impl Header {
    pub fn write(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let fields: [&[u8]; 9] = [
            &MAGIC.to_le_bytes(),
            &self.stream.to_le_bytes(),
            &self.summary.first.to_le_bytes(),
            &self.summary.count.to_le_bytes(),
            &self.summary.min.to_le_bytes(),
            &self.summary.max.to_le_bytes(),
            &self.raw.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.crc.to_le_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            out[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        out
    }

    pub fn read(bytes: &[u8; HEADER]) -> Option<Header> {
        let mut cursor = Cursor(bytes);
        if cursor.u32()? != MAGIC {
            return None;
        }
        let stream = cursor.u64()?;
        let (first, count) = (cursor.u64()?, cursor.u32()?);
        let (min, max) = (cursor.u64()? as i64, cursor.u64()? as i64);
        Some(Header {
            stream,
            summary: Summary { first, count, min, max },
            raw: cursor.u32()?,
            length: cursor.u32()?,
            crc: cursor.u32()?,
        })
    }
}

/// Reads little-endian fields off the front of some bytes.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }
    /// A length and that many bytes of text.
    pub fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        String::from_utf8(self.bytes(length)?.to_vec()).ok()
    }
}
