//! What handlers' tests stand on: an App in memory, and its wire.

use std::sync::Arc;

use super::{App, gaps::Gaps};
use crate::clock::SharedClock;
use crate::ids::IdSource;
use crate::model::ClusterName;
use crate::model::arn::Home;
use crate::store::Store;
use crate::telemetry::ingest::Ingest;
use crate::telemetry::logs::{self, LogStore};
use crate::telemetry::metrics::{self, MetricStore};
use crate::wire::Wire;

pub fn app(clock: SharedClock) -> App {
    let metrics = MetricStore::open(None, clock.clone(), metrics::Limits::default()).unwrap();
    App {
        store: Store::open(None, clock.clone(), "00000000000000000000000000000001").unwrap(),
        logs: LogStore::open(None, clock.clone(), logs::Limits::default()).unwrap(),
        ingest: Arc::new(Ingest::new(metrics.clone())),
        metrics,
        home: Home::new("us-east-1", "000000000000"),
        ids: IdSource::seeded(1),
        gaps: Gaps::default(),
        first_cluster: ClusterName::new("default"),
        alerts: Default::default(),
        backups: Default::default(),
        webhook_token: Some("test-token".to_owned()),
        ephemeral: true,
        local_instance: None,
        started_at: clock.now(),
        clock,
    }
}

/// Every service over `app`, as the port serves them.
pub fn wire(app: Arc<App>) -> Wire<App> {
    Wire { app, services: super::services(), observe: |_, _| (), span: |_, _, _| tracing::Span::none() }
}
