//! The sampler and the follower with nothing but files below them, for `beaufort bench`: the same code as on a host, without Docker.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cgroup::Host;
use super::follow::{self, Followed};
use super::usage::{self, NetworkView, Watched};
use crate::model::link::UsageSample;
use crate::model::log::{LineBatch, LogTarget};

/// The files of containers as the kernel has them, below a directory of ours.
pub struct SimulatedHost {
    root: PathBuf,
    v2: bool,
    host: Host,
    registry: usage::Registry,
    containers: Vec<(String, i64)>,
}

const V1: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "blkio"];
const MEMORY_STAT_V1: &str = include_str!("bench/memory.stat.v1");
const MEMORY_STAT_V2: &str = include_str!("bench/memory.stat.v2");
const NET_DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n  \
    eth0: 9876543   54321    0    0    0     0          0         0 12345678   65432    0    0    0     0       0          0\n";

impl SimulatedHost {
    pub fn new(root: &Path, v2: bool, containers: usize) -> io::Result<SimulatedHost> {
        let (proc, cgroup) = (root.join("proc"), root.join("cgroup"));
        fs::create_dir_all(proc.join("1"))?;
        let mounts: String = match v2 {
            true => "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n".to_owned(),
            false => V1.iter().map(|c| format!("30 1 0:26 / /sys/fs/cgroup/{c} rw - cgroup cgroup rw,{c}\n")).collect(),
        };
        fs::write(proc.join("1/mountinfo"), mounts)?;
        let registry = usage::Registry::default();
        let mut all = Vec::with_capacity(containers);
        for number in 0..containers {
            let (id, pid) = (format!("{number:064x}"), 1_000 + number as i64);
            registry.put(&id, watched(number, pid));
            all.push((id, pid));
        }
        let host = Host::new(proc, &cgroup, v2, v2);
        let made = SimulatedHost { root: root.to_owned(), v2, host, registry, containers: all };
        made.containers.iter().try_for_each(|(id, pid)| made.make(id, *pid))?;
        Ok(made)
    }

    fn group(&self, id: &str) -> String {
        if self.v2 { format!("/system.slice/docker-{id}.scope") } else { format!("/docker/{id}") }
    }

    fn directory(&self, controller: &str, id: &str) -> PathBuf {
        self.root.join("cgroup").join(controller).join(self.group(id).trim_start_matches('/'))
    }

    fn make(&self, id: &str, pid: i64) -> io::Result<()> {
        let process = self.root.join(format!("proc/{pid}/net"));
        fs::create_dir_all(&process)?;
        fs::write(process.join("dev"), NET_DEV)?;
        let group = self.group(id);
        let lines: String = match self.v2 {
            true => format!("0::{group}\n"),
            false => V1.iter().enumerate().map(|(n, c)| format!("{n}:{c}:{group}\n")).collect(),
        };
        fs::write(self.root.join(format!("proc/{pid}/cgroup")), lines)?;
        let write = |controller: &str, name: &str, text: &str| {
            let directory = self.directory(controller, id);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join(name), text)
        };
        if self.v2 {
            write("", "memory.stat", MEMORY_STAT_V2)?;
            write("", "memory.max", "268435456\n")?;
            write("", "pids.current", "7\n")?;
            write("", "io.stat", "8:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n")?;
            write("", "memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n")?;
        } else {
            write("cpu", "cpu.stat", "nr_periods 4123\nnr_throttled 12\nthrottled_time 123456789\n")?;
            write("cpuacct", "cpuacct.stat", "user 1500\nsystem 250\n")?;
            write("memory", "memory.stat", MEMORY_STAT_V1)?;
            write("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")?;
            write("pids", "pids.current", "7\n")?;
            write(
                "blkio",
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 4608\nTotal 4608\n",
            )?;
        }
        self.count(id, 0)
    }

    /// The counters that are others every second.
    fn count(&self, id: &str, second: usize) -> io::Result<()> {
        let (used, held) = (10_000_000_000 + second as u64 * 123_456_789, 100_000_000 + second as u64 * 4096);
        if self.v2 {
            let (usec, user) = (used / 1000, used / 1500);
            let text = format!(
                "usage_usec {usec}\nuser_usec {user}\nsystem_usec {}\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\n",
                usec - user
            );
            fs::write(self.directory("", id).join("cpu.stat"), text)?;
            return fs::write(self.directory("", id).join("memory.current"), format!("{held}\n"));
        }
        fs::write(self.directory("cpuacct", id).join("cpuacct.usage"), format!("{used}\n"))?;
        fs::write(self.directory("memory", id).join("memory.usage_in_bytes"), format!("{held}\n"))
    }

    /// The CPU time of each pass of the sampler over all containers, and the last one's samples.
    pub fn sample(&self, passes: usize) -> io::Result<(Vec<Duration>, Vec<Arc<UsageSample>>)> {
        let mut between = |second: usize| self.containers.iter().try_for_each(|(id, _)| self.count(id, second));
        usage::measure(&self.host, &self.registry, passes, &mut between)
    }
}

fn watched(number: usize, pid: i64) -> Watched {
    Watched {
        task: format!("{number:032x}").into(),
        container: "app".into(),
        name: format!("ecs-web-1-app-{number}").into(),
        pid,
        network: NetworkView::Own,
        cgroup_parent: None,
        task_group: false,
    }
}

/// Follows log files until their writer has ended and everything is read. `look` gets every batch, on the caller's thread; `writing`
/// answers false once no more will be written. Answers the follower's CPU time.
pub fn follow(
    paths: &BTreeMap<String, PathBuf>,
    mut writing: impl FnMut() -> io::Result<bool>,
    mut look: impl FnMut(LineBatch),
) -> io::Result<Duration> {
    let registry = Arc::new(follow::Registry::default());
    for (id, path) in paths {
        let target = LogTarget { group: "bench".to_owned(), stream: id.clone(), create_group: true };
        registry.put(id, false, || Followed::new(target, Some(path.clone()), None));
    }
    let stop = CancellationToken::new();
    let (out, mut batches) = mpsc::channel(super::LINES_AHEAD);
    let follower = {
        let (registry, stop) = (registry.clone(), stop.clone());
        std::thread::Builder::new().name("log-follower".into()).spawn(move || {
            follow::run(&registry, &stop, &out);
            clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
        })?
    };
    let mut ended = false;
    let mut failed = None;
    loop {
        match batches.try_recv() {
            Ok(batch) => {
                look(batch);
                continue;
            }
            Err(mpsc::error::TryRecvError::Disconnected) => break,
            Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
        }
        if !ended {
            ended = !writing().unwrap_or_else(|error| {
                failed = Some(error);
                false
            });
            if ended {
                paths.keys().for_each(|id| registry.end(id));
            }
        } else if paths.keys().all(|id| registry.get(id).is_none_or(|followed| followed.progress().drained)) {
            // What it handed on before it said so is in the queue.
            while let Ok(batch) = batches.try_recv() {
                look(batch);
            }
            stop.cancel();
        }
    }
    let cpu = follower.join().map_err(|_| io::Error::other("the follower panicked"))?;
    failed.map_or(Ok(cpu), Err)
}
