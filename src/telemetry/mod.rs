//! What was measured and said: metrics and logs, in memory and on disk, bounded and crash-safe.
//!
//! Owns the two stores and [`ingest`], which turns agents' usage batches into CloudWatch's metrics. Never decides anything, never
//! touches control state.

pub mod ingest;
pub mod logs;
pub mod metrics;
