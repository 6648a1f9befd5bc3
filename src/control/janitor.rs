//! Forgets what has been over for long enough, a bounded number at a time.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Control;
use crate::model::instance::InstanceStatus;
use crate::model::service::ServiceStatus;
use crate::model::{Millis, TaskId, Timestamp};
use crate::store::{self, Change, State};

const EVERY_MS: Millis = 30_000;
/// Rows that one pass forgets at most; the next pass goes on.
const AT_ONCE: usize = 2_000;
/// Application Auto Scaling keeps activities for six weeks.
const KEEP_ACTIVITIES_MS: Millis = 42 * 24 * 3_600_000;

pub async fn run(control: Arc<Control>, stop: CancellationToken) {
    loop {
        let next = control.clock.now() + EVERY_MS;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = super::until(&control.clock, Some(next)) => {}
        }
        if let Err(error) = sweep(&control).await {
            tracing::warn!(%error, "what is over could not be forgotten; it is tried again");
        }
        let logs = control.logs.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || logs.tend()).await {
            tracing::warn!(%error, "old lines could not be forgotten; it is tried again");
        }
    }
}

pub async fn sweep(control: &Control) -> Result<(), store::Error> {
    let (now, keep) = (control.clock.now(), control.settings.keep_stopped_ms);
    let over = over(&control.store.snapshot(), now, keep);
    if over.is_empty() {
        return Ok(());
    }
    control
        .store
        .update("forget", move |tx| {
            over.into_iter().for_each(|change| tx.put(change));
            Ok(())
        })
        .await
}

fn over(state: &State, now: Timestamp, keep: Millis) -> Vec<Change> {
    let tasks = state.stopped_before(now - keep).map(|id: &TaskId| Change::Task(id.clone(), None));
    let services = state
        .services
        .values()
        .filter(|s| s.status == ServiceStatus::Inactive && now.since(s.updated_at) > keep)
        .map(|s| Change::Service(s.key.clone(), None));
    let instances = state
        .instances
        .values()
        .filter(|i| i.status == InstanceStatus::Inactive && now.since(i.disconnected_at.unwrap_or(i.registered_at)) > keep)
        .map(|i| Change::Instance(i.id.clone(), None));
    let activities = state
        .activities
        .keys()
        .filter(|(_, started, _)| now.0 - started > KEEP_ACTIVITIES_MS)
        .map(|key| Change::Activity(key.clone(), None));
    tasks.chain(services).chain(instances).chain(activities).take(AT_ONCE).collect()
}
