//! The agent itself: says Hello, adopts what runs, gives every assigned task a runner, and carries reports, usage and lines to the
//! control plane. Nothing is stopped because the link is down; nothing counts as dead because the engine is away.
//!
//! One loop owns everything here and never waits for any one thing: runners never block, and a full link only means that less is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::adopt;
use super::calls::{Tools, until_reached};
use super::config::AgentConfig;
use super::engine::{Engine, EngineError, EngineEvent, EngineInfo, Observed, ObservedState, Streams};
use super::lanes::Lanes;
use super::link::{HEARTBEAT, Link};
use super::outbox::Outbox;
use super::spec::Surroundings;
use super::task::{self, Death, Input, Reports};
use crate::clock::SharedClock;
use crate::model::link::{Assignment, FromAgent, Hello, LINK_NEWEST, LINK_OLDEST, TaskReport, ToAgent, UsageBatch};
use crate::model::log::ResumePoint;
use crate::model::{InstanceId, TaskId, Timestamp};

/// Reports in one message.
const REPORTS_AT_ONCE: usize = 256;
/// Inputs waiting for one runner, which takes them as they come.
const INPUTS: usize = 64;
/// Passes of usage that wait for a slow link; the oldest goes first.
const PASSES: usize = 8;
/// Every state is told again this often. It costs the control plane a comparison and no commit.
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// Between a list that failed and the next.
const LIST_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("refused by the control plane: {0}")]
    Refused(String),
    #[error("the control plane's end of the link is gone")]
    LinkGone,
    #[error("the engine's streams ended")]
    EngineGone,
}

/// Runs until `shutdown` (Ok) or until going on makes no sense. Containers are left as they are.
pub async fn run<E: Engine>(
    engine: Arc<E>,
    link: Link,
    clock: SharedClock,
    config: AgentConfig,
    shutdown: CancellationToken,
) -> Result<(), Ended> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        ended = serve(engine, link, clock, config) => Err(ended),
    }
}

async fn serve<E: Engine>(engine: Arc<E>, link: Link, clock: SharedClock, config: AgentConfig) -> Ended {
    let Link { to, mut from, mut connection } = link;
    let Streams { mut events, mut usage, mut lines } = engine.streams();
    let info = match until_reached(|| engine.info()).await {
        Ok(info) => info,
        Err(error) => {
            tracing::error!(%error, "the engine does not say what it is");
            return Ended::EngineGone;
        }
    };
    let mut hub = Hub::new(engine, clock, config, info);
    hub.connected(*connection.borrow_and_update());
    loop {
        let now = hub.tools.clock.now();
        let sending = hub.has_message(now);
        let retry = hub.outbox.wake_at().map_or(HEARTBEAT, |at| Duration::from_millis(at.since(now).max(1).unsigned_abs()));
        tokio::select! {
            biased;
            changed = connection.changed() => {
                if changed.is_err() {
                    return Ended::LinkGone;
                }
                // What the last connection said is no answer to the next one's Hello.
                while from.try_recv().is_ok() {}
                hub.connected(*connection.borrow_and_update());
            }
            message = from.recv() => match message {
                Some(ToAgent::Refused { why }) => return Ended::Refused(why),
                Some(message) => hub.hear(message).await,
                None => return Ended::LinkGone,
            },
            // Until adoption, events wait where they are: the list that it starts from is older than they.
            event = events.recv(), if hub.adopted => match event {
                Some(event) => hub.observe(event).await,
                None => return Ended::EngineGone,
            },
            Some(answer) = hub.asking.join_next() => hub.answered(answer.unwrap_or(Answer::None)).await,
            Some(ended) = hub.running.join_next() => hub.runner_ended(ended.ok()),
            () = hub.reports.some.notified() => hub.collect(),
            permit = to.reserve(), if sending => match permit {
                Ok(permit) => {
                    if let Some(message) = hub.next_message(now).await {
                        permit.send(message);
                    }
                }
                Err(_) => return Ended::LinkGone,
            },
            Some(batch) = usage.recv() => {
                hub.measured(batch);
            }
            Some(batch) = lines.recv(), if hub.outbox.has_room() => {
                hub.outbox.add(batch);
                hub.config.counters.lines_lost.store(hub.outbox.lost, Ordering::Relaxed);
            }
            () = tokio::time::sleep_until(hub.beaten + HEARTBEAT), if hub.welcomed => {
                hub.beaten = Instant::now();
                hub.tell_again();
                // A full link is no silence.
                let _ = to.try_send(hub.heartbeat(now));
            }
            () = tokio::time::sleep(retry) => {}
        }
    }
}

struct Hub<E> {
    tools: Arc<Tools<E>>,
    reports: Arc<Reports>,
    config: AgentConfig,
    info: EngineInfo,
    instance: Option<InstanceId>,

    /// Hello is to be said on this connection.
    hello_due: bool,
    /// This connection's Hello was answered.
    welcomed: bool,
    /// Of the last Assign or Update of this connection.
    generation: Option<u64>,

    adopted: bool,
    assigned: BTreeMap<TaskId, Arc<Assignment>>,
    runners: BTreeMap<TaskId, mpsc::Sender<Input>>,
    running: JoinSet<TaskId>,
    /// The newest report of each assigned task, kept until the control plane forgets the task: a finished task that is assigned
    /// once more, because its last report was lost, is reported again and not run again.
    latest: BTreeMap<TaskId, TaskReport>,
    unsent: BTreeSet<TaskId>,
    usage: VecDeque<UsageBatch>,
    outbox: Outbox,
    /// Lines go before usage the next time, and the other way round, so that neither waits for the other's end.
    lines_turn: bool,
    /// The last heartbeat.
    beaten: Instant,
    /// When every state was last told, or was due to be.
    told_all: Instant,

    engine_up: bool,
    /// What this connection was told of the engine last.
    told_up: Option<bool>,
    /// Questions to the engine that are under way.
    asking: JoinSet<Answer>,
    listing: bool,
    /// A list asked for while one was under way, which may be too old.
    list_again: bool,
    confirming: bool,
    /// Deaths whose meaning waits for a word from the engine, and those that came while it was asked.
    doubtful: Vec<(TaskId, Death)>,
    held: Vec<(TaskId, Death)>,
}

enum Answer {
    /// With the moment of the question.
    Listed(Result<(Instant, Vec<Observed>), EngineError>),
    /// The engine is there, so what died before was not killed by its going away.
    Confirmed(Result<EngineInfo, EngineError>),
    /// The question itself broke off.
    None,
}

impl<E: Engine> Hub<E> {
    fn new(engine: Arc<E>, clock: SharedClock, config: AgentConfig, info: EngineInfo) -> Hub<E> {
        let surroundings = Surroundings { region: String::new(), otlp_endpoint: config.otlp_endpoint.clone() };
        Hub {
            tools: Arc::new(Tools { engine, clock, lanes: Lanes::default(), surroundings: Mutex::new(surroundings) }),
            reports: Arc::default(),
            instance: config.instance.clone(),
            config,
            info,
            hello_due: false,
            welcomed: false,
            generation: None,
            adopted: false,
            assigned: BTreeMap::new(),
            runners: BTreeMap::new(),
            running: JoinSet::new(),
            latest: BTreeMap::new(),
            unsent: BTreeSet::new(),
            usage: VecDeque::new(),
            outbox: Outbox::default(),
            lines_turn: false,
            beaten: Instant::now(),
            told_all: Instant::now(),
            engine_up: true,
            told_up: None,
            asking: JoinSet::new(),
            listing: false,
            list_again: false,
            confirming: false,
            doubtful: vec![],
            held: vec![],
        }
    }

    fn connected(&mut self, number: u64) {
        self.hello_due = number > 0;
        self.welcomed = false;
        self.told_up = None;
        self.generation = None;
        self.drop_usage(0);
        self.outbox.reconnected();
        self.unsent = self.latest.keys().cloned().collect();
        self.told_all = Instant::now();
    }

    fn heartbeat(&self, now: Timestamp) -> FromAgent {
        FromAgent::Heartbeat { at: now, engine_up: self.engine_up, generation: self.generation }
    }

    /// A report that was lost on its way is said once more: what stands is told from time to time though nothing has changed.
    fn tell_again(&mut self) {
        if self.told_all.elapsed() >= TELL_AGAIN {
            self.told_all = Instant::now();
            self.unsent.extend(self.latest.keys().cloned());
        }
    }

    async fn hear(&mut self, message: ToAgent) {
        match message {
            ToAgent::Welcome { instance, region, cluster, .. } => {
                tracing::info!(%instance, %cluster, "registered as a container instance");
                self.welcomed = true;
                self.tools.surroundings.lock().unwrap_or_else(PoisonError::into_inner).region = region;
                if let Some(told) = &self.config.welcomed {
                    told.send_replace(Some(instance.clone()));
                }
                self.instance = Some(instance);
            }
            ToAgent::Assign { generation, tasks, resume } => self.assign(generation, tasks, resume).await,
            ToAgent::Update { generation, put, forget } => self.update(generation, put, forget).await,
            ToAgent::LinesStored(points) => {
                self.outbox.stored(&points);
                self.tools.engine.lines_stored(&points);
            }
            ToAgent::LinesRefused { source, why, wait } => {
                if self.outbox.refused(&source, wait, self.tools.clock.now()) {
                    tracing::warn!(source, why, "lines were not stored; they are sent again until they are");
                }
            }
            // Dealt with by the loop.
            ToAgent::Refused { .. } => {}
        }
    }

    async fn assign(&mut self, generation: u64, tasks: Vec<Arc<Assignment>>, resume: Vec<ResumePoint>) {
        if self.generation.is_some_and(|known| generation < known) {
            return;
        }
        self.generation = Some(generation);
        let named: BTreeSet<TaskId> = tasks.iter().map(|t| t.task.clone()).collect();
        let gone: Vec<TaskId> = self.assigned.keys().filter(|t| !named.contains(*t)).cloned().collect();
        self.forget(gone).await;
        if !self.adopted && !self.listing {
            self.tools.engine.resume_lines(resume);
            self.list();
        }
        for task in tasks {
            self.put(task).await;
        }
    }

    async fn update(&mut self, generation: u64, put: Vec<Arc<Assignment>>, forget: Vec<TaskId>) {
        // Before the Assign that answers Hello there is nothing that an update could be of.
        let Some(known) = self.generation else { return };
        if generation <= known {
            return;
        }
        if generation != known + 1 {
            // One is missing: ask for everything anew.
            self.generation = None;
            self.hello_due = true;
            return;
        }
        self.generation = Some(generation);
        for task in put {
            self.put(task).await;
        }
        self.forget(forget).await;
    }

    async fn put(&mut self, task: Arc<Assignment>) {
        let id = task.task.clone();
        self.assigned.insert(id.clone(), task.clone());
        if !self.adopted {
            return;
        }
        if self.latest.get(&id).is_some_and(|report| report.finished) {
            self.unsent.insert(id.clone());
        } else if !self.runners.contains_key(&id) {
            self.spawn(task, vec![]);
            return;
        }
        self.tell(&id, Input::Assign(task)).await;
    }

    async fn forget(&mut self, tasks: Vec<TaskId>) {
        for id in tasks {
            self.assigned.remove(&id);
            self.latest.remove(&id);
            self.unsent.remove(&id);
            self.tell(&id, Input::Forget).await;
        }
    }

    async fn tell(&self, task: &TaskId, input: Input) {
        if let Some(runner) = self.runners.get(task) {
            // Gone: it had nothing left to do.
            let _ = runner.send(input).await;
        }
    }

    fn spawn(&mut self, task: Arc<Assignment>, observed: Vec<Observed>) {
        let (inputs, taken) = mpsc::channel(INPUTS);
        self.runners.insert(task.task.clone(), inputs);
        self.running.spawn(task::run(self.tools.clone(), self.reports.clone(), task, observed, taken));
    }

    fn runner_ended(&mut self, task: Option<TaskId>) {
        // A runner that panicked is known by its closed channel.
        let ended: Vec<TaskId> = match task {
            Some(task) => vec![task],
            None => self.runners.iter().filter(|(_, r)| r.is_closed()).map(|(t, _)| t.clone()).collect(),
        };
        self.collect();
        for task in ended {
            self.runners.remove(&task);
            let finished = self.latest.get(&task).is_some_and(|report| report.finished);
            if self.assigned.contains_key(&task) && !finished {
                tracing::error!(%task, "its runner ended before the task did; what is there of it will be adopted");
                self.list_after(LIST_AGAIN);
            }
        }
    }

    fn list(&mut self) {
        self.list_after(Duration::ZERO);
    }

    fn list_after(&mut self, wait: Duration) {
        if self.listing {
            self.list_again = true;
            return;
        }
        self.listing = true;
        let tools = self.tools.clone();
        self.asking.spawn(async move {
            tokio::time::sleep(wait).await;
            let ask = async || {
                let asked_at = Instant::now();
                tools.engine.list().await.map(|all| (asked_at, all))
            };
            Answer::Listed(until_reached(ask).await)
        });
    }

    async fn observe(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Died { runtime_id, task, container, exit_code, oom_killed, at } => {
                self.held.push((task, Death { runtime_id, container, exit_code, oom_killed, at }));
                self.confirm();
            }
            EngineEvent::Health { runtime_id, task, health, .. } => {
                self.tell(&task, Input::Health { runtime_id, health }).await;
            }
            EngineEvent::Away { why } => {
                tracing::warn!(why, "the engine is away; what runs is taken to run on");
                self.engine_up = false;
            }
            EngineEvent::Back => self.list(),
        }
    }

    /// A daemon that is told to end kills its containers while its event stream still speaks: such deaths are not the containers'
    /// own. One cheap question after the deaths, for all of them together, tells the two apart.
    fn confirm(&mut self) {
        if !self.engine_up || self.confirming || self.held.is_empty() {
            return;
        }
        self.confirming = true;
        self.doubtful.append(&mut self.held);
        let engine = self.tools.engine.clone();
        self.asking.spawn(async move { Answer::Confirmed(engine.info().await) });
    }

    async fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Confirmed(result) => {
                self.confirming = false;
                match result {
                    Err(error) if error.unreachable => {
                        self.engine_up = false;
                        self.list();
                    }
                    // Said to be away meanwhile: the list after its return decides.
                    _ if !self.engine_up => {}
                    answer => {
                        if let Ok(info) = answer {
                            self.info = info;
                        }
                        let confirmed = std::mem::take(&mut self.doubtful);
                        self.bury(confirmed).await;
                        self.confirm();
                    }
                }
            }
            Answer::Listed(result) => {
                self.listing = false;
                if std::mem::take(&mut self.list_again) && self.adopted {
                    return self.list();
                }
                match result {
                    Ok((asked_at, observed)) => self.listed(asked_at, observed).await,
                    Err(error) => {
                        tracing::error!(%error, "the engine does not list its containers; asking again");
                        self.list_after(LIST_AGAIN);
                    }
                }
            }
            Answer::None => {
                self.listing = false;
                self.confirming = false;
                self.list_after(LIST_AGAIN);
            }
        }
    }

    async fn bury(&mut self, deaths: Vec<(TaskId, Death)>) {
        for (task, death) in deaths {
            self.tell(&task, Input::Died(death)).await;
        }
    }

    /// Adopts what has no runner, and lets every runner compare.
    async fn listed(&mut self, asked_at: Instant, observed: Vec<Observed>) {
        self.adopted = true;
        self.engine_up = true;
        let mut deaths = std::mem::take(&mut self.doubtful);
        deaths.append(&mut self.held);
        // Those of a process before the one that runs now are history.
        deaths.retain(|(_, death)| {
            let now = observed.iter().find(|o| o.runtime_id == death.runtime_id && o.state == ObservedState::Running);
            now.and_then(|o| o.started_at).is_none_or(|started| started <= death.at)
        });
        // Pauses that wait for a task are the engine's own.
        let mut by_task = adopt::by_task(observed.into_iter().filter(|o| !o.task.as_str().is_empty()).collect());
        for id in self.runners.keys().cloned().collect::<Vec<_>>() {
            let containers = by_task.remove(&id).unwrap_or_default();
            self.tell(&id, Input::Observed { asked_at, containers }).await;
        }
        let assigned: Vec<Arc<Assignment>> = self.assigned.values().cloned().collect();
        for task in assigned {
            let finished = self.latest.get(&task.task).is_some_and(|report| report.finished);
            let of_task = by_task.remove(&task.task).unwrap_or_default();
            if !self.runners.contains_key(&task.task) && !finished {
                self.spawn(task, of_task);
            }
        }
        for (id, of_task) in by_task {
            tracing::warn!(task = %id, containers = of_task.len(), "nobody assigned this task; it is stopped and removed");
            let task = Arc::new(adopt::stranger(&id, &of_task));
            self.spawn(task, of_task);
            self.tell(&id, Input::Forget).await;
        }
        self.bury(deaths).await;
    }

    fn collect(&mut self) {
        for (id, report) in self.reports.take() {
            if self.assigned.contains_key(&id) {
                self.unsent.insert(id.clone());
                self.latest.insert(id, report);
            }
        }
    }

    /// A pass of usage describes its own second, whenever it arrives; but only a connection that is there takes any.
    fn measured(&mut self, batch: UsageBatch) {
        self.usage.push_back(batch);
        self.drop_usage(if self.welcomed { PASSES } else { 0 });
    }

    fn drop_usage(&mut self, most: usize) {
        let surplus = self.usage.len().saturating_sub(most);
        self.usage.drain(..surplus);
        self.config.counters.usage_dropped.fetch_add(surplus as u64, Ordering::Relaxed);
    }

    fn has_message(&self, now: Timestamp) -> bool {
        let news = || self.told_up != Some(self.engine_up) || !self.unsent.is_empty() || !self.usage.is_empty();
        self.hello_due || (self.welcomed && (news() || self.outbox.is_due(now)))
    }

    async fn next_message(&mut self, now: Timestamp) -> Option<FromAgent> {
        if std::mem::take(&mut self.hello_due) {
            return Some(FromAgent::Hello(Box::new(self.hello(now))));
        }
        if self.told_up != Some(self.engine_up) {
            self.told_up = Some(self.engine_up);
            return Some(self.heartbeat(now));
        }
        if self.unsent.is_empty() {
            self.lines_turn = !self.lines_turn;
            let lines_first = self.lines_turn.then(|| self.outbox.take(now)).flatten().map(FromAgent::Lines);
            let usage = || self.usage.pop_front().map(FromAgent::Usage);
            return lines_first.or_else(usage).or_else(|| self.outbox.take(now).map(FromAgent::Lines));
        }
        let mut reports = vec![];
        while reports.len() < REPORTS_AT_ONCE
            && let Some(id) = self.unsent.pop_first()
        {
            if let Some(report) = self.latest.get(&id) {
                reports.push(report.clone());
            }
        }
        for report in reports.iter().filter(|r| r.finished) {
            self.tell(&report.task, Input::Reported).await;
        }
        Some(FromAgent::Status(reports))
    }

    fn hello(&self, now: Timestamp) -> Hello {
        let mut attributes = self.info.attributes.clone();
        attributes.extend(self.config.attributes.clone());
        if let Some(zone) = &self.config.zone {
            attributes.insert("ecs.availability-zone".into(), Some(zone.clone()));
        }
        Hello {
            link_version: LINK_OLDEST,
            link_newest: LINK_NEWEST,
            process: self.config.process.clone(),
            instance: self.instance.clone(),
            cluster: self.config.cluster.clone(),
            agent_version: self.config.agent_version.clone(),
            docker_version: self.info.version.clone(),
            host_name: self.info.host_name.clone(),
            host_address: self.info.host_address.clone(),
            registered: self.info.resources.clone(),
            reserved_tcp_ports: self.config.reserved_tcp_ports.clone(),
            attributes,
            at: now,
        }
    }
}
