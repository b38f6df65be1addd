//! Headers of dead letters may contain secrets of producers: they are sealed at rest, and a replay
//! restores them.

use std::time::Duration;

use dispatch_worker::broker::Outgoing;
use dispatch_worker::store::NewDeadLetter;
use serde_json::{Map, Value, json};

use crate::support::{TestWorld, WorkerOptions, dead_letter, intake, wait_for};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Returns headers such as a producer's framework adds.
fn headers() -> Value {
    json!({"authorization": "Bearer canary-header", "traceparent": TRACE, "x-tenant": {"key": "canary-header"}})
}

/// Returns every column of every dead letter, as a dump contains them.
async fn dump(world: &TestWorld) -> String {
    world
        .database
        .rows("SELECT d::text FROM dead_letters d ORDER BY id")
        .await
        .concat()
        .join("\n")
}

async fn raw(world: &TestWorld, id: &str) -> Value {
    world
        .dispatch(&["dead-letters", "show", id, "--raw"])
        .prints_secrets()
        .done()
        .await
}

#[tokio::test]
async fn a_secret_in_a_header_is_in_no_plain_column_and_a_replay_restores_it() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    let Value::Object(sent) = headers() else {
        unreachable!("it is an object")
    };
    world
        .publish_raw(&Outgoing {
            headers: Map::clone(&sent),
            ..intake("not JSON")
        })
        .await;
    let one = async |sql: &str| world.database.rows(sql).await.concat();
    let newest = "SELECT max(id) FROM dead_letters HAVING count(*) = ";
    let id = wait_for("the dead letter", SOON, async || {
        one(&format!("{newest}1"))
            .await
            .pop()
            .ok_or("none yet".to_owned())
    })
    .await;
    assert!(
        !dump(&world).await.contains("canary"),
        "{}",
        dump(&world).await
    );
    let shown = world.dispatch(&["dead-letters", "show", &id]).done().await;
    assert_eq!(shown["headers"], json!({"traceparent": TRACE}), "{shown}");
    assert_eq!(
        world.database.one("SELECT count(*) FROM audit_log").await,
        "0"
    );
    assert_eq!(raw(&world, &id).await["headers"], headers());
    let audit = world
        .database
        .rows("SELECT action, who, after ->> 'dead_letter_id' FROM audit_log")
        .await;
    assert_eq!(audit, [["dead_letter.show_raw", "olga", id.as_str()]]);

    // The message is refused again, with the headers that it was published with.
    world
        .dispatch(&["dead-letters", "replay", &id, "--yes"])
        .done()
        .await;
    let again = wait_for("its successor", SOON, async || {
        one(&format!("{newest}2"))
            .await
            .pop()
            .ok_or("none yet".to_owned())
    })
    .await;
    let mut came = raw(&world, &again).await["headers"].take();
    came.as_object_mut().unwrap().remove("x-dispatch-replay");
    assert_eq!(came, headers(), "except for the replay's own header");
    assert!(
        !dump(&world).await.contains("canary"),
        "{}",
        dump(&world).await
    );
    drop(worker);
}

#[tokio::test]
async fn headers_that_an_earlier_worker_stored_are_replayed_unchanged_and_sealed_soon_after() {
    let world = TestWorld::new().await;
    let store = world.store();
    let id = store
        .keep_dead_letter(
            &world.keyring,
            &NewDeadLetter {
                headers: headers(),
                ..dead_letter("{}")
            },
        )
        .await
        .unwrap();
    // As a worker of the previous version stores it.
    let plain = headers().to_string();
    world
        .database
        .rows(&format!(
            "UPDATE dead_letters SET sealed_headers = NULL, headers = '{plain}'"
        ))
        .await;
    let replay = store.replay(&world.keyring, id).await.unwrap().unwrap();
    assert_eq!(replay.headers, headers());
    assert_eq!(raw(&world, &id.to_string()).await["headers"], headers());

    assert!(
        !store.seal_headers(&world.keyring).await.unwrap(),
        "none is left to seal"
    );
    assert!(
        !dump(&world).await.contains("canary"),
        "{}",
        dump(&world).await
    );
    assert_eq!(
        store
            .replay(&world.keyring, id)
            .await
            .unwrap()
            .unwrap()
            .headers,
        headers()
    );
    assert_eq!(
        world
            .database
            .one("SELECT headers ->> 'traceparent' FROM dead_letters")
            .await,
        TRACE
    );
    let sealed = dump(&world).await;
    assert!(!store.seal_headers(&world.keyring).await.unwrap());
    assert_eq!(dump(&world).await, sealed, "sealed headers do not change");
}
