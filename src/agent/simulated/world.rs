//! What happens inside the simulated engine: its containers, what is due when, and what was caused but not yet taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::behaviour::Behaviour;
use crate::agent::engine::{EngineEvent, Observed, ObservedState, RuntimeId, Started};
use crate::decide::container::PAUSE;
use crate::model::definition::PortMapping;
use crate::model::link::{NetworkTotals, UsageBatch, UsageSample};
use crate::model::log::{LineBatch, LogEvent, LogTarget, ResumePoint};
use crate::model::task::{Binding, Health};
use crate::model::{Millis, TaskId, Timestamp};

const SECOND: Millis = 1_000;
const LINES_IN_BATCH: usize = 500;

pub enum Due {
    /// `run` is the start that it belongs to: a later one is not touched by it.
    Exit {
        id: RuntimeId,
        run: u32,
        code: i32,
        oom: bool,
    },
    Health {
        id: RuntimeId,
        run: u32,
        health: Health,
    },
    Call(oneshot::Sender<()>),
}

pub struct Simulated {
    pub observed: Observed,
    pub behaviour: Behaviour,
    pub has_health_check: bool,
    pub ports: Vec<PortMapping>,
    /// The pause whose address it shares.
    pub address_of: Option<RuntimeId>,
    pub target: Option<LogTarget>,
    run: u32,
    cpu_total_ns: u64,
    sampled_at: Option<Timestamp>,
    /// Lines that are not known to be durable; the first one's number is `log_base`.
    log: VecDeque<LogEvent>,
    log_base: u64,
    read: u64,
    ended: Vec<oneshot::Sender<()>>,
}

impl Simulated {
    pub fn new(id: &str, task: &TaskId, container: &str, behaviour: Behaviour) -> Simulated {
        let observed = Observed {
            runtime_id: id.to_owned(),
            task: task.clone(),
            container: container.into(),
            container_uuid: String::new(),
            state: ObservedState::Created,
            started_at: None,
            finished_at: None,
            exit_code: None,
            oom_killed: false,
            health: Health::Unknown,
            bindings: vec![],
            address: None,
            network: None,
            image_digest: None,
        };
        Simulated {
            observed,
            behaviour,
            has_health_check: false,
            ports: vec![],
            address_of: None,
            target: None,
            run: 0,
            cpu_total_ns: 0,
            sampled_at: None,
            log: VecDeque::new(),
            log_base: 0,
            read: 0,
            ended: vec![],
        }
    }

    pub fn unread(&self) -> bool {
        self.target.is_some() && self.read < self.log_base + self.log.len() as u64
    }
}

struct Listeners {
    events: mpsc::Sender<EngineEvent>,
    usage: mpsc::Sender<UsageBatch>,
    lines: mpsc::Sender<LineBatch>,
}

pub type Load = Box<dyn Fn(&TaskId, &str, Timestamp) -> Option<f64> + Send>;

pub struct World {
    pub containers: BTreeMap<RuntimeId, Simulated>,
    pub cleaned: BTreeSet<TaskId>,
    pub away: bool,
    pub cpu: BTreeMap<TaskId, f64>,
    pub memory: BTreeMap<TaskId, u64>,
    pub load: Option<Load>,
    pub starts: BTreeMap<(TaskId, String), u32>,
    pub start_order: Vec<String>,
    pub stop_order: Vec<String>,
    pub starting: usize,
    pub most_starting: usize,
    pub list_ms: Millis,
    due: BTreeMap<(Timestamp, u64), Due>,
    events: VecDeque<EngineEvent>,
    listeners: Option<Listeners>,
    /// Lines are read only after it was said from where.
    reading: bool,
    sampled_at: Timestamp,
    counter: u64,
}

impl World {
    pub fn at(now: Timestamp) -> World {
        World {
            containers: BTreeMap::new(),
            cleaned: BTreeSet::new(),
            away: false,
            cpu: BTreeMap::new(),
            memory: BTreeMap::new(),
            load: None,
            starts: BTreeMap::new(),
            start_order: vec![],
            stop_order: vec![],
            starting: 0,
            most_starting: 0,
            list_ms: 0,
            due: BTreeMap::new(),
            events: VecDeque::new(),
            listeners: None,
            reading: false,
            sampled_at: now.floor(SECOND),
            counter: 0,
        }
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub fn next_id(&mut self) -> RuntimeId {
        format!("{:064x}", self.count())
    }

    pub fn next_address(&mut self) -> String {
        let n = self.count();
        format!("10.77.{}.{}", n / 250 % 250, n % 250 + 2)
    }

    pub fn schedule(&mut self, at: Timestamp, due: Due) {
        let order = self.count();
        self.due.insert((at, order), due);
    }

    pub fn serve(&mut self, events: mpsc::Sender<EngineEvent>, usage: mpsc::Sender<UsageBatch>, lines: mpsc::Sender<LineBatch>) {
        self.listeners = Some(Listeners { events, usage, lines });
        self.events.clear();
        self.reading = false;
        for container in self.containers.values_mut() {
            container.read = container.log_base;
        }
    }

    pub fn shift(&mut self, ms: Millis) {
        self.due = std::mem::take(&mut self.due).into_iter().map(|((at, order), due)| ((at + ms, order), due)).collect();
        self.sampled_at = (self.sampled_at + ms).floor(SECOND);
        for container in self.containers.values_mut() {
            container.sampled_at = container.sampled_at.map(|at| at + ms);
        }
    }

    pub fn advance(&mut self, now: Timestamp) {
        loop {
            let sample_at = self.sampled_at + SECOND;
            let next = self.due.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= now);
            match next {
                Some(at) if at < sample_at || sample_at > now => {
                    if let Some((_, due)) = self.due.pop_first() {
                        self.happen(due, at);
                    }
                }
                _ if sample_at <= now => self.second(sample_at),
                _ => break,
            }
        }
        self.hand_on();
    }

    fn happen(&mut self, due: Due, at: Timestamp) {
        match due {
            Due::Exit { id, run, code, oom } if self.runs(&id, run) => self.exit(&id, code, oom, at),
            Due::Health { id, run, health } if self.runs(&id, run) => {
                let Some(container) = self.containers.get_mut(&id) else { return };
                container.observed.health = health;
                let (task, name) = (container.observed.task.clone(), container.observed.container.clone());
                if !self.away {
                    self.emit(EngineEvent::Health { runtime_id: id, task, container: name, health });
                }
            }
            Due::Call(done) => {
                let _ = done.send(());
            }
            _ => {}
        }
    }

    fn runs(&self, id: &str, run: u32) -> bool {
        self.containers.get(id).is_some_and(|c| c.run == run && c.observed.state == ObservedState::Running)
    }

    pub fn running(&self) -> Vec<RuntimeId> {
        let running = self.containers.iter().filter(|(_, c)| c.observed.state == ObservedState::Running);
        running.map(|(id, _)| id.clone()).collect()
    }

    pub fn start(&mut self, id: &str, now: Timestamp) {
        let mut dynamic = vec![];
        let address = self.containers.get(id).and_then(|c| c.address_of.as_ref()).and_then(|p| self.containers.get(p));
        let address = address.and_then(|pause| pause.observed.address.clone());
        let ports = self.containers.get(id).map_or(0, |c| c.ports.len());
        for _ in 0..ports {
            dynamic.push(32_768 + (self.count() % 28_000) as u16);
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        container.run += 1;
        container.sampled_at = None;
        container.cpu_total_ns = 0;
        let observed = &mut container.observed;
        observed.state = ObservedState::Running;
        observed.started_at = Some(now);
        observed.finished_at = None;
        observed.exit_code = None;
        observed.oom_killed = false;
        observed.health = Health::Unknown;
        observed.address = observed.address.take().or(address);
        let bind = |(mapping, dynamic): (&PortMapping, u16)| {
            let port = |p: Option<i32>| p.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
            Binding {
                address: "0.0.0.0".into(),
                container_port: port(mapping.container_port).unwrap_or_default(),
                host_port: port(mapping.host_port).unwrap_or(dynamic),
                protocol: mapping.protocol.as_deref().unwrap_or("tcp").into(),
            }
        };
        observed.bindings = container.ports.iter().zip(dynamic).map(bind).collect();
        let (run, behaviour) = (container.run, container.behaviour.clone());
        let (task, name) = (container.observed.task.clone(), container.observed.container.to_string());
        let has_health_check = container.has_health_check;
        self.start_order.push(format!("{task}/{name}"));
        *self.starts.entry((task, name)).or_default() += 1;
        if let Some((code, after)) = behaviour.exit {
            self.schedule(now + after, Due::Exit { id: id.to_owned(), run, code, oom: behaviour.oom });
        }
        if let Some((health, after)) = behaviour.health.filter(|_| has_health_check) {
            self.schedule(now + after, Due::Health { id: id.to_owned(), run, health });
        }
    }

    pub fn answer_start(&self, id: &str) -> Started {
        let observed = self.containers.get(id).map(|c| &c.observed);
        Started {
            at: observed.and_then(|o| o.started_at).unwrap_or_default(),
            bindings: observed.map(|o| o.bindings.clone()).unwrap_or_default(),
            address: observed.and_then(|o| o.address.clone()),
            network: observed.and_then(|o| o.network.clone()),
        }
    }

    /// None when it does not run; else what is told when it has ended.
    pub fn stop(&mut self, id: &str, grace_ms: Millis, now: Timestamp) -> Option<oneshot::Receiver<()>> {
        let container = self.containers.get_mut(id).filter(|c| c.observed.state == ObservedState::Running)?;
        let (done, ended) = oneshot::channel();
        container.ended.push(done);
        let (run, stubborn) = (container.run, container.behaviour.stubborn);
        let name = format!("{}/{}", container.observed.task, container.observed.container);
        self.stop_order.push(name);
        match (stubborn, grace_ms) {
            (_, 0) => self.exit(id, 137, false, now),
            (true, _) => {
                let kill = Due::Exit { id: id.to_owned(), run, code: 137, oom: false };
                self.schedule(now + grace_ms, kill);
            }
            (false, _) => self.exit(id, 143, false, now),
        }
        Some(ended)
    }

    pub fn exit(&mut self, id: &str, code: i32, oom: bool, at: Timestamp) {
        self.exit_heard(id, code, oom, at, !self.away);
    }

    pub fn exit_heard(&mut self, id: &str, code: i32, oom: bool, at: Timestamp, heard: bool) {
        let running = |c: &&mut Simulated| c.observed.state == ObservedState::Running;
        let Some(container) = self.containers.get_mut(id).filter(running) else { return };
        container.observed.state = ObservedState::Exited;
        container.observed.finished_at = Some(at);
        container.observed.exit_code = Some(code);
        container.observed.oom_killed = oom;
        container.observed.health = Health::Unknown;
        for waiter in container.ended.drain(..) {
            let _ = waiter.send(());
        }
        let (task, name) = (container.observed.task.clone(), container.observed.container.clone());
        if heard {
            self.emit(EngineEvent::Died {
                runtime_id: id.to_owned(),
                task,
                container: name,
                exit_code: Some(code),
                oom_killed: oom,
                at,
            });
        }
    }

    pub fn write(&mut self, id: &str, text: &str, at: Timestamp) {
        if let Some(container) = self.containers.get_mut(id).filter(|c| c.target.is_some()) {
            container.log.push_back(LogEvent { at, message: text.into() });
        }
    }

    /// One pass of sampling, and the lines that are written each second.
    fn second(&mut self, at: Timestamp) {
        self.sampled_at = at;
        let mut samples = vec![];
        for (id, container) in &mut self.containers {
            let observed = &container.observed;
            if observed.state != ObservedState::Running {
                continue;
            }
            let interval_ms = container.sampled_at.map_or(0, |before| at.since(before));
            container.sampled_at = Some(at);
            let set = || self.cpu.get(&observed.task).copied().filter(|_| observed.container.as_str() != PAUSE);
            let loaded = self.load.as_ref().and_then(|load| load(&observed.task, observed.container.as_str(), at));
            let cores = loaded.or_else(set).unwrap_or(container.behaviour.cpu_cores);
            container.cpu_total_ns += (cores * interval_ms as f64 * 1e6) as u64;
            let memory = self.memory.get(&observed.task).copied().unwrap_or(container.behaviour.memory_bytes);
            samples.push(Arc::new(UsageSample {
                task: observed.task.as_str().into(),
                container: observed.container.as_str().into(),
                runtime_id: id.as_str().into(),
                interval_ms,
                cpu_cores: cores,
                cpu_total_ns: container.cpu_total_ns,
                cpu_user_ns: container.cpu_total_ns,
                memory_bytes: memory,
                memory_usage_bytes: memory,
                memory_working_set_bytes: memory,
                memory_rss_bytes: memory,
                processes: 1,
                network: container.address_of.is_none().then(NetworkTotals::default),
                ..UsageSample::default()
            }));
            if container.target.is_some() {
                for _ in 0..container.behaviour.lines_per_second {
                    let number = container.log_base + container.log.len() as u64;
                    container.log.push_back(LogEvent { at, message: format!("{} {number}", observed.container).into() });
                }
            }
        }
        if let Some(listeners) = &self.listeners {
            // Usage that nobody takes is dropped, as the seam says.
            let _ = listeners.usage.try_send(UsageBatch { at, samples, cost_us: 0 });
        }
    }

    pub fn emit(&mut self, event: EngineEvent) {
        if self.listeners.is_some() {
            self.events.push_back(event);
        }
    }

    /// Gives to the listeners as much as they take; the rest waits here.
    pub fn hand_on(&mut self) {
        let Some(listeners) = &self.listeners else { return };
        while let Some(event) = self.events.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = listeners.events.try_send(event) {
                self.events.push_front(event);
                break;
            }
        }
        if !self.reading {
            return;
        }
        for (id, container) in &mut self.containers {
            while container.unread() {
                let Some(target) = container.target.clone() else { break };
                let from = (container.read - container.log_base) as usize;
                let events: Vec<LogEvent> = container.log.iter().skip(from).take(LINES_IN_BATCH).cloned().collect();
                let next = container.read + events.len() as u64;
                let first = container.read;
                let resume = next.to_string();
                let batch = LineBatch { source: id.clone(), target, first, events, lost_before: 0, resume };
                match listeners.lines.try_send(batch) {
                    Ok(()) => container.read = next,
                    Err(_) => break,
                }
            }
        }
    }

    pub fn resume_lines(&mut self, from: &[ResumePoint]) {
        self.lines_stored(from);
        for container in self.containers.values_mut() {
            container.read = container.log_base;
        }
        self.reading = true;
    }

    pub fn lines_stored(&mut self, upto: &[ResumePoint]) {
        for point in upto {
            let Some(container) = self.containers.get_mut(&point.source) else { continue };
            while container.log_base < point.next && container.log.pop_front().is_some() {
                container.log_base += 1;
            }
            container.read = container.read.max(container.log_base);
        }
    }
}
