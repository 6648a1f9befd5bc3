//! Where agents come in: registers them, tells each what to run, takes in what they report. One session per connection; the same
//! code for the agent in this process and for those behind a WebSocket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Control;
use crate::decide::{definition, service as service_rules, task as rules};
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::instance::{Instance, InstanceStatus};
use crate::model::link::{Assignment, FromAgent, Hello, LINK_VERSION, TaskReport, ToAgent, UsageBatch};
use crate::model::log::LineBatch;
use crate::model::task::{StopCode, Task};
use crate::model::{HexText, InstanceId, ServiceName, TaskId};
use crate::store::{self, Change, Commit, State, Tx};
use crate::telemetry::ingest::TaskFacts;
use crate::telemetry::logs::IngestResult;
use crate::{observe, schedule};

/// Messages taken together into one commit.
const BURST: usize = 256;

/// Containers of which a session remembers whose they are; more are looked up again.
const SOURCES_KNOWN: usize = 10_000;

/// A connection that says nothing is no agent's.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

pub struct Hub {
    control: Arc<Control>,
    /// The newest session of each instance; an older one of the same instance is ended.
    sessions: Mutex<BTreeMap<InstanceId, CancellationToken>>,
    stop: CancellationToken,
}

impl Hub {
    pub fn new(control: Arc<Control>, stop: CancellationToken) -> Arc<Hub> {
        Arc::new(Hub { control, sessions: Mutex::default(), stop })
    }

    /// After a start nobody is connected yet, whatever the state says.
    pub async fn forget_connections(&self) -> Result<(), store::Error> {
        self.control
            .store
            .update("start", |tx| {
                let connected: Vec<Instance> =
                    tx.state().instances.values().filter(|i| i.agent_connected).map(|i| (**i).clone()).collect();
                for instance in connected {
                    tx.put(Instance { agent_connected: false, disconnected_at: Some(tx.now), ..instance });
                }
                Ok(())
            })
            .await
    }

    pub fn connected(&self) -> usize {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// One connection, from Hello to its end.
    pub async fn serve(self: &Arc<Self>, to: mpsc::Sender<ToAgent>, from: &mut mpsc::Receiver<FromAgent>) {
        // No refusal, which would be for good: an agent whose engine does not answer yet has nothing to say of itself.
        let Ok(Some(hello)) = tokio::time::timeout(HELLO_WITHIN, hello(from)).await else {
            return tracing::debug!("a connection is closed on which no Hello came");
        };
        let instance = match self.register(*hello).await {
            Ok(Ok(instance)) => instance,
            Ok(Err(why)) => return drop(to.send(ToAgent::Refused { why }).await),
            // No refusal either: the agent is right, and it tries again until there is room on our disk.
            Err(error) => return tracing::warn!(%error, "an agent could not be registered; it tries again"),
        };
        let (id, over) = (instance.id.clone(), self.stop.child_token());
        if let Some(older) = self.lock().insert(id.clone(), over.clone()) {
            older.cancel();
        }
        tracing::info!(instance = %id, host = %instance.host_name, cluster = %instance.cluster, "container instance connected");
        let mut session =
            Session { hub: self.clone(), instance, to, sent: BTreeMap::new(), generation: 0, sources: BTreeMap::new() };
        session.run(from, &over).await;
        // A newer session of the same instance has taken over: it is still connected.
        if !over.is_cancelled() || self.stop.is_cancelled() {
            self.lock().remove(&id);
            self.disconnected(id).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceId, CancellationToken>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inside: registered, or refused and why.
    async fn register(&self, hello: Hello) -> Result<Result<Instance, String>, store::Error> {
        if hello.link_version != LINK_VERSION {
            return Ok(Err(format!(
                "this server speaks version {LINK_VERSION} of the agents' link and the agent version {}: update the older of the two",
                hello.link_version
            )));
        }
        let skew = hello.at.since(self.control.clock.now());
        if skew.abs() > 60_000 {
            tracing::warn!(host = %hello.host_name, skew_ms = skew, "the agent's clock differs from the server's: set both by NTP");
        }
        let id = hello.instance.clone().unwrap_or_else(|| self.control.ids.instance());
        self.control.store.update(format!("register {id}"), move |tx| Ok(register(tx, id, hello))).await
    }

    async fn disconnected(&self, id: InstanceId) {
        tracing::warn!(instance = %id, "container instance disconnected; its tasks keep running");
        let result = self
            .control
            .store
            .update(format!("disconnect {id}"), move |tx| {
                if let Some(instance) = tx.state().instances.get(&id).filter(|i| i.agent_connected).cloned() {
                    let now = tx.now;
                    tx.put(Instance {
                        agent_connected: false,
                        disconnected_at: Some(now),
                        version: instance.version + 1,
                        ..(*instance).clone()
                    });
                }
                Ok::<_, store::Error>(())
            })
            .await;
        if let Err(error) = result {
            tracing::warn!(%error, "a disconnection could not be stored");
        }
    }
}

/// What an agent still sent into a session that has ended comes before its Hello, and is said again after it.
async fn hello(from: &mut mpsc::Receiver<FromAgent>) -> Option<Box<Hello>> {
    loop {
        if let FromAgent::Hello(hello) = from.recv().await? {
            return Some(hello);
        }
    }
}

fn register(tx: &mut Tx, id: InstanceId, hello: Hello) -> Result<Instance, String> {
    let cluster = hello.cluster;
    if !tx.state().clusters.get(&cluster).is_some_and(|c| c.status == crate::model::cluster::ClusterStatus::Active) {
        return Err(format!("there is no cluster {cluster}: create it first (aws ecs create-cluster --cluster-name {cluster})"));
    }
    let known = tx.state().instances.get(&id).filter(|i| i.status != InstanceStatus::Inactive).cloned();
    if let Some(other) = known.as_ref().filter(|i| i.cluster != cluster) {
        return Err(format!("this agent is registered in cluster {}: start it with --cluster {}", other.cluster, other.cluster));
    }
    let instance = Instance {
        id,
        cluster,
        status: known.as_ref().map_or(InstanceStatus::Active, |i| i.status),
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: hello.registered,
        reserved_tcp_ports: hello.reserved_tcp_ports,
        // What was set through the API stays (ECS: the agent's own attributes apply at the first registration).
        attributes: match &known {
            Some(known) => hello.attributes.into_iter().chain(known.attributes.clone()).collect(),
            None => hello.attributes,
        },
        agent_version: hello.agent_version,
        docker_version: hello.docker_version,
        host_name: hello.host_name,
        host_address: hello.host_address,
        tags: known.as_ref().map(|i| i.tags.clone()).unwrap_or_default(),
        registered_at: known.as_ref().map_or(tx.now, |i| i.registered_at),
        version: known.map_or(1, |i| i.version + 1),
    };
    tx.put(instance.clone());
    Ok(instance)
}

struct Session {
    hub: Arc<Hub>,
    instance: Instance,
    to: mpsc::Sender<ToAgent>,
    /// What the agent was last told of each task: to run, or to end.
    sent: BTreeMap<TaskId, bool>,
    generation: u64,
    /// Containers that write lines, and whose they are.
    sources: BTreeMap<String, Option<ServiceName>>,
}

impl Session {
    async fn run(&mut self, from: &mut mpsc::Receiver<FromAgent>, over: &CancellationToken) {
        let control = self.hub.control.clone();
        let mut watch = control.store.watch();
        let welcome = ToAgent::Welcome {
            instance: self.instance.id.clone(),
            cluster: self.instance.cluster.clone(),
            installation: control.store.installation().to_owned(),
            region: control.home.region.clone(),
            account: control.home.account.clone(),
        };
        control.ingest.heard(&self.instance.id, control.clock.now());
        if self.to.send(welcome).await.is_err() || !self.assign_all().await {
            return;
        }
        let silence = Duration::from_millis(control.settings.agent_silence_ms as u64);
        let mut burst = Vec::with_capacity(BURST);
        // Only the agent's own words count: commits that pass by say nothing of it.
        let mut heard = Instant::now();
        loop {
            let alive = tokio::select! {
                biased;
                () = over.cancelled() => false,
                commit = watch.recv() => match commit {
                    Ok(commit) => self.pass_on(&commit).await,
                    Err(RecvError::Lagged(_)) => self.assign_all().await,
                    Err(RecvError::Closed) => false,
                },
                got = tokio::time::timeout_at(heard + silence, from.recv_many(&mut burst, BURST)) => match got {
                    Ok(0) | Err(_) => false,
                    Ok(_) => {
                        heard = Instant::now();
                        control.ingest.heard(&self.instance.id, control.clock.now());
                        self.take(std::mem::take(&mut burst)).await
                    }
                },
            };
            if !alive {
                return;
            }
        }
    }

    async fn assign_all(&mut self) -> bool {
        let (control, state) = (self.hub.control.clone(), self.hub.control.store.snapshot());
        let (mut tasks, mut sources) = (Vec::new(), Vec::new());
        self.sent.clear();
        for task in state.tasks_of_instance(&self.instance.id).filter(|t| !t.is_stopped()) {
            if let Some(assignment) = assignment(&state, task) {
                self.sent.insert(task.id.clone(), assignment.run);
                tasks.push(Arc::new(assignment));
                sources.extend(task.containers.iter().filter_map(|c| c.runtime_id.as_ref()).map(ToString::to_string));
            }
        }
        self.generation += 1;
        let resume = control.logs.resume_points(&sources);
        self.to.send(ToAgent::Assign { generation: self.generation, tasks, resume }).await.is_ok()
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
                tracing::warn!(%error, "that Docker went away or came back could not be stored; the next heartbeat says it again")
            }
        }
    }

    /// Tells the agent what a commit changes for it.
    async fn pass_on(&mut self, commit: &Commit) -> bool {
        let (mut put, mut forget, mut state) = (Vec::new(), Vec::new(), None);
        for change in &commit.changes {
            match change {
                Change::Task(id, None) if self.sent.remove(id).is_some() => forget.push(id.clone()),
                Change::Task(id, Some(task)) if task.instance == self.instance.id => {
                    if task.is_stopped() {
                        if self.sent.remove(id).is_some() {
                            forget.push(id.clone());
                        }
                    } else if self.sent.get(id) != Some(&!task.is_stopping()) {
                        let state = state.get_or_insert_with(|| self.hub.control.store.snapshot());
                        if let Some(assignment) = assignment(state, task) {
                            self.sent.insert(id.clone(), assignment.run);
                            put.push(Arc::new(assignment));
                        }
                    }
                }
                _ => {}
            }
        }
        if put.is_empty() && forget.is_empty() {
            return true;
        }
        self.generation += 1;
        self.to.send(ToAgent::Update { generation: self.generation, put, forget }).await.is_ok()
    }

    async fn take(&mut self, messages: Vec<FromAgent>) -> bool {
        let control = self.hub.control.clone();
        // Of each task only the newest report counts.
        let (mut reports, mut lines) = (BTreeMap::<TaskId, TaskReport>::new(), Vec::new());
        for message in messages {
            match message {
                FromAgent::Status(news) => reports.extend(news.into_iter().map(|r| (r.task.clone(), r))),
                FromAgent::Usage(batch) => usage(&control, &self.instance.id, &batch),
                FromAgent::Lines(batches) => lines.extend(batches),
                FromAgent::Heartbeat { engine_up, .. } => self.engine_is(engine_up).await,
                // It lost its place: once more from the start.
                FromAgent::Hello(_) => {
                    if !self.assign_all().await {
                        return false;
                    }
                }
            }
        }
        if !reports.is_empty() {
            let mine = self.instance.id.clone();
            let reports: Vec<TaskReport> = reports.into_values().collect();
            let result = control
                .store
                .update(format!("report of {mine}"), move |tx| {
                    apply_reports(tx, &mine, &reports);
                    Ok::<_, store::Error>(())
                })
                .await;
            if let Err(error) = result {
                // The agent tells everything again when it reconnects.
                tracing::error!(%error, "reports could not be stored; the agent is asked to say them again");
                return false;
            }
        }
        lines.is_empty() || self.store_lines(lines).await
    }

    async fn store_lines(&mut self, batches: Vec<LineBatch>) -> bool {
        let logs = self.hub.control.logs.clone();
        let results = match tokio::task::spawn_blocking(move || logs.ingest(batches)).await {
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
            if self.to.send(message).await.is_err() {
                return false;
            }
        }
        stored.is_empty() || self.to.send(ToAgent::LinesStored(stored)).await.is_ok()
    }
}

impl Session {
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

fn apply_reports(tx: &mut Tx, instance: &InstanceId, reports: &[TaskReport]) {
    for report in reports {
        let Some(task) = tx.state().tasks.get(&report.task).filter(|t| t.instance == *instance).cloned() else { continue };
        let Some(definition) = tx.state().definitions.get(&task.definition).cloned() else { continue };
        let Some((new, reasons)) = rules::apply_report(&task, &definition, report, tx.now) else { continue };
        for reason in reasons {
            schedule::remember(tx, &new, new.last_status.as_str(), reason);
        }
        count_for_deployment(tx, &task, &new);
        if new.is_stopped() && !task.is_stopped() {
            observe_stop(&new);
        }
        observe_memory_kills(&task, &new);
        tx.put(new);
    }
}

/// The restart throttle counts tasks that never reached RUNNING, and forgets them when one does.
fn count_for_deployment(tx: &mut Tx, before: &Task, after: &Task) {
    let (Some(key), Some(deployment)) = (after.service_key(), &after.deployment) else { return };
    let started = before.started_at.is_none() && after.started_at.is_some();
    let failed = !before.is_stopped() && after.is_stopped() && rules::never_ran(after);
    let ended_early = !before.is_stopped()
        && after.is_stopped()
        && after.stop_code == Some(StopCode::EssentialContainerExited)
        && after.started_at.is_some_and(|at| tx.now.since(at) < service_rules::EARLY_MS);
    if !started && !failed && !ended_early {
        return;
    }
    let Some(service) = tx.state().services.get(&key) else { return };
    let mut service = (**service).clone();
    let now = tx.now;
    if started {
        service_rules::after_task_started(&mut service, deployment, now);
    }
    if failed {
        service_rules::after_task_failed(&mut service, deployment, now);
    } else if ended_early {
        service_rules::after_task_ended_early(&mut service, deployment, now);
    }
    tx.put(service);
}

fn observe_stop(task: &Task) {
    let code = task.stop_code.map_or("", |c| c.as_str());
    tracing::info!(task = %task.id, code, reason = task.stopped_reason.as_deref().unwrap_or(""), "task stopped");
    observe::task_stopped(&task.cluster, task.service.as_ref(), code);
}

/// When it is told, not when the task ends: a container that is not essential may end long before.
fn observe_memory_kills(before: &Task, after: &Task) {
    let killed =
        |task: &Task, n: usize| task.containers.get(n).is_some_and(|c| c.reason.as_deref() == Some(rules::OUT_OF_MEMORY));
    for (n, container) in after.containers.iter().enumerate() {
        if killed(after, n) && !killed(before, n) {
            observe::container_oom_killed(&after.cluster, after.service.as_ref(), container.name.as_str());
        }
    }
}

fn usage(control: &Control, instance: &InstanceId, batch: &UsageBatch) {
    let state = control.store.snapshot();
    let Some(cluster) = state.instances.get(instance).map(|i| &i.cluster) else { return };
    // An instance belongs to one cluster, and so do its tasks.
    let capacity = state.capacity(cluster);
    let at_most = |all: u64| u32::try_from(all).unwrap_or(u32::MAX);
    let (cpu, memory) = (at_most(capacity.cpu), at_most(capacity.memory));
    control.ingest.usage(batch, &|id| {
        let task = state.tasks.get(id).filter(|t| !t.is_stopped())?;
        Some(TaskFacts {
            cluster: task.cluster.clone(),
            service: task.service.clone(),
            family: task.definition.family.clone(),
            cpu_reserved: task.reserved.cpu,
            memory_reserved_mib: task.reserved.memory,
            cluster_cpu_registered: cpu,
            cluster_memory_registered: memory,
        })
    });
}
