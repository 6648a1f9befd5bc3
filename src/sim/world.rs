//! The simulated world: one control plane, many hosts, one time. What it is asked to do is done through the same doors that clients
//! and agents use; what goes wrong in it is done here too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::watch;

use super::check::Checks;
use super::clock::SimClock;
use super::host::{Host, Wire};
use super::plane::{Gate, Plane};
use crate::agent::engine::ObservedState;
use crate::api::{App, alertmanager, native};
use crate::app::Config;
use crate::clock::SharedClock;
use crate::control::ControlSettings;
use crate::ids::IdSource;
use crate::model::task::Resources;
use crate::model::{Millis, ServiceKey, TaskId, Timestamp};
use crate::store::State;

const WEBHOOK_TOKEN: &str = "simulated";

/// Engines are brought up to the present this often, and the checks look as often.
const TICK: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct Setup {
    pub instances: usize,
    pub zones: usize,
    pub resources: Resources,
    /// Needed for crashes. None: in memory.
    pub data_dir: Option<PathBuf>,
    pub settings: ControlSettings,
}

impl Default for Setup {
    fn default() -> Setup {
        let resources = Resources { cpu: 4_096, memory: 8_192, ..Resources::default() };
        Setup { instances: 6, zones: 3, resources, data_dir: None, settings: ControlSettings::default() }
    }
}

/// A refusal of the API.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {body}")]
pub struct Refused {
    pub status: u16,
    pub body: Value,
}

pub struct World {
    pub seed: u64,
    pub clock: SharedClock,
    pub hosts: Vec<Host>,
    pub random: StdRng,
    pub checks: Checks,
    config: Config,
    plane: Option<Plane>,
    gate: watch::Sender<Option<Arc<Gate>>>,
    lives: u64,
    /// Cores that a service's tasks share.
    demands: BTreeMap<ServiceKey, f64>,
    loads: Arc<Mutex<BTreeMap<TaskId, f64>>>,
    shared_at: Timestamp,
    due: BTreeMap<(Timestamp, usize), Repair>,
    repairs: usize,
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub enum Repair {
    Wire(usize),
    Engine(usize),
    Agent(usize),
    Plane,
}

impl World {
    /// To be called in a runtime whose time is paused: see [`super::block_on`].
    pub async fn new(seed: u64, setup: Setup) -> anyhow::Result<World> {
        let clock: SharedClock = SimClock::start();
        let config = Config {
            data_dir: setup.data_dir,
            settings: setup.settings,
            webhook_token: Some(WEBHOOK_TOKEN.to_owned()),
            ..Config::default()
        };
        let mut world = World {
            seed,
            hosts: (0..setup.instances)
                .map(|n| {
                    let zone = format!("zone-{}", (b'a' + (n % setup.zones.max(1)) as u8) as char);
                    Host::new(n, zone, setup.resources.clone(), &config.cluster, clock.clone())
                })
                .collect(),
            clock,
            random: StdRng::seed_from_u64(seed),
            checks: Checks::default(),
            config,
            plane: None,
            gate: watch::Sender::new(None),
            lives: 0,
            demands: BTreeMap::new(),
            loads: Arc::default(),
            shared_at: Timestamp::ZERO,
            due: BTreeMap::new(),
            repairs: 0,
        };
        world.start_plane().await?;
        for host in &mut world.hosts {
            let loads = world.loads.clone();
            host.engine.set_load(move |task, _, _| loads.lock().unwrap_or_else(PoisonError::into_inner).get(task).copied());
            host.start_agent(world.gate.subscribe());
        }
        world.run_for(1_000).await;
        Ok(world)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What the control plane's handlers work on; None while it is down.
    pub fn app(&self) -> Option<&Arc<App>> {
        self.plane.as_ref().map(|p| &p.app)
    }

    /// The state of the control plane that runs.
    pub fn state(&self) -> Arc<State> {
        self.app().map(|app| app.store.snapshot()).unwrap_or_default()
    }

    /// One call of the AWS API, as a client makes it. `target` is X-Amz-Target's prefix, or `ecs`.
    pub async fn call(&mut self, service: &str, operation: &str, input: Value) -> Result<Value, Refused> {
        let target = match service {
            "ecs" => "AmazonEC2ContainerServiceV20141113",
            "application-autoscaling" => "AnyScaleFrontendService",
            "logs" => "Logs_20140328",
            "monitoring" => "GraniteServiceVersion20100801",
            other => other,
        };
        let Some(plane) = &self.plane else { return Err(Refused { status: 503, body: Value::Null }) };
        let head = http::Request::builder()
            .method("POST")
            .uri("/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("{target}.{operation}"))
            .body(())
            .map_err(|e| Refused { status: 400, body: Value::String(e.to_string()) })?
            .into_parts()
            .0;
        let response = plane.wire.answer(head, input.to_string().into()).await;
        let body = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
        self.observe();
        match response.status().as_u16() {
            200 => Ok(body),
            status => Err(Refused { status, body }),
        }
    }

    /// Lets time pass, with everything that is due in it.
    /// One message of Alertmanager's. Err while the control plane is down: then Alertmanager tries again.
    pub async fn alertmanager(&mut self, message: &Value) -> Result<Value, Refused> {
        let Some(app) = self.app().cloned() else { return Err(Refused { status: 0, body: Value::Null }) };
        let (authorization, body) = (format!("Bearer {WEBHOOK_TOKEN}"), bytes::Bytes::from(message.to_string()));
        let request = native::Request {
            method: &http::Method::POST,
            path: alertmanager::PATH,
            query: "repeat_interval=30s",
            authorization: Some(&authorization),
            body: &body,
        };
        let answer = native::answer(&app, request).await.ok_or(Refused { status: 404, body: Value::Null })?;
        let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status == 200 { Ok(body) } else { Err(Refused { status: answer.status, body }) }
    }

    pub async fn run_for(&mut self, ms: Millis) {
        let end = self.now() + ms;
        while self.now() < end {
            self.step().await;
        }
    }

    /// Runs until `holds`, or until `ms` have passed: then it is false.
    pub async fn run_until(&mut self, ms: Millis, mut holds: impl FnMut(&World) -> bool) -> bool {
        let end = self.now() + ms;
        while !holds(self) {
            if self.now() >= end {
                return false;
            }
            self.step().await;
        }
        true
    }

    async fn step(&mut self) {
        tokio::time::sleep(TICK).await;
        let now = self.now();
        while let Some(entry) = self.due.first_entry().filter(|e| e.key().0 <= now) {
            let repair = entry.remove();
            self.repair(repair).await;
        }
        for host in &self.hosts {
            host.engine.tick(now);
        }
        self.observe();
        if now.floor(1_000) > self.shared_at {
            self.shared_at = now.floor(1_000);
            self.share_demands();
            self.checks.look_at_hosts(&self.hosts, now);
        }
    }

    /// Shows the checks every commit that was made since.
    fn observe(&mut self) {
        let Some(plane) = &mut self.plane else { return };
        loop {
            match plane.commits.try_recv() {
                Ok(commit) => self.checks.commit(&commit),
                Err(TryRecvError::Lagged(missed)) => self.checks.breach(format!("the checks missed {missed} commits")),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// From now on the service's tasks together use so many cores, each an equal share.
    pub fn set_demand(&mut self, service: &ServiceKey, cores: f64) {
        self.demands.insert(service.clone(), cores);
        self.share_demands();
    }

    fn share_demands(&self) {
        let shares = self.demands.iter().flat_map(|(key, cores)| {
            let tasks = self.checks.seen.running(key);
            let share = cores / tasks.len().max(1) as f64;
            tasks.into_iter().map(move |task| (task, share))
        });
        *self.loads.lock().unwrap_or_else(PoisonError::into_inner) = shares.collect();
    }

    /// The control plane ends in the middle of everything, and is started again after `down_ms`.
    pub async fn crash(&mut self, down_ms: Millis) {
        self.observe();
        let Some(plane) = self.plane.take() else { return };
        self.gate.send_replace(None);
        plane.crash().await;
        self.later(down_ms, Repair::Plane);
    }

    async fn start_plane(&mut self) -> anyhow::Result<()> {
        self.lives += 1;
        // Ids of another life must not come again.
        let ids = IdSource::seeded(self.seed ^ (self.lives << 48));
        let checks = &mut self.checks;
        let plane = Plane::start(self.config.clone(), self.clock.clone(), ids, |found| checks.compare_disk(found)).await?;
        self.gate.send_replace(Some(plane.gate.clone()));
        self.plane = Some(plane);
        self.observe();
        Ok(())
    }

    pub fn can_crash(&self) -> bool {
        self.config.data_dir.is_some()
    }

    pub fn is_up(&self) -> bool {
        self.plane.is_some()
    }

    /// The agent's process ends and is started again; its containers run on.
    pub async fn restart_agent(&mut self, host: usize, down_ms: Millis) {
        self.hosts[host].stop_agent().await;
        self.later(down_ms, Repair::Agent(host));
    }

    pub fn break_wire(&mut self, host: usize, how: Wire, ms: Millis) {
        self.hosts[host].wire.send_replace(how);
        self.later(ms, Repair::Wire(host));
    }

    pub fn break_engine(&mut self, host: usize, killing: bool, ms: Millis) {
        self.hosts[host].engine.go_away(killing);
        self.later(ms, Repair::Engine(host));
    }

    /// One of the host's running containers dies.
    pub fn kill_container(&mut self, host: usize) {
        let running: Vec<String> = self.hosts[host]
            .engine
            .containers()
            .into_iter()
            .filter(|o| o.state == ObservedState::Running)
            .map(|o| o.runtime_id)
            .collect();
        if !running.is_empty() {
            self.hosts[host].engine.kill(&running[self.random.random_range(0..running.len())]);
        }
    }

    fn later(&mut self, ms: Millis, repair: Repair) {
        self.repairs += 1;
        self.due.insert((self.now() + ms, self.repairs), repair);
    }

    async fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Wire(host) => drop(self.hosts[host].wire.send_replace(Wire::Up)),
            Repair::Engine(host) => self.hosts[host].engine.come_back(),
            // Whoever ended it twice has it started once.
            Repair::Agent(host) => {
                self.hosts[host].stop_agent().await;
                self.hosts[host].start_agent(self.gate.subscribe());
            }
            Repair::Plane if self.plane.is_some() => {}
            Repair::Plane => {
                if let Err(error) = self.start_plane().await {
                    self.checks.breach(format!("the control plane does not start again: {error:#}"));
                }
            }
        }
    }

    /// Ends every fault now.
    pub async fn repair_all(&mut self) {
        while let Some((_, repair)) = self.due.pop_first() {
            self.repair(repair).await;
        }
    }

    /// Lets `ms` pass without faults and says what is not as it was asked for then.
    pub async fn settle(&mut self, ms: Millis) {
        self.repair_all().await;
        // What broke last is not known to everyone at once: a wire that went silent shows when its time is up.
        self.run_for(ms.min(20_000)).await;
        let settled = self.run_until(ms, |world| world.checks.unsettled(&world.hosts).is_empty()).await;
        if !settled {
            for what in self.checks.unsettled(&self.hosts).into_iter().take(10) {
                self.checks.breach(format!("not settled after {ms} ms: {what}"));
            }
        }
        let gave_up: Vec<usize> = (0..self.hosts.len()).filter(|&n| self.hosts[n].gave_up()).collect();
        if !gave_up.is_empty() {
            self.checks.breach(format!("agents of hosts {gave_up:?} have ended by themselves"));
        }
        self.observe();
        if let Some(difference) = self.app().map(|app| app.store.snapshot()).and_then(|state| self.checks.seen.differs(&state)) {
            self.checks.breach(format!("the commits do not add up to the state: {difference}"));
        }
    }
}
