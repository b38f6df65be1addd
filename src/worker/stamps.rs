//! The stamps of this replica that are in doubt: their wake-ups may not have been published, so
//! the stamps must be taken back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::job::{JobId, ReplicaId};
use crate::store::{Store, StoreError};

/// The most jobs whose stamps are in doubt one by one; with more, every stamp of the replica is in
/// doubt.
const JOBS: usize = 10_000;

/// How long a statement whose answer was lost may still run in Postgres, whose limit for it is 8
/// s.
const UNDECIDED_FOR: Duration = Duration::from_secs(10);

/// The stamps of one incarnation that are in doubt.
#[derive(Debug, Default)]
pub struct Stamps(Mutex<Doubt>);

#[derive(Debug, Default)]
struct Doubt {
    jobs: Vec<JobId>,
    /// Every stamp made until this time is in doubt.
    all: Option<Instant>,
}

/// A guard over rows that are stamped and published; see [`Stamps::while_stamping`].
pub struct Stamping {
    stamps: Arc<Stamps>,
    is_done: bool,
}

impl Stamping {
    /// Ends the guard: every stamp was published, or is in doubt by itself.
    pub fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Stamping {
    fn drop(&mut self) {
        if !self.is_done {
            self.stamps.doubt_all();
        }
    }
}

impl Stamps {
    /// Puts the stamps of these jobs in doubt: their wake-ups may not have been published.
    pub(super) fn doubt(&self, jobs: &[JobId]) {
        let mut doubt = self.locked();
        if doubt.jobs.len() + jobs.len() > JOBS {
            *doubt = Doubt {
                jobs: Vec::new(),
                all: Some(Instant::now()),
            };
        } else {
            doubt.jobs.extend(jobs);
        }
    }

    /// Puts every stamp in doubt: rows were stamped, but the answer that names them was lost.
    pub fn doubt_all(&self) {
        self.locked().all = Some(Instant::now());
    }

    /// Returns a guard. If it is dropped before it is done, every stamp is in doubt, because rows
    /// may be stamped and not published.
    #[must_use]
    pub fn while_stamping(self: &Arc<Self>) -> Stamping {
        Stamping {
            stamps: Arc::clone(self),
            is_done: false,
        }
    }

    /// Takes a bounded number of the stamps in doubt back. `true`: there are more. What fails
    /// stays in doubt, and what may not have been stored yet is looked for again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_back(&self, store: &Store, me: ReplicaId) -> Result<bool, StoreError> {
        // The stamps stay in doubt until they are taken back, because this future may be dropped
        // while it waits for Postgres.
        let (jobs, all) = {
            let doubt = self.locked();
            (doubt.jobs.clone(), doubt.all)
        };
        if !jobs.is_empty() {
            store.unwake(&jobs).await?;
            let mut doubt = self.locked();
            let taken = jobs.len().min(doubt.jobs.len());
            doubt.jobs.drain(..taken);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamping_that_is_cut_short_puts_every_stamp_in_doubt_and_stamping_that_is_done_none() {
        let stamps = Arc::new(Stamps::default());
        stamps.while_stamping().done();
        assert_eq!(stamps.locked().all, None);
        drop(stamps.while_stamping());
        assert!(stamps.locked().all.is_some());
    }
}
