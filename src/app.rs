//! Builds a whole Beaufort in this process and wires it: stores, loops, the port, the local agent. Start and stop order live here;
//! it is what `beaufort up`, `beaufort serve` and the tests start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::config::AgentConfig;
use crate::agent::engine::Engine;
use crate::agent::link::{self, FarEnd};
use crate::agent::runtime;
use crate::api::{self, App, gaps::Gaps};
use crate::clock::{SharedClock, SystemClock};
use crate::control::agents::Hub;
use crate::control::{Control, ControlSettings, alarms, capacity, janitor, scaling, services};
use crate::http::{self, AgentDoor, Doors};
use crate::ids::{IdSource, SharedIds};
use crate::model::arn::Home;
use crate::model::cluster::{Cluster, ClusterStatus};
use crate::model::task::StopCode;
use crate::model::{ClusterName, InstanceId};
use crate::store::{self, Store};
use crate::telemetry::ingest::Ingest;
use crate::telemetry::logs::{self, LogStore};
use crate::telemetry::metrics::{self, MetricStore};
use crate::wire::Wire;
use crate::{export, observe, schedule};

/// Messages that may wait between the agent in this process and its session.
const LINK_DEPTH: usize = 256;
/// Between two sessions of the agent in this process; longer when sessions end at once, as they do while the disk is full.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long `--stop-tasks-on-exit` waits for tasks to end: ECS's default stop timeout, and some.
const STOP_TASKS_WITHIN: Duration = Duration::from_secs(40);

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// None: everything in memory.
    pub data_dir: Option<PathBuf>,
    pub cluster: String,
    pub region: String,
    pub account: String,
    /// Offers `POST /api/reset`.
    pub ephemeral: bool,
    pub stop_tasks_on_exit: bool,
    /// What agents from outside must say; None lets none in.
    pub agent_token: Option<String>,
    /// What Alertmanager must say; None takes no alerts.
    pub webhook_token: Option<String>,
    /// Listening on more than loopback was asked for, though nobody is authenticated.
    pub allow_unauthenticated: bool,
    pub zone: Option<String>,
    pub attributes: BTreeMap<String, Option<String>>,
    /// Where containers send their own OTLP.
    pub task_otlp_endpoint: Option<String>,
    pub settings: ControlSettings,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 4566)),
            data_dir: None,
            cluster: "default".to_owned(),
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            ephemeral: false,
            stop_tasks_on_exit: false,
            agent_token: None,
            webhook_token: None,
            allow_unauthenticated: false,
            zone: None,
            attributes: BTreeMap::new(),
            task_otlp_endpoint: None,
            settings: ControlSettings::default(),
        }
    }
}

impl Config {
    /// What must hold before anything starts.
    pub fn check(&self) -> anyhow::Result<()> {
        if !self.listen.ip().is_loopback() && !self.allow_unauthenticated {
            bail!(
                "--listen {} is open to the network, and clients are not authenticated: anyone who reaches it could run containers here. \
                 Listen on 127.0.0.1 (the default) and let a proxy or an SSH tunnel bring others in; where only trusted neighbours reach \
                 it, as in a closed container network, --allow-unauthenticated permits it",
                self.listen
            );
        }
        if self.account.len() != 12 || !self.account.bytes().all(|b| b.is_ascii_digit()) {
            bail!("--account-id {} is not twelve digits, as an AWS account id is", self.account);
        }
        let word = |text: &str| {
            !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if !word(&self.cluster) {
            bail!("--cluster {} is no cluster name: 1 to 255 letters, digits, - and _", self.cluster);
        }
        if !word(&self.region) {
            bail!("--region {} is no region name", self.region);
        }
        Ok(())
    }
}

/// The parts that are built before anything runs.
pub struct Core {
    pub app: Arc<App>,
    pub control: Arc<Control>,
    pub config: Config,
}

impl Core {
    /// Opens the stores. `local_agent`: an agent will run in this process.
    pub async fn open(config: Config, local_agent: bool) -> anyhow::Result<Core> {
        Core::open_with(config, local_agent, Arc::new(SystemClock), IdSource::random()).await
    }

    pub async fn open_with(config: Config, local_agent: bool, clock: SharedClock, ids: SharedIds) -> anyhow::Result<Core> {
        config.check()?;
        let store = Store::open(config.data_dir.as_deref(), clock.clone(), ids.instance().as_str())?;
        Core::with_store(config, store, local_agent, clock, ids).await
    }

    pub async fn with_store(
        config: Config,
        store: Store,
        local_agent: bool,
        clock: SharedClock,
        ids: SharedIds,
    ) -> anyhow::Result<Core> {
        let dir = config.data_dir.as_deref();
        let part = |name: &str| dir.map(|d| d.join(name));
        let metrics = MetricStore::open(part("metrics").as_deref(), clock.clone(), metrics::Limits::default())
            .context("the metrics under the data directory cannot be opened")?;
        let logs = LogStore::open(part("logs").as_deref(), clock.clone(), logs::Limits::default())
            .context("the logs under the data directory cannot be opened")?;
        let ingest = Arc::new(Ingest::new(metrics.clone()));
        let home = Home::new(&config.region, &config.account);
        let first_cluster = ClusterName::new(&config.cluster);
        let app = Arc::new(App {
            store: store.clone(),
            metrics: metrics.clone(),
            logs: logs.clone(),
            ingest: ingest.clone(),
            home: home.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            gaps: Gaps::default(),
            first_cluster: first_cluster.clone(),
            alerts: Default::default(),
            backups: Default::default(),
            webhook_token: config.webhook_token.clone(),
            ephemeral: config.ephemeral,
            // One agent per installation: its id is the installation's.
            local_instance: local_agent.then(|| InstanceId::new(store.installation())),
            started_at: clock.now(),
        });
        let settings = config.settings.clone();
        let control = Arc::new(Control { store, metrics, logs, ingest, home, clock, ids, settings });
        make_first_cluster(&app, first_cluster).await?;
        Ok(Core { app, control, config })
    }

    pub fn installation(&self) -> &str {
        self.app.store.installation()
    }
}

async fn make_first_cluster(app: &App, name: ClusterName) -> Result<(), store::Error> {
    app.store
        .update("start", move |tx| {
            if !tx.state().clusters.get(&name).is_some_and(|c| c.status == ClusterStatus::Active) {
                let created_at = tx.now;
                tx.put(Cluster { name, status: ClusterStatus::Active, tags: Vec::new(), settings: Vec::new(), created_at });
            }
            Ok(())
        })
        .await
}

/// A Beaufort that runs.
pub struct Running {
    pub core: Core,
    pub address: SocketAddr,
    pub hub: Arc<Hub>,
    /// Ends the loops, in the order of [`Running::stop`].
    loops: CancellationToken,
    services: CancellationToken,
    doors: CancellationToken,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts everything but the local agent.
pub async fn start(core: Core) -> anyhow::Result<Running> {
    let listener = http::bind(core.config.listen).await.with_context(|| {
        format!("{} cannot be listened on: end what uses the port, or choose another with --listen", core.config.listen)
    })?;
    let address = listener.local_addr()?;
    let Loops { hub, loops, services, mut tasks } = start_loops(&core).await?;
    let doors = CancellationToken::new();
    tasks.push(tokio::spawn(http::serve(listener, Arc::new(make_doors(&core, &hub)), doors.clone())));
    Ok(Running { core, address, hub, loops, services, doors, agent: None, tasks })
}

/// What of a control plane runs, without its port.
pub struct Loops {
    pub hub: Arc<Hub>,
    loops: CancellationToken,
    services: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

pub async fn start_loops(core: &Core) -> anyhow::Result<Loops> {
    let (loops, services) = (CancellationToken::new(), CancellationToken::new());
    let hub = Hub::new(core.control.clone(), loops.clone());
    hub.forget_connections().await?;
    let control = &core.control;
    let tasks = vec![
        tokio::spawn(hub.clone().dispatch()),
        tokio::spawn(services::run(control.clone(), services.clone())),
        tokio::spawn(alarms::run(control.clone(), loops.clone())),
        tokio::spawn(scaling::run(control.clone(), loops.clone())),
        tokio::spawn(capacity::run(control.clone(), loops.clone())),
        tokio::spawn(janitor::run(control.clone(), loops.clone())),
    ];
    Ok(Loops { hub, loops, services, tasks })
}

impl Loops {
    /// Ends them in the middle of whatever they do, as a crash does. Returns when nothing of them is left.
    pub async fn crash(self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // An aborted one says so.
            let _ = task.await;
        }
    }
}

pub fn make_wire(app: &Arc<App>) -> Wire<App> {
    let services = api::services();
    for service in &services {
        service.operations.iter().for_each(|operation| observe::operation_known(service.signs, operation.name));
    }
    Wire { app: app.clone(), services, observe: observe_call, span: observe::call_span }
}

fn make_doors(core: &Core, hub: &Arc<Hub>) -> Doors {
    let (app, hub) = (core.app.clone(), hub.clone());
    let exposed = app.clone();
    Doors {
        wire: make_wire(&app),
        exposition: Box::new(move || export::prometheus::render(&exposed)),
        agents: AgentDoor {
            token: core.config.agent_token.clone(),
            session: Box::new(move |to, mut from| {
                let hub = hub.clone();
                tokio::spawn(async move { hub.serve(to, &mut from).await });
            }),
        },
        app,
    }
}

/// What every AWS call leaves behind: a metric, and the members that nobody obeys.
fn observe_call(app: &App, record: &crate::wire::Record) {
    observe::api_call(record.service, record.operation, record.status, record.took);
    for name in &record.unknown.1 {
        app.gaps.unknown(record.service, record.operation, name);
    }
}

/// The agent of this process has no socket that breaks, but its session may end: then it is connected anew, as any other agent.
async fn keep_local(hub: Arc<Hub>, far: FarEnd, stop: CancellationToken) {
    let FarEnd { mut from, to, connection } = far;
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() && !from.is_closed() {
        let begun = tokio::time::Instant::now();
        hub.serve(to.clone(), &mut from).await;
        pause = if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
        connection.send_modify(|number| *number += 1);
    }
}

impl Running {
    /// Starts the agent of this process on `engine`.
    pub fn start_agent<E: Engine>(&mut self, engine: Arc<E>) {
        let config = AgentConfig {
            // Every ECS instance is in a zone: the first of the region, as ECS names it, unless one is given.
            zone: Some(self.core.config.zone.clone().unwrap_or_else(|| format!("{}a", self.core.config.region))),
            attributes: self.core.config.attributes.clone(),
            otlp_endpoint: self.core.config.task_otlp_endpoint.clone(),
            instance: self.core.app.local_instance.clone(),
            ..AgentConfig::new(self.core.config.cluster.as_str())
        };
        let stop = CancellationToken::new();
        let (link, far) = link::pair(LINK_DEPTH);
        tokio::spawn(keep_local(self.hub.clone(), far, stop.clone()));
        let running = runtime::run(engine, link, self.core.app.clock.clone(), config, stop.clone());
        let agent = tokio::spawn(async move {
            if let Err(ended) = running.await {
                tracing::error!(why = %ended, "the agent of this process has ended");
            }
        });
        self.agent = Some((stop, agent));
    }

    /// Asks every task to end and waits until they have, within a bound. Services no longer replace them.
    pub async fn stop_tasks(&self) -> anyhow::Result<()> {
        self.services.cancel();
        let store = &self.core.app.store;
        store
            .update("stop tasks on exit", |tx| {
                let running: Vec<_> = tx.state().tasks.values().filter(|t| !t.is_stopped()).map(|t| t.id.clone()).collect();
                for id in running {
                    let reason = schedule::asked_by_user("beaufort ends, and was started with --stop-tasks-on-exit");
                    schedule::stop(tx, &id, StopCode::UserInitiated, "Task stopped by user", reason);
                }
                Ok::<_, store::Error>(())
            })
            .await?;
        let mut watch = store.watch();
        let all_stopped = async {
            while store.snapshot().tasks.values().any(|t| !t.is_stopped()) {
                // Lagging is as good as a commit: look again.
                let _ = watch.recv().await;
            }
        };
        let ended = tokio::time::timeout(STOP_TASKS_WITHIN, all_stopped).await;
        ended.map_err(|_| anyhow::anyhow!("some tasks have not ended within {} s and run on", STOP_TASKS_WITHIN.as_secs()))
    }

    /// Ends in order: the port, the agent (its tasks run on), the loops, then the stores.
    pub async fn stop(mut self) {
        self.doors.cancel();
        if let Some((stop, agent)) = self.agent.take() {
            stop.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(10), agent).await;
        }
        self.services.cancel();
        self.loops.cancel();
        for task in self.tasks.drain(..) {
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
        let app = &self.core.app;
        app.metrics.close();
        app.store.close().await;
    }
}
