//! Wake-ups of this replica that may not have been published: the stamps of their rows are to be taken back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::job::{JobId, ReplicaId};
use crate::store::{Store, StoreError};

/// Jobs in doubt that are remembered one by one; with more, every stamp of the replica is in doubt.
const JOBS: usize = 10_000;

/// A statement whose answer was lost may still be under way at Postgres for so long: its own limit is 8 s.
const UNDECIDED_FOR: Duration = Duration::from_secs(10);

/// Stamps in doubt, of one incarnation.
#[derive(Debug, Default)]
pub struct Stamps(Mutex<Doubt>);

#[derive(Debug, Default)]
struct Doubt {
    jobs: Vec<JobId>,
    /// All that were made until then.
    all: Option<Instant>,
}

impl Stamps {
    /// The wake-ups of these jobs were not published, as far as is known.
    pub(super) fn doubt(&self, jobs: &[JobId]) {
        let mut doubt = self.locked();
        if doubt.jobs.len() + jobs.len() > JOBS {
            *doubt = Doubt { jobs: Vec::new(), all: Some(Instant::now()) };
        } else {
            doubt.jobs.extend(jobs);
        }
    }

    /// Rows were stamped, and nobody knows which: the answer was lost.
    pub fn doubt_all(&self) {
        self.locked().all = Some(Instant::now());
    }

    /// Takes a bounded number of the stamps in doubt back. `true`: there are more. What fails stays in doubt, and what may not have
    /// been stored yet is looked for again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_back(&self, store: &Store, me: ReplicaId) -> Result<bool, StoreError> {
        let (jobs, all) = {
            let mut doubt = self.locked();
            (std::mem::take(&mut doubt.jobs), doubt.all)
        };
        if !jobs.is_empty() {
            store.unwake(&jobs).await.inspect_err(|_| self.doubt(&jobs))?;
        }
        let Some(since) = all else { return Ok(false) };
        let more = store.unstamp(me, since.elapsed()).await?;
        let mut doubt = self.locked();
        if !more && since.elapsed() >= UNDECIDED_FOR && doubt.all == all {
            doubt.all = None;
        }
        Ok(more)
    }

    fn locked(&self) -> MutexGuard<'_, Doubt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
