//! What clients can ask: one table and one folder of handlers per AWS service, and the native JSON API.
//!
//! Reads the store's snapshot and the telemetry stores, changes state only by [`Store::update`]; decides nothing that `decide` could.
//! Knows neither HTTP nor agents. Start reading at [`services`].

pub mod alertmanager;
pub mod autoscaling;
pub mod cloudwatch;
pub mod ecs;
pub mod gaps;
pub mod logs;
pub mod native;
mod oam;
pub mod sts;
#[cfg(test)]
pub mod testing;

use std::sync::Arc;

use crate::clock::SharedClock;
use crate::ids::SharedIds;
use crate::model::arn::Home;
use crate::model::{ClusterName, InstanceId, Timestamp};
use crate::store::{self, Store, Tx};
use crate::telemetry::ingest::Ingest;
use crate::telemetry::logs::LogStore;
use crate::telemetry::metrics::MetricStore;
use crate::wire::fault::{Code, Fault};
use crate::wire::service::Service;

/// What handlers work on.
pub struct App {
    pub store: Store,
    pub metrics: Arc<MetricStore>,
    pub logs: Arc<LogStore>,
    pub ingest: Arc<Ingest>,
    pub home: Home,
    pub clock: SharedClock,
    pub ids: SharedIds,
    pub gaps: gaps::Gaps,
    /// Alerts that could not be used.
    pub alerts: alertmanager::Seen,
    /// The backup that is being taken.
    pub backups: native::backup::Backups,
    /// What Alertmanager must say; None takes no alerts.
    pub webhook_token: Option<String>,
    /// Made at start; what a client means when it names no cluster is always `default`.
    pub first_cluster: ClusterName,
    /// `POST /api/reset` is offered.
    pub ephemeral: bool,
    /// The agent in this process: `/health` waits for it.
    pub local_instance: Option<InstanceId>,
    pub started_at: Timestamp,
}

pub type Cx = crate::wire::service::Cx<App>;

/// Every AWS service that is served, for [`crate::wire::Wire`].
pub fn services() -> Vec<Service<App>> {
    vec![ecs::service(), cloudwatch::service(), logs::service(), autoscaling::service(), sts::service(), oam::service()]
}

/// Compares without telling by its time how much was right: for the tokens of agents and of Alertmanager.
pub fn same_secret(given: &str, secret: &str) -> bool {
    given.len() == secret.len() && given.bytes().zip(secret.bytes()).fold(0, |d, (a, b)| d | (a ^ b)) == 0
}

/// Why a change was not made: the handler refused it, or the store could not keep it.
enum NotDone {
    Refused(Fault),
    Store(store::Error),
}

impl From<store::Error> for NotDone {
    fn from(error: store::Error) -> NotDone {
        NotDone::Store(error)
    }
}

/// Runs `change` on the newest state and answers when it is durable; a Fault from it changes nothing. `ours` is the service's code
/// for trouble that is not the client's.
async fn update<T: Send + 'static>(
    cx: &Cx,
    operation: String,
    ours: &'static Code,
    change: impl FnOnce(&mut Tx, &App) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let app = cx.app.clone();
    let cause = format!("{operation} {}", cx.request_id);
    let done = cx.app.store.update(cause, move |tx| change(tx, &app).map_err(NotDone::Refused)).await;
    done.map_err(|why| match why {
        NotDone::Refused(fault) => fault,
        NotDone::Store(error) => Fault::new(ours, format!("The change was not made: {error}.")),
    })
}
