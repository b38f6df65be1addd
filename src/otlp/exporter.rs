//! The queue of ended spans, and the task that sends them.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{Collector, encode};
use crate::reconnect::Reconnect;
use crate::telemetry::names;
use crate::trace::{Span, SpanSink, Spans};

/// The largest number of spans that wait: about 2 MB.
const QUEUE: usize = 4096;
/// The largest number of spans of a request.
const BATCH: usize = 512;
/// The time that a request waits for further spans.
const LINGER: Duration = Duration::from_millis(500);
/// The number of attempts to send a batch that the collector could not take.
const TRIES: u32 = 3;
/// The time limit for the spans that are left when the process ends.
const FLUSH: Duration = Duration::from_secs(2);
/// The part of an answer that is read, in bytes; more is not an answer of OTLP.
const ANSWER_BYTES: usize = 64 << 10;

/// Returns what records spans, and what sends them to `collector`. `instance` identifies the
/// process.
#[must_use]
pub fn exporter(collector: Collector, instance: String) -> (Spans, Exporter) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let exporter = Exporter {
        collector,
        instance,
        queue,
        batch: Vec::new(),
        is_available: true,
    };
    (Spans::to(Arc::new(Queue(sender))), exporter)
}

struct Queue(Sender<Span>);

impl SpanSink for Queue {
    fn record(&self, span: Span) {
        if self.0.try_send(span).is_err() {
            dropped("queue_full", 1);
        }
    }
}

/// Sends spans until the process ends.
pub struct Exporter {
    collector: Collector,
    instance: String,
    queue: Receiver<Span>,
    /// The spans in hand.
    batch: Vec<Span>,
    /// Whether the last batch was sent, so that an outage is logged once.
    is_available: bool,
}

/// Why a batch was not sent.
struct Unsent {
    error: String,
    /// Whether the collector may take it later (OTLP specification, "Retryable Response Codes").
    is_retryable: bool,
}

impl Exporter {
    /// Sends the spans of the queue until `end`, and then, for at most two seconds, the rest.
    pub async fn run(mut self, end: CancellationToken) {
        let limit = async {
            end.cancelled().await;
            tokio::time::sleep(FLUSH).await;
        };
        tokio::select! {
            biased;
            () = self.send_all(&end) => {}
            () = limit => {}
        }
        dropped("shutdown", self.batch.len() + self.queue.len());
    }

    async fn send_all(&mut self, end: &CancellationToken) {
        loop {
            let is_last = end.run_until_cancelled(self.fill()).await != Some(true);
            while self.batch.len() < BATCH
                && let Ok(span) = self.queue.try_recv()
            {
                self.batch.push(span);
            }
            if !self.batch.is_empty() {
                self.send_batch().await;
                self.batch.clear();
            } else if is_last {
                return;
            }
        }
    }

    /// Waits for the first span, and a short time for further ones. Returns false if no more come.
    async fn fill(&mut self) -> bool {
        if self.queue.recv_many(&mut self.batch, BATCH).await == 0 {
            return false;
        }
        let more = async {
            while self.batch.len() < BATCH {
                let room = BATCH - self.batch.len();
                if self.queue.recv_many(&mut self.batch, room).await == 0 {
                    return;
                }
            }
        };
        // A full batch or the time limit, whichever comes first.
        let _late = tokio::time::timeout(LINGER, more).await;
        true
    }

    async fn send_batch(&mut self) {
        let body = encode::request(&self.batch, &self.instance).encode_to_vec();
        let mut pauses = Reconnect::default();
        let mut tries = 1;
        let sent = loop {
            match self.collector.send(body.clone()).await {
                Err(unsent) if unsent.is_retryable && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(pauses.next_delay()).await;
                }
                other => break other,
            }
        };
        let spans = self.batch.len();
        match sent {
            Ok(rejected) => {
                let rejected = rejected.min(spans);
                dropped("rejected", rejected);
                metrics::counter!(names::EXPORTED_SPANS).increment((spans - rejected) as u64);
                if !std::mem::replace(&mut self.is_available, true) {
                    tracing::info!("the OpenTelemetry collector accepts spans again");
                }
            }
            Err(Unsent { error, .. }) => {
                dropped("unavailable", spans);
                if std::mem::replace(&mut self.is_available, false) {
                    tracing::warn!(
                        error,
                        spans,
                        "the OpenTelemetry collector did not accept spans; they are dropped until it does"
                    );
                }
            }
        }
    }
}

impl Collector {
    /// Sends a request; returns the number of spans that the collector rejected.
    async fn send(&self, body: Vec<u8>) -> Result<usize, Unsent> {
        let sent = self
            .client
            .post(self.traces.clone())
            .body(body)
            .send()
            .await;
        let response = sent.map_err(|error| Unsent {
            error: crate::fault::chain(&error.without_url()),
            is_retryable: true,
        })?;
        let status = response.status();
        if !status.is_success() {
            return Err(Unsent {
                error: format!("status {}", status.as_u16()),
                is_retryable: is_retryable(status),
            });
        }
        // The spans are accepted, even if the rest of the answer cannot be read.
        let answer = body_of(response).await.unwrap_or_default();
        let answer = ExportTraceServiceResponse::decode(&*answer).unwrap_or_default();
        let rejected = answer.partial_success.map_or(0, |part| part.rejected_spans);
        Ok(usize::try_from(rejected).unwrap_or(0))
    }
}

fn is_retryable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

async fn body_of(mut response: Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

fn dropped(why: &'static str, spans: usize) {
    if spans > 0 {
        metrics::counter!(names::DROPPED_SPANS, "why" => why).increment(spans as u64);
    }
}
