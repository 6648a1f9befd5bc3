//! Forgets what has been over for long enough, a bounded number at a time.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Control;
use crate::model::alarm::{Alarm, AlarmState};
use crate::model::instance::InstanceStatus;
use crate::model::service::ServiceStatus;
use crate::model::{Millis, ServiceKey, TaskId, Timestamp};
use crate::observe;
use crate::store::{self, Change, State};

const EVERY_MS: Millis = 30_000;
/// While commits fail.
const TRY_DISK_MS: Millis = 2_000;
/// Rows that one pass forgets at most; the next pass goes on at once.
const AT_ONCE: usize = 2_000;
/// Application Auto Scaling keeps activities for six weeks.
const KEEP_ACTIVITIES_MS: Millis = 42 * 24 * 3_600_000;

/// An alert that is over can be looked at for a day.
const KEEP_ALERTS_MS: Millis = 24 * 3_600_000;

pub async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut next = control.clock.now() + EVERY_MS;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = super::until(&control.clock, super::alive(&control, "janitor", Some(next))) => {}
        }
        let now = control.clock.now();
        // Further ahead than it was planned: the clock was set back.
        next = next.min(now + EVERY_MS);
        if now < next {
            continue;
        }
        // Each pass is bounded, and what comes between them is not held up: a million tasks that ended are forgotten in turns.
        loop {
            match sweep(&control).await {
                Ok(forgotten) if forgotten >= AT_ONCE && !stop.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "what is over could not be forgotten; it is tried again");
                    break;
                }
            }
        }
        let logs = control.logs.clone();
        if let Ok(Err(error)) = crate::telemetry::logs::aside(move || logs.tend()).await {
            tracing::warn!(%error, "old lines could not be forgotten; it is tried again");
        }
        // Whether the disk takes writes again is known by writing: others may have nothing to write for long.
        let failing = control.store.stats().failing;
        next = control.clock.now() + if failing { TRY_DISK_MS } else { EVERY_MS };
    }
}

/// How many rows went.
pub async fn sweep(control: &Control) -> Result<usize, store::Error> {
    let (now, keep) = (control.clock.now(), control.settings.keep_stopped_ms);
    if control.store.stats().failing {
        let again = |tx: &mut store::Tx| {
            let any = tx.state().clusters.values().next().cloned();
            any.into_iter().for_each(|cluster| tx.put((*cluster).clone()));
            Ok::<_, store::Error>(())
        };
        control.store.update("the disk is tried again", again).await?;
        tracing::info!("the state is written to disk again");
    }
    if over(&control.store.snapshot(), now, keep).is_empty() {
        return Ok(0);
    }
    let (services, forgotten) = control
        .store
        .update("forget", move |tx| {
            // Looked at anew: a service may have been made again, and an alert may fire again.
            let over = over(tx.state(), now, keep);
            let service = |change: &Change| match change {
                Change::Service(key, None) => Some(key.clone()),
                _ => None,
            };
            let services: Vec<ServiceKey> = over.iter().filter_map(service).collect();
            let forgotten = over.len();
            over.into_iter().for_each(|change| tx.put(change));
            Ok::<_, store::Error>((services, forgotten))
        })
        .await?;
    services.iter().for_each(observe::service_forgotten);
    Ok(forgotten)
}

fn is_over(alarm: &Alarm, now: Timestamp) -> bool {
    alarm.external.is_some() && alarm.state != AlarmState::Alarm && now.since(alarm.state_updated_at) > KEEP_ALERTS_MS
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
    // Alertmanager makes an alarm for every set of labels, and nobody deletes them. Their history stays.
    let alerts = state.alarms.iter().filter(|(_, alarm)| is_over(alarm, now)).map(|(name, _)| Change::Alarm(name.clone(), None));
    tasks.chain(services).chain(instances).chain(activities).chain(alerts).take(AT_ONCE).collect()
}
