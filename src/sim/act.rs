//! Carries the commands of a script out: faults by the world's own hands, the rest through the doors that clients use.

use serde_json::{Value, json};

use super::clients::Answer;
use super::generate::{TASK, has_health};
use super::script::{Act, Call, Fault};
use super::world::World;
use crate::model::{ServiceKey, TaskId};

const SCALING: &str = "application-autoscaling";

impl World {
    /// Does it and says what came of it.
    pub async fn carry_out(&mut self, act: &Act) -> String {
        match act {
            Act::Fault(fault) => {
                self.strike(*fault).await;
                String::new()
            }
            Act::Call(call) => match self.ask(call).await {
                Answer::Done(_) => "done".to_owned(),
                Answer::Refused(why) => format!("refused: {why}"),
                Answer::Lost => "the answer was lost".to_owned(),
            },
            Act::Load { service, millicores } => {
                self.set_demand(&ServiceKey::new("default", service.as_str()), f64::from(*millicores) / 1e3);
                String::new()
            }
            Act::Alert { service, policy, firing } => {
                let message = self.alert(service, policy, *firing);
                match self.alertmanager(&message).await {
                    Ok(answer) => answer.to_string(),
                    Err(refused) => refused.to_string(),
                }
            }
        }
    }

    pub async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { host, pick, containers } => (0..containers).for_each(|n| self.kill_container(host, pick + n, false)),
            Fault::Oom { host, pick } => self.kill_container(host, pick, true),
            Fault::Agent { host, ms } => self.restart_agent(host, ms).await,
            Fault::Wire { host, how, ms } => self.break_wire(host, how, ms),
            Fault::Engine { host, killing, ms } => self.break_engine(host, killing, ms),
            Fault::SlowEngine { host, list_ms, ms } => self.slow_engine(host, list_ms, ms),
            Fault::Crash { ms } => self.crash(ms).await,
            Fault::CrashAt { commits, durable, ms } => self.crash_at(commits, durable, ms),
            Fault::Disk { commits } => self.refuse_commits(commits),
            Fault::Clock { by_ms } => self.set_clock(by_ms),
            Fault::HostClock { host, by_ms } => self.hosts[host].set_clock(by_ms),
            Fault::Replace { host, ms } => self.replace_host(host, ms).await,
        }
    }

    /// As a client asks, and remembers what it was told.
    pub async fn ask(&mut self, call: &Call) -> Answer {
        let stop = match call {
            Call::StopTask { pick } => match self.clients.run.as_slice() {
                [] => return Answer::Refused("there is none to stop".to_owned()),
                run => Some(run[*pick as usize % run.len()].clone()),
            },
            _ => None,
        };
        let before = self.state();
        let mut answer = Answer::Done(Value::Null);
        for (service, operation, input) in requests(call, stop.as_ref()) {
            answer = match self.call(service, operation, input).await {
                Ok(body) if body["failures"].as_array().is_some_and(|failures| !failures.is_empty()) => {
                    Answer::Refused(body["failures"].to_string())
                }
                Ok(body) => Answer::Done(body),
                Err(refused) if refused.is_lost() => Answer::Lost,
                Err(refused) => Answer::Refused(refused.to_string()),
            };
            if !matches!(answer, Answer::Done(_)) {
                break;
            }
        }
        self.clients.hear(call, &answer, &before, stop.as_ref());
        answer
    }

    fn alert(&mut self, service: &str, policy: &str, firing: bool) -> Value {
        let now = self.now();
        let name = format!("{service}/{policy}");
        let since =
            if firing { *self.alerts.entry(name.clone()).or_insert(now) } else { self.alerts.remove(&name).unwrap_or(now) };
        let labels = json!({"alertname": "Requests", "cluster": "default", "service": service, "policy": policy, "beaufort_action": "scale"});
        let value = if policy == "out" { "250" } else { "3" };
        json!({"version": "4", "groupKey": name, "alerts": [{
            "status": if firing { "firing" } else { "resolved" }, "labels": labels,
            "annotations": {"value": value, "threshold": "100"},
            "startsAt": since.iso(), "generatorURL": "http://p", "fingerprint": name}]})
    }
}

fn network(awsvpc: bool, mut input: Value) -> Value {
    if awsvpc {
        input["networkConfiguration"] = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
    }
    input
}

fn scalable(service: &str, mut input: Value) -> Value {
    input["ServiceNamespace"] = json!("ecs");
    input["ResourceId"] = json!(format!("service/default/{service}"));
    input["ScalableDimension"] = json!("ecs:service:DesiredCount");
    input
}

fn container(behaviour: &str, host_port: Option<u16>) -> Value {
    // Pulls know only the image's name, which may hold no `+`; the rest is said in the environment.
    let image = if behaviour.contains('+') { "sim/ok".to_owned() } else { format!("sim/{behaviour}") };
    let mut container = json!({"name": "app", "image": image, "cpu": TASK, "memory": TASK, "essential": true,
        "environment": [{"name": "SIM", "value": behaviour}]});
    if has_health(behaviour) {
        container["healthCheck"] = json!({"command": ["CMD-SHELL", "true"]});
    }
    if let Some(port) = host_port {
        container["portMappings"] = json!([{"containerPort": 80, "hostPort": port}]);
    }
    if behaviour.contains("log:") {
        container["logConfiguration"] = json!({"logDriver": "awslogs", "options": {"awslogs-group": "sim",
            "awslogs-create-group": "true", "awslogs-stream-prefix": "sim", "awslogs-region": "us-east-1"}});
    }
    container
}

/// What goes over the API for it: service, operation and input.
fn requests(call: &Call, stop: Option<&TaskId>) -> Vec<(&'static str, &'static str, Value)> {
    match call {
        Call::Register { family, behaviour, awsvpc, host_port } => {
            let mode = if *awsvpc { "awsvpc" } else { "bridge" };
            let input =
                json!({"family": family, "networkMode": mode, "containerDefinitions": [container(behaviour, *host_port)]});
            vec![("ecs", "RegisterTaskDefinition", input)]
        }
        Call::Create { service, family, desired, minimum, maximum, awsvpc } => {
            let input = json!({"serviceName": service, "taskDefinition": family, "desiredCount": desired,
                "deploymentConfiguration": {"minimumHealthyPercent": minimum, "maximumPercent": maximum}});
            vec![("ecs", "CreateService", network(*awsvpc, input))]
        }
        Call::Desire { service, desired } => {
            vec![("ecs", "UpdateService", json!({"service": service, "desiredCount": desired}))]
        }
        Call::Roll { service, family } => {
            vec![("ecs", "UpdateService", json!({"service": service, "taskDefinition": family}))]
        }
        Call::Delete { service } => vec![("ecs", "DeleteService", json!({"service": service, "force": true}))],
        Call::RunTask { family, count } => {
            vec![("ecs", "RunTask", json!({"taskDefinition": family, "count": count}))]
        }
        Call::StopTask { .. } => {
            let task = stop.map_or("none", |task| task.as_str());
            vec![("ecs", "StopTask", json!({"task": task, "reason": "a client wants it so"}))]
        }
        Call::Target { service, min, max } => {
            let input = scalable(service, json!({"MinCapacity": min, "MaxCapacity": max}));
            vec![(SCALING, "RegisterScalableTarget", input)]
        }
        Call::Track { service, percent } => {
            let metric = json!({"PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution"});
            let config = json!({"TargetValue": percent, "PredefinedMetricSpecification": metric, "ScaleOutCooldown": 5, "ScaleInCooldown": 10});
            let policy = json!({"PolicyName": "cpu", "PolicyType": "TargetTrackingScaling",
                "TargetTrackingScalingPolicyConfiguration": config});
            vec![(SCALING, "PutScalingPolicy", scalable(service, policy))]
        }
        Call::Steps { service } => {
            let steps = [
                ("out", json!({"MetricIntervalLowerBound": 0, "ScalingAdjustment": 2})),
                ("in", json!({"MetricIntervalUpperBound": 0, "ScalingAdjustment": -1})),
            ];
            let put = steps.map(|(name, step)| {
                let config = json!({"AdjustmentType": "ChangeInCapacity", "Cooldown": 5, "StepAdjustments": [step]});
                let policy = json!({"PolicyName": name, "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": config});
                (SCALING, "PutScalingPolicy", scalable(service, policy))
            });
            put.to_vec()
        }
        Call::Alarm { name, threshold } => {
            let input = json!({"AlarmName": name, "Namespace": "Sim", "MetricName": "m", "Statistic": "Average", "Period": 10,
                "EvaluationPeriods": 1, "Threshold": threshold, "ComparisonOperator": "GreaterThanThreshold"});
            vec![("monitoring", "PutMetricAlarm", input)]
        }
        Call::Unalarm { name } => vec![("monitoring", "DeleteAlarms", json!({"AlarmNames": [name]}))],
    }
}
