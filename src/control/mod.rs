//! Control loops: each waits for a change, looks at a snapshot, lets `decide` choose, and applies the choice guarded.
//!
//! Owns no rule and no state that a restart may not lose. No loop calls another: they meet in the store. Start reading at
//! [`services`]; [`agents`] is where agents' messages come in, [`alarms`] where metrics become states, [`scaling`] where states
//! become desired counts.

pub mod agents;
pub mod alarms;
mod alerts;
pub mod capacity;
pub mod janitor;
pub mod scaling;
pub mod services;

use std::sync::Arc;

use crate::clock::SharedClock;
use crate::decide::service::Settings;
use crate::ids::SharedIds;
use crate::model::arn::Home;
use crate::model::{Millis, Timestamp};
use crate::store::Store;
use crate::telemetry::ingest::Ingest;
use crate::telemetry::logs::LogStore;
use crate::telemetry::metrics::MetricStore;

/// What the loops work on.
pub struct Control {
    pub store: Store,
    pub metrics: Arc<MetricStore>,
    pub logs: Arc<LogStore>,
    pub ingest: Arc<Ingest>,
    pub home: Home,
    pub clock: SharedClock,
    pub ids: SharedIds,
    pub settings: ControlSettings,
}

#[derive(Clone, Debug)]
pub struct ControlSettings {
    pub service: Settings,
    /// How long after a period's end its data may still arrive.
    pub settle_ms: Millis,
    /// A stopped task stays describable for so long: an hour on ECS, and here.
    pub keep_stopped_ms: Millis,
    /// An agent that is silent for so long is disconnected.
    pub agent_silence_ms: Millis,
}

impl Default for ControlSettings {
    fn default() -> ControlSettings {
        ControlSettings {
            service: Settings { healthy_after_ms: crate::model::service::DEFAULT_HEALTHY_AFTER_MS, lost_after_ms: 60_000 },
            settle_ms: 150,
            keep_stopped_ms: 3_600_000,
            agent_silence_ms: 15_000,
        }
    }
}

/// A loop comes round at least this often.
const ALIVE_MS: Millis = 4_000;

/// A loop has come round: says so, and until when it may wait, which is the sooner of `next` and when it is to say so again.
pub(crate) fn alive(control: &Control, name: &str, next: Option<Timestamp>) -> Option<Timestamp> {
    let now = control.clock.now();
    crate::observe::loop_lives(name, now);
    Some(next.map_or(now + ALIVE_MS, |next| next.min(now + ALIVE_MS)))
}

/// Steps back that are taken for none: a daemon that keeps the clock right makes small ones.
const SLACK_MS: Millis = 100;

/// Notices when the time of day is set back: moments that a loop has planned for lie too far ahead then.
pub(crate) struct SetBack(Timestamp);

impl SetBack {
    pub(crate) fn at(now: Timestamp) -> SetBack {
        SetBack(now)
    }

    /// Whether it was since this was last asked.
    pub(crate) fn since_last(&mut self, now: Timestamp) -> bool {
        now + SLACK_MS < std::mem::replace(&mut self.0, now)
    }
}

/// Waits until the clock shows `at`, or for ever; also ends when the clock was set back, as whatever was planned by it is void then.
/// Loops race this against their watch, so a jump of the clock costs at most a second.
pub(crate) async fn until(clock: &SharedClock, at: Option<Timestamp>) {
    let Some(at) = at else { return std::future::pending().await };
    let mut set_back = SetBack::at(clock.now());
    loop {
        let now = clock.now();
        let left = at.since(now);
        if left <= 0 || set_back.since_last(now) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(left.min(1_000) as u64)).await;
    }
}
