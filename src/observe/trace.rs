//! Trace context across commits and processes: a span's W3C traceparent is kept with what it caused, and taken up again there.

use http::HeaderMap;
use http::request::Parts;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The W3C traceparent of the span we are in, for what is to hang below it later. None when nobody traces.
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// Hangs `span` below the span that a traceparent names.
pub fn set_parent(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        // Refused only where nobody traces or the span has begun its own trace: nothing is lost then.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Links `span` to the span that a traceparent names: caused by it, but of another trace.
pub fn link(span: &Span, traceparent: Option<&str>) {
    if let Some(linked) = traceparent.and_then(parse) {
        span.add_link(linked);
    }
}

/// One span per AWS call; below it hangs what the call causes. A client's own traceparent is its parent.
pub fn call_span(service: &'static str, operation: &'static str, head: &Parts) -> Span {
    let span = tracing::info_span!(
        "api.call",
        otel.name = format!("{service}.{operation}"),
        otel.kind = "server",
        rpc.system = "aws-api",
        rpc.service = service,
        rpc.method = operation
    );
    set_parent(&span, head.headers.get("traceparent").and_then(|v| v.to_str().ok()));
    span
}

/// One span per request to a program of ours that serves HTTP; a client's own traceparent is its parent.
pub fn request_span(method: &str, path: &'static str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        "http.request",
        otel.name = format!("{method} {path}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = path,
        http.response.status_code = field::Empty
    );
    set_parent(&span, headers.get("traceparent").and_then(|v| v.to_str().ok()));
    span
}

pub fn request_answered(span: &Span, status: u16) {
    // Signed: an unsigned number would arrive as text.
    span.record("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let long_enough = version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
    let context = long_enough.then(|| {
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        Some(SpanContext::new(trace, span, flags, true, TraceState::default()))
    })??;
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_or_refused_whole() {
        let context = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_remote() && context.is_sampled());
        for bad in [
            "",
            "00-0-0-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-zzzz6b7169203331-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn without_a_tracer_there_is_no_traceparent() {
        assert_eq!(traceparent(), None);
    }
}
