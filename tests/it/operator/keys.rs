//! Key rotation: every stored value is sealed with another key while workers run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::job::JobState;
use dispatch_worker::message::interaction_of;
use dispatch_worker::secrets::{Keyring, Place, key_of};
use dispatch_worker::tracker::{SealedTracker, Tracker};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::support::{Dispatch, TestWorld, WorkerOptions, acme, dead_letter, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// The keyring settings of a rotation from `k1` to `k2`.
struct Keys {
    /// The new key first, the old one behind it.
    both: String,
    /// The new key alone, as after the rotation.
    new: String,
}

impl Keys {
    fn of(world: &TestWorld) -> Self {
        let new = Keyring::fresh_setting()
            .expose_secret()
            .replace("k1:", "k2:");
        Self {
            both: format!("{new},{}", world.keyring_setting.expose_secret()),
            new,
        }
    }

    fn new_alone(&self) -> Keyring {
        Keyring::parse(&SecretString::from(self.new.clone())).unwrap()
    }

    fn rotate(&self, world: &TestWorld) -> Dispatch {
        world
            .dispatch(&["keys", "rotate", "--batch", "7", "--yes"])
            .env("DISPATCH_KEYRING", &self.both)
    }
}

/// Returns the options of a worker with this keyring.
fn with_keyring(keyring: &str) -> WorkerOptions {
    let environment = BTreeMap::from([("DISPATCH_KEYRING".to_owned(), keyring.to_owned())]);
    WorkerOptions {
        environment,
        ..WorkerOptions::default()
    }
}

async fn keep_letter(world: &TestWorld, body: &str) -> i64 {
    world
        .store()
        .keep_dead_letter(&world.keyring, &dead_letter(body))
        .await
        .unwrap()
}

/// Counts the values of each column that are sealed with a key, as `table.column=values`.
async fn counted(world: &TestWorld, keyring: &str, key: &str) -> Vec<String> {
    let said = world
        .dispatch(&["keys", "list"])
        .env("DISPATCH_KEYRING", keyring)
        .done()
        .await;
    let of_key = said["values"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|count| count["key"] == key);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    of_key
        .map(|count| {
            format!(
                "{}.{}={}",
                text(&count["table"]),
                text(&count["column"]),
                count["values"]
            )
        })
        .collect()
}

/// Adds a click with this token to the simulator. Returns the `interaction` of a job for it.
async fn click(world: &TestWorld, token: &str) -> Value {
    let click = State::new().click("7", token, None);
    world
        .simulator()
        .await
        .client
        .merge_state(&click)
        .await
        .unwrap();
    json!({"application_id": "7", "token": token})
}

/// Creates a job that has an interaction's token and waits for an account.
async fn waiting_job(world: &TestWorld, event: &Value) {
    let mut message = acme::job("waits", event);
    message["account"] = Value::Null;
    message["interaction"] = click(world, "canary-interaction").await;
    world.publish_job(&message).await;
    world.wait_job_state("waits", JobState::Waiting, SOON).await;
}

/// Rotates a webhook's secret; its receiver knows only the previous one.
async fn rotated_secret(world: &TestWorld) {
    let rotate = [
        "destinations",
        "rotate-secret",
        acme::KEYED,
        "--organization",
        "acme",
        "--keep-for",
        "1h",
        "--yes",
    ];
    world
        .dispatch(&rotate)
        .stdin(acme::NEW_WEBHOOK_SECRET)
        .done()
        .await;
}

async fn payload(world: &TestWorld) -> String {
    world
        .database
        .one("SELECT payload::text FROM jobs WHERE dedupe_key = 'waits'")
        .await
}

#[tokio::test]
async fn after_a_rotation_the_new_key_alone_opens_everything() {
    let world = TestWorld::acme().await;
    let keys = Keys::of(&world);
    rotated_secret(&world).await;
    let worker = world.worker(&WorkerOptions::default());
    // The event contains text that looks like sealed values.
    let event = json!({"sealed_token": "v1.k1.aaaa.bbbb", "nul": "a\u{0}b", "interaction": {"sealed_token": "v1.k1.cc.dd"}});
    waiting_job(&world, &event).await;
    let newer =
        json!({"schema": 2, "source": acme::SOURCE, "dedupe_key": "newer", "organization": "acme"});
    world.publish_job(&newer).await;
    world.wait_job_state("newer", JobState::Waiting, SOON).await;
    let letter = keep_letter(&world, "canary-body").await;
    worker.kill9().await;
    let before = payload(&world).await;
    let everything = counted(&world, world.keyring_setting.expose_secret(), "k1").await;
    let columns: Vec<&str> = everything
        .iter()
        .filter_map(|count| Some(count.split_once('=')?.0))
        .collect();
    let expected = [
        "identities.access_token",
        "identities.refresh_token",
        "destinations.secret",
        "destinations.previous_secret",
        "jobs.sealed_payload",
        "jobs.payload.interaction.token",
        "dead_letters.sealed_body",
        "dead_letters.sealed_headers",
    ];
    assert_eq!(columns, expected);
    keys.rotate(&world).done().await;
    assert_eq!(counted(&world, &keys.new, "k2").await, everything);
    assert_eq!(counted(&world, &keys.new, "k1").await, Vec::<String>::new());
    assert_eq!(
        world
            .database
            .one("SELECT max(version) FROM identities")
            .await,
        "1",
        "the tokens themselves do not change"
    );

    let after = payload(&world).await;
    let sealed = |payload: &str| interaction_of(payload).unwrap().sealed_token;
    let (old, new) = (sealed(&before), sealed(&after));
    assert_eq!(
        after,
        before.replace(&old, &new),
        "nothing else in the payload changes"
    );
    let ring = keys.new_alone();
    let opened = |table, column, row: &str, sealed: &str| {
        String::from_utf8(ring.open(Place { table, column, row }, sealed).unwrap()).unwrap()
    };
    let job = world.job_by_key("waits").await.unwrap().id.to_string();
    assert_eq!(
        opened("jobs", "payload.interaction.token", &job, &new),
        "canary-interaction"
    );
    let tracker = Tracker::new(world.pool().clone());
    let clicked = SealedTracker::new(tracker, Arc::new(keys.new_alone()))
        .interaction(world.job_by_key("waits").await.unwrap().id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        clicked.token.expose_secret(),
        "canary-interaction",
        "regardless of the content of its events"
    );
    let previous = "SELECT id, previous_secret FROM destinations WHERE previous_secret IS NOT NULL";
    let previous = world.database.rows(previous).await.concat();
    assert_eq!(
        opened(
            "destinations",
            "previous_secret",
            &previous[0],
            &previous[1]
        ),
        acme::WEBHOOK_SECRET
    );
    let sealed = world
        .database
        .one("SELECT sealed_body FROM dead_letters")
        .await;
    assert_eq!(
        opened("dead_letters", "sealed_body", &letter.to_string(), &sealed),
        "canary-body"
    );
    let sealed = world
        .database
        .one("SELECT sealed_payload FROM jobs WHERE dedupe_key = 'newer'")
        .await;
    let job = world.job_by_key("newer").await.unwrap().id.to_string();
    assert_eq!(
        opened("jobs", "sealed_payload", &job, &sealed),
        newer.to_string()
    );

    let _worker = world.worker(&with_keyring(&keys.new));
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("after", &event)).await;
    world
        .wait_job_state("after", JobState::Succeeded, SOON)
        .await;
    world
        .publish_configure(
            world.job_by_key("waits").await.unwrap().id,
            &acme::account_id(),
        )
        .await;
    world
        .wait_job_state("waits", JobState::Succeeded, SOON)
        .await;
    let clicks = world
        .simulator()
        .await
        .client
        .state()
        .await
        .unwrap()
        .discord
        .clicks;
    assert!(
        !clicks["canary-interaction"].posted.is_empty(),
        "the click was answered"
    );
    let again = keys.rotate(&world).done().await;
    assert!(
        again["resealed"]
            .as_array()
            .unwrap()
            .iter()
            .all(|column| column["values"] == 0),
        "{again}"
    );
}

/// Waits until the rotation waits for a row of this table that the test has locked.
async fn blocked(world: &TestWorld, table: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'
            AND query LIKE '%FROM {table} t %FOR NO KEY UPDATE%'",
        world.database.name
    );
    wait_for("the rotation to wait for a row", SOON, async || match world
        .database
        .one(&sql)
        .await
        .as_str()
    {
        "0" => Err("it does not wait"),
        _ => Ok(()),
    })
    .await;
}

#[tokio::test]
async fn a_rotation_overwrites_no_concurrent_change_and_can_be_continued_after_a_kill() {
    let world = TestWorld::acme().await;
    let keys = Keys::of(&world);
    for n in 0..30 {
        keep_letter(&world, &n.to_string()).await;
    }
    let (mut one, mut other) = (
        world.pool().get().await.unwrap(),
        world.pool().get().await.unwrap(),
    );
    let refresh = one.transaction().await.unwrap();
    let row = refresh
        .query_one(
            "SELECT id FROM identities WHERE name = 'bot' FOR UPDATE",
            &[],
        )
        .await
        .unwrap();
    let held = other.transaction().await.unwrap();
    held.execute("SELECT 1 FROM dead_letters WHERE id = 11 FOR UPDATE", &[])
        .await
        .unwrap();
    let letters = "dead_letters.sealed_body=30".to_owned();
    assert!(
        counted(&world, world.keyring_setting.expose_secret(), "k1")
            .await
            .contains(&letters)
    );
    let mut rotation = keys.rotate(&world).start();
    blocked(&world, "identities").await;
    // Meanwhile, a worker that seals with the old key saves a token.
    let id: i64 = row.get("id");
    let place = Place {
        table: "identities",
        column: "access_token",
        row: &id.to_string(),
    };
    let saved = world.keyring.seal(place, b"saved-meanwhile");
    refresh
        .execute(
            "UPDATE identities SET access_token = $1, version = version + 1 WHERE id = $2",
            &[&saved, &id],
        )
        .await
        .unwrap();
    refresh.commit().await.unwrap();
    wait_for(
        "all dead letters but the locked one to be resealed",
        SOON,
        async || {
            let left = world
                .database
                .rows("SELECT id FROM dead_letters WHERE sealed_body LIKE 'v1.k1.%'")
                .await
                .concat();
            if left == ["11"] {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        },
    )
    .await;
    blocked(&world, "dead_letters").await;
    rotation.kill().await.unwrap();
    held.commit().await.unwrap();
    let identity = world
        .database
        .rows(&format!(
            "SELECT access_token, version FROM identities WHERE id = {id}"
        ))
        .await
        .concat();
    assert_eq!(key_of(&identity[0]), Some("k2"));
    assert_eq!(
        keys.new_alone().open(place, &identity[0]).unwrap(),
        b"saved-meanwhile"
    );
    assert_eq!(identity[1], "2", "only the save increments it");

    let again = keys.rotate(&world).done().await;
    let resealed: Vec<&Value> = again["resealed"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|column| column["values"] != 0)
        .collect();
    let of_letters = |column: &str, values: u64| json!({"table": "dead_letters", "column": column, "values": values});
    assert_eq!(
        resealed,
        [
            &of_letters("sealed_body", 1),
            &of_letters("sealed_headers", 30)
        ]
    );
    assert_eq!(counted(&world, &keys.new, "k1").await, Vec::<String>::new());
    let audit = world
        .database
        .rows("SELECT action FROM audit_log ORDER BY id")
        .await
        .concat();
    assert_eq!(
        audit,
        ["keys.rotate", "keys.rotate", "keys.rotated"],
        "the killed rotation has begun and has not ended"
    );
}

#[tokio::test]
async fn a_value_that_cannot_be_opened_is_reported_and_the_others_are_resealed() {
    let world = TestWorld::acme().await;
    let keys = Keys::of(&world);
    let (first, second) = (
        keep_letter(&world, "a").await,
        keep_letter(&world, "b").await,
    );
    let moved = format!(
        "UPDATE dead_letters SET sealed_body = (SELECT sealed_body FROM dead_letters WHERE id = {second}) WHERE id = {first}"
    );
    world.database.rows(&moved).await;
    let (code, said) = keys.rotate(&world).answer().await;
    assert_eq!(code, Some(1));
    assert_eq!(said["unopened"].as_array().unwrap().len(), 1);
    assert_eq!(said["unopened"][0]["row"], first.to_string());
    assert_eq!(
        counted(&world, &keys.both, "k1").await,
        ["dead_letters.sealed_body=1"]
    );
    let unasked = world.dispatch(&["keys", "rotate"]).said().await;
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
}

/// Publishes jobs with interactions, each with a new event. Returns their keys.
async fn publish_clicked(world: &TestWorld, batch: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for (n, assignee) in [acme::ANN, acme::BOB, acme::ANN, acme::BOB]
        .into_iter()
        .enumerate()
    {
        let key = format!("{batch}-{n}");
        let event = world.assign(acme::LONE_ITEM, Some(assignee)).await;
        let mut message = acme::job(&key, &event);
        message["interaction"] = click(world, &format!("canary-{key}")).await;
        world.publish_job(&message).await;
        keys.push(key);
    }
    keys
}

/// Returns the tables that contain any value sealed with a key, whether the program knows the
/// column or not.
async fn tables_with(world: &TestWorld, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for table in world
        .database
        .rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        .await
        .concat()
    {
        let sql = format!("SELECT count(*) FROM {table} t WHERE strpos(t::text, 'v1.{key}.') > 0");
        if world.database.one(&sql).await != "0" {
            found.push(table);
        }
    }
    found
}

#[tokio::test]
async fn jobs_that_arrive_during_a_rotation_succeed_and_nothing_stays_sealed_with_the_old_key() {
    let world = TestWorld::acme().await;
    let keys = Keys::of(&world);
    rotated_secret(&world).await;
    keep_letter(&world, "canary-body").await;
    let mut old = world.worker(&WorkerOptions::default());
    waiting_job(
        &world,
        &world.assign(acme::LONE_ITEM, Some(acme::BOB)).await,
    )
    .await;
    old.terminate();
    old.wait_exit(SOON).await;
    assert!(
        tables_with(&world, "k1")
            .await
            .contains(&"destinations".to_owned()),
        "the search finds values of the old key"
    );

    let worker = world.worker(&with_keyring(&keys.both));
    worker.ready().await;
    // Locks on rows that no job needs delay the rotation at its beginning and at its end.
    let (mut one, mut other) = (
        world.pool().get().await.unwrap(),
        world.pool().get().await.unwrap(),
    );
    let beginning = one.transaction().await.unwrap();
    beginning
        .execute(
            "SELECT 1 FROM identities WHERE name = 'spare' FOR UPDATE",
            &[],
        )
        .await
        .unwrap();
    let mut rotation = keys.rotate(&world).start();
    blocked(&world, "identities").await;
    let mut published = publish_clicked(&world, "early").await;
    world
        .publish_configure(
            world.job_by_key("waits").await.unwrap().id,
            &acme::account_id(),
        )
        .await;
    let end = other.transaction().await.unwrap();
    end.execute("SELECT 1 FROM dead_letters FOR UPDATE", &[])
        .await
        .unwrap();
    beginning.commit().await.unwrap();
    blocked(&world, "dead_letters").await;
    published.extend(publish_clicked(&world, "late").await);
    end.commit().await.unwrap();
    let ended = tokio::time::timeout(SOON, rotation.wait())
        .await
        .expect("it ends in time")
        .unwrap();
    assert!(ended.success(), "{ended}");

    published.push("waits".to_owned());
    for key in &published {
        world.wait_job_state(key, JobState::Succeeded, SOON).await;
    }
    let clicks = world
        .simulator()
        .await
        .client
        .state()
        .await
        .unwrap()
        .discord
        .clicks;
    assert_eq!(clicks.len(), published.len());
    assert!(
        clicks.values().all(|click| !click.posted.is_empty()),
        "every click was answered"
    );
    assert_eq!(
        counted(&world, &keys.both, "k1").await,
        Vec::<String>::new()
    );
    assert_eq!(tables_with(&world, "k1").await, Vec::<String>::new());
    let again = keys.rotate(&world).done().await;
    assert!(
        again["resealed"]
            .as_array()
            .unwrap()
            .iter()
            .all(|column| column["values"] == 0),
        "{again}"
    );
    assert_eq!(again["left"], 0);
}
