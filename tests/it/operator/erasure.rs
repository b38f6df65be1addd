//! Erasure of a person or an organization: only the pseudonym is left in the columns of all
//! tables, and the data of others is unchanged.

use std::time::Duration;

use dispatch_worker::job::JobState;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::{
    TestDatabase, TestWorld, WAITS_FOR_LOCK, WorkerOptions, acme, intake, wait_for,
};

const SOON: Duration = Duration::from_secs(30);

/// Returns every row of every table as text, with the table's name in front.
async fn dump(database: &TestDatabase) -> Vec<String> {
    let tables = "SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
        AND c.relname <> 'refinery_schema_history' ORDER BY 1";
    let mut rows = Vec::new();
    for table in database.rows(tables).await.concat() {
        let of_table = database
            .rows(&format!(
                "SELECT '{table}: ' || t::text FROM {table} t ORDER BY 1"
            ))
            .await;
        rows.extend(of_table.concat());
    }
    rows
}

/// Returns the rows that contain one of these texts, ignoring case.
fn naming<'d>(dump: &'d [String], texts: &[String]) -> Vec<&'d String> {
    dump.iter()
        .filter(|row| {
            texts
                .iter()
                .any(|text| row.to_lowercase().contains(&text.to_lowercase()))
        })
        .collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Publishes a job whose event assigns the work item to Ann, and waits until it succeeds.
async fn assigned(world: &TestWorld, key: &str, item: i64) {
    let event = world.assign(item, Some(acme::ANN)).await;
    world.publish_job(&acme::job(key, &event)).await;
    world.wait_job_state(key, JobState::Succeeded, SOON).await;
}

async fn letters(world: &TestWorld, expected: usize) {
    wait_for("the dead letters", SOON, async || {
        match world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await
        {
            count if count == expected.to_string() => Ok(()),
            count => Err(count),
        }
    })
    .await;
}

/// Produces typical data: jobs with their history, dead letters of this organization and of
/// others, holds, actions of operators.
async fn a_week(world: &TestWorld) {
    let worker = world.worker(&WorkerOptions::default());
    assigned(world, "canaries-1", acme::WORK_ITEM).await;
    assigned(world, "canaries-2", acme::LONE_ITEM).await;
    let mut of_others = acme::job("others", &Value::Null);
    (of_others["organization"], of_others["account"]) = (json!("aside"), Value::Null);
    (of_others["events"], of_others["notify"]) = (json!([]), json!([]));
    world.publish_job(&of_others).await;
    let mut later = acme::job("later", &Value::Null);
    let in_a_week = (OffsetDateTime::now_utc() + Duration::from_secs(7 * 86_400))
        .format(&Rfc3339)
        .unwrap();
    (later["events"], later["not_before"]) = (json!([]), json!(in_a_week));
    world.publish_job(&later).await;
    world.wait_job_state("later", JobState::Ready, SOON).await;
    world.wait_quiet(SOON).await;
    let refused = json!({"schema": 1, "source": "tests", "dedupe_key": "refused-acme", "organization": "acme", "events": 7});
    world.publish_raw(&intake(refused.to_string())).await;
    world
        .publish_raw(&intake(format!("not JSON of {}", acme::ANN)))
        .await;
    let of_others = json!({"schema": 1, "source": "tests", "dedupe_key": "of-others", "organization": "aside", "events": "acme"});
    world.publish_raw(&intake(of_others.to_string())).await;
    letters(world, 3).await;
    worker.kill9().await;
    let database = &world.database;
    let refused = database
        .one("SELECT id FROM dead_letters WHERE dedupe_key = 'refused-acme'")
        .await;
    for action in [
        &[
            "jobs",
            "retry",
            "--source",
            "tests",
            "--key",
            "later",
            "--yes",
            "--reason",
            "Ann asked, ann@acme.example",
        ][..],
        &[
            "dead-letters",
            "discard",
            &refused,
            "--yes",
            "--reason",
            "bad",
        ],
        &[
            "destinations",
            "disable",
            "keyed",
            "--organization",
            "acme",
            "--yes",
            "--reason",
            "Acme has left",
        ],
    ] {
        let said = world.dispatch(action).said().await;
        assert_eq!(said.code, Some(0), "{action:?}: {said:?}");
    }
    database.rows(
        "INSERT INTO controls (kind, scope, reason, who, expires_at) VALUES ('hold', 'acme|slack|C1', 'Ann', 'ann@acme.example', now()),
            ('hold', 'aside|slack|C1', 'slow', 'olga', now());
        INSERT INTO audit_log (who, role, action, before) VALUES ('Ann', 'operator', 'tracker.import', '{\"by\": \"ANN\\u0040acme.example\"}')",
    )
    .await;
}

#[tokio::test]
async fn an_erased_organization_is_left_in_no_column_and_others_keep_everything() {
    let world = TestWorld::acme().await;
    let database = &world.database;
    a_week(&world).await;
    let canaries = canaries_of_acme(database).await;
    let before = dump(database).await;
    let planted = naming(&before, &canaries).len();
    assert!(planted > 60, "{planted}");

    is_refused_while_a_job_is_open(&world).await;
    world
        .dispatch(&["jobs", "cancel", "--organization", "acme", "--yes"])
        .done()
        .await;

    let before = dump(database).await;
    let dry = world
        .dispatch(&["erase", "organization", "acme"])
        .done()
        .await;
    assert_eq!(dry["dry_run"], json!(true), "{dry}");
    assert_eq!(dump(database).await, before, "nothing was changed");
    for table in [
        "jobs",
        "checkpoints",
        "dead_letters",
        "audit_log",
        "users",
        "identities",
        "destinations",
        "group_history",
    ] {
        assert!(
            dry["rows"][table].as_u64().is_some_and(|rows| rows > 0),
            "{table}: {dry}"
        );
    }
    let done = world
        .dispatch(&[
            "erase",
            "organization",
            "acme",
            "--yes",
            "--reason",
            "Acme asked",
        ])
        .done()
        .await;
    assert_eq!(
        (&done["dry_run"], &done["pseudonym"]),
        (&json!(false), &dry["pseudonym"])
    );
    let after = dump(database).await;
    assert_eq!(naming(&after, &canaries), Vec::<&String>::new());
    let pseudonym = done["pseudonym"].as_str().unwrap();
    assert!(naming(&after, &texts(&[pseudonym])).len() > 3, "{after:#?}");
    assert!(
        after
            .iter()
            .any(|row| row.starts_with("audit_log:") && row.contains("destination")),
        "the audit row of the action is kept: {after:#?}"
    );

    others_keep_everything(database).await;
    let again = world
        .dispatch(&["erase", "organization", "acme", "--yes"])
        .said()
        .await;
    assert!(
        again.code == Some(1) && again.stderr.contains("expected a organization, got `acme`"),
        "{again:?}"
    );
}

/// Returns what names the organization: texts, and the ids of its jobs.
async fn canaries_of_acme(database: &TestDatabase) -> Vec<String> {
    let mut canaries = texts(&[
        "\"acme\"",
        "acme|",
        "ann@acme.example",
        "ann\\u0040acme",
        "bob@acme.example",
        "contoso",
        "WEB-1",
        "WEB-2",
        "Login is slow",
        "canaries-1",
        "canaries-2",
        "refused-acme",
        "(Acme",
        ",Acme,",
        &acme::account_id(),
    ]);
    canaries.extend(
        database
            .rows("SELECT id FROM jobs WHERE organization = 'acme'")
            .await
            .concat(),
    );
    canaries
}

async fn is_refused_while_a_job_is_open(world: &TestWorld) {
    let database = &world.database;
    let before = dump(database).await;
    let refused = world
        .dispatch(&["erase", "organization", "acme", "--yes"])
        .said()
        .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let live = database
        .one("SELECT id FROM jobs WHERE dedupe_key = 'later'")
        .await;
    for part in [live.as_str(), "jobs cancel --organization acme"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert_eq!(dump(database).await, before, "nothing was changed");
}

async fn others_keep_everything(database: &TestDatabase) {
    let others = [
        "SELECT name FROM organizations",
        "SELECT dedupe_key FROM jobs",
        "SELECT dedupe_key FROM dead_letters",
        "SELECT scope FROM controls",
    ];
    for (sql, kept) in others
        .into_iter()
        .zip(["Aside", "others", "of-others", "aside|slack|C1"])
    {
        assert_eq!(database.one(sql).await, kept);
    }
    assert_eq!(database.one("SELECT count(*) FROM destinations").await, "3");
}

#[tokio::test]
async fn no_column_names_an_erased_person_and_others_are_named_as_before() {
    let world = TestWorld::acme().await;
    let database = &world.database;
    a_week(&world).await;
    world
        .dispatch(&["jobs", "cancel", "--source", "tests", "--yes"])
        .done()
        .await;
    database.rows("UPDATE destinations SET config = '{\"from\": \"bot@aside.example\", \"to\": [\"Ann <ann@acme.example>\", \"bob@acme.example\"]}' WHERE name = 'mail'").await;
    let ann = database
        .one("SELECT user_id FROM user_emails WHERE email = 'ann@acme.example'")
        .await;
    let names = texts(&[
        acme::ANN,
        "ann\\u0040",
        "\"Ann\"",
        "Ann <",
        "(Ann,",
        ",Ann,",
        ",Ann)",
        "Ann asked",
    ]);
    let before = dump(database).await;
    let bob = naming(&before, &texts(&[acme::BOB])).len();
    assert!(naming(&before, &names).len() > 15, "{before:#?}");

    an_open_job_prevents_it_until_it_is_cancelled(&world).await;

    let before = dump(database).await;
    let dry = world.dispatch(&["erase", "person", &ann]).done().await;
    assert_eq!(
        (&dry["dry_run"], dump(database).await),
        (&json!(true), before)
    );
    let done = world
        .dispatch(&[
            "erase",
            "person",
            "ann@ACME.example",
            "--yes",
            "--reason",
            "Ann asked",
        ])
        .done()
        .await;
    let pseudonym = done["pseudonym"].as_str().unwrap();
    assert_eq!(done["pseudonym"], dry["pseudonym"]);
    let after = dump(database).await;
    assert_eq!(naming(&after, &names), Vec::<&String>::new());
    assert_eq!(
        naming(&after, &texts(&[acme::BOB])).len(),
        bob,
        "Bob is named as before"
    );
    only_the_pseudonym_is_left(database, pseudonym).await;
}

async fn only_the_pseudonym_is_left(database: &TestDatabase, pseudonym: &str) {
    assert_eq!(database.one("SELECT count(*) FROM users").await, "1");
    assert_eq!(
        database
            .one("SELECT count(*) FROM group_assignees WHERE user_id IS NOT NULL")
            .await,
        "0"
    );
    let history = database.rows("SELECT DISTINCT after FROM group_history WHERE field = 'assignee' AND after IS NOT NULL").await;
    assert_eq!(
        history,
        [[pseudonym]],
        "the history keeps a pseudonymous assignee"
    );
    assert_eq!(
        database
            .one("SELECT config ->> 'to' FROM destinations WHERE name = 'mail'")
            .await,
        "[\"bob@acme.example\"]"
    );
    let who = database
        .rows("SELECT DISTINCT who FROM audit_log WHERE action = 'tracker.import'")
        .await;
    assert_eq!(who, [[pseudonym]]);
    assert_eq!(
        database.one("SELECT count(*) FROM dead_letters").await,
        "2",
        "one of three named her"
    );
}

/// An open job that names the person prevents the erasure.
async fn an_open_job_prevents_it_until_it_is_cancelled(world: &TestWorld) {
    let waits = "UPDATE jobs SET state = 'parked', finished_at = NULL WHERE dedupe_key = 'canaries-1' AND parent_id IS NULL RETURNING id";
    let live = world.database.one(waits).await;
    let refused = world
        .dispatch(&["erase", "person", "ann@ACME.example", "--yes"])
        .said()
        .await;
    assert!(
        refused.code == Some(1) && refused.stderr.contains(&live),
        "{refused:?}"
    );
    world
        .dispatch(&["jobs", "cancel", &live, "--yes"])
        .done()
        .await;
}

#[tokio::test]
async fn a_killed_erasure_completes_when_repeated() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    assigned(&world, "canaries-1", acme::WORK_ITEM).await;
    world.wait_quiet(SOON).await;
    worker.kill9().await;
    let mut other = world.pool().get().await.unwrap();
    let held = other.transaction().await.unwrap();
    held.execute(
        "SELECT 1 FROM organizations WHERE slug = 'acme' FOR UPDATE",
        &[],
    )
    .await
    .unwrap();
    let mut erasure = world
        .dispatch(&["erase", "organization", "acme", "--yes"])
        .start();
    wait_for("the last statement of the erasure", SOON, async || {
        if world.database.one(WAITS_FOR_LOCK).await == "1" {
            Ok(())
        } else {
            Err("not there yet")
        }
    })
    .await;
    erasure.kill().await.unwrap();
    held.commit().await.unwrap();
    drop(other);
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM organizations WHERE slug = 'acme'")
            .await,
        "1"
    );
    world
        .dispatch(&["erase", "organization", "acme", "--yes"])
        .done()
        .await;
    let after = dump(&world.database).await;
    assert_eq!(
        naming(
            &after,
            &texts(&["\"acme\"", "ann@acme.example", "contoso", "Login is slow"])
        ),
        Vec::<&String>::new()
    );
    let pseudonyms =
        "SELECT count(DISTINCT after ->> 'pseudonym') FROM audit_log WHERE action LIKE 'eras%'";
    assert_eq!(world.database.one(pseudonyms).await, "1");
}

#[tokio::test]
async fn the_audit_log_refuses_every_other_change() {
    let world = TestWorld::new().await;
    world.database.rows("INSERT INTO audit_log (who, role, action, reason) VALUES ('ann', 'operator', 'cancel', 'by ann')").await;
    let client = world.pool().get().await.unwrap();
    for refused in [
        "UPDATE audit_log SET who = 'x'",
        "SET dispatch.erasing = 'on'; UPDATE audit_log SET action = 'x'",
        "SET dispatch.erasing = 'on'; UPDATE audit_log SET who = 'x', at = now() - interval '1 day'",
        "SET dispatch.erasing = 'on'; DELETE FROM audit_log",
        "SELECT erase_from_audit(0, 10, 'ann', 'somebody else', NULL, NULL, '{}')",
    ] {
        let error = client.batch_execute(refused).await.unwrap_err();
        assert_eq!(
            error.code().map(|code| code.code()),
            Some("P0001"),
            "{refused}: {error:?}"
        );
        client
            .batch_execute("RESET dispatch.erasing")
            .await
            .unwrap();
    }
    let rights = "SELECT has_function_privilege('public', p.oid, 'EXECUTE') FROM pg_proc p WHERE proname = 'erase_from_audit'";
    assert_eq!(
        world.database.one(rights).await,
        "f",
        "only the owner may call it"
    );
    client
        .batch_execute("SELECT erase_from_audit(0, 10, 'ann', 'erased-0123abcd', NULL, NULL, '{}')")
        .await
        .unwrap();
    let rows = world
        .database
        .rows("SELECT who, role, action, reason FROM audit_log ORDER BY id")
        .await;
    assert_eq!(
        rows[0],
        [
            "erased-0123abcd",
            "operator",
            "cancel",
            "by erased-0123abcd"
        ]
    );
    assert_eq!(rows[1][2], "audit.erase", "the erasure is audited");
}
