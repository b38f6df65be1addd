//! Bulk commands cancel jobs or discard dead letters by a filter, with the same result as one by
//! one, in a few transactions.

use dispatch_worker::store::{Actor, Role, Target};
use serde_json::{Value, json};

use crate::support::{TestDatabase, TestWorld, count};

/// The number of jobs of the burst.
const MANY: usize = 20_000;

/// Defines `job(n)`, whose ids are ordered by `n`.
const NAMES: &str = "
    CREATE FUNCTION job(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid $$;
    CREATE PROCEDURE open_job(n bigint, organization text, state text, wait_reason text, parent bigint, children integer, code text)
    LANGUAGE sql AS $$
        INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, state, wait_reason, wait_key,
            wait_observed, parent_id, open_children, error_code, owner, partial, created_at)
        VALUES (job(n), CASE WHEN parent IS NULL THEN 'dispatch' ELSE 'messaging' END, 'shop', 'k-' || n, organization, 1, '{}',
            'stage', state, wait_reason, wait_reason, CASE WHEN wait_reason IS NULL THEN NULL ELSE 1 END, job(parent), children, code,
            CASE WHEN state = 'running' THEN 1 END, '{}', now() - interval '1 hour') $$";

/// Inserts jobs in every state, with and without follow-ups; their numbers begin after `base`.
async fn families(database: &TestDatabase, base: u32, organization: &str) {
    let mut sql = String::new();
    let mut job = |n: u32, rest: &str| {
        sql += &format!("CALL open_job({}, '{organization}', {rest});", base + n)
    };
    job(1, "'ready', NULL, NULL, 0, NULL");
    job(2, "'running', NULL, NULL, 0, NULL");
    job(3, "'waiting', 'hold', NULL, 0, 'slack.rate_limited'");
    job(4, "'parked', NULL, NULL, 0, 'slack.not_in_channel'");
    job(5, "'waiting', 'children', NULL, 2, NULL");
    for (n, rest) in [
        (6, "'parked', NULL, {parent}, 0, 'slack.not_in_channel'"),
        (7, "'running', NULL, {parent}, 0, NULL"),
        (8, "'succeeded', NULL, {parent}, 0, NULL"),
    ] {
        job(n, &rest.replace("{parent}", &(base + 5).to_string()));
    }
    job(9, "'succeeded', NULL, NULL, 0, NULL");
    job(10, "'cancelled', NULL, NULL, 0, NULL");
    database.rows(&sql).await;
}

/// Returns the rows, events and audit rows of an organization's jobs, without what identifies the
/// organization.
async fn stored(database: &TestDatabase, base: u32, organization: &str) -> Vec<Vec<String>> {
    let of = |n: &str| format!("(('x' || right({n}::text, 12))::bit(48)::bigint - {base})");
    let jobs = format!(
        "SELECT {}, state, epoch, owner, wait_reason, wait_key, wait_observed, open_children, partial, finished_at IS NULL
        FROM jobs WHERE organization = '{organization}' ORDER BY id",
        of("id")
    );
    let events = format!(
        "SELECT {}, routing_key, body ->> 'state', body ->> 'code', publish_after <= now() FROM announcements
        WHERE body ->> 'organization' = '{organization}' ORDER BY 1, 2",
        of("job_id")
    );
    let audit = format!(
        "SELECT {}, who, role, action, before::jsonb, after::jsonb, reason FROM audit_log a WHERE job_id IN
        (SELECT id FROM jobs WHERE organization = '{organization}') ORDER BY 1",
        of("job_id")
    );
    [
        database.rows(&jobs).await,
        database.rows(&events).await,
        database.rows(&audit).await,
    ]
    .concat()
}

fn olga() -> Actor {
    Actor {
        who: "olga".to_owned(),
        role: Role::Admin,
        reason: Some("left".to_owned()),
        request: None,
    }
}

async fn cancelled(world: &TestWorld, filter: &[&str]) -> Value {
    world
        .dispatch(&[&["jobs", "cancel", "--yes", "--reason", "left"], filter].concat())
        .done()
        .await
}

#[tokio::test]
async fn a_bulk_cancel_stores_the_same_as_cancelling_each_job_alone() {
    let world = TestWorld::new().await;
    let database = &world.database;
    database.rows(NAMES).await;
    for (base, organization) in [(0, "one"), (100, "many"), (200, "others")] {
        families(database, base, organization).await;
    }
    let others = stored(database, 200, "others").await;
    for row in database
        .rows("SELECT id FROM jobs WHERE organization = 'one' AND parent_id IS NULL ORDER BY id")
        .await
    {
        world
            .store()
            .cancel(&Target::Id(row[0].parse().unwrap()), &olga())
            .await
            .unwrap();
    }
    let filter = ["--organization", "many"];
    a_dry_run_changes_nothing(&world).await;
    // The filter also matches the follow-ups themselves: each has its own audit row, which is the
    // only difference.
    let said = cancelled(&world, &filter).await;
    assert_eq!(
        (&said["cancelled"], &said["follow_ups_cancelled"]),
        (&json!(7), &json!(0)),
        "{said}"
    );
    let own =
        "DELETE FROM audit_log WHERE job_id IN (SELECT id FROM jobs WHERE parent_id IS NOT NULL)";
    database
        .rows(&format!(
            "ALTER TABLE audit_log DISABLE TRIGGER USER; {own}"
        ))
        .await;
    let (one, many) = (
        stored(database, 0, "one").await,
        stored(database, 100, "many").await,
    );
    let with_follow_ups = |rows: Vec<Vec<String>>| -> Vec<String> {
        rows.concat()
            .into_iter()
            .map(|text| text.replace("\"follow_ups_cancelled\": 2", "\"follow_ups_cancelled\": 0"))
            .collect()
    };
    assert_eq!(with_follow_ups(many), with_follow_ups(one));
    assert_eq!(
        stored(database, 200, "others").await,
        others,
        "other organizations are unchanged"
    );
    let again = world
        .dispatch(&["jobs", "cancel", "--yes", "--organization", "many"])
        .done()
        .await;
    assert_eq!(again["jobs"], count(0), "no job is left: {again}");
    let actions =
        "SELECT action, after::text FROM audit_log WHERE action LIKE 'jobs.%' ORDER BY id";
    let actions = database.rows(actions).await;
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert!(
        actions[0][1].contains("\"organization\":\"many\""),
        "the filter: {actions:?}"
    );
}

async fn a_dry_run_changes_nothing(world: &TestWorld) {
    let seen = world
        .dispatch(&["jobs", "cancel", "--dry-run", "--organization", "many"])
        .done()
        .await;
    assert_eq!(
        (&seen["jobs"], &seen["dry_run"]),
        (&count(7), &json!(true)),
        "{seen}"
    );
    assert_eq!(seen["sample"].as_array().unwrap().len(), 7);
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE organization = 'many' AND epoch > 0")
            .await,
        "0"
    );
}

#[tokio::test]
async fn a_parent_succeeds_when_its_last_follow_ups_are_cancelled_by_their_error_code() {
    let world = TestWorld::new().await;
    let database = &world.database;
    database.rows(NAMES).await;
    families(database, 0, "one").await;
    database.rows("UPDATE jobs SET state = 'parked', owner = NULL, error_code = 'slack.not_in_channel' WHERE id = job(7)").await;
    let said = cancelled(
        &world,
        &[
            "--state",
            "parked",
            "--error-code",
            "slack.not_in_channel",
            "--older-than",
            "30m",
        ],
    )
    .await;
    assert_eq!(said["cancelled"], json!(3), "{said}");
    let parent = database
        .rows(
            "SELECT state, open_children, wait_reason, wait_key, epoch FROM jobs WHERE id = job(5)",
        )
        .await;
    assert_eq!(parent, [["succeeded", "0", "-", "-", "0"]]);
    let events = database
        .rows("SELECT routing_key FROM announcements ORDER BY id")
        .await
        .concat();
    assert_eq!(
        events,
        ["job.cancelled", "job.succeeded"],
        "follow-ups have no events of their own"
    );
    let none = cancelled(&world, &["--state", "ready", "--older-than", "2h"]).await;
    assert_eq!(
        none["jobs"],
        count(0),
        "all were created an hour ago: {none}"
    );
}

#[tokio::test]
async fn twenty_thousand_jobs_are_cancelled_and_twenty_thousand_dead_letters_discarded_in_a_few_transactions()
 {
    let world = TestWorld::new().await;
    let database = &world.database;
    database.rows(NAMES).await;
    let flood = format!(
        "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, state, producer)
        SELECT job(n), 'dispatch', 'shop', 'k-' || n, CASE WHEN n % 100 = 0 THEN 'others' ELSE 'flood' END, 1, '{{}}', 'stage', 'ready',
            CASE WHEN n % 2 = 0 THEN 'bad' ELSE 'worse' END FROM generate_series(1, {MANY}) n;
        INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_body, body_bytes, body_sha256, source, producer)
        SELECT 'not_json', '', 'job', '{{}}', '', 0, '', CASE WHEN n % 100 = 0 THEN 'others' ELSE 'flood' END, 'bad'
        FROM generate_series(1, {MANY}) n"
    );
    database.rows(&flood).await;
    let began = std::time::Instant::now();
    let said = cancelled(&world, &["--organization", "flood", "--producer", "bad"]).await;
    let half = MANY / 2 - MANY / 100;
    assert_eq!(said["cancelled"], json!(half), "{said}");
    let said = cancelled(
        &world,
        &[
            "--organization",
            "flood",
            "--source",
            "shop",
            "--state",
            "ready",
        ],
    )
    .await;
    assert_eq!(said["cancelled"], json!(MANY / 2), "{said}");
    eprintln!(
        "{} jobs cancelled in {:?}",
        MANY - MANY / 100,
        began.elapsed()
    );
    let left = database
        .rows("SELECT state, organization, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1")
        .await;
    assert_eq!(
        left,
        [["cancelled", "flood", "19800"], ["ready", "others", "200"]]
    );
    let events = "SELECT count(DISTINCT job_id), count(*) FROM announcements WHERE routing_key = 'job.cancelled'";
    assert_eq!(database.rows(events).await, [["19800", "19800"]]);
    let transactions = "SELECT count(DISTINCT job_id), count(*), count(DISTINCT xmin::text) FROM audit_log WHERE action = 'cancel'";
    let transactions = database.rows(transactions).await.concat();
    assert_eq!(transactions[..2], ["19800", "19800"]);
    assert!(
        transactions[2].parse::<u32>().unwrap() <= 30,
        "about a thousand jobs in each: {transactions:?}"
    );

    letters_are_discarded_in_a_few_transactions(&world).await;
}

async fn letters_are_discarded_in_a_few_transactions(world: &TestWorld) {
    let database = &world.database;
    let began = std::time::Instant::now();
    let letters = [
        "dead-letters",
        "discard",
        "--code",
        "not_json",
        "--source",
        "flood",
        "--producer",
        "bad",
        "--yes",
    ];
    let seen = world
        .dispatch(&[&letters[..], &["--dry-run"]].concat())
        .done()
        .await;
    assert_eq!(
        (&seen["dead_letters"]["n"], &seen["sample"][9]["source"]),
        (&json!(10_000), &json!("flood")),
        "{seen}"
    );
    assert_eq!(
        database
            .one("SELECT count(*) FROM dead_letters WHERE resolved_at IS NOT NULL")
            .await,
        "0"
    );
    let said = world.dispatch(&letters).done().await;
    assert_eq!(said["discarded"], json!(MANY - MANY / 100), "{said}");
    eprintln!(
        "{} dead letters discarded in {:?}",
        MANY - MANY / 100,
        began.elapsed()
    );
    let left = database
        .rows("SELECT source, count(*) FROM dead_letters WHERE resolved_at IS NULL GROUP BY 1")
        .await;
    assert_eq!(left, [["others", "200"]]);
    let transactions = "SELECT count(*), count(DISTINCT xmin::text) FROM audit_log WHERE action = 'dead_letter.discard'";
    let transactions = database.rows(transactions).await.concat();
    assert_eq!(transactions[0], "19800");
    assert!(
        transactions[1].parse::<u32>().unwrap() <= 12,
        "two thousand dead letters in each: {transactions:?}"
    );
}

#[tokio::test]
async fn a_bulk_cancel_requires_a_complete_filter_and_consent() {
    let world = TestWorld::new().await;
    for wrong in [
        &[][..],
        &["--key", "k"],
        &["--source", "s", "--key", "k", "--organization", "o"],
        &[
            "0195612e-9a00-7000-8000-000000000001",
            "--organization",
            "o",
        ],
        &["--organization", "o", "--state", "succeeded"],
        &["--older-than", "yesterday"],
    ] {
        let said = world
            .dispatch(&[&["jobs", "cancel", "--yes"], wrong].concat())
            .said()
            .await;
        assert_eq!(said.code, Some(2), "{wrong:?}: {said:?}");
    }
    let said = world
        .dispatch(&["jobs", "cancel", "--organization", "o"])
        .said()
        .await;
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("--yes"), "{said:?}");
}
