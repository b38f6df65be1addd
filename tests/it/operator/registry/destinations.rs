//! Commands for destinations and their secrets.

use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use super::{SOON, audited, printed};
use crate::support::{Dispatch, TestWorld, WorkerOptions, acme};

/// Returns the command that registers the simulator's keyed webhook under another name.
fn register(world: &TestWorld, url: &str, more: &[&str], secret: &str) -> Dispatch {
    let config = json!({"url": url, "honours_webhook_id": true}).to_string();
    let base = [
        "destinations",
        "register",
        "--organization",
        "acme",
        "--name",
        "new",
        "--kind",
        "webhook",
        "--yes",
    ];
    world
        .dispatch(
            &[
                &base[..],
                &["--config", &config, "--secret-file", "-"],
                more,
            ]
            .concat(),
        )
        .stdin(secret)
}

async fn new_destination_url(world: &TestWorld) -> String {
    format!("{}/webhook/{}", world.simulator().await.url, acme::KEYED)
}

#[tokio::test]
async fn a_destination_is_validated_registered_and_tested() {
    let world = TestWorld::acme().await;
    let url = new_destination_url(&world).await;
    invalid_values_are_refused(&world, &url).await;
    let kind = [
        "destinations",
        "register",
        "--organization",
        "acme",
        "--name",
        "x",
        "--kind",
        "pigeon",
        "--config",
        "{}",
        "--yes",
    ];
    let said = world.dispatch(&kind).said().await;
    assert!(
        said.code == Some(2) && said.stderr.contains("one of: discord"),
        "{said:?}"
    );
    let made = register(
        &world,
        &url,
        &["--unknown-policy", "hold"],
        acme::WEBHOOK_SECRET,
    )
    .said()
    .await;
    assert!(
        made.code == Some(0) && !printed(&made).contains("whsec_"),
        "{made:?}"
    );
    // The command omits the secret, which stays.
    let config = json!({"url": url}).to_string();
    let again = [
        &kind[..5],
        &[
            "new",
            "--kind",
            "webhook",
            "--config",
            &config,
            "--default",
            "true",
            "--yes",
        ],
    ]
    .concat();
    let now = world.dispatch(&again).done().await;
    assert_eq!(
        (&now["now"]["unknown_policy"], &now["now"]["default"]),
        (&json!("hold"), &json!(true))
    );
    assert_eq!(now["now"]["has_secret"], json!(true));
    a_test_sends_one_message(&world).await;
    let audit = [
        "destination.register",
        "destination.register",
        "destination.test",
    ];
    assert_eq!(audited(&world).await, audit);
}

async fn a_test_sends_one_message(world: &TestWorld) {
    let sent = world
        .dispatch(&[
            "destinations",
            "test",
            "new",
            "--organization",
            "acme",
            "--reason",
            "new",
        ])
        .done()
        .await;
    assert_eq!(sent["sent"], json!(true));
    assert_eq!(
        world
            .witness()
            .iter()
            .filter(|entry| entry.effect && entry.path == "/webhook/keyed")
            .count(),
        1
    );
}

async fn invalid_values_are_refused(world: &TestWorld, url: &str) {
    for (url, secret, right) in [
        ("http://example.com/hook", acme::WEBHOOK_SECRET, "https://"),
        (url, "canary-no-key", "whsec_"),
    ] {
        let said = register(world, url, &[], secret).said().await;
        assert!(
            said.code == Some(2)
                && said.stderr.contains(right)
                && !printed(&said).contains("canary"),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn a_message_is_signed_with_both_secrets_until_the_previous_one_expires() {
    let world = TestWorld::acme().await;
    let named = [acme::KEYED, "--organization", "acme"];
    let rotate = world.dispatch(
        &[
            &["destinations", "rotate-secret", "--yes", "--keep-for", "1h"],
            &named[..],
        ]
        .concat(),
    );
    let said = rotate.stdin(acme::NEW_WEBHOOK_SECRET).said().await;
    assert!(
        said.code == Some(0) && !printed(&said).contains("whsec_"),
        "{said:?}"
    );
    // Repeated, as after a crash: the previous secret is still kept.
    let rotate = world.dispatch(
        &[
            &["destinations", "rotate-secret", "--yes", "--keep-for", "1h"],
            &named[..],
        ]
        .concat(),
    );
    assert!(
        rotate.stdin(acme::NEW_WEBHOOK_SECRET).done().await["rotated"]["previous_until"]
            .is_string()
    );
    // The receiver knows only the first secret.
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let mut message = acme::job("both", &event);
    message["notify"] = json!([acme::KEYED]);
    world.publish_job(&message).await;
    world
        .wait_job_state("both", JobState::Succeeded, SOON)
        .await;
    let test = || world.dispatch(&[&["destinations", "test"], &named[..]].concat());
    test().done().await;
    world.database.rows("UPDATE destinations SET previous_secret_until = now() WHERE previous_secret IS NOT NULL").await;
    let refused = test().said().await;
    assert!(
        refused.code == Some(1) && refused.stderr.contains("401"),
        "{refused:?}"
    );
    let stored = world
        .database
        .rows("SELECT row_to_json(d)::text FROM destinations d")
        .await
        .concat()
        .concat();
    assert!(!stored.contains("whsec_"));
}

#[tokio::test]
async fn messages_for_a_disabled_destination_wait_until_it_is_enabled() {
    let world = TestWorld::acme().await;
    let switch = |verb| {
        world.dispatch(&[
            "destinations",
            verb,
            acme::BLIND,
            "--organization",
            "acme",
            "--yes",
        ])
    };
    switch("disable").done().await;
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let mut message = acme::job("one", &event);
    message["notify"] = json!([acme::BLIND]);
    world.publish_job(&message).await;
    let job = world.wait_job_state("one", JobState::Waiting, SOON).await;
    assert_eq!(job.wait_reason.as_deref(), Some("children"));
    crate::support::wait_for("the message to wait", SOON, async || {
        let waits =
            "SELECT count(*) FROM jobs WHERE pipeline = 'messaging' AND wait_reason = 'hold'";
        if world.database.one(waits).await == "1" {
            Ok(())
        } else {
            Err("it does not wait")
        }
    })
    .await;
    let on: Value = switch("enable").done().await;
    assert_eq!(
        (&on["jobs_released"], &on["now"]["disabled"]),
        (&json!(1), &json!(false))
    );
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
}
