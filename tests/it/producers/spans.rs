//! The spans of a job reach an OpenTelemetry collector under the trace of its producer, and a
//! collector that does not answer slows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use data_encoding::HEXLOWER;
use dispatch_worker::broker::Outgoing;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use dispatch_worker::trace::Trace;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, intake, wait_for};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// The credentials for the collector.
const HEADER: &str = "Bearer canary-collector";

/// A collector that keeps every span that it receives with the right credentials.
#[derive(Clone, Default)]
struct Collector {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    /// Starts the collector; returns it with its address.
    async fn start() -> (Self, String) {
        let (collector, listener) = (Self::default(), listener().await);
        let address = format!("http://{}", listener.local_addr().expect("it listens"));
        let traces = Router::new()
            .route("/v1/traces", post(keep))
            .with_state(collector.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "a server that ends with the test"
        )]
        tokio::spawn(async move { axum::serve(listener, traces).await });
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().expect("no test panics with the lock");
        let scopes = requests
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

async fn keep(State(to): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if value("authorization") != Some(HEADER)
        || value("content-type") != Some("application/x-protobuf")
    {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut requests = to.requests.lock().expect("no test panics with the lock");
    requests.push(request);
    StatusCode::OK
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

fn exporting_to(address: &str) -> WorkerOptions {
    let environment = [
        ("DISPATCH_OTLP_ENDPOINT", address),
        (
            "DISPATCH_OTLP_HEADERS",
            "authorization=Bearer%20canary-collector",
        ),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    WorkerOptions {
        environment: BTreeMap::from(environment.map(owned)),
        ..WorkerOptions::default()
    }
}

/// Publishes a job with the trace of a producer.
async fn publish(world: &TestWorld) {
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    let sent = format!("00-{TRACE}-{PARENT}-01");
    let message = Outgoing {
        trace: Trace::parse(Some(&sent), None),
        ..intake(acme::job("one", &event).to_string())
    };
    world.publish_raw(&message).await;
}

fn text<'s>(span: &'s Span, key: &str) -> &'s str {
    let value = span.attributes.iter().find(|one| one.key == key);
    match value.and_then(|one| one.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

fn attempt(span: &Span) -> Option<i64> {
    let value = span.attributes.iter().find(|one| one.key == "attempt")?;
    match value.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

fn claims(spans: &[Span]) -> Vec<&Span> {
    spans
        .iter()
        .filter(|span| span.name.starts_with("job "))
        .collect()
}

fn ids(spans: &[Span]) -> BTreeSet<String> {
    let id = |span: &Span| HEXLOWER.encode(&span.span_id);
    spans.iter().map(id).collect()
}

/// Asserts that every span is in the trace: a claim below the producer's span, all others below
/// another span that was exported.
fn every_span_has_its_parent(spans: &[Span]) {
    let ids = ids(spans);
    for span in spans {
        assert_eq!(HEXLOWER.encode(&span.trace_id), TRACE, "{span:?}");
        let parent = HEXLOWER.encode(&span.parent_span_id);
        let is_claim = span.name.starts_with("job ");
        assert!(
            if is_claim {
                parent == PARENT
            } else {
                ids.contains(&parent)
            },
            "{span:?}"
        );
    }
}

fn every_call_is_a_span_without_private_data(world: &TestWorld, spans: &[Span]) {
    let sent: BTreeSet<String> = world
        .witness()
        .iter()
        .filter_map(|call| Some(call.traceparent.as_ref()?[36..52].to_owned()))
        .collect();
    assert!(
        !sent.is_empty() && sent.is_subset(&ids(spans)),
        "each call is the span that it names"
    );
    let shown = format!("{spans:?}");
    for private in ["canary", acme::ANN, acme::BOB, acme::BOT, "/_apis/"] {
        assert!(!shown.contains(private), "{private}: {shown}");
    }
}

#[tokio::test]
async fn the_spans_of_a_job_its_retry_and_its_follow_ups_are_in_the_trace_of_its_producer() {
    let world = TestWorld::acme().await;
    let (collector, address) = Collector::start().await;
    let mut worker = world.worker(&exporting_to(&address));
    let once = FaultRule {
        retry_after: Some(1),
        ..FaultRule::new(FaultKind::RateLimit)
    };
    let client = &world.simulator().await.client;
    let rule = once.path_contains(acme::PROFILE).times(1);
    client.fault(&rule).await.unwrap();
    publish(&world).await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    // The end of the process sends what is left.
    worker.terminate();
    assert!(worker.wait_exit(SOON).await.success(), "{}", worker.log());

    let spans = collector.spans();
    every_span_has_its_parent(&spans);
    let jobs: BTreeSet<&str> = claims(&spans)
        .iter()
        .map(|span| text(span, "job.id"))
        .collect();
    let stored = world.database.rows("SELECT id::text FROM jobs").await;
    assert_eq!(
        jobs,
        stored.iter().map(|row| row[0].as_str()).collect(),
        "a job and its follow-ups"
    );
    let tried: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "retrieve_user")
        .map(|span| {
            (
                attempt(span),
                text(span, "outcome"),
                text(span, "error.type"),
            )
        })
        .collect();
    assert!(tried.len() >= 2, "{tried:?}");
    assert!(
        tried[0].1 != "succeeded" && tried.last().is_some_and(|last| last.1 == "succeeded"),
        "{tried:?}"
    );

    every_call_is_a_span_without_private_data(&world, &spans);
    Checks {
        attempts: &[("retrieve_user", "azure_devops.rate_limited")],
    }
    .hold(&world)
    .await;
}

#[tokio::test]
async fn a_collector_that_hangs_slows_no_job_and_the_end_of_a_worker_by_two_seconds_at_most() {
    let world = TestWorld::acme().await;
    let hanging = listener().await;
    let address = format!("http://{}", hanging.local_addr().expect("it listens"));
    let mut worker = world.worker(&exporting_to(&address));
    worker.ready().await;
    publish(&world).await;
    // The collector has a request in hand when the job ends, and does not answer it.
    let connected = tokio::time::timeout(SOON, hanging.accept()).await;
    let _connection = connected
        .expect("the worker connects")
        .expect("a connection");
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    wait_for("no open job", SOON, async || {
        let open = "SELECT count(*) FROM jobs WHERE state <> 'succeeded'";
        match world.database.one(open).await.as_str() {
            "0" => Ok(()),
            open => Err(format!("{open} are open")),
        }
    })
    .await;
    let took: f64 = world
        .database
        .one("SELECT extract(epoch FROM max(finished_at) - min(created_at))::text FROM jobs")
        .await
        .parse()
        .expect("a number of seconds");
    assert!(
        took < 5.0,
        "a job took {took} s while a request waits 5 s for the collector"
    );
    let began = Instant::now();
    worker.terminate();
    assert!(worker.wait_exit(SOON).await.success(), "{}", worker.log());
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    Checks { attempts: &[] }.hold(&world).await;
}

#[tokio::test]
async fn an_invalid_collector_is_a_configuration_error() {
    let world = TestWorld::new().await;
    for (endpoint, expected) in [
        (
            "collector:4318",
            "DISPATCH_OTLP_ENDPOINT: expected an address",
        ),
        (
            "http://collector.example:4318",
            "expected an encrypted link to the OpenTelemetry collector",
        ),
    ] {
        for command in ["worker", "check"] {
            let said = world
                .dispatch(&[command])
                .env("DISPATCH_OTLP_ENDPOINT", endpoint)
                .said()
                .await;
            assert_eq!(said.code, Some(2), "{said:?}");
            let shown = format!("{}{}", said.stdout, said.stderr);
            assert!(shown.contains(expected), "{said:?}");
        }
    }
}
