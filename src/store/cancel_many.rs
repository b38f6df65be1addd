//! Cancels the jobs that match a filter, a page at a time. Each job is cancelled as by
//! [`Store::cancel`], in a few statements for the whole page.
//!
//! **Invariant:** a bulk action ends no job that was accepted after the operator agreed to it.
//!
//! A page is a range of ids. An action that is interrupted or repeated therefore skips no job and
//! cancels none twice: a cancelled job no longer matches the filter.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::actions::cancelled;
use super::announcements::announce;
use super::audit::{Action, Actor};
use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::job_row::{JobRow, job_columns, job_row};
use super::rows::children_done;
use super::sql::{execute, query, query_one};
use crate::job::{JobId, JobState};
use crate::message::outcome;

/// Jobs that one statement reads.
const WINDOW: i64 = 5_000;
/// Maximum number of jobs, and of follow-ups, that one transaction cancels. The follow-ups of a
/// single job may be more.
const BATCH: usize = 1_000;
const BATCH_FOLLOW_UPS: i64 = 5_000;
/// Jobs in a preview.
const SAMPLE: usize = 10;
/// Maximum number of times that a transaction is run which Postgres rolls back because of
/// contention.
const TRIES: usize = 3;

/// A filter for jobs that are not done. A job matches if it has every property that is given.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ManyJobs {
    /// In this state. A state that is done matches no job.
    pub state: Option<JobState>,
    /// Of this organization.
    pub organization: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Published by this user of RabbitMQ.
    pub producer: Option<String>,
    /// With this code in the last failure.
    pub error_code: Option<String>,
    /// Accepted at least this many seconds ago.
    pub older_than_seconds: Option<u64>,
}

/// A filter and the moment it was chosen at: jobs accepted later do not match.
#[derive(Debug)]
pub struct ChosenJobs {
    filter: ManyJobs,
    accepted_by: OffsetDateTime,
    /// Id of the newest job at that moment.
    last: Uuid,
}

/// The jobs that a filter matches, for a person to confirm.
#[derive(Debug, Serialize)]
pub struct ChosenPreview {
    /// Number of jobs.
    pub count: CappedCount,
    /// The oldest jobs, at most ten.
    pub sample: Vec<JobRow>,
}

/// Result of cancelling a page.
#[derive(Debug, Default)]
pub struct CancelledPage {
    /// Start of the next page; `None` if the action is done.
    pub next: Option<JobId>,
    /// Matching jobs that were cancelled.
    pub jobs: u64,
    /// Follow-ups that were cancelled with them.
    pub follow_ups: u64,
}

/// A page whose jobs are not locked yet.
struct Looked {
    last: Option<Uuid>,
    jobs: Vec<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    id: Uuid,
    parent: Option<Uuid>,
    follow_ups: i64,
}

const NOW: &str = "
    SELECT now() - $1::bigint * interval '1 second' AS accepted_by, (SELECT id FROM jobs ORDER BY id DESC LIMIT 1) AS last";

/// The condition of the filter, over the columns of `jobs` and the parameters from `$1` on.
macro_rules! chosen {
    () => {
        "state || '' NOT IN ('succeeded', 'cancelled') AND created_at <= $1 AND ($2::text IS NULL OR state || '' = $2)
            AND ($3::text IS NULL OR organization = $3) AND ($4::text IS NULL OR source = $4)
            AND ($5::text IS NULL OR producer = $5) AND ($6::text IS NULL OR error_code = $6)"
    };
}

/// Selects the matching jobs of a range of ids, and the end of the range.
macro_rules! page {
    ($range:literal, $order:literal) => {
        concat!(
            "WITH looked AS MATERIALIZED (
                SELECT id, parent_id, open_children, state, created_at, organization, source, producer, error_code
                FROM jobs WHERE ",
            $range,
            " ORDER BY ",
            $order,
            " LIMIT $9
            )
            SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last, coalesce(array_agg(id ORDER BY id), '{}') AS ids,
                coalesce(array_agg(parent_id ORDER BY id), '{}') AS parents,
                coalesce(array_agg(open_children::bigint ORDER BY id), '{}') AS follow_ups
            FROM looked WHERE ",
            chosen!()
        )
    };
}

pub(super) const PAGE: &str = page!("id > $7 AND id <= $8", "id");
/// Waiting and parked jobs have an index of their own.
pub(super) const PAGE_HALTED: &str = page!(
    "state IN ('waiting', 'parked') AND (state, id) > ($2, $7) AND (state, id) <= ($2, $8)",
    "state, id"
);

const SHOWN: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs j WHERE j.id = ANY ($1) ORDER BY j.id"
);

const LOCK: &str = "SELECT id FROM jobs WHERE id = ANY ($1) ORDER BY id FOR UPDATE";
/// The parents are locked already, so none of them gets another follow-up.
const LOCK_FOLLOW_UPS: &str = "
    SELECT id FROM jobs WHERE id = ANY ($2 || ARRAY(
        SELECT id FROM jobs WHERE parent_id = ANY ($1) AND state NOT IN ('succeeded', 'cancelled')))
    ORDER BY id FOR UPDATE";

/// Cancels the jobs that still match after they were locked.
const CANCEL: &str = concat!(
    "WITH before AS MATERIALIZED (
        SELECT id, parent_id, state, wait_reason FROM jobs WHERE id = ANY ($7) AND ",
    chosen!(),
    "), ended AS (
        UPDATE jobs SET ",
    cancelled!(),
    ", open_children = 0 FROM before WHERE jobs.id = before.id
    )
    SELECT id, parent_id, state, wait_reason FROM before"
);

const CANCEL_FOLLOW_UPS: &str = concat!(
    "WITH ended AS (
        UPDATE jobs SET ",
    cancelled!(),
    " WHERE parent_id = ANY ($1) AND state NOT IN ('succeeded', 'cancelled')
        RETURNING parent_id
    )
    SELECT parent_id, count(*) AS follow_ups FROM ended GROUP BY parent_id"
);

/// Does not match a parent that this transaction has cancelled: it has no open follow-ups.
const FOLLOW_UPS_DONE: &str = concat!(
    "UPDATE jobs SET ",
    children_done!("given.done"),
    " FROM unnest($1::uuid[], $2::integer[]) AS given (parent, done)
    WHERE jobs.id = given.parent AND open_children > 0
    RETURNING jobs.id, state = 'succeeded' AND open_children = 0 AS done"
);

/// Writes one row per job, like [`Store::cancel`], so that a search by job id finds it.
const AUDIT: &str = "
    INSERT INTO audit_log (who, role, action, job_id, before, after, reason)
    SELECT $1, $2, $8, given.id, json_build_object('state', given.state, 'wait_reason', given.wait_reason),
        json_build_object('state', 'cancelled', 'follow_ups_cancelled', given.follow_ups), $3
    FROM unnest($4::uuid[], $5::text[], $6::text[], $7::bigint[]) AS given (id, state, wait_reason, follow_ups)";

impl ChosenJobs {
    /// Returns the filter.
    #[must_use]
    pub const fn filter(&self) -> &ManyJobs {
        &self.filter
    }

    fn parameters<'a>(&'a self, state: &'a Option<&'static str>) -> Vec<&'a (dyn ToSql + Sync)> {
        let ManyJobs {
            organization,
            source,
            producer,
            error_code,
            ..
        } = &self.filter;
        vec![
            &self.accepted_by,
            state,
            organization,
            source,
            producer,
            error_code,
        ]
    }

    fn state(&self) -> Option<&'static str> {
        self.filter.state.map(JobState::word)
    }
}

impl Store {
    /// Fixes the moment that the filter applies to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn choose_jobs(&self, filter: ManyJobs) -> Result<ChosenJobs, StoreError> {
        let age = filter
            .older_than_seconds
            .map_or(0, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let row = query_one(&self.client().await?, NOW, &[&age]).await?;
        let last = row
            .try_get::<_, Option<Uuid>>("last")?
            .unwrap_or_else(Uuid::nil);
        Ok(ChosenJobs {
            filter,
            accepted_by: row.try_get("accepted_by")?,
            last,
        })
    }

    /// Counts the matching jobs and returns some of them. Reads pages until it has counted
    /// [`CappedCount::LIMIT`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn preview_jobs(&self, chosen: &ChosenJobs) -> Result<ChosenPreview, StoreError> {
        let (mut after, mut count, mut first) = (Uuid::nil(), 0, Vec::new());
        while count < CappedCount::ROWS {
            let looked = self.look(chosen, after).await?;
            count += i64::try_from(looked.jobs.len()).unwrap_or(i64::MAX);
            first.extend(
                looked
                    .jobs
                    .iter()
                    .map(|job| job.id)
                    .take(SAMPLE - first.len()),
            );
            let Some(last) = looked.last else { break };
            after = last;
        }
        let rows = query(&self.client().await?, SHOWN, &[&first]).await?;
        Ok(ChosenPreview {
            count: CappedCount::of(count),
            sample: rows.iter().map(job_row).collect::<Result<_, _>>()?,
        })
    }

    /// Cancels the matching jobs of the next page after `after`, in several transactions, with
    /// their open follow-ups and one event and one audit row each. Jobs cancelled before an error
    /// stay cancelled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel_page(
        &self,
        chosen: &ChosenJobs,
        after: Option<JobId>,
        actor: &Actor,
    ) -> Result<CancelledPage, StoreError> {
        let looked = self
            .look(chosen, after.map_or_else(Uuid::nil, |job| job.0))
            .await?;
        let mut page = CancelledPage {
            next: looked.last.map(JobId),
            ..CancelledPage::default()
        };
        let mut rest = looked.jobs.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_of(rest));
            let (jobs, follow_ups) = self.cancel_batch(chosen, batch, actor).await?;
            (page.jobs, page.follow_ups) = (page.jobs + jobs, page.follow_ups + follow_ups);
            rest = later;
        }
        Ok(page)
    }

    async fn look(&self, chosen: &ChosenJobs, after: Uuid) -> Result<Looked, StoreError> {
        let halted = matches!(
            chosen.filter.state,
            Some(JobState::Waiting | JobState::Parked)
        );
        let (sql, state) = (if halted { PAGE_HALTED } else { PAGE }, chosen.state());
        let mut parameters = chosen.parameters(&state);
        parameters.extend([&after as &(dyn ToSql + Sync), &chosen.last, &WINDOW]);
        let row = query_one(&self.client().await?, sql, &parameters).await?;
        let (ids, parents): (Vec<Uuid>, Vec<Option<Uuid>>) =
            (row.try_get("ids")?, row.try_get("parents")?);
        let follow_ups: Vec<i64> = row.try_get("follow_ups")?;
        let jobs = ids.into_iter().zip(parents).zip(follow_ups);
        let jobs = jobs
            .map(|((id, parent), follow_ups)| Candidate {
                id,
                parent,
                follow_ups,
            })
            .collect();
        Ok(Looked {
            last: row.try_get("last")?,
            jobs,
        })
    }

    async fn cancel_batch(
        &self,
        chosen: &ChosenJobs,
        batch: &[Candidate],
        actor: &Actor,
    ) -> Result<(u64, u64), StoreError> {
        let mut tries = 1;
        loop {
            let mut client = self.client().await?;
            let tx = client.transaction().await?;
            match cancel_all(&tx, chosen, batch, actor).await {
                Ok(done) => {
                    tx.commit().await?;
                    return Ok(done);
                }
                Err(error) if error.is_rolled_back() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns how many of these jobs go into one transaction: at least one.
fn batch_of(jobs: &[Candidate]) -> usize {
    let mut follow_ups = 0;
    let few = jobs.iter().take(BATCH).take_while(|job| {
        follow_ups += job.follow_ups;
        follow_ups <= BATCH_FOLLOW_UPS
    });
    few.count().max(1)
}

/// Locks parents before their follow-ups, each in the order of ids, like all other code.
async fn cancel_all(
    tx: &Transaction<'_>,
    chosen: &ChosenJobs,
    batch: &[Candidate],
    actor: &Actor,
) -> Result<(u64, u64), StoreError> {
    let roots: Vec<Uuid> = batch
        .iter()
        .filter(|job| job.parent.is_none())
        .map(|job| job.id)
        .collect();
    let below: Vec<Uuid> = batch
        .iter()
        .filter(|job| job.parent.is_some())
        .map(|job| job.id)
        .collect();
    let first: Vec<Uuid> = roots
        .iter()
        .copied()
        .chain(batch.iter().filter_map(|job| job.parent))
        .collect();
    execute(tx, LOCK, &[&first]).await?;
    execute(tx, LOCK_FOLLOW_UPS, &[&roots, &below]).await?;

    let (ids, state) = (
        batch.iter().map(|job| job.id).collect::<Vec<_>>(),
        chosen.state(),
    );
    let mut parameters = chosen.parameters(&state);
    parameters.push(&ids);
    let (mut ended, mut states, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_parents: BTreeMap<Uuid, i32> = BTreeMap::new();
    for row in query(tx, CANCEL, &parameters).await? {
        ended.push(row.try_get::<_, Uuid>("id")?);
        states.push(row.try_get::<_, String>("state")?);
        reasons.push(row.try_get::<_, Option<String>>("wait_reason")?);
        if let Some(parent) = row.try_get::<_, Option<Uuid>>("parent_id")? {
            *of_parents.entry(parent).or_default() += 1;
        }
    }
    if ended.is_empty() {
        return Ok((0, 0));
    }
    let mut with: BTreeMap<Uuid, i64> = BTreeMap::new();
    for row in query(tx, CANCEL_FOLLOW_UPS, &[&ended]).await? {
        with.insert(row.try_get("parent_id")?, row.try_get("follow_ups")?);
    }
    let jobs: Vec<JobId> = ended.iter().copied().map(JobId).collect();
    announce(tx, &jobs, outcome::CANCELLED, 0.0).await?;
    finish_parents(tx, &of_parents).await?;
    let follow_ups: Vec<i64> = ended
        .iter()
        .map(|job| with.get(job).copied().unwrap_or(0))
        .collect();
    execute(
        tx,
        AUDIT,
        &[
            &actor.who,
            &actor.role.word(),
            &actor.reason,
            &ended,
            &states,
            &reasons,
            &follow_ups,
            &Action::Cancel.word(),
        ],
    )
    .await?;
    let total = with.values().sum::<i64>();
    Ok((ended.len() as u64, u64::try_from(total).unwrap_or(0)))
}

/// Counts follow-ups as done; a parent that waited for nothing else has succeeded.
async fn finish_parents(
    tx: &Transaction<'_>,
    of_parents: &BTreeMap<Uuid, i32>,
) -> Result<(), StoreError> {
    if of_parents.is_empty() {
        return Ok(());
    }
    let (parents, done): (Vec<Uuid>, Vec<i32>) = of_parents
        .iter()
        .map(|(parent, done)| (*parent, *done))
        .unzip();
    let mut succeeded = Vec::new();
    for row in query(tx, FOLLOW_UPS_DONE, &[&parents, &done]).await? {
        if row.try_get("done")? {
            succeeded.push(JobId(row.try_get("id")?));
        }
    }
    announce(tx, &succeeded, outcome::SUCCEEDED, 0.0).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_a_bounded_number_of_jobs_and_follow_ups() {
        let job = |follow_ups| Candidate {
            id: Uuid::nil(),
            parent: None,
            follow_ups,
        };
        assert_eq!(batch_of(&[job(0); 3]), 3);
        assert_eq!(batch_of(&[job(0); 5_000]), BATCH);
        assert_eq!(batch_of(&[job(2_000); 10]), 2);
        assert_eq!(batch_of(&[job(10_000), job(0)]), 1, "one is always taken");
    }
}
