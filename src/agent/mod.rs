//! The container agent: runs on a Docker host, keeps what it is assigned running, and reports. Keeps no database: containers carry
//! labels, and after a restart it adopts what runs before it acts. Imports neither `store` nor `control`; bollard only in [`docker`].
//!
//! Start reading at [`runtime::run`], which talks to the control plane and gives each task a runner ([`task`]); what a runner does next
//! is decided by [`crate::decide::container::next`].

pub mod adopt;
pub mod calls;
pub mod config;
pub mod docker;
pub mod engine;
pub mod lanes;
pub mod link;
pub mod outbox;
pub mod runtime;
pub mod simulated;
pub mod spec;
pub mod task;
#[cfg(test)]
mod tests;
