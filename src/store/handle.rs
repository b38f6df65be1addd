//! The handle to the engine's tables. Each file adds the functions for its statements.

use std::time::Instant;

use super::error::StoreError;
use crate::telemetry::names;

/// Access to the engine's tables.
#[derive(Clone)]
pub struct Store {
    pool: deadpool_postgres::Pool,
}

impl Store {
    /// Creates a store over a pool.
    #[must_use]
    pub const fn new(pool: deadpool_postgres::Pool) -> Self {
        Self { pool }
    }

    pub(super) async fn client(&self) -> Result<deadpool_postgres::Client, StoreError> {
        let began = Instant::now();
        let client = self.pool.get().await;
        metrics::histogram!(names::POOL_WAIT_SECONDS).record(began.elapsed());
        Ok(client?)
    }

    /// Checks that Postgres answers and accepts writes.
    ///
    /// # Errors
    /// [`StoreError`] if it does not.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let row = self
            .client()
            .await?
            .query_one(
                "SELECT current_setting('transaction_read_only') = 'on' AS read_only",
                &[],
            )
            .await?;
        if row.try_get("read_only")? {
            Err(StoreError::ReadOnly)
        } else {
            Ok(())
        }
    }
}
