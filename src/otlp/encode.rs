//! Spans as protobuf messages of OTLP.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as proto, ResourceSpans, ScopeSpans, Status};

use crate::trace::{Attribute, Span, SpanKind};

const SERVICE: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the request that exports `spans` of the process `instance`.
pub(super) fn request(spans: &[Span], instance: &str) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", SERVICE),
            text("service.version", VERSION),
            text("service.instance.id", instance),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: SERVICE.to_owned(),
        version: VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.iter().map(span).collect(),
        ..ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }],
    }
}

fn span(span: &Span) -> proto::Span {
    let kind = match span.kind {
        SpanKind::Internal => Kind::Internal,
        SpanKind::Client => Kind::Client,
        SpanKind::Consumer => Kind::Consumer,
    };
    let attributes = span.attributes.iter().map(|(key, value)| match value {
        Attribute::Text(value) => text(key, value),
        Attribute::Number(number) => attribute(key, Value::IntValue(*number)),
    });
    proto::Span {
        trace_id: span.trace.id_bytes().to_vec(),
        span_id: span.trace.span_bytes().to_vec(),
        parent_span_id: span.parent.to_vec(),
        trace_state: span.trace.state().unwrap_or_default().to_owned(),
        flags: u32::from(span.trace.flags()),
        name: span.name.to_string(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(span.started),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes: attributes.collect(),
        status: span.error.as_ref().map(|code| Status {
            message: code.to_string(),
            code: StatusCode::Error.into(),
        }),
        ..proto::Span::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
