//! What leaves in open formats: the Prometheus exposition, and the gauges that go out by OTLP. Reads; changes nothing.

mod containers;
mod discovered;
pub mod families;
mod instances;
pub mod otlp;
mod process;
pub mod prometheus;
mod services;
