//! Reads Docker's json-file logs on disk: rotation, truncation, torn records, 16 KiB parts, resuming by position. Hands on records,
//! not lines: [`super::lines`] joins parts.
//!
//! Why files and not the API: Docker's log API loses lines silently when a file rotates under a slow reader.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

const RECORD_START: &[u8] = b"{\"log\":\"";
/// A record is at most 16 KiB of text, each byte at most six when escaped, and its attributes: more than this is no record.
const RECORD_MAX: usize = 4 << 20;
const BUFFER_FIRST: usize = 8 << 10;
const BUFFER_BUSY: usize = 256 << 10;
/// More rotated files than Docker is ever told to keep.
const CHAIN_MAX: usize = 100;

#[derive(Debug, PartialEq)]
pub struct Record<'a> {
    pub stderr: bool,
    pub nanos: i64,
    /// The line goes on in the stream's next record.
    pub partial: bool,
    pub text: &'a [u8],
}

/// Where reading stands: survives renames, and (by `head`) the reuse of an inode number, which ext4 does within two rotations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub inode: u64,
    /// A hash of the file's first record.
    pub head: u64,
    pub offset: u64,
}

pub enum Read<'a> {
    /// `before` and `after` are the positions around the record.
    Record { record: Record<'a>, before: Position, after: Position },
    /// Something is missing here: rotated away unread, cut off, or torn.
    Lost,
}

pub struct FileReader {
    path: PathBuf,
    file: Option<File>,
    pub position: Position,
    buffer: Vec<u8>,
    have: usize,
    text: Vec<u8>,
    minute: MinuteCache,
    lost_at_start: bool,
}

impl FileReader {
    /// `resume`: the position after the last record that was dealt with.
    pub fn new(path: PathBuf, resume: Option<Position>) -> FileReader {
        let mut reader = FileReader {
            path,
            file: None,
            position: Position::default(),
            buffer: vec![0; BUFFER_FIRST],
            have: 0,
            text: Vec::new(),
            minute: MinuteCache::default(),
            lost_at_start: false,
        };
        if let Some(position) = resume.filter(|p| p.inode != 0) {
            let found = reader.chain().into_iter().find(|(file, meta)| {
                meta.ino() == position.inode
                    && meta.len() >= position.offset
                    && (position.offset == 0 || head_of(file) == position.head)
            });
            match found {
                Some((file, _)) => {
                    reader.file = Some(file);
                    reader.position = position;
                }
                None => reader.lost_at_start = true,
            }
        }
        reader
    }

    /// The log and its rotated files, newest first.
    fn chain(&self) -> Vec<(File, fs::Metadata)> {
        let open = |path: PathBuf| {
            let file = File::open(path).ok()?;
            let meta = file.metadata().ok()?;
            Some((file, meta))
        };
        let newest = open(self.path.clone());
        let rotated = (1..CHAIN_MAX).map_while(|k| open(PathBuf::from(format!("{}.{k}", self.path.display()))));
        newest.into_iter().chain(rotated).collect()
    }

    /// Reads what there is, at most about `budget` bytes; returns the bytes consumed, 0 at the end.
    pub fn poll(&mut self, budget: usize, sink: &mut dyn FnMut(Read)) -> io::Result<usize> {
        if std::mem::take(&mut self.lost_at_start) {
            sink(Read::Lost);
        }
        if self.file.is_none() && !self.advance(sink) {
            return Ok(0);
        }
        let mut used = 0;
        while used < budget {
            let Some(file) = &self.file else { return Ok(used) };
            if self.have == self.buffer.len() {
                if self.have >= RECORD_MAX {
                    self.position.offset += self.have as u64;
                    self.have = 0;
                    sink(Read::Lost);
                } else {
                    self.buffer.resize(self.have * 2, 0);
                }
            }
            let at = self.position.offset + self.have as u64;
            let mut size = file.read_at(&mut self.buffer[self.have..], at)?;
            if size == 0 {
                // Docker closes a file before it renames it, so one more read after seeing the rename is complete.
                let renamed = fs::metadata(&self.path).map_or(true, |m| m.ino() != self.position.inode);
                if renamed {
                    size = file.read_at(&mut self.buffer[self.have..], at)?;
                }
                if size == 0 {
                    if !self.advance(sink) {
                        return Ok(used);
                    }
                    continue;
                }
            }
            used += size;
            // A thousand quiet files should cost little, a busy one few calls.
            if self.have + size == self.buffer.len() && self.buffer.len() < BUFFER_BUSY {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            self.consume(self.have + size, sink);
        }
        Ok(used)
    }

    /// Hands on the whole records in the buffer's first `end` bytes and keeps the rest.
    fn consume(&mut self, end: usize, sink: &mut dyn FnMut(Read)) {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', &self.buffer[self.have..end]) {
            let newline = newline + self.have;
            let bytes = &self.buffer[start..newline];
            if self.position.offset == 0 {
                self.position.head = hash(&bytes[..bytes.len().min(HEAD_MAX)]);
            }
            let before = self.position;
            self.position.offset += (newline + 1 - start) as u64;
            let after = self.position;
            start = newline + 1;
            if let Some(record) = scan(bytes, &mut self.text, &mut self.minute) {
                sink(Read::Record { record, before, after });
                continue;
            }
            // Torn by a crash or a full disk: a whole record may follow on the same line.
            sink(Read::Lost);
            if let Some(at) = memchr::memmem::rfind(bytes, RECORD_START).filter(|at| *at > 0)
                && let Some(record) = scan(&bytes[at..], &mut self.text, &mut self.minute)
            {
                sink(Read::Record { record, before, after });
            }
        }
        self.buffer.copy_within(start..end, 0);
        self.have = end - start;
    }

    /// At the end of a file: moves to the one after it, if there is one.
    fn advance(&mut self, sink: &mut dyn FnMut(Read)) -> bool {
        if let Some(file) = &self.file
            && fs::metadata(&self.path).is_ok_and(|m| m.ino() == self.position.inode)
        {
            // max-file=1, or somebody's logrotate, truncates in place.
            if file.metadata().is_ok_and(|m| m.len() < self.position.offset) {
                (self.position.offset, self.have) = (0, 0);
                sink(Read::Lost);
                return true;
            }
            return false;
        }
        let mut chain = self.chain();
        if chain.is_empty() {
            return false; // Between rename and create, or removed.
        }
        let current = self.file.as_ref().and_then(|_| chain.iter().position(|(_, m)| m.ino() == self.position.inode));
        let next = match current {
            Some(0) => return false,
            Some(k) => k - 1,
            None => {
                if self.file.is_some() {
                    sink(Read::Lost); // Several rotations passed: what lay between is gone.
                }
                chain.len() - 1
            }
        };
        if self.have > 0 {
            sink(Read::Lost); // A record without its end in a closed file.
        }
        let (file, meta) = chain.swap_remove(next);
        self.position = Position { inode: meta.ino(), head: head_of(&file), offset: 0 };
        self.file = Some(file);
        self.have = 0;
        true
    }
}

/// The first record's first bytes hold a line's start and mostly its time to the nanosecond.
const HEAD_MAX: usize = 160;

fn head_of(file: &File) -> u64 {
    let mut start = [0u8; HEAD_MAX];
    let size = file.read_at(&mut start, 0).unwrap_or(0);
    hash(&start[..memchr::memchr(b'\n', &start[..size]).unwrap_or(size)])
}

/// FNV-1a: written into saved positions, so it may not change with the standard library.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// Scans one record. Docker writes the keys in a fixed order: log, stream, attrs (only with such log options), time.
fn scan<'a>(record: &[u8], out: &'a mut Vec<u8>, minute: &mut MinuteCache) -> Option<Record<'a>> {
    out.clear();
    let mut rest = record.strip_prefix(RECORD_START)?;
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest)?;
        out.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            rest = &rest[at + 1..];
            break;
        }
        rest = unescape(&rest[at + 1..], out)?;
    }
    let rest = rest.strip_prefix(b",\"stream\":\"std")?;
    let stderr = rest.starts_with(b"err");
    // The time is last; strings in attrs have their quotes escaped.
    let rest = rest.strip_suffix(b"\"}")?;
    let time = &rest[memchr::memrchr(b'"', rest)? + 1..];
    let nanos = minute.parse(time)?;
    let partial = out.last() != Some(&b'\n');
    if !partial {
        out.pop();
    }
    Some(Record { stderr, nanos, partial, text: out })
}

/// What follows a backslash; returns what follows that.
fn unescape<'a>(after: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = &after[1.min(after.len())..];
    match *after.first()? {
        b'n' => out.push(b'\n'),
        b't' => out.push(b'\t'),
        b'r' => out.push(b'\r'),
        b'b' => out.push(8),
        b'f' => out.push(12),
        b'u' => {
            let mut code = hex4(rest)?;
            rest = &rest[4..];
            if (0xd800..0xdc00).contains(&code) && rest.starts_with(b"\\u") {
                code = 0x10000 + ((code - 0xd800) << 10) + (hex4(&rest[2..])?.wrapping_sub(0xdc00) & 0x3ff);
                rest = &rest[6..];
            }
            let mut utf8 = [0; 4];
            out.extend_from_slice(char::from_u32(code).unwrap_or('\u{fffd}').encode_utf8(&mut utf8).as_bytes());
        }
        other => out.push(other),
    }
    Some(rest)
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(bytes.get(..4)?).ok()?, 16).ok()
}

/// Parses RFC 3339 UTC times with up to 9 decimals; remembers the minute, which nearly always repeats.
#[derive(Default)]
pub struct MinuteCache {
    minute: [u8; 17],
    base: i64,
}

impl MinuteCache {
    pub fn parse(&mut self, time: &[u8]) -> Option<i64> {
        if time.len() < 20 || time[time.len() - 1] != b'Z' {
            return None;
        }
        if self.minute != time[..17] {
            let text = std::str::from_utf8(&time[..17]).ok()?;
            let minute: jiff::Timestamp = format!("{text}00Z").parse().ok()?;
            self.base = minute.as_second();
            self.minute.copy_from_slice(&time[..17]);
        }
        let mut fraction = 0;
        if time[19] == b'.' {
            let digits = time.len() - 21;
            fraction = number(time, 20..time.len() - 1)? * 10i64.pow(9u32.checked_sub(digits as u32)?);
        }
        Some((self.base + number(time, 17..19)?) * 1_000_000_000 + fraction)
    }
}

fn number(text: &[u8], range: Range<usize>) -> Option<i64> {
    text[range].iter().try_fold(0i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn scanned(record: &str) -> Option<(bool, bool, i64, String)> {
        let (mut out, mut minute) = (Vec::new(), MinuteCache::default());
        let r = scan(record.as_bytes(), &mut out, &mut minute)?;
        Some((r.stderr, r.partial, r.nanos, String::from_utf8(r.text.to_vec()).unwrap()))
    }

    #[test]
    fn records_as_docker_writes_them() {
        let escaped = r#"{"log":"a\"b\\\t\u003c\ud83d\ude00\n","stream":"stderr","attrs":{"x":"\"time\":\"q"},"time":"2026-11-20T10:55:36.4697Z"}"#;
        assert_eq!(scanned(escaped), Some((true, false, 1_795_172_136_469_700_000, "a\"b\\\t<😀".into())));
        let part = r#"{"log":"abc","stream":"stdout","time":"2026-11-20T10:55:36Z"}"#;
        assert_eq!(scanned(part), Some((false, true, 1_795_172_136_000_000_000, "abc".into())));
        assert_eq!(scanned(r#"{"log":"abc{"log":"d\n","stream":"stdout","time":"2026-11-20T10:55:36Z"}"#), None);
        assert_eq!(scanned(r#"{"log":"abc\"#), None);
    }

    fn line(n: u32) -> String {
        format!("{{\"log\":\"line {n}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-20T10:55:36.{n:09}Z\"}}\n")
    }

    fn drain(reader: &mut FileReader) -> (Vec<String>, usize) {
        let (mut lines, mut lost) = (Vec::new(), 0);
        let mut sink = |read: Read| match read {
            Read::Record { record, .. } => lines.push(String::from_utf8(record.text.to_vec()).unwrap()),
            Read::Lost => lost += 1,
        };
        while reader.poll(1 << 20, &mut sink).unwrap() > 0 {}
        (lines, lost)
    }

    struct Dir(PathBuf);
    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("beaufort-jsonfile-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
        fn log(&self) -> PathBuf {
            self.0.join("x-json.log")
        }
        fn append(&self, text: &str) {
            File::options().create(true).append(true).open(self.log()).unwrap().write_all(text.as_bytes()).unwrap();
        }
        fn rotate(&self, keep: u32) {
            let name = |k: u32| PathBuf::from(format!("{}.{k}", self.log().display()));
            for k in (1..keep).rev() {
                let _ = fs::rename(name(k), name(k + 1));
            }
            fs::rename(self.log(), name(1)).unwrap();
            self.append("");
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn follows_rotations_and_resumes_between_them() {
        let dir = Dir::new("rotate");
        dir.append(&(line(1) + &line(2)));
        let mut reader = FileReader::new(dir.log(), None);
        assert_eq!(drain(&mut reader), (vec!["line 1".into(), "line 2".into()], 0));
        let saved = reader.position;
        dir.append(&line(3));
        dir.rotate(3);
        dir.append(&line(4));
        dir.rotate(3);
        dir.append(&line(5));
        let expected = (vec!["line 3".to_owned(), "line 4".into(), "line 5".into()], 0);
        assert_eq!(drain(&mut reader), expected);
        assert_eq!(
            drain(&mut FileReader::new(dir.log(), Some(saved))),
            expected,
            "a fresh reader goes on where the old one stood"
        );
    }

    #[test]
    fn what_was_rotated_away_is_a_loss() {
        let dir = Dir::new("gap");
        dir.append(&line(1));
        let mut reader = FileReader::new(dir.log(), None);
        drain(&mut reader);
        let saved = reader.position;
        for n in 2..6 {
            dir.rotate(2);
            dir.append(&line(n));
        }
        let (lines, lost) = drain(&mut FileReader::new(dir.log(), Some(saved)));
        assert_eq!((lines.first().map(String::as_str), lost), (Some("line 3"), 1));
    }

    #[test]
    fn torn_records_are_skipped_and_counted() {
        let dir = Dir::new("torn");
        dir.append(&(line(1) + "{\"log\":\"half " + &line(2) + "rubbish\n" + &line(3) + "{\"log\":\"not yet"));
        let mut reader = FileReader::new(dir.log(), None);
        assert_eq!(drain(&mut reader), (vec!["line 1".into(), "line 2".into(), "line 3".into()], 2));
        dir.append(" whole\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-20T10:55:36Z\"}\n");
        assert_eq!(drain(&mut reader), (vec!["not yet whole".into()], 0));
    }

    #[test]
    fn truncation_in_place_is_a_loss_and_reading_goes_on() {
        let dir = Dir::new("truncate");
        dir.append(&(line(1) + &line(2)));
        let mut reader = FileReader::new(dir.log(), None);
        drain(&mut reader);
        File::options().write(true).truncate(true).open(dir.log()).unwrap();
        dir.append(&line(3));
        assert_eq!(drain(&mut reader), (vec!["line 3".into()], 1));
    }
}
