//! Jobs that do not move are found by their codes, and no others are.

use std::time::Duration;

use dispatch_worker::job::JobId;
use dispatch_worker::pipelines;
use dispatch_worker::store::{PipelineLanes, Store, StuckCode, StuckRow};
use serde_json::Value;

use crate::support::{TestDatabase, TestWorld, WorkerOptions, count, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// Inserts a job with these columns and values beside the usual ones. Returns its id.
async fn job(database: &TestDatabase, columns: &str, values: &str) -> JobId {
    let id = JobId::fresh();
    let sql = format!(
        "INSERT INTO jobs (id, source, dedupe_key, organization, schema, payload, stage, {columns})
         VALUES ('{id}', 's', '{id}', 'acme', 1, '{{}}', 'check_account', {values})"
    );
    database.rows(&sql).await;
    id
}

/// Inserts a replica that serves `lane`; its lease ends after `lease`. Returns its id.
async fn replica(database: &TestDatabase, lane: &str, lease: &str) -> String {
    let sql = format!(
        "INSERT INTO replicas (version, host, pid, alive_until, lanes)
         VALUES ('1', 'h', 1, now() + interval '{lease}', '{{{lane}}}') RETURNING id"
    );
    database.one(&sql).await
}

fn lanes() -> PipelineLanes {
    PipelineLanes::of(&pipelines::registry())
}

/// Returns the codes that count jobs, each with the examples.
async fn found(store: &Store) -> Vec<(StuckCode, Vec<JobId>)> {
    let rows = store.stuck(&lanes()).await;
    let codes: Vec<StuckCode> = rows.iter().map(|row| row.code).collect();
    assert_eq!(codes, StuckCode::ALL);
    rows.into_iter()
        .inspect(|row| assert_eq!(row.error, None, "{row:?}"))
        .filter(|row| !row.count.expect("it was counted").is_zero())
        .map(|row| (row.code, ids(&row)))
        .collect()
}

fn ids(row: &StuckRow) -> Vec<JobId> {
    row.examples.iter().map(|example| example.id).collect()
}

/// The columns and values of a job that stands in this state for two hours.
const USUAL: &str = "pipeline, state, due_at, last_progress_at";
const AGO: &str = "now() - interval '2 hours'";

fn in_state(pipeline: &str, state: &str) -> String {
    format!("'{pipeline}', '{state}', {AGO}, {AGO}")
}

fn waiting(reason: &str, key: &str) -> (String, String) {
    (
        format!("{USUAL}, wait_reason, wait_key, wait_observed"),
        format!(
            "{}, '{reason}', '{key}', 0",
            in_state("dispatch", "waiting")
        ),
    )
}

fn parked(code: &str) -> (String, String) {
    (
        format!("{USUAL}, error_code, first_failed_at"),
        format!("{}, '{code}', {AGO}", in_state("dispatch", "parked")),
    )
}

fn running(owner: &str) -> (String, String) {
    (
        format!("{USUAL}, owner"),
        format!("{}, {owner}", in_state("dispatch", "running")),
    )
}

fn retrying() -> (String, String) {
    let values = format!(
        "'dispatch', 'ready', now() + interval '1 hour', {AGO}, 'slack.unavailable', {AGO}"
    );
    (format!("{USUAL}, error_code, first_failed_at"), values)
}

fn due(pipeline: &str) -> (String, String) {
    (USUAL.to_owned(), in_state(pipeline, "ready"))
}

/// Plants a job for each code. Returns the codes with their jobs, in the order of the codes.
async fn planted(database: &TestDatabase) -> Vec<(StuckCode, JobId)> {
    let live = replica(database, "dispatch,messaging", "1 hour").await;
    let dead = replica(database, "dispatch", "-1 hour").await;
    let mut jobs = Vec::with_capacity(StuckCode::ALL.len());
    for code in StuckCode::ALL {
        let (columns, values) = match code {
            StuckCode::OwnerDead => running(&dead),
            StuckCode::NoProgress => running(&live),
            StuckCode::RetryingLong => retrying(),
            StuckCode::Parked => parked("slack.not_in_channel"),
            StuckCode::UnknownOutcome | StuckCode::CrashLoop => parked(code.word()),
            StuckCode::WaitingConfiguration => waiting("configuration", "configuration:1"),
            StuckCode::WaitingReauthentication => waiting("reauthentication", "identity:1"),
            StuckCode::WaitingVersion => waiting("version", "schema:2"),
            StuckCode::Held => waiting("hold", "hold:acme|slack|1"),
            StuckCode::NotWoken => due("dispatch"),
            StuckCode::NoConsumers => due("assignee_sync"),
        };
        jobs.push((*code, job(database, &columns, &values).await));
    }
    jobs
}

#[tokio::test]
async fn every_planted_code_is_found_with_its_job() {
    let database = TestDatabase::new().await;
    let store = Store::new(database.pool.clone());
    let jobs = planted(&database).await;
    let found = found(&store).await;
    assert_eq!(found.len(), StuckCode::ALL.len(), "{found:?}");
    for ((code, jobs), (planted, job)) in found.iter().zip(&jobs) {
        assert_eq!(code, planted);
        assert!(jobs.contains(job), "{code:?}: {jobs:?} without {job}");
        let right = match code {
            // Unknown outcomes and crash loops are parked; a job of a lane without a replica has
            // no wake-up either.
            StuckCode::Parked => 3,
            StuckCode::NotWoken => 2,
            _ => 1,
        };
        assert_eq!(jobs.len(), right, "{code:?}: {jobs:?}");
    }
}

#[tokio::test]
async fn a_hold_is_named_with_its_author_reason_and_end() {
    let database = TestDatabase::new().await;
    let store = Store::new(database.pool.clone());
    planted(&database).await;
    database
        .rows(
            "INSERT INTO controls (kind, scope, reason, who, expires_at)
             VALUES ('hold', 'acme|slack|1', 'rate limited', 'olga', '2099-01-01 00:00:00Z')",
        )
        .await;
    let row = store.stuck_code(StuckCode::Held, &lanes()).await.unwrap();
    assert_eq!(
        row.examples[0].detail.as_deref(),
        Some("hold:acme|slack|1: olga, rate limited, until 2099-01-01 00:00:00 UTC")
    );
    assert_eq!(row.oldest, Some(row.examples[0].since));
}

#[tokio::test]
async fn jobs_that_move_are_counted_by_no_code() {
    let database = TestDatabase::new().await;
    let store = Store::new(database.pool.clone());
    let live = replica(&database, "dispatch", "1 hour").await;
    let usual = "pipeline, state, due_at";
    job(&database, usual, "'dispatch', 'ready', now()").await;
    job(
        &database,
        usual,
        "'dispatch', 'ready', now() + interval '1 day'",
    )
    .await;
    // It was due for long, and has just been claimed.
    job(
        &database,
        &format!("{usual}, owner, woken_at, last_progress_at"),
        &format!("'dispatch', 'running', now() - interval '1 day', {live}, now(), now() - interval '1 day'"),
    )
    .await;
    job(
        &database,
        &format!("{usual}, wait_reason, wait_key, wait_observed"),
        "'dispatch', 'waiting', now(), 'hold', 'hold:acme|slack|1', 0",
    )
    .await;
    job(
        &database,
        &format!("{usual}, open_children, wait_reason, last_progress_at"),
        "'dispatch', 'waiting', now(), 1, 'children', now() - interval '9 days'",
    )
    .await;
    job(
        &database,
        &format!("{usual}, error_code, first_failed_at"),
        "'dispatch', 'ready', now() + interval '5 s', 'slack.unavailable', now()",
    )
    .await;
    job(
        &database,
        &format!("{usual}, error_code, first_failed_at, finished_at"),
        "'dispatch', 'cancelled', now(), 'unknown_outcome', now(), now()",
    )
    .await;
    assert_eq!(found(&store).await, []);
}

#[tokio::test]
async fn a_code_that_cannot_be_read_leaves_the_others() {
    let database = TestDatabase::new().await;
    let store = Store::new(database.pool.clone());
    planted(&database).await;
    database
        .rows("ALTER TABLE controls RENAME TO controls_away")
        .await;
    let rows = store.stuck(&lanes()).await;
    let unread: Vec<StuckCode> = rows
        .iter()
        .filter(|row| row.error.is_some())
        .map(|row| row.code)
        .collect();
    assert_eq!(unread, [StuckCode::Held]);
    assert!(
        rows.iter()
            .all(|row| row.count.is_some() != row.error.is_some())
    );
}

#[tokio::test]
async fn the_command_and_the_gauge_show_a_parked_job() {
    let world = TestWorld::acme().await;
    let parked = job(
        &world.database,
        "pipeline, state, error_code, first_failed_at",
        "'dispatch', 'parked', 'slack.not_in_channel', now() - interval '1 hour'",
    )
    .await;
    let all = world.dispatch(&["stuck"]).done().await;
    let row = all
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["code"] == "parked"))
        .expect("a row of each code");
    assert_eq!(
        (&row["count"], &row["examples"][0]["id"]),
        (&count(1), &Value::from(parked.to_string()))
    );
    let one = world
        .dispatch(&["stuck", "--code", "no_consumers"])
        .done()
        .await;
    assert_eq!(one["count"], count(0));

    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    wait_for("the gauge of parked jobs", SOON, async || {
        let metrics = worker.metrics().await;
        if metrics.contains("dispatch_stuck{code=\"parked\"} 1") {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    let metrics = worker.metrics().await;
    for code in StuckCode::ALL {
        let series = format!("dispatch_stuck{{code=\"{}\"}}", code.word());
        assert!(metrics.contains(&series), "{metrics}");
    }
}
