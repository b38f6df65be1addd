//! Samples: what each replica measured, every 15 s, for charts that need no Prometheus.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query};
use crate::job::ReplicaId;

/// Maximum number of samples that one call returns: one a minute of 64 replicas, for an hour and a
/// half.
const ROWS: i64 = 6_000;
/// Maximum number of samples whose times are read for that: an hour of 64 replicas, four a minute.
const TIMES: i64 = 16_000;
/// Maximum number of samples whose times are read to find the newest one of each replica.
const NEWEST_TIMES: i64 = 1000;
/// Maximum number of replicas whose newest sample is read.
const REPLICAS: i64 = 128;
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
    /// Why intake is paused; `None` where it is not, and of earlier versions.
    #[serde(default)]
    pub intake_paused: Option<String>,
    /// Counters since the start of the process, by series in the format of Prometheus:
    /// `dispatch_jobs_total{pipeline="dispatch",state="parked"}`.
    pub counters: BTreeMap<String, f64>,
    /// Gauges, likewise: open jobs, permits in use, links, the number of replicas desired.
    pub gauges: BTreeMap<String, f64>,
    /// Durations of stages, by `pipeline/stage`: how many runs since the start of the process took
    /// at most the time of each bound of `STAGE_BUCKETS`, and at last how many there
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
/// Of each replica the last sample of each minute, and its first one, with which its counters begin.
/// The times are read from the primary key alone.
pub(super) const SINCE: &str = "
    WITH times AS MATERIALIZED (
        SELECT at, replica, date_trunc('minute', at) AS minute FROM samples WHERE at >= $1 ORDER BY at DESC, replica DESC LIMIT $2
    ), kept AS (
        (SELECT DISTINCT ON (minute, replica) at, replica FROM times ORDER BY minute DESC, replica, at DESC LIMIT $3)
        UNION
        (SELECT DISTINCT ON (replica) at, replica FROM times ORDER BY replica DESC, at LIMIT $4)
    )
    SELECT s.at, s.replica, s.data::text AS data FROM kept
    CROSS JOIN LATERAL (SELECT at, replica, data FROM samples WHERE samples.at = kept.at AND samples.replica = kept.replica LIMIT 1) s
    ORDER BY s.at, s.replica";
pub(super) const NEWEST: &str = "
    SELECT s.at, s.replica, s.data::text AS data FROM (
        SELECT DISTINCT ON (replica) at, replica FROM (
            SELECT at, replica FROM samples ORDER BY at DESC, replica DESC LIMIT $1) times
        ORDER BY replica DESC, at DESC LIMIT $2) last
    CROSS JOIN LATERAL (SELECT at, replica, data FROM samples WHERE samples.at = last.at AND samples.replica = last.replica LIMIT 1) s
    ORDER BY s.at, s.replica";

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

    /// Returns the last sample of each replica in each minute since `since`, and its first one, the
    /// oldest first; if there are more than 6,000, the newest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn samples(&self, since: OffsetDateTime) -> Result<Vec<SampleRow>, StoreError> {
        let client = self.client().await?;
        let rows = query(&client, SINCE, &[&since, &TIMES, &ROWS, &REPLICAS]).await?;
        rows.iter().map(sample).collect()
    }

    /// Returns the newest sample of each replica that has stored one lately, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn newest_samples(&self) -> Result<Vec<SampleRow>, StoreError> {
        let client = self.client().await?;
        let rows = query(&client, NEWEST, &[&NEWEST_TIMES, &REPLICAS]).await?;
        rows.iter().map(sample).collect()
    }
}

fn sample(row: &Row) -> Result<SampleRow, StoreError> {
    let data: &str = row.try_get("data")?;
    Ok(SampleRow {
        at: row.try_get("at")?,
        replica: row.try_get("replica")?,
        data: serde_json::from_str(data).map_err(unreadable)?,
    })
}

fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Row(format!("a sample: {error}"))
}
