//! Campaigns: bulk actions in waves, with a verdict for each wave before the next.

mod scale;

use std::time::Duration;

use dispatch_worker::operations;
use dispatch_worker::store::{StepDone, Store};
use serde_json::{Value, json};

use crate::support::{TestDatabase, TestWorld, WAITS_FOR_LOCK, WorkerOptions, count, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// The number of jobs of a group: waves of 1, 10 and 1.
const JOBS: usize = 12;

/// Inserts parked jobs of one group, `job(1)` to `job(count)`.
async fn parked(world: &TestWorld, count: u32) {
    parked_in(&world.database, count).await;
}

async fn parked_in(database: &TestDatabase, count: u32) {
    let sql = format!(
        "CREATE FUNCTION job(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
            SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid $$;
        INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, error_code, fingerprint)
        SELECT job(n), 'dispatch', 'shop', 'k-' || n, 'acme', 1, '{{}}', 'parked', 'check_account', 'slack.not_in_channel', 'f-1'
        FROM generate_series(1, {count}) n"
    );
    database.rows(&sql).await;
}

async fn started(world: &TestWorld, options: &[&str]) -> i64 {
    let start = ["campaigns", "start", "--yes", "--reason", "it is repaired"];
    let said = world.dispatch(&[&start[..], options].concat()).done().await;
    // The ten seconds in which a person may abort it are over.
    world
        .database
        .rows("UPDATE campaigns SET next_at = now()")
        .await;
    said["campaign"].as_i64().unwrap()
}

async fn shown(world: &TestWorld, campaign: i64) -> Value {
    let number = campaign.to_string();
    world.dispatch(&["campaigns", "show", &number]).done().await
}

async fn until(world: &TestWorld, campaign: i64, state: &str) -> Value {
    wait_for(&format!("the campaign to be {state}"), SOON, async || {
        let now = shown(world, campaign).await;
        if now["state"] == state {
            Ok(now)
        } else {
            Err(now)
        }
    })
    .await
}

/// Does steps until no campaign is due.
async fn step_all(store: &Store) -> u64 {
    let mut steps = 0;
    while operations::step_campaign(store).await.unwrap() != StepDone::Nothing {
        steps += 1;
    }
    steps
}

async fn group(world: &TestWorld) -> String {
    world
        .database
        .one("SELECT DISTINCT fingerprint FROM jobs WHERE state = 'parked'")
        .await
}

#[tokio::test]
async fn a_group_that_fails_again_stops_its_campaign_and_is_green_in_waves_after_the_repair() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    for n in 0..JOBS {
        world.publish_lost(&format!("lost-{n}")).await;
    }
    let group = group(&world).await;
    let options = ["--action", "retry", "--group", &group];
    let preview = world
        .dispatch(&[&["campaigns", "preview"][..], &options].concat())
        .done()
        .await;
    assert_eq!(
        (
            &preview["count"],
            preview["sample"].as_array().unwrap().len()
        ),
        (&count(JOBS), 10),
        "{preview}"
    );
    let first = started(&world, &options).await;
    let paused = until(&world, first, "paused").await;
    assert_eq!(
        (&paused["bad"], &paused["open"], &paused["wave"]),
        (&json!(1), &json!(JOBS - 1), &json!(1)),
        "{paused}"
    );
    assert!(
        paused["why"].as_str().unwrap().contains("1 of 1"),
        "{paused}"
    );
    let audit = "SELECT who, role FROM audit_log WHERE action = 'campaign.pause'";
    assert_eq!(world.database.rows(audit).await, [["campaigns", "worker"]]);

    world.publish_lost("later").await;
    assert_eq!(shown(&world, first).await["failed_since"], count(1));
    world.register_new().await;
    let number = first.to_string();
    let resume = ["campaigns", "resume", &number, "--yes"];
    assert_eq!(world.dispatch(&resume).done().await["changed"], json!(true));
    let done = until(&world, first, "finished").await;
    let waves: Vec<i64> = done["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|wave| wave["until"].as_i64().unwrap())
        .collect();
    assert_eq!(waves, [1, 2, 12], "{done}");
    assert_eq!(
        (&done["good"], &done["bad"], &done["unknown"]),
        (&json!(JOBS - 1), &json!(1), &json!(0)),
        "{done}"
    );
    every_job_was_retried_once(&world, &number).await;
}

async fn every_job_was_retried_once(world: &TestWorld, number: &str) {
    let acted = "SELECT count(*), count(DISTINCT job_id) FROM audit_log WHERE action = 'retry' AND who = 'olga'
        AND reason LIKE 'campaign %: it is repaired'";
    assert_eq!(world.database.rows(acted).await, [["12", "12"]]);
    let left = "SELECT count(*) FROM jobs WHERE state = 'parked'";
    assert_eq!(
        world.database.one(left).await,
        "2",
        "the first and the later one"
    );
    let report = world
        .dispatch(&["campaigns", "report", number])
        .said()
        .await;
    let lines: Vec<Value> = report
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), JOBS);
    assert_eq!(
        (&lines[0]["state"], &lines[0]["why"], &lines[0]["stage"]),
        (
            &json!("bad"),
            &json!("it was parked again: unknown_destination"),
            &json!("send_follow_ups")
        )
    );
}

#[tokio::test]
async fn a_campaign_is_paused_resumed_and_aborted_and_acts_only_while_it_runs() {
    let world = TestWorld::new().await;
    parked(&world, 20).await;
    let id = started(
        &world,
        &[
            "--action",
            "cancel",
            "--error-code",
            "slack.*",
            "--per-second",
            "1",
        ],
    )
    .await;
    let number = id.to_string();
    let change = async |verb: &str| {
        world
            .dispatch(&["campaigns", verb, &number, "--yes", "--reason", "a look"])
            .said()
            .await
    };
    let cancelled = async || {
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE state = 'cancelled'")
            .await
    };
    assert_eq!(change("pause").await.code, Some(0));
    let due = "UPDATE campaigns SET next_at = now() - interval '1 hour'";
    world.database.rows(due).await;
    assert_eq!(step_all(&world.store()).await, 0);
    assert_eq!(cancelled().await, "0");
    assert_eq!(change("resume").await.code, Some(0));
    assert_eq!(change("resume").await.code, Some(0), "it runs already");
    world.database.rows(due).await;
    step_all(&world.store()).await;
    let so_far = cancelled().await;
    assert!(
        so_far != "0" && so_far != "20",
        "the rate bounds a burst: {so_far}"
    );
    assert_eq!(change("abort").await.code, Some(0));
    world.database.rows(due).await;
    assert_eq!(step_all(&world.store()).await, 0);
    assert_eq!(cancelled().await, so_far);
    let refused = change("resume").await;
    assert!(
        refused.code == Some(1) && refused.stderr.contains("it is aborted"),
        "{refused:?}"
    );
    let words =
        "SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE action LIKE 'campaign.%'";
    assert_eq!(
        world.database.one(words).await,
        "campaign.start campaign.pause campaign.resume campaign.abort"
    );
}

#[tokio::test]
async fn a_campaign_outlives_the_worker_that_steps_it_and_acts_on_every_job_once() {
    let world = TestWorld::acme().await;
    parked(&world, 60).await;
    let id = started(
        &world,
        &[
            "--action",
            "cancel",
            "--state",
            "parked",
            "--per-second",
            "50",
        ],
    )
    .await;
    let mut client = world.database.pool.get().await.unwrap();
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("SELECT FROM jobs WHERE id = job(30) FOR UPDATE")
        .await
        .unwrap();
    let steps = world.worker(&WorkerOptions::default());
    wait_for(
        "a step that waits for the locked job",
        SOON,
        async || match world.database.one(WAITS_FOR_LOCK).await.as_str() {
            "0" => Err("none"),
            _ => Ok(()),
        },
    )
    .await;
    let _other = world.worker(&WorkerOptions::default());
    steps.kill9().await;
    lock.rollback().await.unwrap();
    let done = until(&world, id, "finished").await;
    assert_eq!(
        (&done["good"], &done["total"]),
        (&json!(60), &json!(60)),
        "{done}"
    );
    let acted = "SELECT count(*), count(DISTINCT job_id) FROM audit_log WHERE action = 'cancel'";
    assert_eq!(world.database.rows(acted).await, [["60", "60"]]);
    assert_eq!(world.database.one("SELECT max(epoch) FROM jobs").await, "1");
}

#[tokio::test]
async fn jobs_that_cannot_be_retried_are_refused_with_the_reason_of_the_action_on_one_job() {
    let world = TestWorld::new().await;
    parked(&world, 3).await;
    let changes = "UPDATE jobs SET state = 'succeeded', finished_at = now() WHERE id = job(1);
        UPDATE jobs SET state = 'waiting', wait_reason = 'children', wait_key = 'children' WHERE id = job(2)";
    world.database.rows(changes).await;
    let ids = world
        .database
        .rows("SELECT job(1), job(2), job(3)")
        .await
        .concat();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let options = [&["--action", "retry"][..], &ids].concat();
    let preview = world
        .dispatch(&[&["campaigns", "preview"][..], &options].concat())
        .done()
        .await;
    let refused = preview["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 2, "{preview}");
    let id = started(&world, &options).await;
    wait_for("every item to be acted on", SOON, async || {
        step_all(&world.store()).await;
        let now = shown(&world, id).await;
        if now["open"] == 0 { Ok(()) } else { Err(now) }
    })
    .await;
    let items = world.store().campaign_items(id, 0, 10).await.unwrap();
    let states: Vec<&str> = items.iter().map(|item| item.state.as_str()).collect();
    assert_eq!(states, ["refused", "refused", "acted"]);
    let why = |n: usize| items[n].why.as_deref().unwrap();
    assert!(
        why(0).contains("dedupe_key") && why(1).contains("follow-ups"),
        "{items:?}"
    );
    // The page after an item begins with the next one.
    let rest = world.store().campaign_items(id, 2, 10).await.unwrap();
    assert_eq!(rest.iter().map(|item| item.n).collect::<Vec<_>>(), [3]);
    world
        .database
        .rows("UPDATE campaign_items SET acted_at = now() - interval '2 minutes' WHERE state = 'acted'; UPDATE campaigns SET next_at = now()")
        .await;
    step_all(&world.store()).await;
    let done = shown(&world, id).await;
    assert_eq!(
        (&done["state"], &done["refused"], &done["unknown"]),
        (&json!("finished"), &json!(2), &json!(1)),
        "{done}"
    );
    let old = "UPDATE campaigns SET finished_at = now() - interval '91 days'";
    world.database.rows(old).await;
    let now = time::OffsetDateTime::now_utc();
    while world.store().forget_campaigns(now).await.unwrap() {}
    let left = "SELECT (SELECT count(*) FROM campaigns) + (SELECT count(*) FROM campaign_items)";
    assert_eq!(world.database.one(left).await, "0");
}

#[tokio::test]
async fn wrong_filters_are_refused_and_duplicates_must_be_accepted() {
    let world = TestWorld::new().await;
    parked(&world, 2).await;
    for wrong in [
        &["--organization", "acme"][..],
        &[],
        &["--state", "running"],
        &["--error-code", "*"],
        &["--group", "f-1", "--state", "waiting"],
        &["--state", "parked", "--per-second", "0"],
        &["--state", "parked", "--stop-at", "101"],
        &["--state", "parked", "--accepted-since", "yesterday"],
        &["--state", "parked", "--reason", " "],
    ] {
        let start = ["campaigns", "start", "--action", "retry", "--yes"];
        let reason = if wrong.contains(&"--reason") {
            &[][..]
        } else {
            &["--reason", "x"]
        };
        let said = world
            .dispatch(&[&start[..], reason, wrong].concat())
            .said()
            .await;
        assert_eq!(said.code, Some(2), "{wrong:?}: {said:?}");
        assert!(said.stderr.contains("expected"), "{wrong:?}: {said:?}");
    }
    let effect = "INSERT INTO effects (job_id, key, generation, stage, target, class, state, detail, epoch, deadline_at)
        VALUES (job(1), 'k', 1, 'deliver_message', 'chat', 'K3', 'unknown', '{}', 1, now())";
    world.database.rows(effect).await;
    let options = ["--action", "retry", "--state", "parked"];
    let preview = world
        .dispatch(&[&["campaigns", "preview"][..], &options].concat())
        .done()
        .await;
    assert_eq!(
        preview["effects"],
        json!([{"class": "K3", "jobs": 1, "effects": 1}])
    );
    let start = ["campaigns", "start", "--yes", "--reason", "x"];
    let said = world
        .dispatch(&[&start[..], &options].concat())
        .said()
        .await;
    assert!(
        said.code == Some(1) && said.stderr.contains("--duplicates 1"),
        "{said:?}"
    );
    assert_eq!(
        world.database.one("SELECT count(*) FROM campaigns").await,
        "0"
    );
    started(&world, &[&options[..], &["--duplicates", "1"]].concat()).await;
    let none = ["--action", "retry", "--group", "nobody"];
    let said = world.dispatch(&[&start[..], &none].concat()).said().await;
    assert!(
        said.code == Some(1) && said.stderr.contains("matches none"),
        "{said:?}"
    );
}
