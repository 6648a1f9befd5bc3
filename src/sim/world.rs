//! The simulated world: one control plane, many hosts, one time. What it is asked to do is done through the same doors that clients
//! and agents use; what goes wrong in it is done here too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::broadcast::error::TryRecvError;

use super::check::{Checks, Rule};
use super::clients::Clients;
use super::clock::{SimClock, WallClock};
use super::doom::Doom;
use super::host::Host;
use super::plane::Plane;
use super::wire::Wire;
use crate::api::{App, alertmanager, native};
use crate::app::Config;
use crate::clock::{Clock, SharedClock};
use crate::control::ControlSettings;
use crate::ids::IdSource;
use crate::model::task::Resources;
use crate::model::{InstanceId, Millis, ServiceKey, TaskId, Timestamp};
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

/// A refusal of the API; status 0: nobody answered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {body}")]
pub struct Refused {
    pub status: u16,
    pub body: Value,
}

impl Refused {
    /// It may have been done, and may not.
    pub fn is_lost(&self) -> bool {
        self.status == 0
    }

    fn lost() -> Refused {
        Refused { status: 0, body: Value::Null }
    }
}

pub struct World {
    pub seed: u64,
    /// The control plane's time of day.
    pub clock: Arc<WallClock>,
    pub hosts: Vec<Host>,
    pub checks: Checks,
    pub clients: Clients,
    /// Alerts that fire, since when.
    pub alerts: BTreeMap<String, Timestamp>,
    setup: Setup,
    time: Arc<SimClock>,
    config: Config,
    /// What the running control plane's commits will come to.
    doom: Arc<Doom>,
    /// How long it stays away when it dies at a commit.
    death_ms: Millis,
    /// Container instances that nobody will hear of again.
    gone: BTreeSet<InstanceId>,
    replaced: u32,
    plane: Option<Plane>,
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
    SlowEngine(usize),
    Agent(usize),
    Plane,
}

impl World {
    /// To be called in a runtime whose time is paused: see [`super::block_on`].
    pub async fn new(seed: u64, setup: Setup) -> anyhow::Result<World> {
        let time = SimClock::start();
        let config = Config {
            data_dir: setup.data_dir.clone(),
            settings: setup.settings.clone(),
            webhook_token: Some(WEBHOOK_TOKEN.to_owned()),
            ..Config::default()
        };
        let mut world = World {
            seed,
            hosts: Vec::new(),
            clock: WallClock::new(time.clone()),
            checks: Checks::default(),
            clients: Clients::default(),
            alerts: BTreeMap::new(),
            time,
            config,
            doom: Arc::default(),
            death_ms: 0,
            gone: BTreeSet::new(),
            replaced: 0,
            plane: None,
            lives: 0,
            demands: BTreeMap::new(),
            loads: Arc::default(),
            shared_at: Timestamp::ZERO,
            due: BTreeMap::new(),
            repairs: 0,
            setup,
        };
        world.hosts = (0..world.setup.instances).map(|n| world.make_host(n)).collect();
        world.start_plane().await?;
        for host in &mut world.hosts {
            host.start_agent();
        }
        world.run_for(1_000).await;
        Ok(world)
    }

    fn make_host(&self, n: usize) -> Host {
        let zone = format!("zone-{}", (b'a' + (n % self.setup.zones.max(1)) as u8) as char);
        let host = Host::new(n, self.replaced, zone, self.setup.resources.clone(), &self.config.cluster, &self.time);
        let loads = self.loads.clone();
        host.engine.set_load(move |task, _, _| loads.lock().unwrap_or_else(PoisonError::into_inner).get(task).copied());
        host
    }

    /// The world's own time, whatever a clock in it shows.
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// What the control plane's handlers work on; None while it is down.
    pub fn app(&self) -> Option<&Arc<App>> {
        self.plane.as_ref().map(|p| &p.app)
    }

    pub fn host_names(&self) -> BTreeMap<String, String> {
        self.checks.seen.instances.values().map(|i| (i.id.to_string(), i.host_name.clone())).collect()
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
        let doom = self.doom.clone();
        let response = tokio::select! {
            biased;
            response = plane.wire.answer(head, input.to_string().into()) => Some(response),
            () = doom.death() => None,
        };
        let Some(response) = response else {
            self.fall().await;
            return Err(Refused::lost());
        };
        let body = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
        self.observe();
        match response.status().as_u16() {
            200 => Ok(body),
            status => Err(Refused { status, body }),
        }
    }

    /// One message of Alertmanager's. Err while the control plane is down: then Alertmanager tries again.
    pub async fn alertmanager(&mut self, message: &Value) -> Result<Value, Refused> {
        let Some(app) = self.app().cloned() else { return Err(Refused { status: 503, body: Value::Null }) };
        let (authorization, body) = (format!("Bearer {WEBHOOK_TOKEN}"), bytes::Bytes::from(message.to_string()));
        let request = native::Request {
            method: &http::Method::POST,
            path: alertmanager::PATH,
            query: "repeat_interval=30s",
            authorization: Some(&authorization),
            body: &body,
        };
        let doom = self.doom.clone();
        let answer = tokio::select! {
            biased;
            answer = native::answer(&app, request) => Some(answer.ok_or(Refused { status: 404, body: Value::Null })?),
            () = doom.death() => None,
        };
        let Some(answer) = answer else {
            drop(app);
            self.fall().await;
            return Err(Refused::lost());
        };
        let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status == 200 { Ok(body) } else { Err(Refused { status: answer.status, body }) }
    }

    /// Lets time pass, with everything that is due in it.
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
        let doom = self.doom.clone();
        tokio::select! {
            biased;
            () = doom.death(), if self.plane.is_some() => return self.fall().await,
            () = tokio::time::sleep(TICK) => {}
        }
        let now = self.now();
        while let Some(entry) = self.due.first_entry().filter(|e| e.key().0 <= now) {
            let repair = entry.remove();
            self.repair(repair).await;
        }
        self.hosts.iter().for_each(Host::tick);
        self.observe();
        if now.floor(1_000) > self.shared_at {
            self.shared_at = now.floor(1_000);
            self.share_demands();
            self.checks.look_at_hosts(&self.hosts, now);
        }
    }

    /// Shows the checks every commit that was made since.
    fn observe(&mut self) {
        self.checks.now = self.time.now();
        let Some(plane) = &mut self.plane else { return };
        loop {
            match plane.commits.try_recv() {
                Ok(commit) => self.checks.commit(&commit),
                Err(TryRecvError::Lagged(missed)) => {
                    self.checks.breach(Rule::Checks, format!("the checks missed {missed} commits"));
                }
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
        self.hosts.iter().for_each(|host| drop(host.gate.send_replace(None)));
        plane.crash().await;
        self.later(down_ms, Repair::Plane);
    }

    /// It has died at a commit, as it was doomed to.
    async fn fall(&mut self) {
        self.observe();
        // On disk, though nobody was told: the next life must find it.
        if let Some(commit) = self.doom.last_words() {
            self.checks.commit(&commit);
        }
        self.crash(self.death_ms).await;
    }

    pub fn crash_at(&mut self, commits: u32, durable: bool, ms: Millis) {
        self.death_ms = ms;
        self.doom.die_at(commits, durable);
    }

    pub fn refuse_commits(&mut self, commits: u32) {
        self.doom.refuse(commits);
    }

    /// Somebody sets the control plane's time of day.
    pub fn set_clock(&mut self, by_ms: Millis) {
        self.clock.jump(by_ms);
    }

    async fn start_plane(&mut self) -> anyhow::Result<()> {
        self.lives += 1;
        // Ids of another life must not come again.
        let ids = IdSource::seeded(self.seed ^ (self.lives << 48));
        self.doom = Arc::default();
        let (checks, clients) = (&mut self.checks, &self.clients);
        let found = |found: &State| {
            checks.compare_disk(found);
            checks.compare_clients(clients, found);
        };
        let clock: SharedClock = self.clock.clone();
        let plane = Plane::start(self.config.clone(), clock, ids, self.doom.clone(), found).await?;
        self.hosts.iter().for_each(|host| drop(host.gate.send_replace(Some(plane.gate.clone()))));
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

    pub fn slow_engine(&mut self, host: usize, list_ms: Millis, ms: Millis) {
        self.hosts[host].engine.set_list_delay(list_ms);
        self.later(ms, Repair::SlowEngine(host));
    }

    /// One of the host's running containers dies, for its memory or for no reason.
    pub fn kill_container(&mut self, host: usize, pick: u32, oom: bool) {
        let running: Vec<String> = self.hosts[host].running().map(|(_, _, id)| id).collect();
        let Some(id) = running.get(pick as usize % running.len().max(1)) else { return };
        match oom {
            true => self.hosts[host].engine.kill_for_memory(id),
            false => self.hosts[host].engine.kill(id),
        }
    }

    /// The host is gone for good with all that ran there; after `ms` a new and empty one stands in its place.
    pub async fn replace_host(&mut self, host: usize, ms: Millis) {
        self.hosts[host].stop_agent().await;
        self.gone.extend(self.hosts[host].instance());
        self.replaced += 1;
        self.hosts[host] = self.make_host(host);
        self.hosts[host].gate.send_replace(self.plane.as_ref().map(|plane| plane.gate.clone()));
        self.later(ms, Repair::Agent(host));
    }

    fn later(&mut self, ms: Millis, repair: Repair) {
        self.repairs += 1;
        self.due.insert((self.now() + ms, self.repairs), repair);
    }

    async fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Wire(host) => drop(self.hosts[host].wire.send_replace(Wire::Up)),
            Repair::Engine(host) => self.hosts[host].engine.come_back(),
            Repair::SlowEngine(host) => self.hosts[host].engine.set_list_delay(0),
            // Whoever ended it twice has it started once.
            Repair::Agent(host) => {
                self.hosts[host].stop_agent().await;
                self.hosts[host].start_agent();
            }
            Repair::Plane if self.plane.is_some() => {}
            Repair::Plane => {
                if let Err(error) = self.start_plane().await {
                    self.checks.breach(Rule::Durable, format!("the control plane does not start again: {error:#}"));
                }
            }
        }
    }

    /// Ends every fault now, and what would have come.
    pub async fn repair_all(&mut self) {
        self.doom.clear();
        while let Some((_, repair)) = self.due.pop_first() {
            self.repair(repair).await;
        }
    }

    /// As an operator does with instances that will not come back: of hosts that are gone, and of agents that never heard their id.
    async fn deregister_gone(&mut self) {
        let here: BTreeSet<InstanceId> = self.hosts.iter().filter_map(Host::instance).collect();
        let strangers = self.checks.seen.instances.values().filter(|i| !i.agent_connected && !here.contains(&i.id));
        let gone: Vec<InstanceId> = strangers.map(|i| i.id.clone()).collect();
        for id in gone {
            let input = serde_json::json!({"containerInstance": id.as_str(), "force": true});
            if let Err(refused) = self.call("ecs", "DeregisterContainerInstance", input).await {
                self.checks.breach(Rule::Settled, format!("instance {id} cannot be deregistered: {refused}"));
            }
        }
    }

    /// Lets `ms` pass without faults and says what is not as it was asked for then.
    pub async fn settle(&mut self, ms: Millis) {
        self.repair_all().await;
        // What broke last is not known to everyone at once: a wire that went silent shows when its time is up.
        self.run_for(ms.min(20_000)).await;
        self.deregister_gone().await;
        let settled = self.run_until(ms, |world| world.checks.unsettled(&world.hosts).is_empty()).await;
        if !settled {
            for what in self.checks.unsettled(&self.hosts).into_iter().take(10) {
                self.checks.breach(Rule::Settled, format!("not settled after {ms} ms: {what}"));
            }
        }
        let gave_up: Vec<usize> = (0..self.hosts.len()).filter(|&n| self.hosts[n].gave_up()).collect();
        if !gave_up.is_empty() {
            self.checks.breach(Rule::Settled, format!("agents of hosts {gave_up:?} have ended by themselves"));
        }
        self.observe();
        let Some(state) = self.app().map(|app| app.store.snapshot()) else { return };
        self.checks.compare_live(&state);
        if let Some(dir) = &self.config.data_dir {
            self.checks.compare_journal(dir, &state);
        }
        self.checks.compare_clients(&self.clients, &state);
    }
}
