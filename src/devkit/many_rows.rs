//! Tables as after a bad week, for the tests of statements and the benchmarks of pages: a backlog,
//! jobs that wait for one cause and for many, parked jobs, old holds, dead replicas. At scale 16
//! there are a million jobs with ten checkpoints each.

use anyhow::Context;
use secrecy::SecretString;

use crate::store;

/// Organizations, each with at least one due job.
const ORGANIZATIONS: u32 = 3_000;
/// Holds in force, each with a job that waits for it; twice as many are over.
const HOLDS: u32 = 2_000;

/// Inserts jobs by number; 1 is the oldest. From the oldest on, they are parked, held, parents of
/// follow-ups, overdue, running and succeeded; the newest wait for an identity or are due.
const FILL: &str = r#"
    INSERT INTO replicas (version, host, pid, lanes, alive_until, ended_at)
        SELECT '1', 'host', n, '{}', now() + interval '1 hour', CASE WHEN n > 8 THEN now() END FROM generate_series(1, 500) n;
    INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, parent_id, owner, wait_reason,
        wait_key, wait_observed, deadline, open_children, error_code, fingerprint, first_failed_at, finished_at, woken_at, woken_by, producer, bytes)
    SELECT job(n), 'dispatch', 'shop-' || n % 50, 'k-' || n, 'org-' || n % {organizations}, 1,
        json_build_object('events', repeat('x', 200)), k.state, 'send_follow_ups',
        CASE WHEN n > {running_to} AND n <= {running_to} + {family} THEN job({held_to} + 1) END,
        CASE WHEN k.state = 'running' THEN 1 + n % 9 END, k.reason,
        CASE k.reason WHEN 'reauthentication' THEN 'identity:1' WHEN 'children' THEN 'children'
            WHEN 'hold' THEN 'hold:org-' || n || '|webhook|' || n WHEN 'installation_disabled' THEN 'integration:1@' || n END,
        CASE WHEN k.reason <> 'children' THEN 1 + n % 3 END,
        CASE WHEN k.reason IN ('children', 'installation_disabled') THEN now() - interval '1 hour' END,
        CASE WHEN k.reason = 'children' THEN 1 ELSE 0 END,
        CASE WHEN k.state = 'parked' THEN 'slack.not_in_channel' WHEN k.state = 'ready' AND n % 10 = 1 THEN 'slack.server_error' END,
        CASE WHEN k.state = 'parked' THEN 'f-1' WHEN k.state = 'ready' AND n % 10 = 1 THEN 'f-2' END,
        CASE WHEN k.state = 'parked' OR k.state = 'ready' AND n % 10 = 1 THEN now() - n % 600 * interval '1 second' END,
        CASE WHEN k.state = 'succeeded' THEN now() END, CASE WHEN k.state = 'ready' AND n % 10 = 0 THEN now() - interval '1 hour' END,
        CASE WHEN k.state = 'ready' AND n % 10 = 0 THEN 1 + n / 10 % 20 END, CASE WHEN n % 10 > 0 THEN 'producer-' || n % 200 END, 200
    FROM generate_series(1, {jobs}) n CROSS JOIN LATERAL (SELECT
        CASE WHEN n <= {parked_to} THEN 'parked' WHEN n <= {overdue_to} THEN 'waiting' WHEN n <= {running_to} THEN 'running'
            WHEN n <= {done_to} THEN 'succeeded' WHEN n <= {waiting_to} THEN 'waiting' ELSE 'ready' END AS state,
        CASE WHEN n > {parked_to} AND n <= {held_to} THEN 'hold' WHEN n > {held_to} AND n <= {parents_to} THEN 'children'
            WHEN n > {parents_to} AND n <= {overdue_to} THEN 'installation_disabled'
            WHEN n > {done_to} AND n <= {waiting_to} THEN 'reauthentication' END AS reason) k;
    INSERT INTO job_keys (source, dedupe_key, job_id, digest) SELECT source, dedupe_key, id, sha256(id::text::bytea) FROM jobs;
    INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
        SELECT id, 1, stages.name, 1, json_build_object('work_item_ids', json_build_array(k)), k, 1, 1, now() - (11 - k) * interval '20 milliseconds'
        FROM jobs, unnest({names}) WITH ORDINALITY AS stages (name, k)
        WHERE k <= {stages};
    INSERT INTO attempts (job_id, generation, stage, attempt, outcome, error_code, message, duration_ms, replica, epoch)
        SELECT id, 1, 'send_follow_ups', 1, 'retried', 'code', 'message', 1, 1, 1 FROM jobs ORDER BY id LIMIT 20000;
    UPDATE attempts SET fingerprint = 'f-1', at = now() - interval '570 seconds'
        WHERE job_id IN (SELECT id FROM jobs ORDER BY id LIMIT 20);
    INSERT INTO failure_groups (fingerprint, pipeline, stage, error_code, sample, last_seen_at)
        SELECT 'f-' || n, 'dispatch', 'send_follow_ups', 'slack.not_in_channel', 'text', now() - n * interval '1 second'
        FROM generate_series(1, 2000) n;
    INSERT INTO effects (job_id, key, generation, stage, target, class, state, detail, epoch, deadline_at)
        SELECT id, 'key', 1, 'send_follow_ups', 'target', 'K2', 'confirmed', '{}', 1, now() FROM jobs ORDER BY id LIMIT 20000;
    INSERT INTO controls (kind, scope, reason, who, automatic, expires_at)
        SELECT CASE WHEN n <= {holds} THEN 'hold' ELSE 'circuit' END, 'org-' || {parked_to} + 1 + n % {holds} || '|webhook|'
            || {parked_to} + 1 + n % {holds}, 'reason', 'replica 1', true,
            now() + CASE WHEN n <= {holds} THEN interval '1 hour' WHEN n <= {holds} + 20 THEN interval '-40 days'
                ELSE interval '-1 day' END
        FROM generate_series(1, 2 * {holds}) n;
    INSERT INTO audit_log (who, role, action, job_id)
        SELECT 'person ' || n % 20, 'operator', 'retry', job(n) FROM generate_series(1, 30000) n;
    INSERT INTO announcements (job_id, routing_key, body, publish_after)
        SELECT job(20000 - n), 'job.succeeded', '{}', now() FROM generate_series(0, 19999) n;
    INSERT INTO samples (at, replica, data)
        SELECT now() - n / {replicas} * interval '15 seconds', 1 + n % {replicas}, json_build_object('version', '1', 'ready', true,
            'not_ready', '[]'::json, 'gauges', json_build_object('dispatch_permits_used{lane="dispatch"}', n % 32),
            'counters', (SELECT json_object_agg('dispatch_jobs_total{pipeline="dispatch",state="' || state || '"}', 1000000 - n)
                FROM unnest(ARRAY['accepted', 'succeeded', 'cancelled', 'parked', 'retried']) state),
            'stages', (SELECT json_object_agg('dispatch/' || name, ARRAY(SELECT 1000000 - n + k FROM generate_series(1, 15) k))
                FROM unnest({names}) name))
        FROM generate_series(1, 12000 * {replicas}) n;
    INSERT INTO job_keys (source, dedupe_key, cancelled_by, producer)
        SELECT 'shop-0', 'cancel-' || n, 'p', CASE WHEN n % 10 > 0 THEN 'producer-' || n % 200 END FROM generate_series(1, 20000) n;
    INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_body, body_bytes, body_sha256, source, replay_wanted_at,
            replay_next_at, replay_wanted_by, replay_wanted_role, producer, kept_bytes, resolved_at)
        SELECT CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'usual' END, 'detail', 'job', '{}', '', 0, '', 'shop-' || n % 100,
            CASE WHEN n % 500 = 7 THEN now() END, CASE WHEN n % 500 = 7 THEN now() - interval '1 minute' END, 'olga', 'operator',
            CASE WHEN n % 10 > 0 THEN 'producer-' || n % 200 END, 100, CASE WHEN n > 2000 * {scale} THEN now() END
        FROM generate_series(1, 20000 * {scale}) n;
    INSERT INTO releases (cause, up_to, after_observed, after_id, next_at)
        SELECT 'identity:' || n, 9, 0, job(0), now() + CASE WHEN n % 100 = 0 THEN interval '-1 second' ELSE interval '1 hour' END
        FROM generate_series(1, 2000) n;
    INSERT INTO quota_grants (holder, kind, replica, rows, bytes, until)
        SELECT 'producer/producer-' || n % 1000, 'open', n / 1000, 1, 1, now() + CASE WHEN n % 100 = 0 THEN interval '-2 hours'
            ELSE interval '1 hour' END
        FROM generate_series(1, 5000) n;
    INSERT INTO campaigns (action, filter, who, role, reason, per_second, stop_at_percent, total, state, created_at, next_at, finished_at)
        SELECT 'retry', '{}', 'olga', 'operator', 'reason', 5, 20, 20000, CASE WHEN n <= 2 THEN 'running' ELSE 'finished' END,
            now() - interval '1 day', now() - interval '1 minute', CASE WHEN n > 2 THEN now() - n * interval '1 day' END
        FROM generate_series(1, 500) n;
    INSERT INTO campaign_items (campaign, n, job_id, state, stage, acted_at)
        SELECT c, n, job(n), CASE WHEN n <= 1000 THEN 'acted' ELSE 'open' END, 'send_follow_ups', now() - interval '2 minutes'
        FROM unnest(ARRAY[1, 200]) c, generate_series(1, 20000) n"#;

/// The stages of a job, as an array of SQL.
const STAGES: &str = "ARRAY['check_account', 'fetch_states', 'retrieve_user', 'get_accounts', 'search_issues', 'handle_events',
    'process_work_items', 'sync_assignees', 'update_assignments', 'send_follow_ups']";

/// Functions by which cases name jobs and holds.
const NAMES: &str = "
    CREATE FUNCTION job(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex(1700000000000 + n * 20), 12, '0') || '7000800000' || lpad(to_hex(n), 10, '0'))::uuid $$;
    CREATE FUNCTION some_jobs(first bigint, last bigint) RETURNS uuid[] LANGUAGE sql IMMUTABLE AS $$
        SELECT array_agg(job(n)) FROM generate_series(first, last) n $$;
    CREATE FUNCTION numbers(last bigint) RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
        SELECT array_agg(n) FROM generate_series(1, last) n $$;
    CREATE FUNCTION scope() RETURNS text LANGUAGE sql IMMUTABLE AS $$
        SELECT 'org-' || parked_to() + 1 || '|webhook|' || parked_to() + 1 $$";

/// Returns the number of the last job of each kind, and the numbers of other rows.
fn places(scale: u32) -> [(&'static str, u32); 14] {
    let (jobs, due, waiting, parked, parents) = (
        62_500 * scale,
        12_500 * scale,
        10_000 * scale,
        5_000 * scale,
        5_000 * scale,
    );
    let held_to = parked + HOLDS;
    let overdue_to = held_to + parents + 200;
    [
        ("organizations", ORGANIZATIONS),
        ("holds", HOLDS),
        ("scale", scale),
        ("stages", scale.min(10)),
        ("replicas", scale.min(8)),
        ("jobs", jobs),
        ("family", 8_000),
        ("parked_to", parked),
        ("held_to", held_to),
        ("parents_to", held_to + parents),
        ("overdue_to", overdue_to),
        ("running_to", overdue_to + 400),
        ("done_to", jobs - due - waiting),
        ("waiting_to", jobs - due),
    ]
}

/// Creates the functions by which statements name jobs: `job(1)` is the oldest, `job(parked_to())`
/// the newest parked one.
///
/// # Errors
/// Postgres does not answer or refuses; they exist already.
pub async fn name_places(url: &SecretString, scale: u32) -> anyhow::Result<()> {
    let functions: String = places(scale)
        .iter()
        .map(|(name, number)| {
            format!("CREATE FUNCTION {name}() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT {number}';")
        })
        .collect();
    at_leisure(url, &(functions + NAMES)).await
}

/// Fills the empty tables of a migrated database: 62,500 jobs at scale 1. Needs [`name_places`].
///
/// # Errors
/// Postgres does not answer or refuses.
pub async fn fill(url: &SecretString, scale: u32) -> anyhow::Result<()> {
    let filled = |sql: String, (name, number): &(&str, u32)| {
        sql.replace(&format!("{{{name}}}"), &number.to_string())
    };
    let sql = places(scale).iter().fold(FILL.to_owned(), filled);
    at_leisure(url, &sql.replace("{names}", STAGES)).await
}

/// Leaves the tables as autovacuum does.
///
/// # Errors
/// Postgres does not answer or refuses.
pub async fn vacuum(url: &SecretString) -> anyhow::Result<()> {
    at_leisure(url, "VACUUM ANALYZE").await
}

/// Runs statements without the time limit of pooled connections: a million rows take longer.
async fn at_leisure(url: &SecretString, sql: &str) -> anyhow::Result<()> {
    let (client, connection) = store::connect(url).await?;
    // The connection ends when its client is dropped.
    let run = async move { client.batch_execute(sql).await };
    tokio::join!(run, connection)
        .0
        .context("Postgres did not fill the tables")
}
