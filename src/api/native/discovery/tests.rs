//! What is listed, where, and what is told of what is not: one row per way to say it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::api::native::{Answer, Request, answer};
use crate::api::testing;
use crate::clock::ManualClock;
use crate::model::definition::{DefinitionStatus, PortMapping};
use crate::model::instance::InstanceStatus;
use crate::model::tag::Tag;
use crate::model::task::{Binding, Origin, Resources};
use crate::model::{DefinitionKey, InstanceId, TaskId, Timestamp};
use crate::store::{Error, Tx};

const NOW: Timestamp = Timestamp(1_795_170_000_000);

fn instance(host_address: &str) -> Instance {
    Instance {
        id: InstanceId::new("i1"),
        cluster: "demo".into(),
        status: InstanceStatus::Active,
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: Resources::default(),
        reserved_tcp_ports: Vec::new(),
        attributes: BTreeMap::from([("ecs.availability-zone".to_owned(), Some("z1".to_owned()))]),
        agent_version: String::new(),
        docker_version: String::new(),
        host_name: "host".into(),
        host_address: host_address.into(),
        tags: Vec::new(),
        registered_at: NOW,
        version: 1,
    }
}

fn defined(name: &str, ports: &[i32], labels: &[(&str, &str)]) -> ContainerDefinition {
    let mapping = |port: &i32| PortMapping { container_port: Some(*port), ..PortMapping::default() };
    let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ContainerDefinition {
        name: name.into(),
        port_mappings: Some(ports.iter().map(mapping).collect()),
        docker_labels: Some(labels).filter(|l| !l.is_empty()),
        ..ContainerDefinition::default()
    }
}

fn definition(mode: NetworkMode, containers: Vec<ContainerDefinition>, tags: &[(&str, &str)]) -> TaskDefinition {
    TaskDefinition {
        key: DefinitionKey::new("shop", 3),
        status: DefinitionStatus::Active,
        containers,
        volumes: Vec::new(),
        network_mode: mode,
        network_mode_given: true,
        cpu: None,
        memory: None,
        placement_constraints: Vec::new(),
        requires_compatibilities: Vec::new(),
        pid_mode: None,
        ipc_mode: None,
        task_role_arn: None,
        execution_role_arn: None,
        runtime_platform: None,
        tags: tags.iter().map(|(key, value)| Tag { key: (*key).into(), value: Some((*value).into()) }).collect(),
        registered_at: NOW,
        deregistered_at: None,
    }
}

/// As a task of `definition` stands on an agent: ports of bridge containers are mapped from 32,768 on.
fn task(id: &str, definition: &TaskDefinition, service: Option<&str>) -> Task {
    let container = |defined: &ContainerDefinition| Container {
        last_status: TaskStatus::Running,
        bindings: (defined.port_mappings.iter().flatten().enumerate())
            .map(|(n, m)| Binding {
                address: "0.0.0.0".into(),
                container_port: m.container_port.unwrap() as u16,
                host_port: 32_768 + n as u16,
                protocol: "tcp".into(),
            })
            .collect(),
        address: Some("172.17.0.9".into()),
        ..Container::new(defined.name.as_str().into(), "", "")
    };
    let origin = Origin { service: service.map(Into::into), ..Origin::new("demo".into(), definition.key.clone()) };
    Task {
        last_status: TaskStatus::Running,
        containers: definition.containers.iter().map(container).collect(),
        started_at: Some(NOW),
        ..Task::new(TaskId::new(id), Arc::new(origin), InstanceId::new("i1"), NOW)
    }
}

async fn app(instance: Instance, definition: TaskDefinition, tasks: Vec<Task>) -> Arc<App> {
    let app = Arc::new(testing::app(ManualClock::at(NOW)));
    let put = move |tx: &mut Tx| {
        tx.put(instance);
        tx.put(definition);
        tasks.into_iter().for_each(|task| tx.put(task));
        Ok::<_, Error>(())
    };
    app.store.update("test", put).await.unwrap();
    app
}

async fn ask(app: &Arc<App>, method: http::Method, path: &str, query: &str) -> Answer {
    let request = Request { method: &method, path, query, authorization: None, body: &Default::default() };
    answer(app, request).await.expect("a path of ours")
}

async fn get(app: &Arc<App>, path: &str, query: &str) -> (u16, Value) {
    let Answer { status, content_type, body } = ask(app, http::Method::GET, path, query).await;
    assert_eq!(content_type, "application/json", "Prometheus refuses any other");
    (status, serde_json::from_slice(&body).unwrap())
}

/// The listed addresses, with path and scheme where they are told, and the reasons for what is not listed.
fn found(app: &App) -> (Vec<String>, Vec<String>) {
    let state = app.store.snapshot();
    let found = discover(&state, |_| true);
    let listed = found.targets.iter().map(|t| t.group(None)).map(|g| {
        let of = |name: &str| g.labels.get(name).cloned().unwrap_or_default();
        format!("{}{}{} {}", of("__scheme__"), g.targets[0], of("__metrics_path__"), of("container"))
    });
    (listed.collect(), found.skipped.into_keys().map(|s| s.why).collect())
}

#[tokio::test]
async fn one_task_as_prometheus_reads_it() {
    let labels = [(SCRAPE, "true"), (PORT, "8080"), (PATH, "/m"), (SCHEME, "https")];
    let definition = definition(NetworkMode::Bridge, vec![defined("web", &[8080], &labels)], &[]);
    let tasks = vec![task("t1", &definition, Some("web")), task("t2", &definition, None)];
    let app = app(instance("127.0.0.1"), definition, tasks).await;
    let (status, listed) = get(&app, "/sd/prometheus", "").await;
    assert_eq!(status, 200);
    let expected = json!({"targets": ["127.0.0.1:32768"], "labels": {"__metrics_path__": "/m", "__scheme__": "https", "cluster": "demo",
        "service": "web", "family": "shop", "revision": "3", "task": "t1", "container": "web", "container_instance": "i1", "zone": "z1"}});
    assert_eq!(listed[0], expected);
    assert_eq!((&listed[1]["labels"]["task"], listed[1]["labels"].get("service")), (&json!("t2"), None));
    for (query, tasks) in
        [("cluster=demo", 2), ("cluster=other", 0), ("service=web", 1), ("cluster=demo&service=web", 1), ("service=api", 0)]
    {
        assert_eq!(get(&app, "/sd/prometheus", query).await.1.as_array().unwrap().len(), tasks, "{query}");
    }
    for (host, target) in [("host.docker.internal", "host.docker.internal:32768"), ("fe80::1", "[fe80::1]:32768")] {
        assert_eq!(get(&app, "/sd/prometheus", &format!("host={host}")).await.1[0]["targets"], json!([target]));
    }
    assert_eq!(get(&app, "/sd/prometheus", "host=a%20b%22").await.0, 400);
    assert_eq!(get(&app, "/sd/consul", "").await.0, 404);
    assert_eq!(ask(&app, http::Method::POST, "/sd/prometheus", "").await.status, 405);
}

#[tokio::test]
async fn the_address_is_one_that_can_be_reached() {
    use NetworkMode::{Awsvpc, Bridge, Host, None as Nothing};
    type Change = fn(&mut Task);
    let rows: &[(NetworkMode, Change, &str)] = &[
        (Bridge, |_| {}, "192.0.2.7:32768 web"),
        (Bridge, |t| t.containers[0].network = Some("shop".into()), "172.17.0.9:8080 web"),
        (Bridge, |t| t.containers[0].bindings[0].address = "192.0.2.9".into(), "192.0.2.9:32768 web"),
        (Bridge, |t| t.containers[0].bindings[0].protocol = "udp".into(), "port 8080 is not mapped"),
        (Bridge, |t| t.containers[0].bindings.clear(), "port 8080 is not mapped"),
        (Bridge, |t| t.instance = InstanceId::new("gone"), "its container instance is gone"),
        (Host, |t| t.containers[0].bindings.clear(), "192.0.2.7:8080 web"),
        (Awsvpc, |t| t.address = Some("10.77.0.5".into()), "10.77.0.5:8080 web"),
        (Awsvpc, |_| {}, "the task has no address yet"),
        (Nothing, |_| {}, "network mode none"),
        (Bridge, |t| t.last_status = TaskStatus::Pending, ""),
        (Bridge, |t| t.desired_status = TaskStatus::Stopped, ""),
        (Bridge, |t| t.containers[0].last_status = TaskStatus::Stopped, ""),
    ];
    for (row, (mode, change, expected)) in rows.iter().enumerate() {
        let definition = definition(*mode, vec![defined("web", &[8080], &[(PORT, "8080")])], &[]);
        let mut one = task("t1", &definition, Some("web"));
        change(&mut one);
        let app = app(instance("192.0.2.7"), definition, vec![one]).await;
        let (listed, skipped) = found(&app);
        let told = listed.iter().chain(&skipped).next().cloned().unwrap_or_default();
        assert!(told.starts_with(expected) && told.is_empty() == expected.is_empty(), "row {row}: {told:?}, not {expected:?}");
        assert!(listed.len() + skipped.len() <= 1, "row {row}");
    }
}

#[tokio::test]
async fn labels_and_tags_say_what_is_scraped() {
    type Pairs = &'static [(&'static str, &'static str)];
    type Row = (Pairs, Pairs, Pairs, &'static [&'static str], &'static [&'static str]);
    const SIDE: (&str, &str) = (PORT, "9");
    // The labels of `web` (8080, 9090), those of `side` (9), the definition's tags; what is listed, what is told.
    let rows: &[Row] = &[
        (&[], &[], &[], &[], &[]),
        (&[(PORT, "9090")], &[], &[], &["h:32769 web"], &[]),
        (&[(SCRAPE, "true"), (PORT, "8080")], &[SIDE], &[], &["h:32768 web", "h:32768 side"], &[]),
        (&[(SCRAPE, "false"), (PORT, "8080")], &[], &[], &[], &[]),
        (&[(PATH, "/m")], &[], &[], &[], &[]),
        (&[], &[(SCRAPE, "true")], &[], &["h:32768 side"], &[]),
        (&[(SCRAPE, "true")], &[], &[], &[], &["prometheus.io/port is missing"]),
        (&[(SCRAPE, "yes"), (PORT, "8080")], &[], &[], &[], &["prometheus.io/scrape is \"yes\""]),
        (&[(PORT, "http")], &[SIDE], &[], &["h:32768 side"], &["prometheus.io/port is \"http\""]),
        (&[(PORT, "0")], &[], &[], &[], &["prometheus.io/port is \"0\""]),
        (&[(PORT, "70000")], &[], &[], &[], &["prometheus.io/port is \"70000\""]),
        (&[(PORT, "8080"), (PATH, "metrics")], &[], &[], &[], &["prometheus.io/path is \"metrics\""]),
        (&[(PORT, "8080"), (PATH, "/m?x=1")], &[], &[], &[], &["prometheus.io/path is \"/m?x=1\""]),
        (&[(PORT, "8080"), (SCHEME, "ftp")], &[], &[], &[], &["prometheus.io/scheme is \"ftp\""]),
        (&[(PORT, "8080"), (SCHEME, "https"), (PATH, "/m")], &[], &[], &["httpsh:32768/m web"], &[]),
        // Tags: of the container that has the port, else of the first essential one.
        (&[], &[], &[(PORT, "9")], &["h:32768 side"], &[]),
        (&[], &[], &[(PORT, "9090"), (PATH, "/m")], &["h:32769/m web"], &[]),
        (&[], &[], &[(SCRAPE, "true"), (PORT, "7")], &[], &["port 7 is not mapped"]),
        (&[], &[], &[(SCRAPE, "false"), (PORT, "9")], &[], &[]),
        (&[(PORT, "8080")], &[], &[(PORT, "9090")], &["h:32768 web"], &[]),
        (&[(PORT, "8080")], &[], &[(PORT, "9")], &["h:32768 web", "h:32768 side"], &[]),
    ];
    for (row, (web, side, tags, listed, told)) in rows.iter().enumerate() {
        let mut containers = vec![defined("web", &[8080, 9090], web), defined("side", &[9], side)];
        containers[1].essential = Some(false);
        let definition = definition(NetworkMode::Bridge, containers, tags);
        let one = task("t1", &definition, Some("web"));
        let app = app(instance("h"), definition, vec![one]).await;
        let (found, skipped) = found(&app);
        assert_eq!(found, *listed, "row {row}");
        assert_eq!(skipped.len(), told.len(), "row {row}: {skipped:?}");
        assert!(skipped.iter().zip(*told).all(|(s, t)| s.starts_with(t)), "row {row}: {skipped:?}");
    }
}

#[tokio::test]
async fn what_is_said_wrongly_is_a_gap() {
    let definition = definition(NetworkMode::Bridge, vec![defined("web", &[8080], &[(PORT, "http")])], &[]);
    let tasks = (0..3).map(|n| task(&format!("t{n}"), &definition, Some("web"))).collect();
    let app = app(instance("h"), definition, tasks).await;
    let gaps = get(&app, "/api/gaps", "").await.1;
    let expected = json!([{"cluster": "demo", "service": "web", "taskDefinition": "shop:3", "container": "web",
        "why": "prometheus.io/port is \"http\": a number from 1 to 65535", "tasks": 3}]);
    assert_eq!(gaps["notScraped"], expected);
    assert_eq!(gaps["unknown"], json!([]), "the other gaps are there as before");
}

#[tokio::test]
async fn a_thousand_tasks_are_cheap() {
    let definition = definition(NetworkMode::Bridge, vec![defined("web", &[8080], &[(PORT, "8080")])], &[]);
    let tasks = (0..1_000).map(|n| task(&format!("t{n:04}"), &definition, Some("web"))).collect();
    let app = app(instance("127.0.0.1"), definition, tasks).await;
    let began = Instant::now();
    let listed = get(&app, "/sd/prometheus", "host=gateway").await.1;
    // Unoptimised, and parsed again here; a release build answers in a few milliseconds.
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!(listed.as_array().unwrap().len(), 1_000);
    assert_eq!(listed[999]["labels"]["task"], "t0999");
}
