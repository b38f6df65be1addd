//! Finished data are kept as long as the settings say and then deleted, accurate to the hour and
//! however much there is.

use std::time::Duration;

use dispatch_worker::maintenance::{Retention, RetentionError};
use dispatch_worker::store::{Keep, Store, StoreError};
use time::OffsetDateTime;

use crate::support::{TestDatabase, TestWorld, WorkerOptions, wait_for};
use crate::tracker::fixture::World;

const DAY: u64 = 24;

/// The default settings.
pub(crate) const KEEP: Keep = Keep {
    jobs: Duration::from_hours(30 * DAY),
    parked: Duration::from_hours(180 * DAY),
    audit: Duration::from_hours(730 * DAY),
    history: Duration::from_hours(365 * DAY),
    replicas: Duration::from_hours(30 * DAY),
};

/// A function that returns the id of a job created at a time; the number makes it unique.
const JOB_ID: &str = "
    CREATE FUNCTION job_id(at timestamptz, number integer) RETURNS uuid LANGUAGE sql AS $$
        SELECT (left(first_job_id_of(at)::text, 24) || lpad(to_hex(number), 12, '0'))::uuid
    $$";

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn store_of(world: &World) -> Store {
    Store::new(world.database.pool.clone())
}

/// Runs rounds until nothing is left to delete. Returns how many it took.
async fn sweep(world: &World, now: OffsetDateTime) -> Result<usize, RetentionError> {
    let (store, retention) = (store_of(world), Retention::new(KEEP));
    let mut rounds = 1;
    while retention.round(&store, &world.tracker, now).await? {
        rounds += 1;
    }
    Ok(rounds)
}

/// Inserts two rows of every kind: `old`, an hour past its limit, and `young`, an hour before it.
async fn on_both_sides(database: &TestDatabase) {
    database.rows(JOB_ID).await;
    for (name, number, hours) in [("old", 1, 1), ("young", 2, -1)] {
        let at = |days: u32| format!("now() - interval '{days} days' - interval '{hours} hours'");
        let (jobs, parked, audit, history) = (at(30), at(180), at(730), at(365));
        let (day, quarter) = (at(1), at(90));
        let insert = |key: &str, columns: &str, values: String| {
            format!(
                "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, created_at, due_at, \
                 last_progress_at, {columns}) SELECT job_id(now() - interval '200 days', {number} + {offset}), 'p', 's', \
                 '{name} {key}', 'o', 1, '{{}}', 's', now() - interval '200 days', now() - interval '200 days', {values};",
                offset = 10 * key.len()
            )
        };
        let sql = [
            insert("finished", "state, finished_at", format!("{jobs}, 'succeeded', {jobs}")),
            insert("was cancelled", "state, finished_at", format!("{jobs}, 'cancelled', {jobs}")),
            insert("parked", "state", format!("{parked}, 'parked'")),
            insert("asks", "state, wait_reason, wait_key", format!("{parked}, 'waiting', 'configuration', 'k'")),
            format!(
                "INSERT INTO job_keys (source, dedupe_key, job_id, digest, created_at)
                    SELECT source, dedupe_key, id, sha256('x'), created_at FROM jobs WHERE dedupe_key LIKE '{name} %';
                 INSERT INTO job_keys (source, dedupe_key, cancelled_by, created_at) VALUES ('s', '{name} cancel', 'p', {jobs});
                 INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_body, body_bytes, body_sha256, created_at,
                    resolved_at, resolution, resolved_by)
                 VALUES ('{name} resolved', '', '', '{{}}', '', 0, '', {parked}, {jobs}, 'discarded', 'p'),
                    ('{name} open', '', '', '{{}}', '', 0, '', {parked}, NULL, NULL, NULL);
                 INSERT INTO controls (kind, scope, reason, who, expires_at, released_at)
                 VALUES ('hold', '{name} hold', '', '', {jobs}, NULL), ('hold', '{name} released', '', '', now(), {jobs});
                 INSERT INTO replicas (version, host, pid, alive_until, ended_at, lanes) VALUES ('{name}', '', 1, now(), {jobs}, '{{}}');
                 INSERT INTO audit_log (who, role, action, at) VALUES ('{name}', 'r', 'a', {audit});
                 INSERT INTO idempotency_keys (token, key, request, before, after, created_at)
                    VALUES (1, '{name}', sha256('x'), '{{}}', '{{}}', {day});
                 INSERT INTO api_tokens (name, sha256, role, created_by, expires_at)
                    VALUES ('{name} over', sha256('{name} over'), 'viewer', 'p', {quarter});
                 INSERT INTO api_tokens (name, sha256, role, created_by, expires_at, revoked_at)
                    VALUES ('{name} revoked', sha256('{name} revoked'), 'viewer', 'p', now() + interval '1 day', {quarter});
                 INSERT INTO seen_events (integration_id, event_id, job_id, seen_at)
                    SELECT min(id), '{name}', gen_random_uuid(), {jobs} FROM integrations;
                 INSERT INTO group_history (group_id, field, before, after, job_id, at)
                    SELECT min(id), 'status', '{name}', 'x', gen_random_uuid(), {history} FROM issue_groups;
                 INSERT INTO activities (group_id, kind, reason, external_issue_id, rev, job_id, at)
                    SELECT min(g.id), 'resolved', '{name}', min(e.id), 1, gen_random_uuid(), {history}
                    FROM issue_groups g, external_issues e;
                 INSERT INTO subscriptions (integration_id, secret_sha256, valid_until)
                    SELECT min(id), sha256('{name}'), now() - {hours} * interval '1 hour' FROM integrations"
            ),
        ]
        .concat();
        database.rows(&sql).await;
    }
}

/// Queries, and their expected results after the retention has run on the rows of
/// [`on_both_sides`].
const LEFT: &[(&str, &[&str])] = &[
    (
        "SELECT dedupe_key, state FROM jobs ORDER BY 1",
        &[
            "old asks|cancelled",
            "old parked|cancelled",
            "young asks|waiting",
            "young finished|succeeded",
            "young parked|parked",
            "young was cancelled|cancelled",
        ],
    ),
    (
        "SELECT dedupe_key FROM job_keys ORDER BY 1",
        &[
            "old asks",
            "old parked",
            "young asks",
            "young cancel",
            "young finished",
            "young parked",
            "young was cancelled",
        ],
    ),
    (
        "SELECT code, resolution, resolved_by FROM dead_letters ORDER BY 1",
        &[
            "old open|discarded|retention",
            "young open|-|-",
            "young resolved|discarded|p",
        ],
    ),
    (
        "SELECT scope FROM controls ORDER BY 1",
        &["young hold", "young released"],
    ),
    (
        "SELECT version FROM replicas WHERE version IN ('old', 'young')",
        &["young"],
    ),
    (
        "SELECT who, action FROM audit_log ORDER BY 1, 2",
        &[
            "retention|cancel",
            "retention|cancel",
            "retention|dead_letter.discard",
            "young|a",
        ],
    ),
    ("SELECT key FROM idempotency_keys", &["young"]),
    (
        "SELECT name FROM api_tokens ORDER BY 1",
        &["young over", "young revoked"],
    ),
    ("SELECT event_id FROM seen_events", &["young"]),
    ("SELECT before FROM group_history", &["young"]),
    ("SELECT reason FROM activities", &["young"]),
    (
        "SELECT count(*) FROM subscriptions WHERE secret_sha256 IN (sha256('old'), sha256('young'))",
        &["1"],
    ),
];

/// Compares the rows that are left with [`LEFT`]. The error contains the first query that differs,
/// and its result.
async fn left(database: &TestDatabase) -> Result<(), String> {
    for (sql, right) in LEFT {
        let found: Vec<String> = database
            .rows(sql)
            .await
            .iter()
            .map(|row| row.join("|"))
            .collect();
        if found != *right {
            return Err(format!("{sql}: {found:?}"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_row_is_kept_until_its_limit_and_deleted_after_it() {
    let world = World::new().await;
    on_both_sides(&world.database).await;
    sweep(&world, now()).await.unwrap();
    left(&world.database).await.unwrap();
    let events = "SELECT routing_key, body ->> 'dedupe_key' FROM announcements ORDER BY 2";
    assert_eq!(
        world.sql(events).await,
        ["job.cancelled|old asks", "job.cancelled|old parked"]
    );
    let said = world
        .one("SELECT DISTINCT reason FROM audit_log WHERE who = 'retention'")
        .await;
    assert!(
        said.contains("180 days (DISPATCH_KEEP_PARKED_DAYS)"),
        "{said}"
    );
}

#[tokio::test]
async fn a_worker_keeps_rows_as_long_as_its_settings_say() {
    let world = TestWorld::acme().await;
    on_both_sides(&world.database).await;
    let _worker = world.worker(&WorkerOptions::default());
    wait_for(
        "the worker to delete what is old",
        Duration::from_secs(30),
        async || left(&world.database).await,
    )
    .await;
}

#[tokio::test]
async fn jobs_that_wait_for_their_follow_ups_or_until_a_deadline_are_not_cancelled() {
    let world = World::new().await;
    world.sql(JOB_ID).await;
    let long_ago = "now() - interval '200 days'";
    let job = |number: u32, columns: &str, values: &str| {
        format!(
            "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, created_at, due_at, \
             last_progress_at, {columns}) VALUES (job_id({long_ago}, {number}), 'p', 's', '{number}', 'o', 1, '{{}}', 's', {long_ago}, \
             {long_ago}, {long_ago}, {values});"
        )
    };
    let sql = [
        job(
            1,
            "state, wait_reason, wait_key, open_children",
            "'waiting', 'children', 'children', 1",
        ),
        job(
            2,
            "state, parent_id",
            &format!("'parked', job_id({long_ago}, 1)"),
        ),
        job(
            3,
            "state, wait_reason, wait_key, deadline",
            "'waiting', 'configuration', 'k', now() + interval '1 day'",
        ),
        job(4, "state", "'ready'"),
    ];
    world.sql(&sql.concat()).await;
    // A person has acted on this job since.
    world.sql(&job(5, "state", "'parked'")).await;
    world
        .sql("UPDATE jobs SET due_at = now() - interval '2 days' WHERE dedupe_key = '5'")
        .await;
    sweep(&world, now()).await.unwrap();
    let states = "SELECT dedupe_key, state FROM jobs ORDER BY 1";
    assert_eq!(
        world.sql(states).await,
        [
            "1|succeeded",
            "2|cancelled",
            "3|waiting",
            "4|ready",
            "5|parked"
        ]
    );
}

#[tokio::test]
async fn a_worker_whose_clock_is_months_off_deletes_nothing() {
    let world = World::new().await;
    on_both_sides(&world.database).await;
    let rows = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM job_keys), (SELECT count(*) FROM audit_log),
        (SELECT count(*) FROM seen_events), (SELECT count(*) FROM replicas), (SELECT count(*) FROM dead_letters)";
    let before = world.one(rows).await;
    for days in [180, -180] {
        let error = sweep(&world, now() + time::Duration::days(days))
            .await
            .expect_err("the clocks differ");
        let RetentionError::Store(StoreError::Clocks { .. }) = &error else {
            panic!("{error:?}")
        };
        assert!(
            error
                .to_string()
                .starts_with("expected clocks less than 10 minutes apart, got "),
            "{error}"
        );
        assert_eq!(world.one(rows).await, before);
    }
}

#[tokio::test]
async fn all_old_rows_are_deleted_however_many_there_are() {
    let world = World::new().await;
    world.sql(JOB_ID).await;
    world
        .sql(
            "INSERT INTO seen_events (integration_id, event_id, job_id, seen_at)
                SELECT (SELECT min(id) FROM integrations), n, gen_random_uuid(), now() - interval '31 days' FROM generate_series(1, 12000) n;
             INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, state, finished_at)
                SELECT job_id(now() - interval '40 days', n), 'p', 's', n, 'o', 1, '{}', 's',
                    CASE WHEN n % 3 = 0 THEN 'parked' ELSE 'succeeded' END,
                    CASE WHEN n % 3 <> 0 THEN now() - interval '31 days' END FROM generate_series(1, 9000) n;
             INSERT INTO job_keys (source, dedupe_key, job_id, digest) SELECT source, dedupe_key, id, sha256('x') FROM jobs;
             INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
                SELECT id, 1, 's', 1, '{}', 1, 1, 1, now() FROM jobs",
        )
        .await;
    let default = "SELECT DISTINCT tableoid::regclass FROM checkpoints";
    assert_eq!(
        world.one(default).await,
        "checkpoints_default",
        "the month has no partition, so its rows are deleted one by one"
    );
    let rounds = sweep(&world, now()).await.unwrap();
    assert!(
        rounds < 30,
        "{rounds} rounds: rows that must be kept were read again"
    );
    for (sql, left) in [
        ("SELECT count(*) FROM seen_events", "0"),
        (
            "SELECT count(*), count(*) FILTER (WHERE state = 'parked') FROM jobs",
            "3000|3000",
        ),
        ("SELECT count(*) FROM job_keys", "3000"),
        ("SELECT count(*) FROM checkpoints", "3000"),
    ] {
        assert_eq!(world.one(sql).await, left, "{sql}");
    }
}

#[tokio::test]
async fn the_history_of_a_month_with_a_partition_is_deleted_with_the_partition() {
    let world = World::new().await;
    world.sql(JOB_ID).await;
    world
        .sql(
            "SELECT make_partition('checkpoints', now() - interval '100 days');
             INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, state, finished_at)
                VALUES (job_id(now() - interval '100 days', 1), 'p', 's', 'k', 'o', 1, '{}', 's', 'succeeded', now() - interval '99 days');
             INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
                SELECT id, 1, 's', 1, '{}', 1, 1, 1, now() FROM jobs;
             INSERT INTO attempts (job_id, generation, stage, attempt, outcome, error_code, message, duration_ms, replica, epoch)
                SELECT id, 1, 's', 1, 'retried', 'e', '', 1, 1, 1 FROM jobs",
        )
        .await;
    sweep(&world, now()).await.unwrap();
    assert_eq!(world.one("SELECT count(*) FROM jobs").await, "0");
    assert_eq!(world.one("SELECT count(*) FROM checkpoints").await, "1");
    assert_eq!(
        world.one("SELECT count(*) FROM attempts").await,
        "0",
        "`attempts` has no partition of the month"
    );
    store_of(&world).keep_partitions(now()).await.unwrap();
    assert_eq!(world.one("SELECT count(*) FROM checkpoints").await, "0");
}

#[tokio::test]
async fn rows_of_the_audit_log_cannot_be_deleted_within_a_year_and_never_be_changed() {
    let world = World::new().await;
    let insert = "INSERT INTO audit_log (who, role, action, at) VALUES ('ann', 'operator', 'a', now() - interval '364 days'),
        ('bob', 'operator', 'a', now() - interval '366 days')";
    world.sql(insert).await;
    let client = world.database.pool.get().await.unwrap();
    for refused in [
        "DELETE FROM audit_log WHERE who = 'ann'",
        "UPDATE audit_log SET who = 'x' WHERE who = 'bob'",
        "TRUNCATE audit_log",
        "TRUNCATE audit_log, releases CASCADE",
    ] {
        let error = client.execute(refused, &[]).await.expect_err(refused);
        assert!(
            error
                .as_db_error()
                .is_some_and(|error| error.message().contains("insert-only")),
            "{error:?}"
        );
    }
    // Even if a setting would allow it.
    let keep = Keep {
        audit: Duration::from_hours(DAY),
        ..KEEP
    };
    store_of(&world).forget_audit(&keep, now()).await.unwrap();
    assert_eq!(world.sql("SELECT who FROM audit_log").await, ["ann"]);
}

#[tokio::test]
async fn a_replica_that_a_job_names_is_kept_however_long_ago_it_ended() {
    let world = World::new().await;
    world
        .sql(
            "INSERT INTO replicas (version, host, pid, alive_until, ended_at, lanes)
                SELECT n, '', 1, now(), now() - interval '40 days', '{}' FROM generate_series(1, 3) n;
             INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, state, owner)
                SELECT gen_random_uuid(), 'p', 's', 'k', 'o', 1, '{}', 's', 'running', id FROM replicas WHERE version = '2'",
        )
        .await;
    assert!(
        !store_of(&world)
            .forget_replicas(&KEEP, now())
            .await
            .unwrap()
    );
    assert_eq!(world.sql("SELECT version FROM replicas").await, ["2"]);
}

#[tokio::test]
async fn a_deletion_that_fails_does_not_prevent_the_others() {
    let world = World::new().await;
    on_both_sides(&world.database).await;
    world.sql("ALTER TABLE audit_log RENAME TO elsewhere").await;
    let (store, retention) = (store_of(&world), Retention::new(KEEP));
    let mut errors = 0;
    for _ in 0..100 {
        match retention.round(&store, &world.tracker, now()).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 0);
    assert_eq!(
        world.sql("SELECT event_id FROM seen_events").await,
        ["young"]
    );
    assert_eq!(
        world
            .sql("SELECT dedupe_key FROM jobs WHERE dedupe_key LIKE '% finished'")
            .await,
        ["young finished"]
    );
}
