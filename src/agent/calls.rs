//! The engine calls of one task's steps: each waits for its lane, tries again while the engine cannot be reached (that is never the
//! container's fault), and runs in a span of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Instrument, Span};

use super::engine::{Engine, EngineError, Observed, ObservedState, Pulled, RuntimeId, Started};
use super::lanes::{Lanes, makes_network};
use super::spec::{Surroundings, container_spec};
use crate::clock::SharedClock;
use crate::decide::container::{PAUSE, State, Step, Which};
use crate::model::link::Assignment;
use crate::model::{Millis, Timestamp};
use crate::observe;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The ECS agent tries a stop five times, 1 to 5 s apart, and then takes the container for stopped.
const STOP_TRIES: u32 = 5;
const REMOVE_TRIES: u32 = 5;
/// How long after a stop its die event may take before the engine is asked.
const DEATH_MAY_TAKE: Duration = Duration::from_secs(2);

/// What all runners of an agent share.
pub struct Tools<E> {
    pub engine: Arc<E>,
    pub clock: SharedClock,
    pub lanes: Lanes,
    pub surroundings: Mutex<Surroundings>,
}

/// A start that was made.
pub struct Begun {
    /// Of a pause, which is made by its start.
    pub id: Option<RuntimeId>,
    pub started: Started,
    /// It has ended by now, as was seen when the start's answer was lost.
    pub ended: Option<Observed>,
}

/// What became of a step.
pub enum Outcome {
    Pulled(Result<Pulled, EngineError>),
    Created(Result<RuntimeId, EngineError>),
    Started(Result<Begun, EngineError>),
    /// With what the engine says of the container after the die event failed to come. Ok(None): it is not there.
    Stopped(Result<Option<Observed>, EngineError>),
    Removed(Result<(), EngineError>),
    CleanedUp(Result<(), EngineError>),
}

/// `parent` is the span of the task's start or stop.
pub async fn call<E: Engine>(
    tools: Arc<Tools<E>>,
    task: Arc<Assignment>,
    step: Step,
    state: State,
    parent: Span,
) -> (Step, Outcome) {
    let span = span_of(&task, &step, &parent);
    let work = async {
        match &step {
            Step::Pull(index) => Outcome::Pulled(pull(&tools, &task.containers[*index].image).await),
            Step::Pause => {
                let begun = |(id, started)| Begun { id: Some(id), started, ended: None };
                Outcome::Started(pause(&tools, &task).await.map(begun))
            }
            Step::Create(index) => Outcome::Created(create(&tools, &task, *index, &state).await),
            Step::Start(index) | Step::Restart(index) => {
                let before = state.containers[*index].started_at;
                Outcome::Started(start(&tools, &task, id_of(&state, Which::At(*index)), before).await)
            }
            Step::Stop { which, grace_ms } => Outcome::Stopped(stop(&tools, id_of(&state, *which), *grace_ms).await),
            Step::Remove(which) => {
                let id = id_of(&state, *which);
                // A pause that somebody started again counts as ended, and yet runs.
                if *which == Which::Pause
                    && let Err(error) = several_times(STOP_TRIES, || counted("stop", tools.engine.stop(id, 0))).await
                {
                    return Outcome::Removed(Err(error));
                }
                Outcome::Removed(remove(&tools, id).await)
            }
            Step::CleanUp => Outcome::CleanedUp(clean_up(&tools, &task).await),
        }
    };
    let outcome = work.instrument(span).await;
    (step, outcome)
}

fn span_of(task: &Assignment, step: &Step, parent: &Span) -> Span {
    let id = task.task.as_str();
    let name = |index: &usize| task.containers[*index].name.as_str();
    let which = |which: &Which| match which {
        Which::Pause => PAUSE,
        Which::At(index) => task.containers[*index].name.as_str(),
    };
    match step {
        Step::Pull(index) => {
            let image = task.containers[*index].image.as_str();
            let title = format!("pull {image}");
            tracing::info_span!(parent: parent, "container.pull", task = id, container = name(index), image, otel.name = title)
        }
        Step::Pause => tracing::info_span!(parent: parent, "container.pause", task = id, container = PAUSE),
        Step::Create(index) => {
            let title = format!("create {}", name(index));
            tracing::info_span!(parent: parent, "container.create", task = id, container = name(index), otel.name = title)
        }
        Step::Start(index) | Step::Restart(index) => {
            let verb = if matches!(step, Step::Start(_)) { "start" } else { "restart" };
            let title = format!("{verb} {}", name(index));
            tracing::info_span!(parent: parent, "container.start", task = id, container = name(index), otel.name = title)
        }
        Step::Stop { which: w, grace_ms } => {
            let title = format!("stop {}", which(w));
            tracing::info_span!(parent: parent, "container.stop", task = id, container = which(w), grace_ms, otel.name = title)
        }
        Step::Remove(w) => tracing::debug_span!(parent: parent, "container.remove", task = id, container = which(w)),
        Step::CleanUp => tracing::debug_span!(parent: parent, "task.clean_up", task = id),
    }
}

fn id_of(state: &State, which: Which) -> &str {
    let known = match which {
        Which::Pause => &state.pause,
        Which::At(index) => &state.containers[index],
    };
    known.runtime_id.as_deref().unwrap_or_default()
}

/// One call to the engine, counted and timed; what is tried again counts again.
async fn counted<T>(operation: &str, call: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    let begun = Instant::now();
    let answer = call.await;
    observe::engine_call(operation, answer.is_ok(), begun.elapsed());
    answer
}

/// Grows from a tenth of a second to two: an engine that is back is found soon.
struct Patience(Duration);

impl Patience {
    fn new() -> Patience {
        Patience(FIRST_WAIT)
    }
    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
    }
}

/// Waits without a bound on purpose: an engine that is away stops nothing that runs, and the task can go on when it is back.
pub async fn until_reached<T, F: Future<Output = Result<T, EngineError>>>(mut ask: impl FnMut() -> F) -> Result<T, EngineError> {
    let mut patience = Patience::new();
    loop {
        match ask().await {
            Err(error) if error.unreachable => patience.wait().await,
            answer => return answer,
        }
    }
}

async fn pull<E: Engine>(tools: &Tools<E>, image: &str) -> Result<Pulled, EngineError> {
    let _pass = tools.lanes.pull().await;
    until_reached(|| counted("pull", tools.engine.pull(image))).await
}

async fn create<E: Engine>(tools: &Tools<E>, task: &Assignment, index: usize, state: &State) -> Result<RuntimeId, EngineError> {
    let surroundings = tools.surroundings.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let spec = container_spec(task, index, state, &surroundings);
    let _pass = tools.lanes.create().await;
    let mut patience = Patience::new();
    loop {
        match counted("create", tools.engine.create(&spec)).await {
            Err(error) if error.unreachable => patience.wait().await,
            answer => return answer,
        }
        // It may have been made and only the answer lost: a second one must not be.
        let found = find(tools, |o| o.task == task.task && o.container.as_str() == spec.container.name).await?;
        if let Some(found) = found {
            return Ok(found.runtime_id);
        }
    }
}

async fn pause<E: Engine>(tools: &Tools<E>, task: &Assignment) -> Result<(RuntimeId, Started), EngineError> {
    let _pass = tools.lanes.start(true).await;
    let mut patience = Patience::new();
    loop {
        match counted("pause", tools.engine.pause(&task.task, task.cluster.as_str())).await {
            Err(error) if error.unreachable => patience.wait().await,
            answer => return answer,
        }
        let ours = |o: &Observed| o.task == task.task && o.container.as_str() == PAUSE && o.state == ObservedState::Running;
        if let Some(found) = find(tools, ours).await? {
            let at = found.started_at.unwrap_or_else(|| tools.clock.now());
            return Ok((
                found.runtime_id,
                Started { at, bindings: found.bindings, address: found.address, network: found.network },
            ));
        }
    }
}

async fn find<E: Engine>(tools: &Tools<E>, is: impl Fn(&Observed) -> bool) -> Result<Option<Observed>, EngineError> {
    Ok(until_reached(|| counted("list", tools.engine.list())).await?.into_iter().find(|o| is(o)))
}

/// `before`: when it was started last, as is known.
async fn start<E: Engine>(
    tools: &Tools<E>,
    task: &Assignment,
    id: &str,
    before: Option<Timestamp>,
) -> Result<Begun, EngineError> {
    let _pass = tools.lanes.start(makes_network(task.network_mode)).await;
    let mut patience = Patience::new();
    loop {
        match counted("start", tools.engine.start(id)).await {
            Err(error) if error.unreachable => patience.wait().await,
            answer => return answer.map(|started| Begun { id: None, started, ended: None }),
        }
        // It may have been started and only the answer lost. One that has ended since, perhaps with the engine, must not run twice.
        let ran = |o: &Observed| o.runtime_id == id && o.started_at.is_some_and(|at| before.is_none_or(|before| at > before));
        if let Some(found) = find(tools, |o| ran(o) && o.state == ObservedState::Exited).await? {
            let at = found.started_at.unwrap_or_else(|| tools.clock.now());
            let (bindings, address, network) = (found.bindings.clone(), found.address.clone(), found.network.clone());
            return Ok(Begun { id: None, started: Started { at, bindings, address, network }, ended: Some(found) });
        }
    }
}

async fn stop<E: Engine>(tools: &Tools<E>, id: &str, grace_ms: Millis) -> Result<Option<Observed>, EngineError> {
    let pass = tools.lanes.stop().await;
    several_times(STOP_TRIES, || counted("stop", tools.engine.stop(id, grace_ms))).await?;
    drop(pass);
    // Cut short by the die event: see the runner.
    tokio::time::sleep(DEATH_MAY_TAKE).await;
    find(tools, |o| o.runtime_id == id).await
}

async fn remove<E: Engine>(tools: &Tools<E>, id: &str) -> Result<(), EngineError> {
    let _pass = tools.lanes.remove().await;
    several_times(REMOVE_TRIES, || counted("remove", tools.engine.remove(id))).await
}

async fn clean_up<E: Engine>(tools: &Tools<E>, task: &Assignment) -> Result<(), EngineError> {
    let _pass = tools.lanes.remove().await;
    several_times(REMOVE_TRIES, || counted("clean_up", tools.engine.clean_up(&task.task))).await
}

async fn several_times<T, F: Future<Output = Result<T, EngineError>>>(
    tries: u32,
    mut ask: impl FnMut() -> F,
) -> Result<T, EngineError> {
    let mut tried = 1;
    loop {
        match until_reached(&mut ask).await {
            Err(_) if tried < tries => {
                tokio::time::sleep(Duration::from_secs(tried.into())).await;
                tried += 1;
            }
            answer => return answer,
        }
    }
}

/// Stops and removes a container that a lost answer left behind beside the one in use.
pub async fn discard<E: Engine>(tools: Arc<Tools<E>>, id: RuntimeId) {
    let stopped = several_times(STOP_TRIES, || counted("stop", tools.engine.stop(&id, 0))).await;
    let removed = remove(&tools, &id).await;
    if let Err(error) = stopped.and(removed) {
        tracing::warn!(container = id, %error, "a superfluous container could not be removed");
    }
}
