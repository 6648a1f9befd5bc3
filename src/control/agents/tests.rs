//! Agents by their words alone, against a whole control plane in this process on paused time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::app::{self, Config, Core, Loops};
use crate::clock::{ManualClock, SharedClock};
use crate::frames::{AgentEnd, Frame, ServerEnd};
use crate::ids::IdSource;
use crate::model::link::{ContainerReport, Phase, TaskReport, UsageBatch, UsageSample};
use crate::model::task::{Health, Resources};
use crate::model::{Millis, TaskId, Timestamp};
use crate::store::{Record, RecordKind, RecordQuery, Store};

const START: Timestamp = Timestamp(1_795_170_000_000);

struct World {
    clock: Arc<ManualClock>,
    core: Core,
    loops: Loops,
}

struct Agent {
    to: mpsc::Sender<FromAgent>,
    from: mpsc::Receiver<ToAgent>,
    session: JoinHandle<()>,
    /// Of the last Assign or Update that it has heard.
    generation: Option<u64>,
}

impl World {
    async fn new() -> World {
        let clock = ManualClock::at(START);
        let shared: SharedClock = clock.clone();
        let ids = IdSource::random();
        let (store, _) =
            Store::open_in_task(None, shared.clone(), ids.instance().as_str(), Arc::new(crate::sim::Doom::default())).unwrap();
        let core = Core::with_store(Config::default(), store, false, shared, ids).await.unwrap();
        let loops = app::start_loops(&core).await.unwrap();
        // Dispatcher and loops watch from here on.
        tokio::time::sleep(Duration::from_millis(1)).await;
        World { clock, core, loops }
    }

    async fn call(&self, operation: &str, input: Value) -> Value {
        let head = http::Request::post("/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("AmazonEC2ContainerServiceV20141113.{operation}"));
        let head = head.body(()).unwrap().into_parts().0;
        let answer = app::make_wire(&self.core.app).answer(head, input.to_string().into()).await;
        serde_json::from_slice(answer.body()).unwrap()
    }

    fn connect(&self) -> Agent {
        let (to_agent, from) = mpsc::channel(4);
        let (to, mut from_agent) = mpsc::channel(256);
        let hub = self.loops.hub.clone();
        Agent { to, from, session: tokio::spawn(async move { hub.serve(to_agent, &mut from_agent).await }), generation: None }
    }

    fn hello(&self, instance: &str, process: &str, ahead: Millis) -> Hello {
        Hello {
            link_version: 1,
            link_newest: 2,
            process: process.into(),
            instance: Some(instance.into()),
            cluster: "default".into(),
            agent_version: String::new(),
            docker_version: String::new(),
            host_name: format!("host-of-{instance}"),
            host_address: String::new(),
            registered: Resources { cpu: 4096, memory: 4096, ..Resources::default() },
            reserved_tcp_ports: vec![],
            attributes: Default::default(),
            at: self.core.app.clock.now() + ahead,
        }
    }

    /// Connected, welcomed, and told what to run.
    async fn joined(&self, instance: &str) -> Agent {
        let mut agent = self.connect();
        agent.say(FromAgent::Hello(Box::new(self.hello(instance, instance, 0)))).await;
        assert!(matches!(agent.hear().await, Some(ToAgent::Welcome { link_version: 2, .. })));
        assert!(matches!(agent.hear().await, Some(ToAgent::Assign { generation: 1, .. })));
        agent
    }

    /// A task on the one instance that has room for it.
    async fn run_task(&self) -> TaskId {
        let container = json!({ "name": "app", "image": "x", "memory": 64, "cpu": 64 });
        self.call("RegisterTaskDefinition", json!({ "family": "job", "containerDefinitions": [container] })).await;
        let run = self.call("RunTask", json!({ "taskDefinition": "job" })).await;
        let arn = run["tasks"][0]["taskArn"].as_str().unwrap_or_else(|| panic!("{run}"));
        TaskId::new(arn.rsplit('/').next().unwrap())
    }

    fn instance(&self, id: &str) -> Arc<Instance> {
        self.core.app.store.snapshot().instances.get(id).unwrap().clone()
    }

    async fn wait(&self, ms: u64) {
        self.clock.advance(ms as Millis);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

impl Agent {
    async fn say(&self, message: FromAgent) {
        self.to.send(message).await.unwrap();
    }

    async fn hear(&mut self) -> Option<ToAgent> {
        let said = tokio::time::timeout(Duration::from_secs(60), self.from.recv()).await.expect("nothing is said");
        if let Some(ToAgent::Assign { generation, .. } | ToAgent::Update { generation, .. }) = &said {
            self.generation = Some(*generation);
        }
        said
    }

    async fn update(&mut self) -> (Vec<(TaskId, bool)>, Vec<TaskId>) {
        match self.hear().await {
            Some(ToAgent::Update { put, forget, .. }) => (put.iter().map(|a| (a.task.clone(), a.run)).collect(), forget),
            other => panic!("an update, and not {other:?}"),
        }
    }

    async fn beat(&self, at: Timestamp) {
        self.say(FromAgent::Heartbeat { at, engine_up: true, generation: self.generation }).await;
    }
}

fn running(task: &TaskId, at: Timestamp) -> TaskReport {
    TaskReport {
        task: task.clone(),
        containers: vec![ContainerReport {
            name: "app".into(),
            phase: Phase::Running,
            runtime_id: Some("r".into()),
            image_digest: None,
            started_at: Some(at),
            finished_at: None,
            exit_code: None,
            reason: None,
            health: Health::Unknown,
            bindings: vec![],
            address: None,
            network: None,
            restart_count: 0,
        }],
        address: None,
        pull_started_at: Some(at),
        pull_stopped_at: Some(at),
        ending: None,
        finished: false,
        at,
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_told_to_whom_it_concerns_only() {
    let w = World::new().await;
    let mut a = w.joined("a").await;
    let mut b = w.joined("b").await;
    w.call("UpdateContainerInstancesState", json!({ "containerInstances": ["b"], "status": "DRAINING" })).await;
    let task = w.run_task().await;
    assert_eq!(a.update().await, (vec![(task.clone(), true)], vec![]));
    w.call("StopTask", json!({ "task": task.as_str() })).await;
    assert_eq!(a.update().await, (vec![(task.clone(), false)], vec![]));
    let report = TaskReport { finished: true, ..running(&task, START) };
    a.say(FromAgent::Status(vec![report])).await;
    assert_eq!(a.update().await, (vec![], vec![task]));
    // A reset deletes tasks that run: their agents forget them.
    let task = w.run_task().await;
    assert_eq!(a.update().await.0.len(), 1);
    let gone = task.clone();
    let deleted = w.core.app.store.update("reset", move |tx| {
        tx.put(store::Change::Task(gone, None));
        Ok::<_, store::Error>(())
    });
    deleted.await.unwrap();
    assert_eq!(a.update().await, (vec![], vec![task]));
    assert!(b.from.try_recv().is_err(), "none of it was b's");
    assert!(!a.session.is_finished() && !b.session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_lost_is_told_again_at_a_later_heartbeat() {
    let w = World::new().await;
    let mut a = w.joined("a").await;
    let task = w.run_task().await;
    let lost = tokio::time::timeout(Duration::from_secs(1), a.from.recv()).await.unwrap();
    assert!(matches!(lost, Some(ToAgent::Update { generation: 2, .. })));
    for _ in 0..2 {
        assert!(a.from.try_recv().is_err(), "it may have been under way still");
        w.wait(5_000).await;
        a.beat(w.core.app.clock.now()).await;
    }
    let Some(ToAgent::Assign { generation: 3, tasks, .. }) = a.hear().await else { panic!("everything is told") };
    assert_eq!(tasks.iter().map(|t| t.task.clone()).collect::<Vec<_>>(), [task]);
    for _ in 0..3 {
        w.wait(5_000).await;
        a.beat(w.core.app.clock.now()).await;
    }
    tokio::task::yield_now().await;
    assert!(a.from.try_recv().is_err(), "it has heard it");
}

#[tokio::test(start_paused = true)]
async fn the_silent_are_disconnected_and_who_speaks_is_not() {
    let w = World::new().await;
    let (a, b) = (w.joined("a").await, w.joined("b").await);
    for _ in 0..20 {
        w.wait(1_000).await;
        a.beat(w.core.app.clock.now()).await;
    }
    assert_eq!((w.instance("a").agent_connected, w.instance("b").agent_connected), (true, false));
    assert!(b.session.is_finished());
    assert_eq!(w.loops.hub.connected(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_agents_of_one_identity_the_one_that_is_there_keeps_it() {
    let w = World::new().await;
    let a = w.joined("a").await;
    let mut copy = w.connect();
    copy.say(FromAgent::Hello(Box::new(w.hello("a", "another process", 0)))).await;
    for _ in 0..7 {
        w.wait(1_000).await;
        a.beat(w.core.app.clock.now()).await;
    }
    let Some(ToAgent::Refused { why }) = copy.hear().await else { panic!("refused") };
    assert!(why.starts_with("its identity is in use") && why.contains("host-of-a"), "{why}");
    assert!(!a.session.is_finished() && w.instance("a").agent_connected);
    // One that was started anew is let in, as nobody speaks for the old one.
    let mut again = w.connect();
    again.say(FromAgent::Hello(Box::new(w.hello("a", "another process", 0)))).await;
    assert!(matches!(again.hear().await, Some(ToAgent::Welcome { .. })));
    w.wait(1_000).await;
    assert!(a.session.is_finished() && w.instance("a").agent_connected);
    // And the same process at once, whatever its last connection still says.
    a.to.closed().await;
    let mut same = w.connect();
    same.say(FromAgent::Hello(Box::new(w.hello("a", "another process", 0)))).await;
    let begun = tokio::time::Instant::now();
    assert!(matches!(same.hear().await, Some(ToAgent::Welcome { .. })));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_hour_off_moves_neither_tasks_nor_metrics_and_is_written_down() {
    let w = World::new().await;
    let hour = 3_600_000;
    let mut a = w.connect();
    a.say(FromAgent::Hello(Box::new(w.hello("a", "p", hour)))).await;
    assert!(matches!(a.hear().await, Some(ToAgent::Welcome { .. })));
    assert!(matches!(a.hear().await, Some(ToAgent::Assign { .. })));
    let task = w.run_task().await;
    a.update().await;
    a.say(FromAgent::Status(vec![running(&task, START + hour)])).await;
    let sample = UsageSample { task: task.as_str().into(), container: "app".into(), memory_bytes: 1, ..UsageSample::default() };
    a.say(FromAgent::Usage(UsageBatch { at: START + hour, samples: vec![Arc::new(sample)], cost_us: 0 })).await;
    w.wait(10).await;
    let row = w.core.app.store.snapshot().tasks.get(&task).unwrap().clone();
    assert_eq!(row.pull_started_at, Some(START));
    assert!(row.started_at.is_some_and(|at| (0..=10).contains(&at.since(START))), "{:?}", row.started_at);
    assert_eq!(w.core.app.ingest.latest()[0].at, START);
    assert_eq!(w.core.app.ingest.skew_of(&"a".into()), Some(hour));
    let (since, until, before, after) = Default::default();
    let subject = Some("instance/a".to_owned());
    let query = RecordQuery { kind: RecordKind::Decision, subject, service: None, since, until, before, after, limit: 100 };
    let said: Vec<String> = w.core.app.store.records(query).await.unwrap().into_iter().filter_map(sentence).collect();
    assert_eq!(said.iter().filter(|s| s.contains("is 3600.0 s ahead of the server's")).count(), 1, "{said:?}");
}

fn sentence((_, record): (u64, Record)) -> Option<String> {
    match record {
        Record::Decision(decision) => Some(decision.reason.sentence),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn who_floods_waits_and_who_reads_nothing_is_let_go_and_others_notice_neither() {
    let w = World::new().await;
    let (flooding, mut b) = (w.joined("a").await, w.joined("b").await);
    let flood = tokio::spawn(async move {
        let mut said = 0;
        while said < 9_000
            && flooding.to.send(FromAgent::Heartbeat { at: START, engine_up: true, generation: None }).await.is_ok()
        {
            said += 1;
        }
        (flooding, said)
    });
    let deaf = w.joined("deaf").await;
    w.call("UpdateContainerInstancesState", json!({ "containerInstances": ["a", "b"], "status": "DRAINING" })).await;
    // More than the four messages that it may leave unread.
    for _ in 0..8 {
        w.run_task().await;
        deaf.beat(START).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..12 {
        w.wait(2_000).await;
        b.beat(w.core.app.clock.now()).await;
        let _ = deaf.to.send(FromAgent::Heartbeat { at: START, engine_up: true, generation: None }).await;
    }
    assert!(deaf.session.is_finished(), "it reads nothing");
    assert!(w.instance("b").agent_connected);
    assert!(!flood.is_finished(), "24 s at 200/s, and 1,000 and what waits at once");
    w.call("UpdateContainerInstancesState", json!({ "containerInstances": ["b"], "status": "ACTIVE" })).await;
    w.run_task().await;
    assert_eq!(b.update().await.0.len(), 1);
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_never_comes_ends_the_connection() {
    let w = World::new().await;
    let mut agent = w.connect();
    agent.beat(START).await;
    assert!(agent.hear().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_the_first_release_has_its_conversation() {
    let recorded = include_str!("../../frames/recorded-v1.txt");
    let w = World::new().await;
    let (mut agent, mut server, mut heard) = (w.connect(), ServerEnd::default(), Vec::new());
    for text in recorded.lines().filter_map(|line| line.strip_prefix("agent ")) {
        agent.say(server.read_text(text).unwrap()).await;
    }
    let mut old = AgentEnd::default();
    for _ in 0..3 {
        let Frame::Text(text) = server.frame(&agent.hear().await.unwrap()).unwrap() else { panic!("an old agent reads JSON") };
        heard.push(old.read(&text).unwrap());
    }
    assert!(matches!(&heard[0], ToAgent::Welcome { link_version: 1, cluster, .. } if cluster.as_str() == "default"));
    assert!(matches!(&heard[1], ToAgent::Assign { generation: 1, .. }));
    assert!(matches!(&heard[2], ToAgent::LinesStored(points) if points[0].next > 1), "{:?}", heard[2]);
    assert!(w.loops.hub.connected() == 1 && !agent.session.is_finished());
}
