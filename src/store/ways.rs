//! The access paths of lists of jobs: one statement for each, which returns the newest ids below
//! `$1` down to `$2`, at most `$3` of them.
//!
//! Range and order of a statement use the columns of its index. With an equality instead, a planner
//! that assumes an even distribution would rather walk over all ids until it has found enough.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::StoreError;
use super::job_filter::JobFilter;
use super::sql::query;
use crate::job::JobState;

/// The most ids of an access path that is read at once.
pub(super) const AT_ONCE: i64 = 10_000;

pub(super) const NEWEST: &str =
    "SELECT id FROM jobs WHERE id < $1 AND id >= $2 ORDER BY id DESC LIMIT $3";

pub(super) const WAITING: &str = "
    SELECT id FROM jobs
    WHERE state IN ('waiting', 'parked') AND (state, id) < ('waiting', $1) AND (state, id) >= ('waiting', $2)
    ORDER BY state DESC, id DESC LIMIT $3";

pub(super) const PARKED: &str = "
    SELECT id FROM jobs
    WHERE state IN ('waiting', 'parked') AND (state, id) < ('parked', $1) AND (state, id) >= ('parked', $2)
    ORDER BY state DESC, id DESC LIMIT $3";

/// There are no more running jobs than permits; the order by owner is that of their index.
pub(super) const RUNNING: &str = "
    SELECT id FROM unnest(ARRAY(SELECT id FROM jobs WHERE state = 'running' ORDER BY owner LIMIT 10000)) AS running (id)
    WHERE id < $1 AND id >= $2 ORDER BY id DESC LIMIT $3";

pub(super) const OF_REPLICA: &str = "
    SELECT id FROM unnest(ARRAY(SELECT id FROM jobs WHERE state = 'running' AND owner = $4 ORDER BY owner LIMIT 10000))
        AS running (id)
    WHERE id < $1 AND id >= $2 ORDER BY id DESC LIMIT $3";

pub(super) const FOLLOW_UPS: &str = "
    SELECT id FROM jobs WHERE parent_id IS NOT NULL AND (parent_id, id) < ($4, $1) AND (parent_id, id) >= ($4, $2)
    ORDER BY parent_id DESC, id DESC LIMIT $3";

pub(super) const PARKED_OF_GROUP: &str = "
    SELECT id FROM jobs WHERE state = 'parked' AND (fingerprint, id) < ($4, $1) AND (fingerprint, id) >= ($4, $2)
    ORDER BY fingerprint DESC, id DESC LIMIT $3";

pub(super) const OF_GROUP: &str = "
    SELECT id FROM (
        (SELECT id FROM jobs WHERE state = 'parked' AND (fingerprint, id) < ($4, $1) AND (fingerprint, id) >= ($4, $2)
        ORDER BY fingerprint DESC, id DESC LIMIT $3)
        UNION ALL
        (SELECT id FROM jobs WHERE fingerprint IS NOT NULL AND state IN ('ready', 'running', 'waiting')
            AND (fingerprint, id) < ($4, $1) AND (fingerprint, id) >= ($4, $2)
        ORDER BY fingerprint DESC, id DESC LIMIT $3)) of_group
    ORDER BY id DESC LIMIT $3";

/// Walks from code to code along `jobs_failing`, from `$4` to `$5`; takes the newest jobs of each.
pub(super) const OF_CODE: &str = r#"
    WITH RECURSIVE codes AS (
        (SELECT error_code COLLATE "C" AS code, 1 AS number FROM jobs
        WHERE error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled') AND error_code COLLATE "C" >= $4
        ORDER BY error_code COLLATE "C" LIMIT 1)
        UNION ALL
        SELECT next.code, codes.number + 1 FROM codes CROSS JOIN LATERAL (
            SELECT error_code COLLATE "C" AS code FROM jobs
            WHERE error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled') AND error_code COLLATE "C" > codes.code
            ORDER BY error_code COLLATE "C" LIMIT 1) next
        WHERE codes.number < 100 AND codes.code < $5
    )
    SELECT failing.id FROM codes CROSS JOIN LATERAL (
        SELECT id FROM jobs WHERE error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled')
            AND (error_code COLLATE "C", id) < (codes.code, $1) AND (error_code COLLATE "C", id) >= (codes.code, $2)
        ORDER BY error_code COLLATE "C" DESC, id DESC LIMIT $3) failing
    WHERE codes.code <= $5
    ORDER BY failing.id DESC LIMIT $3"#;

/// Walks from version to version of the cause along `jobs_waiting_for`; takes the newest jobs of
/// each.
pub(super) const OF_CAUSE: &str = "
    WITH RECURSIVE versions AS (
        (SELECT wait_observed AS observed, 1 AS number FROM jobs
        WHERE state = 'waiting' AND wait_reason <> 'children' AND wait_key = $4 ORDER BY wait_key, wait_observed LIMIT 1)
        UNION ALL
        SELECT next.observed, versions.number + 1 FROM versions CROSS JOIN LATERAL (
            SELECT wait_observed AS observed FROM jobs
            WHERE state = 'waiting' AND wait_reason <> 'children' AND wait_key = $4 AND wait_observed > versions.observed
            ORDER BY wait_key, wait_observed LIMIT 1) next
        WHERE versions.number < 100
    )
    SELECT waiting.id FROM versions CROSS JOIN LATERAL (
        SELECT id FROM jobs WHERE state = 'waiting' AND wait_reason <> 'children'
            AND (wait_key, wait_observed, id) < ($4, versions.observed, $1)
            AND (wait_key, wait_observed, id) >= ($4, versions.observed, $2)
        ORDER BY wait_key DESC, wait_observed DESC, id DESC LIMIT $3) waiting
    ORDER BY waiting.id DESC LIMIT $3";

/// Walks from source to source along the primary key.
pub(super) const OF_KEY: &str = "
    WITH RECURSIVE sources AS (
        (SELECT source, 1 AS number FROM job_keys ORDER BY source LIMIT 1)
        UNION ALL
        SELECT next.source, sources.number + 1 FROM sources CROSS JOIN LATERAL (
            SELECT source FROM job_keys WHERE source > sources.source ORDER BY source LIMIT 1) next
        WHERE sources.number < 1000
    )
    SELECT keyed.job_id AS id FROM sources CROSS JOIN LATERAL (
        SELECT job_id FROM job_keys WHERE source = sources.source AND dedupe_key = $4 ORDER BY source, dedupe_key LIMIT 1) keyed
    WHERE keyed.job_id < $1 AND keyed.job_id >= $2
    ORDER BY keyed.job_id DESC LIMIT $3";

/// Selects a column of the open jobs of the organization `$2` in no order, at most `$1`: walks from
/// producer to producer along `jobs_unfinished`.
macro_rules! open_of_organization {
    ($column:literal) => {
        concat!(
            "WITH RECURSIVE producers AS (
        (SELECT producer, 1 AS number FROM jobs WHERE finished_at IS NULL AND producer > '' ORDER BY producer LIMIT 1)
        UNION ALL
        SELECT next.producer, producers.number + 1 FROM producers CROSS JOIN LATERAL (
            SELECT producer FROM jobs WHERE finished_at IS NULL AND producer > producers.producer ORDER BY producer LIMIT 1) next
        WHERE producers.number < 10000
    )
    SELECT ",
            $column,
            " FROM (
        SELECT open.",
            $column,
            " FROM producers CROSS JOIN LATERAL (
            SELECT ",
            $column,
            " FROM jobs WHERE finished_at IS NULL AND producer = producers.producer AND organization = $2
            ORDER BY producer, organization LIMIT $1) open
        UNION ALL
        (SELECT ",
            $column,
            " FROM jobs WHERE finished_at IS NULL AND producer IS NULL AND organization = $2
        ORDER BY producer, organization LIMIT $1)) open
    LIMIT $1"
        )
    };
}
pub(super) use open_of_organization;

pub(super) const OPEN_OF_ORGANIZATION: &str = open_of_organization!("id");

/// The jobs that changed a work item, or a group that is linked to it, at most `$1`: the newest
/// changes of each group, and the effects on the work item.
pub(super) const OF_WORK_ITEM: &str = "
    WITH issues AS MATERIALIZED (
        SELECT issue.id, issue.integration_id FROM (SELECT id FROM integrations ORDER BY id LIMIT 10000) known
        CROSS JOIN LATERAL (
            SELECT id, integration_id FROM external_issues WHERE integration_id = known.id AND work_item_id = $2
            ORDER BY integration_id, work_item_id LIMIT 1) issue
    ), groups AS MATERIALIZED (
        SELECT DISTINCT linked.group_id FROM issues CROSS JOIN LATERAL (
            SELECT group_id FROM group_links WHERE external_issue_id = issues.id ORDER BY external_issue_id LIMIT 100) linked
        LIMIT 1000
    )
    SELECT job_id AS id FROM (
        SELECT activity.job_id FROM groups CROSS JOIN LATERAL (
            SELECT job_id FROM activities WHERE group_id = groups.group_id ORDER BY group_id DESC, id DESC LIMIT 100) activity
        UNION
        SELECT change.job_id FROM groups CROSS JOIN LATERAL (
            SELECT job_id FROM group_history WHERE group_id = groups.group_id ORDER BY group_id DESC, id DESC LIMIT 100) change
        UNION
        SELECT effect.job_id FROM issues CROSS JOIN LATERAL (
            SELECT job_id FROM effects WHERE resource = 'work_item:' || issues.integration_id || ':' || $2
            ORDER BY resource LIMIT 1000) effect) changed
    LIMIT $1";

/// An access path.
pub(super) enum Way<'a> {
    /// Walks whose ids are merged, and the number of conditions that they answer.
    Walks {
        walks: Vec<Walk<'a>>,
        answers: usize,
    },
    /// All its ids, newest first.
    Known(Vec<Uuid>),
}

/// A statement with its parameters from `$4` on.
pub(super) struct Walk<'a> {
    sql: &'static str,
    of: Vec<Parameter<'a>>,
}

type Parameter<'a> = Box<dyn ToSql + Sync + Send + 'a>;

impl<'a> Way<'a> {
    /// Returns the access path for a filter.
    pub(super) async fn of(
        client: &deadpool_postgres::Client,
        filter: &'a JobFilter,
    ) -> Result<Self, StoreError> {
        if let Some(number) = filter.work_item {
            let known = known(client, OF_WORK_ITEM, &[&AT_ONCE, &number]).await?;
            return Ok(Self::Known(known));
        }
        let is_open = !filter.states.iter().any(|state| state.is_done());
        if is_open
            && !filter.states.is_empty()
            && filter.parent.is_none()
            && Self::of_cause_or_failure(filter).is_none()
            && let Some(open) = open_of_organizations(client, &filter.organizations).await?
        {
            return Ok(Self::Known(open));
        }
        let narrowest = match (&filter.parent, &filter.dedupe_key) {
            (Some(parent), _) => Some(Self::walk(FOLLOW_UPS, vec![Box::new(parent.0)], 1)),
            (None, Some(key)) => Some(Self::walk(OF_KEY, vec![Box::new(key)], 1)),
            (None, None) if is_open => Self::of_cause_or_failure(filter),
            (None, None) => None,
        };
        Ok(narrowest.unwrap_or_else(|| Self::of_states(&filter.states)))
    }

    /// Returns the access path to open jobs by what they wait for, their owner or their failure.
    fn of_cause_or_failure(filter: &'a JobFilter) -> Option<Self> {
        let only = |state| usize::from(filter.states == [state]);
        if let Some(cause) = &filter.cause {
            let answers = 1 + only(JobState::Waiting);
            return Some(Self::walk(OF_CAUSE, vec![Box::new(cause)], answers));
        }
        if let Some(replica) = &filter.replica {
            let answers = 1 + only(JobState::Running);
            return Some(Self::walk(OF_REPLICA, vec![Box::new(replica)], answers));
        }
        if let Some(fingerprint) = &filter.fingerprint {
            let of: Vec<Parameter<'a>> = vec![Box::new(fingerprint)];
            return Some(if filter.states == [JobState::Parked] {
                Self::walk(PARKED_OF_GROUP, of, 2)
            } else {
                Self::walk(OF_GROUP, of, 1)
            });
        }
        let walks = filter.error_codes.iter().map(|code| {
            let (first, last) = code.range();
            Walk {
                sql: OF_CODE,
                of: vec![Box::new(first), Box::new(last)],
            }
        });
        let walks: Vec<Walk<'a>> = walks.collect();
        (!walks.is_empty()).then_some(Self::Walks { walks, answers: 1 })
    }

    /// Returns the access path to jobs of these states. Only open ones are few.
    fn of_states(states: &[JobState]) -> Self {
        let walk = |state: &JobState| match state {
            JobState::Waiting => Some(WAITING),
            JobState::Parked => Some(PARKED),
            JobState::Running => Some(RUNNING),
            JobState::Ready | JobState::Succeeded | JobState::Cancelled => None,
        };
        match states.iter().map(walk).collect::<Option<Vec<_>>>() {
            Some(found) if !found.is_empty() => Self::Walks {
                walks: found
                    .into_iter()
                    .map(|sql| Walk {
                        sql,
                        of: Vec::new(),
                    })
                    .collect(),
                answers: 1,
            },
            _ => Self::walk(NEWEST, Vec::new(), 0),
        }
    }

    fn walk(sql: &'static str, of: Vec<Parameter<'a>>, answers: usize) -> Self {
        Self::Walks {
            walks: vec![Walk { sql, of }],
            answers,
        }
    }

    /// Returns whether the filter has conditions beyond its access path, so that a page may read
    /// many more rows than it returns.
    pub(super) fn is_narrowed_by(&self, filter: &JobFilter) -> bool {
        match self {
            Self::Walks { answers, .. } => filter.conditions() > *answers,
            Self::Known(_) => true,
        }
    }

    /// Returns the newest ids below `before` down to `from`, newest first, at most `most`.
    pub(super) async fn ids(
        &self,
        client: &deadpool_postgres::Client,
        (from, before): (Uuid, Uuid),
        most: i64,
    ) -> Result<Vec<Uuid>, StoreError> {
        let at_most = usize::try_from(most).unwrap_or(usize::MAX);
        match self {
            Self::Walks { walks, .. } => {
                let mut ids = Vec::new();
                for Walk { sql, of } in walks {
                    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&before, &from, &most];
                    for parameter in of {
                        parameters.push(parameter.as_ref());
                    }
                    ids.extend(known(client, sql, &parameters).await?);
                }
                if walks.len() > 1 {
                    newest_first(&mut ids);
                    ids.truncate(at_most);
                }
                Ok(ids)
            }
            Self::Known(ids) => Ok(ids
                .iter()
                .filter(|id| from <= **id && **id < before)
                .take(at_most)
                .copied()
                .collect()),
        }
    }
}

/// Returns the open jobs of these organizations, newest first; `None` for no organization and if
/// they have more jobs than are read at once.
async fn open_of_organizations(
    client: &deadpool_postgres::Client,
    organizations: &[String],
) -> Result<Option<Vec<Uuid>>, StoreError> {
    let mut open = Vec::new();
    for organization in organizations {
        let left = AT_ONCE - i64::try_from(open.len()).unwrap_or(AT_ONCE);
        let of_one = known(client, OPEN_OF_ORGANIZATION, &[&(left + 1), organization]).await?;
        if i64::try_from(of_one.len()).is_ok_and(|jobs| jobs > left) {
            return Ok(None);
        }
        open.extend(of_one);
    }
    newest_first(&mut open);
    Ok((!organizations.is_empty()).then_some(open))
}

/// Sorts ids, each once.
fn newest_first(ids: &mut Vec<Uuid>) {
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids.dedup();
}

/// Returns the ids that a statement selects, newest first.
async fn known(
    client: &deadpool_postgres::Client,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Uuid>, StoreError> {
    let rows = query(client, sql, parameters).await?;
    let mut ids: Vec<Uuid> = rows
        .iter()
        .map(|row| row.try_get("id"))
        .collect::<Result<_, _>>()?;
    newest_first(&mut ids);
    Ok(ids)
}
