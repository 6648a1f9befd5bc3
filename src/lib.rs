//! Beaufort: a self-hosted container orchestrator that behaves like Amazon ECS and can be seen.

pub mod agent;
pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod control;
pub mod decide;
pub mod demo;
pub mod export;
pub mod http;
pub mod ids;
pub mod load;
pub mod model;
pub mod observe;
pub mod pause;
pub mod schedule;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod testbed;
pub mod web;
pub mod wire;
