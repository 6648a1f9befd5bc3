//! AWS's APIs: shapes and handlers per service.

use std::sync::Arc;

use crate::clock::SharedClock;
use crate::model::arn::Home;
use crate::telemetry::logs::LogStore;

pub mod logs;

/// What the handlers work on.
pub struct App {
    pub logs: Arc<LogStore>,
    pub home: Home,
    pub clock: SharedClock,
}

pub type Cx = crate::wire::service::Cx<App>;
