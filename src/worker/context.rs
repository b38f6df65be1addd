//! The parts that a worker works with, and the operations that all its modules share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::announcer::Announcer;
use super::report;
use super::stamps::Stamps;
use crate::broker::{Outgoing, Publisher, WAKE};
use crate::engine::{Product, Registry};
use crate::job::{Epoch, JobId};
use crate::message::WakeUp;
use crate::reconnect::Reconnect;
use crate::secrets::Keyring;
use crate::store::{Announcement, Controls, Fence, SoFar, Store, StoreError, Tables, Writer};
use crate::telemetry::names;
use crate::trace::Spans;

/// The parts that a worker, its duties and its announcer share.
pub struct WorkerContext<P: Product, T: Tables<Changes = P::Changes>> {
    /// Writes claims and commits.
    pub writer: Arc<Writer<T>>,
    pub registry: Arc<Registry<P>>,
    pub services: Arc<P::Services>,
    /// Seals payloads and opens them.
    pub keyring: Arc<Keyring>,
    /// Publishes wake-ups.
    pub publisher: Publisher,
    /// Publishes events and replies; its callers do not wait.
    pub announcer: Announcer,
    /// The newest intake schema that this worker can run.
    pub known_schema: i64,
    /// The cached rows that say what producers may name.
    pub admission: Arc<Admission>,
    /// The controls of operators in force.
    pub controls: Arc<Controls>,
    pub running: Arc<Running>,
    /// The stamps of wake-ups that may not have been published.
    pub stamps: Arc<Stamps>,
    /// Records the spans of claims, stages and calls.
    pub spans: Spans,
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
            controls: Arc::clone(&self.controls),
            running: Arc::clone(&self.running),
            stamps: Arc::clone(&self.stamps),
            spans: self.spans.clone(),
        }
    }
}

/// The jobs in hand. A row that names this replica as its owner and is not among them is an
/// orphan.
#[derive(Debug, Default)]
pub struct Running {
    jobs: Mutex<HashMap<JobId, Hand>>,
    suspect: AtomicBool,
}

/// What is known about a job in hand.
#[derive(Debug, Default)]
struct Hand {
    /// The epoch of its claim, once it runs.
    epoch: Option<Epoch>,
    taken_away: CancellationToken,
}

/// The right to run the one suspect at a time. Dropping it releases it.
pub(super) struct Suspect(Arc<Running>);

impl Drop for Suspect {
    fn drop(&mut self) {
        self.0.suspect.store(false, Ordering::Release);
    }
}

/// A job in hand. Dropping it releases the job.
pub(super) struct InHand {
    running: Arc<Running>,
    job: JobId,
    taken_away: CancellationToken,
}

impl InHand {
    /// Records that the job runs with a claim of this epoch.
    pub(super) fn runs(&self, epoch: Epoch) {
        if let Some(hand) = self.running.locked().get_mut(&self.job) {
            hand.epoch = Some(epoch);
        }
    }

    /// Returns a token that is cancelled when the job was taken away from its run: it is due with a
    /// newer epoch, usually because a person has acted on it, so that its run can commit nothing.
    pub(super) fn taken_away(&self) -> CancellationToken {
        self.taken_away.clone()
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.running.locked().remove(&self.job);
    }
}

impl Running {
    #[must_use]
    pub fn has(&self, job: JobId) -> bool {
        self.locked().contains_key(&job)
    }

    /// Takes a job in hand, or returns `None` where it is in hand already.
    pub(super) fn take(self: &Arc<Self>, job: JobId) -> Option<InHand> {
        let mut jobs = self.locked();
        let Entry::Vacant(free) = jobs.entry(job) else {
            return None;
        };
        let taken_away = free.insert(Hand::default()).taken_away.clone();
        Some(InHand {
            running: Arc::clone(self),
            job,
            taken_away,
        })
    }

    /// Ends the run of a job whose row is due with a newer epoch than that of the run.
    fn take_away(&self, job: JobId, epoch: Epoch) {
        let jobs = self.locked();
        let hand = jobs.get(&job);
        if let Some(hand) = hand.filter(|hand| hand.epoch.is_some_and(|own| own < epoch)) {
            hand.taken_away.cancel();
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<JobId, Hand>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the right to run a suspect, or `None` while another one runs.
    pub(super) fn suspect(self: &Arc<Self>) -> Option<Suspect> {
        (!self.suspect.swap(true, Ordering::AcqRel)).then(|| Suspect(Arc::clone(self)))
    }
}

impl<P: Product, T: Tables<Changes = P::Changes>> WorkerContext<P, T> {
    /// Returns the context of another incarnation, which has nothing in hand.
    #[must_use]
    pub fn for_incarnation(&self) -> Self {
        Self {
            running: Arc::default(),
            stamps: Arc::default(),
            ..self.clone()
        }
    }

    /// Returns the store of the engine's tables.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.writer.store()
    }

    /// Takes back the stamp of a job that is in hand here. It may be about to be given up; then its
    /// wake-up was the only one, and the waker publishes another. If a person has made it due, its
    /// run ends, and the next wake-up finds it free.
    pub(super) async fn wake_again(&self, job: JobId) -> Result<(), StoreError> {
        let unwake = || self.store().unwake_one(job);
        if let Some(epoch) = self.until_available(unwake).await? {
            self.running.take_away(job, epoch);
        }
        Ok(())
    }

    /// Repeats a call while Postgres is unavailable, which is not a failure of the job.
    pub(super) async fn until_available<V, F>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<V, StoreError>
    where
        F: Future<Output = Result<V, StoreError>>,
    {
        let mut reconnect = Reconnect::default();
        loop {
            match call().await {
                Err(error) if error.is_infrastructure() => {
                    report::unavailable(&error.into());
                    tokio::time::sleep(reconnect.next_delay()).await;
                }
                answer => return answer,
            }
        }
    }

    /// Waits for a short time while Postgres or RabbitMQ is unavailable, jittered so that jobs do
    /// not retry together.
    pub(super) async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(rand::random_range(100..700))).await;
    }

    /// Gives a claimed job up, due again after `delay`.
    pub(super) async fn postpone(&self, fence: &Fence, delay: Duration, so_far: SoFar<'_>) {
        match self
            .until_available(|| self.store().postpone(fence, delay, so_far))
            .await
        {
            Ok(true) => {}
            Ok(false) => tracing::info!(
                "the job was fenced: this replica no longer owns it and cannot give it up"
            ),
            Err(error) => tracing::error!(
                error = crate::fault::chain(&error),
                "a job could not be given up"
            ),
        }
    }

    /// Publishes wake-ups, and passes outcome events to the announcer. The waker and the duty
    /// `events` repeat what fails.
    pub(super) async fn publish(&self, wake: &[(JobId, String)], announcements: Vec<Announcement>) {
        self.wake(wake).await;
        self.announcer.announce(announcements);
    }

    /// Publishes wake-ups for rows that this replica has stamped. The duty `stamps` takes back the
    /// stamps of those that fail.
    pub async fn wake(&self, wake: &[(JobId, String)]) {
        if wake.is_empty() {
            return;
        }
        // A job of a pipeline that this worker does not know is left to one that does.
        let (jobs, messages): (Vec<JobId>, Vec<Outgoing>) = wake
            .iter()
            .filter_map(|(job, pipeline)| Some((*job, self.wake_up(*job, pipeline)?)))
            .unzip();
        let answers = self.publisher.publish_all(&messages).await;
        let failed: Vec<JobId> = jobs
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_err())
            .map(|(job, _)| *job)
            .collect();
        metrics::counter!(names::WAKEUPS).increment((answers.len() - failed.len()) as u64);
        let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) else {
            return;
        };
        tracing::warn!(
            error = crate::fault::chain(error),
            wake_ups = failed.len(),
            "wake-ups were not published; the waker publishes them"
        );
        self.stamps.doubt(&failed);
    }

    fn wake_up(&self, job: JobId, pipeline: &str) -> Option<Outgoing> {
        let lane = self.registry.get(pipeline)?.lane;
        let body = serde_json::to_vec(&WakeUp { job_id: job }).expect("a wake-up is always JSON");
        Some(Outgoing {
            exchange: WAKE,
            routing_key: lane.wake_key.to_owned(),
            mandatory: true,
            body,
            ..Outgoing::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_ended_by_a_newer_epoch_only() {
        let running = Arc::new(Running::default());
        let job = JobId::fresh();
        let in_hand = running.take(job).unwrap();
        assert!(running.take(job).is_none());
        let taken_away = in_hand.taken_away();
        // It is not known yet whether the claim succeeds.
        running.take_away(job, Epoch(9));
        in_hand.runs(Epoch(3));
        running.take_away(job, Epoch(3));
        assert!(!taken_away.is_cancelled(), "it is about to be given up");
        running.take_away(job, Epoch(4));
        assert!(taken_away.is_cancelled());
        drop(in_hand);
        assert!(!running.has(job));
    }
}
