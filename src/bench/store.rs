//! What the store costs: durable commits beside the disk's own rate and plain SQLite's, and, with many tasks, restart and memory of
//! the real program. Tasks come through real transactions: services of a hundred, made, placed, and reported RUNNING.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::decisions::{NOW, host};
use super::exposition::call;
use super::row::{Row, Rows};
use crate::api::App;
use crate::app::{self, Config, Core};
use crate::clock::{SharedClock, SystemClock};
use crate::ids::IdSource;
use crate::model::decision::{Decision, Reason, ReasonCode, Subject};
use crate::model::task::{Binding, Container, Health, Origin, Resources, Task, TaskStatus};
use crate::model::{DefinitionKey, InstanceId, ServiceKey};
use crate::store::{self, Store, Tx};
use crate::wire::Wire;

const WRITERS: usize = 64;
const MEASURE: Duration = Duration::from_secs(2);
const PER_SERVICE: usize = 100;
const PER_INSTANCE: usize = 200;
/// How many tasks, and the seconds that a restart may take.
const SIZES: [(usize, f64); 2] = [(100_000, 1.0), (1_000_000, 10.0)];
const UP_WITHIN: Duration = Duration::from_secs(300);

/// Durable commits.
pub fn measure() -> anyhow::Result<Rows> {
    in_dir(commits)
}

/// Restart and memory.
pub fn at_scale() -> anyhow::Result<Rows> {
    in_dir(|dir| sizes(&dir.join("data")))
}

fn in_dir(measure: impl FnOnce(&Path) -> anyhow::Result<Rows>) -> anyhow::Result<Rows> {
    let dir = std::env::temp_dir().join(format!("beaufort-bench-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let measured = measure(&dir);
    fs::remove_dir_all(&dir)?;
    measured
}

fn workers() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn commits(dir: &Path) -> anyhow::Result<Rows> {
    let before = fsyncs(dir)?;
    let sqlite = plain_sqlite(&dir.join("plain.sqlite"))?;
    let (updates, grouped) = workers()?.block_on(concurrent(&dir.join("writers")))?;
    let fsync = (before + fsyncs(dir)?) / 2.0;
    let writers = format!("durable updates, {WRITERS} writers at once");
    Ok(vec![
        Row::new("4 KiB appended and synced, one after the other", fsync, "/s"),
        Row::new(writers.clone(), updates, "/s").against("SQLite, one INSERT per transaction, WAL, FULL", sqlite, "/s"),
        Row::new(format!("{writers}, by the disk's rate"), updates / fsync, "x")
            .at_least(20.0)
            .grows("with the writers, to 512 that share a sync")
            .note(format!("{grouped:.1} updates shared a sync")),
    ])
}

fn per_second(mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let (begun, mut times) = (Instant::now(), 0u32);
    while begun.elapsed() < MEASURE {
        once()?;
        times += 1;
    }
    Ok(f64::from(times) / begun.elapsed().as_secs_f64())
}

fn fsyncs(dir: &Path) -> anyhow::Result<f64> {
    let (mut file, page) = (File::create(dir.join("fsync"))?, [7u8; 4096]);
    per_second(|| {
        file.write_all(&page)?;
        Ok(file.sync_data()?)
    })
}

fn plain_sqlite(path: &Path) -> anyhow::Result<f64> {
    let text = "x".repeat(1_000);
    let plain = store::PlainSqlite::create(path)?;
    per_second(|| Ok(plain.insert(&text)?))
}

async fn concurrent(dir: &Path) -> anyhow::Result<(f64, f64)> {
    let clock: SharedClock = Arc::new(SystemClock);
    let store = Store::open(Some(dir), clock, "bench")?;
    let done = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let writer = |n: usize| {
        let (store, done, ids) = (store.clone(), done.clone(), IdSource::seeded(n as u64));
        async move {
            let mut task = running(&ids, &origin(n), InstanceId::new(format!("host-{n}")));
            while begun.elapsed() < MEASURE {
                task.version += 1;
                let next = task.clone();
                store
                    .update("bench", move |tx| {
                        tx.put(next);
                        Ok::<_, store::Error>(())
                    })
                    .await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, store::Error>(())
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(writer(n))).collect();
    for writer in writers {
        writer.await??;
    }
    let (took, stats) = (begun.elapsed().as_secs_f64(), store.stats());
    store.close().await;
    Ok((done.load(Ordering::Relaxed) as f64 / took, stats.updates as f64 / stats.commits as f64))
}

fn service_name(n: usize) -> String {
    format!("storefront-{n:05}")
}

fn origin(service: usize) -> Arc<Origin> {
    Arc::new(Origin {
        group: format!("service:{}", service_name(service)),
        started_by: Some(format!("ecs-svc/{service:019}")),
        service: Some(service_name(service).into()),
        deployment: Some(format!("ecs-svc/{service:019}").into()),
        reserved: Resources { cpu: 256, memory: 256, ..Resources::default() },
        trace: Some(format!("00-{service:032x}-{service:016x}-01")),
        ..Origin::new("default".into(), DefinitionKey::new("storefront", 1))
    })
}

fn fresh(ids: &IdSource, origin: &Arc<Origin>, instance: InstanceId) -> Task {
    let container = Container::new("app".into(), ids.uuid(), "registry.example/shop/storefront:2026-11-20");
    Task { containers: vec![container], ..Task::new(ids.task(), origin.clone(), instance, NOW) }
}

/// As a report makes it: every text is the task's own.
fn running(ids: &IdSource, origin: &Arc<Origin>, instance: InstanceId) -> Task {
    run(fresh(ids, origin, instance))
}

fn run(mut task: Task) -> Task {
    let runtime = format!("{0}{0}", task.id);
    (task.last_status, task.health) = (TaskStatus::Running, Health::Healthy);
    (task.pull_started_at, task.pull_stopped_at, task.started_at) = (Some(NOW), Some(NOW), Some(NOW));
    task.version = 2;
    for container in &mut task.containers {
        (container.last_status, container.health) = (TaskStatus::Running, Health::Healthy);
        container.started_at = Some(NOW);
        container.runtime_id = Some(runtime.as_str().into());
        container.image_digest = Some(format!("sha256:{}", "0123456789abcdef".repeat(4)).into());
        container.address = Some("172.17.0.199".to_owned());
        let binding =
            |address: &str| Binding { address: address.into(), container_port: 8080, host_port: 32_768, protocol: "tcp".into() };
        container.bindings = vec![binding("0.0.0.0"), binding("::")];
    }
    task
}

fn sizes(dir: &Path) -> anyhow::Result<Rows> {
    let core = || Core::open(Config { data_dir: Some(dir.to_owned()), ..Config::default() }, false);
    workers()?.block_on(async {
        close(core().await?).await;
        anyhow::Ok(())
    })?;
    let (empty, mut rows, mut made) = (restart(dir)?, Vec::new(), 0);
    for (size, within) in SIZES {
        let begun = Instant::now();
        workers()?.block_on(async {
            let core = Arc::new(core().await?);
            fill(&core, made..size).await?;
            close(Arc::into_inner(core).context("a writer still runs")?).await;
            anyhow::Ok(())
        })?;
        let rate = (size - made) as f64 / begun.elapsed().as_secs_f64();
        made = size;
        let (clean, killed) = (restart(dir)?, restart(dir)?);
        let file = fs::metadata(dir.join("state.sqlite"))?.len();
        let what = format!("restart to /health with {size} tasks");
        rows.extend([
            Row::new(format!("tasks made and running, to {size}"), rate, "tasks/s").grows("flat, by the disk's syncs"),
            Row::new(what.clone(), clean.took.as_secs_f64(), "s").at_most(within).grows("linear in tasks").note(format!(
                "{:.2} s of CPU; the file has {} B per task and is in the page cache",
                clean.cpu_s,
                file / size as u64
            )),
            Row::new(format!("{what}, after kill -9"), killed.took.as_secs_f64(), "s").at_most(within).grows("linear in tasks"),
            Row::new(format!("memory per task of {size}"), (clean.rss - empty.rss) / size as f64, "B")
                .at_most(1_024.0)
                .grows("linear in tasks")
                .note("resident set of `beaufort serve` less that without tasks"),
        ]);
    }
    Ok(rows)
}

async fn close(core: Core) {
    core.app.metrics.close();
    core.app.store.close().await;
}

async fn fill(core: &Arc<Core>, tasks: std::ops::Range<usize>) -> anyhow::Result<()> {
    let wire = Arc::new(app::make_wire(&core.app));
    let container = json!({"name": "app", "image": "registry.example/shop/storefront:2026-11-20", "cpu": 256, "memory": 256});
    let definition = json!({"family": "storefront", "containerDefinitions": [container]});
    call(&wire, "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition", definition).await?;
    let services = tasks.start / PER_SERVICE..tasks.end.div_ceil(PER_SERVICE);
    let next = Arc::new(AtomicU64::new(services.start as u64));
    let writer = || {
        let (core, wire, next, end) = (core.clone(), wire.clone(), next.clone(), services.end);
        async move {
            loop {
                let service = next.fetch_add(1, Ordering::Relaxed) as usize;
                if service >= end {
                    return anyhow::Ok(());
                }
                fill_service(&core.app, &wire, service).await?;
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(writer())).collect();
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

async fn fill_service(app: &Arc<App>, wire: &Wire<App>, service: usize) -> anyhow::Result<()> {
    let input = json!({"serviceName": service_name(service), "taskDefinition": "storefront:1", "desiredCount": PER_SERVICE});
    call(wire, "AmazonEC2ContainerServiceV20141113.CreateService", input).await?;
    let (origin, first) = (origin(service), service * PER_SERVICE);
    let ids = app.ids.clone();
    let place = move |tx: &mut Tx| {
        let mut tasks = Vec::with_capacity(PER_SERVICE);
        for n in first..first + PER_SERVICE {
            // Tasks of a service are spread over instances.
            let (instance, _) = host(n % (n / PER_INSTANCE + 1));
            if !tx.state().instances.contains_key(&instance.id) {
                tx.put(instance.clone());
            }
            let task = fresh(&ids, &origin, instance.id);
            tx.decide(placed(&task));
            tx.put(task.clone());
            tasks.push(task);
        }
        Ok::<_, store::Error>(tasks)
    };
    let tasks = app.store.update("bench: place", place).await?;
    let report = move |tx: &mut Tx| {
        tasks.into_iter().for_each(|task| tx.put(run(task)));
        Ok::<_, store::Error>(())
    };
    Ok(app.store.update("bench: report", report).await?)
}

fn placed(task: &Task) -> Decision {
    let sentence = format!("service below its desired count; {} has most room, 1 of 200 was as good", task.instance);
    let service = ServiceKey { cluster: task.cluster.clone(), service: "storefront".into() };
    Decision {
        at: NOW,
        subject: Subject::Task { task: task.id.clone(), service: Some(service) },
        action: "start task".to_owned(),
        reason: Reason::new(ReasonCode::Placed, sentence).with("instance", task.instance.as_str()),
        trace: task.trace.clone(),
    }
}

struct Restarted {
    took: Duration,
    cpu_s: f64,
    rss: f64,
}

/// Starts this program on the directory as anybody would, waits for its `/health`, and ends it as a crash does.
fn restart(dir: &Path) -> anyhow::Result<Restarted> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", "--listen", &address.to_string(), "--data-dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let measured = up(&mut child, address, begun);
    child.kill()?;
    child.wait()?;
    measured
}

fn up(child: &mut Child, address: SocketAddr, begun: Instant) -> anyhow::Result<Restarted> {
    while !healthy(address) {
        if let Some(status) = child.try_wait()? {
            bail!("the restarted program ended with {status}");
        }
        if begun.elapsed() > UP_WITHIN {
            bail!("the restarted program does not answer");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begun.elapsed();
    let cpu_s = cpu_seconds(child.id())?;
    // The first passes of its loops belong to what it holds.
    std::thread::sleep(Duration::from_secs(2));
    let statm = fs::read_to_string(format!("/proc/{}/statm", child.id()))?;
    let pages: f64 = statm.split(' ').nth(1).context("statm has a second number")?.parse()?;
    Ok(Restarted { took, cpu_s, rss: pages * 4096.0 })
}

fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("stat names the program")?.1;
    let ticks: Vec<f64> = after_name.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    // A hundred ticks a second on every Linux that matters.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(b"GET /health HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        socket.read_exact(&mut head)?;
        Ok(head.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}
