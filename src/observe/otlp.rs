//! Logs to the terminal, and traces, metrics and logs by OTLP over HTTP to `OTEL_EXPORTER_OTLP_ENDPOINT`. The five crates of
//! OpenTelemetry move together and break their builders often: they live here alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What a collector may answer at most.
const MAX_ANSWER: usize = 64 << 10;
/// How often metrics leave, unless `OTEL_METRIC_EXPORT_INTERVAL` says otherwise.
const METRICS_EVERY: Duration = Duration::from_secs(10);

/// Keeps the exporters; [`Telemetry::shutdown`] sends what they still hold.
#[derive(Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    logs: Option<SdkLoggerProvider>,
}

/// One value to export, with its labels.
pub struct Gauge {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
    pub labels: BTreeMap<&'static str, String>,
}

/// Whether a collector is named for this signal by the standard variables.
fn wanted(signal: &str) -> bool {
    let set = |name: &str| std::env::var(name).is_ok_and(|v| !v.trim().is_empty());
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|v| v.eq_ignore_ascii_case("true"));
    let none = std::env::var(format!("OTEL_{signal}_EXPORTER")).is_ok_and(|v| v == "none");
    !disabled && !none && (set("OTEL_EXPORTER_OTLP_ENDPOINT") || set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")))
}

/// Sets up logging to standard error (`BEAUFORT_LOG`, `info` when unset; `--log-format json`) and what is to be exported. Call it in
/// the runtime, once.
pub fn init(json: bool, quiet: bool) -> anyhow::Result<Telemetry> {
    let mut telemetry = Telemetry::default();
    let resource = Resource::builder()
        .with_service_name("beaufort")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let client = Arc::new(Courier::new());
    let spans = if wanted("TRACES") {
        let exporter = SpanExporter::builder().with_http().with_shared_http_client(client.clone()).build()?;
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.clone()).build();
        let layer =
            tracing_opentelemetry::layer().with_tracer(provider.tracer("beaufort")).with_location(false).with_threads(false);
        telemetry.traces = Some(provider);
        // Spans below info are for debugging at the terminal, not for a collector.
        Some(layer.with_filter(LevelFilter::INFO))
    } else {
        None
    };
    let events = if wanted("LOGS") {
        let exporter = LogExporter::builder().with_http().with_shared_http_client(client.clone()).build()?;
        let provider = SdkLoggerProvider::builder().with_batch_exporter(exporter).with_resource(resource.clone()).build();
        let layer = OpenTelemetryTracingBridge::new(&provider);
        telemetry.logs = Some(provider);
        // The exporter's own trouble must not be exported: it would feed itself.
        Some(layer.with_filter(EnvFilter::new("info,opentelemetry=off,hyper=off,h2=off")))
    } else {
        None
    };
    if wanted("METRICS") {
        let exporter = MetricExporter::builder().with_http().with_shared_http_client(client).build()?;
        let mut reader = PeriodicReader::builder(exporter);
        if std::env::var_os("OTEL_METRIC_EXPORT_INTERVAL").is_none() {
            reader = reader.with_interval(METRICS_EVERY);
        }
        telemetry.metrics = Some(SdkMeterProvider::builder().with_reader(reader.build()).with_resource(resource).build());
    }
    let level = if quiet { "error" } else { "info" };
    let filter =
        EnvFilter::try_from_env("BEAUFORT_LOG").unwrap_or_else(|_| EnvFilter::new(format!("{level},opentelemetry=warn")));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let plain =
        (!json).then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false));
    let structured = json.then(|| tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr));
    let terminal = plain.map(Layer::boxed).or(structured.map(Layer::boxed));
    tracing_subscriber::registry().with(spans).with(events).with(terminal.with_filter(filter)).try_init()?;
    Ok(telemetry)
}

/// Of requests that nobody upstream has decided about, how many leave a span.
const SHARE_SAMPLED: f64 = 0.01;

/// For a program that has only spans to send and logs by itself: none without a collector. It goes by the standard variables, `name`
/// where they give it none, and samples by `OTEL_TRACES_SAMPLER`, or else the share `OTEL_TRACES_SAMPLER_ARG`. A request that comes
/// with a traceparent is sampled if its sender says so. Call it in the runtime, once.
pub fn init_spans(name: &'static str) -> anyhow::Result<Option<Telemetry>> {
    if !wanted("TRACES") {
        return Ok(None);
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let named = set("OTEL_SERVICE_NAME").is_some() || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| names_service(&all));
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let resource = if named { resource } else { resource.with_service_name(name) }.build();
    let exporter = SpanExporter::builder().with_http().with_shared_http_client(Arc::new(Courier::new())).build()?;
    let mut provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
    if set("OTEL_TRACES_SAMPLER").is_none() {
        let share = set("OTEL_TRACES_SAMPLER_ARG").and_then(|text| text.trim().parse().ok()).filter(|s| (0.0..=1.0).contains(s));
        let by_share = Sampler::TraceIdRatioBased(share.unwrap_or(SHARE_SAMPLED));
        provider = provider.with_sampler(Sampler::ParentBased(Box::new(by_share)));
    }
    let provider = provider.build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(name)).with_location(false).with_threads(false);
    // Only ours: the exporter's own requests must not be exported.
    let ours = filter_fn(|meta| meta.target().starts_with(env!("CARGO_PKG_NAME")) && *meta.level() <= Level::INFO);
    tracing_subscriber::registry().with(layer.with_filter(ours)).try_init()?;
    Ok(Some(Telemetry { traces: Some(provider), ..Telemetry::default() }))
}

fn names_service(attributes: &str) -> bool {
    attributes.split(',').any(|pair| pair.trim().starts_with("service.name="))
}

impl Telemetry {
    /// Exports what `read` says each time metrics leave: the same names as the Prometheus exposition.
    pub fn export_gauges(&self, names: &[(&'static str, &'static str)], read: impl Fn() -> Vec<Gauge> + Send + Sync + 'static) {
        let Some(provider) = &self.metrics else { return };
        let (meter, read) = (provider.meter("beaufort"), Arc::new(read));
        for (name, unit) in names {
            let (read, name) = (read.clone(), *name);
            meter
                .f64_observable_gauge(name)
                .with_unit(*unit)
                .with_callback(move |observer| {
                    for gauge in read().into_iter().filter(|g| g.name == name) {
                        let labels: Vec<KeyValue> = gauge.labels.into_iter().map(|(k, v)| KeyValue::new(k, v)).collect();
                        observer.observe(gauge.value, &labels);
                    }
                })
                .build();
        }
    }

    /// Sends what is left, within a bound. Blocks: call it from a blocking thread while the runtime lives.
    pub fn shutdown(self) {
        let within = Duration::from_secs(3);
        // A collector that is away now has had its chances.
        let _ = self.traces.map(|p| p.shutdown_with_timeout(within));
        let _ = self.metrics.map(|p| p.shutdown_with_timeout(within));
        let _ = self.logs.map(|p| p.shutdown_with_timeout(within));
    }
}

/// Carries exports over hyper on our own runtime: the exporters call from threads of theirs, where there is no reactor.
struct Courier {
    runtime: Handle,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Courier {
    fn new() -> Courier {
        Courier { runtime: Handle::current(), client: Client::builder(TokioExecutor::new()).build_http() }
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Courier")
    }
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = tokio::time::timeout(Duration::from_secs(10), client.request(request.map(Full::new))).await??;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        });
        sent.await?
    }
}
