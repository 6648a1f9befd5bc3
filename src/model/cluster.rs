//! A cluster: the name under which services, tasks and container instances are kept apart.

use serde::{Deserialize, Serialize};

use super::tag::Tag;
use super::{ClusterName, Timestamp};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: ClusterName,
    pub status: ClusterStatus,
    pub tags: Vec<Tag>,
    /// Name and value pairs as the client gave them (`containerInsights`).
    pub settings: Vec<(String, String)>,
    pub created_at: Timestamp,
}

/// A deleted cluster stays describable as INACTIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClusterStatus {
    Active,
    Inactive,
}
