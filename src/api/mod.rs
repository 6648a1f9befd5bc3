//! What clients can ask: one table and one folder of handlers per AWS service, and the native JSON API.
//!
//! Reads the store's snapshot and the telemetry stores, changes state only by [`Store::update`]; decides nothing that `decide` could.
//! Knows neither HTTP nor agents.

pub mod ecs;
pub mod gaps;

use crate::clock::SharedClock;
use crate::ids::SharedIds;
use crate::model::ClusterName;
use crate::model::arn::Home;
use crate::store::Store;

/// What handlers work on.
pub struct App {
    pub store: Store,
    pub home: Home,
    pub clock: SharedClock,
    pub ids: SharedIds,
    pub gaps: gaps::Gaps,
    /// Made at start; what a client means when it names no cluster is always `default`.
    pub first_cluster: ClusterName,
}

pub type Cx = crate::wire::service::Cx<App>;
