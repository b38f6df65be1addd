//! The span of an HTTP call, and the headers that pass the trace on.

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::http_fault::Provider;
use crate::trace::{NewSpan, SpanKind, TRACEPARENT, TRACESTATE, Trace};

/// Returns the span of a call. It does not contain the address, which may contain a secret.
pub(super) fn span_of(provider: &'static Provider, method: &Method) -> NewSpan {
    NewSpan {
        name: format!("{method} {}", provider.name).into(),
        kind: SpanKind::Client,
        attributes: vec![
            ("provider", provider.name.into()),
            ("http.request.method", method.to_string().into()),
        ],
    }
}

/// Returns the W3C Trace Context of the job that makes the call, with a span of its own.
pub(super) fn trace_headers() -> HeaderMap {
    let Some(trace) = Trace::of_call() else {
        return HeaderMap::new();
    };
    let named = [
        (TRACEPARENT, Some(trace.to_string())),
        (TRACESTATE, trace.state().map(str::to_owned)),
    ];
    let header = |(name, value): (&'static str, Option<String>)| {
        Some((
            HeaderName::from_static(name),
            HeaderValue::try_from(value?).ok()?,
        ))
    };
    named.into_iter().filter_map(header).collect()
}
