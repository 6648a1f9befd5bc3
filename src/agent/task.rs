//! The runner of one task: keeps what is known of its containers, asks [`crate::decide::container::next`] what to do, has it done and
//! reports every change. Decides nothing itself; never blocks, so whoever sends it inputs does not either.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::Span;

use super::adopt::{self, OOM};
use super::calls::{Begun, Outcome, Tools, call, discard};
use super::engine::{Engine, EngineError, Observed, ObservedState, RuntimeId};
use crate::decide::container::{self, Known, PAUSE, State, Step, Which, Work};
use crate::model::link::{Assignment, Phase, TaskReport};
use crate::model::task::Health;
use crate::model::{ContainerName, TaskId, Timestamp};

const VANISHED: &str = "ContainerVanishedError: No container matching saved ID found";
/// Timers are re-read at least this often, should the clock have been set.
const LONGEST_SLEEP_MS: i64 = 60_000;

#[derive(Clone, Debug)]
pub enum Input {
    Assign(Arc<Assignment>),
    Died(Death),
    Health {
        runtime_id: RuntimeId,
        health: Health,
    },
    /// All containers of the task, as asked for at that moment, after the engine was away. No time of day, which may be set back.
    Observed {
        asked_at: Instant,
        containers: Vec<Observed>,
    },
    /// The control plane has been told that the task finished.
    Reported,
    /// The control plane wants no more of it.
    Forget,
}

#[derive(Clone, Debug)]
pub struct Death {
    pub runtime_id: RuntimeId,
    pub container: ContainerName,
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
    pub at: Timestamp,
}

/// The newest report of every task that changed since they were last taken.
#[derive(Default)]
pub struct Reports {
    changed: Mutex<BTreeMap<TaskId, TaskReport>>,
    pub some: Notify,
}

impl Reports {
    fn put(&self, report: TaskReport) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(report.task.clone(), report);
        self.some.notify_one();
    }
    pub fn take(&self) -> BTreeMap<TaskId, TaskReport> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Runner<E> {
    tools: Arc<Tools<E>>,
    reports: Arc<Reports>,
    task: Arc<Assignment>,
    state: State,
    calls: JoinSet<(Step, Outcome)>,
    /// A pull is given up when the task must end; a stop's wait for its die event when that comes.
    cancellable: BTreeMap<Which, AbortHandle>,
    /// Deaths that were told before the start that they followed was answered.
    early: BTreeMap<Which, Death>,
    /// When a container was last changed or heard of: a list asked for before says nothing of it.
    touched: BTreeMap<Which, Instant>,
    last: Option<TaskReport>,
    span: Span,
}

/// Runs until nothing is left of the task. Dropping it leaves the containers as they are.
pub async fn run<E: Engine>(
    tools: Arc<Tools<E>>,
    reports: Arc<Reports>,
    task: Arc<Assignment>,
    observed: Vec<Observed>,
    mut inputs: mpsc::Receiver<Input>,
) -> TaskId {
    let state = adopt::adopt(&task, &observed);
    for twin in observed.iter().filter(|o| !in_use(&state, &o.runtime_id)) {
        tokio::spawn(discard(tools.clone(), twin.runtime_id.clone()));
    }
    let span = start_span(&task, &state);
    let (calls, cancellable, early, touched) = Default::default();
    let mut runner = Runner { tools, reports, task, state, calls, cancellable, early, touched, last: None, span };
    while let Some(wait) = runner.act() {
        tokio::select! {
            biased;
            Some(done) = runner.calls.join_next() => {
                // An aborted one has been dealt with by whoever aborted it.
                if let Ok((step, outcome)) = done {
                    runner.finish(step, outcome);
                }
            }
            input = inputs.recv() => match input {
                Some(input) => runner.take(input),
                None => break,
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
    runner.task.task.clone()
}

fn in_use(state: &State, id: &str) -> bool {
    state.containers.iter().chain([&state.pause]).any(|k| k.runtime_id.as_deref() == Some(id))
}

/// Hangs below the call or decision that made the task.
fn start_span(task: &Assignment, state: &State) -> Span {
    if !task.run || state.containers.iter().all(|k| k.phase >= Phase::Running) {
        return Span::none();
    }
    let span = tracing::info_span!(parent: None, "task.start", task = %task.task, definition = %task.definition);
    crate::observe::set_parent(&span, task.trace.as_deref());
    span
}

impl<E: Engine> Runner<E> {
    /// Does what is to be done now. How long to wait for something to happen, or None when nothing is left.
    fn act(&mut self) -> Option<Duration> {
        let now = self.tools.clock.now();
        let next = container::next(&self.task, &self.state, now);
        for (index, reason) in &next.hopeless {
            let known = &mut self.state.containers[*index];
            known.failed = true;
            known.reason = Some(reason.clone());
        }
        if self.state.ending.is_none() && next.ending.is_some() {
            self.state.ending = next.ending.clone();
            self.end(now);
        }
        if next.finished && self.state.finished_at.is_none() {
            self.state.finished_at = Some(now);
            self.span = Span::none();
        }
        for step in next.steps {
            self.begin(step, now);
        }
        self.report(now);
        let until = next.wake_at.map_or(LONGEST_SLEEP_MS, |at| at.since(now).clamp(1, LONGEST_SLEEP_MS));
        (!next.done).then(|| Duration::from_millis(until.unsigned_abs()))
    }

    fn end(&mut self, now: Timestamp) {
        self.span = tracing::info_span!(parent: None, "task.stop", task = %self.task.task);
        crate::observe::set_parent(&self.span, self.task.trace.as_deref());
        for (index, known) in self.state.containers.iter_mut().enumerate().filter(|(_, k)| k.busy == Some(Work::Pull)) {
            known.busy = None;
            self.state.pull_stopped_at = Some(now);
            if let Some(pull) = self.cancellable.remove(&Which::At(index)) {
                pull.abort();
            }
        }
    }

    fn begin(&mut self, step: Step, now: Timestamp) {
        let (which, work) = match &step {
            Step::Pull(index) => (Which::At(*index), Work::Pull),
            Step::Pause => (Which::Pause, Work::Start),
            Step::Create(index) => (Which::At(*index), Work::Create),
            Step::Start(index) => (Which::At(*index), Work::Start),
            Step::Restart(index) => (Which::At(*index), Work::Restart),
            Step::Stop { which, .. } => (*which, Work::Stop),
            Step::Remove(which) => (*which, Work::Remove),
            Step::CleanUp => {
                self.state.cleaning = true;
                self.spawn(step);
                return;
            }
        };
        if work == Work::Pull {
            self.state.pull_started_at.get_or_insert(now);
        }
        let known = self.known(which);
        known.busy = Some(work);
        if matches!(work, Work::Start | Work::Restart) {
            // Not when the start is answered: a first verdict may come before that.
            known.health = Health::Unknown;
        }
        let handle = self.spawn(step);
        if matches!(work, Work::Pull | Work::Stop) {
            self.cancellable.insert(which, handle);
        }
    }

    fn spawn(&mut self, step: Step) -> AbortHandle {
        self.calls.spawn(call(self.tools.clone(), self.task.clone(), step, self.state.clone(), self.span.clone()))
    }

    /// For a change.
    fn known(&mut self, which: Which) -> &mut Known {
        self.touched.insert(which, Instant::now());
        match which {
            Which::Pause => &mut self.state.pause,
            Which::At(index) => &mut self.state.containers[index],
        }
    }

    fn finish(&mut self, step: Step, outcome: Outcome) {
        let now = self.tools.clock.now();
        match (step, outcome) {
            (Step::Pull(index), Outcome::Pulled(result)) => {
                self.state.pull_stopped_at = Some(now);
                self.cancellable.remove(&Which::At(index));
                let known = self.known(Which::At(index));
                known.busy = None;
                match result {
                    Ok(pulled) => {
                        known.pulled = true;
                        known.image_digest = pulled.digest;
                    }
                    Err(error) => fail(known, &error),
                }
            }
            (Step::Create(index), Outcome::Created(result)) => {
                let known = self.known(Which::At(index));
                known.busy = None;
                match result {
                    Ok(id) => {
                        known.phase = Phase::Created;
                        known.runtime_id = Some(id);
                    }
                    Err(error) => fail(known, &error),
                }
            }
            (Step::Pause, Outcome::Started(result)) => self.started(Which::Pause, false, result),
            (Step::Start(index), Outcome::Started(result)) => self.started(Which::At(index), false, result),
            (Step::Restart(index), Outcome::Started(result)) => self.started(Which::At(index), true, result),
            (Step::Stop { which, .. }, Outcome::Stopped(result)) => self.stopped(which, result, now),
            (Step::Remove(which), Outcome::Removed(result)) => {
                warn_left_behind(&self.task, result);
                let known = self.known(which);
                known.busy = None;
                known.removed = true;
            }
            (Step::CleanUp, Outcome::CleanedUp(result)) => {
                warn_left_behind(&self.task, result);
                self.state.cleaning = false;
                self.state.cleaned = true;
            }
            _ => {}
        }
    }

    fn started(&mut self, which: Which, again: bool, result: Result<Begun, EngineError>) {
        let early = self.early.remove(&which);
        let now = self.tools.clock.now();
        let known = self.known(which);
        known.busy = None;
        let Begun { id, started, ended } = match result {
            Ok(begun) => begun,
            Err(error) => return fail(known, &error),
        };
        known.phase = Phase::Running;
        known.started_at = Some(started.at);
        known.exit_code = None;
        known.reason = None;
        known.bindings = started.bindings;
        known.address.clone_from(&started.address);
        known.network = started.network;
        known.restart_count += u32::from(again);
        if id.is_some() {
            known.runtime_id = id;
        }
        if let Some(death) = early {
            end_known(known, death.exit_code, death.at, death.oom_killed);
        } else if let Some(ended) = ended {
            end_known(known, ended.exit_code, ended.finished_at.unwrap_or(now), ended.oom_killed);
        }
        if started.address.is_some() {
            self.state.address = started.address;
        }
        if self.state.containers.iter().all(|k| k.phase >= Phase::Running) {
            // Closes task.start: what follows is not part of it.
            self.span = Span::none();
        }
    }

    fn stopped(&mut self, which: Which, result: Result<Option<Observed>, EngineError>, now: Timestamp) {
        self.cancellable.remove(&which);
        let known = self.known(which);
        known.busy = None;
        if known.phase != Phase::Running {
            return;
        }
        match result {
            Ok(Some(observed)) if observed.state == ObservedState::Running => {}
            Ok(Some(observed)) => end_known(known, observed.exit_code, observed.finished_at.unwrap_or(now), observed.oom_killed),
            Ok(None) => vanish(known, now),
            Err(error) => {
                end_known(known, None, now, false);
                known.reason = Some(error.to_string());
            }
        }
    }

    fn died(&mut self, which: Which, death: &Death) {
        let known = self.known(which);
        if adopt::known_death(known, death.at) {
            return;
        }
        match known.busy {
            Some(Work::Start | Work::Restart) => {
                self.early.insert(which, death.clone());
            }
            Some(Work::Stop) => {
                known.busy = None;
                end_known(known, death.exit_code, death.at, death.oom_killed);
                if let Some(stop) = self.cancellable.remove(&which) {
                    stop.abort();
                }
            }
            _ if known.phase == Phase::Running => end_known(known, death.exit_code, death.at, death.oom_killed),
            _ => {}
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Assign(task) => {
                // A stop asked for is never taken back, whatever arrives late.
                let run = task.run && self.task.run;
                let mut task = task;
                if task.run != run {
                    Arc::make_mut(&mut task).run = run;
                }
                if task.containers.len() == self.state.containers.len() {
                    self.task = task;
                }
            }
            Input::Died(death) => {
                if let Some(which) = self.which(&death.runtime_id, &death.container) {
                    self.died(which, &death);
                }
            }
            Input::Health { runtime_id, health } => {
                let containers = self.task.containers.iter().zip(&mut self.state.containers);
                for (definition, known) in containers {
                    if known.runtime_id.as_deref() == Some(&runtime_id) && definition.health_check.is_some() {
                        known.health = health;
                    }
                }
            }
            Input::Observed { asked_at, containers } => {
                let now = self.tools.clock.now();
                let untouched = |which| self.touched.get(&which).is_none_or(|at| *at < asked_at);
                if untouched(Which::Pause) {
                    compare(&mut self.state.pause, &containers, true, now);
                }
                for (index, known) in self.state.containers.iter_mut().enumerate() {
                    if untouched(Which::At(index)) {
                        compare(known, &containers, false, now);
                    }
                }
            }
            Input::Reported => {
                let now = self.tools.clock.now();
                self.state.reported_at.get_or_insert(now);
            }
            Input::Forget => self.state.forgotten = true,
        }
    }

    fn which(&self, runtime_id: &str, container: &ContainerName) -> Option<Which> {
        // A pause taken from the pool is named before its id is known here.
        let is = |known: &Known| known.runtime_id.as_deref().is_none_or(|id| id == runtime_id);
        if container.as_str() == PAUSE {
            return is(&self.state.pause).then_some(Which::Pause);
        }
        let index = self.task.containers.iter().position(|c| c.name == container.as_str())?;
        is(&self.state.containers[index]).then_some(Which::At(index))
    }

    fn report(&mut self, now: Timestamp) {
        let report = container::report(&self.task, &self.state, now);
        if self.last.as_ref().is_some_and(|last| same(last, &report)) {
            return;
        }
        self.last = Some(report.clone());
        self.reports.put(report);
    }
}

fn same(a: &TaskReport, b: &TaskReport) -> bool {
    TaskReport { at: b.at, ..a.clone() } == *b
}

fn fail(known: &mut Known, error: &EngineError) {
    known.failed = true;
    known.reason = Some(error.to_string());
}

fn end_known(known: &mut Known, exit_code: Option<i32>, at: Timestamp, oom_killed: bool) {
    known.phase = Phase::Stopped;
    known.exit_code = exit_code;
    known.finished_at = Some(at);
    known.health = Health::Unknown;
    known.reason = oom_killed.then(|| OOM.to_owned());
}

fn vanish(known: &mut Known, now: Timestamp) {
    end_known(known, None, now, false);
    known.reason = Some(VANISHED.to_owned());
    known.removed = true;
}

/// Brings what is known of a container up to what the engine says after it was away.
fn compare(known: &mut Known, all: &[Observed], is_pause: bool, now: Timestamp) {
    let Some(id) = known.runtime_id.clone() else { return };
    // A call in flight is answered, or made again, by itself; only a stop may find its container dead.
    if known.busy.is_some_and(|work| work != Work::Stop) || known.removed {
        return;
    }
    let Some(observed) = all.iter().find(|o| o.runtime_id == id) else {
        return match known.phase {
            Phase::Running => vanish(known, now),
            Phase::Stopped => known.removed = true,
            _ => {
                known.removed = true;
                known.failed = true;
                known.reason = Some(VANISHED.to_owned());
            }
        };
    };
    match (known.phase, observed.state) {
        (Phase::Running, ObservedState::Exited) => {
            end_known(known, observed.exit_code, observed.finished_at.unwrap_or(now), observed.oom_killed);
        }
        // A pause that was started again has a new namespace, which the task's containers do not see.
        (Phase::Running, ObservedState::Running) if adopt::started_anew(known, observed) => {
            if is_pause {
                end_known(known, None, now, false);
            } else {
                known.started_at = observed.started_at;
                known.restart_count += 1;
                known.health = observed.health;
            }
        }
        (Phase::Running, ObservedState::Running) => known.health = observed.health,
        (Phase::Created | Phase::Stopped, ObservedState::Running) => {
            let restart_count = known.restart_count + u32::from(known.phase == Phase::Stopped);
            let finished_at = known.finished_at;
            *known = Known { restart_count, finished_at, ..adopt::known_of(observed) };
        }
        _ => {}
    }
}

fn warn_left_behind(task: &Assignment, result: Result<(), EngineError>) {
    if let Err(error) = result {
        tracing::warn!(task = %task.task, %error, "something of a finished task could not be removed; the next start will try again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_000_000);

    fn observed(state: ObservedState, started_at: Timestamp) -> Observed {
        let exited = state == ObservedState::Exited;
        Observed {
            runtime_id: "r".into(),
            task: "t".into(),
            container: "c".into(),
            container_uuid: String::new(),
            state,
            started_at: Some(started_at),
            finished_at: exited.then_some(started_at + 5_000),
            exit_code: exited.then_some(4),
            oom_killed: exited,
            health: Health::Healthy,
            bindings: vec![],
            address: None,
            network: None,
            image_digest: None,
        }
    }

    #[test]
    fn what_a_list_says_of_a_container_that_was_running() {
        use ObservedState::{Exited, Running};
        let known = Known { phase: Phase::Running, runtime_id: Some("r".into()), started_at: Some(T0), ..Known::default() };
        let after = |all: &[Observed], is_pause| {
            let mut known = known.clone();
            compare(&mut known, all, is_pause, T0 + 60_000);
            known
        };
        let on = after(&[observed(Running, T0)], false);
        assert_eq!((on.phase, on.health, on.restart_count), (Phase::Running, Health::Healthy, 0));
        let dead = after(&[observed(Exited, T0)], false);
        assert_eq!((dead.phase, dead.exit_code, dead.finished_at), (Phase::Stopped, Some(4), Some(T0 + 5_000)));
        assert_eq!(dead.reason.as_deref(), Some(OOM));
        let gone = after(&[], false);
        assert_eq!((gone.phase, gone.exit_code, gone.reason.as_deref()), (Phase::Stopped, None, Some(VANISHED)));
        let anew = after(&[observed(Running, T0 + 9_000)], false);
        assert_eq!((anew.phase, anew.restart_count, anew.started_at), (Phase::Running, 1, Some(T0 + 9_000)));
        assert_eq!(after(&[observed(Running, T0 + 9_000)], true).phase, Phase::Stopped, "a new pause is a new network");
    }

    #[test]
    fn a_container_with_a_call_in_flight_is_left_to_it() {
        for work in [Work::Create, Work::Start, Work::Restart, Work::Remove] {
            let known = Known { runtime_id: Some("r".into()), busy: Some(work), ..Known::default() };
            let mut compared = known.clone();
            compare(&mut compared, &[], false, T0);
            assert_eq!(compared, known);
        }
    }
}
