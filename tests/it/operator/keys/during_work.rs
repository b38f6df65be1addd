//! A rotation while workers write: no concurrent change is lost, and nothing stays sealed with the
//! old key.

use dispatch_worker::job::JobState;
use dispatch_worker::secrets::{Place, key_of};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{
    Keys, SOON, click, counted, finds_nothing_to_reseal, keep_letter, rotated_secret, waiting_job,
    with_keyring,
};
use crate::support::{TestWorld, WorkerOptions, acme, wait_for};

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
    only_the_locked_letter_is_left(&world).await;
    blocked(&world, "dead_letters").await;
    rotation.kill().await.unwrap();
    held.commit().await.unwrap();
    keeps_the_saved_token(&world, &keys, place).await;

    continues_where_it_was_killed(&world, &keys).await;
}

async fn only_the_locked_letter_is_left(world: &TestWorld) {
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
}

async fn keeps_the_saved_token(world: &TestWorld, keys: &Keys, place: Place<'_>) {
    let identity = world
        .database
        .rows(&format!(
            "SELECT access_token, version FROM identities WHERE id = {}",
            place.row
        ))
        .await
        .concat();
    assert_eq!(key_of(&identity[0]), Some("k2"));
    assert_eq!(
        keys.new_alone().open(place, &identity[0]).unwrap(),
        b"saved-meanwhile"
    );
    assert_eq!(identity[1], "2", "only the save increments it");
}

async fn continues_where_it_was_killed(world: &TestWorld, keys: &Keys) {
    let again = keys.rotate(world).done().await;
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
    assert_eq!(counted(world, &keys.new, "k1").await, Vec::<String>::new());
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
    every_click_was_answered(&world, published.len()).await;
    assert_eq!(
        counted(&world, &keys.both, "k1").await,
        Vec::<String>::new()
    );
    assert_eq!(tables_with(&world, "k1").await, Vec::<String>::new());
    let again = finds_nothing_to_reseal(&world, &keys).await;
    assert_eq!(again["left"], 0);
}

async fn every_click_was_answered(world: &TestWorld, number: usize) {
    let clicks = world
        .simulator()
        .await
        .client
        .state()
        .await
        .unwrap()
        .discord
        .clicks;
    assert_eq!(clicks.len(), number);
    assert!(
        clicks.values().all(|click| !click.posted.is_empty()),
        "every click was answered"
    );
}
