//! The sample service's own metrics, as any program would offer them to Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

const SECONDS: &[f64] = &[0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: Histogram,
    in_flight: IntGauge,
    worked: AtomicU64,
}

/// One request that is being answered.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        const VALID: &str = "the names are constants and valid";
        let registry = Registry::new();
        let requests =
            IntCounterVec::new(Opts::new("app_requests_total", "Requests answered, by status code."), &["code"]).expect(VALID);
        let options = HistogramOpts::new("app_request_duration_seconds", "From a request's arrival to its answer.");
        let duration = Histogram::with_opts(options.buckets(SECONDS.to_vec())).expect(VALID);
        let in_flight = IntGauge::new("app_in_flight", "Requests that are being answered.").expect(VALID);
        registry.register(Box::new(requests.clone())).expect(VALID);
        registry.register(Box::new(duration.clone())).expect(VALID);
        registry.register(Box::new(in_flight.clone())).expect(VALID);
        // From zero, so that the first of each is an increase.
        for code in ["200", "500", "503"] {
            requests.with_label_values(&[code]).inc_by(0);
        }
        Metrics { registry, requests, duration, in_flight, worked: AtomicU64::new(0) }
    }

    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub fn end(&self, code: u16, took: Duration) {
        self.requests.with_label_values(&[&code.to_string()]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// The number of this piece of work, from 1.
    pub fn count(&self) -> u64 {
        self.worked.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn render(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# {error}\n"),
        }
    }
}
