//! What must always hold, judged from outside: by the commits, by what is on disk after a crash, and by what runs on the hosts.
//! Nothing here asks `decide`; the bounds are counted anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::host::Host;
use super::seen::Seen;
use crate::agent::engine::ObservedState;
use crate::model::decision::Subject;
use crate::model::service::{Rollout, Service, ServiceStatus};
use crate::model::task::{Health, StopCode, Task, TaskStatus};
use crate::model::{InstanceId, ServiceKey, TaskId, Timestamp};
use crate::store::{Change, Commit, Record, State};

/// A run that is broken all over is not told of in full.
const MOST_BREACHES: usize = 50;

#[derive(Default)]
pub struct Checks {
    pub seen: Seen,
    pub breaches: Vec<String>,
    pub commits: u64,
    pub decisions: u64,
    /// Of everything that was committed, in order: two runs with the same digest did the same.
    pub digest: u32,
    now: Timestamp,
}

/// What a commit does to the tasks of one service.
#[derive(Default)]
struct Moves {
    /// RUNNING tasks that the scheduler asks to stop and that were not known as unhealthy.
    serving_stops: usize,
    starts: usize,
}

impl Checks {
    pub fn breach(&mut self, what: String) {
        if self.breaches.len() < MOST_BREACHES {
            self.breaches.push(format!("{} {what}", self.now.clock()));
        }
    }

    /// At the start of each life of the control plane, before it does anything: what it found on disk.
    pub fn compare_disk(&mut self, found: &State) {
        if self.commits > 0
            && let Some(difference) = self.seen.differs(found)
        {
            self.breach(format!("a crash lost or changed what was durable: {difference}"));
        }
        self.seen = Seen::of(found);
    }

    pub fn commit(&mut self, commit: &Commit) {
        self.now = commit.at;
        self.commits += 1;
        if commit.revision != self.seen.revision + 1 {
            self.breach(format!("commit {} follows {}", commit.revision, self.seen.revision));
        }
        self.digest(commit);
        let decided = self.decided(commit);
        let before: BTreeMap<ServiceKey, Arc<Service>> = self.seen.services.clone();
        let mut serving_before = BTreeMap::new();
        let mut moves: BTreeMap<ServiceKey, Moves> = BTreeMap::new();
        let mut instances = BTreeSet::new();
        for change in &commit.changes {
            if let Change::Task(id, Some(new)) = change {
                let old = self.seen.tasks.get(id).cloned();
                instances.insert(new.instance.clone());
                self.task(old.as_deref(), new, &decided);
                if let Some(key) = new.service_key() {
                    serving_before.entry(key.clone()).or_insert_with(|| serving(&self.seen, &key));
                    let moved = moves.entry(key).or_default();
                    moved.starts += usize::from(old.is_none());
                    let stops = old.is_some_and(|old| is_serving(&old) && new.is_stopping());
                    moved.serving_stops += usize::from(stops && new.stop_code == Some(StopCode::ServiceSchedulerInitiated));
                }
            }
            self.seen.apply(change);
        }
        self.seen.revision = commit.revision;
        for (key, moved) in moves {
            self.service(&key, before.get(&key), &moved, serving_before.get(&key).copied().unwrap_or(0));
        }
        for change in &commit.changes {
            if let Change::Service(key, Some(new)) = change {
                self.scaled(before.get(key).map(|s| s.desired_count), new);
            }
        }
        for id in instances {
            self.instance(&id);
        }
    }

    fn digest(&mut self, commit: &Commit) {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.digest);
        hasher.update(&commit.at.0.to_le_bytes());
        hasher.update(&serde_json::to_vec(&commit.changes).unwrap_or_default());
        self.digest = hasher.finalize();
    }

    /// The tasks that this commit gives a reason for, and that every reason says something.
    fn decided(&mut self, commit: &Commit) -> BTreeSet<TaskId> {
        let mut tasks = BTreeSet::new();
        for record in &commit.records {
            let Record::Decision(decision) = record else { continue };
            self.decisions += 1;
            if decision.reason.sentence.is_empty() || decision.action.is_empty() {
                self.breach(format!("a decision without a reason: {decision:?}"));
            }
            if let Subject::Task { task, .. } = &decision.subject {
                tasks.insert(task.clone());
            }
        }
        tasks
    }

    fn task(&mut self, old: Option<&Task>, new: &Task, decided: &BTreeSet<TaskId>) {
        let id = &new.id;
        let Some(old) = old else {
            if !decided.contains(id) {
                self.breach(format!("task {id} was started and the ledger does not say why"));
            }
            return;
        };
        if new.last_status < old.last_status {
            self.breach(format!("task {id} went back from {} to {}", old.last_status.as_str(), new.last_status.as_str()));
        }
        if old.is_stopping() && !new.is_stopping() {
            self.breach(format!("task {id} was to stop and is wanted again"));
        }
        if new.instance != old.instance || new.reserved != old.reserved {
            self.breach(format!("task {id} was moved or resized"));
        }
        if new.version <= old.version {
            self.breach(format!("task {id} changed and its version did not grow"));
        }
        if new.is_stopping() && !old.is_stopping() && !decided.contains(id) {
            self.breach(format!("task {id} was stopped and the ledger does not say why"));
        }
        if new.is_stopped() && new.stopped_reason.as_deref().unwrap_or_default().is_empty() {
            self.breach(format!("task {id} stopped without a stoppedReason"));
        }
    }

    /// The two bounds of a rolling update, for what our own hand did. Updates that share a commit with it (a container that dies, a
    /// new desired count) were not known when it chose: the kinder of before and after counts.
    fn service(&mut self, key: &ServiceKey, before: Option<&Arc<Service>>, moved: &Moves, serving_before: usize) {
        let Some(service) = self.seen.services.get(key).filter(|s| s.status == ServiceStatus::Active).cloned() else { return };
        let before = before.unwrap_or(&service);
        if moved.serving_stops > 0 {
            let lower = |s: &Service| {
                (s.desired_count as usize * s.minimum_healthy_percent as usize).div_ceil(100).min(s.desired_count as usize)
            };
            let lower = lower(&service).min(lower(before));
            let left = serving_before.saturating_sub(moved.serving_stops);
            if left < lower {
                self.breach(format!(
                    "{key}: {} of {serving_before} serving tasks were stopped, {lower} had to stay",
                    moved.serving_stops
                ));
            }
        }
        if moved.starts > 0 {
            let upper = |s: &Service| (s.desired_count as usize * s.maximum_percent as usize / 100).max(s.desired_count as usize);
            let upper = upper(&service).max(upper(before));
            let live = self.seen.live_of_service(key).count();
            if live > upper {
                self.breach(format!("{key}: {} tasks were started and {live} are there, {upper} may be", moved.starts));
            }
        }
    }

    fn scaled(&mut self, before: Option<u32>, service: &Service) {
        let Some(target) = self.seen.targets.get(&service.key) else { return };
        let desired = service.desired_count;
        if before.is_some_and(|b| b != desired) && !(target.min..=target.max).contains(&desired) {
            let (min, max) = (target.min, target.max);
            self.breach(format!("{}: scaled to {desired}, outside of {min} to {max}", service.key));
        }
    }

    fn instance(&mut self, id: &InstanceId) {
        let Some(instance) = self.seen.instances.get(id).cloned() else { return };
        let (mut cpu, mut memory) = (0, 0);
        let mut ports: BTreeSet<(&str, u16)> = instance.reserved_tcp_ports.iter().map(|p| ("tcp", *p)).collect();
        let mut twice = Vec::new();
        for task in self.seen.live_of_instance(id) {
            cpu += task.reserved.cpu;
            memory += task.reserved.memory;
            let tcp = task.reserved.tcp_ports.iter().map(|p| ("tcp", *p));
            for port in tcp.chain(task.reserved.udp_ports.iter().map(|p| ("udp", *p))) {
                if !ports.insert(port) {
                    twice.push(port);
                }
            }
        }
        let has = &instance.registered;
        if cpu > has.cpu || memory > has.memory {
            self.breach(format!(
                "instance {id} is overcommitted: {cpu} of {} CPU units, {memory} of {} MiB",
                has.cpu, has.memory
            ));
        }
        if !twice.is_empty() {
            self.breach(format!("instance {id} gave ports twice: {twice:?}"));
        }
    }

    /// No container twice, and no task on two hosts.
    pub fn look_at_hosts(&mut self, hosts: &[Host], now: Timestamp) {
        self.now = now;
        let mut host_of: BTreeMap<TaskId, usize> = BTreeMap::new();
        for (n, host) in hosts.iter().enumerate() {
            let mut running = BTreeSet::new();
            for container in host.engine.containers().into_iter().filter(|o| o.state == ObservedState::Running) {
                if host_of.insert(container.task.clone(), n).is_some_and(|other| other != n) {
                    self.breach(format!("task {} runs on two hosts", container.task));
                }
                let name = (container.task, container.container);
                if running.contains(&name) {
                    self.breach(format!("container {} of task {} runs twice", name.1, name.0));
                }
                running.insert(name);
            }
        }
    }

    fn tell(&self, service: &Service) -> String {
        let deployments = service.deployments.iter().map(|d| {
            let throttled = d.throttled_until.map(Timestamp::clock);
            format!("{} {} failed {} throttled until {throttled:?}", d.definition, d.rollout.as_str(), d.failed_tasks)
        });
        let tasks = self.seen.live_of_service(&service.key).map(|t| {
            let connected = self.seen.instances.get(&t.instance).is_some_and(|i| i.agent_connected);
            let (status, started) = (t.last_status.as_str(), t.started_at.map(Timestamp::clock));
            format!("{} of {} {status} since {started:?}, agent connected: {connected}", t.id, t.definition)
        });
        deployments.chain(tasks).collect::<Vec<_>>().join("; ")
    }

    /// What is not as it was asked for: nothing, when a world without faults has come to rest.
    pub fn unsettled(&self, hosts: &[Host]) -> Vec<String> {
        let mut unsettled = Vec::new();
        for service in self.seen.services.values().filter(|s| s.status != ServiceStatus::Inactive) {
            let (key, desired) = (&service.key, service.desired_count as usize);
            let running = self.seen.live_of_service(key).filter(|t| is_serving(t)).count();
            let live = self.seen.live_of_service(key).count();
            if (running, live) != (desired, desired) {
                unsettled.push(format!("{key}: {running} of {desired} desired tasks run, {live} are there"));
            }
            if service.deployments.len() != 1 || service.deployments[0].rollout != Rollout::Completed {
                unsettled.push(format!("{key}: its deployment has not completed: {}", self.tell(service)));
            }
        }
        for instance in self.seen.instances.values().filter(|i| !i.agent_connected) {
            unsettled.push(format!("instance {} is not connected", instance.id));
        }
        let wanted: BTreeSet<&TaskId> = self.seen.live().map(|t| &t.id).collect();
        let running: BTreeSet<TaskId> = hosts
            .iter()
            .flat_map(|h| h.engine.containers())
            .filter(|o| o.state == ObservedState::Running && !o.task.as_str().is_empty())
            .map(|o| o.task)
            .collect();
        unsettled.extend(running.iter().filter(|t| !wanted.contains(t)).map(|t| format!("task {t} runs and nobody wants it")));
        unsettled
            .extend(wanted.into_iter().filter(|t| !running.contains(*t)).map(|t| format!("task {t} is wanted and runs nowhere")));
        unsettled
    }
}

fn is_serving(task: &Task) -> bool {
    task.last_status == TaskStatus::Running && !task.is_stopping() && task.health != Health::Unhealthy
}

fn serving(seen: &Seen, key: &ServiceKey) -> usize {
    seen.live_of_service(key).filter(|t| is_serving(t)).count()
}
