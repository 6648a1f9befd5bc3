//! From records to numbered lines in batches: joins parts per stream, counts, and says for each batch where reading would have to go
//! on after it, so that every line is stored once over restarts of the agent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::jsonfile::{Position, Record};
use crate::model::Timestamp;
use crate::model::log::{LineBatch, LogEvent, LogTarget, ResumePoint};

const BATCH_LINES: usize = 1_000;
const BATCH_BYTES: usize = 256 << 10;
/// A longer line is cut here, as CloudWatch Logs does with an event of more than 256 KiB.
const LINE_MAX: usize = 256 << 10;
/// The number of a container's first line.
pub const FIRST: u64 = 1;

/// Where reading goes on, as written into `LineBatch::resume`. While a line of one stream is still open, this is where that line
/// began, with the number of lines of each stream that ended since and are not to be handed on twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume<P> {
    pub at: P,
    pub skip: [u64; 2],
    pub next: u64,
}

#[derive(Default)]
struct Open<P> {
    text: Vec<u8>,
    began: Option<Began<P>>,
}

/// An open line's first part.
#[derive(Clone, Copy)]
struct Began<P> {
    nanos: i64,
    at: P,
    /// How many lines of each stream had ended then.
    ended: [u64; 2],
    /// The number of the record, to tell which line began first.
    record: u64,
}

/// `P` is a position in whatever is read: a file's, or the log API's.
pub struct Joiner<P> {
    source: String,
    target: LogTarget,
    open: [Open<P>; 2],
    records: u64,
    ended: [u64; 2],
    skip: [u64; 2],
    next: u64,
    lost: u64,
    events: Vec<LogEvent>,
    bytes: usize,
}

impl<P: Copy + Default + Serialize + for<'a> Deserialize<'a>> Joiner<P> {
    /// Also says from where to read.
    pub fn new(source: String, target: LogTarget, resume: Option<&ResumePoint>) -> (Joiner<P>, Option<P>) {
        let saved = resume.and_then(|r| serde_json::from_str::<Resume<P>>(&r.resume).ok());
        let next = resume.map_or(FIRST, |r| r.next.max(FIRST));
        let joiner = Joiner {
            source,
            target,
            open: [Open { text: Vec::new(), began: None }, Open { text: Vec::new(), began: None }],
            records: 0,
            ended: [0; 2],
            skip: saved.as_ref().map_or([0; 2], |s| s.skip),
            next,
            // Lines were stored, but from where to go on was not understood: what follows may not join them.
            lost: u64::from(resume.is_some_and(|r| r.next > FIRST) && saved.is_none()),
            events: Vec::new(),
            bytes: 0,
        };
        (joiner, saved.map(|s| s.at))
    }

    pub fn record(&mut self, record: &Record, before: P, after: P, out: &mut Vec<LineBatch>) {
        let stream = usize::from(record.stderr);
        self.records += 1;
        let open = &mut self.open[stream];
        if !record.partial && open.began.is_none() {
            return self.line(stream, record.nanos, text_of(record.text), after, out);
        }
        open.began.get_or_insert(Began { nanos: record.nanos, at: before, ended: self.ended, record: self.records });
        open.text.extend_from_slice(record.text);
        if !record.partial || open.text.len() >= LINE_MAX {
            self.end(stream, after, out);
        }
    }

    fn end(&mut self, stream: usize, after: P, out: &mut Vec<LineBatch>) {
        let Some(began) = self.open[stream].began.take() else { return };
        let text = std::mem::take(&mut self.open[stream].text);
        self.line(stream, began.nanos, text_of(&text), after, out);
    }

    fn line(&mut self, stream: usize, nanos: i64, text: Arc<str>, after: P, out: &mut Vec<LineBatch>) {
        self.ended[stream] += 1;
        if self.skip[stream] > 0 {
            self.skip[stream] -= 1;
            return;
        }
        self.bytes += text.len();
        self.events.push(LogEvent { at: Timestamp(nanos.div_euclid(1_000_000)), message: text });
        if self.events.len() >= BATCH_LINES || self.bytes >= BATCH_BYTES {
            self.flush(after, out);
        }
    }

    /// Something is missing here. How many lines is not known: at least one.
    pub fn lose(&mut self, at: P, out: &mut Vec<LineBatch>) {
        tracing::warn!(container = %self.source, stream = %self.target.stream, "log lines were lost before they could be read");
        self.flush(at, out);
        self.lost += 1;
    }

    /// Hands on what is there; `at` is where reading stands.
    pub fn flush(&mut self, at: P, out: &mut Vec<LineBatch>) {
        if self.events.is_empty() {
            return;
        }
        let first = self.next;
        self.next += self.events.len() as u64;
        let oldest = self.open.iter().filter_map(|o| o.began).min_by_key(|began| began.record);
        let resume = match oldest {
            Some(began) => {
                let since = |stream: usize| self.ended[stream] - began.ended[stream];
                Resume { at: began.at, skip: [since(0), since(1)], next: self.next }
            }
            None => Resume { at, skip: [0; 2], next: self.next },
        };
        out.push(LineBatch {
            source: self.source.clone(),
            target: self.target.clone(),
            first,
            events: std::mem::take(&mut self.events),
            lost_before: std::mem::take(&mut self.lost),
            resume: serde_json::to_string(&resume).expect("numbers serialise"),
        });
        self.bytes = 0;
    }

    /// The container has ended and everything was read: a last line without its newline is a line too.
    pub fn finish(&mut self, at: P, out: &mut Vec<LineBatch>) {
        self.end(0, at, out);
        self.end(1, at, out);
        self.flush(at, out);
    }

    /// The number of the next line.
    pub fn next(&self) -> u64 {
        self.next + self.events.len() as u64
    }
}

fn text_of(bytes: &[u8]) -> Arc<str> {
    Arc::from(String::from_utf8_lossy(bytes))
}

pub type FileJoiner = Joiner<Position>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target() -> LogTarget {
        LogTarget { group: "/web".into(), stream: "s".into(), create_group: false }
    }

    #[derive(Clone, Debug)]
    struct Part {
        stderr: bool,
        partial: bool,
        text: String,
    }

    /// Reads `parts[from..to]`, with positions that are indices.
    fn read(joiner: &mut Joiner<u64>, parts: &[Part], from: u64, flush: impl Fn(u64) -> bool, last: bool) -> Vec<LineBatch> {
        let mut out = Vec::new();
        for (k, part) in parts.iter().enumerate().skip(from as usize) {
            let k = k as u64;
            let record = Record { stderr: part.stderr, nanos: 5_000_000, partial: part.partial, text: part.text.as_bytes() };
            joiner.record(&record, k, k + 1, &mut out);
            if flush(k) {
                joiner.flush(k + 1, &mut out);
            }
        }
        if last {
            joiner.finish(parts.len() as u64, &mut out);
        }
        out
    }

    fn messages(batches: &[LineBatch]) -> Vec<(u64, String)> {
        let numbered = |b: &LineBatch| {
            let first = b.first;
            b.events.iter().enumerate().map(move |(k, e)| (first + k as u64, e.message.to_string())).collect::<Vec<_>>()
        };
        batches.iter().flat_map(numbered).collect()
    }

    #[test]
    fn parts_join_per_stream_and_the_last_open_line_is_delivered() {
        let part = |stderr, partial, text: &str| Part { stderr, partial, text: text.into() };
        let parts = [part(false, true, "a"), part(true, false, "E"), part(false, false, "b"), part(false, true, "end")];
        let (mut joiner, from) = Joiner::<u64>::new("c".into(), target(), None);
        assert_eq!(from, None);
        let batches = read(&mut joiner, &parts, 0, |_| false, true);
        assert_eq!(messages(&batches), vec![(1, "E".into()), (2, "ab".into()), (3, "end".into())]);
        assert_eq!(joiner.next(), 4);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let (mut joiner, _) = Joiner::<u64>::new("c".into(), target(), None);
        let parts = vec![Part { stderr: false, partial: true, text: "x".repeat(16 << 10) }; 40];
        let batches = read(&mut joiner, &parts, 0, |_| false, true);
        let lengths: Vec<usize> = batches.iter().flat_map(|b| b.events.iter().map(|e| e.message.len())).collect();
        assert_eq!(lengths, vec![256 << 10, 256 << 10, 128 << 10]);
    }

    proptest! {
        /// Whatever the agent's restart cuts through, the store gets every line once.
        #[test]
        fn every_line_once_over_a_restart(
            parts in prop::collection::vec((any::<bool>(), any::<bool>(), "[a-z]{1,3}"), 0..40),
            flush_every in 1u64..6,
            resume_at in any::<prop::sample::Index>(),
        ) {
            let parts: Vec<Part> =
                parts.into_iter().map(|(stderr, partial, text)| Part { stderr, partial, text }).collect();
            let (mut whole, _) = Joiner::<u64>::new("c".into(), target(), None);
            let batches = read(&mut whole, &parts, 0, |k| k % flush_every == 0, true);
            let expected = messages(&batches);
            if batches.is_empty() {
                return Ok(());
            }
            let kept = resume_at.index(batches.len());
            let last = &batches[kept];
            let point = ResumePoint {
                source: "c".into(),
                next: last.first + last.events.len() as u64,
                resume: last.resume.clone(),
            };
            let (mut again, from) = Joiner::<u64>::new("c".into(), target(), Some(&point));
            let rest = read(&mut again, &parts, from.unwrap_or(0), |_| false, true);
            let mut all = messages(&batches[..=kept]);
            all.extend(messages(&rest));
            prop_assert_eq!(all, expected);
        }
    }
}
