//! `GET /api/why?subject=service/NAME | task/ID | alarm/NAME`: how the thing stands now, and the decisions that brought it there.

use serde_json::{Value, json};

use super::decisions::{line, service};
use super::{Answered, App, Params, Refusal, alertmanager, bad, ok, unavailable};
use crate::model::alarm::Alarm;
use crate::model::task::Task;
use crate::model::{ServiceKey, TaskId};
use crate::store::{RecordQuery, State};

pub async fn why(app: &App, params: &Params) -> Answered {
    let subject =
        params.get("subject").ok_or_else(|| bad("subject is missing: service/NAME, task/ID or alarm/NAME".to_owned()))?;
    let limit = params.number("limit")?.unwrap_or(30).min(1_000);
    let state = app.store.snapshot();
    let base = RecordQuery { limit, ..RecordQuery::decisions() };
    let (now, query) = match subject.split_once('/') {
        Some(("task", id)) => {
            let task = find_task(&state, id);
            // A task is found in the ledger long after the state has forgotten it.
            let id = task.map_or(id, |t| t.id.as_str());
            let query = RecordQuery { subject: Some(format!("task/{id}")), ..base };
            (task.map(|task| task_now(app, task)), query)
        }
        Some(("alarm", name)) => {
            let alarm = state.alarms.get(name).map(|alarm| alarm_now(alarm));
            (alarm, RecordQuery { subject: Some(format!("alarm/{name}")), ..base })
        }
        Some(("instance", id)) => {
            let instance = state.instances.iter().find(|(key, _)| key.as_str().starts_with(id)).map(|(_, instance)| {
                json!({ "status": instance.status.as_str(), "connected": instance.agent_connected, "host": instance.host_name,
                        "docker_away_since": instance.engine_away_since.map(|t| t.iso()),
                        "clock_ahead_s": app.ingest.skew_of(&instance.id).map(|ms| ms as f64 / 1e3) })
            });
            (instance, RecordQuery { subject: Some(format!("instance/{id}")), ..base })
        }
        Some(("service", rest)) => of_service(&state, service(rest), base),
        None => of_service(&state, service(subject), base),
        Some((cluster, name)) => of_service(&state, ServiceKey::new(cluster, name), base),
    };
    let found = app.store.records(query).await.map_err(unavailable)?;
    if now.is_none() && found.is_empty() {
        return Err(Refusal {
            status: 404,
            error: format!("nothing is known of {subject}, and the ledger holds no decision about it"),
            hint: "beaufort services and beaufort ps list what there is; say CLUSTER/NAME for a service of another cluster than default",
        });
    }
    let decisions: Vec<Value> = found.into_iter().filter_map(|(seq, record)| line(seq, record)).collect();
    Ok(ok(&json!({ "subject": subject, "now": now, "decisions": decisions })))
}

fn alarm_now(alarm: &Alarm) -> Value {
    let mut now = json!({ "state": alarm.state.as_str(), "reason": alarm.state_reason, "since": alarm.state_transitioned_at.iso(),
                          "metric": alarm.metric.to_string(), "threshold": alarm.threshold });
    match &alarm.external {
        None => now["period_s"] = json!(alarm.period_s),
        Some(known) => {
            now["rule"] = json!(known.rule);
            now["value"] = json!(known.value);
            now["labels"] = json!(known.labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join(" "));
            now["heard"] = json!(known.heard_at.iso());
            now["expression"] = json!(known.generator_url);
        }
    }
    now
}

fn of_service(state: &State, key: ServiceKey, base: RecordQuery) -> (Option<Value>, RecordQuery) {
    let now = state.services.get(&key).map(|service| {
        let counts = state.counts(&key);
        let alarms: Vec<Value> = state
            .policies_of_service(&key)
            .flat_map(|policy| policy.alarms.iter().filter_map(|name| state.alarms.get(name)).map(move |alarm| (policy, alarm)))
            .map(|(policy, alarm)| (policy.name.clone(), alarm))
            .chain(alertmanager::alarms_of(state, &key).map(|alarm| {
                let policy = alarm.external.as_ref().and_then(|known| known.labels.get("policy")).cloned();
                (policy.unwrap_or_default(), alarm)
            }))
            .map(|(policy, alarm)| json!({ "alarm": alarm.name, "policy": policy, "state": alarm.state.as_str(), "reason": alarm.state_reason }))
            .collect();
        let deployments: Vec<Value> = service
            .deployments
            .iter()
            .map(|d| json!({ "id": d.id, "task_definition": d.definition.to_string(), "rollout": d.rollout.as_str(), "reason": d.rollout_reason,
                             "failed_tasks": d.failed_tasks, "throttled_until": d.throttled_until.map(|t| t.iso()) }))
            .collect();
        json!({
            "status": service.status.as_str(), "desired": service.desired_count, "running": counts.running, "pending": counts.pending,
            "stopping": counts.stopping, "steady": service.steady, "deployments": deployments, "alarms": alarms,
            "event": service.events.front().map(|e| &e.message),
        })
    });
    (now, RecordQuery { service: Some(key.to_string()), ..base })
}

/// By its id, the beginning of it, or its ARN.
fn find_task<'a>(state: &'a State, id: &str) -> Option<&'a Task> {
    let id = crate::model::arn::short_name(id);
    let mut matching = state.tasks.range(TaskId::new(id)..).take_while(|(key, _)| key.as_str().starts_with(id));
    let first = matching.next()?;
    matching.next().is_none().then_some(&**first.1)
}

fn task_now(app: &App, task: &Task) -> Value {
    let containers: Vec<Value> = task
        .containers
        .iter()
        .map(|c| json!({ "name": c.name, "status": c.last_status.as_str(), "exit_code": c.exit_code, "reason": c.reason, "restarts": c.restart_count }))
        .collect();
    json!({
        "task": app.home.task(&task.cluster, &task.id),
        "status": task.last_status.as_str(), "desired": task.desired_status.as_str(), "health": task.health.as_str(),
        "stop_code": task.stop_code.map(|c| c.as_str()), "stopped_reason": task.stopped_reason,
        "instance": task.instance, "service": task.service, "task_definition": task.definition.to_string(), "containers": containers,
    })
}
