//! What a worker works with, and the few things all its pieces do with it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::report;
use crate::broker::{BrokerError, DIRECT_REPLY, EVENTS, EXCHANGE, Outgoing, Publisher};
use crate::engine::{Product, Registry};
use crate::job::JobId;
use crate::message::WakeUp;
use crate::reconnect::Reconnect;
use crate::secrets::Keyring;
use crate::store::{Announcement, Fence, Store, StoreError, Tables, Writer};
use crate::telemetry::names;
use crate::trace::Trace;

/// What a worker works with.
pub struct Parts<P: Product, T: Tables<Changes = P::Changes>> {
    /// Claims and commits.
    pub writer: Arc<Writer<T>>,
    /// The pipelines.
    pub registry: Arc<Registry<P>>,
    /// What stages reach the outside with.
    pub services: Arc<P::Services>,
    /// Seals and opens.
    pub keyring: Arc<Keyring>,
    /// Wake-ups and events.
    pub publisher: Publisher,
    /// The newest intake schema it runs.
    pub known_schema: i64,
    /// Jobs in hand.
    pub running: Arc<Running>,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Clone for Parts<P, T> {
    fn clone(&self) -> Self {
        Self {
            writer: Arc::clone(&self.writer),
            registry: Arc::clone(&self.registry),
            services: Arc::clone(&self.services),
            keyring: Arc::clone(&self.keyring),
            publisher: self.publisher.clone(),
            known_schema: self.known_schema,
            running: Arc::clone(&self.running),
        }
    }
}

/// The jobs this process has in hand: a row that shows us as its owner and is not among them is an orphan.
#[derive(Debug, Default)]
pub struct Running {
    jobs: Mutex<HashSet<JobId>>,
    suspect: AtomicBool,
}

/// The one suspect in hand; dropping it lets another one in.
pub(super) struct Suspect(Arc<Running>);

impl Drop for Suspect {
    fn drop(&mut self) {
        self.0.suspect.store(false, Ordering::Release);
    }
}

/// A job in hand; dropping it lets it go.
pub(super) struct InHand {
    running: Arc<Running>,
    job: JobId,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.running.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.job);
    }
}

impl Running {
    /// Whether a job is in hand.
    pub(super) fn has(&self, job: JobId) -> bool {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).contains(&job)
    }

    /// Takes a job in hand, unless it is already.
    pub(super) fn take(self: &Arc<Self>, job: JobId) -> Option<InHand> {
        let new = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(job);
        new.then(|| InHand { running: Arc::clone(self), job })
    }

    /// The place for a suspect, unless there is one in hand.
    pub(super) fn suspect(self: &Arc<Self>) -> Option<Suspect> {
        (!self.suspect.swap(true, Ordering::AcqRel)).then(|| Suspect(Arc::clone(self)))
    }
}

impl<P: Product, T: Tables<Changes = P::Changes>> Parts<P, T> {
    /// The engine's tables.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.writer.store()
    }

    /// Calls until Postgres is well: its illness is not the job's failure.
    pub(super) async fn patiently<V, F>(&self, mut call: impl FnMut() -> F) -> Result<V, StoreError>
    where
        F: Future<Output = Result<V, StoreError>>,
    {
        let mut reconnect = Reconnect::default();
        loop {
            match call().await {
                Err(error) if error.is_infrastructure() => {
                    report::ill(&error.into());
                    tokio::time::sleep(reconnect.next_delay()).await;
                }
                answer => return answer,
            }
        }
    }

    /// A short wait while Postgres or RabbitMQ is ill, different for each job.
    pub(super) async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(rand::random_range(100..700))).await;
    }

    /// Gives a claimed job up, due again after `delay`.
    pub(super) async fn postpone(&self, fence: &Fence, delay: Duration) {
        match self.patiently(|| self.store().postpone(fence, delay)).await {
            Ok(true) => {}
            Ok(false) => tracing::info!("fenced: the job is no longer ours"),
            Err(error) => tracing::error!(error = crate::fault::chain(&error), "a job cannot be given up"),
        }
    }

    /// Publishes wake-ups and outcome events. What fails is found again by the waker.
    pub(super) async fn publish(&self, wake: &[(JobId, String)], announcements: &[Announcement]) {
        self.wake(wake).await;
        self.announce(announcements).await;
    }

    /// Publishes wake-ups for rows stamped as woken; the stamps of those that fail are taken back.
    pub(super) async fn wake(&self, wake: &[(JobId, String)]) {
        if wake.is_empty() {
            return;
        }
        // A job of a pipeline that this worker does not know is left to one that does.
        let (jobs, messages): (Vec<JobId>, Vec<Outgoing>) =
            wake.iter().filter_map(|(job, pipeline)| Some((*job, self.wake_up(*job, pipeline)?))).unzip();
        let answers = self.publisher.publish_all(&messages).await;
        let failed: Vec<JobId> = jobs.iter().zip(&answers).filter(|(_, answer)| answer.is_err()).map(|(job, _)| *job).collect();
        metrics::counter!(names::WAKEUPS).increment((answers.len() - failed.len()) as u64);
        let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) else { return };
        tracing::warn!(
            error = crate::fault::chain(error),
            wake_ups = failed.len(),
            "wake-ups were not published; the waker will"
        );
        if let Err(error) = self.store().unwake(&failed).await {
            tracing::debug!(error = crate::fault::chain(&error), "their stamps stay; they are woken again when they are stale");
        }
    }

    fn wake_up(&self, job: JobId, pipeline: &str) -> Option<Outgoing> {
        let lane = self.registry.get(pipeline)?.lane;
        let body = serde_json::to_vec(&WakeUp { job_id: job }).expect("a wake-up is always JSON");
        Some(Outgoing { exchange: EXCHANGE, routing_key: lane.wake_key.to_owned(), mandatory: true, body, ..Outgoing::default() })
    }

    /// Publishes outcome events and replies in one confirm window. The confirmed ones are forgotten at the waker's next tick.
    pub(super) async fn announce(&self, announcements: &[Announcement]) {
        if announcements.is_empty() {
            return;
        }
        let parts = |announcement| [event(announcement), reply(announcement)].into_iter().flatten();
        let messages: Vec<Outgoing> = announcements.iter().flat_map(parts).collect();
        let mut answers = self.publisher.publish_all(&messages).await.into_iter();
        let mut done = Vec::new();
        for announcement in announcements {
            let told = event(announcement).and_then(|_| answers.next()).is_none_or(|answer| is_told(&answer));
            let replied = reply(announcement).and_then(|_| answers.next()).is_none_or(|answer| is_replied(&answer));
            if told && replied {
                done.push(announcement.id);
            }
        }
        self.writer.announced(done);
    }
}

fn is_told(answer: &Result<(), BrokerError>) -> bool {
    if let Err(error) = answer {
        tracing::warn!(error = crate::fault::chain(error), "an outcome event was not published; the waker will");
    }
    answer.is_ok()
}

/// Whether the reply needs no further try. One that no queue takes is recorded once, here.
fn is_replied(answer: &Result<(), BrokerError>) -> bool {
    match answer {
        Ok(()) => true,
        Err(error @ (BrokerError::Returned(_) | BrokerError::LongName(_))) => {
            tracing::warn!(error = crate::fault::chain(error), "nobody takes the reply");
            true
        }
        Err(_) => false,
    }
}

/// The event for whoever listens on the exchange: nobody need.
fn event(announcement: &Announcement) -> Option<Outgoing> {
    let routing_key = announcement.routing_key.clone()?;
    Some(Outgoing { exchange: EVENTS, routing_key, ..message(announcement) })
}

/// The reply to the producer's queue. One through RabbitMQ's direct reply-to goes to no queue: a mandatory one would be returned
/// although it arrives (<https://www.rabbitmq.com/docs/3.13/direct-reply-to>).
fn reply(announcement: &Announcement) -> Option<Outgoing> {
    let queue = announcement.reply_to.clone().filter(|queue| !queue.starts_with("dispatch."))?;
    let mandatory = !queue.starts_with(DIRECT_REPLY);
    Some(Outgoing { exchange: "", routing_key: queue, mandatory, ..message(announcement) })
}

fn message(announcement: &Announcement) -> Outgoing {
    let trace = Trace::parse(announcement.traceparent.as_deref(), announcement.tracestate.as_deref());
    Outgoing {
        body: announcement.body.clone(),
        message_id: Some(format!("announcement-{}", announcement.id)),
        correlation_id: announcement.correlation_id.clone(),
        trace: trace.map(|trace| trace.child()),
        ..Outgoing::default()
    }
}
