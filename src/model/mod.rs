//! Nouns: what Beaufort knows, as plain serde data. Owns names and shapes; decides nothing, imports nothing of ours.
//!
//! Types that AWS clients register or read whole (container definitions, constraints, tags) carry AWS's member names, so that
//! the API echoes them as they are. Everything else is ours, and the shapes in `api/` translate.
//!
//! Start reading at [`task`] and [`service`]; [`link`] is what a control plane and an agent say to each other; [`room`] is what the
//! store keeps up for placement.

pub mod alarm;
pub mod arn;
pub mod cluster;
pub mod decision;
pub mod definition;
pub mod id;
pub mod instance;
pub mod link;
pub mod log;
pub mod metric;
pub mod placement;
pub mod room;
pub mod scaling;
pub mod service;
pub mod tag;
pub mod task;
pub mod time;

pub use id::{ClusterName, ContainerName, DefinitionKey, DeploymentId, HexText, InstanceId, ServiceKey, ServiceName, TaskId};
pub use time::{Millis, Timestamp};
