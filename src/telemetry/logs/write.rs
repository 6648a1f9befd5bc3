//! Writing: whoever holds the writer's lock commits for everyone who queued meanwhile, with one fsync.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::block::{self, Summary};
use super::state::{Op, State};
use super::wal::{self, Lines, Progress};
use super::{Appended, Error, LogStore, Writer, checkpoint};
use crate::model::Timestamp;
use crate::model::log::{LineBatch, LogEvent, ResumePoint};

/// What became of a PutLogEvents: indices into the events that were given, as `rejectedLogEventsInfo` says them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOutcome {
    /// The first event more than 2 hours ahead of us.
    pub too_new_start: Option<usize>,
    /// Behind the last event older than 14 days.
    pub too_old_end: Option<usize>,
    /// Behind the last event older than the group's retention.
    pub expired_end: Option<usize>,
    /// The number of the stream's next event.
    pub next: u64,
    /// What was stored: events, and the bytes of their messages.
    pub events: u64,
    pub bytes: u64,
}

/// What became of a batch of lines.
#[derive(Clone, Debug)]
pub enum IngestResult {
    /// Durable up to and without the resume point's `next`. `events` and `bytes` (of messages) are what this batch added.
    Stored { resume: ResumePoint, events: u64, bytes: u64 },
    /// Not stored, the agent keeps the lines.
    /// `wait`: nothing can be stored for now, whosever lines they are.
    Refused { source: String, why: String, wait: bool },
}

/// A write that waits for its commit.
pub(super) struct Pending {
    group: String,
    stream: String,
    bytes: Vec<u8>,
    summary: Summary,
    ingested: Timestamp,
    lines: Option<LineBatch>,
    done: Mutex<Option<Result<Done, Error>>>,
}

struct Done {
    next: u64,
    /// Events that were new.
    events: u32,
    resume: Option<ResumePoint>,
}

const TOO_NEW_MS: i64 = 2 * 3_600_000;
const TOO_OLD_MS: i64 = 14 * 86_400_000;
pub(super) const DAY_MS: i64 = 86_400_000;
/// One batch of an agent; PutLogEvents allows 1 MiB.
const MAX_BATCH: usize = 16 << 20;

impl LogStore {
    /// PutLogEvents: durable when it returns. Events too old, too new or expired are left out and told.
    pub fn put(&self, group: &str, stream: &str, events: Vec<LogEvent>) -> Result<PutOutcome, Error> {
        let now = self.clock.now();
        let retention = {
            let state = self.read_state();
            let found = state.groups.get(group).ok_or(Error::NoGroup)?;
            found.streams.get(stream).ok_or(Error::NoStream)?;
            found.retention_days
        };
        let too_new = |e: &LogEvent| e.at.since(now) > TOO_NEW_MS;
        let too_old = |e: &LogEvent| now.since(e.at) > TOO_OLD_MS;
        let expired = |e: &LogEvent| retention.is_some_and(|days| now.since(e.at) > i64::from(days) * DAY_MS);
        let mut outcome = PutOutcome {
            too_new_start: events.iter().position(too_new),
            too_old_end: events.iter().rposition(too_old).map(|i| i + 1),
            expired_end: events.iter().rposition(expired).map(|i| i + 1),
            next: 0,
            events: 0,
            bytes: 0,
        };
        let given = events.len();
        let kept: Vec<LogEvent> = events.into_iter().filter(|e| !too_new(e) && !too_old(e) && !expired(e)).collect();
        let stored = (kept.len() as u64, kept.iter().map(|e| e.message.len() as u64).sum());
        let (bytes, summary) = block::encode(&kept, now, 0);
        let (group, stream) = (group.to_owned(), stream.to_owned());
        let pending = Arc::new(Pending { group, stream, bytes, summary, ingested: now, lines: None, done: Mutex::new(None) });
        self.submit(vec![pending.clone()]);
        outcome.next = self.outcome(&pending)?.next;
        (outcome.events, outcome.bytes) = stored;
        self.counters.rejected.fetch_add(given as u64 - stored.0, Ordering::Relaxed);
        Ok(outcome)
    }

    /// Agents' lines: a batch may come twice, lines that were stored before are dropped. The resume point is durable with the
    /// lines. Missing streams are made, missing groups only when the target says so (`awslogs-create-group`).
    pub fn ingest(&self, batches: Vec<LineBatch>) -> Vec<IngestResult> {
        let now = self.clock.now();
        let pending: Vec<Arc<Pending>> = batches
            .into_iter()
            .map(|batch| {
                let (bytes, summary) = block::encode(&batch.events, now, 0);
                let (group, stream) = (batch.target.group.clone(), batch.target.stream.clone());
                Arc::new(Pending { group, stream, bytes, summary, ingested: now, lines: Some(batch), done: Mutex::new(None) })
            })
            .collect();
        self.submit(pending.clone());
        let answer = |p: &Arc<Pending>| {
            let batch = p.lines.as_ref().expect("every pending of an ingest holds its lines");
            match self.outcome(p) {
                Ok(Done { resume: Some(resume), events, .. }) => {
                    // What is known of a batch is its beginning.
                    let new = batch.events.iter().rev().take(events as usize);
                    IngestResult::Stored { resume, events: events.into(), bytes: new.map(|e| e.message.len() as u64).sum() }
                }
                Ok(Done { resume: None, .. }) => {
                    let why = "The source was forgotten meanwhile.".to_owned();
                    IngestResult::Refused { source: batch.source.clone(), why, wait: false }
                }
                Err(e) => {
                    self.counters.refused.fetch_add(batch.events.len() as u64, Ordering::Relaxed);
                    let wait = matches!(e, Error::Io(_)) || matches!(e, Error::Overloaded) && p.bytes.len() <= MAX_BATCH;
                    IngestResult::Refused { source: batch.source.clone(), why: e.to_string(), wait }
                }
            }
        };
        pending.iter().map(answer).collect()
    }

    /// Where these sources go on; sources never heard of are left out.
    pub fn resume_points(&self, sources: &[String]) -> Vec<ResumePoint> {
        let state = self.read_state();
        sources.iter().filter_map(|s| state.resume_point(s)).collect()
    }

    /// The container is gone and will send nothing more.
    pub fn forget_source(&self, source: &str) -> Result<(), Error> {
        let mut writer = self.writer();
        if self.read_state().sources.contains_key(source) {
            self.change(&mut writer, vec![Op::ForgetSource { source: source.to_owned() }])?;
        }
        Ok(())
    }

    /// Drops everything, for good.
    pub fn reset(&self) -> Result<(), Error> {
        let mut writer = self.writer();
        self.change(&mut writer, vec![Op::Reset])?;
        self.checkpoint(&mut writer)?;
        for (number, _) in writer.segments.full() {
            writer.segments.remove(number)?;
        }
        Ok(())
    }

    fn submit(&self, pending: Vec<Arc<Pending>>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).extend(pending.iter().cloned());
        let mut writer = self.writer();
        if pending.iter().all(|p| p.done.lock().unwrap_or_else(PoisonError::into_inner).is_some()) {
            return;
        }
        let all = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        self.commit(&mut writer, &all);
    }

    fn outcome(&self, pending: &Pending) -> Result<Done, Error> {
        // Empty only when the one who committed panicked.
        pending.done.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(Err(Error::Overloaded))
    }

    fn commit(&self, writer: &mut Writer, all: &[Arc<Pending>]) {
        let mut records = Vec::new();
        let mut planned: Vec<(&Arc<Pending>, Result<Lines, Error>)> = Vec::with_capacity(all.len());
        let mut overlay = Overlay::default();
        let mut held: HashMap<&str, Error> = HashMap::new();
        for pending in all {
            let source = pending.lines.as_ref().map(|batch| batch.source.as_str());
            let made = match &pending.lines {
                // Stored behind a batch that was not, it would make that one look stored, too.
                Some(batch) => held.get(batch.source.as_str()).map_or_else(|| self.make_room(writer, batch), |e| Err(e.clone())),
                None => Ok(()),
            };
            let lines = made.and_then(|()| overlay.plan(&self.read_state(), pending, self.limits.open_bytes));
            if let (Err(e), Some(source)) = (&lines, source) {
                held.insert(source, e.clone());
            }
            if let Ok(lines) = &lines {
                let fresh = u64::from(lines.summary.count);
                self.counters.duplicates.fetch_add(u64::from(pending.summary.count) - fresh, Ordering::Relaxed);
                wal::write_lines(&mut records, lines);
            }
            planned.push((pending, lines));
        }
        let written = if records.is_empty() { Ok(()) } else { self.log(writer, &records) };
        let mut full = BTreeSet::new();
        let mut news = Vec::new();
        {
            let mut state = self.write_state();
            for (pending, lines) in planned {
                let outcome = written.clone().and(lines).map(|lines| {
                    if state.append(&lines) >= self.limits.block_bytes {
                        full.insert(lines.stream);
                    }
                    self.count(&lines);
                    if let (true, Some((group, stream))) = (lines.summary.count > 0, state.names.get(&lines.stream)) {
                        news.push(Appended { group: group.clone(), stream: stream.clone(), next: lines.summary.end() });
                    }
                    let resume = pending.lines.as_ref().and_then(|b| state.resume_point(&b.source));
                    Done { next: lines.summary.end(), events: lines.summary.count, resume }
                });
                *pending.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            }
        }
        for appended in news {
            // Nobody follows: nothing to tell.
            let _ = self.appended.send(appended);
        }
        self.settle(writer, full);
    }

    fn count(&self, lines: &Lines) {
        self.counters.events.fetch_add(u64::from(lines.summary.count), Ordering::Relaxed);
        self.counters.bytes.fetch_add(lines.bytes.len() as u64, Ordering::Relaxed);
        self.counters.lost.fetch_add(lines.source.as_ref().map_or(0, |p| p.lost), Ordering::Relaxed);
    }

    /// Seals full blocks and cuts the log. A failure is counted only: the lines are durable, and it is tried again.
    fn settle(&self, writer: &mut Writer, full: BTreeSet<u64>) {
        let sealed = full.into_iter().try_for_each(|id| self.seal(writer, id));
        let long = writer.wal.as_ref().is_some_and(|w| w.len() > self.limits.wal_bytes);
        let cut = if long { self.checkpoint(writer) } else { Ok(()) };
        if sealed.and(cut).is_err() {
            self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The stream of a batch, and its group if it may be made.
    fn make_room(&self, writer: &mut Writer, batch: &LineBatch) -> Result<(), Error> {
        let target = &batch.target;
        let (group, stream) = {
            let state = self.read_state();
            (state.groups.contains_key(&target.group), state.stream(&target.group, &target.stream).is_some())
        };
        if stream {
            return Ok(());
        }
        let mut ops = Vec::new();
        if !group {
            if !target.create_group {
                return Err(Error::NoGroup);
            }
            ops.push(self.new_group(&target.group, "STANDARD", Default::default())?);
        }
        ops.push(self.new_stream(&target.group, &target.stream)?);
        self.change(writer, ops)
    }

    /// Makes changes durable, then visible.
    pub(super) fn change(&self, writer: &mut Writer, ops: Vec<Op>) -> Result<(), Error> {
        let mut records = Vec::new();
        ops.iter().try_for_each(|op| wal::write_op(&mut records, op))?;
        self.log(writer, &records)?;
        let mut state = self.write_state();
        ops.iter().for_each(|op| state.apply(op));
        Ok(())
    }

    fn log(&self, writer: &mut Writer, records: &[u8]) -> Result<(), Error> {
        let Some(wal) = &mut writer.wal else { return Ok(()) };
        let written = wal.append(records);
        let failed = self.counters.failing.swap(written.is_err(), Ordering::Relaxed);
        if let Err(error) = &written {
            self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
            // Said once for each time it begins.
            if !failed {
                tracing::error!(%error, "log lines cannot be written to disk: agents keep theirs until they can");
            }
        } else if failed {
            tracing::info!("log lines are written to disk again");
        }
        written
    }

    /// Turns a stream's open block into a sealed one.
    pub(super) fn seal(&self, writer: &mut Writer, id: u64) -> Result<(), Error> {
        let open = {
            let state = self.read_state();
            state.find(id).filter(|s| s.open.summary.count > 0).map(|s| (s.open.summary, s.open.bytes.clone()))
        };
        let Some((summary, bytes)) = open else { return Ok(()) };
        let (header, body) = block::seal(id, summary, &bytes)?;
        let block = writer.segments.append(&header, body, self.limits.segment_bytes)?;
        self.write_state().sealed(id, block);
        Ok(())
    }

    /// Begins a new write-ahead log that holds only what no block holds, and removes the old one.
    pub(super) fn checkpoint(&self, writer: &mut Writer) -> Result<(), Error> {
        let (Some(dir), Some(old)) = (&self.dir, &writer.wal) else { return Ok(()) };
        let (next, syncs) = (old.number + 1, old.syncs);
        // Small open blocks are carried over, so that quiet streams do not fall into tiny blocks.
        let worth_sealing = self.limits.block_bytes / 4;
        let large: Vec<u64> = self.open_streams(|bytes| bytes >= worth_sealing);
        large.into_iter().try_for_each(|id| self.seal(writer, id))?;
        let mut carried = Vec::new();
        let heard = self.clock.now().0 - self.limits.source_ms;
        self.write_state().sources.retain(|_, s| s.at >= heard);
        {
            let state = self.read_state();
            let streams = state.groups.values().flat_map(|g| g.streams.values()).filter(|s| s.open.summary.count > 0);
            for stream in streams {
                let ingested = stream.last_ingestion.unwrap_or_default();
                let (summary, bytes) = (stream.open.summary, stream.open.bytes.clone());
                wal::write_lines(&mut carried, &Lines { stream: stream.id, summary, ingested, bytes, source: None });
            }
        }
        let mut fresh = wal::Wal::begin(dir, next)?;
        fresh.append(&carried)?;
        fresh.syncs += syncs;
        // From here on either snapshot will do: the old one replays both logs, in which what is carried over is a repetition.
        let fresh = writer.wal.insert(fresh);
        writer.segments.sync()?;
        let snapshot = checkpoint::take(&self.read_state(), next, writer.segments.current());
        checkpoint::save(dir, &snapshot)?;
        fresh.forget_older()
    }

    pub(super) fn open_streams(&self, wanted: impl Fn(usize) -> bool) -> Vec<u64> {
        let state = self.read_state();
        let streams = state.groups.values().flat_map(|g| g.streams.values());
        streams.filter(|s| s.open.summary.count > 0 && wanted(s.open.bytes.len())).map(|s| s.id).collect()
    }
}

/// What earlier writes of the same commit have changed already.
#[derive(Default)]
struct Overlay {
    events: HashMap<u64, u64>,
    lines: HashMap<String, u64>,
    bytes: u64,
}

impl Overlay {
    fn plan(&mut self, state: &State, pending: &Pending, open_bytes: u64) -> Result<Lines, Error> {
        let group = state.groups.get(&pending.group).ok_or(Error::NoGroup)?;
        let stream = group.streams.get(pending.stream.as_str()).ok_or(Error::NoStream)?;
        if pending.bytes.len() > MAX_BATCH || state.open_bytes + self.bytes > open_bytes {
            return Err(Error::Overloaded);
        }
        let first = *self.events.get(&stream.id).unwrap_or(&stream.next());
        let (mut bytes, mut summary) = (pending.bytes.clone(), pending.summary);
        let source = pending.lines.as_ref().map(|batch| {
            let stored = state.sources.get(&batch.source).map_or(0, |s| s.next);
            let stored = *self.lines.get(&batch.source).unwrap_or(&stored);
            let end = batch.first + batch.events.len() as u64;
            // A batch that is known whole says nothing new, not even about losses.
            let known = usize::try_from(stored.saturating_sub(batch.first)).unwrap_or(usize::MAX).min(batch.events.len());
            if known > 0 {
                (bytes, summary) = block::encode(&batch.events[known..], pending.ingested, 0);
            }
            let resume = if end >= stored { batch.resume.clone() } else { resume_of(state, &batch.source) };
            let lost = if known == 0 { batch.lost_before } else { 0 };
            let next = end.max(stored);
            self.lines.insert(batch.source.clone(), next);
            Progress { source: batch.source.clone(), next, resume, lost }
        });
        summary.first = first;
        self.events.insert(stream.id, summary.end());
        self.bytes += bytes.len() as u64;
        Ok(Lines { stream: stream.id, summary, ingested: pending.ingested.0, bytes, source })
    }
}

fn resume_of(state: &State, source: &str) -> String {
    state.sources.get(source).map(|s| s.resume.clone()).unwrap_or_default()
}
