//! The counters and histograms themselves, and their text.

use std::collections::HashMap;
use std::sync::LazyLock;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};

use crate::model::ServiceKey;

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
    pub scaling_reaction: HistogramVec,
    pub loops: GaugeVec,
    pub log_events: IntCounterVec,
    pub log_bytes: IntCounterVec,
    pub engine_calls: IntCounterVec,
    pub engine_seconds: HistogramVec,
    pub oom_kills: IntCounterVec,
    pub webhook_posts: IntCounterVec,
    pub webhook_alerts: IntCounterVec,
    pub webhook_last_post: Gauge,
    pub webhook_heartbeat: Gauge,
    pub agents_turned_away: IntCounterVec,
    pub agent_pauses: IntCounter,
    pub agent_passes_dropped: IntCounter,
    pub agent_resyncs: IntCounterVec,
}

pub(super) static COUNTERS: LazyLock<Counters> = LazyLock::new(Counters::new);

/// From a tenth of a millisecond to ten seconds.
const SECONDS: &[f64] = &[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Of a reaction to load: from 50 milliseconds to ten minutes.
const REACTION_SECONDS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];

const VALID: &str = "names and labels are constants of this file, and each is registered once";

impl Counters {
    fn new() -> Counters {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
            registry.register(Box::new(counter.clone())).expect(VALID);
            counter
        };
        let with_buckets = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let histogram = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels).expect(VALID);
            registry.register(Box::new(histogram.clone())).expect(VALID);
            histogram
        };
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help).expect(VALID);
            registry.register(Box::new(gauge.clone())).expect(VALID);
            gauge
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| with_buckets(name, help, labels, SECONDS);
        let loops = GaugeVec::new(
            Opts::new(
                "beaufort_reconcile_last_success_timestamp_seconds",
                "When the control loop last came round; one that lives does so every few seconds, whether or not there is work.",
            ),
            &["loop"],
        )
        .expect(VALID);
        registry.register(Box::new(loops.clone())).expect(VALID);
        let alarm_evaluations =
            IntCounter::new("beaufort_alarm_evaluations_total", "Evaluations of metric alarms.").expect(VALID);
        registry.register(Box::new(alarm_evaluations.clone())).expect(VALID);
        let single = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect(VALID);
            registry.register(Box::new(counter.clone())).expect(VALID);
            counter
        };
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
            deployments: counter(
                "beaufort_deployments_total",
                "Deployments that ended, by outcome.",
                &["cluster", "service", "outcome"],
            ),
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
            scaling_reaction: with_buckets(
                "beaufort_scaling_reaction_seconds",
                "From the breach to capacity: each hop of a scale-out by a policy, and the whole.",
                &["cluster", "service", "stage"],
                REACTION_SECONDS,
            ),
            loops,
            log_events: counter(
                "beaufort_log_events_total",
                "Log events stored, by the service whose tasks wrote them; without labels those that were put by the API.",
                &["cluster", "service"],
            ),
            log_bytes: counter(
                "beaufort_log_bytes_total",
                "Bytes of the messages of stored log events.",
                &["cluster", "service"],
            ),
            engine_calls: counter(
                "beaufort_docker_requests_total",
                "Calls to Docker, by operation and outcome.",
                &["operation", "outcome"],
            ),
            engine_seconds: histogram("beaufort_docker_request_duration_seconds", "Time of calls to Docker.", &["operation"]),
            oom_kills: counter(
                "beaufort_container_oom_kills_total",
                "Containers that ended because the kernel killed them for their memory; not those that a restart policy has started again.",
                &["cluster", "service", "container"],
            ),
            webhook_posts: counter(
                "beaufort_webhook_posts_total",
                "Messages of Alertmanager, by the status of our answer.",
                &["code"],
            ),
            webhook_alerts: counter(
                "beaufort_webhook_alerts_total",
                "Alerts that Alertmanager told of, by what became of them.",
                &["outcome"],
            ),
            webhook_last_post: gauge(
                "beaufort_webhook_last_post_timestamp_seconds",
                "When a message of Alertmanager was last taken; 0: not since the start.",
            ),
            webhook_heartbeat: gauge(
                "beaufort_webhook_heartbeat_timestamp_seconds",
                "When the heartbeat alert last came the whole way from Prometheus; 0: not since the start.",
            ),
            agents_turned_away: counter(
                "beaufort_agent_refusals_total",
                "Connections of agents that were refused or ended for what they said, by reason.",
                &["reason"],
            ),
            agent_pauses: single(
                "beaufort_agent_pauses_total",
                "Times that an agent said more than agents do and was made to wait.",
            ),
            agent_passes_dropped: single(
                "beaufort_agent_usage_passes_dropped_total",
                "Passes of usage that came more often than agents send them and were dropped.",
            ),
            agent_resyncs: counter(
                "beaufort_agent_resyncs_total",
                "Times that what had changed was too much to say one by one: one session, or all, looked at everything.",
                &["of"],
            ),
            registry,
        };
        for reason in super::Turned::ALL {
            counters.agents_turned_away.with_label_values(&[reason.as_str()]);
        }
        for of in ["session", "all"] {
            counters.agent_resyncs.with_label_values(&[of]);
        }
        // A counter that is born at one has no increase.
        for outcome in ["placed", "refused"] {
            counters.placements.with_label_values(&[outcome]);
        }
        for state in ["OK", "ALARM", "INSUFFICIENT_DATA"] {
            counters.alarm_transitions.with_label_values(&[state]);
        }
        for code in ["200", "400", "401", "413", "503"] {
            counters.webhook_posts.with_label_values(&[code]);
        }
        for outcome in super::AlertOutcome::ALL {
            counters.webhook_alerts.with_label_values(&[outcome.as_str()]);
        }
        counters.log_events.with_label_values(&["", ""]);
        counters.log_bytes.with_label_values(&["", ""]);
        for operation in ["pull", "create", "start", "pause", "stop", "remove", "list", "clean_up"] {
            for outcome in ["ok", "error"] {
                counters.engine_calls.with_label_values(&[operation, outcome]);
            }
        }
        counters
    }
}

/// Drops every series of a service.
pub(super) fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, key: &ServiceKey) {
    for metric in family.collect().iter().flat_map(|f| f.get_metric()) {
        let labels: HashMap<&str, &str> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        let of_service =
            labels.get("cluster") == Some(&key.cluster.as_str()) && labels.get("service") == Some(&key.service.as_str());
        if of_service {
            // Fails only where it is gone already.
            let _ = family.remove(&labels);
        }
    }
}

/// The exposition of everything counted here.
pub fn render() -> String {
    let mut text = Vec::new();
    // The text encoder fails only on a metric without samples, which is then left out.
    let _ = TextEncoder::new().encode(&COUNTERS.registry.gather(), &mut text);
    String::from_utf8(text).unwrap_or_default()
}
