//! What `/metrics` costs of a thousand tasks, each measured a moment ago, on fifty instances, with a policy and its alarms.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

use super::decisions::host;
use super::row::{Row, Rows};
use crate::api::App;
use crate::app::{self, Config, Core};
use crate::export::prometheus;
use crate::model::decision::{Reason, ReasonCode};
use crate::model::link::{NetworkTotals, UsageBatch, UsageSample};
use crate::model::task::{Health, LaunchType, Overrides, Task, TaskStatus};
use crate::model::{DefinitionKey, ServiceKey};
use crate::schedule::{self, Launch};
use crate::store::{self, Tx};
use crate::telemetry::ingest::TaskFacts;
use crate::wire::Wire;

const TASKS: u32 = 1_000;
const INSTANCES: usize = 50;
const ROUNDS: usize = 20;

/// The median and the slowest of some rounds, and the size of the page. On a thread with a runtime of its own, as the stores want one.
pub fn measure() -> anyhow::Result<Rows> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let core = Core::open(Config::default(), false).await?;
        fill(&core).await?;
        let (mut took, mut bytes) = (Vec::with_capacity(ROUNDS), 0);
        for _ in 0..ROUNDS {
            feed(&core);
            let begun = Instant::now();
            bytes = prometheus::render(&core.app).len();
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        core.app.metrics.close();
        core.app.store.close().await;
        Ok(vec![
            Row::new(format!("/metrics of {TASKS} tasks, median of {ROUNDS}"), took[ROUNDS / 2], "ms")
                .at_most(150.0)
                .grows("linear in running tasks"),
            Row::new(format!("/metrics of {TASKS} tasks, slowest of {ROUNDS}"), took[ROUNDS - 1], "ms").at_most(150.0),
            Row::new(format!("/metrics of {TASKS} tasks, size"), bytes as f64 / 1e6, "MB").at_most(10.0),
        ])
    })
}

pub(super) async fn call(wire: &Wire<App>, target: &str, input: Value) -> anyhow::Result<()> {
    let head = http::Request::post("/").header("content-type", "application/x-amz-json-1.1").header("x-amz-target", target);
    let answer = wire.answer(head.body(())?.into_parts().0, input.to_string().into()).await;
    anyhow::ensure!(answer.status().is_success(), "{target}: {}", String::from_utf8_lossy(answer.body()));
    Ok(())
}

async fn fill(core: &Core) -> anyhow::Result<()> {
    const ECS: &str = "AmazonEC2ContainerServiceV20141113";
    const SCALING: &str = "AnyScaleFrontendService";
    let wire = app::make_wire(&core.app);
    let container = json!({"name": "app", "image": "registry.example/shop/storefront:2026-11-20", "cpu": 256, "memory": 256,
        "healthCheck": {"command": ["CMD", "true"]}});
    call(&wire, &format!("{ECS}.RegisterTaskDefinition"), json!({"family": "storefront", "containerDefinitions": [container]}))
        .await?;
    let service = json!({"serviceName": "storefront", "taskDefinition": "storefront", "desiredCount": TASKS});
    call(&wire, &format!("{ECS}.CreateService"), service).await?;
    let scalable = json!({"ServiceNamespace": "ecs", "ResourceId": "service/default/storefront",
        "ScalableDimension": "ecs:service:DesiredCount"});
    let with = |more: Value| {
        let mut all = scalable.clone();
        all.as_object_mut().into_iter().for_each(|all| all.extend(more.as_object().cloned().unwrap_or_default()));
        all
    };
    let bounds = with(json!({"MinCapacity": 1, "MaxCapacity": 2 * TASKS}));
    call(&wire, &format!("{SCALING}.RegisterScalableTarget"), bounds).await?;
    let policy = with(
        json!({"PolicyName": "cpu", "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {
        "TargetValue": 50, "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution"}}}),
    );
    call(&wire, &format!("{SCALING}.PutScalingPolicy"), policy).await?;
    let ids = core.app.ids.clone();
    let placed = core.app.store.update("bench", move |tx| Ok::<_, store::Error>(place(&ids, tx))).await?;
    placed.context("the tasks were not placed")
}

fn place(ids: &crate::ids::IdSource, tx: &mut Tx) -> Option<()> {
    for n in 0..INSTANCES {
        tx.put(host(n).0);
    }
    let service = tx.state().services.get(&ServiceKey::new("default", "storefront"))?.clone();
    let definition = tx.state().definitions.get(&DefinitionKey::new("storefront", 1))?.clone();
    let launched = schedule::launch(
        tx,
        ids,
        &Launch {
            cluster: &service.key.cluster,
            definition: &definition,
            count: TASKS,
            group: "service:storefront",
            started_by: None,
            service: Some(&service.key.service),
            deployment: service.primary().map(|d| &d.id),
            launch_type: LaunchType::Ec2,
            overrides: &Overrides::default(),
            constraints: &[],
            strategy: &[],
            tags: &[],
            trace: None,
            reason: Reason::new(ReasonCode::BelowDesired, "bench"),
            explain: true,
        },
    );
    let count = launched.tasks.len();
    for task in launched.tasks {
        let mut task = Arc::unwrap_or_clone(task);
        task.last_status = TaskStatus::Running;
        (task.started_at, task.health) = (Some(tx.now), Health::Healthy);
        let id = task.id.clone();
        for container in &mut task.containers {
            (container.last_status, container.health) = (TaskStatus::Running, Health::Healthy);
            container.started_at = Some(tx.now);
            container.runtime_id = Some(runtime_id(id.as_str()).into());
        }
        tx.put(task);
    }
    (count == TASKS as usize).then_some(())
}

/// As long as Docker's.
fn runtime_id(task: &str) -> String {
    format!("{task}{task}")
}

/// A second's usage of every container, from every instance.
fn feed(core: &Core) {
    let (state, now) = (core.app.store.snapshot(), core.app.clock.now());
    for instance in state.instances.keys() {
        let samples = state.tasks_of_instance(instance).map(|task| sample(task)).collect();
        let mut facts = |id: &str| state.tasks.get(id).map(facts);
        core.app.ingest.usage(instance, &UsageBatch { at: now, samples, cost_us: 0 }, &mut facts);
        core.app.ingest.hearing(instance).heard(now);
    }
}

fn facts(task: &Arc<Task>) -> Arc<TaskFacts> {
    Arc::new(TaskFacts {
        cluster: task.cluster.clone(),
        service: task.service.clone(),
        family: task.definition.family.clone(),
        cpu_reserved: task.reserved.cpu,
        memory_reserved_mib: task.reserved.memory,
        cluster_cpu_registered: 65_536,
        cluster_memory_registered: 262_144,
    })
}

fn sample(task: &Task) -> Arc<UsageSample> {
    let bytes = 123_456_789;
    Arc::new(UsageSample {
        task: task.id.as_str().into(),
        container: "app".into(),
        runtime_id: runtime_id(task.id.as_str()).into(),
        runtime_name: format!("ecs-storefront-1-app-{}", &task.id.as_str()[..12]).into(),
        interval_ms: 1_000,
        cpu_cores: 0.123_456,
        cpu_total_ns: 9_876_543_210,
        cpu_user_ns: 6_543_210_987,
        cpu_system_ns: 3_333_332_223,
        throttled_periods: 17,
        periods: 12_345,
        throttled_ns: 123_456_789,
        memory_bytes: bytes,
        memory_usage_bytes: bytes,
        memory_working_set_bytes: bytes,
        memory_rss_bytes: bytes,
        memory_cache_bytes: bytes,
        memory_limit_bytes: 268_435_456,
        processes: 5,
        block_read_bytes: bytes,
        block_write_bytes: bytes,
        network: Some(NetworkTotals { receive_bytes: bytes, transmit_bytes: bytes, ..NetworkTotals::default() }),
        oom_events: 0,
    })
}
