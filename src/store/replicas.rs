//! One row per worker process; its lease is the right to the jobs it owns.

use std::time::Duration;

use tokio_postgres::Client;
use uuid::Uuid;

use super::Store;
use super::error::StoreError;
use super::sql::query;
use crate::job::ReplicaId;

/// How long a renewed lease is good for, on the database's clock.
const LEASE: Duration = Duration::from_secs(4);

/// A worker process that begins.
#[derive(Debug, Clone)]
pub struct NewReplica {
    /// Of this program.
    pub version: String,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: i32,
    /// The same for all incarnations of one process, and for no other process.
    pub process: Uuid,
    /// The lanes it serves.
    pub lanes: Vec<String>,
}

/// A replica's heartbeat: a connection of its own whose session also holds an advisory lock for the replica's id, so that a
/// killed process is seen as soon as its session is gone.
pub struct Heartbeat {
    client: Client,
    /// This incarnation.
    pub replica: ReplicaId,
}

/// A replica as people see it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ReplicaRow {
    /// Its id.
    pub id: i64,
    /// Of its program.
    pub version: String,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: i32,
    /// Jobs it owns.
    pub running: i64,
    /// Finishing what it has.
    pub draining: bool,
}

const NEXT_ID: &str = "SELECT nextval(pg_get_serial_sequence('replicas', 'id')) AS id";
const REGISTER: &str = "
    INSERT INTO replicas (id, version, host, pid, lanes, alive_until, process) OVERRIDING SYSTEM VALUE
    VALUES ($1, $2, $3, $4, $5, now() + $6 * interval '1 second', $7)";
/// Whoever begins again in the same process did not die of its jobs: Postgres or the link was away, or the process stood still.
/// Where others were quicker and have buried it, it is no longer blamed.
const END_BEFORE: &str = "
    UPDATE replicas SET ended_at = coalesce(ended_at, now()), alive_until = least(alive_until, now()), ended_well = true
    WHERE process = $1 AND NOT ended_well";
const LOCK: &str = "SELECT pg_advisory_lock(7264021, $1::bigint::integer)";
const RENEW: &str = "
    UPDATE replicas SET alive_until = now() + $2 * interval '1 second', draining = $3
    WHERE id = $1 AND alive_until > now() AND ended_at IS NULL";
const END: &str =
    "UPDATE replicas SET ended_at = now(), alive_until = now(), ended_well = true WHERE id = $1 AND ended_at IS NULL";
const LIST: &str = "
    SELECT r.id, r.version, r.host, r.pid, r.draining, (SELECT count(*) FROM jobs WHERE owner = r.id AND state = 'running') AS running
    FROM replicas r WHERE r.ended_at IS NULL AND r.alive_until > now() ORDER BY r.id";

impl Heartbeat {
    /// Begins a new incarnation on a connection that nothing else uses; those before it of the same process have ended well.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(client: Client, new: &NewReplica) -> Result<Self, StoreError> {
        let id: i64 = client.query_one(NEXT_ID, &[]).await?.try_get("id")?;
        // The lock comes first: a row whose lock can be taken belongs to the dead.
        client.execute(LOCK, &[&id]).await?;
        client.execute(END_BEFORE, &[&new.process]).await?;
        let lease = LEASE.as_secs_f64();
        client.execute(REGISTER, &[&id, &new.version, &new.host, &new.pid, &new.lanes, &lease, &new.process]).await?;
        Ok(Self { client, replica: ReplicaId(id) })
    }

    /// Renews the lease. `false`: it had run out, this incarnation is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew(&self, draining: bool) -> Result<bool, StoreError> {
        Ok(self.client.execute(RENEW, &[&self.replica.0, &LEASE.as_secs_f64(), &draining]).await? == 1)
    }

    /// Ends this incarnation: what it still owns is free at once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end(self) -> Result<(), StoreError> {
        self.client.execute(END, &[&self.replica.0]).await?;
        Ok(())
    }
}

impl Store {
    /// The replicas whose lease is good.
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
                    running: row.try_get("running")?,
                    draining: row.try_get("draining")?,
                })
            })
            .collect()
    }
}
