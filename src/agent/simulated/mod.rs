//! A container engine without containers, for tests and simulations: thousands of them from one timer. Nothing happens by itself:
//! [`SimulatedEngine::tick`] brings it up to a moment. Its state outlives the agent that uses it, as Docker's does.

mod behaviour;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::engine::{
    ContainerSpec, Engine, EngineError, EngineEvent, EngineInfo, Observed, ObservedState, Pulled, RuntimeId, Started, Streams,
};
use crate::clock::SharedClock;
use crate::decide::container::PAUSE;
use crate::model::definition::NetworkMode;
use crate::model::log::ResumePoint;
use crate::model::task::Resources;
use crate::model::{Millis, TaskId, Timestamp};

pub use behaviour::Behaviour;
use world::{Due, Simulated, World};

const EVENTS: usize = 4096;
const USAGE: usize = 64;
const LINES: usize = 256;
/// Between two looks at whether a container's lines have been read.
const LOOK_MS: Millis = 100;

pub struct SimulatedEngine {
    world: Mutex<World>,
    clock: SharedClock,
    host: SimulatedHost,
}

#[derive(Clone, Debug)]
pub struct SimulatedHost {
    pub name: String,
    pub address: String,
    pub resources: Resources,
}

impl Default for SimulatedHost {
    fn default() -> SimulatedHost {
        let resources = Resources { cpu: 4096, memory: 16_384, ..Default::default() };
        SimulatedHost { name: "simulated".into(), address: "127.0.0.1".into(), resources }
    }
}

fn error(name: &'static str, text: impl Into<String>) -> EngineError {
    EngineError { name, text: text.into(), unreachable: false }
}

impl SimulatedEngine {
    pub fn new(host: SimulatedHost, clock: SharedClock) -> Arc<SimulatedEngine> {
        let world = Mutex::new(World::at(clock.now()));
        Arc::new(SimulatedEngine { world, clock, host })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everything happen that is due until `now`, in order, then hands on what it caused.
    pub fn tick(&self, now: Timestamp) {
        self.world().advance(now);
    }

    /// The cores that each container of a task uses from now on.
    pub fn set_cpu(&self, task: &TaskId, cores: f64) {
        self.world().cpu.insert(task.clone(), cores);
    }

    pub fn set_memory(&self, task: &TaskId, bytes: u64) {
        self.world().memory.insert(task.clone(), bytes);
    }

    /// Cores of a container by task, name and time; where it says None, [`SimulatedEngine::set_cpu`] or the image does.
    pub fn set_load(&self, load: impl Fn(&TaskId, &str, Timestamp) -> Option<f64> + Send + 'static) {
        self.world().load = Some(Box::new(load));
    }

    /// The process dies as if somebody killed it.
    pub fn kill(&self, runtime_id: &str) {
        let now = self.clock.now();
        let mut world = self.world();
        world.exit(runtime_id, 137, false, now);
        world.hand_on();
    }

    pub fn write_line(&self, runtime_id: &str, text: &str) {
        let now = self.clock.now();
        let mut world = self.world();
        world.write(runtime_id, text, now);
        world.hand_on();
    }

    /// The engine can be reached no more. `killing`: as a daemon without live-restore that is told to end, whose event stream still
    /// tells of the containers it kills.
    pub fn go_away(&self, killing: bool) {
        let now = self.clock.now();
        let mut world = self.world();
        // No question is answered any more when the first death is heard of.
        world.away = true;
        if killing {
            for id in world.running() {
                world.exit_heard(&id, 137, false, now, true);
            }
        }
        world.emit(EngineEvent::Away { why: "simulated".into() });
        world.hand_on();
    }

    pub fn come_back(&self) {
        let mut world = self.world();
        world.away = false;
        world.emit(EngineEvent::Back);
        world.hand_on();
    }

    /// The host's time of day was set: what is due comes after the same time as before, and is told in the new one.
    pub fn clock_jumped(&self, ms: Millis) {
        self.world().shift(ms);
    }

    /// A running container is killed for its memory.
    pub fn kill_for_memory(&self, runtime_id: &str) {
        let now = self.clock.now();
        let mut world = self.world();
        world.exit(runtime_id, 137, true, now);
        world.hand_on();
    }

    /// How long a list is on its way, and so how old when it arrives.
    pub fn set_list_delay(&self, ms: Millis) {
        self.world().list_ms = ms;
    }

    /// How often a container was started, over all of its task's life.
    pub fn starts(&self, task: &TaskId, container: &str) -> u32 {
        self.world().starts.get(&(task.clone(), container.to_owned())).copied().unwrap_or(0)
    }

    /// In order, as `task/container`.
    pub fn start_order(&self) -> Vec<String> {
        self.world().start_order.clone()
    }

    pub fn stop_order(&self) -> Vec<String> {
        self.world().stop_order.clone()
    }

    /// Starts in flight at the same time, at most.
    pub fn most_starts_at_once(&self) -> usize {
        self.world().most_starting
    }

    pub fn containers(&self) -> Vec<Observed> {
        self.world().containers.values().map(|c| c.observed.clone()).collect()
    }

    pub fn runtime_id(&self, task: &TaskId, container: &str) -> Option<RuntimeId> {
        let world = self.world();
        let found = world.containers.values().find(|c| c.observed.task == *task && c.observed.container.as_str() == container);
        found.map(|c| c.observed.runtime_id.clone())
    }

    pub fn cleaned_up(&self, task: &TaskId) -> bool {
        self.world().cleaned.contains(task)
    }

    fn reach(&self) -> Result<MutexGuard<'_, World>, EngineError> {
        let world = self.world();
        if world.away {
            return Err(EngineError { name: "DockerTimeoutError", text: "the engine is away".into(), unreachable: true });
        }
        Ok(world)
    }

    /// Returns when the timer has come so far.
    async fn pass(&self, ms: Millis) {
        if ms > 0 {
            let (done, wait) = oneshot::channel();
            self.world().schedule(self.clock.now() + ms, Due::Call(done));
            let _ = wait.await;
        }
    }

    async fn start_it(&self, id: &str) -> Result<Started, EngineError> {
        let start_ms = {
            let mut world = self.reach()?;
            let container = world.containers.get(id).ok_or_else(|| error("CannotStartContainerError", "no such container"))?;
            if container.observed.state == ObservedState::Running {
                return Ok(world.answer_start(id));
            }
            let behaviour = container.behaviour.clone();
            if behaviour.fail_start {
                return Err(error("CannotStartContainerError", "simulated: exec format error"));
            }
            world.starting += 1;
            world.most_starting = world.most_starting.max(world.starting);
            behaviour.start_ms
        };
        let guard = Starting(self);
        self.pass(start_ms).await;
        drop(guard);
        let now = self.clock.now();
        let mut world = self.world();
        if !world.containers.contains_key(id) {
            return Err(error("CannotStartContainerError", "no such container"));
        }
        // Asked for before the engine went away: done, and only the answer is lost.
        world.start(id, now);
        world.hand_on();
        drop(world);
        Ok(self.reach()?.answer_start(id))
    }
}

/// Counts a start down also when its caller gives it up.
struct Starting<'a>(&'a SimulatedEngine);

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.world().starting -= 1;
    }
}

impl Engine for SimulatedEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        drop(self.reach()?);
        Ok(EngineInfo {
            version: "simulated".into(),
            host_name: self.host.name.clone(),
            host_address: self.host.address.clone(),
            resources: self.host.resources.clone(),
            attributes: [("ecs.os-type".to_owned(), Some("linux".to_owned()))].into(),
        })
    }

    /// Called again, it serves a new agent: the old one hears no more.
    fn streams(&self) -> Streams {
        let (events, event_stream) = mpsc::channel(EVENTS);
        let (usage, usage_stream) = mpsc::channel(USAGE);
        let (lines, line_stream) = mpsc::channel(LINES);
        self.world().serve(events, usage, lines);
        Streams { events: event_stream, usage: usage_stream, lines: line_stream }
    }

    async fn list(&self) -> Result<Vec<Observed>, EngineError> {
        let (all, list_ms) = {
            let world = self.reach()?;
            (world.containers.values().map(|c| c.observed.clone()).collect(), world.list_ms)
        };
        self.pass(list_ms).await;
        Ok(all)
    }

    async fn pull(&self, image: &str) -> Result<Pulled, EngineError> {
        let behaviour = behaviour::of_image(image);
        drop(self.reach()?);
        self.pass(behaviour.pull_ms).await;
        drop(self.reach()?);
        if behaviour.fail_pull {
            let text = format!("Error response from daemon: pull access denied for {image}, repository does not exist");
            return Err(error("CannotPullContainerError", text));
        }
        Ok(Pulled { digest: Some(format!("sha256:{image}")) })
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<RuntimeId, EngineError> {
        let behaviour = behaviour::of(&spec.container);
        let mut world = self.reach()?;
        if behaviour.fail_create {
            return Err(error("CannotCreateContainerError", "simulated: invalid mount config"));
        }
        let twin = world
            .containers
            .values()
            .any(|c| c.observed.task == spec.task && c.observed.container.as_str() == spec.container.name);
        if twin {
            return Err(error("CannotCreateContainerError", format!("Conflict. {} is already in use", spec.container.name)));
        }
        let id = world.next_id();
        let mut simulated = Simulated::new(&id, &spec.task, &spec.container.name, behaviour);
        simulated.observed.container_uuid.clone_from(&spec.container_uuid);
        simulated.observed.image_digest = Some(format!("sha256:{}", spec.container.image));
        simulated.has_health_check = spec.container.health_check.is_some();
        if spec.network_mode == NetworkMode::Bridge {
            simulated.ports = spec.container.port_mappings.clone().unwrap_or_default();
        }
        simulated.address_of.clone_from(&spec.join_network);
        simulated.target = spec.log_target.clone().map(|mut target| {
            if target.stream.is_empty() {
                target.stream.clone_from(&id);
            }
            target
        });
        world.containers.insert(id.clone(), simulated);
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<Started, EngineError> {
        self.start_it(id).await
    }

    async fn stop(&self, id: &str, grace_ms: Millis) -> Result<(), EngineError> {
        let ended = {
            let now = self.clock.now();
            let mut world = self.reach()?;
            let ended = world.stop(id, grace_ms, now);
            world.hand_on();
            ended
        };
        if let Some(ended) = ended {
            let _ = ended.await;
        }
        drop(self.reach()?);
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        loop {
            {
                let mut world = self.reach()?;
                world.hand_on();
                match world.containers.get(id) {
                    Some(c) if c.observed.state == ObservedState::Running => {
                        return Err(error("CannotRemoveContainerError", "it is running"));
                    }
                    Some(c) if c.unread() => {}
                    _ => {
                        world.containers.remove(id);
                        return Ok(());
                    }
                }
            }
            self.pass(LOOK_MS).await;
        }
    }

    async fn pause(&self, task: &TaskId, _cluster: &str) -> Result<(RuntimeId, Started), EngineError> {
        let id = {
            let mut world = self.reach()?;
            let id = world.next_id();
            let mut pause =
                Simulated::new(&id, task, PAUSE, Behaviour { cpu_cores: 0.0, memory_bytes: 1 << 20, ..Default::default() });
            pause.observed.address = Some(world.next_address());
            world.containers.insert(id.clone(), pause);
            id
        };
        let started = self.start_it(&id).await?;
        Ok((id, started))
    }

    async fn clean_up(&self, task: &TaskId) -> Result<(), EngineError> {
        self.reach()?.cleaned.insert(task.clone());
        Ok(())
    }

    fn resume_lines(&self, from: Vec<ResumePoint>) {
        let mut world = self.world();
        world.resume_lines(&from);
        world.hand_on();
    }

    fn lines_stored(&self, upto: &[ResumePoint]) {
        self.world().lines_stored(upto);
    }
}
