//! A host for the agent's tests: simulated engine, scripted control plane, and time that stands still until everything waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::config::{AgentConfig, Counters};
use crate::agent::link::{FarEnd, pair};
use crate::agent::runtime::{Ended, run};
use crate::agent::simulated::{SimulatedEngine, SimulatedHost};
use crate::clock::ManualClock;
use crate::model::definition::{ContainerDefinition, ContainerDependency, LogConfiguration, NetworkMode};
use crate::model::link::{Assignment, FromAgent, Hello, LINK_NEWEST, Phase, TaskReport, ToAgent, UsageBatch};
use crate::model::log::LineBatch;
use crate::model::{DefinitionKey, TaskId, Timestamp};

pub const STEP_MS: u64 = 20;

pub struct Host {
    pub engine: Arc<SimulatedEngine>,
    pub clock: Arc<ManualClock>,
    pub far: FarEnd,
    pub shutdown: CancellationToken,
    pub agent: JoinHandle<Result<(), Ended>>,
    pub counters: Arc<Counters>,
    pub seen: Seen,
}

#[derive(Default)]
pub struct Seen {
    pub reports: BTreeMap<TaskId, TaskReport>,
    pub history: Vec<TaskReport>,
    pub hellos: Vec<Hello>,
    pub lines: Vec<LineBatch>,
    pub usage: Vec<UsageBatch>,
    pub engine_up: Option<bool>,
    pub generation: Option<u64>,
}

impl Host {
    /// An agent on a fresh host, welcomed but with nothing assigned yet.
    pub async fn new() -> Host {
        let clock = ManualClock::at(Timestamp(1_700_000_000_000));
        let engine = SimulatedEngine::new(SimulatedHost::default(), clock.clone());
        let (driven, moved) = (engine.clone(), clock.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(STEP_MS)).await;
                driven.tick(moved.advance(STEP_MS as i64));
            }
        });
        Host::agent_on(engine, clock).await
    }

    pub async fn agent_on(engine: Arc<SimulatedEngine>, clock: Arc<ManualClock>) -> Host {
        let (link, far) = pair(64);
        let shutdown = CancellationToken::new();
        let config = AgentConfig::new("default");
        let counters = config.counters.clone();
        let agent = tokio::spawn(run(engine.clone(), link, clock.clone(), config, shutdown.clone()));
        let mut host = Host { engine, clock, far, shutdown, agent, counters, seen: Seen::default() };
        host.welcome().await;
        host
    }

    pub async fn welcome(&mut self) {
        let said = self.seen.hellos.len();
        self.until("hello", |seen| seen.hellos.len() > said).await;
        let welcome = ToAgent::Welcome {
            instance: "i".into(),
            cluster: "default".into(),
            installation: "test".into(),
            region: "eu-central-1".into(),
            account: "000000000000".into(),
            link_version: LINK_NEWEST,
        };
        self.say(welcome).await;
    }

    /// The agent process dies and another takes its place; the containers stay.
    pub async fn restart_agent(self) -> Host {
        self.shutdown.cancel();
        assert_eq!(self.agent.await.unwrap(), Ok(()));
        Host::agent_on(self.engine, self.clock).await
    }

    pub async fn say(&self, message: ToAgent) {
        self.far.to.send(message).await.unwrap();
    }

    pub async fn assign(&self, generation: u64, tasks: &[Assignment]) {
        let tasks = tasks.iter().cloned().map(Arc::new).collect();
        self.say(ToAgent::Assign { generation, tasks, resume: vec![] }).await;
    }

    pub async fn put(&self, generation: u64, task: &Assignment) {
        self.say(ToAgent::Update { generation, put: vec![Arc::new(task.clone())], forget: vec![] }).await;
    }

    pub async fn until(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) {
        let waiting = async {
            while !holds(&self.seen) {
                take(&mut self.seen, self.far.from.recv().await.expect("the agent runs"));
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(600), waiting).await.is_ok();
        assert!(in_time, "{what} never came; last reports: {:#?}", self.seen.reports);
    }

    /// Lets time pass and everything be said that is to be said.
    pub async fn pass(&mut self, ms: u64) {
        let end = tokio::time::Instant::now() + Duration::from_millis(ms);
        while let Ok(message) = tokio::time::timeout_at(end, self.far.from.recv()).await {
            take(&mut self.seen, message.expect("the agent runs"));
        }
    }

    pub async fn until_running(&mut self, id: &str) {
        self.until("running", |seen| seen.phases(id).is_some_and(|p| p.iter().all(|p| *p == Phase::Running))).await;
    }

    pub async fn until_finished(&mut self, id: &str) -> TaskReport {
        self.until("finished", |seen| seen.reports.get(id).is_some_and(|r| r.finished)).await;
        self.seen.reports[id].clone()
    }
}

pub fn take(seen: &mut Seen, message: FromAgent) {
    match message {
        FromAgent::Hello(hello) => seen.hellos.push(*hello),
        FromAgent::Status(reports) => {
            for report in reports {
                seen.history.push(report.clone());
                seen.reports.insert(report.task.clone(), report);
            }
        }
        FromAgent::Usage(batch) => seen.usage.push(batch),
        FromAgent::Lines(batches) => seen.lines.extend(batches),
        FromAgent::Heartbeat { engine_up, generation, .. } => {
            (seen.engine_up, seen.generation) = (Some(engine_up), generation);
        }
    }
}

impl Seen {
    pub fn phases(&self, id: &str) -> Option<Vec<Phase>> {
        Some(self.reports.get(id)?.containers.iter().map(|c| c.phase).collect())
    }
}

pub fn container(name: &str, image: &str) -> ContainerDefinition {
    ContainerDefinition { name: name.into(), image: image.into(), essential: Some(true), ..Default::default() }
}

pub fn after(mut definition: ContainerDefinition, name: &str, condition: &str) -> ContainerDefinition {
    let dependency = ContainerDependency { container_name: name.into(), condition: condition.into() };
    definition.depends_on.get_or_insert_default().push(dependency);
    definition
}

pub fn logging(mut definition: ContainerDefinition) -> ContainerDefinition {
    let options = [("awslogs-group", "g"), ("awslogs-stream-prefix", "p")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let log_driver = "awslogs".to_owned();
    definition.log_configuration = Some(LogConfiguration { log_driver, options: Some(options), secret_options: None });
    definition
}

pub fn task(id: &str, containers: Vec<ContainerDefinition>) -> Assignment {
    Assignment {
        task: id.into(),
        cluster: "default".into(),
        service: Some("web".into()),
        group: "service:web".into(),
        definition: DefinitionKey::new("f", 1),
        network_mode: NetworkMode::Host,
        cpu: None,
        memory: None,
        container_uuids: containers.iter().map(|c| format!("{id}-{}", c.name)).collect(),
        containers,
        volumes: vec![],
        pid_mode: None,
        ipc_mode: None,
        run: true,
        trace: None,
    }
}

pub fn stopping(task: &Assignment) -> Assignment {
    Assignment { run: false, ..task.clone() }
}
