//! The engine on Docker. The only place that knows bollard. Owns nothing that a restart could lose: what runs is known by its labels,
//! what was read by positions that the control plane hands back.
//!
//! Start reading here: [`DockerEngine`] is the seam's calls in order; the streams run in [`events`], [`usage`] and [`follow`].

mod apilog;
pub mod bench;
mod cgroup;
mod connect;
mod counters;
mod create;
mod events;
mod follow;
mod images;
mod jsonfile;
mod labels;
mod lifecycle;
mod lines;
mod observe;
mod pause_pool;
mod stats;
mod usage;
mod volumes;

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::Docker;
use tokio::sync::{Notify, OnceCell, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::engine::{ContainerSpec, Engine, EngineError, EngineInfo, Observed, Pulled, RuntimeId, Started, Streams};
use crate::clock::SharedClock;
use crate::model::arn::Home;
use crate::model::log::{LineBatch, ResumePoint};
use crate::model::{Millis, TaskId};
pub use connect::TASK_NETWORK;
use connect::{INFO, failed};

#[derive(Clone)]
pub struct DockerConfig {
    /// Everything made is marked with it, and nothing else is ever touched.
    pub installation: String,
    pub home: Home,
    pub clock: SharedClock,
    /// `unix:///path` or `tcp://address:port`; DOCKER_HOST or the usual socket when absent.
    pub docker_host: Option<String>,
    /// Where bridge tasks' host ports can be reached from this host.
    pub host_address: String,
    /// An existing Docker network that bridge tasks join in place of Docker's default bridge.
    pub task_network: Option<String>,
    /// awsvpc: clusters' networks are /20 subnets of the sixteen /16 networks from here on.
    pub network_base: Ipv4Addr,
    /// Warm pause containers per cluster; 0 for none.
    pub pause_pool: usize,
    /// An image whose `/beaufort pause` is the pause process; made from `binary` when absent.
    pub pause_image: Option<String>,
    /// Our own static binary, of which images are made.
    pub binary: PathBuf,
    /// The host's, as this process sees them (an agent in a container has them mounted elsewhere).
    pub host_proc: PathBuf,
    pub host_cgroup: PathBuf,
    /// How much an awslogs container may write ahead of us: Docker's max-size and max-file.
    pub log_max_size: String,
    pub log_max_files: u32,
    /// False: use Docker's stats and log API even where the files could be read.
    pub read_cgroups: bool,
    pub read_log_files: bool,
    /// How long a removal waits for the container's last lines to be durable: until then Docker's file is their only copy.
    pub stored_wait_ms: Millis,
}

impl DockerConfig {
    pub fn new(installation: &str, home: Home, clock: SharedClock) -> DockerConfig {
        DockerConfig {
            installation: installation.to_owned(),
            home,
            clock,
            docker_host: None,
            host_address: "127.0.0.1".to_owned(),
            task_network: None,
            network_base: Ipv4Addr::new(10, 77, 0, 0),
            pause_pool: 4,
            pause_image: None,
            binary: PathBuf::from("/proc/self/exe"),
            host_proc: PathBuf::from("/proc"),
            host_cgroup: PathBuf::from("/sys/fs/cgroup"),
            log_max_size: "32m".to_owned(),
            log_max_files: 3,
            read_cgroups: true,
            read_log_files: true,
            stored_wait_ms: 2_000,
        }
    }
}

/// The image of our own binary that needs no registry: `web`, `testbed` and everything else that it can be.
pub const DEMO_IMAGE: &str = "beaufort/demo";

/// What the calls, the tasks and the threads share.
struct Shared {
    docker: Docker,
    config: DockerConfig,
    cgroups: cgroup::Host,
    /// Docker's own directory, with the containers' log files.
    docker_root: PathBuf,
    watched: usage::Registry,
    followed: follow::Registry,
    /// Set by `streams`: where lines read by the log API go.
    lines: Mutex<Option<mpsc::Sender<LineBatch>>>,
    resume: Mutex<HashMap<String, ResumePoint>>,
    /// By source: the number of the first line that is not durable yet.
    stored: Mutex<HashMap<String, u64>>,
    stored_more: Notify,
    /// Ended since they were last started.
    ended: Mutex<BTreeSet<RuntimeId>>,
    /// The kernel killed a process of it for memory since it was last started.
    out_of_memory: Mutex<BTreeSet<RuntimeId>>,
    /// Docker sent it SIGKILL, and it has not died yet.
    killed: Mutex<BTreeSet<RuntimeId>>,
    pool: pause_pool::Pool,
    /// dockerd makes about eight network namespaces a second, whatever it is asked: more at once only wait inside it.
    own_network_starts: Semaphore,
    joined_starts: Semaphore,
    told_unenforced: AtomicBool,
    demo_image: OnceCell<()>,
    usage_dropped: AtomicU64,
    stop: CancellationToken,
}

impl Shared {
    fn container_ended(&self, id: &str) {
        lock(&self.ended).insert(id.to_owned());
        self.watched.remove(id);
        self.followed.end(id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct DockerEngine {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

const EVENTS_AHEAD: usize = 1_024;
const USAGE_AHEAD: usize = 4;
/// Batches of up to a thousand lines or 256 KiB.
const LINES_AHEAD: usize = 32;

impl DockerEngine {
    pub async fn connect(config: DockerConfig) -> Result<DockerEngine, EngineError> {
        let docker = connect::connect(config.docker_host.as_deref()).await?;
        let info = docker.info().await.map_err(failed(INFO))?;
        if info.live_restore_enabled == Some(false) {
            tracing::warn!("Docker's live-restore is off: restarting Docker ends every container of this host");
        }
        if let Some(network) = &config.task_network {
            connect::check_task_network(&docker, network).await?;
        }
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            docker,
            cgroups: cgroup::Host::new(
                config.host_proc.clone(),
                &config.host_cgroup,
                connect::uses_systemd(&info),
                connect::uses_cgroup_v2(&info),
            ),
            docker_root: PathBuf::from(info.docker_root_dir.unwrap_or_else(|| "/var/lib/docker".to_owned())),
            config,
            watched: usage::Registry::default(),
            followed: follow::Registry::default(),
            lines: Mutex::default(),
            resume: Mutex::default(),
            stored: Mutex::default(),
            stored_more: Notify::new(),
            ended: Mutex::default(),
            out_of_memory: Mutex::default(),
            killed: Mutex::default(),
            pool: pause_pool::Pool::default(),
            own_network_starts: Semaphore::new(4),
            joined_starts: Semaphore::new(8),
            told_unenforced: AtomicBool::new(false),
            demo_image: OnceCell::new(),
            usage_dropped: AtomicU64::new(0),
            stop: stop.clone(),
        });
        lifecycle::sweep_task_groups(&shared).await?;
        Ok(DockerEngine { shared, _stop: stop.drop_guard() })
    }

    /// Makes sure that there is an image of our own static binary (`/beaufort`), so that what runs it needs no registry.
    pub async fn ensure_own_image(&self, reference: &str, entrypoint: &[&str], command: &[&str]) -> Result<(), EngineError> {
        self.ensure_image_of(&self.shared.config.binary, reference, entrypoint, command).await
    }

    /// The same for another static binary.
    pub async fn ensure_image_of(
        &self,
        binary: &Path,
        reference: &str,
        entrypoint: &[&str],
        command: &[&str],
    ) -> Result<(), EngineError> {
        let shared = &self.shared;
        images::ensure_own(&shared.docker, &shared.config.installation, reference, binary, entrypoint, command).await
    }

    /// Removes an image that was made of our binary; one that is not there is removed already.
    pub async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        images::remove(&self.shared.docker, reference).await
    }

    /// Removes warm pause containers and networks: what belongs to the installation and to no task. Tasks are left alone.
    pub async fn shutdown_cleanup(&self) -> Result<(), EngineError> {
        pause_pool::shutdown(&self.shared).await?;
        lifecycle::sweep_task_groups(&self.shared).await
    }

    /// Usage passes that nobody took in time.
    pub fn usage_dropped(&self) -> u64 {
        self.shared.usage_dropped.load(Ordering::Relaxed)
    }
}

impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let info = self.shared.docker.info().await.map_err(failed(INFO))?;
        Ok(connect::engine_info(&self.shared.config, &info))
    }

    fn streams(&self) -> Streams {
        let (events_out, events) = mpsc::channel(EVENTS_AHEAD);
        let (usage_out, usage) = mpsc::channel(USAGE_AHEAD);
        let (lines_out, lines) = mpsc::channel(LINES_AHEAD);
        *lock(&self.shared.lines) = Some(lines_out.clone());
        tokio::spawn(events::run(self.shared.clone(), events_out));
        tokio::spawn(pause_pool::refill(self.shared.clone()));
        let runtime = tokio::runtime::Handle::current();
        let shared = self.shared.clone();
        let sampler = move || usage::run(&shared, &runtime, &usage_out);
        let shared = self.shared.clone();
        let follower = move || follow::run(&shared.followed, &shared.stop, &lines_out);
        for (name, body) in [("usage", Box::new(sampler) as Box<dyn FnOnce() + Send>), ("log-files", Box::new(follower))] {
            if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(body) {
                tracing::error!(name, %error, "cannot start a thread: this stream stays empty");
            }
        }
        Streams { events, usage, lines }
    }

    async fn list(&self) -> Result<Vec<Observed>, EngineError> {
        lifecycle::list(&self.shared).await
    }

    async fn pull(&self, image: &str) -> Result<Pulled, EngineError> {
        if image == DEMO_IMAGE {
            // Once per start: the image is made from the binary that runs now, whatever an older one left behind.
            self.shared.demo_image.get_or_try_init(|| self.ensure_own_image(DEMO_IMAGE, &["/beaufort"], &["web"])).await?;
        }
        images::pull(&self.shared.docker, image).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<RuntimeId, EngineError> {
        lifecycle::create(&self.shared, spec).await
    }

    async fn start(&self, id: &str) -> Result<Started, EngineError> {
        lifecycle::start(&self.shared, id).await
    }

    async fn stop(&self, id: &str, grace_ms: Millis) -> Result<(), EngineError> {
        lifecycle::stop(&self.shared, id, grace_ms).await
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        lifecycle::remove(&self.shared, id).await
    }

    async fn pause(&self, task: &TaskId, cluster: &str) -> Result<(RuntimeId, Started), EngineError> {
        pause_pool::pause(&self.shared, task, cluster).await
    }

    async fn clean_up(&self, task: &TaskId) -> Result<(), EngineError> {
        lifecycle::clean_up(&self.shared, task).await
    }

    fn resume_lines(&self, from: Vec<ResumePoint>) {
        let mut resume = lock(&self.shared.resume);
        for point in from {
            // Said of a container that is followed already (the control plane came back), it is what is durable.
            lock(&self.shared.stored).insert(point.source.clone(), point.next);
            resume.insert(point.source.clone(), point);
        }
    }

    fn lines_stored(&self, upto: &[ResumePoint]) {
        let mut stored = lock(&self.shared.stored);
        for point in upto.iter().filter(|p| self.shared.followed.get(&p.source).is_some()) {
            let next = stored.entry(point.source.clone()).or_default();
            *next = point.next.max(*next);
        }
        drop(stored);
        self.shared.stored_more.notify_waiters();
    }
}
