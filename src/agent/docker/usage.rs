//! Samples what containers use, once a second on the second, in a thread of its own: reads the kernel's files (35 µs a container),
//! where Docker's stats would cost 1.2 ms. Containers whose files cannot be read are sampled by Docker's stats stream.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::cgroup::{self, Directories, Host};
use super::counters::{self, Counters};
use super::{Shared, stats};
use crate::agent::engine::RuntimeId;
use crate::model::link::{NetworkTotals, UsageBatch, UsageSample};

/// A running container that is sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    pub task: Arc<str>,
    pub container: Arc<str>,
    /// Docker's name of the container.
    pub name: Arc<str>,
    pub pid: i64,
    pub network: NetworkView,
    pub cgroup_parent: Option<String>,
    /// The parent cgroup is the task's own, with its limits.
    pub task_group: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkView {
    Own,
    /// The pause container's, shared by the task's containers.
    Task,
    /// The host's, or none: nothing that is the container's own.
    None,
}

#[derive(Default)]
pub struct Registry(Mutex<BTreeMap<RuntimeId, Arc<Watched>>>);

impl Registry {
    pub fn put(&self, id: &str, watched: Watched) {
        self.lock().insert(id.to_owned(), Arc::new(watched));
    }
    pub fn remove(&self, id: &str) {
        self.lock().remove(id);
    }
    pub fn contains(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }
    /// Only these go on being watched.
    pub fn retain(&self, running: &BTreeSet<RuntimeId>) {
        self.lock().retain(|id, _| running.contains(id));
    }
    fn all(&self) -> Vec<(RuntimeId, Arc<Watched>)> {
        self.lock().iter().map(|(id, w)| (id.clone(), w.clone())).collect()
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RuntimeId, Arc<Watched>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the sampler remembers of a container between two passes.
struct Sampled {
    runtime_id: Arc<str>,
    watched: Arc<Watched>,
    source: Source,
    counters: Counters,
    files: Files,
    last: Option<(u64, Instant)>,
    passes: u64,
}

enum Source {
    Files(Directories),
    Docker(Arc<stats::Latest>),
}

/// Slowly changing or costly files are read every so many passes.
const SLOW_EVERY: u64 = 5;
/// Descriptors that a container's files take at most.
const KEPT_EACH: usize = 8;
/// While a pass takes less than this, memory.stat is read in each.
const CHEAP_PASS: Duration = Duration::from_millis(20);

/// The thread's body: returns when the engine is dropped or nobody listens any more.
pub fn run(shared: &Arc<Shared>, runtime: &tokio::runtime::Handle, out: &mpsc::Sender<UsageBatch>) {
    let mut known: BTreeMap<RuntimeId, Sampled> = BTreeMap::new();
    let mut cheap = true;
    let descriptors = descriptors_to_spare();
    while sleep_to_the_second(shared) {
        let (began, cost) = (Instant::now(), thread_cpu());
        let now = shared.config.clock.now();
        let mut begin = |id: &str, watched: &Arc<Watched>| begin(shared, runtime, id, watched);
        let samples = pass(&shared.cgroups, &shared.watched, &mut begin, &mut known, cheap, descriptors);
        cheap = began.elapsed() < CHEAP_PASS;
        let cost_us = (thread_cpu().saturating_sub(cost)).as_micros() as u64;
        match out.try_send(UsageBatch { at: now, samples, cost_us }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                shared.usage_dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Err(TrySendError::Closed(_)) => return,
        }
    }
}

/// Half of what the process may have: the rest is for sockets and logs. The soft limit is often far below the hard one.
fn descriptors_to_spare() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft } / 2).unwrap_or(usize::MAX)
}

/// False when the engine was dropped meanwhile.
fn sleep_to_the_second(shared: &Shared) -> bool {
    let millisecond = shared.config.clock.now().0.rem_euclid(1000);
    let until = Instant::now() + Duration::from_millis((1000 - millisecond) as u64);
    while !shared.stop.is_cancelled() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(Duration::from_millis(200)));
    }
    false
}

/// To the nanosecond, where getrusage's is a timer tick behind.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// `begin` says from where a container that is new is read.
fn pass(
    host: &Host,
    registry: &Registry,
    begin: &mut dyn FnMut(&str, &Arc<Watched>) -> Sampled,
    known: &mut BTreeMap<RuntimeId, Sampled>,
    cheap: bool,
    descriptors: usize,
) -> Vec<Arc<UsageSample>> {
    let watched = registry.all();
    let alive: BTreeSet<&str> = watched.iter().map(|(id, _)| id.as_str()).collect();
    known.retain(|id, _| alive.contains(id.as_str()));
    let mut samples = Vec::with_capacity(watched.len());
    // The first of a task's containers stands for what they share: network namespace and parent cgroup.
    let mut spoken_for = BTreeSet::new();
    let keep = watched.len() * KEPT_EACH < descriptors;
    let mut text = String::new();
    for (id, watched) in &watched {
        if known.get(id).is_none_or(|s| s.watched != *watched) {
            known.insert(id.clone(), begin(id, watched));
        }
        let Some(sampled) = known.get_mut(id) else { continue };
        sampled.files.keep = keep;
        let full = cheap || sampled.passes.is_multiple_of(SLOW_EVERY);
        let first = !spoken_for.contains(&watched.task);
        if let Some(sample) = sample(host, sampled, full, first, &mut text) {
            spoken_for.insert(watched.task.clone());
            samples.push(Arc::new(sample));
        } else if matches!(sampled.source, Source::Files(_)) {
            // Gone, or not where it was found: it is looked for again.
            known.remove(id);
        }
    }
    samples
}

fn begin(shared: &Arc<Shared>, runtime: &tokio::runtime::Handle, id: &str, watched: &Arc<Watched>) -> Sampled {
    let found = match shared.config.read_cgroups {
        true => cgroup::find(&shared.cgroups, watched.pid, watched.cgroup_parent.as_deref(), id).ok(),
        false => None,
    };
    let source = match found {
        Some(directories) => Source::Files(directories),
        None => Source::Docker(stats::follow(shared, runtime, id)),
    };
    Sampled::new(id, watched, source)
}

impl Sampled {
    fn new(id: &str, watched: &Arc<Watched>, source: Source) -> Sampled {
        let (runtime_id, watched) = (Arc::from(id), watched.clone());
        Sampled { runtime_id, watched, source, counters: Counters::default(), files: Files::default(), last: None, passes: 0 }
    }
}

/// What passes over the registered containers cost, each a second after the one before as the thread's are, with nobody to send to: for
/// `beaufort bench`. Every container must be found in `host`'s files; `between` is called before each pass. Answers the CPU time of each
/// pass, and the last one's samples.
pub fn measure(
    host: &Host,
    registry: &Registry,
    passes: usize,
    between: &mut dyn FnMut(usize) -> io::Result<()>,
) -> io::Result<(Vec<Duration>, Vec<Arc<UsageSample>>)> {
    let (mut known, mut cheap, mut missing) = (BTreeMap::new(), true, None);
    let (mut took, mut samples) = (Vec::with_capacity(passes), Vec::new());
    let descriptors = descriptors_to_spare();
    for number in 0..passes {
        between(number)?;
        let (began, cost) = (Instant::now(), thread_cpu());
        let mut begin = |id: &str, watched: &Arc<Watched>| {
            let found = cgroup::find(host, watched.pid, watched.cgroup_parent.as_deref(), id);
            Sampled::new(
                id,
                watched,
                Source::Files(found.unwrap_or_else(|error| {
                    missing = Some(error);
                    Directories::default()
                })),
            )
        };
        samples = pass(host, registry, &mut begin, &mut known, cheap, descriptors);
        cheap = began.elapsed() < CHEAP_PASS;
        took.push(thread_cpu().saturating_sub(cost));
    }
    missing.map_or(Ok((took, samples)), Err)
}

/// None when the container is gone, or nothing was read yet.
fn sample(host: &Host, s: &mut Sampled, full: bool, first: bool, text: &mut String) -> Option<UsageSample> {
    let at = Instant::now();
    let network = match &s.source {
        Source::Files(directories) => {
            let slow = s.passes.is_multiple_of(SLOW_EVERY);
            if directories.is_v1() {
                read_v1(&mut s.counters, directories, &mut s.files, full, slow, text).ok()?;
            } else {
                read_v2(&mut s.counters, directories, &mut s.files, full, slow, text).ok()?;
            }
            if first && s.watched.task_group {
                // Throttling by the task's quota is counted in its parent cgroup only.
                let controller = if directories.is_v1() { "cpu" } else { "" };
                let path = || directories.parent().of(controller).unwrap_or(Path::new("")).join("cpu.stat");
                if s.files.read(("parent", "cpu.stat"), path, text).is_ok() {
                    let mut of_task = Counters::default();
                    counters::cpu_stat(&mut of_task, text);
                    s.counters.periods = of_task.periods;
                    s.counters.throttled_periods = of_task.throttled_periods;
                    s.counters.throttled_ns = of_task.throttled_ns;
                }
            }
            let path = || host.proc.join(format!("{}/net/dev", s.watched.pid));
            let counts = speaks_for_network(&s.watched, first) && s.files.read(("net", "dev"), path, text).is_ok();
            counts.then(|| counters::net_dev(text))
        }
        Source::Docker(latest) => {
            let (counters, network) = latest.get()?;
            s.counters = counters;
            network.filter(|_| speaks_for_network(&s.watched, first))
        }
    };
    s.passes += 1;
    let before = s.last.replace((s.counters.cpu_total_ns, at));
    Some(finished(s, before, at, network))
}

fn speaks_for_network(watched: &Watched, first: bool) -> bool {
    match watched.network {
        NetworkView::Own => true,
        NetworkView::Task => first,
        NetworkView::None => false,
    }
}

fn finished(s: &Sampled, before: Option<(u64, Instant)>, at: Instant, network: Option<NetworkTotals>) -> UsageSample {
    let c = &s.counters;
    let (interval_ms, cpu_cores) = match before {
        Some((cpu, then)) => {
            let interval = at.duration_since(then);
            let cores = c.cpu_total_ns.saturating_sub(cpu) as f64 / (interval.as_nanos() as f64).max(1.0);
            // To the nearest: a pass a few microseconds early is a second after the one before, not 999 ms.
            let interval_ms = (interval + Duration::from_micros(500)).as_millis() as i64;
            (interval_ms.max(1), cores)
        }
        None => (0, 0.0),
    };
    UsageSample {
        task: s.watched.task.clone(),
        container: s.watched.container.clone(),
        runtime_id: s.runtime_id.clone(),
        runtime_name: s.watched.name.clone(),
        interval_ms,
        cpu_cores,
        cpu_total_ns: c.cpu_total_ns,
        cpu_user_ns: c.cpu_user_ns,
        cpu_system_ns: c.cpu_system_ns,
        throttled_periods: c.throttled_periods,
        periods: c.periods,
        throttled_ns: c.throttled_ns,
        memory_bytes: c.memory_usage.saturating_sub(c.memory_not_counted),
        memory_usage_bytes: c.memory_usage,
        memory_working_set_bytes: c.memory_usage.saturating_sub(c.memory_inactive_file),
        memory_rss_bytes: c.memory_rss,
        memory_cache_bytes: c.memory_cache,
        memory_limit_bytes: c.memory_limit,
        processes: c.processes,
        block_read_bytes: c.block_read,
        block_write_bytes: c.block_write,
        network,
        oom_events: c.oom_kills,
    }
}

/// The files that every pass reads, kept open: to open one costs as much as to read it. A cgroup that is gone answers with an error,
/// and a network namespace is let go with its container, one pass after its end.
#[derive(Default)]
struct Files {
    keep: bool,
    kept: Vec<(Name, File)>,
}

/// Controller and file.
type Name = (&'static str, &'static str);

impl Files {
    fn read(&mut self, name: Name, path: impl FnOnce() -> PathBuf, text: &mut String) -> io::Result<()> {
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == name) {
            let answer = read_whole(&self.kept[at].1, text);
            if answer.is_err() {
                self.kept.swap_remove(at);
            }
            return answer;
        }
        let file = File::open(path())?;
        read_whole(&file, text)?;
        if self.keep {
            self.kept.push((name, file));
        }
        Ok(())
    }
}

fn read(path: &Path, text: &mut String) -> io::Result<()> {
    read_whole(&File::open(path)?, text)
}

/// The kernel makes such a file when it is read, whole up to a page: what is shorter than half of one needs no second read to know
/// its end, nor its size beforehand. That is a third of the calls of `read_to_string`, and most of a sample's cost is calls.
fn read_whole(file: &File, text: &mut String) -> io::Result<()> {
    let mut bytes = std::mem::take(text).into_bytes();
    bytes.resize(READ_AT_ONCE, 0);
    let mut filled = 0;
    loop {
        let more = file.read_at(&mut bytes[filled..], filled as u64)?;
        filled += more;
        if more < HALF_A_PAGE {
            break;
        }
        bytes.resize(filled + READ_AT_ONCE, 0);
    }
    bytes.truncate(filled);
    *text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(())
}

const READ_AT_ONCE: usize = 4_096;
const HALF_A_PAGE: usize = 2_048;

fn near_the_limit(c: &Counters) -> bool {
    c.memory_limit > 0 && c.memory_usage > c.memory_limit / 10 * 9
}

fn read_v1(c: &mut Counters, at: &Directories, files: &mut Files, full: bool, slow: bool, text: &mut String) -> io::Result<()> {
    let mut file = |controller: &'static str, name: &'static str, take: &mut dyn FnMut(&str)| match at.of(controller) {
        Some(directory) => files.read((controller, name), || directory.join(name), text).map(|()| take(text)),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    file("cpuacct", "cpuacct.usage", &mut |t| c.cpu_total_ns = counters::single(t))?;
    file("memory", "memory.usage_in_bytes", &mut |t| c.memory_usage = counters::single(t))?;
    // What follows may be missing on some kernels: then it stays as it is.
    let _ = file("cpu", "cpu.stat", &mut |t| counters::cpu_stat(c, t));
    let _ = file("pids", "pids.current", &mut |t| c.processes = counters::single(t));
    if full || near_the_limit(c) {
        let _ = file("memory", "memory.stat", &mut |t| counters::memory_stat_v1(c, t));
    }
    if slow {
        let mut file = |controller: &str, name: &str, take: &mut dyn FnMut(&str)| match at.of(controller) {
            Some(directory) => read(&directory.join(name), text).map(|()| take(text)),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let _: io::Result<()> = file("cpuacct", "cpuacct.stat", &mut |t| counters::cpuacct_stat_v1(c, t));
        let _ = file("blkio", "blkio.throttle.io_service_bytes_recursive", &mut |t| counters::blkio_v1(c, t));
        let _ = file("memory", "memory.oom_control", &mut |t| counters::oom_kills(c, t));
    }
    Ok(())
}

fn read_v2(c: &mut Counters, at: &Directories, files: &mut Files, full: bool, slow: bool, text: &mut String) -> io::Result<()> {
    let directory = at.of("").ok_or(io::ErrorKind::NotFound)?;
    let mut file = |name: &'static str, take: &mut dyn FnMut(&str)| {
        files.read(("", name), || directory.join(name), text).map(|()| take(text))
    };
    file("cpu.stat", &mut |t| counters::cpu_stat(c, t))?;
    file("memory.current", &mut |t| c.memory_usage = counters::single(t))?;
    // What follows may be missing on some kernels: then it stays as it is.
    let _ = file("pids.current", &mut |t| c.processes = counters::single(t));
    if full || near_the_limit(c) {
        let _ = file("memory.stat", &mut |t| counters::memory_stat_v2(c, t));
    }
    if slow {
        let mut file = |name: &str, take: &mut dyn FnMut(&str)| read(&directory.join(name), text).map(|()| take(text));
        let mut limits = [0, 0];
        for (limit, name) in limits.iter_mut().zip(["memory.max", "../memory.max"]) {
            let _ = file(name, &mut |t| *limit = counters::limit(t));
        }
        c.memory_limit = limits.into_iter().filter(|l| *l > 0).min().unwrap_or(0);
        let _ = file("io.stat", &mut |t| counters::io_stat_v2(c, t));
        let _ = file("memory.events", &mut |t| counters::oom_kills(c, t));
    }
    Ok(())
}
