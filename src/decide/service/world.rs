//! A small world for the tests: it does what plans say, lets tasks come and go, and checks every plan against the bounds by its
//! own counting.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::*;
use crate::model::instance::InstanceStatus;
use crate::model::service::{Deployment, ServiceEvent};
use crate::model::task::{Health, LaunchType, Origin, Resources, TaskStatus};
use crate::model::{DefinitionKey, ServiceKey};

pub struct World {
    pub now: Timestamp,
    pub service: Service,
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    pub instances: BTreeMap<InstanceId, Arc<Instance>>,
    pub health_checked: bool,
    pub settings: Settings,
    pub created: u64,
}

pub const HEALTHY_AFTER: Millis = 2_000;
pub const LOST_AFTER: Millis = 60_000;

impl World {
    /// A new service on `hosts` instances in two zones, without tasks.
    pub fn new(desired: u32, minimum: u32, maximum: u32, hosts: usize) -> World {
        let now = Timestamp(1_000_000);
        let service = Service {
            key: ServiceKey::new("c", "web"),
            status: ServiceStatus::Active,
            definition: DefinitionKey::new("web", 1),
            desired_count: desired,
            launch_type: LaunchType::Ec2,
            minimum_healthy_percent: minimum,
            maximum_percent: maximum,
            health_check_grace_period_s: None,
            placement_constraints: vec![],
            placement_strategy: vec![],
            network_configuration: None,
            propagate_tags: None,
            enable_ecs_managed_tags: false,
            enable_execute_command: false,
            role_arn: None,
            client_token: None,
            deployments: vec![deployment(1, now)],
            events: VecDeque::new(),
            steady: false,
            desired_trace: None,
            tags: vec![],
            created_at: now,
            updated_at: now,
        };
        let instances = (0..hosts).map(|i| (instance_id(i), Arc::new(instance(i)))).collect();
        let settings = Settings { healthy_after_ms: HEALTHY_AFTER, lost_after_ms: LOST_AFTER };
        World { now, service, tasks: BTreeMap::new(), instances, health_checked: false, settings, created: 0 }
    }

    /// The service with all its tasks healthy and its deployment completed.
    pub fn steady(desired: u32, minimum: u32, maximum: u32, hosts: usize) -> World {
        let mut world = World::new(desired, minimum, maximum, hosts);
        world.settle();
        world
    }

    pub fn plan(&self) -> Plan {
        let tasks: Vec<Arc<Task>> = self.tasks.values().cloned().collect();
        let view = ServiceView {
            service: &self.service,
            tasks: &tasks,
            instances: &self.instances,
            health_checked: &|_| self.health_checked,
            settings: &self.settings,
        };
        reconcile(&view, self.now)
    }

    /// Plans, checks, applies, and checks that a second pass has nothing to do.
    pub fn pass(&mut self) -> Plan {
        let plan = self.plan();
        self.check(&plan);
        self.apply(&plan);
        let again = self.plan();
        assert!(again.decisions.is_empty(), "not idempotent:\n{plan:#?}\nthen\n{again:#?}");
        plan
    }

    fn check(&self, plan: &Plan) {
        assert!(plan.wake_at.is_none_or(|at| at > self.now), "wakes in the past: {plan:?}");
        let (mut starts, mut gone, mut healthy_stops) = (0, 0, 0);
        for Planned { action, reason } in &plan.decisions {
            assert!(reason.evidence.contains_key("lower") && !reason.sentence.is_empty());
            match action {
                Action::Start { count, replacing, .. } => {
                    assert!(*count > 0 && replacing <= count);
                    starts += *count as usize;
                }
                Action::GiveUp { .. } => gone += 1,
                Action::Stop { task, .. } => {
                    let task = &self.tasks[task];
                    assert!(!task.is_stopping(), "stopped twice");
                    healthy_stops += usize::from(self.is_healthy(task));
                }
                _ => {}
            }
        }
        if self.service.status != ServiceStatus::Active {
            return;
        }
        let desired = self.service.desired_count as usize;
        let upper = (desired * self.service.maximum_percent as usize / 100).max(desired);
        let occupied = self.tasks.len() - gone;
        assert!(starts == 0 || occupied + starts <= upper, "above {upper}: {occupied} and {starts} more");
        let lower = (desired * self.service.minimum_healthy_percent as usize).div_ceil(100).min(desired);
        let healthy = self.tasks.values().filter(|t| self.is_healthy(t)).count();
        assert!(
            healthy_stops == 0 || healthy - healthy_stops >= lower,
            "below {lower}: {healthy} less {healthy_stops}: {plan:#?}"
        );
    }

    pub fn is_healthy(&self, task: &Task) -> bool {
        let instance = &self.instances[&task.instance];
        let lost =
            instance.status == InstanceStatus::Inactive || instance.disconnected_at.is_some_and(|at| self.now >= at + LOST_AFTER);
        let well = match self.health_checked {
            true => task.health == Health::Healthy,
            false => task.started_at.is_some_and(|at| self.now >= at + HEALTHY_AFTER),
        };
        !task.is_stopping() && task.last_status == TaskStatus::Running && well && !lost
    }

    pub fn apply(&mut self, plan: &Plan) {
        for Planned { action, .. } in &plan.decisions {
            match action {
                Action::Start { deployment, count, .. } => (0..*count).for_each(|_| self.place(deployment)),
                Action::Stop { task, code, text } => {
                    let stopped = crate::decide::task::ask_to_stop(&self.tasks[task], *code, text, self.now);
                    self.tasks.insert(task.clone(), Arc::new(stopped.expect("stopped once")));
                }
                Action::GiveUp { task, .. } => {
                    self.tasks.remove(task).expect("given up once");
                }
                Action::SetRollout { deployment, rollout, text } => {
                    let found = self.service.deployments.iter_mut().find(|d| d.id == *deployment).expect("known");
                    (found.rollout, found.rollout_reason) = (*rollout, text.clone());
                }
                Action::DropDeployment { deployment } => {
                    assert!(self.tasks.values().all(|t| t.deployment.as_ref() != Some(deployment)));
                    self.service.deployments.retain(|d| d.id != *deployment);
                }
                Action::Event(message) => {
                    self.service.push_event(ServiceEvent { id: String::new(), at: self.now, message: message.clone() });
                }
                Action::SetSteady(steady) => self.service.steady = *steady,
                Action::Inactivate => self.service.status = ServiceStatus::Inactive,
            }
        }
    }

    /// The instance that can take tasks and has the fewest.
    fn place(&mut self, deployment: &DeploymentId) {
        let fit = self.instances.values().filter(|i| i.status == InstanceStatus::Active && i.agent_connected);
        let on = |id: &InstanceId| self.tasks.values().filter(|t| t.instance == *id).count();
        let instance = fit.min_by_key(|i| on(&i.id)).expect("instance 0 is always there").id.clone();
        self.put(deployment.clone(), instance);
    }

    pub fn put(&mut self, deployment: DeploymentId, instance: InstanceId) -> TaskId {
        self.created += 1;
        let mut task = task(self.created, self.now);
        (task.deployment, task.instance) = (Some(deployment), instance);
        let id = task.id.clone();
        self.tasks.insert(id.clone(), Arc::new(task));
        id
    }

    pub fn change(&mut self, id: &TaskId, change: impl FnOnce(&mut Task)) {
        change(Arc::make_mut(self.tasks.get_mut(id).expect("known task")));
    }

    pub fn change_instance(&mut self, i: usize, change: impl FnOnce(&mut Instance)) {
        change(Arc::make_mut(self.instances.get_mut(&instance_id(i)).expect("known instance")));
    }

    pub fn ids(&self, of: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        self.tasks.values().filter(|t| of(t)).map(|t| t.id.clone()).collect()
    }

    /// Pending tasks reach RUNNING.
    pub fn run_pending(&mut self, at_most: usize) {
        let now = self.now;
        for id in self.ids(|t| t.last_status == TaskStatus::Pending && !t.is_stopping()).into_iter().take(at_most) {
            let deployment = self.tasks[&id].deployment.clone().expect("a service's task");
            self.change(&id, |t| (t.last_status, t.started_at) = (TaskStatus::Running, Some(now)));
            after_task_started(&mut self.service, &deployment, now);
        }
    }

    /// Pending tasks end without having run.
    pub fn fail_pending(&mut self, at_most: usize) {
        for id in self.ids(|t| t.last_status == TaskStatus::Pending && !t.is_stopping()).into_iter().take(at_most) {
            let deployment = self.tasks[&id].deployment.clone().expect("a service's task");
            self.tasks.remove(&id);
            after_task_failed(&mut self.service, &deployment, self.now);
        }
    }

    pub fn finish_stopping(&mut self, at_most: usize) {
        for id in self.ids(Task::is_stopping).into_iter().take(at_most) {
            self.tasks.remove(&id);
        }
    }

    pub fn set_health(&mut self, at_most: usize, health: Health) {
        for id in self.ids(|t| t.last_status == TaskStatus::Running && t.health != health).into_iter().take(at_most) {
            self.change(&id, |t| t.health = health);
        }
    }

    pub fn deploy(&mut self) {
        self.created += 1;
        self.service.deployments.insert(0, deployment(self.created + 1_000, self.now));
    }

    /// A world without faults, until nothing is left to do. How many passes that took.
    pub fn settle(&mut self) -> usize {
        let ids: Vec<InstanceId> = self.instances.keys().cloned().collect();
        for id in ids {
            let instance = Arc::make_mut(self.instances.get_mut(&id).expect("known instance"));
            (instance.status, instance.agent_connected, instance.disconnected_at) = (InstanceStatus::Active, true, None);
        }
        for pass in 1..400 {
            let plan = self.pass();
            if plan == Plan::default() {
                return pass;
            }
            self.run_pending(usize::MAX);
            self.finish_stopping(usize::MAX);
            if self.health_checked {
                self.set_health(usize::MAX, Health::Healthy);
            }
            self.now = plan.wake_at.unwrap_or(self.now + 1_000).max(self.now + HEALTHY_AFTER);
        }
        panic!("never settles: {:#?}", self.plan());
    }

    pub fn events(&self) -> Vec<&str> {
        self.service.events.iter().rev().map(|e| e.message.as_str()).collect()
    }
}

pub fn instance_id(i: usize) -> InstanceId {
    InstanceId::new(format!("i{i:04}"))
}

pub fn deployment(n: u64, at: Timestamp) -> Deployment {
    Deployment {
        id: DeploymentId::new(format!("ecs-svc/{n:019}")),
        definition: DefinitionKey::new("web", 1),
        rollout: Rollout::InProgress,
        rollout_reason: String::new(),
        failed_tasks: 0,
        early_exits: 0,
        throttled_until: None,
        network_configuration: None,
        created_at: at,
        updated_at: at,
        trace: None,
    }
}

fn instance(i: usize) -> Instance {
    let zone = Some(["a", "b"][i % 2].to_owned());
    Instance {
        id: instance_id(i),
        cluster: "c".into(),
        status: InstanceStatus::Active,
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: Resources::default(),
        reserved_tcp_ports: vec![],
        attributes: BTreeMap::from([("ecs.availability-zone".to_owned(), zone)]),
        agent_version: String::new(),
        docker_version: String::new(),
        host_name: String::new(),
        host_address: String::new(),
        tags: vec![],
        registered_at: Timestamp::ZERO,
        version: 1,
    }
}

pub fn task(n: u64, at: Timestamp) -> Task {
    let mut origin = Origin::new("c".into(), DefinitionKey::new("web", 1));
    origin.group = "service:web".to_owned();
    origin.service = Some("web".into());
    Task::new(TaskId::new(format!("{n:032x}")), Arc::new(origin), instance_id(0), at)
}
