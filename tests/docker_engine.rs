//! The Docker engine against a real Docker. Every test has an installation of its own and removes what it made. The image is our own
//! static binary, so no registry is needed. Without Docker these tests fail, unless BEAUFORT_NO_DOCKER is set.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use beaufort::agent::docker::{DockerConfig, DockerEngine, TASK_NETWORK};
use beaufort::agent::engine::{ContainerSpec, Engine, EngineEvent, Observed, ObservedState, Started, Streams};
use beaufort::clock::SystemClock;
use beaufort::model::arn::Home;
use beaufort::model::definition::{ContainerDefinition, LogConfiguration, MountPoint, NetworkMode, PortMapping, Volume};
use beaufort::model::link::UsageSample;
use beaufort::model::log::{LineBatch, LogTarget, ResumePoint};
use beaufort::model::{DefinitionKey, TaskId};
use bollard::Docker;
use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::*;
use futures_util::{Future, FutureExt};

const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    engine: Option<DockerEngine>,
    streams: Streams,
    config: DockerConfig,
    image: String,
    docker: Docker,
}

impl World {
    fn engine(&self) -> &DockerEngine {
        self.engine.as_ref().expect("taken only while it is replaced")
    }

    fn task(&self, number: u32) -> TaskId {
        TaskId::new(format!("{:024x}{number:08x}", std::process::id()))
    }

    fn spec(&self, task: u32, name: &str, command: &[&str]) -> ContainerSpec {
        let task = self.task(task);
        let container = ContainerDefinition {
            name: name.to_owned(),
            image: self.image.clone(),
            command: Some(command.iter().map(|c| (*c).to_owned()).collect()),
            log_configuration: Some(LogConfiguration { log_driver: "awslogs".into(), ..Default::default() }),
            ..Default::default()
        };
        ContainerSpec {
            log_target: Some(LogTarget { group: "/test".into(), stream: format!("x/{name}/{task}"), create_group: true }),
            task,
            cluster: "default".into(),
            service: None,
            definition: DefinitionKey::new("test", 1),
            network_mode: NetworkMode::Bridge,
            container,
            container_uuid: "uuid".into(),
            volumes: Vec::new(),
            join_network: None,
            siblings: BTreeMap::new(),
            pid_mode: None,
            ipc_mode: None,
            task_cpu: None,
            task_memory: None,
            environment: Vec::new(),
        }
    }

    async fn run(&self, spec: &ContainerSpec) -> (String, Started) {
        let id = self.engine().create(spec).await.unwrap();
        let started = self.engine().start(&id).await.unwrap();
        (id, started)
    }

    async fn died(&mut self, id: &str) -> (Option<i32>, bool) {
        let wait = async {
            loop {
                match self.streams.events.recv().await.expect("the stream ends with the engine") {
                    EngineEvent::Died { runtime_id, exit_code, oom_killed, .. } if runtime_id == id => {
                        return (exit_code, oom_killed);
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the container ends")
    }

    /// All lines up to the one that `last` accepts, with their numbers.
    async fn lines(&mut self, last: impl Fn(&str) -> bool) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        while !all.last().is_some_and(|(_, line): &(u64, String)| last(line)) {
            let batch = tokio::time::timeout(PATIENCE, self.streams.lines.recv()).await.expect("lines come");
            take(&batch.expect("the stream ends with the engine"), &mut all);
        }
        all
    }

    async fn sample(&mut self, id: &str, wanted: impl Fn(&UsageSample) -> bool) -> Arc<UsageSample> {
        let wait = async {
            loop {
                let batch = self.streams.usage.recv().await.expect("the stream ends with the engine");
                if let Some(sample) = batch.samples.into_iter().find(|s| &*s.runtime_id == id && wanted(s)) {
                    return sample;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("such a sample comes")
    }

    async fn seen(&self, id: &str) -> Observed {
        self.engine().list().await.unwrap().into_iter().find(|o| o.runtime_id == id).expect("it is ours")
    }

    async fn restart_agent(&mut self, resume: Vec<ResumePoint>) {
        self.engine = None;
        let engine = DockerEngine::connect(self.config.clone()).await.unwrap();
        engine.resume_lines(resume);
        self.streams = engine.streams();
        self.engine = Some(engine);
    }
}

fn take(batch: &LineBatch, all: &mut Vec<(u64, String)>) {
    assert_eq!(batch.lost_before, 0);
    for (k, event) in batch.events.iter().enumerate() {
        all.push((batch.first + k as u64, event.message.to_string()));
    }
}

/// Runs a test in an installation of its own, and removes all of it, whatever happens.
fn test<F>(name: &str, configure: impl FnOnce(&mut DockerConfig), body: impl FnOnce(World) -> F)
where
    F: Future<Output = World>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let installation = format!("test-{name}-{}", std::process::id());
        let image = format!("beaufort-test/{installation}:1");
        let mut config = DockerConfig::new(&installation, Home::new("us-east-1", "000000000000"), Arc::new(SystemClock));
        config.pause_image = Some(image.clone());
        config.pause_pool = 0;
        config.stored_wait_ms = 0;
        configure(&mut config);
        let engine = match DockerEngine::connect(config.clone()).await {
            Ok(engine) => engine,
            Err(error) if std::env::var_os("BEAUFORT_NO_DOCKER").is_some() => {
                eprintln!("skipped, as BEAUFORT_NO_DOCKER is set: {error}");
                return;
            }
            Err(error) => panic!("these tests need Docker (set BEAUFORT_NO_DOCKER to skip them): {error}"),
        };
        let docker = Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_beaufort"));
        engine.ensure_image_of(binary, &image, &["/beaufort"], &["testbed", "exit", "0"]).await.unwrap();
        let streams = engine.streams();
        let world = World { engine: Some(engine), streams, config: config.clone(), image: image.clone(), docker: docker.clone() };
        let result = AssertUnwindSafe(body(world)).catch_unwind().await;
        clean(&docker, &config, &image).await;
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

async fn clean(docker: &Docker, config: &DockerConfig, image: &str) {
    let mark = HashMap::from([("label", vec![format!("beaufort.installation={}", config.installation)])]);
    let force = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    let all = ListContainersOptionsBuilder::default().all(true).filters(&mark).build();
    for container in docker.list_containers(Some(all)).await.unwrap() {
        let _ = docker.remove_container(&container.id.unwrap(), Some(force.clone())).await;
    }
    let volumes = docker.list_volumes(Some(ListVolumesOptionsBuilder::default().filters(&mark).build())).await.unwrap();
    for volume in volumes.volumes.into_iter().flatten() {
        let _ = docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await;
    }
    let engine = DockerEngine::connect(config.clone()).await.unwrap();
    engine.shutdown_cleanup().await.unwrap();
    let _ = docker.remove_image(image, None::<RemoveImageOptions>, None).await;
}

fn get(address: &str, port: u16) -> String {
    // The process runs when start returns; it listens a moment later.
    for _ in 0..100 {
        if let Ok(mut stream) = TcpStream::connect((address, port)) {
            let mut answer = String::new();
            if stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && !answer.is_empty()
            {
                return answer;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing answers at {address}:{port}");
}

#[test]
fn a_container_lives_and_ends() {
    test(
        "life",
        |_| {},
        |mut world| async move {
            let spec = world.spec(1, "my_app", &["testbed", "exit", "7"]);
            let id = world.engine().create(&spec).await.unwrap();
            assert_eq!(world.engine().create(&spec).await.unwrap(), id, "made once, however often it is asked for");
            assert_eq!(world.seen(&id).await.state, ObservedState::Created);
            world.engine().start(&id).await.unwrap();
            assert_eq!(world.died(&id).await, (Some(7), false));
            let seen = world.seen(&id).await;
            assert_eq!((seen.state, seen.exit_code, seen.task), (ObservedState::Exited, Some(7), spec.task.clone()));
            assert!(seen.finished_at >= seen.started_at && seen.started_at.is_some());
            world.engine().start(&id).await.unwrap();
            assert_eq!(world.died(&id).await.0, Some(7), "the same container is started again");
            world.engine().remove(&id).await.unwrap();
            world.engine().remove(&id).await.unwrap();
            assert_eq!(world.engine().list().await.unwrap(), vec![]);
            world
        },
    );
}

#[test]
fn stopping_is_polite_first() {
    test(
        "stop",
        |_| {},
        |mut world| async move {
            let (polite, _) = world.run(&world.spec(1, "polite", &["testbed", "sleep", "100"])).await;
            let (deaf, _) = world.run(&world.spec(2, "deaf", &["testbed", "ignore-term"])).await;
            // It is deaf once it has said so.
            world.lines(|line| line == "ignoring SIGTERM").await;
            assert_eq!(world.engine().remove(&deaf).await.unwrap_err().name, "CannotRemoveContainerError");
            world.engine().stop(&polite, 30_000).await.unwrap();
            assert_eq!(world.died(&polite).await.0, Some(0));
            world.engine().stop(&deaf, 1_000).await.unwrap();
            assert_eq!(world.died(&deaf).await.0, Some(137));
            world.engine().stop(&deaf, 1_000).await.unwrap();
            world.engine().stop("no-such-container", 1_000).await.unwrap();
            world
        },
    );
}

#[test]
fn errors_are_named_as_on_aws() {
    test(
        "errors",
        |_| {},
        |world| async move {
            let error = world.engine().pull("127.0.0.1:1/no-such-image:1").await.unwrap_err();
            assert_eq!((error.name, error.unreachable), ("CannotPullContainerError", false));
            let mut spec = world.spec(1, "app", &["testbed", "exit", "0"]);
            assert_eq!(world.engine().pull(&world.image).await.unwrap().digest, None, "a local image has no digest");
            spec.container.image = "no-such-image:1".into();
            assert_eq!(world.engine().create(&spec).await.unwrap_err().name, "CannotCreateContainerError");
            spec.container.image = world.image.clone();
            spec.container.entry_point = Some(vec!["/no-such-program".into()]);
            let id = world.engine().create(&spec).await.unwrap();
            assert_eq!(world.engine().start(&id).await.unwrap_err().name, "CannotStartContainerError");
            let mut elsewhere = world.config.clone();
            elsewhere.docker_host = Some("unix:///no/such/socket".into());
            assert!(DockerEngine::connect(elsewhere).await.err().unwrap().unreachable);
            world
        },
    );
}

#[test]
fn bridge_ports_are_reached_on_the_host() {
    test(
        "ports",
        |_| {},
        |world| async move {
            let mut spec = world.spec(1, "web", &["testbed", "http", "8080"]);
            spec.container.port_mappings = Some(vec![PortMapping { container_port: Some(8080), ..Default::default() }]);
            let (id, started) = world.run(&spec).await;
            assert_eq!(started.bindings.len(), 1);
            let binding = &started.bindings[0];
            assert_eq!((binding.container_port, &*binding.protocol, &*binding.address), (8080, "tcp", "0.0.0.0"));
            assert!(binding.host_port > 1024);
            assert!(get("127.0.0.1", binding.host_port).contains("hello from"));
            assert_eq!(world.seen(&id).await.bindings, started.bindings);
            world
        },
    );
}

#[test]
fn bridge_tasks_join_the_network_that_the_agent_is_told() {
    test(
        "network",
        |_| {},
        |mut world| async move {
            let name = format!("beaufort-test-{}", std::process::id());
            world.config.task_network = Some(name.clone());
            let missing = DockerEngine::connect(world.config.clone()).await.err().unwrap();
            assert_eq!((missing.name, missing.unreachable), (TASK_NETWORK, false));
            assert!(missing.text.contains(&name), "{missing}");
            // Labelled as the installation's, so that it goes with the rest at the end.
            let labels = HashMap::from([("beaufort.installation".to_owned(), world.config.installation.clone())]);
            let request = NetworkCreateRequest { name: name.clone(), labels: Some(labels), ..Default::default() };
            world.docker.create_network(request).await.unwrap();
            world.restart_agent(Vec::new()).await;
            let mut spec = world.spec(1, "web", &["testbed", "http", "8080"]);
            spec.container.port_mappings = Some(vec![PortMapping { container_port: Some(8080), ..Default::default() }]);
            let (id, started) = world.run(&spec).await;
            assert_eq!(started.network.as_deref(), Some(name.as_str()));
            let address = started.address.clone().unwrap();
            assert!(get(&address, 8080).contains("hello from"));
            assert!(get("127.0.0.1", started.bindings[0].host_port).contains("hello from"), "ports are mapped all the same");
            let members = world.docker.inspect_network(&name, None::<InspectNetworkOptions>).await.unwrap().containers.unwrap();
            assert!(members[&id].ipv4_address.as_ref().unwrap().starts_with(&format!("{address}/")));
            let sample = world.sample(&id, |s| s.network.is_some_and(|n| n.receive_bytes > 0)).await;
            assert_eq!(&*sample.container, "web");
            // An agent that is told of no network any more still knows where this one is.
            world.config.task_network = None;
            world.restart_agent(Vec::new()).await;
            let seen = world.seen(&id).await;
            assert_eq!((seen.address, seen.network), (started.address, started.network));
            world
        },
    );
}

#[test]
fn awsvpc_tasks_have_addresses_of_their_own() {
    test(
        "awsvpc",
        |config| config.pause_pool = 1,
        |mut world| async move {
            let mut hosts = Vec::new();
            for number in 1..=3 {
                let (pause, network) = world.engine().pause(&world.task(number), "default").await.unwrap();
                let again = world.engine().pause(&world.task(number), "default").await.unwrap();
                assert_eq!(again.0, pause, "a task has one pause");
                let mut spec = world.spec(number, "web", &["testbed", "http", "80"]);
                (spec.network_mode, spec.join_network) = (NetworkMode::Awsvpc, Some(pause.clone()));
                let (id, _) = world.run(&spec).await;
                let address = network.address.unwrap();
                let answer = get(&address, 80);
                assert!(answer.contains(&format!("hello from ip-{}", address.replace('.', "-"))), "{answer}");
                let sample = world.sample(&id, |s| s.network.is_some_and(|n| n.receive_bytes > 0)).await;
                assert_eq!(&*sample.container, "web");
                hosts.push(address);
                let seen = world.seen(&pause).await;
                assert_eq!((seen.container.as_str(), seen.task), ("~internal~ecs~pause", world.task(number)));
            }
            hosts.sort();
            hosts.dedup();
            assert_eq!(hosts.len(), 3);
            // Another agent of the same installation finds the same pauses by their names.
            let before: Vec<_> = world.engine().list().await.unwrap().into_iter().map(|o| (o.runtime_id, o.task)).collect();
            world.restart_agent(Vec::new()).await;
            let after: Vec<_> = world.engine().list().await.unwrap().into_iter().map(|o| (o.runtime_id, o.task)).collect();
            assert_eq!(before, after);
            let pause = world.engine().pause(&world.task(1), "default").await.unwrap().0;
            world.engine().stop(&pause, 1_000).await.unwrap();
            assert_eq!(world.died(&pause).await.0, Some(0));
            world.engine().remove(&pause).await.unwrap();
            world
        },
    );
}

#[test]
fn limits_reach_the_kernel_and_usage_is_seen() {
    test(
        "usage",
        |_| {},
        |mut world| async move {
            let mut own = world.spec(1, "own", &["testbed", "spin", "500"]);
            own.container.memory = Some(64);
            let (own, _) = world.run(&own).await;
            let mut of_task = world.spec(2, "of-task", &["testbed", "spin", "1000"]);
            (of_task.task_cpu, of_task.task_memory) = (Some(256), Some(128));
            let (of_task, _) = world.run(&of_task).await;
            let mut greedy = world.spec(3, "greedy", &["testbed", "hold", "100"]);
            greedy.container.memory = Some(16);
            let (greedy, _) = world.run(&greedy).await;
            let (exit_code, oom_killed) = world.died(&greedy).await;
            assert_eq!((exit_code, oom_killed), (Some(137), true));

            let sample = world.sample(&own, |s| s.interval_ms > 0 && (0.35..0.65).contains(&s.cpu_cores)).await;
            assert_eq!(sample.memory_limit_bytes, 64 << 20);
            assert!(sample.memory_usage_bytes > 0 && sample.processes > 0 && sample.network.is_some(), "{sample:?}");
            let sample = world.sample(&of_task, |s| s.interval_ms > 0 && (0.15..0.35).contains(&s.cpu_cores)).await;
            assert_eq!(sample.memory_limit_bytes, 128 << 20, "the task's limit is its parent cgroup's");
            assert!(sample.throttled_periods > 0 && sample.throttled_ns > 0, "{sample:?}");

            for id in [&own, &of_task] {
                world.engine().stop(id, 0).await.unwrap();
                world.engine().remove(id).await.unwrap();
            }
            world.engine().clean_up(&world.task(2)).await.unwrap();
            world
        },
    );
}

#[test]
fn every_line_of_a_flood_is_delivered_once_over_rotations() {
    test(
        "flood",
        |config| config.log_max_size = "8m".into(),
        |mut world| async move {
            const LINES: u64 = 250_000;
            let spec = world.spec(1, "flood", &["testbed", "print", &LINES.to_string()]);
            let (id, _) = world.run(&spec).await;
            let lines = world.lines(|line| line.starts_with(&format!("line {LINES} "))).await;
            assert_eq!(lines.len() as u64, LINES);
            for (k, (number, line)) in lines.iter().enumerate() {
                assert_eq!(*number, k as u64 + 1);
                assert!(line.starts_with(&format!("line {number} ")), "{line}");
            }
            world.died(&id).await;
            world.engine().remove(&id).await.unwrap();
            world
        },
    );
}

#[test]
fn short_lives_and_last_lines_are_not_lost() {
    test(
        "short",
        |_| {},
        |mut world| async move {
            for number in 1..=3 {
                let (id, _) = world.run(&world.spec(number, "short", &["testbed", "say", "first\nno newline here"])).await;
                let lines = world.lines(|line| line == "no newline here").await;
                assert_eq!(lines, vec![(1, "first".to_owned()), (2, "no newline here".to_owned())]);
                world.engine().remove(&id).await.unwrap();
            }
            // A line of 100 KB comes from Docker in parts of 16 KiB.
            world.run(&world.spec(9, "long", &["testbed", "print", "2", "100000"])).await;
            let lines = world.lines(|line| line.starts_with("line 2 ")).await;
            assert_eq!(lines.iter().map(|(_, line)| line.len()).collect::<Vec<_>>(), vec![100_007, 100_007]);
            world
        },
    );
}

#[test]
fn an_agent_that_comes_back_goes_on_where_it_stood() {
    test(
        "adopt",
        |_| {},
        |mut world| async move {
            const LINES: usize = 100_000;
            let spec = world.spec(1, "writer", &["testbed", "print", &LINES.to_string()]);
            let (id, _) = world.run(&spec).await;
            let mut lines = Vec::new();
            while lines.len() < LINES / 3 {
                let batch = world.streams.lines.recv().await.unwrap();
                take(&batch, &mut lines);
                if lines.len() >= LINES / 3 {
                    let next = batch.first + batch.events.len() as u64;
                    world.restart_agent(vec![ResumePoint { source: id.clone(), next, resume: batch.resume }]).await;
                }
            }
            let adopted = world.seen(&id).await;
            assert_eq!((adopted.task, adopted.container.as_str()), (spec.task, "writer"));
            lines.extend(world.lines(|line| line.starts_with(&format!("line {LINES} "))).await);
            let expected: Vec<u64> = (1..=LINES as u64).collect();
            assert_eq!(lines.iter().map(|(number, _)| *number).collect::<Vec<_>>(), expected);
            assert!(lines.iter().all(|(number, line)| line.starts_with(&format!("line {number} "))));
            world
        },
    );
}

#[test]
fn without_files_docker_itself_is_asked() {
    let configure = |config: &mut DockerConfig| (config.read_cgroups, config.read_log_files) = (false, false);
    test("fallback", configure, |mut world| async move {
        let (id, _) = world.run(&world.spec(1, "print", &["testbed", "print", "5000"])).await;
        let lines = world.lines(|line| line.starts_with("line 5000 ")).await;
        assert_eq!(lines.len(), 5000);
        world.died(&id).await;
        world.engine().remove(&id).await.unwrap();
        let (id, _) = world.run(&world.spec(2, "spin", &["testbed", "spin", "500"])).await;
        let sample = world.sample(&id, |s| s.interval_ms > 0 && s.cpu_cores > 0.2).await;
        assert!(sample.memory_usage_bytes > 0 && sample.network.is_some());
        world
    });
}

#[test]
fn an_image_of_an_older_binary_of_ours_goes_when_it_is_replaced() {
    test(
        "images",
        |_| {},
        |world| async move {
            let name = format!("beaufort/replaced:{}", std::process::id());
            let program = std::env::temp_dir().join(format!("beaufort-replaced-{}", std::process::id()));
            let mut made = Vec::new();
            for content in ["first", "second"] {
                std::fs::write(&program, content).unwrap();
                world.engine().ensure_image_of(&program, &name, &["/beaufort"], &["web"]).await.unwrap();
                made.push(world.docker.inspect_image(&name).await.unwrap().id.unwrap());
            }
            let old = world.docker.inspect_image(&made[0]).await;
            world.engine().remove_image(&name).await.unwrap();
            std::fs::remove_file(&program).unwrap();
            assert!(made[0] != made[1] && old.is_err(), "an image without a name was left: {old:?}");
            world
        },
    );
}

#[test]
fn scratch_volumes_live_as_long_as_the_task() {
    test(
        "volumes",
        |_| {},
        |world| async move {
            let mut spec = world.spec(1, "app", &["testbed", "exit", "0"]);
            spec.volumes = vec![Volume { name: Some("scratch".into()), ..Default::default() }];
            spec.container.mount_points = Some(vec![MountPoint {
                source_volume: Some("scratch".into()),
                container_path: Some("/scratch".into()),
                read_only: None,
            }]);
            let (id, _) = world.run(&spec).await;
            let mark = HashMap::from([("label", vec![format!("beaufort.task={}", spec.task)])]);
            let count = async || {
                let options = ListVolumesOptionsBuilder::default().filters(&mark).build();
                let found = world.docker.list_volumes(Some(options)).await.unwrap().volumes.unwrap_or_default();
                assert!(found.iter().all(|v| v.name.starts_with("ecs-test-1-scratch-")));
                found.len()
            };
            assert_eq!(count().await, 1);
            world.engine().stop(&id, 1_000).await.unwrap();
            world.engine().remove(&id).await.unwrap();
            world.engine().clean_up(&spec.task).await.unwrap();
            assert_eq!(count().await, 0);
            world
        },
    );
}
