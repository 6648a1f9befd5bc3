//! The store itself: putting, listing and watching.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::broadcast;

use super::head::{Resolution, Shard};
use super::maintain::Maintenance;
use super::part::Part;
use super::point::{Point, is_sound};
use super::series::{ListFilter, Series, Table};
use super::wal::{PointsPayload, Wal, series_payload};
use super::{Error, Limits, PutOutcome, Stats};
use crate::clock::SharedClock;
use crate::model::metric::{Datum, MetricKey, Observed, StatisticSet};
use crate::model::{Millis, Timestamp};

/// The metrics of one put, for whoever evaluates alarms. A receiver that lagged must look at everything.
pub type Touched = Arc<[Arc<MetricKey>]>;

pub struct MetricStore {
    pub(super) clock: SharedClock,
    pub(super) limits: Limits,
    pub(super) dir: Option<PathBuf>,
    pub(super) table: RwLock<Table>,
    /// Also the gate between those who put and read (shared) and the checkpoint that takes the head away (exclusive).
    pub(super) tables: RwLock<Arc<Tables>>,
    pub(super) shards: Vec<Mutex<Shard>>,
    /// None: memory only.
    pub(super) wal: Option<Mutex<Wal>>,
    pub(super) maintenance: Mutex<Maintenance>,
    pub(super) next_checkpoint: AtomicI64,
    pub(super) counters: Counters,
    /// Series whose definition the log did not take: it goes before the next points.
    unsaved: Mutex<Vec<Arc<Series>>>,
    touched: broadcast::Sender<Touched>,
    flusher: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
    /// Locked as long as the store lives, so that no second one writes here.
    pub(super) owner: Option<File>,
}

/// What is immutable: replaced as a whole, so that a reader sees one state.
#[derive(Clone, Default)]
pub(super) struct Tables {
    /// The head that a checkpoint is just turning into parts.
    pub frozen: Option<Arc<Vec<Shard>>>,
    pub parts: Vec<Arc<Part>>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub accepted: AtomicU64,
    pub refused_series_limit: AtomicU64,
    pub refused_time: AtomicU64,
    pub refused_value: AtomicU64,
    pub head_points: AtomicU64,
    pub wal_errors: AtomicU64,
    pub unlogged: AtomicU64,
    pub checkpoint_errors: AtomicU64,
    pub checkpoints: AtomicU64,
    pub dropped: AtomicU64,
    pub torn_bytes: AtomicU64,
    pub damaged_bytes: AtomicU64,
    pub damaged_chunks: AtomicU64,
    pub damaged_parts: AtomicU64,
    pub forgotten: AtomicU64,
    pub next_part: AtomicU32,
    pub degraded: AtomicBool,
}

const SHARDS: usize = 16;
/// Puts that a slow subscriber may be behind before it has to look at everything.
const TOUCHED_BACKLOG: usize = 256;
/// PutMetricData: from two weeks back to two hours ahead.
const OLDEST_MS: Millis = 14 * 86_400_000;
const AHEAD_MS: Millis = 2 * 3_600_000;
/// Seconds are kept for three hours.
pub(super) const SECONDS_KEPT_MS: Millis = 3 * 3_600_000;

impl MetricStore {
    /// Without a directory everything stays in memory, checkpoints are made by those who put, and there is no thread.
    pub fn open(dir: Option<&Path>, clock: SharedClock, limits: Limits) -> Result<Arc<MetricStore>, Error> {
        let store = match dir {
            None => MetricStore::empty(None, None, clock, limits),
            Some(dir) => super::recover::open(dir, clock, limits)?,
        };
        store.next_checkpoint.store((store.clock.now() + store.limits.checkpoint_ms).0, Ordering::Relaxed);
        let store = Arc::new(store);
        if store.dir.is_some() {
            store.start_flusher()?;
        }
        Ok(store)
    }

    /// What a directory holds, read beside the store that owns it; see [`super::recover`]. Nothing may be put into it.
    pub fn open_to_read(dir: &Path, clock: SharedClock, limits: Limits) -> Result<MetricStore, Error> {
        super::recover::open_to_read(dir, clock, limits)
    }

    /// When the newest datum of any metric is of; the time of opening, if that is later.
    pub fn newest(&self) -> Option<Timestamp> {
        read(&self.table).since(0).iter().map(|series| Timestamp(series.idle_since_ms())).max()
    }

    pub(super) fn empty(dir: Option<PathBuf>, wal: Option<Wal>, clock: SharedClock, limits: Limits) -> MetricStore {
        MetricStore {
            clock,
            limits,
            dir,
            table: RwLock::default(),
            tables: RwLock::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            wal: wal.map(Mutex::new),
            maintenance: Mutex::default(),
            next_checkpoint: AtomicI64::new(0),
            counters: Counters::default(),
            unsaved: Mutex::default(),
            touched: broadcast::Sender::new(TOUCHED_BACKLOG),
            flusher: Mutex::default(),
            owner: None,
        }
    }

    /// Stores what can be stored. When this returns, the accepted data is with the operating system (see `wal`), unless the
    /// outcome says `unlogged`.
    pub fn put(&self, data: &[Datum]) -> PutOutcome {
        self.put_new(data, false)
    }

    /// As [`MetricStore::put`], for whom "stored" is an answer to a client: what the log does not take is not kept in memory either,
    /// so that the client may put it again and it counts once.
    pub fn put_durably(&self, data: &[Datum]) -> PutOutcome {
        self.put_new(data, true)
    }

    fn put_new(&self, data: &[Datum], durably: bool) -> PutOutcome {
        let now = self.clock.now();
        let mut outcome = PutOutcome::default();
        let mut batch = Vec::with_capacity(data.len());
        let mut unknown = Vec::new();
        {
            let table = read(&self.table);
            for datum in data {
                let Some((at, resolution)) = place(datum.at, datum.resolution_s >= 60, now, &mut outcome) else { continue };
                let Some(point) = Point::of(at, &datum.value) else {
                    outcome.refused_value += 1;
                    continue;
                };
                match table.find(&datum.key, &datum.unit) {
                    Some(series) => batch.push((series.clone(), resolution, point)),
                    None => unknown.push((datum, resolution, point)),
                }
            }
        }
        for (datum, resolution, point) in unknown {
            match self.find_or_create(&datum.key, &datum.unit) {
                Some(series) => batch.push((series, resolution, point)),
                None => outcome.refused_series_limit += 1,
            }
        }
        self.commit(batch, outcome, now, durably)
    }

    /// As `put`, for values of one second whose series is known already. A set of one sample is a value.
    pub fn put_resolved(&self, data: &[(Arc<Series>, Timestamp, StatisticSet)]) -> PutOutcome {
        let now = self.clock.now();
        let mut outcome = PutOutcome::default();
        let mut batch = Vec::with_capacity(data.len());
        for (series, at, set) in data {
            let Some((at, resolution)) = place(*at, false, now, &mut outcome) else { continue };
            if is_sound(set) {
                batch.push((series.clone(), resolution, Point::of_set(at, *set)));
            } else {
                outcome.refused_value += 1;
            }
        }
        self.commit(batch, outcome, now, false)
    }

    /// As `put`, for values of one second whose series is known already.
    pub fn put_observed(&self, data: &[(Arc<Series>, Timestamp, Observed)]) -> PutOutcome {
        let now = self.clock.now();
        let mut outcome = PutOutcome::default();
        let mut batch = Vec::with_capacity(data.len());
        for (series, at, value) in data {
            let Some((at, resolution)) = place(*at, false, now, &mut outcome) else { continue };
            match Point::of(at, value) {
                Some(point) => batch.push((series.clone(), resolution, point)),
                None => outcome.refused_value += 1,
            }
        }
        self.commit(batch, outcome, now, false)
    }

    /// The series' handle, created if need be; None when there are as many as there may be.
    pub fn series(&self, key: &MetricKey, unit: &str) -> Option<Arc<Series>> {
        let series = self.find_or_create(key, unit);
        if series.is_none() {
            self.counters.refused_series_limit.fetch_add(1, Ordering::Relaxed);
        }
        series
    }

    fn find_or_create(&self, key: &MetricKey, unit: &str) -> Option<Arc<Series>> {
        if let Some(known) = read(&self.table).find(key, unit) {
            return Some(known.clone());
        }
        // Held so that the definition lands in the log before any checkpoint that could hold its points.
        let _gate = read(&self.tables);
        let mut table = write(&self.table);
        if let Some(known) = table.find(key, unit) {
            return Some(known.clone());
        }
        if table.len() >= self.limits.max_series {
            return None;
        }
        let series = table.create(key, unit, self.clock.now().0)?;
        if !self.log(&series_payload(&series)) {
            lock(&self.unsaved).push(series.clone());
        }
        Some(series)
    }

    /// Points of a series whose definition was lost would be nobody's after a crash.
    fn log_unsaved(&self) -> bool {
        let mut unsaved = lock(&self.unsaved);
        while let Some(series) = unsaved.last() {
            if !self.log(&series_payload(series)) {
                return false;
            }
            unsaved.pop();
        }
        true
    }

    fn commit(
        &self,
        batch: Vec<(Arc<Series>, Resolution, Point)>,
        mut outcome: PutOutcome,
        now: Timestamp,
        durably: bool,
    ) -> PutOutcome {
        let watched = self.touched.receiver_count() > 0;
        let mut keys: Vec<Arc<MetricKey>> = Vec::new();
        {
            let _gate = read(&self.tables);
            let logged = self.wal.is_none() || batch.is_empty() || {
                let mut payload = PointsPayload::new(batch.len());
                batch.iter().for_each(|(series, resolution, point)| payload.push(series.id, *resolution, point));
                self.log_unsaved() && self.log(payload.bytes())
            };
            if !logged && durably {
                outcome.unlogged = batch.len() as u64;
                self.count(&outcome);
                return outcome;
            }
            let mut shard: Option<(usize, MutexGuard<Shard>)> = None;
            for (series, resolution, point) in batch {
                if series.forgotten.load(Ordering::Acquire) {
                    outcome.refused_series_limit += 1;
                    continue;
                }
                outcome.accepted += 1;
                series.touch(point.at.saturating_mul(1000));
                if watched && keys.last().is_none_or(|last| !Arc::ptr_eq(last, &series.key)) {
                    keys.push(series.key.clone());
                }
                let number = series.id as usize % SHARDS;
                if shard.as_ref().is_none_or(|(held, _)| *held != number) {
                    drop(shard.take());
                    shard = Some((number, lock(&self.shards[number])));
                }
                if let Some((_, shard)) = &mut shard {
                    shard.series.entry(series.id).or_default().add(point, resolution);
                }
            }
            if !logged {
                outcome.unlogged = outcome.accepted;
            }
        }
        self.count(&outcome);
        if !keys.is_empty() {
            // Nobody listens any more: nobody misses it.
            let _ = self.touched.send(keys.into());
        }
        if self.dir.is_none() && self.checkpoint_is_due(now) {
            self.maintain(now);
        }
        outcome
    }

    /// False: the disk did not take it.
    fn log(&self, payload: &[u8]) -> bool {
        let Some(wal) = &self.wal else { return true };
        let result = lock(wal).append(payload);
        if let Err(error) = &result {
            self.counters.wal_errors.fetch_add(1, Ordering::Relaxed);
            self.degrade("write-ahead log", error);
            self.checkpoint_soon(self.clock.now());
        }
        result.is_ok()
    }

    /// Said once for each time it begins; the counters say how long it lasts.
    pub(super) fn degrade(&self, what: &str, error: &std::io::Error) {
        if !self.counters.degraded.swap(true, Ordering::Relaxed) {
            tracing::error!(what, %error, "metrics cannot be written to disk: served from memory until they can");
        }
    }

    fn count(&self, outcome: &PutOutcome) {
        let add = |counter: &AtomicU64, n: u64| {
            if n > 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        };
        add(&self.counters.accepted, outcome.accepted);
        add(&self.counters.head_points, outcome.accepted);
        add(&self.counters.refused_series_limit, outcome.refused_series_limit);
        add(&self.counters.refused_time, outcome.refused_time);
        add(&self.counters.refused_value, outcome.refused_value);
        add(&self.counters.unlogged, outcome.unlogged);
    }

    /// In key order, from behind `after`.
    pub fn list(&self, filter: &ListFilter, after: Option<&MetricKey>, limit: usize) -> Vec<MetricKey> {
        let mut found = Vec::new();
        let mut after = after.cloned();
        loop {
            // A stretch at a time, so that a search through a million keys holds up nobody who puts.
            let rest = read(&self.table).list(filter, after.as_ref(), limit - found.len(), &mut found);
            match rest {
                Some(last) if found.len() < limit => after = Some(last),
                _ => return found,
            }
        }
    }

    /// Which metrics get data, put by put.
    pub fn subscribe(&self) -> broadcast::Receiver<Touched> {
        self.touched.subscribe()
    }

    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Synchronises the log with the disk: what was put before this survives a power failure.
    pub fn flush(&self) -> std::io::Result<()> {
        let Some(wal) = &self.wal else { return Ok(()) };
        let handle = lock(wal).sync_handle()?;
        let synced = handle.as_ref().map_or(Ok(()), File::sync_data);
        if let Err(error) = &synced {
            lock(wal).sync_failed();
            self.counters.wal_errors.fetch_add(1, Ordering::Relaxed);
            self.degrade("write-ahead log", error);
        }
        synced
    }

    /// Ends the flusher, and leaves everything on disk as parts so that the next start has nothing to replay.
    pub fn close(&self) {
        self.stop_flusher();
        if self.dir.is_some() {
            self.checkpoint(self.clock.now());
        }
    }

    fn start_flusher(self: &Arc<Self>) -> Result<(), Error> {
        let (stop, stopped) = mpsc::channel::<()>();
        let store = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("metrics-flusher".into()).spawn(move || {
            while stopped.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let Some(store) = store.upgrade() else { return };
                // Counted and told inside; the next second tries again.
                let _ = store.flush();
                let now = store.clock.now();
                if store.checkpoint_is_due(now) {
                    store.maintain(now);
                }
            }
        });
        let thread = thread.map_err(|error| Error::Io { path: self.dir.clone().unwrap_or_default(), error })?;
        *lock(&self.flusher) = Some((stop, thread));
        Ok(())
    }

    fn stop_flusher(&self) {
        let Some((stop, thread)) = lock(&self.flusher).take() else { return };
        drop(stop);
        // The flusher itself may hold the last reference, and so be the one that drops the store.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }

    pub fn stats(&self) -> Stats {
        let tables = read(&self.tables).clone();
        let series = read(&self.table).len() as u64;
        let wal_bytes = self.wal.as_ref().map_or(0, |wal| lock(wal).bytes());
        let c = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            series,
            points_accepted: get(&c.accepted),
            refused_series_limit: get(&c.refused_series_limit),
            refused_time: get(&c.refused_time),
            refused_value: get(&c.refused_value),
            head_points: get(&c.head_points),
            parts: tables.parts.len() as u64,
            part_points: tables.parts.iter().map(|p| p.entry.points).sum(),
            part_bytes: tables.parts.iter().map(|p| p.bytes()).sum(),
            memory_bytes: tables.parts.iter().map(|p| p.memory_bytes()).sum(),
            wal_bytes,
            wal_errors: get(&c.wal_errors),
            unlogged_points: get(&c.unlogged),
            checkpoint_errors: get(&c.checkpoint_errors),
            checkpoints: get(&c.checkpoints),
            dropped_points: get(&c.dropped),
            torn_bytes: get(&c.torn_bytes),
            damaged_bytes: get(&c.damaged_bytes),
            damaged_chunks: get(&c.damaged_chunks),
            damaged_parts: get(&c.damaged_parts),
            forgotten_series: get(&c.forgotten),
            degraded: c.degraded.load(Ordering::Relaxed),
        }
    }
}

impl Drop for MetricStore {
    fn drop(&mut self) {
        self.stop_flusher();
    }
}

/// Where a datum of this time goes; None (and counted) when it is outside of PutMetricData's window. Seconds that are no longer
/// kept as seconds count in their minute.
fn place(at: Timestamp, minute: bool, now: Timestamp, outcome: &mut PutOutcome) -> Option<(i64, Resolution)> {
    let age = now.since(at);
    if !(-AHEAD_MS..=OLDEST_MS).contains(&age) {
        outcome.refused_time += 1;
        return None;
    }
    Some(if minute || age >= SECONDS_KEPT_MS {
        (at.floor(60_000).0 / 1000, Resolution::Minute)
    } else {
        (at.floor(1000).0 / 1000, Resolution::Second)
    })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
