//! A decision as it is remembered: what was done (or not done yet), when, why, and with which numbers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{InstanceId, ServiceKey, TaskId, Timestamp};

/// Why something was chosen. The code is a metric label and an event code; the sentence is for people; the evidence holds the numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    pub code: ReasonCode,
    pub sentence: String,
    pub evidence: Evidence,
}

impl Reason {
    pub fn new(code: ReasonCode, sentence: impl Into<String>) -> Reason {
        Reason { code, sentence: sentence.into(), evidence: Evidence::new() }
    }
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Reason {
        self.evidence.insert(name.to_owned(), value.into());
        self
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

pub type Evidence = BTreeMap<String, serde_json::Value>;

/// Closed: every reason that Beaufort can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    // Placement.
    Placed,
    NoInstances,
    NotPlaced,
    // Service scheduler.
    BelowDesired,
    AboveDesired,
    ReplaceUnhealthy,
    ReplaceLost,
    DrainInstance,
    RollForward,
    RollOldDrained,
    ServiceDeleted,
    DeploymentStarted,
    DeploymentCompleted,
    DeploymentStuck,
    Throttled,
    SteadyState,
    WaitHealthy,
    WaitStopping,
    WaitCapacity,
    // Tasks.
    UserStopped,
    EssentialExited,
    FailedToStart,
    PauseExited,
    TaskStarted,
    TaskRunning,
    TaskStopped,
    InstanceLost,
    EngineAway,
    ClockDiffers,
    Restarted,
    // Alarms.
    AlarmOk,
    AlarmRaised,
    AlarmNoData,
    AlarmSetByUser,
    // Scaling.
    ScaledOut,
    ScaledIn,
    ScaleOutDone,
    AlreadyAtMax,
    AlreadyAtMin,
    AlreadyAtDesired,
    InCooldown,
    ScaleInNotReady,
    ScaleInDisabled,
    DeploymentInProgress,
    Suspended,
    NoStepMatches,
    NoData,
    BoundsChanged,
    SetByUser,
    AnticipatedFlapping,
}

impl ReasonCode {
    /// The snake-case name, for labels and `--json`.
    pub fn as_str(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// What a decision is about: `beaufort why` asks by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    Service(ServiceKey),
    Task { task: TaskId, service: Option<ServiceKey> },
    Alarm { name: String, service: Option<ServiceKey> },
    Instance(InstanceId),
}

impl Subject {
    /// `service/CLUSTER/NAME`, `task/ID`, `alarm/NAME`, `instance/ID`.
    pub fn path(&self) -> String {
        match self {
            Subject::Service(key) => key.resource_id(),
            Subject::Task { task, .. } => format!("task/{task}"),
            Subject::Alarm { name, .. } => format!("alarm/{name}"),
            Subject::Instance(id) => format!("instance/{id}"),
        }
    }

    /// The service that the decision belongs to, so that `why service/NAME` shows its tasks' and alarms' decisions too.
    pub fn service(&self) -> Option<&ServiceKey> {
        match self {
            Subject::Service(key) => Some(key),
            Subject::Task { service, .. } | Subject::Alarm { service, .. } => service.as_ref(),
            Subject::Instance(_) => None,
        }
    }
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub at: Timestamp,
    pub subject: Subject,
    /// What was done in a few words: `start 2 tasks`, `stop task`, `desired 1 -> 3`.
    pub action: String,
    pub reason: Reason,
    pub trace: Option<String>,
}
