//! What is only ever appended: the ledger of decisions and the history of alarms. Kept on disk and queried there.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::alarm::AlarmHistory;
use crate::model::decision::Decision;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    Decision(Decision),
    Alarm(AlarmHistory),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    Decision,
    Alarm,
}

impl Record {
    pub fn kind(&self) -> RecordKind {
        match self {
            Record::Decision(_) => RecordKind::Decision,
            Record::Alarm(_) => RecordKind::Alarm,
        }
    }

    pub fn at(&self) -> Timestamp {
        match self {
            Record::Decision(decision) => decision.at,
            Record::Alarm(history) => history.at,
        }
    }

    /// `service/C/N`, `task/ID`, `alarm/NAME`, ...
    pub(super) fn subject(&self) -> String {
        match self {
            Record::Decision(decision) => decision.subject.path(),
            Record::Alarm(history) => format!("alarm/{}", history.alarm),
        }
    }

    /// `C/N` of the service it belongs to, or nothing.
    pub(super) fn service(&self) -> String {
        match self {
            Record::Decision(decision) => decision.subject.service().map(|key| key.to_string()).unwrap_or_default(),
            Record::Alarm(_) => String::new(),
        }
    }
}

/// Newest first; every filter that is given must hold.
#[derive(Clone, Debug)]
pub struct RecordQuery {
    pub kind: RecordKind,
    /// A subject's path (`task/ID`), exactly.
    pub subject: Option<String>,
    /// `CLUSTER/NAME`: everything that belongs to this service.
    pub service: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Only records before this number: the last one of the page before.
    pub before: Option<u64>,
    /// Only records after this number, for following.
    pub after: Option<u64>,
    /// At most this many, and never more than 10,000.
    pub limit: usize,
}

impl RecordQuery {
    pub fn decisions() -> RecordQuery {
        RecordQuery {
            kind: RecordKind::Decision,
            subject: None,
            service: None,
            since: None,
            until: None,
            before: None,
            after: None,
            limit: 100,
        }
    }
    pub fn alarms() -> RecordQuery {
        RecordQuery { kind: RecordKind::Alarm, ..RecordQuery::decisions() }
    }
}
