//! What a client asks of placement, in AWS's member names.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementConstraint {
    /// `distinctInstance` or `memberOf`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Cluster query language; memberOf only.
    pub expression: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementStrategy {
    /// `random`, `spread` or `binpack`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// spread: `instanceId`, `host` or `attribute:NAME`; binpack: `cpu` or `memory`.
    pub field: Option<String>,
}
