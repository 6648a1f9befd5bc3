//! What `/sd/prometheus` lists and what it leaves out, by service. A service that should be scraped and is not shows as 0.

use std::collections::BTreeMap;

use super::families::{Kind, Page, labels};
use crate::api::native::discovery;
use crate::model::service::ServiceStatus;
use crate::store::State;

/// By cluster and service; tasks of no service have an empty one.
type ByService = BTreeMap<(String, String), u64>;

pub fn write(page: &mut Page, state: &State) {
    let found = discovery::discover(state, |_| true);
    let key = |cluster: &str, service: Option<&str>| (cluster.to_owned(), service.unwrap_or("").to_owned());
    let live = state.services.values().filter(|s| s.status != ServiceStatus::Inactive);
    let mut listed: ByService = live.map(|s| (key(s.key.cluster.as_str(), Some(s.key.service.as_str())), 0)).collect();
    let mut skipped = listed.clone();
    for target in &found.targets {
        let service = target.task.service.as_ref().map(|s| s.as_str());
        *listed.entry(key(target.task.cluster.as_str(), service)).or_default() += 1;
    }
    for (what, tasks) in &found.skipped {
        *skipped.entry(key(&what.cluster, what.service.as_deref())).or_default() += tasks;
    }
    let mut gauge = |name: &str, help: &str, rows: &ByService| {
        let rows = rows.iter().map(|((c, s), n)| (labels([("cluster", c.as_str()), ("service", s.as_str())]), *n as f64));
        page.family(name, Kind::Gauge, help, rows);
    };
    gauge("beaufort_discovered_targets", "Ports of running containers that /sd/prometheus lists.", &listed);
    gauge(
        "beaufort_discovery_skipped_targets",
        "Containers that ask to be scraped in a way that cannot be; /api/gaps says why.",
        &skipped,
    );
}
