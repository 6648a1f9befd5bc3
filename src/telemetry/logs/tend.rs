//! The store's housekeeping, to be called about once a minute: retention, the store's own bound, and space given back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::block::Summary;
use super::segment::Block;
use super::state::{Op, Stream};
use super::write::DAY_MS;
use super::{Error, LogStore, Writer};

impl LogStore {
    /// Removes what is past its group's retention (whole blocks: CloudWatch, too, takes up to 72 hours), drops the oldest
    /// blocks when the store is too large, and removes or rewrites segments of which less than half still counts.
    pub fn tend(&self) -> Result<(), Error> {
        let mut writer = self.writer();
        let expired = self.expired();
        if !expired.is_empty() {
            self.change(&mut writer, expired)?;
        }
        self.evict(&mut writer)?;
        self.compact(&mut writer)
    }

    fn expired(&self) -> Vec<Op> {
        let now = self.clock.now();
        let state = self.read_state();
        let limited = state.groups.values().filter_map(|g| Some((g, now.0 - i64::from(g.retention_days?) * DAY_MS)));
        let bases = limited.flat_map(|(g, oldest)| g.streams.values().filter_map(move |s| Some((s.id, past(s, oldest)?))));
        bases.map(|(stream, base)| Op::Expire { stream, base }).collect()
    }

    fn evict(&self, writer: &mut Writer) -> Result<(), Error> {
        let mut blocks: Vec<(i64, u64, u64, u64)> = Vec::new();
        let mut stored = 0;
        {
            let state = self.read_state();
            for stream in state.groups.values().flat_map(|g| g.streams.values()) {
                stored += stream.blocks.iter().map(Block::stored).sum::<u64>();
                blocks.extend(stream.blocks.iter().map(|b| (b.summary.max, stream.id, b.summary.end(), b.stored())));
            }
        }
        if stored <= self.limits.stored_bytes {
            return Ok(());
        }
        blocks.sort_unstable();
        let mut bases: BTreeMap<u64, u64> = BTreeMap::new();
        for (_, stream, end, bytes) in blocks {
            if stored <= self.limits.stored_bytes {
                break;
            }
            stored -= bytes;
            let base = bases.entry(stream).or_default();
            *base = end.max(*base);
            self.counters.evicted.fetch_add(1, Ordering::Relaxed);
        }
        self.change(writer, bases.into_iter().map(|(stream, base)| Op::Expire { stream, base }).collect())
    }

    fn compact(&self, writer: &mut Writer) -> Result<(), Error> {
        let mut live: BTreeMap<u64, (u64, Vec<(u64, Block)>)> = BTreeMap::new();
        {
            let state = self.read_state();
            for stream in state.groups.values().flat_map(|g| g.streams.values()) {
                for block in &stream.blocks {
                    if let Some(number) = block.segment() {
                        let entry = live.entry(number).or_default();
                        entry.0 += block.stored();
                        entry.1.push((stream.id, block.clone()));
                    }
                }
            }
        }
        let mut empty = Vec::new();
        for (number, length) in writer.segments.full() {
            let (bytes, blocks) = live.remove(&number).unwrap_or_default();
            if bytes * 2 >= length && bytes > 0 {
                continue;
            }
            // A damaged one stays as it is, for whoever can mend it.
            let moved = blocks.into_iter().try_for_each(|(stream, block)| self.rewrite(writer, stream, &block));
            match moved {
                Ok(()) => empty.push(number),
                Err(Error::Damaged(_)) => {}
                Err(e) => return Err(e),
            }
        }
        if !empty.is_empty() {
            // The copies, and the record that the rest is gone, before the originals go.
            self.checkpoint(writer)?;
        }
        empty.into_iter().try_for_each(|number| writer.segments.remove(number))
    }

    fn rewrite(&self, writer: &mut Writer, stream: u64, block: &Block) -> Result<(), Error> {
        let (header, body) = super::block::seal(stream, block.summary, &block.load()?)?;
        let moved = writer.segments.append(&header, body, self.limits.segment_bytes)?;
        if let Some(found) = self.write_state().by_id(stream) {
            found.blocks.iter_mut().filter(|b| b.summary.first == block.summary.first).for_each(|b| *b = moved.clone());
        }
        Ok(())
    }
}

/// Up to where the stream's front lies wholly before `oldest`.
fn past(stream: &Stream, oldest: i64) -> Option<u64> {
    let open = Some(&stream.open.summary).filter(|s| s.count > 0);
    let runs = stream.blocks.iter().map(|b| &b.summary).chain(open);
    runs.take_while(|s: &&Summary| s.max < oldest).last().map(Summary::end)
}
