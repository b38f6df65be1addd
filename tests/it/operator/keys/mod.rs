//! Key rotation: every stored value is sealed with another key while workers run.

mod during_work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::job::JobState;
use dispatch_worker::message::interaction_of;
use dispatch_worker::secrets::{Keyring, Place};
use dispatch_worker::tracker::{SealedTracker, Tracker};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::support::{Dispatch, TestWorld, WorkerOptions, acme, dead_letter};

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

    every_value_opens_with_the_new_key(&world, &keys, &before, &newer, letter).await;

    jobs_succeed_with(&world, &keys.new).await;
    finds_nothing_to_reseal(&world, &keys).await;
}

/// Compares the stored values with the originals: the payload before the rotation, the message of a
/// newer schema, and the body of a dead letter.
async fn every_value_opens_with_the_new_key(
    world: &TestWorld,
    keys: &Keys,
    before: &str,
    newer: &Value,
    letter: i64,
) {
    let after = payload(world).await;
    let sealed = |payload: &str| interaction_of(payload).unwrap().sealed_token;
    let (old, new) = (sealed(before), sealed(&after));
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
}

/// A worker with this keyring completes a new job and the one that waits, whose click it answers.
async fn jobs_succeed_with(world: &TestWorld, keyring: &str) {
    let _worker = world.worker(&with_keyring(keyring));
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
}

/// Repeats a rotation, which finds no value of the old key. Returns its output.
async fn finds_nothing_to_reseal(world: &TestWorld, keys: &Keys) -> Value {
    let again = keys.rotate(world).done().await;
    assert!(
        again["resealed"]
            .as_array()
            .unwrap()
            .iter()
            .all(|column| column["values"] == 0),
        "{again}"
    );
    again
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
