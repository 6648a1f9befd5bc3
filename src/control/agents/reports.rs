//! What an agent reports of its tasks, into the state.

use crate::decide::{service as service_rules, task as rules};
use crate::model::InstanceId;
use crate::model::link::TaskReport;
use crate::model::task::{StopCode, Task};
use crate::store::Tx;
use crate::{observe, schedule};

pub(super) fn apply_reports(tx: &mut Tx, instance: &InstanceId, reports: &[TaskReport]) {
    for report in reports {
        let Some(task) = tx.state().tasks.get(&report.task).filter(|t| t.instance == *instance).cloned() else { continue };
        let Some(definition) = tx.state().definitions.get(&task.definition).cloned() else { continue };
        let Some((new, reasons)) = rules::apply_report(&task, &definition, report, tx.now) else { continue };
        for reason in reasons {
            schedule::remember(tx, &new, new.last_status.as_str(), reason);
        }
        count_for_deployment(tx, &task, &new);
        if new.is_stopped() && !task.is_stopped() {
            observe_stop(&new);
        }
        observe_memory_kills(&task, &new);
        tx.put(new);
    }
}

/// The restart throttle counts tasks that never reached RUNNING, and forgets them when one does.
fn count_for_deployment(tx: &mut Tx, before: &Task, after: &Task) {
    let (Some(key), Some(deployment)) = (after.service_key(), &after.deployment) else { return };
    let started = before.started_at.is_none() && after.started_at.is_some();
    let failed = !before.is_stopped() && after.is_stopped() && rules::never_ran(after);
    let ended_early = !before.is_stopped()
        && after.is_stopped()
        && after.stop_code == Some(StopCode::EssentialContainerExited)
        && after.started_at.is_some_and(|at| tx.now.since(at) < service_rules::EARLY_MS);
    if !started && !failed && !ended_early {
        return;
    }
    let Some(service) = tx.state().services.get(&key) else { return };
    let mut service = (**service).clone();
    let now = tx.now;
    if started {
        service_rules::after_task_started(&mut service, deployment, now);
    }
    if failed {
        service_rules::after_task_failed(&mut service, deployment, now);
    } else if ended_early {
        service_rules::after_task_ended_early(&mut service, deployment, now);
    }
    tx.put(service);
}

fn observe_stop(task: &Task) {
    let code = task.stop_code.map_or("", |c| c.as_str());
    tracing::info!(task = %task.id, code, reason = task.stopped_reason.as_deref().unwrap_or(""), "task stopped");
    observe::task_stopped(&task.cluster, task.service.as_ref(), code);
}

/// When it is told, not when the task ends: a container that is not essential may end long before.
fn observe_memory_kills(before: &Task, after: &Task) {
    let killed =
        |task: &Task, n: usize| task.containers.get(n).is_some_and(|c| c.reason.as_deref() == Some(rules::OUT_OF_MEMORY));
    for (n, container) in after.containers.iter().enumerate() {
        if killed(after, n) && !killed(before, n) {
            observe::container_oom_killed(&after.cluster, after.service.as_ref(), container.name.as_str());
        }
    }
}
