//! What one task may do from one commit to the next.

use super::Rule;
use crate::model::task::Task;

/// `explained`: the ledger has a reason for this commit's change of the task.
pub fn judge(old: Option<&Task>, new: &Task, explained: bool) -> Vec<(Rule, String)> {
    let id = &new.id;
    let mut breaches = Vec::new();
    let mut broken = |rule: Rule, what: String| breaches.push((rule, format!("task {id} {what}")));
    let Some(old) = old else {
        if !explained {
            broken(Rule::Ledger, "was started and the ledger does not say why".to_owned());
        }
        return breaches;
    };
    if new.last_status < old.last_status {
        broken(Rule::Order, format!("went back from {} to {}", old.last_status.as_str(), new.last_status.as_str()));
    }
    if old.is_stopping() && !new.is_stopping() {
        broken(Rule::Order, "was to stop and is wanted again".to_owned());
    }
    if new.instance != old.instance || new.reserved != old.reserved {
        broken(Rule::Order, "was moved or resized".to_owned());
    }
    let quiet = new.version == old.version && as_clients_see(new) == as_clients_see(old);
    if new.version <= old.version && !quiet {
        broken(Rule::Order, "changed and its version did not grow".to_owned());
    }
    if new.is_stopping() && !old.is_stopping() && !explained {
        broken(Rule::Ledger, "was stopped and the ledger does not say why".to_owned());
    }
    if new.is_stopped() && new.stopped_reason.as_deref().unwrap_or_default().is_empty() {
        broken(Rule::Ledger, "stopped without a stoppedReason".to_owned());
    }
    breaches
}

/// A restart by the container's own policy is no event to clients, and raises no version: nothing else may change in silence.
fn as_clients_see(task: &Task) -> Task {
    let mut seen = task.clone();
    for container in &mut seen.containers {
        (container.restart_count, container.started_at) = (0, None);
    }
    seen
}
