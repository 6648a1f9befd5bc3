//! What agents' batches become, on a store in memory and a clock that stands still.

use super::*;
use crate::clock::{ManualClock, SharedClock};
use crate::model::metric::{Query, Statistic};
use crate::telemetry::metrics::Limits;

const START: Timestamp = Timestamp(1_795_176_000_000);
const GIB: u64 = 1 << 30;

struct World {
    clock: Arc<ManualClock>,
    store: Arc<MetricStore>,
    ingest: Ingest,
}

fn world() -> World {
    let clock = ManualClock::at(START);
    let store = MetricStore::open(None, clock.clone() as SharedClock, Limits::default()).unwrap();
    World { clock, ingest: Ingest::new(store.clone()), store }
}

fn facts(task: &str) -> Option<Arc<TaskFacts>> {
    (task != "stranger").then(|| {
        Arc::new(TaskFacts {
            cluster: ClusterName::new("c"),
            service: task.starts_with("web").then(|| ServiceName::new("web")),
            family: Arc::from("fam"),
            cpu_reserved: if task == "web-free" { 0 } else { 512 },
            memory_reserved_mib: 1024,
            cluster_cpu_registered: 4096,
            cluster_memory_registered: 8192,
        })
    })
}

fn sample(task: &str, container: &str, interval_ms: Millis, cpu_cores: f64) -> UsageSample {
    UsageSample {
        task: task.into(),
        container: container.into(),
        runtime_id: format!("{task}-{container}").into(),
        interval_ms,
        cpu_cores,
        memory_bytes: GIB / 4,
        ..UsageSample::default()
    }
}

impl World {
    fn pass(&self, samples: Vec<UsageSample>) {
        self.pass_of("i", samples);
    }

    fn pass_of(&self, instance: &str, samples: Vec<UsageSample>) {
        let at = crate::clock::Clock::now(&*self.clock) - 50;
        let samples = samples.into_iter().map(Arc::new).collect();
        self.ingest.usage(&instance.into(), &UsageBatch { at, samples, cost_us: 0 }, &mut facts);
    }

    fn tasks(&self) -> usize {
        self.ingest.lanes.iter().map(|lane| lock(lane).len()).sum()
    }

    /// (Seconds after the start, value) of each second.
    fn read(&self, namespace: &str, name: &str, dimensions: &[(&str, &str)], statistic: &str) -> Vec<(i64, f64)> {
        let q = Query {
            key: MetricKey::new(namespace, name, dimensions.iter().copied()),
            statistic: Statistic::parse(statistic).unwrap(),
            unit: None,
            start: START - 10_000,
            end: START + 60_000,
            period_ms: 1000,
        };
        self.store.query(&q).iter().map(|p| (p.at.since(START) / 1000, p.value)).collect()
    }
}

#[test]
fn a_service_has_one_sample_per_task_whichever_agent_it_is_on() {
    let w = world();
    w.clock.advance(5_500);
    w.pass(vec![sample("web-1", "app", 1000, 0.25), sample("web-1", "side", 1000, 0.125)]);
    w.pass(vec![sample("web-2", "app", 1000, 0.5)]);
    let service = [("ClusterName", "c"), ("ServiceName", "web")];
    let cpu = |statistic| w.read("AWS/ECS", "CPUUtilization", &service, statistic);
    assert_eq!(cpu("SampleCount"), [(4, 2.0)], "the second before the pass");
    assert_eq!((cpu("Minimum"), cpu("Maximum"), cpu("Average")), (vec![(4, 75.0)], vec![(4, 100.0)], vec![(4, 87.5)]));
    assert_eq!(cpu("p50"), [(4, 75.0)]);
    assert_eq!(w.read("AWS/ECS", "MemoryUtilization", &service, "Average"), [(4, 37.5)]);
    let task = [service[0], service[1], ("TaskId", "web-1")];
    assert_eq!(w.read("AWS/ECS", "CPUUtilization", &task, "Sum"), [(4, 75.0)]);
    let container = [task[0], task[1], task[2], ("ContainerName", "side")];
    assert_eq!(w.read("AWS/ECS", "CPUUtilization", &container, "Sum"), [(4, 25.0)]);
    assert_eq!(w.read("ECS/ContainerInsights", "CpuUtilized", &service, "Sum"), [(4, 896.0)]);
    assert_eq!(w.read("ECS/ContainerInsights", "MemoryUtilized", &[service[0]], "Sum"), [(4, 768.0)]);
    assert_eq!(w.read("ECS/ContainerInsights", "CpuReserved", &service, "Sum"), [(4, 1024.0)]);
}

#[test]
fn a_cluster_is_measured_against_what_is_registered() {
    let w = world();
    w.clock.advance(5_500);
    w.pass(vec![sample("web-1", "app", 1000, 1.0)]);
    w.pass(vec![sample("job", "app", 1000, 1.0)]);
    w.clock.advance(1000);
    w.pass(vec![sample("web-1", "app", 1000, 0.0)]);
    assert_eq!(w.read("AWS/ECS", "CPUUtilization", &[("ClusterName", "c")], "Sum"), [(4, 50.0)]);
    assert_eq!(w.read("AWS/ECS", "MemoryUtilization", &[("ClusterName", "c")], "Sum"), [(4, 6.25)]);
    let job = [("ClusterName", "c"), ("TaskDefinitionFamily", "fam"), ("TaskId", "job")];
    assert_eq!(w.read("AWS/ECS", "CPUUtilization", &job, "Sum"), [(4, 200.0)]);
}

#[test]
fn no_reservation_falls_back_to_the_cluster() {
    let w = world();
    w.pass(vec![sample("web-free", "app", 1000, 1.0)]);
    let task = [("ClusterName", "c"), ("ServiceName", "web"), ("TaskId", "web-free")];
    assert_eq!(w.read("AWS/ECS", "CPUUtilization", &task, "Sum"), [(-2, 25.0)]);
}

#[test]
fn the_first_sample_gives_no_rate() {
    let w = world();
    let service = [("ClusterName", "c"), ("ServiceName", "web")];
    let with = |runtime: &str, interval_ms, bytes| {
        let network = NetworkTotals { receive_bytes: bytes, transmit_bytes: 2 * bytes, ..NetworkTotals::default() };
        let io = UsageSample { block_read_bytes: bytes, ..sample("web-1", "app", interval_ms, 0.25) };
        UsageSample { runtime_id: runtime.into(), network: Some(network), ..io }
    };
    w.clock.advance(500);
    for (runtime, interval_ms, bytes) in [("r1", 0, 1000), ("r1", 2000, 5000), ("r2", 0, 900), ("r2", 1000, 1000)] {
        w.pass(vec![with(runtime, interval_ms, bytes)]);
        w.clock.advance(1000);
    }
    let read = |name| w.read("ECS/ContainerInsights", name, &service, "Sum");
    assert_eq!(read("NetworkRxBytes"), [(0, 2000.0), (2, 100.0)]);
    assert_eq!(read("NetworkTxBytes"), [(0, 4000.0), (2, 200.0)]);
    assert_eq!(read("StorageReadBytes"), [(0, 4000.0), (2, 100.0)]);
    assert_eq!(read("MemoryUtilized").len(), 4);
    assert_eq!(w.read("AWS/ECS", "CPUUtilization", &service, "Average"), [(0, 50.0), (2, 50.0)]);
}

#[test]
fn the_latest_sample_goes_stale_and_strangers_are_counted() {
    let w = world();
    w.pass(vec![sample("web-1", "app", 1000, 0.5), sample("stranger", "app", 1000, 0.5)]);
    let latest = w.ingest.latest();
    assert_eq!((latest.len(), latest[0].sample.cpu_cores, w.ingest.unknown_samples()), (1, 0.5, 1));
    w.clock.advance(5_000);
    assert_eq!(w.ingest.latest().len(), 1);
    w.clock.advance(1);
    assert_eq!(w.ingest.latest().len(), 0);
    w.pass(vec![]);
    assert_eq!((w.tasks(), lock(&w.ingest.groups).len()), (0, 0));
}

#[test]
fn many_agents_of_one_moment_are_put_together_and_nothing_is_lost() {
    let w = world();
    w.clock.advance(5_500);
    let service = [("ClusterName", "c"), ("ServiceName", "web")];
    let samples = || w.read("AWS/ECS", "CPUUtilization", &service, "SampleCount");
    for n in 0..300 {
        let cores = if n % 2 == 0 { 0.25 } else { f64::from(n) / 1_000.0 };
        w.pass_of(&format!("i{n}"), vec![sample(&format!("web-{n}"), "app", 1000, cores)]);
    }
    assert_eq!(samples(), [(4, 4.0)], "the first are seen at once");
    w.ingest.flush();
    assert_eq!(samples(), [(4, 300.0)]);
    assert_eq!(w.read("AWS/ECS", "CPUUtilization", &service, "Minimum"), [(4, 0.2)]);
    let maximum = w.read("AWS/ECS", "CPUUtilization", &service, "p100")[0].1;
    assert!((maximum - 59.8).abs() < 1e-9, "{maximum}");
    assert_eq!(w.read("ECS/ContainerInsights", "CpuReserved", &[service[0]], "Sum"), [(4, 300.0 * 512.0)]);
    assert_eq!(w.read("ECS/ContainerInsights", "CpuReserved", &service, "SampleCount"), [(4, 300.0)]);
    // What nobody flushed goes with the first batch of the next window.
    w.clock.advance(1_000);
    for n in 0..10 {
        w.pass_of(&format!("i{n}"), vec![sample(&format!("web-{n}"), "app", 1000, 0.5)]);
    }
    w.clock.advance(100);
    w.pass_of("i10", vec![sample("web-10", "app", 1000, 0.5)]);
    assert_eq!(samples().last(), Some(&(5, 11.0)));
}

#[test]
fn goes_on_after_the_store_was_reset() {
    let w = world();
    w.pass(vec![sample("web-1", "app", 1000, 0.5)]);
    w.store.reset();
    for _ in 0..2 {
        w.clock.advance(1000);
        w.pass(vec![sample("web-1", "app", 1000, 0.5)]);
    }
    assert_eq!(
        w.read("AWS/ECS", "CPUUtilization", &[("ClusterName", "c"), ("ServiceName", "web")], "Sum"),
        [(-1, 100.0), (0, 100.0)]
    );
}
