//! Scheduling at scale: a million tasks on 5,000 instances, and one change among them.

use std::sync::Arc;

use super::cost::Cost;
use super::decisions::host;
use super::row::{Row, Rows};
use crate::clock::SystemClock;
use crate::control::services::{Queue, apply, look};
use crate::decide::definition;
use crate::decide::placement::{self, Candidate, Request};
use crate::decide::service::Settings;
use crate::ids::{IdSource, SharedIds};
use crate::model::cluster::{Cluster, ClusterStatus};
use crate::model::decision::{Reason, ReasonCode};
use crate::model::definition::TaskDefinition;
use crate::model::instance::Instance;
use crate::model::service::{Deployment, Rollout, Service, ServiceStatus};
use crate::model::task::{LaunchType, Overrides, StopCode, Task, TaskStatus};
use crate::model::{ClusterName, DefinitionKey, ServiceKey, TaskId, Timestamp};
use crate::schedule::{self, Launch};
use crate::store::{self, Rehearsal, State, Store, Tx};

const INSTANCES: usize = 5_000;
const SERVICES: usize = 1_000;
const PER_SERVICE: u32 = 1_000;
/// Placed alone, first and last.
const SINGLY: usize = 20_000;
/// What the first and the last are compared of.
const STRETCH: usize = 100_000;
const DURABLE: usize = 100_000;
const CHANGES: usize = 50;
const NOW: Timestamp = Timestamp(1_795_170_000_000);
const KUBERNETES: &str = "kube-scheduler on simulated nodes: 680 to 810 pods/s";

pub fn measure() -> anyhow::Result<Rows> {
    let mut rows = in_memory()?;
    rows.extend(durable()?);
    Ok(rows)
}

fn name(n: usize) -> ServiceKey {
    ServiceKey::new("default", format!("service-{n:04}"))
}

fn definition() -> anyhow::Result<TaskDefinition> {
    let container = serde_json::json!({"name": "app", "image": "registry.example/shop/storefront:2026-11-20",
        "cpu": 256, "memory": 256, "portMappings": [{"containerPort": 8080}]});
    let draft = definition::Draft {
        family: "storefront".to_owned(),
        containers: vec![serde_json::from_value(container)?],
        ..Default::default()
    };
    Ok(definition::register(draft, 1, NOW)?)
}

/// A cluster, its instances in three zones, and services that have no tasks yet.
fn furnish(tx: &mut Tx, ids: &IdSource, definition: &TaskDefinition) {
    let name_of = ClusterName::new("default");
    let cluster =
        Cluster { name: name_of, status: ClusterStatus::Active, tags: Vec::new(), settings: Vec::new(), created_at: NOW };
    tx.put(cluster);
    tx.put(definition.clone());
    for n in 0..INSTANCES {
        tx.put(Instance { id: ids.instance(), ..host(n).0 });
    }
    for n in 0..SERVICES {
        tx.put(service(name(n), ids, definition.key.clone()));
    }
}

fn service(key: ServiceKey, ids: &IdSource, definition: DefinitionKey) -> Service {
    let deployment = Deployment {
        id: ids.deployment(),
        definition: definition.clone(),
        rollout: Rollout::Completed,
        rollout_reason: String::new(),
        failed_tasks: 0,
        early_exits: 0,
        throttled_until: None,
        network_configuration: None,
        created_at: NOW,
        updated_at: NOW,
        trace: None,
    };
    Service {
        key,
        status: ServiceStatus::Active,
        definition,
        desired_count: PER_SERVICE,
        launch_type: LaunchType::Ec2,
        minimum_healthy_percent: 100,
        maximum_percent: 200,
        health_check_grace_period_s: None,
        placement_constraints: Vec::new(),
        placement_strategy: Vec::new(),
        network_configuration: None,
        propagate_tags: None,
        enable_ecs_managed_tags: false,
        enable_execute_command: false,
        role_arn: None,
        client_token: None,
        deployments: vec![deployment],
        events: Default::default(),
        steady: true,
        desired_trace: None,
        tags: Vec::new(),
        created_at: NOW,
        updated_at: NOW,
    }
}

/// As a service's reconciliation places its tasks.
fn place(tx: &mut Tx, ids: &IdSource, key: &ServiceKey, count: u32) -> usize {
    let Some(service) = tx.state().services.get(key).cloned() else { return 0 };
    let Some(definition) = tx.state().definitions.get(&service.definition).cloned() else { return 0 };
    let deployment = service.primary().map(|d| d.id.clone());
    let launch = Launch {
        cluster: &key.cluster,
        definition: &definition,
        count,
        group: &format!("service:{}", key.service),
        started_by: deployment.as_ref().map(|d| d.to_string()),
        service: Some(&key.service),
        deployment: deployment.as_ref(),
        launch_type: LaunchType::Ec2,
        overrides: &Overrides::default(),
        constraints: &[],
        strategy: &[],
        tags: &[],
        trace: None,
        reason: Reason::new(ReasonCode::BelowDesired, format!("starting {count}: 0 of {PER_SERVICE} desired tasks are there")),
        explain: true,
    };
    schedule::launch(tx, ids, &launch).tasks.len()
}

/// Tasks a second of processor time, and how many were placed.
fn rate(world: &mut Rehearsal, ids: &IdSource, launches: impl Iterator<Item = (usize, u32)>) -> (f64, usize) {
    let (cost, mut placed) = (Cost::start(), 0);
    for (n, count) in launches {
        placed += world.update(NOW, |tx| place(tx, ids, &name(n), count)).0;
    }
    (placed as f64 / cost.spent().thread, placed)
}

fn in_memory() -> anyhow::Result<Rows> {
    let (mut world, ids) = (Rehearsal::default(), IdSource::seeded(7));
    let definition = definition()?;
    world.update(NOW, |tx| furnish(tx, &ids, &definition));

    let singly = |n: usize| (n % SERVICES, 1);
    let (first_singly, _) = rate(&mut world, &ids, (0..SINGLY).map(singly));
    // What is left of each service, a service at a time; of the last ones a little less, for those that come singly.
    let each = PER_SERVICE - 2 * (SINGLY / SERVICES) as u32;
    let few = STRETCH / each as usize;
    let (first, _) = rate(&mut world, &ids, (0..few).map(|n| (n, each)));
    let (between, middle) = rate(&mut world, &ids, (few..SERVICES - few).map(|n| (n, each)));
    let (last, _) = rate(&mut world, &ids, (SERVICES - few..SERVICES).map(|n| (n, each)));
    let (last_singly, _) = rate(&mut world, &ids, (0..SINGLY).map(singly));

    let state = world.snapshot();
    anyhow::ensure!(state.tasks.len() == SERVICES * PER_SERVICE as usize, "{} tasks were placed", state.tasks.len());
    let scanned = scan(&state, &definition);
    let all = 1.0 / ((STRETCH as f64 * 2.0 / first.min(last) + middle as f64 / between) / (2.0 * STRETCH as f64 + middle as f64));
    drop(state);
    let decline = first.max(first_singly) / last.min(last_singly);
    let mut rows = vec![
        Row::new("placements to 1,000,000 tasks on 5,000 instances", all, "tasks/s")
            .at_least(50_000.0)
            .quoting(KUBERNETES)
            .grows("per task: the instances' kinds, and one in 64 instances where little fits")
            .note(format!(
                "decision, task, ledger line and indexes, a service of {each} a transaction, on one thread of one processor; first \
                 100,000 {first:.0}/s, last 100,000 {last:.0}/s"
            )),
        Row::new("placements singly, the last 20,000 of 1,000,000", last_singly, "tasks/s")
            .against("a scan of all instances for each task, the decision alone", scanned, "tasks/s")
            .note(format!("a transaction each; the first 20,000 {first_singly:.0}/s")),
        Row::new("placements, first over last", (first / last).max(first_singly / last_singly), "x").at_most(2.0).note(format!(
            "of 100,000 in batches, or of 20,000 singly, whichever declines more; the best of all over the worst {decline:.1}"
        )),
    ];
    rows.extend(reconcile(&mut world, &ids)?);
    Ok(rows)
}

/// One task at a time by the scan that the index is tested against.
fn scan(state: &State, definition: &TaskDefinition) -> f64 {
    let hosts: Vec<_> = state.instances.values().map(|i| (i.clone(), state.load(&i.id))).collect();
    let candidates: Vec<Candidate> = hosts.iter().map(|(instance, load)| Candidate { instance, load }).collect();
    let overrides = Overrides::default();
    let resources = definition::reserved(definition, &overrides);
    let request = Request {
        count: 1,
        resources: &resources,
        group: "service:service-0001",
        constraints: &[],
        strategy: &[],
        of_service: true,
        seed: 7,
    };
    super::per_second(1, || placement::place(&request, &candidates))
}

/// One task ends: whoever it concerns is found, looked at, and made whole.
fn reconcile(world: &mut Rehearsal, ids: &IdSource) -> anyhow::Result<Rows> {
    let settings = Settings { healthy_after_ms: 2_000, lost_after_ms: 60_000 };
    let later = NOW + 60_000;
    // The services that are measured run; the others' state costs nothing here.
    for n in 0..CHANGES {
        world.update(NOW, |tx| run_all(tx, &name(n)));
    }
    let (mut took, mut queue) = (Vec::new(), Queue::default());
    for n in 0..CHANGES {
        let key = name(n);
        let id: TaskId =
            world.snapshot().live_tasks_of_service(&key).next().map(|t| t.id.clone()).unwrap_or_else(|| TaskId::new(""));
        let (_, commit) = world.update(later, |tx| {
            let reason = Reason::new(ReasonCode::EssentialExited, "bench");
            schedule::give_up(tx, &id, StopCode::EssentialContainerExited, "bench", reason);
        });
        let cost = Cost::start();
        let state = world.snapshot();
        queue.note(&commit, &state);
        let mut started = 0;
        while let Some(key) = queue.next_dirty() {
            let Some(service) = state.services.get(&key).cloned() else { continue };
            let plan = look(&settings, &state, &service, later);
            started += world.update(later, |tx| apply(ids, tx, &key, plan, false)).1.changes.iter().filter(is_new).count();
        }
        took.push(cost.spent().thread * 1e3);
        anyhow::ensure!(started == 1, "{started} tasks were started for the one that ended");
    }
    let state = world.snapshot();
    let (cost, mut found) = (Cost::start(), 0);
    for n in 0..3 {
        let key = name(n);
        found += state.tasks.values().filter(|t| t.service.as_ref() == Some(&key.service) && t.cluster == key.cluster).count();
    }
    let scan = cost.spent().thread * 1e3 / 3.0;
    anyhow::ensure!(found > 0, "the services have tasks");
    Ok(vec![
        Row::of_runs("a service reconciled after one change among 1,000,000 tasks", took, "ms")
            .at_most(1.0)
            .against("going through all the tasks for those of the service", scan, "ms")
            .grows("linear in the tasks of the service, here 1,000; flat in all tasks")
            .note("finding whom a commit concerns, the look, the plan, and the replacement placed"),
    ])
}

fn is_new(change: &&store::Change) -> bool {
    matches!(change, store::Change::Task(_, Some(task)) if task.version == 1)
}

fn run_all(tx: &mut Tx, key: &ServiceKey) {
    let tasks: Vec<Arc<Task>> = tx.state().live_tasks_of_service(key).cloned().collect();
    for task in tasks {
        tx.put(Task { last_status: TaskStatus::Running, started_at: Some(NOW), version: 2, ..(*task).clone() });
    }
}

/// The same through a store on disk, each transaction acknowledged before the next is asked for.
fn durable() -> anyhow::Result<Rows> {
    let dir = std::env::temp_dir().join(format!("beaufort-bench-placement-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(durable_in(&dir));
    let _ = std::fs::remove_dir_all(&dir);
    Ok(vec![measured?])
}

async fn durable_in(dir: &std::path::Path) -> anyhow::Result<Row> {
    let store = Store::open(Some(dir), Arc::new(SystemClock), "bench")?;
    let (ids, definition): (SharedIds, _) = (IdSource::seeded(7), definition()?);
    let inner = ids.clone();
    store
        .update("bench", move |tx| {
            furnish(tx, &inner, &definition);
            Ok::<_, store::Error>(())
        })
        .await?;
    let (cost, mut placed) = (Cost::start(), 0);
    for n in 0..DURABLE / PER_SERVICE as usize {
        let inner = ids.clone();
        placed += store.update("bench", move |tx| Ok::<_, store::Error>(place(tx, &inner, &name(n), PER_SERVICE))).await?;
    }
    let spent = cost.spent();
    store.close().await;
    Ok(Row::new("placements, durable", placed as f64 / spent.wall, "tasks/s").quoting(KUBERNETES).note(format!(
        "{placed} tasks, {PER_SERVICE} a transaction, rows, journal and ledger on disk before the next; {:.0}/s of processor time",
        placed as f64 / spent.process
    )))
}
