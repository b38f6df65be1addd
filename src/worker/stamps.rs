//! Wake-ups of this replica that may not have been published: the stamps of their rows are to be taken back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Rows are being stamped and their wake-ups published; see [`Stamps::while_stamping`].
pub struct Stamping {
    stamps: Arc<Stamps>,
    is_done: bool,
}

impl Stamping {
    /// Every stamp is published or in doubt by itself.
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

    /// Where what is returned is dropped before it is done, every stamp is in doubt: rows may be stamped and not published.
    #[must_use]
    pub fn while_stamping(self: &Arc<Self>) -> Stamping {
        Stamping { stamps: Arc::clone(self), is_done: false }
    }

    /// Takes a bounded number of the stamps in doubt back. `true`: there are more. What fails stays in doubt, and what may not have
    /// been stored yet is looked for again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_back(&self, store: &Store, me: ReplicaId) -> Result<bool, StoreError> {
        // They stay in doubt until it is done: whoever waits for Postgres here may be dropped.
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
