//! What leaves in open formats: the Prometheus exposition, and the gauges that go out by OTLP. Reads; changes nothing.

mod families;
pub mod otlp;
pub mod prometheus;
