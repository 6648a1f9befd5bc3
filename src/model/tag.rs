//! Tags: up to 50 on a resource, key 1 to 128 and value to 256 characters, keys beginning with `aws:` reserved.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    pub key: String,
    pub value: Option<String>,
}
