//! Refuses an erasure while live jobs exist: they would write the erased data again.

use uuid::Uuid;

use super::words::readable;
use super::{Erasure, ErasureError, NAMED};
use crate::job::JobId;
use crate::message::sealed_place;

const OF_ORGANIZATION: &str = "
    SELECT id FROM jobs WHERE organization = $1 AND state NOT IN ('succeeded', 'cancelled') ORDER BY id LIMIT $2";

/// Selects the live jobs that name a person in their payload, checkpoints, pieces or effects.
const NAMING: &str = "
    SELECT id FROM jobs j WHERE state NOT IN ('succeeded', 'cancelled') AND (payload::text ~* $1 OR partial::text ~* $1
        OR EXISTS (SELECT FROM checkpoints c WHERE c.job_id = j.id AND c.output::text ~* $1)
        OR EXISTS (SELECT FROM effects e WHERE e.job_id = j.id AND e.detail::text ~* $1))
    ORDER BY id LIMIT $2";

const SEALED: &str = "
    SELECT id, sealed_payload FROM jobs
    WHERE id > $1 AND sealed_payload IS NOT NULL AND state NOT IN ('succeeded', 'cancelled') ORDER BY id LIMIT 16";

impl Erasure<'_> {
    /// Refuses if the organization has live jobs.
    pub(super) async fn no_live_jobs_of(&self, slug: &str) -> Result<(), ErasureError> {
        let limit = i64::try_from(NAMED).unwrap_or(i64::MAX);
        let rows = self.client.query(OF_ORGANIZATION, &[&slug, &limit]).await?;
        let jobs = rows
            .iter()
            .map(|row| Ok(JobId(row.try_get("id")?).to_string()))
            .collect::<Result<Vec<_>, ErasureError>>()?;
        if jobs.is_empty() {
            Ok(())
        } else {
            Err(ErasureError::Live {
                jobs,
                option: format!(" --organization {slug}"),
            })
        }
    }

    /// Refuses if live jobs name the person.
    pub(super) async fn no_live_jobs_naming(&self) -> Result<(), ErasureError> {
        let limit = i64::try_from(NAMED).unwrap_or(i64::MAX);
        let rows = self.client.query(NAMING, &[&self.pattern, &limit]).await?;
        let mut jobs = rows
            .iter()
            .map(|row| Ok(row.try_get("id")?))
            .collect::<Result<Vec<Uuid>, ErasureError>>()?;
        let mut after = Uuid::nil();
        while jobs.len() < NAMED {
            let rows = self.client.query(SEALED, &[&after]).await?;
            let Some(last) = rows.last() else { break };
            after = last.try_get("id")?;
            for row in &rows {
                let id: Uuid = row.try_get("id")?;
                let opened = self.keyring.open(
                    sealed_place(&JobId(id).to_string()),
                    row.try_get("sealed_payload")?,
                )?;
                if self.words.is_in(&readable(&opened)) {
                    jobs.push(id);
                }
            }
        }
        let jobs: Vec<String> = jobs
            .into_iter()
            .take(NAMED)
            .map(|job| JobId(job).to_string())
            .collect();
        if jobs.is_empty() {
            Ok(())
        } else {
            Err(ErasureError::Live {
                jobs,
                option: " ID`, for each of them, `".to_owned(),
            })
        }
    }
}
