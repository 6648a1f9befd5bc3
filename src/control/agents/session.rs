//! One connection: tells its agent what to run, and takes in what it says. A slow agent, or one that never stops talking, holds up
//! itself and nobody else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clock::{AgentClock, Turn};
use super::dispatch::Seat;
use super::{Hub, reports};
use crate::decide::definition;
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::instance::Instance;
use crate::model::link::{Assignment, FromAgent, TaskReport, ToAgent, UsageBatch};
use crate::model::log::LineBatch;
use crate::model::task::Task;
use crate::model::{HexText, ServiceName, TaskId, Timestamp};
use crate::observe;
use crate::store::{self, State};
use crate::telemetry::ingest::{Hearing, TaskFacts};
use crate::telemetry::logs::IngestResult;

/// Messages taken together into one commit.
const BURST: usize = 256;
/// So long a message may be under way before it counts as lost; a heartbeat comes every five seconds.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Containers of which a session remembers whose they are; more are looked up again.
const SOURCES_KNOWN: usize = 10_000;
/// Messages that an agent may say per second in the long run, and at once. Real ones say a few; whoever says more waits.
const MESSAGES: Allowance = Allowance { per_second: 200.0, at_once: 1_000.0 };
/// Passes of usage: one a second, and what a link that stood still held back. More are dropped.
const PASSES: Allowance = Allowance { per_second: 2.0, at_once: 64.0 };

#[derive(Clone, Copy)]
struct Allowance {
    per_second: f64,
    at_once: f64,
}

struct Bucket {
    of: Allowance,
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn full(of: Allowance) -> Bucket {
        Bucket { of, left: of.at_once, filled: Instant::now() }
    }

    /// Some: so long it takes until all of it was allowed.
    fn take(&mut self, count: usize, now: Instant) -> Option<Duration> {
        let gained = now.duration_since(self.filled).as_secs_f64() * self.of.per_second;
        self.left = (self.left + gained).min(self.of.at_once) - count as f64;
        self.filled = now;
        (self.left < 0.0).then(|| Duration::from_secs_f64(-self.left / self.of.per_second))
    }
}

pub(super) struct Session {
    hub: Arc<Hub>,
    seat: Arc<Seat>,
    instance: Instance,
    to: mpsc::Sender<ToAgent>,
    /// What the agent was last told of each task: to run, or to end.
    sent: BTreeMap<TaskId, bool>,
    generation: u64,
    /// The generation at a heartbeat of the agent's, and when: a later one must have heard of it. None: an old agent, which does not
    /// say.
    told: Option<(u64, Instant)>,
    /// Containers that write lines, and whose they are.
    sources: BTreeMap<String, Option<ServiceName>>,
    /// Of the tasks that usage came of; none of an older capacity.
    facts: HashMap<Arc<str>, Arc<TaskFacts>>,
    capacity: (u32, u32),
    clock: AgentClock,
    hearing: Arc<Hearing>,
    /// Whether its Docker is there, as it last said; said again until it is stored.
    engine_up: bool,
    messages: Bucket,
    passes: Bucket,
}

impl Session {
    pub fn new(hub: Arc<Hub>, seat: Arc<Seat>, instance: Instance, to: mpsc::Sender<ToAgent>) -> Session {
        let hearing = hub.control.ingest.hearing(&instance.id);
        Session {
            hub,
            seat,
            engine_up: instance.engine_away_since.is_none(),
            instance,
            to,
            sent: BTreeMap::new(),
            generation: 0,
            told: None,
            sources: BTreeMap::new(),
            facts: HashMap::new(),
            capacity: (0, 0),
            clock: AgentClock::default(),
            hearing,
            messages: Bucket::full(MESSAGES),
            passes: Bucket::full(PASSES),
        }
    }

    /// Welcome, and everything that the agent is to run. False: it is gone.
    pub async fn begin(&mut self, link_version: u32, said_at: Timestamp, arrived: Timestamp) -> bool {
        let control = self.hub.control.clone();
        let welcome = ToAgent::Welcome {
            instance: self.instance.id.clone(),
            cluster: self.instance.cluster.clone(),
            installation: control.store.installation().to_owned(),
            region: control.home.region.clone(),
            account: control.home.account.clone(),
            link_version,
        };
        self.told = (link_version >= 2).then(|| (0, Instant::now()));
        self.hearing.heard(control.clock.now());
        self.hear_clock(said_at, arrived).await;
        self.send(welcome).await && self.assign_all().await
    }

    /// Until the agent is gone. May be dropped at any time.
    pub async fn run(&mut self, from: &mut mpsc::Receiver<FromAgent>) {
        let mut burst = Vec::with_capacity(16);
        self.seat.hear();
        self.seat.busy.store(false, Ordering::Relaxed);
        loop {
            let alive = tokio::select! {
                biased;
                () = self.seat.mail.come() => self.look().await,
                got = from.recv_many(&mut burst, BURST) => {
                    self.seat.busy.store(true, Ordering::Relaxed);
                    let alive = got > 0 && self.take(&mut burst).await;
                    self.seat.hear();
                    self.seat.busy.store(false, Ordering::Relaxed);
                    alive
                }
            };
            if !alive {
                return;
            }
            if let Some(wait) = self.messages.take(0, Instant::now()) {
                observe::agent_paced();
                self.seat.hear();
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Waits for a place, but not for an agent that reads nothing.
    async fn send(&self, message: ToAgent) -> bool {
        match self.to.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(message)) => {
                let sent = tokio::time::timeout(self.hub.silence(), self.to.send(message)).await;
                if sent.is_err() {
                    tracing::warn!(instance = %self.instance.id, "the agent reads nothing; the connection is closed");
                }
                matches!(sent, Ok(Ok(())))
            }
        }
    }

    async fn assign_all(&mut self) -> bool {
        let (control, state) = (self.hub.control.clone(), self.hub.control.store.snapshot());
        let (mut tasks, mut sources) = (Vec::new(), Vec::new());
        self.sent.clear();
        self.facts.clear();
        for task in state.tasks_of_instance(&self.instance.id).filter(|t| !t.is_stopped()) {
            if let Some(assignment) = assignment(&state, task) {
                self.sent.insert(task.id.clone(), assignment.run);
                tasks.push(Arc::new(assignment));
                sources.extend(task.containers.iter().filter_map(|c| c.runtime_id.as_ref()).map(ToString::to_string));
            }
        }
        self.generation += 1;
        let resume = control.logs.resume_points(&sources);
        self.send(ToAgent::Assign { generation: self.generation, tasks, resume }).await
    }

    /// Tells the agent what has changed for it, as the newest snapshot has it.
    async fn look(&mut self) -> bool {
        let Some(mut changed) = self.seat.mail.take() else { return self.assign_all().await };
        changed.sort_unstable();
        changed.dedup();
        let state = self.hub.control.store.snapshot();
        let (mut put, mut forget) = (Vec::new(), Vec::new());
        for id in changed {
            let mine = state.tasks.get(&id).filter(|t| t.instance == self.instance.id && !t.is_stopped());
            let Some(task) = mine else {
                self.facts.remove(id.as_str());
                if self.sent.remove(&id).is_some() {
                    forget.push(id);
                }
                continue;
            };
            if self.sent.get(&id) == Some(&!task.is_stopping()) {
                continue;
            }
            if let Some(assignment) = assignment(&state, task) {
                self.sent.insert(id, assignment.run);
                put.push(Arc::new(assignment));
            }
        }
        if put.is_empty() && forget.is_empty() {
            return true;
        }
        self.generation += 1;
        self.send(ToAgent::Update { generation: self.generation, put, forget }).await
    }

    async fn take(&mut self, messages: &mut Vec<FromAgent>) -> bool {
        let control = self.hub.control.clone();
        self.hearing.heard(control.clock.now());
        let _ = self.messages.take(messages.len(), Instant::now());
        // Of each task only the newest report counts.
        let (mut news, mut lines) = (BTreeMap::<TaskId, TaskReport>::new(), Vec::new());
        for message in messages.drain(..) {
            match message {
                FromAgent::Status(reports) => news.extend(reports.into_iter().map(|r| (r.task.clone(), r))),
                FromAgent::Usage(batch) => {
                    self.hear_clock(batch.at, control.clock.now()).await;
                    self.usage(batch);
                }
                FromAgent::Lines(batches) => lines.extend(batches),
                FromAgent::Heartbeat { engine_up, at, generation } => {
                    self.hear_clock(at, control.clock.now()).await;
                    self.engine_up = engine_up;
                    if !self.has_heard(generation).await {
                        return false;
                    }
                }
                // It lost its place: once more from the start.
                FromAgent::Hello(_) => {
                    if !self.assign_all().await {
                        return false;
                    }
                }
            }
        }
        self.engine_is(self.engine_up).await;
        if !news.is_empty() {
            let mine = self.instance.id.clone();
            let mut news: Vec<TaskReport> = news.into_values().collect();
            news.iter_mut().for_each(|report| self.clock.report(report));
            let result = control
                .store
                .update(format!("report of {mine}"), move |tx| {
                    reports::apply_reports(tx, &mine, &news);
                    Ok::<_, store::Error>(())
                })
                .await;
            if let Err(error) = result {
                // The agent tells everything again when it reconnects.
                tracing::error!(%error, "reports could not be stored; the agent is asked to say them again");
                return false;
            }
        }
        lines.iter_mut().for_each(|batch| self.clock.lines(batch));
        lines.is_empty() || self.store_lines(lines).await
    }

    /// What was told before an earlier heartbeat of the agent's and is not known to it at this one was lost: it is told everything.
    /// False: the agent is gone.
    async fn has_heard(&mut self, generation: Option<u64>) -> bool {
        let now = Instant::now();
        let Some((told, _)) = self.told.filter(|(_, at)| now.duration_since(*at) >= UNDER_WAY) else { return true };
        let lost = generation.unwrap_or(0) < told;
        self.told = Some((self.generation, now));
        if lost {
            observe::session_resynced();
            tracing::debug!(instance = %self.instance.id, "an agent did not hear what it is to run; it is told again");
        }
        !lost || self.assign_all().await
    }

    fn usage(&mut self, mut batch: UsageBatch) {
        if self.passes.take(1, Instant::now()).is_some() {
            self.passes.left += 1.0;
            return observe::usage_passes_dropped();
        }
        self.clock.usage(&mut batch);
        let control = &self.hub.control;
        let state = control.store.snapshot();
        let capacity = state.capacity(&self.instance.cluster);
        let at_most = |all: u64| u32::try_from(all).unwrap_or(u32::MAX);
        let capacity = (at_most(capacity.cpu), at_most(capacity.memory));
        if capacity != self.capacity {
            self.capacity = capacity;
            self.facts.clear();
        }
        let facts = &mut self.facts;
        let mut lookup = |id: &str| {
            if let Some(known) = facts.get(id) {
                return Some(known.clone());
            }
            let task = state.tasks.get(id).filter(|t| !t.is_stopped() && t.instance == self.instance.id)?;
            let found = Arc::new(TaskFacts {
                cluster: task.cluster.clone(),
                service: task.service.clone(),
                family: task.definition.family.clone(),
                cpu_reserved: task.reserved.cpu,
                memory_reserved_mib: task.reserved.memory,
                cluster_cpu_registered: capacity.0,
                cluster_memory_registered: capacity.1,
            });
            facts.insert(id.into(), found.clone());
            Some(found)
        };
        control.ingest.usage(&self.instance.id, &batch, &mut lookup);
    }

    /// Says once that the agent's clock differs from ours, or agrees again: in our log and in the ledger.
    async fn hear_clock(&mut self, at: Timestamp, now: Timestamp) {
        let turn = self.clock.hear(at, now);
        self.hearing.skewed(self.clock.ahead());
        let (instance, host) = (self.instance.id.clone(), self.instance.host_name.clone());
        let (action, sentence, ahead) = match turn {
            None => return,
            Some(Turn::Differs(ahead)) => {
                let (by, way) = (ahead.abs() as f64 / 1e3, if ahead > 0 { "ahead of" } else { "behind" });
                let sentence = format!(
                    "the clock of host {host} is {by:.1} s {way} the server's: its times are translated to the server's, so that metrics \
                     and logs stand where they belong; set both clocks by NTP"
                );
                tracing::warn!(%instance, ahead_ms = ahead, "{sentence}");
                ("clock differs", sentence, ahead)
            }
            Some(Turn::Agrees) => {
                let sentence = format!("the clock of host {host} agrees with the server's again");
                tracing::info!(%instance, "{sentence}");
                ("clock agrees", sentence, self.clock.ahead())
            }
        };
        let reason = Reason::new(ReasonCode::ClockDiffers, sentence).with("ahead_ms", ahead);
        let stored = self.hub.control.store.update(format!("clock of {instance}"), move |tx| {
            let subject = Subject::Instance(instance);
            tx.decide(Decision { at: tx.now, subject, action: action.to_owned(), reason, trace: None });
            Ok::<_, store::Error>(())
        });
        if let Err(error) = stored.await {
            tracing::warn!(%error, "that a clock differs could not be written into the ledger");
        }
    }

    /// Docker went away from the agent, or came back: everybody may see it, and the ledger keeps it.
    async fn engine_is(&mut self, up: bool) {
        if self.instance.engine_away_since.is_none() == up {
            return;
        }
        let id = self.instance.id.clone();
        let stored = self
            .hub
            .control
            .store
            .update(format!("docker of {id}"), move |tx| {
                let Some(instance) = tx.state().instances.get(&id).cloned() else { return Ok(None) };
                let since = (!up).then_some(tx.now);
                tx.put(Instance { engine_away_since: since, version: instance.version + 1, ..(*instance).clone() });
                let (action, sentence) = match up {
                    true => (
                        "docker is back",
                        "the agent reaches its Docker again and has compared what runs with what should".to_owned(),
                    ),
                    false => (
                        "docker is away",
                        "the agent cannot reach its Docker: what runs there is taken to run on, its health is unknown".to_owned(),
                    ),
                };
                let reason = Reason::new(ReasonCode::EngineAway, sentence).with("up", up);
                let subject = Subject::Instance(id);
                tx.decide(Decision { at: tx.now, subject, action: action.to_owned(), reason, trace: None });
                Ok::<_, store::Error>(Some(since))
            })
            .await;
        match stored {
            Ok(Some(since)) => self.instance.engine_away_since = since,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "that Docker went away or came back could not be stored; it is tried again")
            }
        }
    }

    async fn store_lines(&mut self, batches: Vec<LineBatch>) -> bool {
        let logs = self.hub.control.logs.clone();
        let results = match crate::telemetry::logs::aside(move || logs.ingest(batches)).await {
            Ok(results) => results,
            Err(error) => {
                tracing::error!(%error, "lines could not be stored");
                return false;
            }
        };
        let (mut stored, mut refused) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                IngestResult::Stored { resume, events, bytes } => {
                    if events > 0 {
                        let service = self.service_of(&resume.source);
                        observe::log_stored(
                            self.instance.cluster.as_str(),
                            service.as_ref().map_or("", |s| s.as_str()),
                            events,
                            bytes,
                        );
                    }
                    stored.push(resume);
                }
                IngestResult::Refused { source, why, wait } => refused.push(ToAgent::LinesRefused { source, why, wait }),
            }
        }
        for message in refused {
            if !self.send(message).await {
                return false;
            }
        }
        stored.is_empty() || self.send(ToAgent::LinesStored(stored)).await
    }

    /// Whose lines come from this container; none for a task of no service, and for one that is known no more.
    fn service_of(&mut self, source: &str) -> Option<ServiceName> {
        if let Some(known) = self.sources.get(source) {
            return known.clone();
        }
        let state = self.hub.control.store.snapshot();
        let wanted = HexText::from(source);
        let of_source = |task: &&Arc<Task>| task.containers.iter().any(|c| c.runtime_id.as_ref() == Some(&wanted));
        let task = state.tasks_of_instance(&self.instance.id).find(of_source)?;
        if self.sources.len() >= SOURCES_KNOWN {
            self.sources.clear();
        }
        self.sources.insert(source.to_owned(), task.service.clone());
        task.service.clone()
    }
}

/// What an agent must know to run the task; None when its definition cannot be had, which registration rules out.
fn assignment(state: &State, task: &Task) -> Option<Assignment> {
    let definition = state.definitions.get(&task.definition)?;
    Some(Assignment {
        task: task.id.clone(),
        cluster: task.cluster.clone(),
        service: task.service.clone(),
        group: task.group.clone(),
        definition: task.definition.clone(),
        network_mode: definition.network_mode,
        cpu: definition.cpu,
        memory: definition.memory,
        containers: definition::effective_containers(definition, &task.overrides).ok()?,
        container_uuids: task.containers.iter().map(|c| c.uuid.to_string()).collect(),
        volumes: definition.volumes.clone(),
        pid_mode: definition.pid_mode.clone(),
        ipc_mode: definition.ipc_mode.clone(),
        run: !task.is_stopping(),
        trace: task.trace.clone(),
    })
}
