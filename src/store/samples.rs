//! Samples: what each replica measured, every 15 s, for charts that need no Prometheus.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query};
use crate::job::ReplicaId;

/// Maximum number of samples that one call returns: an hour of 40 replicas.
const ROWS: i64 = 10_000;
/// Maximum number of samples that one call deletes.
const OLD: i64 = 1000;

/// What a replica measured. A series that is 0 is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleData {
    /// Version of the replica's program.
    pub version: String,
    /// Whether every check of `/readyz` succeeds.
    pub ready: bool,
    /// The checks that fail.
    pub not_ready: Vec<String>,
    /// Counters since the start of the process, by series in the format of Prometheus:
    /// `dispatch_jobs_total{pipeline="dispatch",state="parked"}`.
    pub counters: BTreeMap<String, f64>,
    /// Gauges, likewise: open jobs, permits in use, links, the number of replicas desired.
    pub gauges: BTreeMap<String, f64>,
    /// Durations of stages, by `pipeline/stage`: how many runs since the start of the process took
    /// at most the time of each bound of `telemetry::STAGE_BUCKETS`, and at last how many there
    /// were.
    pub stages: BTreeMap<String, Vec<u64>>,
}

/// A stored sample.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SampleRow {
    /// When it was stored, on the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub at: OffsetDateTime,
    /// The replica: an incarnation of a worker process.
    pub replica: i64,
    /// What it measured.
    pub data: SampleData,
}

const ADD: &str = "INSERT INTO samples (at, replica, data) VALUES (now(), $1, $2::text::json) ON CONFLICT DO NOTHING";
pub(super) const FORGET: &str = "
    DELETE FROM samples WHERE (at, replica) IN (
        SELECT at, replica FROM samples WHERE at < now() - interval '48 hours' ORDER BY at, replica LIMIT $1)";
pub(super) const SINCE: &str = "
    SELECT at, replica, data::text AS data FROM samples WHERE at >= $1 ORDER BY at, replica LIMIT $2";

impl Store {
    /// Stores a sample of a replica.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_sample(
        &self,
        replica: ReplicaId,
        data: &SampleData,
    ) -> Result<(), StoreError> {
        let data = serde_json::to_string(data).map_err(unreadable)?;
        execute(&self.client().await?, ADD, &[&replica.0, &data]).await?;
        Ok(())
    }

    /// Deletes samples that are older than 48 hours, a page at a time. Returns whether there may
    /// be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_samples(&self) -> Result<bool, StoreError> {
        let deleted = execute(&self.client().await?, FORGET, &[&OLD]).await?;
        Ok(i64::try_from(deleted) == Ok(OLD))
    }

    /// Returns the samples since `since`, the oldest first, at most 10,000.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn samples(&self, since: OffsetDateTime) -> Result<Vec<SampleRow>, StoreError> {
        let rows = query(&self.client().await?, SINCE, &[&since, &ROWS]).await?;
        rows.iter()
            .map(|row| {
                let data: &str = row.try_get("data")?;
                Ok(SampleRow {
                    at: row.try_get("at")?,
                    replica: row.try_get("replica")?,
                    data: serde_json::from_str(data).map_err(unreadable)?,
                })
            })
            .collect()
    }
}

fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Row(format!("a sample: {error}"))
}
