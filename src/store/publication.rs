//! Rows of outcome events that were not published at once: published again, delayed, or dropped
//! because of their age.

use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::announcements::{Announcement, LEFT_ALONE, announcement, announcement_columns};
use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query};
use crate::job::JobId;

/// Maximum number of rows that one round takes or drops.
const ROUND: i64 = 200;

const TAKE_DUE: &str = concat!(
    "
    UPDATE announcements SET publish_after = now() + $1 * interval '1 second'
    WHERE id IN (SELECT id FROM announcements WHERE publish_after <= now() ORDER BY publish_after, id LIMIT $2
        FOR UPDATE SKIP LOCKED)
    RETURNING ",
    announcement_columns!()
);

/// Ids grow with time, so the oldest rows have the smallest ids, and the statement reads no more
/// rows than one round drops. A row that may be in flight is skipped.
const DROP_OLD: &str = "
    DELETE FROM announcements WHERE id = ANY(ARRAY(
        SELECT id FROM (SELECT id, created_at, publish_after FROM announcements ORDER BY id LIMIT $2) AS oldest
        WHERE created_at < now() - $1 * interval '1 second'
            AND (publish_after <= now() OR publish_after > now() + $3 * interval '1 second')))
    RETURNING job_id, reply_only, reply_to";

const SETTLE: &str = "
    UPDATE announcements AS a SET tries = settled.tries, reply_tries = settled.reply_tries,
        reply_only = a.reply_only OR settled.event_over,
        reply_to = CASE WHEN settled.reply_over THEN NULL ELSE a.reply_to END,
        publish_after = coalesce(now() + settled.after * interval '1 second', a.publish_after)
    FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::bool[], $5::bool[], $6::float8[])
        AS settled (id, tries, reply_tries, event_over, reply_over, after)
    WHERE a.id = settled.id";

/// What is left to publish of an announcement.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsettled {
    /// Id of its row.
    pub id: i64,
    /// Publishes of the event that were refused or not confirmed, including the last one.
    pub tries: i32,
    /// Publishes of the reply that were refused or not confirmed, including the last one.
    pub reply_tries: i32,
    /// Whether the event is published or given up.
    pub event_over: bool,
    /// Whether the reply is published or given up.
    pub reply_over: bool,
    /// Delay before the rest is published again; `None`: when [`LEFT_ALONE`] has passed.
    pub after: Option<Duration>,
}

/// A row that was dropped because of its age.
#[derive(Debug)]
pub struct TooOld {
    /// The job; `None` for a message that became no job.
    pub job: Option<JobId>,
    /// Whether its event was not published.
    pub event: bool,
    /// The queue of a reply that was not published.
    pub reply_to: Option<String>,
}

impl Store {
    /// Takes up to 200 due announcements, in order; for [`LEFT_ALONE`], only the caller publishes
    /// them. Also returns whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_announcements(&self) -> Result<(Vec<Announcement>, bool), StoreError> {
        let rows = query(
            &self.client().await?,
            TAKE_DUE,
            &[&LEFT_ALONE.as_secs_f64(), &ROUND],
        )
        .await?;
        let mut due: Vec<Announcement> = rows.iter().map(announcement).collect::<Result<_, _>>()?;
        due.sort_by_key(|announcement| announcement.id);
        Ok((due, is_full(&rows)))
    }

    /// Stores what is left to publish of announcements.
    ///
    /// # Errors
    /// [`StoreError`]; the announcements are then published again with their earlier numbers of
    /// tries.
    pub async fn settle_announcements(&self, unsettled: &[Unsettled]) -> Result<(), StoreError> {
        let ids: Vec<i64> = unsettled.iter().map(|one| one.id).collect();
        let tries: Vec<i32> = unsettled.iter().map(|one| one.tries).collect();
        let reply_tries: Vec<i32> = unsettled.iter().map(|one| one.reply_tries).collect();
        let event_over: Vec<bool> = unsettled.iter().map(|one| one.event_over).collect();
        let reply_over: Vec<bool> = unsettled.iter().map(|one| one.reply_over).collect();
        let after: Vec<Option<f64>> = unsettled
            .iter()
            .map(|one| one.after.map(|after| after.as_secs_f64()))
            .collect();
        execute(
            &self.client().await?,
            SETTLE,
            &[&ids, &tries, &reply_tries, &event_over, &reply_over, &after],
        )
        .await?;
        Ok(())
    }

    /// Drops up to 200 announcements older than `age`, whatever prevented their publication. Also
    /// returns whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn drop_old_announcements(
        &self,
        age: Duration,
    ) -> Result<(Vec<TooOld>, bool), StoreError> {
        let rows = query(
            &self.client().await?,
            DROP_OLD,
            &[&age.as_secs_f64(), &ROUND, &LEFT_ALONE.as_secs_f64()],
        )
        .await?;
        Ok((
            rows.iter().map(too_old).collect::<Result<_, _>>()?,
            is_full(&rows),
        ))
    }
}

fn is_full(rows: &[Row]) -> bool {
    i64::try_from(rows.len()).is_ok_and(|rows| rows == ROUND)
}

fn too_old(row: &Row) -> Result<TooOld, StoreError> {
    Ok(TooOld {
        job: row.try_get::<_, Option<Uuid>>("job_id")?.map(JobId),
        event: !row.try_get::<_, bool>("reply_only")?,
        reply_to: row.try_get("reply_to")?,
    })
}
