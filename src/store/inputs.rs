//! The input of a job, and those that it had before a person edited it.

use time::OffsetDateTime;
use tokio_postgres::Row;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{query, query_opt};
use crate::job::JobId;

/// An input that was replaced.
#[derive(Debug, Clone)]
pub struct InputVersion {
    /// Its number, from 1.
    pub version: i32,
    /// When it was replaced.
    pub replaced_at: OffsetDateTime,
    /// Who replaced it.
    pub replaced_by: String,
    /// The input as JSON.
    pub payload: String,
}

const INPUT: &str = "SELECT payload::text AS payload FROM jobs WHERE id = $1";
const EARLIER: &str = "
    SELECT version, replaced_at, replaced_by, payload::text AS payload FROM job_inputs WHERE job_id = $1 ORDER BY version";

impl Store {
    /// Returns the input of a job, `None` if it is sealed or there is no such job, and its earlier
    /// inputs, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn inputs(
        &self,
        job: JobId,
    ) -> Result<(Option<String>, Vec<InputVersion>), StoreError> {
        let client = self.client().await?;
        let input = match query_opt(&client, INPUT, &[&job.0]).await? {
            Some(row) => row.try_get("payload")?,
            None => None,
        };
        let earlier = query(&client, EARLIER, &[&job.0]).await?;
        Ok((
            input,
            earlier.iter().map(version).collect::<Result<_, _>>()?,
        ))
    }
}

fn version(row: &Row) -> Result<InputVersion, StoreError> {
    Ok(InputVersion {
        version: row.try_get("version")?,
        replaced_at: row.try_get("replaced_at")?,
        replaced_by: row.try_get("replaced_by")?,
        payload: row.try_get("payload")?,
    })
}
