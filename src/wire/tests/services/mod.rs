//! A few operations of each kind, enough to prove the wire. The state is a toy.

#![allow(dead_code, clippy::enum_variant_names, clippy::disallowed_methods)]

pub mod cloudwatch;
pub mod ecs;
pub mod logs;
pub mod probe;
pub mod xray;

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::wire::service::Service;
use crate::wire::types::Timestamp;

#[derive(Default)]
pub struct App {
    pub data: Mutex<BTreeMap<String, Vec<(Timestamp, f64)>>>,
    pub alarms: Mutex<BTreeMap<String, cloudwatch::MetricAlarm>>,
    pub clusters: Mutex<BTreeMap<String, ecs::Cluster>>,
    pub events: Mutex<BTreeMap<(String, String), Vec<logs::OutputLogEvent>>>,
    pub traces: Mutex<Vec<String>>,
}

pub type Cx = crate::wire::service::Cx<App>;

pub fn all() -> Vec<Service<App>> {
    vec![cloudwatch::service(), ecs::service(), logs::service(), xray::service(), probe::service()]
}

pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
