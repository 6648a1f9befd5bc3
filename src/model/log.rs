//! Log events, and how an agent hands a container's lines over so that each is stored once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// `time` is the event's own, in milliseconds; order inside a stream is order of arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    pub at: Timestamp,
    pub message: Arc<str>,
}

/// Where a container's lines go: from `awslogs-group`, `awslogs-stream-prefix`, `awslogs-create-group`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    pub group: String,
    /// `prefix/container-name/task-id`, or the container's Docker id without a prefix.
    pub stream: String,
    pub create_group: bool,
}

/// Lines of one container in order. `first` is the number of the first line since the container was created; numbers have no gaps,
/// so a store that has seen up to N drops every line whose number is N or less: a batch may be sent again without harm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineBatch {
    /// Docker's container id: lines are numbered per source.
    pub source: String,
    pub target: LogTarget,
    pub first: u64,
    pub events: Vec<LogEvent>,
    /// Lines known to be lost just before this batch (rotated away unread, cut off by a torn record).
    pub lost_before: u64,
    /// Where reading goes on after this batch: opaque to all but the agent, given back to it when it resumes.
    pub resume: String,
}

/// What the store remembers of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    pub source: String,
    /// The number of the next line.
    pub next: u64,
    pub resume: String,
}
