//! Wake-ups of this replica that may not have been published: the stamps of their rows are to be taken back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::{JobId, ReplicaId};
use crate::store::{Store, StoreError};

/// Jobs in doubt that are remembered one by one; with more, every stamp of the replica is in doubt.
const JOBS: usize = 10_000;

/// Stamps in doubt, of one incarnation.
#[derive(Debug, Default)]
pub struct Stamps(Mutex<Doubt>);

#[derive(Debug, Default)]
struct Doubt {
    jobs: Vec<JobId>,
    all: bool,
}

impl Stamps {
    /// The wake-ups of these jobs were not published, as far as is known.
    pub(super) fn doubt(&self, jobs: &[JobId]) {
        let mut doubt = self.locked();
        if doubt.jobs.len() + jobs.len() > JOBS {
            *doubt = Doubt { jobs: Vec::new(), all: true };
        } else {
            doubt.jobs.extend(jobs);
        }
    }

    /// Rows were stamped, and nobody knows which: the answer was lost.
    pub fn doubt_all(&self) {
        self.locked().all = true;
    }

    /// Takes a bounded number of the stamps in doubt back. `true`: there are more. What fails stays in doubt.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_back(&self, store: &Store, me: ReplicaId) -> Result<bool, StoreError> {
        let Doubt { jobs, all } = std::mem::take(&mut *self.locked());
        if all {
            let more = store.unstamp(me).await;
            if !matches!(more, Ok(false)) {
                self.doubt_all();
            }
            return more;
        }
        if !jobs.is_empty() {
            store.unwake(&jobs).await.inspect_err(|_| self.doubt(&jobs))?;
        }
        Ok(false)
    }

    fn locked(&self) -> MutexGuard<'_, Doubt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
