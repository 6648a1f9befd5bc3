//! Lines on their way to the control plane: kept until they are durable there, sent again after a reconnection or a refusal, and
//! bounded, so that a control plane that takes none makes the engine stop reading rather than this process grow.
//!
//! Of one source only one message is under way at a time: the store drops every line up to the last number it has seen, so a
//! later batch must never be stored before an earlier one.

use std::collections::{BTreeMap, VecDeque};

use crate::model::log::{LineBatch, ResumePoint};
use crate::model::{Millis, Timestamp};

/// Batches held in all; when they are reached, no more is read from the engine.
const MOST_BATCHES: usize = 512;
/// Batches held of a source whose lines are refused, so that one group that cannot be written does not hold up every other.
const MOST_REFUSED: usize = 64;
/// What one message may carry: well below the link's largest frame even when every character is escaped.
const MESSAGE_BYTES: usize = 1 << 20;
const FIRST_RETRY_MS: Millis = 1_000;
const LONGEST_RETRY_MS: Millis = 30_000;
/// A message neither stored nor refused by then is sent again.
const ANSWER_MS: Millis = 30_000;

#[derive(Default)]
pub struct Outbox {
    sources: BTreeMap<String, Source>,
    batches: usize,
    /// The source served last: the next one goes first.
    last_served: String,
    /// Lines let go because their source was refused for too long.
    pub lost: u64,
}

#[derive(Default)]
struct Source {
    batches: VecDeque<LineBatch>,
    /// Up to and without this number, lines are under way.
    sent_upto: Option<u64>,
    /// Not to be sent before this moment.
    not_before: Option<Timestamp>,
    retry_ms: Millis,
    /// Nobody may ever take these lines: they must not hold up the others.
    refused: bool,
}

fn is_due(source: &Source, now: Timestamp) -> bool {
    !source.batches.is_empty() && source.not_before.is_none_or(|at| now >= at)
}

fn end_of(batch: &LineBatch) -> u64 {
    batch.first + batch.events.len() as u64
}

impl Outbox {
    pub fn has_room(&self) -> bool {
        self.batches < MOST_BATCHES
    }

    pub fn add(&mut self, batch: LineBatch) {
        let source = self.sources.entry(batch.source.clone()).or_default();
        source.batches.push_back(batch);
        self.batches += 1;
        while source.refused && source.batches.len() > MOST_REFUSED {
            let Some(gone) = source.batches.pop_front() else { break };
            self.batches -= 1;
            let lines = gone.events.len() as u64 + gone.lost_before;
            self.lost += gone.events.len() as u64;
            if let Some(next) = source.batches.front_mut() {
                next.lost_before += lines;
            }
        }
    }

    /// The next message, or nothing for now. Sources take turns.
    pub fn take(&mut self, now: Timestamp) -> Option<Vec<LineBatch>> {
        let name = self
            .sources
            .iter()
            .filter(|(_, source)| is_due(source, now))
            .map(|(name, _)| name)
            .min_by_key(|name| (**name <= self.last_served, *name))?
            .clone();
        let source = self.sources.get_mut(&name)?;
        self.last_served = name;
        let (mut message, mut bytes) = (vec![], 0);
        for batch in &source.batches {
            let size: usize = batch.events.iter().map(|e| e.message.len() + 64).sum();
            if !message.is_empty() && bytes + size > MESSAGE_BYTES {
                break;
            }
            bytes += size;
            source.sent_upto = Some(end_of(batch));
            message.push(batch.clone());
        }
        source.not_before = Some(now + ANSWER_MS);
        Some(message)
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        self.sources.values().any(|source| is_due(source, now))
    }

    /// When a message will be due that is not now.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.sources.values().filter(|s| !s.batches.is_empty()).filter_map(|s| s.not_before).min()
    }

    pub fn stored(&mut self, points: &[ResumePoint]) {
        for point in points {
            let Some(source) = self.sources.get_mut(&point.source) else { continue };
            while source.batches.front().is_some_and(|batch| end_of(batch) <= point.next) {
                source.batches.pop_front();
                self.batches -= 1;
            }
            if source.sent_upto.is_some_and(|sent| point.next >= sent) {
                source.sent_upto = None;
                source.not_before = None;
                source.refused = false;
                source.retry_ms = 0;
            }
            if source.batches.is_empty() {
                self.sources.remove(&point.source);
            }
        }
    }

    /// `wait`: no source's lines can be stored for now. Then none are let go: the outbox fills up, reading stops, and the engine's own
    /// files keep what comes. True: this is the first refusal since lines of the source were last stored.
    pub fn refused(&mut self, source: &str, wait: bool, now: Timestamp) -> bool {
        let Some(source) = self.sources.get_mut(source) else { return false };
        source.refused = !wait;
        // One answer for each batch of the message: one refusal.
        if source.sent_upto.take().is_none() {
            return false;
        }
        let first = source.retry_ms == 0;
        source.retry_ms = (source.retry_ms * 2).clamp(FIRST_RETRY_MS, LONGEST_RETRY_MS);
        source.not_before = Some(now + source.retry_ms);
        first
    }

    /// A new connection: whatever was under way may be lost, so everything is due again.
    pub fn reconnected(&mut self) {
        for source in self.sources.values_mut() {
            source.sent_upto = None;
            source.not_before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::log::{LogEvent, LogTarget};

    const T0: Timestamp = Timestamp(0);

    fn batch(source: &str, first: u64, lines: u64) -> LineBatch {
        let event = |n| LogEvent { at: T0, message: format!("{source} {n}").into() };
        LineBatch {
            source: source.into(),
            target: LogTarget { group: "g".into(), stream: "s".into(), create_group: true },
            first,
            events: (first..first + lines).map(event).collect(),
            lost_before: 0,
            resume: String::new(),
        }
    }

    fn point(source: &str, next: u64) -> ResumePoint {
        ResumePoint { source: source.into(), next, resume: String::new() }
    }

    fn firsts(message: Option<Vec<LineBatch>>) -> Vec<(String, u64)> {
        message.into_iter().flatten().map(|b| (b.source, b.first)).collect()
    }

    #[test]
    fn one_message_of_a_source_is_under_way_and_sources_take_turns() {
        let mut outbox = Outbox::default();
        outbox.add(batch("a", 0, 2));
        outbox.add(batch("a", 2, 2));
        outbox.add(batch("b", 0, 1));
        assert_eq!(firsts(outbox.take(T0)), [("a".into(), 0), ("a".into(), 2)]);
        outbox.add(batch("a", 4, 1));
        assert_eq!(firsts(outbox.take(T0)), [("b".into(), 0)]);
        assert_eq!(outbox.take(T0), None);
        outbox.stored(&[point("a", 2)]);
        assert_eq!(outbox.take(T0), None, "half of the message is not all of it");
        outbox.stored(&[point("a", 4)]);
        assert_eq!(firsts(outbox.take(T0)), [("a".into(), 4)]);
        outbox.stored(&[point("a", 5), point("b", 1)]);
        assert!(outbox.sources.is_empty() && outbox.batches == 0);
    }

    #[test]
    fn what_is_not_durable_is_sent_again() {
        let mut outbox = Outbox::default();
        outbox.add(batch("a", 0, 2));
        assert!(outbox.take(T0).is_some());
        outbox.reconnected();
        assert_eq!(firsts(outbox.take(T0)), [("a".into(), 0)]);
        assert!(outbox.refused("a", true, T0));
        assert!(!outbox.refused("a", true, T0), "the answer for the message's second batch");
        assert_eq!((outbox.take(T0 + 999), outbox.wake_at()), (None, Some(T0 + 1_000)));
        assert!(outbox.take(T0 + 1_000).is_some());
        assert!(!outbox.refused("a", true, T0 + 1_000));
        assert_eq!(outbox.wake_at(), Some(T0 + 3_000));
    }

    #[test]
    fn while_nothing_can_be_stored_every_line_waits() {
        let mut outbox = Outbox::default();
        let mut n = 0;
        while outbox.has_room() {
            outbox.add(batch("a", n, 1));
            n += 1;
            let now = T0 + n as i64 * LONGEST_RETRY_MS;
            assert!(outbox.take(now).is_some());
            outbox.refused("a", true, now);
        }
        assert_eq!((n, outbox.lost), (MOST_BATCHES as u64, 0));
        let message = outbox.take(T0 + n as i64 * 2 * LONGEST_RETRY_MS).unwrap();
        assert_eq!((message[0].first, message[0].lost_before), (0, 0));
    }

    #[test]
    fn it_is_bounded_and_a_refused_source_leaves_room_for_others() {
        let mut outbox = Outbox::default();
        outbox.add(batch("bad", 0, 1));
        assert!(outbox.take(T0).is_some());
        outbox.refused("bad", false, T0);
        for n in 1..1_000 {
            outbox.add(batch("bad", n, 1));
        }
        assert!(outbox.has_room());
        assert_eq!(outbox.lost, 1_000 - MOST_REFUSED as u64);
        let message = outbox.take(T0 + 1_000).unwrap();
        assert_eq!((message[0].first, message[0].lost_before), (outbox.lost, outbox.lost));
        for n in 0..MOST_BATCHES as u64 {
            outbox.add(batch("good", n, 1));
        }
        assert!(!outbox.has_room());
    }
}
