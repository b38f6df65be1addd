//! What a kill switch would stop, counted over bounded windows: the open jobs, and the intake of
//! the last hour. The matcher is the one that workers apply, so that the preview agrees with them.

use schemars::JsonSchema;
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::job_row::state_of;
use super::matcher::{Matcher, Subject};
use super::sql::query;
use crate::job::{JobId, JobState};

/// Maximum number of jobs that are looked at in each part: the ready jobs without and with a
/// wake-up, the running and the waiting ones; the jobs of the last hour.
const WINDOW: i64 = 5_000;
/// Jobs whose details are read at once.
const PAGE: usize = 5_000;
/// The same with payloads, each of which has up to a mebibyte.
const PAGE_OF_PAYLOADS: usize = 50;
/// Number of jobs shown as examples.
const SAMPLE: usize = 10;

/// The jobs that a kill switch would stop now.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct KillPreview {
    /// Open jobs that match: they would be stopped before their next stage.
    pub open: CappedCount,
    /// Whether every open job was looked at.
    pub open_is_complete: bool,
    /// Jobs of the last hour's intake that match, whatever became of them.
    pub intake_of_last_hour: CappedCount,
    /// Whether every job of the last hour was looked at.
    pub intake_is_complete: bool,
    /// Some of the open jobs.
    pub sample: Vec<KilledJob>,
}

/// A job that a kill switch would stop.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct KilledJob {
    /// Its id.
    pub id: JobId,
    /// Its organization.
    pub organization: String,
    /// Its source.
    pub source: String,
    /// Its state.
    pub state: JobState,
}

/// Each part has an index in its order, and at most `$1` rows.
pub(super) const OPEN: &str = "
    (SELECT id, 1 AS part FROM jobs WHERE state = 'ready' AND woken_at IS NULL ORDER BY pipeline, organization, due_at, id LIMIT $1)
    UNION ALL
    (SELECT id, 2 FROM jobs WHERE state = 'ready' AND woken_at IS NOT NULL ORDER BY pipeline, woken_at LIMIT $1)
    UNION ALL
    (SELECT id, 3 FROM jobs WHERE state = 'running' ORDER BY owner LIMIT $1)
    UNION ALL
    (SELECT id, 4 FROM jobs WHERE state IN ('waiting', 'parked') AND state = 'waiting' ORDER BY state DESC, id DESC LIMIT $1)";

/// An id begins with the time when its job was accepted.
pub(super) const RECENT: &str = "SELECT id FROM jobs WHERE id >= $1 ORDER BY id DESC LIMIT $2";

/// Reads the jobs for which the simple conditions of a matcher hold, with their payloads if they are
/// needed (`$2`).
pub(super) const DETAILS: &str = "
    SELECT id, pipeline, organization, source, account, state, parent_id, CASE WHEN $2 THEN payload::text END AS payload
    FROM jobs WHERE id = ANY (ARRAY(SELECT unnest($1::uuid[]))) AND organization = coalesce($3, organization)
        AND source = coalesce($4, source) AND pipeline = coalesce($5, pipeline)";

const HOUR_AGO: &str =
    "SELECT (extract(epoch FROM now() - interval '1 hour') * 1000)::bigint AS ms";

impl Store {
    /// Counts the jobs that a kill switch with this matcher would stop. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn preview_kill_switch(&self, matcher: &Matcher) -> Result<KillPreview, StoreError> {
        let client = self.client().await?;
        let rows = query(&client, OPEN, &[&WINDOW]).await?;
        let mut parts = [0_i64; 4];
        let mut open_ids: Vec<Uuid> = Vec::with_capacity(rows.len());
        for row in &rows {
            let part: i32 = row.try_get("part")?;
            if let Some(count) = usize::try_from(part - 1)
                .ok()
                .and_then(|at| parts.get_mut(at))
            {
                *count += 1;
            }
            open_ids.push(row.try_get("id")?);
        }
        let hour_ago: i64 = super::sql::query_one(&client, HOUR_AGO, &[])
            .await?
            .try_get("ms")?;
        let from = first_id(hour_ago);
        let recent = query(&client, RECENT, &[&from, &WINDOW]).await?;
        let recent_ids = recent
            .iter()
            .map(|row| Ok(row.try_get("id")?))
            .collect::<Result<Vec<Uuid>, StoreError>>()?;
        let (open, sample) = matching(&client, matcher, &open_ids, |job| {
            !job.state.is_done() && job.state != JobState::Parked
        })
        .await?;
        let (intake, _) = matching(&client, matcher, &recent_ids, |job| !job.is_follow_up).await?;
        let open_is_complete = parts.iter().all(|count| *count < WINDOW);
        let intake_is_complete = i64::try_from(recent_ids.len()).is_ok_and(|jobs| jobs < WINDOW);
        Ok(KillPreview {
            open: CappedCount::among(open, open_is_complete),
            open_is_complete,
            intake_of_last_hour: CappedCount::among(intake, intake_is_complete),
            intake_is_complete,
            sample,
        })
    }
}

/// A job of a window.
struct Looked {
    state: JobState,
    is_follow_up: bool,
}

/// Counts the jobs that match and are `wanted`, and returns the first ones.
async fn matching(
    client: &deadpool_postgres::Client,
    matcher: &Matcher,
    ids: &[Uuid],
    wanted: impl Fn(&Looked) -> bool,
) -> Result<(i64, Vec<KilledJob>), StoreError> {
    let (mut number, mut sample) = (0_i64, Vec::new());
    let page = if matcher.reads_payload() {
        PAGE_OF_PAYLOADS
    } else {
        PAGE
    };
    for page in ids.chunks(page) {
        let rows = query(
            client,
            DETAILS,
            &[
                &page,
                &matcher.reads_payload(),
                &matcher.organization,
                &matcher.source,
                &matcher.pipeline,
            ],
        )
        .await?;
        for row in &rows {
            let looked = Looked {
                state: state_of(row)?,
                is_follow_up: row.try_get::<_, Option<Uuid>>("parent_id")?.is_some(),
            };
            if !wanted(&looked) || !is_matched(matcher, row)? {
                continue;
            }
            number += 1;
            if sample.len() < SAMPLE {
                sample.push(KilledJob {
                    id: JobId(row.try_get("id")?),
                    organization: row.try_get("organization")?,
                    source: row.try_get("source")?,
                    state: looked.state,
                });
            }
        }
    }
    Ok((number, sample))
}

fn is_matched(matcher: &Matcher, row: &Row) -> Result<bool, StoreError> {
    let payload: Option<&str> = row.try_get("payload")?;
    let job = Subject {
        account: row.try_get("account")?,
        ..Subject::with(
            row.try_get("pipeline")?,
            row.try_get("organization")?,
            row.try_get("source")?,
            payload.unwrap_or("null"),
        )
    };
    Ok(matcher.matches(&job))
}

/// Returns the smallest id of a job that was accepted at this time, in milliseconds.
fn first_id(milliseconds: i64) -> Uuid {
    Uuid::from_u128(u128::try_from(milliseconds).unwrap_or_default() << 80)
}
