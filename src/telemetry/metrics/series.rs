//! Which series there are: a metric and a unit each. Found by key when something is put, in key order when metrics are listed.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::bits::{ByteReader, put_text, put_varint};
use crate::model::Timestamp;
use crate::model::metric::MetricKey;

/// One metric's data of one unit: CloudWatch keeps units apart though they are no part of a metric's identity. Whoever puts to
/// the same series every second keeps this handle.
#[derive(Debug)]
pub struct Series {
    pub(super) id: u32,
    pub(super) key: Arc<MetricKey>,
    pub(super) unit: Arc<str>,
    /// The newest datum's time in milliseconds.
    pub(super) last_ms: AtomicI64,
    /// When it was created here, or read from disk, in milliseconds.
    born_ms: i64,
    /// No longer in the table, so nothing may be put under its id.
    pub(super) forgotten: AtomicBool,
}

/// What to list. A dimension without a value asks only that it is there. Empty lists and None match everything.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub dimensions: Vec<(String, Option<String>)>,
    /// Only metrics with data at or after this.
    pub active_since: Option<Timestamp>,
}

#[derive(Default)]
pub(super) struct Table {
    by_key: HashMap<Arc<MetricKey>, Vec<Arc<Series>>>,
    ordered: BTreeSet<Arc<MetricKey>>,
    by_id: IdMap<Arc<Series>>,
    next: u32,
}

impl Table {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn contains(&self, id: u32) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn units(&self, key: &MetricKey) -> &[Arc<Series>] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    pub fn find(&self, key: &MetricKey, unit: &str) -> Option<&Arc<Series>> {
        self.units(key).iter().find(|s| &*s.unit == unit)
    }

    pub fn get(&self, id: u32) -> Option<&Arc<Series>> {
        self.by_id.get(&id)
    }

    /// Ids are never used again: parts on disk may still hold an old one's points. None: all have been used.
    pub fn create(&mut self, key: &MetricKey, unit: &str, now_ms: i64) -> Option<Arc<Series>> {
        let id = self.next;
        self.next = id.checked_add(1)?;
        Some(self.insert(id, key.clone(), unit, now_ms))
    }

    /// Puts back what was read from disk; known ids stay as they are.
    pub fn restore(&mut self, id: u32, key: MetricKey, unit: &str, now_ms: i64) {
        self.next = self.next.max(id.saturating_add(1));
        if !self.contains(id) && self.find(&key, unit).is_none() {
            self.insert(id, key, unit, now_ms);
        }
    }

    fn insert(&mut self, id: u32, key: MetricKey, unit: &str, now_ms: i64) -> Arc<Series> {
        let key = match self.by_key.get_key_value(&key) {
            Some((known, _)) => known.clone(),
            None => Arc::new(key),
        };
        let series = Arc::new(Series {
            id,
            key: key.clone(),
            unit: Arc::from(unit),
            last_ms: AtomicI64::new(i64::MIN),
            born_ms: now_ms,
            forgotten: AtomicBool::new(false),
        });
        self.ordered.insert(key.clone());
        self.by_key.entry(key).or_default().push(series.clone());
        self.by_id.insert(id, series.clone());
        series
    }

    pub fn since(&self, first: u32) -> Vec<Arc<Series>> {
        let mut new: Vec<Arc<Series>> = self.by_id.values().filter(|s| s.id >= first).cloned().collect();
        new.sort_by_key(|s| s.id);
        new
    }

    /// Ids up to this have been used, whether they are still known or not.
    pub fn skip_to(&mut self, next: u32) {
        self.next = self.next.max(next);
    }

    pub fn next_id(&self) -> u32 {
        self.next
    }

    /// Answers how many were forgotten.
    pub fn forget(&mut self, is_idle: impl Fn(&Series) -> bool) -> usize {
        let idle: Vec<Arc<Series>> = self.by_id.values().filter(|s| is_idle(s)).cloned().collect();
        for series in &idle {
            series.forgotten.store(true, Ordering::Release);
            self.by_id.remove(&series.id);
            if let Some(units) = self.by_key.get_mut(&series.key) {
                units.retain(|s| s.id != series.id);
                if units.is_empty() {
                    self.by_key.remove(&series.key);
                    self.ordered.remove(&series.key);
                }
            }
        }
        idle.len()
    }

    /// Adds up to `limit` keys to `found`. Looks at a bounded number, and answers the last one when there may be more.
    pub fn list(
        &self,
        filter: &ListFilter,
        after: Option<&MetricKey>,
        limit: usize,
        found: &mut Vec<MetricKey>,
    ) -> Option<MetricKey> {
        let first = match (after, &filter.namespace) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(namespace)) => Bound::Included(MetricKey::new(namespace, "", [])),
            (None, None) => Bound::Unbounded,
        };
        let within = |key: &MetricKey| filter.namespace.as_deref().is_none_or(|n| &*key.namespace <= n);
        let active =
            |key: &MetricKey, since: Timestamp| self.units(key).iter().any(|s| s.last_ms.load(Ordering::Relaxed) >= since.0);
        let until = found.len() + limit;
        for (looked_at, key) in self.ordered.range::<MetricKey, _>((first, Bound::Unbounded)).enumerate() {
            if found.len() >= until || !within(key) {
                return None;
            }
            if filter.matches(key) && filter.active_since.is_none_or(|since| active(key, since)) {
                found.push(MetricKey::clone(key));
            }
            if looked_at + 1 >= LOOK_AT_ONCE {
                return Some(MetricKey::clone(key));
            }
        }
        None
    }
}

/// Keys that one holding of the lock may look at.
const LOOK_AT_ONCE: usize = 5_000;

impl ListFilter {
    fn matches(&self, key: &MetricKey) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == &*key.namespace)
            && self.name.as_deref().is_none_or(|n| n == &*key.name)
            && self.dimensions.iter().all(|(name, value)| match (key.dimension(name), value) {
                (Some(has), Some(wanted)) => has == wanted,
                (Some(_), None) => true,
                (None, _) => false,
            })
    }
}

impl Series {
    pub fn key(&self) -> &Arc<MetricKey> {
        &self.key
    }

    pub fn unit(&self) -> &Arc<str> {
        &self.unit
    }

    /// Tells series apart and orders them; a series' number is never another's.
    pub fn number(&self) -> u32 {
        self.id
    }

    pub(super) fn idle_since_ms(&self) -> i64 {
        self.last_ms.load(Ordering::Relaxed).max(self.born_ms)
    }

    pub(super) fn touch(&self, at_ms: i64) {
        self.last_ms.fetch_max(at_ms, Ordering::Relaxed);
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.id as u64);
        put_text(out, &self.key.namespace);
        put_text(out, &self.key.name);
        put_varint(out, self.key.dimensions.len() as u64);
        for (name, value) in &self.key.dimensions {
            put_text(out, name);
            put_text(out, value);
        }
        put_text(out, &self.unit);
    }
}

/// What [`Series::write`] wrote, into the table.
pub(super) fn read_series(bytes: &[u8], table: &mut Table, now_ms: i64) -> Option<()> {
    let mut input = ByteReader(bytes);
    let id = u32::try_from(input.varint()?).ok()?;
    let (namespace, name) = (input.text()?, input.text()?);
    let mut dimensions = Vec::new();
    for _ in 0..input.varint()? {
        dimensions.push((input.text()?, input.text()?));
    }
    table.restore(id, MetricKey::new(namespace, name, dimensions), input.text()?, now_ms);
    Some(())
}

pub(super) type IdMap<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

/// Ids are given out by us, one after another, so that one multiplication spreads them.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u32(*b as u32));
    }
    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
