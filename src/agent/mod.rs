//! The container agent: runs on a Docker host, keeps what it is assigned running, and reports. Keeps no database: containers carry
//! labels, and after a restart it adopts what runs before it acts. Imports neither `store` nor `control`; bollard only in [`docker`].

pub mod docker;
pub mod engine;
