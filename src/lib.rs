//! Beaufort: a self-hosted container orchestrator that behaves like Amazon ECS and can be seen.
//!
//! # Code map
//!
//! ```text
//! clients -> http -> wire -> api -> store <- control: snapshot -> decide -> guarded apply -> assignments -> agent -> Docker
//!                                     ^                                                                       |
//!                                     +---- decide::{alarm, autoscale} <---- telemetry <---- usage, lines ----+
//! ```
//!
//! Nouns and verbs:
//! - [`model`]: what Beaufort knows, as plain serde data. Start at [`model::task`], [`model::service`] and [`model::link`].
//! - [`decide`]: every choice, as a pure function that returns actions with reasons. Start at [`decide::service::reconcile`],
//!   [`decide::placement::place`], [`decide::container::next`], [`decide::autoscale`] and [`decide::alert::hear`].
//!
//! State and what is measured:
//! - [`store`]: durable control state: snapshots, one writer, a watch, the journal and the ledger. Start at [`store::Store`].
//! - [`telemetry`]: the metrics and the log store, and [`telemetry::ingest`], which turns usage into CloudWatch's metrics.
//!
//! What moves things:
//! - [`control`]: loops that look at a snapshot, let `decide` choose and apply it guarded. Start at [`control::services`].
//! - [`schedule`]: makes and ends tasks inside a transaction, for RunTask and for services alike.
//! - [`agent`]: keeps what a host is assigned running, and reports. Start at [`agent::runtime::run`]; Docker is behind
//!   [`agent::engine::Engine`].
//!
//! Doors:
//! - [`wire`]: AWS's protocols, bytes to typed handlers and back. Start at [`wire::Wire::answer`].
//! - [`api`]: one table of operations per AWS service ([`api::services`]), the native JSON API with Prometheus' service discovery
//!   ([`api::native`]), and Alertmanager's webhook ([`api::alertmanager`]).
//! - [`http`]: the one port.
//! - [`frames`]: how the messages of the agents' link become WebSocket frames and back.
//! - [`export`]: the Prometheus exposition, and the gauges that leave by OTLP.
//! - [`cli`]: one file per command.
//!
//! Edges and tools:
//! - [`app`]: builds and wires a whole Beaufort in this process; start and stop order. What `up`, `serve` and tests start.
//! - [`clock`], [`ids`]: the only doors to the time of day and to randomness.
//! - [`observe`]: our own telemetry; owns the names `beaufort_*`.
//! - [`replay`]: the past read again: what was decided, what other policies would have made of it, and its chart.
//! - [`sim`]: whole worlds on simulated engines and one simulated time, with faults.
//! - [`demo`], [`load`], [`web`]: the demo, its open-loop load and the sample service that it scales: clients of the API, as others
//!   are.
//! - [`pause`], [`testbed`]: what the binary is when it runs inside a container: a task's network, and small test programs.
//!
//! # Invariants
//!
//! What is absent holds the house up. `tests/house.rs` reads the source and fails on a breach of most of these.
//! - `decide` has no clock, no randomness, no async, no log and no hash map: time and seeds are arguments, what would be logged is
//!   returned, what would be a timer is a `wake_at`. So a choice can be asked again, explained, simulated and replayed.
//! - `model` imports nothing of ours; `wire` knows no service; `store` and `telemetry` know neither the API nor agents.
//! - No code outside `store` knows which database lies below; bollard is in `agent::docker` only, warp in `http` only.
//! - The agent imports neither `store` nor `control`: it can run on a host that has neither.
//! - No control loop calls another. They meet in the store, and a restart of any of them loses nothing.
//! - Acknowledged means durable: [`store::Store::update`] returns when the commit is on disk, and nothing acts on what is not.
//!   Log events are visible when they are synced, and not before.
//! - A message between agent and control plane says what is, not what changed: lost, repeated or overtaken, it does no harm.
//! - A lost control plane stops no task. An agent touches no container of another installation.
//! - Whatever a client sends and we do not do is refused by name or counted by [`api::gaps`]; nothing is ignored in silence.
//! - Every queue, loop, retry and body has a bound, and passing it is counted.
//! - No `unsafe`; no file of more than 620 lines; every file begins by saying what it owns.

pub mod agent;
pub mod api;
pub mod app;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod control;
pub mod decide;
pub mod demo;
pub mod export;
pub mod frames;
pub mod http;
pub mod ids;
pub mod load;
pub mod model;
pub mod observe;
pub mod pause;
pub mod replay;
pub mod schedule;
pub mod sim;
pub mod store;
pub mod telemetry;
pub mod testbed;
pub mod web;
pub mod wire;
