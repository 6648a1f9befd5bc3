//! Verbs: every choice that Beaufort makes, as functions of state and time that return actions with reasons.
//!
//! Pure: no async, no clock, no randomness, no log, no iteration over hash maps; imports `model` and nothing else of ours.
//! What would be logged is returned; what would be a timer is a `wake_at`. That is what makes `why`, simulation and replay possible.
//!
//! Start reading at [`service::reconcile`] and [`autoscale::decide`].

pub mod alarm;
pub mod alert;
pub mod autoscale;
pub mod backoff;
pub mod backtest;
pub mod container;
pub mod definition;
pub mod expression;
pub mod pattern;
pub mod placement;
pub mod service;
pub mod task;
