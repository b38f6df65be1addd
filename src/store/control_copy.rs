//! A replica's copy of the controls in force, in memory. Each stage is tested against the copy, so
//! that a stage which no control stops costs no query.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::controls::LiveControl;
use super::error::StoreError;
use super::handle::Store;
use super::in_force::InForce;
use crate::telemetry::names;

/// The age up to which the copy is fresh. An older copy is read again before it stops a job: a
/// control may have ended since.
const FRESH: Duration = Duration::from_millis(100);

/// The copy. It is refreshed with every read of the holds, by all replicas every 500 ms.
pub struct Controls {
    store: Store,
    copy: RwLock<Arc<InForce>>,
    /// One read at a time: jobs that meet a stale copy together share its refresh.
    reading: tokio::sync::Mutex<()>,
    /// The kill switches in force that were reported as not understood.
    reported: Mutex<HashSet<i64>>,
}

impl Controls {
    /// Creates an empty copy; nothing is read yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            copy: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
            reported: Mutex::default(),
        }
    }

    /// Returns the copy.
    #[must_use]
    pub fn known(&self) -> Arc<InForce> {
        Arc::clone(&self.copy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the controls in force, replaces the copy, and returns the rows.
    ///
    /// # Errors
    /// [`StoreError`]. The copy then stays as it was, and each control ends at its time.
    pub async fn read(&self) -> Result<Vec<LiveControl>, StoreError> {
        let begun = Instant::now();
        let rows = self.store.live_controls().await?;
        let read = Arc::new(InForce::of(&rows, begun));
        self.report(&read.not_understood);
        *self.copy.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(rows)
    }

    /// Returns the copy, and reads it first if it is not fresh.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fresh(&self) -> Result<Arc<InForce>, StoreError> {
        let is_fresh = || {
            let known = self.known();
            known.is_fresh(Instant::now(), FRESH).then_some(known)
        };
        if let Some(known) = is_fresh() {
            return Ok(known);
        }
        let _reading = self.reading.lock().await;
        if let Some(known) = is_fresh() {
            return Ok(known);
        }
        self.read().await?;
        Ok(self.known())
    }

    /// Reports each kill switch that this version does not understand once.
    fn report(&self, not_understood: &[i64]) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge of a small number")]
        let number = not_understood.len() as f64;
        metrics::gauge!(names::KILL_SWITCHES_NOT_UNDERSTOOD).set(number);
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.retain(|id| not_understood.contains(id));
        for id in not_understood {
            if reported.insert(*id) {
                tracing::error!(
                    control.id = id,
                    "the matcher of a kill switch is not understood by this version, so it stops no job here; \
                     run the newest version of the worker"
                );
            }
        }
    }
}
