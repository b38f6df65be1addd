use std::time::Instant;

use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::trace::{NewSpan, SpanKind, Spans, note};

fn settings(endpoint: &str) -> CollectorSettings {
    CollectorSettings {
        endpoint: endpoint.to_owned(),
        headers: None,
        ca: None,
        allow_plaintext: false,
    }
}

fn refused(settings: &CollectorSettings) -> String {
    crate::fault::chain(&Collector::new(settings).unwrap_err())
}

#[test]
fn an_address_is_a_base_for_the_path_of_traces() {
    for (endpoint, traces) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        (
            "https://otel.example/base",
            "https://otel.example/base/v1/traces",
        ),
    ] {
        assert_eq!(
            Collector::new(&settings(endpoint)).unwrap().traces.as_str(),
            traces
        );
    }
}

#[test]
fn an_invalid_address_is_reported_without_its_secrets() {
    for wrong in [
        "",
        "collector:4318",
        "grpc://collector:4317",
        "https://u:canary@otel.example",
        "https://otel.example/?key=canary",
        "https://otel.example/#canary",
    ] {
        let text = refused(&settings(wrong));
        assert!(
            text.starts_with("DISPATCH_OTLP_ENDPOINT: expected an address"),
            "{text}"
        );
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn plaintext_to_another_machine_needs_the_setting_that_permits_it() {
    let plain = settings("http://collector.example:4318");
    let text = refused(&plain);
    assert!(
        text.contains("expected an encrypted link to the OpenTelemetry collector"),
        "{text}"
    );
    let permitted = CollectorSettings {
        allow_plaintext: true,
        ..plain
    };
    assert!(Collector::new(&permitted).is_ok());
}

#[test]
fn headers_are_secret_and_percent_encoded() {
    let given = SecretString::from("api-key=a%2Cb, x-tenant = acme,".to_owned());
    let parsed = headers(Some(&given)).unwrap();
    assert_eq!(
        (&parsed["api-key"], &parsed["x-tenant"]),
        (
            &HeaderValue::from_static("a,b"),
            &HeaderValue::from_static("acme")
        )
    );
    assert!(parsed.values().all(HeaderValue::is_sensitive));
    for wrong in ["canary", "a b=canary", "a=canary%0A"] {
        let headers = Some(SecretString::from(wrong.to_owned()));
        let text = refused(&CollectorSettings {
            headers,
            ..settings("http://127.0.0.1:4318")
        });
        assert!(
            text.starts_with("DISPATCH_OTLP_HEADERS: expected"),
            "{text}"
        );
        assert!(!text.contains("canary"), "{text}");
    }
}

/// Records a number of spans, each of a trace of its own.
async fn record(spans: &Spans, number: usize) {
    for _ in 0..number {
        let trace = spans.received(None, None);
        let new = spans.new_span(&trace, || NewSpan {
            name: "stage".into(),
            kind: SpanKind::Client,
            attributes: vec![("attempt", 2.into())],
        });
        let work = async { note("error.type", "slack.refused") };
        spans.around(trace, new, work).await;
    }
}

#[tokio::test]
async fn a_span_is_encoded_with_its_ids_attributes_and_status() {
    #[derive(Default)]
    struct Kept(std::sync::Mutex<Vec<crate::trace::Span>>);
    impl crate::trace::SpanSink for Kept {
        fn record(&self, span: crate::trace::Span) {
            self.0.lock().unwrap().push(span);
        }
    }
    let kept = std::sync::Arc::new(Kept::default());
    record(&Spans::to(std::sync::Arc::clone(&kept) as _), 1).await;
    let spans = kept.0.lock().unwrap();
    let request = encode::request(&spans, "one");
    let encoded = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(
        data_encoding::HEXLOWER.encode(&encoded.trace_id),
        spans[0].trace.id()
    );
    assert_eq!(
        (encoded.span_id.len(), encoded.parent_span_id.len()),
        (8, 8)
    );
    assert_eq!((encoded.kind, encoded.flags), (3, 1));
    assert!(encoded.start_time_unix_nano > 0);
    assert!(encoded.end_time_unix_nano >= encoded.start_time_unix_nano);
    let status = encoded.status.as_ref().unwrap();
    assert_eq!(
        (status.code, status.message.as_str()),
        (StatusCode::Error as i32, "slack.refused")
    );
    let keys: Vec<_> = encoded
        .attributes
        .iter()
        .map(|one| one.key.as_str())
        .collect();
    assert_eq!(keys, ["attempt", "error.type"]);
}

/// A collector that accepts connections and never answers.
async fn hanging() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_at_most_two_seconds_at_the_end() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let (_listener, address) = hanging().await;
    let (spans, exporter) = exporter(
        Collector::new(&settings(&address)).unwrap(),
        "one".to_owned(),
    );
    let end = CancellationToken::new();
    let began = Instant::now();
    let work = async {
        record(&spans, 10_000).await;
        end.cancel();
    };
    tokio::join!(exporter.run(end.clone()), work);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let rendered = metrics.render();
    let dropped: u64 = rendered
        .lines()
        .filter(|line| line.starts_with("dispatch_otlp_dropped_spans_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(dropped, 10_000, "{rendered}");
}

#[tokio::test]
async fn a_refused_batch_is_repeated_only_if_the_answer_permits_it() {
    for (status, requests) in [("503 Unavailable", 3), ("400 Bad Request", 1)] {
        let (listener, address) = hanging().await;
        let (spans, exporter) = exporter(
            Collector::new(&settings(&address)).unwrap(),
            "one".to_owned(),
        );
        record(&spans, 1).await;
        let end = CancellationToken::new();
        let served = async {
            for _ in 0..requests {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            end.cancel();
        };
        tokio::join!(exporter.run(end.clone()), served);
    }
}
