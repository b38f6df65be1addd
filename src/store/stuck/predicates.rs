//! The statement of each code. `$1` is the number of rows to count, `$2` the threshold in seconds;
//! the database's clock decides. Each returns the three jobs that have stood longest, every row
//! with the number of all.

/// Completes a statement whose common table expression `found` has the jobs of a code, bounded.
macro_rules! longest {
    ($with:expr) => {
        concat!(
            $with,
            "
    SELECT id, organization, since, detail, jobs
    FROM (SELECT id, organization, since, detail, count(*) OVER () AS jobs FROM found) counted
    ORDER BY since, id LIMIT 3"
        )
    };
    // The detail is read for three jobs only; `found` is read from an index alone.
    ($with:expr, $detail:literal) => {
        concat!(
            $with,
            "
    SELECT id, organization, since, (SELECT ",
            $detail,
            " FROM jobs j WHERE j.id = longest.id) AS detail, jobs
    FROM (SELECT id, organization, since, count(*) OVER () AS jobs FROM found ORDER BY since, id LIMIT 3) longest
    ORDER BY since, id"
        )
    };
}

/// Selects from the jobs `failing` those that have failed for `$2` seconds. One that a person has
/// parked has not failed: it has stood since its last progress.
macro_rules! failed_for_long {
    ($failing:literal) => {
        concat!(
            "
    WITH found AS (
        SELECT id, organization, since FROM (
            SELECT id, organization, coalesce(first_failed_at, (SELECT last_progress_at FROM jobs j WHERE j.id = failing.id)) AS since
            FROM (",
            $failing,
            ") failing) failed
        WHERE since <= now() - $2::float8 * interval '1 second'
    )"
        )
    };
}

/// Walks from owner to owner along `jobs_owned`, as the takeover does.
pub(crate) const OWNER_DEAD: &str = longest!(
    "
    WITH RECURSIVE owners AS (
        (SELECT owner, 1 AS hop FROM jobs WHERE state = 'running' ORDER BY owner LIMIT 1)
        UNION ALL
        SELECT next.owner, o.hop + 1 FROM owners o CROSS JOIN LATERAL (
            SELECT owner FROM jobs WHERE state = 'running' AND owner > o.owner ORDER BY owner LIMIT 1) next
        WHERE o.hop < $1::bigint
    ), dead AS MATERIALIZED (
        SELECT o.owner, ended.since FROM owners o CROSS JOIN LATERAL (
            SELECT (SELECT least(r.ended_at, r.alive_until) FROM replicas r WHERE r.id = o.owner) AS since) ended
        WHERE coalesce(ended.since, '-infinity') < now() - $2::float8 * interval '1 second'
    ), found AS MATERIALIZED (
        SELECT j.id, j.organization, coalesce(dead.since, j.last_progress_at) AS since, 'replica ' || dead.owner AS detail
        FROM dead CROSS JOIN LATERAL (
            SELECT id, organization, last_progress_at FROM jobs WHERE owner = dead.owner AND state = 'running' LIMIT $1::bigint) j
        LIMIT $1::bigint
    )"
);

/// A claim does not change `last_progress_at`: a job that was due for long and has just been
/// claimed is not stuck.
pub(crate) const NO_PROGRESS: &str = longest!(
    "
    WITH owned AS MATERIALIZED (
        SELECT id, organization, owner, pipeline || '/' || stage || ' on replica ' || owner AS detail,
            greatest(last_progress_at, woken_at, due_at) AS since
        FROM jobs WHERE state = 'running' ORDER BY owner LIMIT $1::bigint
    ), found AS MATERIALIZED (
        SELECT id, organization, since, detail FROM owned
        WHERE since < now() - $2::float8 * interval '1 second'
            AND (SELECT ended_at IS NULL AND alive_until > now() FROM replicas r WHERE r.id = owned.owner)
    )"
);

/// Walks from error code to error code along `jobs_failing`, so that a code with many parked jobs
/// hides no other one.
pub(crate) const RETRYING_LONG: &str = longest!(
    "
    WITH RECURSIVE codes AS (
        (SELECT error_code COLLATE \"C\" AS code, 1 AS hop FROM jobs
            WHERE error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled') ORDER BY error_code COLLATE \"C\" LIMIT 1)
        UNION ALL
        SELECT next.code, c.hop + 1 FROM codes c CROSS JOIN LATERAL (
            SELECT error_code COLLATE \"C\" AS code FROM jobs
            WHERE error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled') AND error_code COLLATE \"C\" > c.code
            ORDER BY error_code COLLATE \"C\" LIMIT 1) next
        WHERE c.hop < 200
    ), failing AS MATERIALIZED (
        SELECT j.id, j.organization, j.since, j.state, j.detail FROM codes c CROSS JOIN LATERAL (
            SELECT id, organization, first_failed_at AS since, state, error_code AS detail FROM jobs
            WHERE error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled') AND error_code COLLATE \"C\" BETWEEN c.code AND c.code
            ORDER BY error_code COLLATE \"C\", id LIMIT 1000) j
        LIMIT 20000
    ), found AS MATERIALIZED (
        SELECT id, organization, since, detail FROM failing
        WHERE state IN ('ready', 'running') AND since < now() - $2::float8 * interval '1 second' LIMIT $1::bigint
    )"
);

/// The order of `jobs_parked_by_group`: an order by id alone would allow a plan that reads the
/// primary key from its beginning.
pub(crate) const PARKED: &str = longest!(
    failed_for_long!(
        "
        SELECT id, organization, first_failed_at FROM jobs WHERE state = 'parked' ORDER BY fingerprint, id LIMIT $1::bigint"
    ),
    "error_code"
);

/// `$3` is the error code. It is a range of one value, so that only `jobs_failing` has the order.
pub(crate) const OF_CODE: &str = longest!(
    failed_for_long!(
        "
        SELECT id, organization, first_failed_at FROM jobs
        WHERE error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled') AND error_code COLLATE \"C\" BETWEEN $3::text AND $3::text
        ORDER BY error_code COLLATE \"C\", id LIMIT $1::bigint"
    ),
    "pipeline || '/' || stage"
);

/// `$3` has the reasons, `$2` the threshold of each; the three jobs and the number are those of each
/// reason. Walks from cause to cause along `jobs_waiting_for`, once for all reasons: all jobs of a
/// cause wait for the same one. It skips the holds of names before `~`, in whatever order the
/// database's collation has them: [`HELD`] reads those.
pub(crate) const WAITING: &str = "
    WITH RECURSIVE causes AS (
        (SELECT wait_key, wait_reason, 1 AS hop FROM jobs WHERE state = 'waiting' AND wait_reason <> 'children'
            ORDER BY wait_key, wait_observed, id LIMIT 1)
        UNION ALL
        SELECT next.wait_key, next.wait_reason, c.hop + 1 FROM causes c CROSS JOIN LATERAL (
            SELECT wait_key, wait_reason FROM jobs
            WHERE state = 'waiting' AND wait_reason <> 'children'
                AND wait_key > greatest(c.wait_key, CASE c.wait_reason WHEN 'hold' THEN 'hold:~' END)
            ORDER BY wait_key, wait_observed, id LIMIT 1) next
        WHERE c.hop < $1::bigint
    )
    SELECT asked.reason, longest.id, organization, since, detail, jobs
    FROM unnest($2::float8[], $3::text[]) AS asked (after, reason) CROSS JOIN LATERAL (
        SELECT id, organization, since, detail, count(*) OVER () AS jobs FROM (
            SELECT j.id, j.organization, j.since, c.wait_key AS detail FROM causes c CROSS JOIN LATERAL (
                SELECT id, organization, last_progress_at AS since FROM jobs
                WHERE state = 'waiting' AND wait_reason <> 'children' AND wait_key = c.wait_key
                ORDER BY wait_key, wait_observed, id LIMIT $1::bigint) j
            WHERE c.wait_reason = asked.reason
            LIMIT $1::bigint) waiting
        WHERE since < now() - asked.after * interval '1 second' ORDER BY since, id LIMIT 3) longest
    ORDER BY since, id";

/// Reads the holds of the three jobs only.
pub(crate) const HELD: &str = "
    WITH held AS MATERIALIZED (
        SELECT id, organization, last_progress_at AS since, wait_key FROM jobs
        WHERE state = 'waiting' AND wait_reason = 'hold' ORDER BY wait_key, id LIMIT $1::bigint
    ), longest AS MATERIALIZED (
        SELECT id, organization, since, wait_key, count(*) OVER () AS jobs FROM held
        WHERE since < now() - $2::float8 * interval '1 second' ORDER BY since, id LIMIT 3
    )
    SELECT id, organization, since, jobs, wait_key || coalesce((
            SELECT ': ' || who || ', ' || reason || ', until ' || to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
            FROM controls WHERE scope = substr(longest.wait_key, length('hold:') + 1) AND kind IN ('hold', 'circuit')
                AND released_at IS NULL AND expires_at > now() ORDER BY expires_at DESC LIMIT 1), '') AS detail
    FROM longest ORDER BY since, id";

/// Walks from organization to organization along `jobs_not_woken`, at most `$3` of them.
pub(crate) const NOT_WOKEN: &str = longest!(
    "
    WITH RECURSIVE places AS (
        (SELECT pipeline, organization, due_at, 1 AS hop FROM jobs WHERE state = 'ready' AND woken_at IS NULL
            ORDER BY pipeline, organization, due_at, id LIMIT 1)
        UNION ALL
        SELECT next.pipeline, next.organization, next.due_at, p.hop + 1 FROM places p CROSS JOIN LATERAL (
            SELECT pipeline, organization, due_at FROM jobs
            WHERE state = 'ready' AND woken_at IS NULL AND (pipeline, organization) > (p.pipeline, p.organization)
            ORDER BY pipeline, organization, due_at, id LIMIT 1) next
        WHERE p.hop < $3::bigint
    ), due AS MATERIALIZED (
        SELECT pipeline, organization FROM places WHERE due_at < now() - $2::float8 * interval '1 second' ORDER BY due_at
    ), found AS MATERIALIZED (
        SELECT j.id, due.organization, j.due_at AS since FROM due CROSS JOIN LATERAL (
            SELECT id, due_at FROM jobs
            WHERE pipeline = due.pipeline AND organization = due.organization AND state = 'ready' AND woken_at IS NULL
                AND due_at < now() - $2::float8 * interval '1 second'
            ORDER BY due_at, id LIMIT $1::bigint) j
        LIMIT $1::bigint
    )",
    "pipeline"
);

/// `$3` has the pipelines, `$4` the lane of each. Jobs with a wake-up count too: RabbitMQ may keep
/// the wake-up, and no replica receives it.
pub(crate) const NO_CONSUMERS: &str = longest!(
    "
    WITH RECURSIVE unserved AS MATERIALIZED (
        SELECT asked.pipeline, asked.lane FROM unnest($3::text[], $4::text[]) AS asked (pipeline, lane)
        WHERE NOT EXISTS (SELECT FROM replicas r
            WHERE r.ended_at IS NULL AND r.alive_until > now() AND NOT r.draining AND asked.lane = ANY (r.lanes))
    ), places AS (
        SELECT u.pipeline, u.lane, first.organization, first.due_at, 1 AS hop FROM unserved u CROSS JOIN LATERAL (
            SELECT organization, due_at FROM jobs WHERE pipeline = u.pipeline AND state = 'ready' AND woken_at IS NULL
            ORDER BY organization, due_at, id LIMIT 1) first
        UNION ALL
        SELECT p.pipeline, p.lane, next.organization, next.due_at, p.hop + 1 FROM places p CROSS JOIN LATERAL (
            SELECT organization, due_at FROM jobs
            WHERE pipeline = p.pipeline AND state = 'ready' AND woken_at IS NULL AND organization > p.organization
            ORDER BY organization, due_at, id LIMIT 1) next
        WHERE p.hop < $1::bigint
    ), due AS MATERIALIZED (
        SELECT pipeline, lane, organization FROM places WHERE due_at < now() - $2::float8 * interval '1 second' ORDER BY due_at
    ), not_woken AS MATERIALIZED (
        SELECT j.id, due.organization, j.due_at AS since, due.lane FROM due CROSS JOIN LATERAL (
            SELECT id, due_at FROM jobs
            WHERE pipeline = due.pipeline AND organization = due.organization AND state = 'ready' AND woken_at IS NULL
                AND due_at < now() - $2::float8 * interval '1 second'
            ORDER BY due_at, id LIMIT $1::bigint) j
        LIMIT $1::bigint
    ), woken AS MATERIALIZED (
        SELECT j.id, j.organization, j.due_at AS since, u.lane FROM unserved u CROSS JOIN LATERAL (
            SELECT id, organization, due_at FROM jobs WHERE pipeline = u.pipeline AND state = 'ready' AND woken_at IS NOT NULL
            ORDER BY woken_at LIMIT $1::bigint) j
        WHERE j.due_at < now() - $2::float8 * interval '1 second'
        LIMIT $1::bigint
    ), found AS MATERIALIZED (
        SELECT id, organization, since, 'lane ' || lane AS detail
        FROM (SELECT id, organization, since, lane FROM not_woken UNION ALL SELECT id, organization, since, lane FROM woken) due_jobs LIMIT $1::bigint
    )"
);
