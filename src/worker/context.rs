//! What a worker works with, and the few things all its pieces do with it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::admission::Admission;
use super::announcer::Announcer;
use super::report;
use super::stamps::Stamps;
use crate::broker::{Outgoing, Publisher, WAKE};
use crate::engine::{Product, Registry};
use crate::job::JobId;
use crate::message::WakeUp;
use crate::reconnect::Reconnect;
use crate::secrets::Keyring;
use crate::store::{Announcement, Fence, SoFar, Store, StoreError, Tables, Writer};
use crate::telemetry::names;

/// What a worker works with.
pub struct WorkerContext<P: Product, T: Tables<Changes = P::Changes>> {
    /// Claims and commits.
    pub writer: Arc<Writer<T>>,
    /// The pipelines.
    pub registry: Arc<Registry<P>>,
    /// What stages reach the outside with.
    pub services: Arc<P::Services>,
    /// Seals and opens.
    pub keyring: Arc<Keyring>,
    /// Wake-ups.
    pub publisher: Publisher,
    /// Publishes events while nobody waits.
    pub announcer: Announcer,
    /// The newest intake schema it runs.
    pub known_schema: i64,
    /// Who may publish what.
    pub admission: Arc<Admission>,
    /// Jobs in hand.
    pub running: Arc<Running>,
    /// Wake-ups that may not have been published.
    pub stamps: Arc<Stamps>,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Clone for WorkerContext<P, T> {
    fn clone(&self) -> Self {
        Self {
            writer: Arc::clone(&self.writer),
            registry: Arc::clone(&self.registry),
            services: Arc::clone(&self.services),
            keyring: Arc::clone(&self.keyring),
            publisher: self.publisher.clone(),
            announcer: self.announcer.clone(),
            known_schema: self.known_schema,
            admission: Arc::clone(&self.admission),
            running: Arc::clone(&self.running),
            stamps: Arc::clone(&self.stamps),
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
    #[must_use]
    pub fn has(&self, job: JobId) -> bool {
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

impl<P: Product, T: Tables<Changes = P::Changes>> WorkerContext<P, T> {
    /// The same for another incarnation, which has nothing in hand.
    #[must_use]
    pub fn for_incarnation(&self) -> Self {
        Self { running: Arc::default(), stamps: Arc::default(), ..self.clone() }
    }

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
    pub(super) async fn postpone(&self, fence: &Fence, delay: Duration, so_far: SoFar<'_>) {
        match self.patiently(|| self.store().postpone(fence, delay, so_far)).await {
            Ok(true) => {}
            Ok(false) => tracing::info!("fenced: the job is no longer ours"),
            Err(error) => tracing::error!(error = crate::fault::chain(&error), "a job cannot be given up"),
        }
    }

    /// Publishes wake-ups, and has outcome events published. What fails is found again when it is due.
    pub(super) async fn publish(&self, wake: &[(JobId, String)], announcements: Vec<Announcement>) {
        self.wake(wake).await;
        self.announcer.tell(announcements);
    }

    /// Publishes wake-ups for rows that this replica has stamped; the stamps of those that fail are taken back, soon.
    pub async fn wake(&self, wake: &[(JobId, String)]) {
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
        self.stamps.doubt(&failed);
    }

    fn wake_up(&self, job: JobId, pipeline: &str) -> Option<Outgoing> {
        let lane = self.registry.get(pipeline)?.lane;
        let body = serde_json::to_vec(&WakeUp { job_id: job }).expect("a wake-up is always JSON");
        Some(Outgoing { exchange: WAKE, routing_key: lane.wake_key.to_owned(), mandatory: true, body, ..Outgoing::default() })
    }
}
