//! The past of a data directory, read beside its server or without one.

use std::path::Path;
use std::sync::Arc;

use super::Wrong;
use super::recording::{Known, Plan};
use crate::clock::ManualClock;
use crate::model::alarm::Alarm;
use crate::model::arn::Home;
use crate::model::decision::{Decision, Subject};
use crate::model::metric::Datapoint;
use crate::model::scaling::ScalingPolicy;
use crate::model::{ServiceKey, Timestamp};
use crate::schedule::scaling::names_policy;
use crate::store::journal::{Journal, Wanted};
use crate::store::{Record, RecordKind};
use crate::telemetry::metrics::{Limits, MetricStore};

pub struct Files {
    pub journal: Journal,
    /// The last commit or the newest datum: what this directory knows as now.
    pub now: Timestamp,
    metrics: Option<Arc<MetricStore>>,
}

const NEXT: &str = "name a data directory of Beaufort (where state.sqlite is), or a backup's file";

impl Files {
    /// `path` is a data directory, or a file that holds a state: then there are no metrics.
    pub fn open(path: &Path) -> Result<Files, Wrong> {
        let journal = Journal::open(path).map_err(|e| Wrong::new(e.to_string(), NEXT))?;
        let extent = journal.extent().map_err(|e| Wrong::new(e.to_string(), NEXT))?;
        let mut now = extent.map_or(Timestamp::ZERO, |extent| extent.last_at);
        let metrics = path.join("metrics");
        let metrics = if metrics.is_dir() {
            // The seconds of a directory that nobody has used since yesterday are there yet: by its own time they are new.
            let clock = ManualClock::at(now);
            let opened = MetricStore::open_to_read(&metrics, clock.clone(), Limits::default());
            let opened = opened.map_err(|e| Wrong::new(e.to_string(), "try again; a copy of the directory will do as well"))?;
            now = opened.newest().map_or(now, |newest| newest.max(now));
            clock.set(now);
            Some(Arc::new(opened))
        } else {
            None
        };
        Ok(Files { journal, now, metrics })
    }

    pub fn known(&self, service: &ServiceKey, since: Timestamp, until: Timestamp) -> Result<Known, Wrong> {
        let failed = |e: crate::store::Error| Wrong::new(e.to_string(), NEXT);
        let state = self.journal.state().map_err(failed)?;
        let policies: Vec<&ScalingPolicy> = state.policies_of_service(service).map(|policy| &**policy).collect();
        let of_service = |alarm: &&Alarm| alarm.alarm_actions.iter().any(|a| policies.iter().any(|p| names_policy(a, p)));
        let wanted = Wanted {
            kind: Some(RecordKind::Decision),
            service: Some(service.to_string()),
            since: Some(since),
            until: Some(until),
            after: 0,
        };
        let mut decisions: Vec<Decision> = Vec::new();
        for record in self.journal.records(wanted) {
            let (_, record) = record.map_err(failed)?;
            if let Record::Decision(decision @ Decision { subject: Subject::Service(_), .. }) = record {
                decisions.push(decision);
            }
        }
        Ok(Known {
            service: service.clone(),
            target: state.targets.get(service).map(|target| (**target).clone()),
            alarms: state.alarms.values().map(|alarm| &**alarm).filter(of_service).cloned().collect(),
            decisions,
        })
    }

    pub fn answers(&self, plan: &Plan) -> Result<Vec<Vec<Datapoint>>, Wrong> {
        let missing = || Wrong::new("a journal alone holds no metrics", "name the data directory, where metrics/ lies beside it");
        let metrics = self.metrics.as_ref().ok_or_else(missing)?;
        Ok(plan.fetches.iter().map(|fetch| metrics.query(&fetch.query)).collect())
    }

    /// The names in ARNs play no part in what is decided.
    pub fn home() -> Home {
        Home::new("us-east-1", "000000000000")
    }
}
