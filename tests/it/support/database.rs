//! A separate database for each test.

use deadpool_postgres::Pool;
use dispatch_worker::store;
use dispatch_worker::tracker::{Imported, TrackerFault};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use tokio_postgres::{SimpleQueryMessage, Transaction};

use super::servers::{Run, run};

/// The pool size of a test.
const CONNECTIONS: usize = 4;

/// Counts the sessions of this database that wait for a lock.
pub(crate) const WAITS_FOR_LOCK: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// A database, migrated and empty unless stated otherwise.
pub(crate) struct TestDatabase {
    /// Connections of the owner.
    pub(crate) pool: Pool,
    /// The owner's URL.
    pub(crate) url: SecretString,
    /// A worker's URL, with no more rights than a worker needs.
    pub(crate) worker_url: SecretString,
    pub(crate) name: String,
}

impl TestDatabase {
    pub(crate) async fn new() -> Self {
        let run = run().await;
        Self::named(run, run.fresh_name()).await
    }

    /// Creates a database without a schema.
    pub(crate) async fn empty() -> Self {
        let run = run().await;
        let name = run.fresh_name();
        let url = run.servers.create_database(&name, None).await;
        Self::at(run, url.expect("a database").into(), name)
    }

    pub(super) async fn named(run: &Run, name: String) -> Self {
        let url = run.create_database(&name).await;
        Self::at(run, url, name)
    }

    fn at(run: &Run, url: SecretString, name: String) -> Self {
        let pool = store::pool(&url, CONNECTIONS).expect("a pool");
        let worker_url = run.worker_url(&url);
        Self {
            pool,
            url,
            worker_url,
            name,
        }
    }

    /// Returns the same database with a pool for another runtime.
    pub(super) fn with_connections_of_its_own(&self) -> Self {
        let (url, worker_url) = (self.url.clone(), self.worker_url.clone());
        Self {
            pool: store::pool(&url, 1).expect("a pool"),
            url,
            worker_url,
            name: self.name.clone(),
        }
    }

    /// Runs statements and returns the rows, each with its columns as text, and null as `-`.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let client = self.pool.get().await.expect("a connection");
        let messages = client
            .simple_query(sql)
            .await
            .unwrap_or_else(|error| panic!("{error:?}: {sql}"));
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).unwrap_or("-").to_owned())
                    .collect(),
            ),
            _ => None,
        };
        messages.iter().filter_map(row).collect()
    }

    /// Returns the rows of a query, deserialized by column name.
    pub(crate) async fn records<T: DeserializeOwned>(&self, query: &str) -> Vec<T> {
        let json = self
            .one(&format!(
                "SELECT coalesce(json_agg(r), '[]') FROM ({query}) r"
            ))
            .await;
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {query}: {json}"))
    }

    /// Returns the single value of a query.
    pub(crate) async fn one(&self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        assert!(rows.len() == 1 && rows[0].len() == 1, "{sql}: {rows:?}");
        rows.concat().concat()
    }
}

/// Writes no audit row; for imports that set up a test.
pub(crate) async fn unaudited(_: &Transaction<'_>, _: &Imported) -> Result<(), TrackerFault> {
    Ok(())
}
