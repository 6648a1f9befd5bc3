//! The counters and histograms themselves, and their text.

use std::sync::LazyLock;

use prometheus::{Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

pub(super) struct Counters {
    registry: Registry,
    pub api_requests: IntCounterVec,
    pub api_seconds: HistogramVec,
    pub task_stops: IntCounterVec,
    pub placements: IntCounterVec,
    pub reconcile_seconds: Histogram,
    pub deployments: IntCounterVec,
    pub alarm_evaluations: IntCounter,
    pub alarm_transitions: IntCounterVec,
    pub scaling_decisions: IntCounterVec,
    pub engine_calls: IntCounterVec,
    pub engine_seconds: HistogramVec,
}

pub(super) static COUNTERS: LazyLock<Counters> = LazyLock::new(Counters::new);

/// From a tenth of a millisecond to ten seconds.
const SECONDS: &[f64] = &[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const VALID: &str = "names and labels are constants of this file, and each is registered once";

impl Counters {
    fn new() -> Counters {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
            registry.register(Box::new(counter.clone())).expect(VALID);
            counter
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let histogram = HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels).expect(VALID);
            registry.register(Box::new(histogram.clone())).expect(VALID);
            histogram
        };
        let alarm_evaluations =
            IntCounter::new("beaufort_alarm_evaluations_total", "Evaluations of metric alarms.").expect(VALID);
        registry.register(Box::new(alarm_evaluations.clone())).expect(VALID);
        let reconcile =
            HistogramOpts::new("beaufort_reconcile_duration_seconds", "One look at one service, its commit included.");
        let reconcile_seconds = Histogram::with_opts(reconcile.buckets(SECONDS.to_vec())).expect(VALID);
        registry.register(Box::new(reconcile_seconds.clone())).expect(VALID);
        let counters = Counters {
            api_requests: counter(
                "beaufort_api_requests_total",
                "AWS calls answered, by service, operation and class of status.",
                &["aws_service", "operation", "code"],
            ),
            api_seconds: histogram(
                "beaufort_api_request_duration_seconds",
                "Time to answer an AWS call.",
                &["aws_service", "operation"],
            ),
            task_stops: counter(
                "beaufort_task_stops_total",
                "Tasks that reached STOPPED, by stop code.",
                &["cluster", "service", "code"],
            ),
            placements: counter("beaufort_placements_total", "Tasks placed, and tasks that found no place.", &["outcome"]),
            reconcile_seconds,
            deployments: counter("beaufort_deployments_total", "Deployments that ended, by outcome.", &["outcome"]),
            alarm_evaluations,
            alarm_transitions: counter(
                "beaufort_alarm_transitions_total",
                "Alarms that changed their state, by the new one.",
                &["state"],
            ),
            scaling_decisions: counter(
                "beaufort_scaling_decisions_total",
                "Answers of scaling policies to alarms, by direction and outcome.",
                &["cluster", "service", "policy", "direction", "outcome"],
            ),
            engine_calls: counter(
                "beaufort_docker_requests_total",
                "Calls to Docker, by operation and outcome.",
                &["operation", "outcome"],
            ),
            engine_seconds: histogram("beaufort_docker_request_duration_seconds", "Time of calls to Docker.", &["operation"]),
            registry,
        };
        // A counter that is born at one has no increase.
        for outcome in ["placed", "refused"] {
            counters.placements.with_label_values(&[outcome]);
        }
        for state in ["OK", "ALARM", "INSUFFICIENT_DATA"] {
            counters.alarm_transitions.with_label_values(&[state]);
        }
        for outcome in ["completed", "failed"] {
            counters.deployments.with_label_values(&[outcome]);
        }
        for operation in ["pull", "create", "start", "pause", "stop", "remove", "list", "clean_up"] {
            for outcome in ["ok", "error"] {
                counters.engine_calls.with_label_values(&[operation, outcome]);
            }
        }
        counters
    }
}

/// The exposition of everything counted here.
pub fn render() -> String {
    let mut text = Vec::new();
    // The text encoder fails only on a metric without samples, which is then left out.
    let _ = TextEncoder::new().encode(&COUNTERS.registry.gather(), &mut text);
    String::from_utf8(text).unwrap_or_default()
}
