//! What the store promises: order, atomicity, durability, indexes that never drift from their tables.

mod durable;

use std::sync::Arc;

use super::*;
use crate::clock::{ManualClock, SharedClock};
use crate::model::cluster::{Cluster, ClusterStatus};
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::instance::{Capacity, Instance, InstanceStatus};
use crate::model::task::{LaunchType, Origin, Resources, Task, TaskStatus};
use crate::model::{ClusterName, DefinitionKey, InstanceId, ServiceKey, TaskId};

fn clock() -> SharedClock {
    ManualClock::at(Timestamp(1_000))
}

fn open() -> Store {
    Store::open(None, clock(), "test").unwrap()
}

pub(super) fn cluster(name: &str) -> Cluster {
    Cluster {
        name: ClusterName::new(name),
        status: ClusterStatus::Active,
        tags: Vec::new(),
        settings: Vec::new(),
        created_at: Timestamp(1_000),
    }
}

pub fn task(id: &str, service: &str, instance: &str, status: TaskStatus) -> Task {
    let origin = Origin {
        group: format!("service:{service}"),
        service: Some(service.into()),
        reserved: Resources { cpu: 256, memory: 128, tcp_ports: vec![80], udp_ports: vec![] },
        ..Origin::new(ClusterName::new("c"), DefinitionKey::new("web", 1))
    };
    Task {
        last_status: status,
        desired_status: if status == TaskStatus::Stopped { status } else { TaskStatus::Running },
        stopped_at: (status == TaskStatus::Stopped).then_some(Timestamp(5)),
        ..Task::new(TaskId::new(id), Arc::new(origin), InstanceId::new(instance), Timestamp(0))
    }
}

pub(super) async fn put(store: &Store, change: impl Into<Change>) {
    let change = change.into();
    store
        .update("test", move |tx| {
            tx.put(change);
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_refused_update_changes_nothing_and_a_panic_costs_only_its_caller() {
    let store = open();
    let refused: Result<(), Error> = store
        .update("test", |tx| {
            tx.put(cluster("a"));
            Err(Error::Closed)
        })
        .await;
    assert!(refused.is_err());
    let panicked: Result<(), Error> = store
        .update("test", |tx| {
            tx.put(cluster("b"));
            panic!("by intent")
        })
        .await;
    assert!(matches!(panicked, Err(Error::Panicked(text)) if text == "by intent"));
    assert!(store.snapshot().clusters.is_empty());
    put(&store, cluster("c")).await;
    assert_eq!(store.snapshot().clusters.len(), 1);
}

#[tokio::test]
async fn watchers_see_each_commit_once_and_snapshots_never_move() {
    let store = open();
    let (mut watch, before) = (store.watch(), store.snapshot());
    put(&store, cluster("a")).await;
    let commit = watch.recv().await.unwrap();
    assert_eq!((commit.revision, commit.changes.len(), commit.causes.as_slice()), (1, 1, &["test".to_owned()][..]));
    assert!(before.clusters.is_empty());
    let read_only = store.update("look", |tx| Ok::<_, Error>(tx.state().clusters.len())).await.unwrap();
    assert_eq!(read_only, 1);
    assert!(watch.try_recv().is_err(), "nothing changed, so nothing was committed");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = std::env::temp_dir().join(format!("beaufort-store-{}", uuid::Uuid::new_v4()));
    {
        let store = Store::open(Some(&dir), clock(), "first").unwrap();
        put(&store, cluster("a")).await;
        put(&store, task("1", "web", "i", TaskStatus::Running)).await;
        put(&store, cluster("b")).await;
        put(&store, Change::Cluster(ClusterName::new("b"), None)).await;
        assert!(matches!(Store::open(Some(&dir), clock(), "x"), Err(Error::InUse(_))));
        store.close().await;
    }
    let store = Store::open(Some(&dir), clock(), "second").unwrap();
    assert_eq!(store.installation(), "first");
    let state = store.snapshot();
    assert_eq!(state.clusters.keys().map(|k| k.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!((state.revision, state.load(&InstanceId::new("i")).cpu), (4, 256));
    store.close().await;
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_damaged_or_newer_directory_is_refused_with_a_sentence() {
    let dir = std::env::temp_dir().join(format!("beaufort-store-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("state.sqlite"), b"this is no database, but long enough to be looked at as if it were one").unwrap();
    let error = Store::open(Some(&dir), clock(), "x").err().unwrap();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
    std::fs::remove_file(dir.join("state.sqlite")).unwrap();
    rusqlite::Connection::open(dir.join("state.sqlite")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(Some(&dir), clock(), "x"), Err(Error::Newer { found: 99, .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn indexes_follow_a_task_through_its_life() {
    let store = open();
    let (service, instance) = (ServiceKey::new("c", "web"), InstanceId::new("i"));
    put(&store, task("1", "web", "i", TaskStatus::Pending)).await;
    put(&store, task("2", "web", "i", TaskStatus::Running)).await;
    put(&store, task("3", "webb", "i", TaskStatus::Running)).await;
    let state = store.snapshot();
    assert_eq!(state.counts(&service), state::Counts { running: 1, pending: 1, stopping: 0 });
    assert_eq!(state.tasks_of_service(&service).count(), 2);
    assert_eq!((state.load(&instance).cpu, state.load(&instance).tasks), (768, 3));
    assert_eq!(state.load(&instance).groups["service:web"], 2);
    put(&store, task("1", "web", "i", TaskStatus::Stopped)).await;
    let state = store.snapshot();
    assert_eq!((state.live_tasks_of_service(&service).count(), state.tasks_of_service(&service).count()), (1, 2));
    assert_eq!((state.load(&instance).cpu, state.load(&instance).groups["service:web"]), (512, 1));
    assert_eq!(state.stopped_before(Timestamp(6)).map(|t| t.as_str()).collect::<Vec<_>>(), ["1"]);
    assert_eq!(state.service_moved(&service), 4);
    for id in ["1", "2", "3"] {
        put(&store, Change::Task(TaskId::new(id), None)).await;
    }
    let state = store.snapshot();
    assert_eq!(*state.load(&instance), Default::default());
    assert_eq!((state.counts(&service), state.tasks_of_instance(&instance).count()), (Default::default(), 0));
}

#[tokio::test]
async fn a_clusters_totals_follow_its_instances_and_tasks() {
    let store = open();
    let (name, other) = (ClusterName::new("default"), ClusterName::new("other"));
    let host = |id: &str, cpu, status| Instance {
        id: InstanceId::new(id),
        cluster: ClusterName::new("default"),
        status,
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: Resources { cpu, memory: 2 * cpu, ..Resources::default() },
        reserved_tcp_ports: Vec::new(),
        attributes: Default::default(),
        agent_version: String::new(),
        docker_version: String::new(),
        host_name: String::new(),
        host_address: String::new(),
        tags: Vec::new(),
        registered_at: Timestamp(0),
        version: 1,
    };
    put(&store, host("a", 100, InstanceStatus::Active)).await;
    put(&store, host("b", 50, InstanceStatus::Draining)).await;
    put(&store, host("c", 25, InstanceStatus::Inactive)).await;
    assert_eq!(store.snapshot().capacity(&name), Capacity { instances: 2, cpu: 150, memory: 300 });
    put(&store, host("a", 400, InstanceStatus::Active)).await;
    put(&store, host("b", 50, InstanceStatus::Inactive)).await;
    assert_eq!(store.snapshot().capacity(&name), Capacity { instances: 1, cpu: 400, memory: 800 });
    put(&store, Instance { cluster: other.clone(), ..host("a", 400, InstanceStatus::Active) }).await;
    assert_eq!(store.snapshot().capacity(&name), Capacity::default());
    assert_eq!(store.snapshot().capacity(&other).cpu, 400);

    put(&store, task("1", "web", "a", TaskStatus::Running)).await;
    let mut fargate = task("2", "web", "a", TaskStatus::Pending);
    fargate.launch_type = LaunchType::Fargate;
    put(&store, fargate).await;
    let (state, c) = (store.snapshot(), ClusterName::new("c"));
    assert_eq!(state.cluster_counts(&c), state::Counts { running: 1, pending: 1, stopping: 0 });
    assert_eq!(state.cluster_counts_of(&c, LaunchType::Ec2), state::Counts { running: 1, ..Default::default() });
    assert_eq!(state.cluster_counts_of(&c, LaunchType::Fargate), state::Counts { pending: 1, ..Default::default() });
}

#[tokio::test]
async fn decisions_are_found_by_subject_and_by_service_newest_first() {
    let store = open();
    let service = ServiceKey::new("c", "web");
    for n in 0..3 {
        let subject = match n {
            0 => Subject::Service(service.clone()),
            _ => Subject::Task { task: TaskId::new(format!("t{n}")), service: Some(service.clone()) },
        };
        let decision = Decision {
            at: Timestamp(n),
            subject,
            action: format!("{n}"),
            reason: Reason::new(ReasonCode::Placed, "because"),
            trace: None,
        };
        store
            .update("test", move |tx| {
                tx.decide(decision);
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
    }
    let of = |records: Vec<(u64, Record)>| -> Vec<i64> { records.iter().map(|(_, r)| r.at().0).collect() };
    let all = store.records(RecordQuery { service: Some("c/web".into()), ..RecordQuery::decisions() }).await.unwrap();
    assert_eq!(of(all), [2, 1, 0]);
    let one = store.records(RecordQuery { subject: Some("task/t2".into()), ..RecordQuery::decisions() }).await.unwrap();
    assert_eq!(of(one), [2]);
    store.clear_history().await.unwrap();
    let page = store.records(RecordQuery { after: Some(1), limit: 1, ..RecordQuery::decisions() }).await.unwrap();
    assert_eq!(of(page), [0; 0]);
}

#[tokio::test]
async fn concurrent_updates_all_land_and_share_commits() {
    let store = open();
    let writers: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { put(&store, cluster(&format!("c{n:03}"))).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.snapshot().clusters.len(), 200);
    assert!(store.stats().commits <= 200);
    assert_eq!(store.stats().updates, 200);
    let names: Vec<Arc<Cluster>> = store.snapshot().clusters.values().cloned().collect();
    assert!(names.iter().all(|c| c.status == ClusterStatus::Active));
}
