//! Replicas: one row per incarnation of a worker process. A replica may run its jobs while its
//! lease is valid.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::sql::query;
use crate::job::{ReplicaId, UnknownWord, words};

/// Length of a renewed lease, on the database's clock.
const LEASE: Duration = Duration::from_secs(4);

/// A worker process that starts an incarnation.
#[derive(Debug, Clone)]
pub struct NewReplica {
    /// Version of the program.
    pub version: String,
    /// Name of the machine.
    pub host: String,
    /// Process id.
    pub pid: i32,
    /// The same for all incarnations of one process, and for no other process.
    pub process: Uuid,
    /// The lanes it serves.
    pub lanes: Vec<String>,
}

/// A replica's heartbeat: a connection of its own. Its session also holds an advisory lock for the
/// replica's id, so that a killed process is detected as soon as its session ends.
pub struct Heartbeat {
    client: Client,
    /// This incarnation.
    pub replica: ReplicaId,
}

/// A replica, as commands print it.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct ReplicaRow {
    /// Its id.
    pub id: i64,
    /// Version of its program.
    pub version: String,
    /// Name of the machine.
    pub host: String,
    /// Process id.
    pub pid: i32,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub started_at: OffsetDateTime,
    /// When its lease ends, if it is not renewed.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub lease_until: OffsetDateTime,
    /// The lanes that it serves.
    pub lanes: Vec<String>,
    /// Number of jobs it owns.
    pub running: i64,
    /// Whether it drains: it finishes its jobs and claims no others.
    pub draining: bool,
}

/// A replica that is gone.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct EndedReplica {
    /// Its id.
    pub id: i64,
    /// Version of its program.
    pub version: String,
    /// Name of the machine.
    pub host: String,
    /// Process id.
    pub pid: i32,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub started_at: OffsetDateTime,
    /// When it ended: by itself, or when another replica found its lease expired or its session
    /// gone. If nobody has found that yet, the end of its lease.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub ended_at: OffsetDateTime,
    /// How it ended.
    pub how: ReplicaEnd,
}

words! {
    /// How a replica ended.
    ReplicaEnd {
        /// It ended by itself, after a drain.
        Orderly = "orderly",
        /// Its process went on as another replica: its lease had expired, because Postgres or the
        /// connection was unavailable or the process was suspended.
        Continued = "continued",
        /// Its process died, and another replica has taken over what it owned.
        TakenOver = "taken_over",
        /// Its lease has expired, and no replica has taken over yet.
        LeaseExpired = "lease_expired",
    }
}

const NEXT_ID: &str = "SELECT nextval(pg_get_serial_sequence('replicas', 'id')) AS id";
const REGISTER: &str = "
    INSERT INTO replicas (id, version, host, pid, lanes, alive_until, process) OVERRIDING SYSTEM VALUE
    VALUES ($1, $2, $3, $4, $5, now() + $6 * interval '1 second', $7)";
/// A process that starts another incarnation did not die of its jobs: Postgres or the connection
/// was unavailable, or the process was suspended. If another replica has ended the old row
/// already, that incarnation is no longer blamed.
const END_BEFORE: &str = "
    UPDATE replicas SET ended_at = coalesce(ended_at, now()), alive_until = least(alive_until, now()), ended_well = true
    WHERE process = $1 AND NOT ended_well";
const LOCK: &str = "SELECT pg_advisory_lock(7264021, $1::bigint::integer)";
const RENEW: &str = "
    UPDATE replicas SET alive_until = now() + $2 * interval '1 second', draining = $3
    WHERE id = $1 AND alive_until > now() AND ended_at IS NULL";
const END: &str = "UPDATE replicas SET ended_at = now(), alive_until = now(), ended_well = true WHERE id = $1 AND ended_at IS NULL";
const LIST: &str = "
    SELECT r.id, r.version, r.host, r.pid, r.started_at, r.alive_until, r.lanes, r.draining, (SELECT count(*) FROM jobs WHERE owner = r.id AND state = 'running') AS running
    FROM replicas r WHERE r.ended_at IS NULL AND r.alive_until > now() ORDER BY r.id";
/// The newest replicas that have ended, or whose lease has expired. A process that starts another
/// incarnation marks the earlier ones as ended well.
pub(super) const ENDED: &str = "
    WITH gone AS (
        (SELECT id, version, host, pid, started_at, alive_until AS ended_at, 'lease_expired' AS how, process
        FROM replicas WHERE ended_at IS NULL AND alive_until <= now() ORDER BY id DESC LIMIT $2)
        UNION ALL
        (SELECT id, version, host, pid, started_at, ended_at, CASE WHEN ended_well THEN 'orderly' ELSE 'taken_over' END, process
        FROM replicas WHERE ended_at IS NOT NULL AND ended_at >= $1 ORDER BY ended_at DESC LIMIT $2)
    )
    SELECT id, version, host, pid, started_at, ended_at, CASE WHEN how = 'orderly' AND EXISTS (
            SELECT FROM replicas later WHERE later.process = gone.process AND NOT later.ended_well AND later.id > gone.id)
        THEN 'continued' ELSE how END AS how
    FROM gone WHERE ended_at >= $1 ORDER BY ended_at DESC, id DESC LIMIT $2";

impl Heartbeat {
    /// Starts a new incarnation on a connection that nothing else uses. Earlier incarnations of
    /// the same process have ended well.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(client: Client, new: &NewReplica) -> Result<Self, StoreError> {
        let id: i64 = client.query_one(NEXT_ID, &[]).await?.try_get("id")?;
        // The lock is taken first: a row whose lock can be taken belongs to a dead replica.
        client.execute(LOCK, &[&id]).await?;
        client.execute(END_BEFORE, &[&new.process]).await?;
        let lease = LEASE.as_secs_f64();
        client
            .execute(
                REGISTER,
                &[
                    &id,
                    &new.version,
                    &new.host,
                    &new.pid,
                    &new.lanes,
                    &lease,
                    &new.process,
                ],
            )
            .await?;
        Ok(Self {
            client,
            replica: ReplicaId(id),
        })
    }

    /// Renews the lease. Returns `false` if it had ended: this incarnation is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew(&self, draining: bool) -> Result<bool, StoreError> {
        Ok(self
            .client
            .execute(RENEW, &[&self.replica.0, &LEASE.as_secs_f64(), &draining])
            .await?
            == 1)
    }

    /// Ends this incarnation: the jobs it still owns are free at once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end(self) -> Result<(), StoreError> {
        self.client.execute(END, &[&self.replica.0]).await?;
        Ok(())
    }
}

impl Store {
    /// Returns the replicas whose lease is valid.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replicas(&self) -> Result<Vec<ReplicaRow>, StoreError> {
        let rows = query(&self.client().await?, LIST, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(ReplicaRow {
                    id: row.try_get("id")?,
                    version: row.try_get("version")?,
                    host: row.try_get("host")?,
                    pid: row.try_get("pid")?,
                    started_at: row.try_get("started_at")?,
                    lease_until: row.try_get("alive_until")?,
                    lanes: row.try_get("lanes")?,
                    running: row.try_get("running")?,
                    draining: row.try_get("draining")?,
                })
            })
            .collect()
    }

    /// Returns the replicas that have ended since `since`, the last first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ended_replicas(
        &self,
        since: OffsetDateTime,
        limit: i64,
    ) -> Result<Vec<EndedReplica>, StoreError> {
        let rows = query(&self.client().await?, ENDED, &[&since, &limit]).await?;
        rows.iter().map(ended).collect()
    }
}

fn ended(row: &Row) -> Result<EndedReplica, StoreError> {
    let how: &str = row.try_get("how")?;
    Ok(EndedReplica {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        host: row.try_get("host")?,
        pid: row.try_get("pid")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
        how: how
            .parse()
            .map_err(|error: UnknownWord| StoreError::Row(error.to_string()))?,
    })
}
