//! The agents' link at scale: a server in a process of its own with its own data directory, and thousands of agents in this one, each
//! behind a real WebSocket that it keeps as real agents do, with real tasks of a service. What the server costs in the steady state,
//! and how long it takes until everybody is back after the server was killed.
//!
//! `BEAUFORT_BENCH_AGENTS` sets how many (5,000), `BEAUFORT_BENCH_SECONDS` how long is looked at (30).

mod agent;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::agent::{Fleet, TASKS};
use self::server::Server;
use super::row::{Row, Rows};
use crate::clock::{Clock, SystemClock};
use crate::frames::{AgentEnd, Frame};
use crate::model::link::{FromAgent, ToAgent};

const AGENTS: usize = 5_000;
const SECONDS: u64 = 30;
const SERVICES: usize = 20;
/// Until everybody is connected, assigned, or back.
const PATIENCE: Duration = Duration::from_secs(900);
/// After the last change, before it is measured: first samples have been put and rates are known.
const SETTLE: Duration = Duration::from_secs(10);

pub fn measure() -> anyhow::Result<Rows> {
    let number = |name: &str, usual: usize| -> anyhow::Result<usize> {
        match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
            Err(_) => Ok(usual),
        }
    };
    let (agents, seconds) = (number("BEAUFORT_BENCH_AGENTS", AGENTS)?, number("BEAUFORT_BENCH_SECONDS", SECONDS as usize)?);
    server::raise_descriptors(agents as u64 + 256)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rows = runtime.block_on(run(agents, Duration::from_secs(seconds as u64)));
    runtime.shutdown_timeout(Duration::from_secs(5));
    rows
}

async fn run(agents: usize, looked_at: Duration) -> anyhow::Result<Rows> {
    let mut server = Server::start().await?;
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let fleet = Arc::new(Fleet::default());

    let begun = Instant::now();
    agent::start(&fleet, &server.url, &server.token, agents, &stop);
    fleet.until("connected", agents, |f| f.assigned.load(Ordering::Relaxed), PATIENCE).await?;
    let joined = begun.elapsed().as_secs_f64();

    let begun = Instant::now();
    let tasks = agents * TASKS;
    place(&server, tasks).await?;
    fleet.until("given their tasks", tasks, |f| f.tasks.load(Ordering::Relaxed), PATIENCE).await?;
    let placed = begun.elapsed().as_secs_f64();
    until_running(&server, tasks).await?;
    tokio::time::sleep(SETTLE).await;

    let (cpu, passes) = (server.cpu_seconds()?, fleet.passes.load(Ordering::Relaxed));
    let begun = Instant::now();
    tokio::time::sleep(looked_at).await;
    let took = begun.elapsed().as_secs_f64();
    let cores = (server.cpu_seconds()? - cpu) / took;
    let samples = (fleet.passes.load(Ordering::Relaxed) - passes) as f64 * TASKS as f64 / took;
    let (rss, peak) = (server.memory_mib("VmRSS")?, server.memory_mib("VmHWM")?);
    let stored = stored_share(&server, tasks).await?;

    server.kill().await?;
    fleet.until_all_know(agents, PATIENCE).await?;
    fleet.reset();
    let restarted = server.restart().await?;
    let begun = Instant::now();
    let calls = tokio::spawn(calls(server.api(), stop.clone()));
    fleet.until("back with their tasks", agents, |f| f.assigned.load(Ordering::Relaxed), PATIENCE).await?;
    let back = begun.elapsed().as_secs_f64();
    stop.cancel();
    let slowest_call = calls.await?;
    let (binary, text) = pass_bytes()?;
    server.end().await?;

    let all = format!("{agents} agents, {TASKS} containers each");
    let at_rate = format!(
        "{samples:.0} container samples/s came, {:.1} % of the tasks' samples were stored in every second",
        stored * 100.0
    );
    Ok(vec![
        Row::new(format!("{all}: CPU of the server"), cores, "cores").at_most(1.0).grows("linear in containers").note(at_rate),
        Row::new(format!("{all}: memory of the server"), rss, "MiB")
            .at_most(4_096.0)
            .grows("linear in containers")
            .note(format!("VmRSS; {peak:.0} MiB at most")),
        Row::new(format!("{agents} agents join for the first time"), joined, "s"),
        Row::new(format!("{tasks} tasks of {SERVICES} services placed and told"), placed, "s"),
        Row::new(format!("{agents} agents are back after a kill of the server"), back, "s")
            .note(format!("from its /health, which took {restarted:.1} s, to the last assignment; agents wait with jitter")),
        Row::new("slowest API call while they return", slowest_call * 1e3, "ms"),
        Row::new("a pass of 20 containers on the wire", binary as f64, "bytes").against("version 1, JSON", text as f64, "bytes"),
    ])
}

/// Services whose tasks fill every instance.
async fn place(server: &Server, tasks: usize) -> anyhow::Result<()> {
    let container = json!({ "name": "app", "image": "registry.example/app:1", "cpu": agent::UNITS, "memory": agent::UNITS });
    server.call("RegisterTaskDefinition", json!({ "family": "bench", "containerDefinitions": [container] })).await?;
    for n in 0..SERVICES {
        let desired = tasks / SERVICES + usize::from(n < tasks % SERVICES);
        let service = json!({ "serviceName": format!("bench-{n}"), "taskDefinition": "bench", "desiredCount": desired });
        server.call("CreateService", service).await?;
    }
    Ok(())
}

async fn until_running(server: &Server, tasks: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let answer = server.call("DescribeClusters", json!({})).await?;
        let running = answer["clusters"][0]["runningTasksCount"].as_u64().unwrap_or(0);
        if running >= tasks as u64 {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "only {running} of {tasks} tasks run after {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// How many of the tasks have a sample in their service's metric, in the worst of some seconds of a moment ago.
async fn stored_share(server: &Server, tasks: usize) -> anyhow::Result<f64> {
    let now = SystemClock.now().0 / 1_000;
    let mut by_second: HashMap<String, f64> = HashMap::new();
    for n in 0..SERVICES {
        let answer = server
            .cloudwatch(json!({
                "Namespace": "AWS/ECS", "MetricName": "CPUUtilization", "Period": 1, "Statistics": ["SampleCount"],
                "StartTime": now - 15, "EndTime": now - 5,
                "Dimensions": [{ "Name": "ClusterName", "Value": "default" }, { "Name": "ServiceName", "Value": format!("bench-{n}") }],
            }))
            .await?;
        for point in answer["Datapoints"].as_array().into_iter().flatten() {
            *by_second.entry(point["Timestamp"].to_string()).or_default() += point["SampleCount"].as_f64().unwrap_or(0.0);
        }
    }
    ensure!(by_second.len() >= 9, "only {} seconds of ten were stored", by_second.len());
    Ok(by_second.values().copied().fold(f64::INFINITY, f64::min) / tasks as f64)
}

/// Seconds that the slowest of some calls took, one after the other.
async fn calls(api: server::Api, stop: CancellationToken) -> f64 {
    let mut slowest = 0f64;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        if api.call("UpdateClusterSettings", json!({ "cluster": "default", "settings": [] })).await.is_ok() {
            slowest = slowest.max(begun.elapsed().as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slowest
}

/// Of a pass in the middle of a connection: as version 2 says it, and as JSON.
fn pass_bytes() -> anyhow::Result<(usize, usize)> {
    let mut end = AgentEnd::default();
    let (installation, region, account) = Default::default();
    let welcome = ToAgent::Welcome { instance: "i".into(), cluster: "c".into(), installation, region, account, link_version: 2 };
    end.read(&serde_json::to_string(&welcome)?)?;
    let ids: Vec<Arc<str>> = (0..TASKS).map(|n| Arc::from(format!("{n:032x}"))).collect();
    let mut size = 0;
    let mut meter = agent::Meter::default();
    for second in 0..5 {
        let pass = FromAgent::Usage(meter.pass(second * 1_000, ids.iter()));
        size = match end.frame(&pass)? {
            Frame::Binary(bytes) => bytes.len(),
            Frame::Text(text) => text.len(),
        };
    }
    let text = serde_json::to_string(&FromAgent::Usage(meter.pass(5_000, ids.iter())))?.len();
    Ok((size, text))
}

/// What an answer says, or what went wrong.
fn read(status: u16, body: &[u8], what: &str) -> anyhow::Result<Value> {
    ensure!((200..300).contains(&status), "{what}: {status} {}", String::from_utf8_lossy(body));
    Ok(serde_json::from_slice(body)?)
}
