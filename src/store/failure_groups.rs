//! Failure groups for people: which causes there are, since when, whom they hit, and what people
//! have noted about them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::job_filter::CodeFilter;
use super::sql::query;
use crate::job::{UnknownWord, words};

/// Maximum number of attempts of an hour that are read for the trends.
const ATTEMPTS: i64 = 200_000;
/// Organizations that are named with a group.
const NAMED: i32 = 5;

words! {
    /// What a failure group needs.
    GroupStatus {
        /// First seen within the last hour.
        New = "new",
        /// Seen for longer.
        Ongoing = "ongoing",
        /// Seen again after a person had resolved it.
        Regressed = "regressed",
        /// A person has muted it for a time.
        Muted = "muted",
        /// A person has resolved it, and it was not seen since.
        Resolved = "resolved",
    }
}

/// Failures with the same cause.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FailureGroup {
    pub fingerprint: String,
    pub status: GroupStatus,
    pub pipeline: String,
    pub stage: String,
    pub error_code: String,
    /// The message of one of its failures.
    pub sample: String,
    /// Parked jobs.
    pub parked: CappedCount,
    /// Jobs that have failed and are not done: due later, waiting or running.
    pub retrying: CappedCount,
    /// Organizations of these jobs.
    pub organizations: CappedCount,
    /// The organizations with the most of these jobs.
    pub most_hit: Vec<String>,
    pub trend: Trend,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub first_seen_at: OffsetDateTime,
    /// The version of the worker that had the first failure, if known.
    pub first_version: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub last_seen_at: OffsetDateTime,
    /// When a person last resolved it.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub resolved_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub muted_until: Option<OffsetDateTime>,
    /// The person or team that deals with it.
    pub owner: Option<String>,
    /// What people have noted.
    pub note: Option<String>,
}

/// Failed attempts of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Trend {
    /// In the last hour.
    pub last_hour: i64,
    /// In the hour before.
    pub hour_before: i64,
    /// Whether every attempt was counted. If not, there were more attempts of all groups than are
    /// read, and each number is a lower limit.
    pub is_complete: bool,
}

/// Which groups to list.
#[derive(Debug, Clone, Default)]
pub struct GroupFilter {
    pub status: Option<GroupStatus>,
    pub pipeline: Option<String>,
    pub stage: Option<String>,
    pub error_code: Option<CodeFilter>,
}

/// Where a page of groups begins, and its size.
#[derive(Debug, Clone)]
pub struct GroupPage {
    /// The last group of the page before.
    pub after: Option<GroupCursor>,
    /// At most this many.
    pub limit: i64,
}

/// The position of a group in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupCursor {
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub last_seen_at: OffsetDateTime,
    pub fingerprint: String,
}

/// A page of failure groups.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListedGroups {
    /// The last seen first.
    pub groups: Vec<FailureGroup>,
    /// Where the next page begins, if there may be one.
    pub next: Option<GroupCursor>,
}

/// The columns of a group and its status, see [`GroupStatus`].
macro_rules! groups {
    ($where:literal) => {
        concat!(
            "SELECT g.fingerprint, g.status, g.pipeline, g.stage, g.error_code, g.sample, g.first_seen_at, g.first_version,
                g.last_seen_at, g.resolved_at, g.muted_until, g.owner, g.note
            FROM (
                SELECT fingerprint, pipeline, stage, error_code, sample, first_seen_at, first_version, last_seen_at, resolved_at,
                    muted_until, owner, note, CASE WHEN muted_until > now() THEN 'muted' WHEN last_seen_at > resolved_at THEN 'regressed'
                        WHEN resolved_at IS NOT NULL THEN 'resolved' WHEN first_seen_at > now() - interval '1 hour' THEN 'new'
                        ELSE 'ongoing' END AS status
                FROM failure_groups) g
            WHERE ",
            $where
        )
    };
}

pub(super) const LIST: &str = groups!(
    r#"(g.last_seen_at, g.fingerprint) < (coalesce($1::timestamptz, 'infinity'), $2::text)
        AND ($3::text IS NULL OR g.status = $3) AND ($4::text IS NULL OR g.pipeline = $4)
        AND ($5::text IS NULL OR g.stage = $5) AND ($6::text IS NULL OR g.error_code COLLATE "C" BETWEEN $6 AND $7::text)
    ORDER BY g.last_seen_at DESC, g.fingerprint DESC LIMIT $8"#
);
pub(super) const SHOW: &str = groups!("g.fingerprint = $1");

/// Counts the open jobs of each group, up to `$2` parked ones and as many others.
pub(super) const HIT: &str = "
    SELECT g.fingerprint, hit.parked, hit.retrying, hit.organizations, hit.most
    FROM unnest($1::text[]) AS g (fingerprint) CROSS JOIN LATERAL (
        SELECT coalesce(sum(parked), 0)::bigint AS parked, coalesce(sum(retrying), 0)::bigint AS retrying,
            count(*) AS organizations,
            coalesce((array_agg(organization ORDER BY parked + retrying DESC, organization))[1:$3], '{}') AS most
        FROM (
            SELECT organization, count(*) FILTER (WHERE is_parked) AS parked, count(*) FILTER (WHERE NOT is_parked) AS retrying
            FROM (
                (SELECT organization, true AS is_parked FROM jobs WHERE state = 'parked' AND fingerprint = g.fingerprint
                ORDER BY fingerprint, id LIMIT $2)
                UNION ALL
                (SELECT organization, false FROM jobs
                WHERE fingerprint IS NOT NULL AND state IN ('ready', 'running', 'waiting') AND fingerprint = g.fingerprint
                ORDER BY fingerprint, id LIMIT $2)) jobs
            GROUP BY organization) organizations) hit";

/// Counts the attempts of each group in two hours; `$2` limits the attempts of all groups that are
/// read for each hour.
pub(super) const TREND: &str = "
    WITH last_hour AS MATERIALIZED (
        SELECT fingerprint FROM attempts WHERE at > now() - interval '1 hour' AND fingerprint IS NOT NULL LIMIT $2
    ), hour_before AS MATERIALIZED (
        SELECT fingerprint FROM attempts
        WHERE at > now() - interval '2 hours' AND at <= now() - interval '1 hour' AND fingerprint IS NOT NULL LIMIT $2
    )
    SELECT fingerprint, sum(last)::bigint AS last_hour, sum(before)::bigint AS hour_before,
        greatest((SELECT count(*) FROM last_hour), (SELECT count(*) FROM hour_before)) < $2 AS is_complete
    FROM (
        SELECT fingerprint, 1 AS last, 0 AS before FROM last_hour UNION ALL SELECT fingerprint, 0, 1 FROM hour_before) attempts
    WHERE fingerprint = ANY ($1) GROUP BY fingerprint";

impl Store {
    /// Returns failure groups, the last seen first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn failure_groups(
        &self,
        filter: &GroupFilter,
        page: &GroupPage,
    ) -> Result<ListedGroups, StoreError> {
        let (first_code, last_code) = filter.error_code.as_ref().map(CodeFilter::range).unzip();
        let after = page.after.as_ref();
        let fingerprint = after.map_or("", |at| at.fingerprint.as_str());
        let client = self.client().await?;
        let rows = query(
            &client,
            LIST,
            &[
                &after.map(|at| at.last_seen_at),
                &fingerprint,
                &filter.status.map(GroupStatus::word),
                &filter.pipeline,
                &filter.stage,
                &first_code,
                &last_code,
                &page.limit,
            ],
        )
        .await?;
        let groups = with_numbers(&client, &rows).await?;
        let is_full = i64::try_from(groups.len()) == Ok(page.limit);
        let last = groups.last().filter(|_| is_full);
        let next = last.map(|group| GroupCursor {
            last_seen_at: group.last_seen_at,
            fingerprint: group.fingerprint.clone(),
        });
        Ok(ListedGroups { groups, next })
    }

    /// Returns one failure group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn failure_group(
        &self,
        fingerprint: &str,
    ) -> Result<Option<FailureGroup>, StoreError> {
        let client = self.client().await?;
        let rows = query(&client, SHOW, &[&fingerprint]).await?;
        Ok(with_numbers(&client, &rows).await?.pop())
    }
}

/// Returns the groups of these rows with the numbers of their jobs and attempts.
async fn with_numbers(
    client: &deadpool_postgres::Client,
    rows: &[Row],
) -> Result<Vec<FailureGroup>, StoreError> {
    let mut groups = rows.iter().map(group).collect::<Result<Vec<_>, _>>()?;
    let fingerprints: Vec<String> = groups
        .iter()
        .map(|group| group.fingerprint.clone())
        .collect();
    if fingerprints.is_empty() {
        return Ok(groups);
    }
    let hit = query(client, HIT, &[&fingerprints, &CappedCount::ROWS, &NAMED]).await?;
    let trends = query(client, TREND, &[&fingerprints, &ATTEMPTS]).await?;
    for group in &mut groups {
        let of_group = |row: &&Row| {
            row.try_get::<_, &str>("fingerprint")
                .is_ok_and(|of| of == group.fingerprint)
        };
        if let Some(row) = hit.iter().find(of_group) {
            group.parked = CappedCount::of(row.try_get("parked")?);
            group.retrying = CappedCount::of(row.try_get("retrying")?);
            group.organizations = CappedCount::of(row.try_get("organizations")?);
            group.most_hit = row.try_get("most")?;
        }
        if let Some(row) = trends.iter().find(of_group) {
            group.trend = Trend {
                last_hour: row.try_get("last_hour")?,
                hour_before: row.try_get("hour_before")?,
                is_complete: row.try_get("is_complete")?,
            };
        }
    }
    Ok(groups)
}

fn group(row: &Row) -> Result<FailureGroup, StoreError> {
    let status: &str = row.try_get("status")?;
    let status = status
        .parse()
        .map_err(|error: UnknownWord| StoreError::Row(error.to_string()))?;
    Ok(FailureGroup {
        fingerprint: row.try_get("fingerprint")?,
        status,
        pipeline: row.try_get("pipeline")?,
        stage: row.try_get("stage")?,
        error_code: row.try_get("error_code")?,
        sample: row.try_get("sample")?,
        parked: CappedCount::default(),
        retrying: CappedCount::default(),
        organizations: CappedCount::default(),
        most_hit: Vec::new(),
        trend: Trend {
            is_complete: true,
            ..Trend::default()
        },
        first_seen_at: row.try_get("first_seen_at")?,
        first_version: row.try_get("first_version")?,
        last_seen_at: row.try_get("last_seen_at")?,
        resolved_at: row.try_get("resolved_at")?,
        muted_until: row.try_get("muted_until")?,
        owner: row.try_get("owner")?,
        note: row.try_get("note")?,
    })
}
