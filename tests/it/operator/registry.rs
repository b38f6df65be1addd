//! Commands that register, test, enable and disable accounts and destinations and rotate their
//! secrets.

use std::time::Duration;

use dispatch_worker::job::JobState;
use dispatch_worker::tracker::TrackerDocument;
use serde_json::{Value, json};

use crate::support::{Said, TestWorld, WorkerOptions, acme};

const SOON: Duration = Duration::from_secs(30);

/// Publishes a job about a new event with this shared secret and without notifications.
async fn publish(world: &TestWorld, key: &str, shared_secret: &str) {
    let event = world
        .assign(
            acme::LONE_ITEM,
            Some(if key.len().is_multiple_of(2) {
                acme::ANN
            } else {
                acme::BOB
            }),
        )
        .await;
    let mut message = acme::job(key, &event);
    message["events"][0]["shared_secret"] = json!(shared_secret);
    message["notify"] = json!([]);
    world.publish_job(&message).await;
}

/// Waits until a job succeeds. Returns how many of its events were accepted.
async fn accepted(world: &TestWorld, key: &str) -> usize {
    let job = world.wait_job_state(key, JobState::Succeeded, SOON).await;
    let view = world.job_view(job.id).await;
    let stage = view
        .checkpoints
        .iter()
        .find(|checkpoint| checkpoint.stage == "handle_events")
        .expect("the stage has run");
    stage.output["accepted"].as_array().expect("a list").len()
}

async fn audited(world: &TestWorld) -> Vec<String> {
    world
        .database
        .rows("SELECT action FROM audit_log ORDER BY id")
        .await
        .concat()
}

#[tokio::test]
async fn jobs_of_a_disabled_account_wait_until_it_is_enabled() {
    let world = TestWorld::acme().await;
    let account = acme::account_id();
    let switch = |verb| {
        world.dispatch(&[
            "integrations",
            verb,
            &account,
            "--organization",
            "acme",
            "--yes",
        ])
    };
    let off = switch("disable").done().await;
    assert_eq!(
        (&off["changed"], &off["now"]["disabled"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        switch("disable").done().await["changed"],
        json!(false),
        "it was disabled already"
    );
    let _worker = world.worker(&WorkerOptions::default());
    publish(&world, "one", acme::HOOK_SECRET).await;
    let job = world.wait_job_state("one", JobState::Waiting, SOON).await;
    assert_eq!(job.wait_reason.as_deref(), Some("installation_disabled"));
    assert_eq!(switch("enable").done().await["jobs_released"], 1);
    assert_eq!(accepted(&world, "one").await, 1);
    assert_eq!(
        audited(&world).await,
        ["integration.disable", "integration.enable"]
    );
}

#[tokio::test]
async fn jobs_that_wait_for_an_identity_to_sign_in_continue_with_the_identity_that_replaces_it() {
    let world = TestWorld::acme().await;
    let mut document = acme::document(&world.simulator().await.url);
    let good = document.organizations[0].identities[0].clone();
    let ended = json!({"name": "gone", "access_token": "t", "expires_at": "2020-01-01T00:00:00Z"});
    document.organizations[0].identities =
        vec![good.clone(), serde_json::from_value(ended).unwrap()];
    document.organizations[0].installations[0].identity = Some("gone".to_owned());
    world.import(&document).await;
    let _worker = world.worker(&WorkerOptions::default());
    publish(&world, "one", acme::HOOK_SECRET).await;
    let job = world.wait_job_state("one", JobState::Waiting, SOON).await;
    assert_eq!(job.wait_reason.as_deref(), Some("reauthentication"));
    let account = acme::account_id();
    let organization = [
        "--organization",
        "acme",
        "--account-id",
        &account,
        "--account-name",
        acme::ACCOUNT,
    ];
    let register = [
        &["integrations", "register"],
        &organization[..],
        &["--identity", &good.name, "--yes"],
    ]
    .concat();
    assert_eq!(world.dispatch(&register).done().await["jobs_released"], 1);
    assert_eq!(accepted(&world, "one").await, 1);
}

#[tokio::test]
async fn registering_an_account_again_keeps_the_settings_that_the_command_omits() {
    let world = TestWorld::acme().await;
    let globex: TrackerDocument = serde_json::from_value(json!({"organizations": [{"slug": "globex", "name": "Globex",
        "identities": [{"name": "robot", "access_token": "t", "expires_at": "2099-01-01T00:00:00Z"}]}]}))
    .unwrap();
    world.import(&globex).await;
    let register = |more: &[&str]| {
        let base = [
            "integrations",
            "register",
            "--organization",
            "globex",
            "--account-id",
            "ACC-9",
            "--account-name",
            "fabrikam",
        ];
        world.dispatch(&[&base[..], &["--yes"], more].concat())
    };
    let nobody = register(&["--identity", "bot"]).said().await;
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody
            .stderr
            .contains("no identity `bot`; use one of: robot"),
        "{nobody:?}"
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM integrations")
            .await,
        "1",
        "a refused registration stores nothing"
    );
    register(&[
        "--identity",
        "robot",
        "--assignee-outbound",
        "false",
        "--disabled",
    ])
    .done()
    .await;
    let again = register(&["--status-inbound", "false", "--reason", "too loud"])
        .done()
        .await;
    let settings =
        json!({"assignee_inbound": true, "assignee_outbound": false, "status_inbound": false});
    assert_eq!(
        (&again["now"]["settings"], &again["now"]["identity"]),
        (&settings, &json!("robot"))
    );
    assert_eq!(
        again["now"]["disabled"],
        json!(true),
        "registering it again does not enable it"
    );
    let listed = world
        .dispatch(&["integrations", "list", "--organization", "globex"])
        .done()
        .await;
    assert_eq!(listed, json!([again["now"]]));
    assert_eq!(
        world
            .dispatch(&["integrations", "list"])
            .done()
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let reasons = world
        .database
        .rows("SELECT reason, after #>> '{settings,status_inbound}' FROM audit_log ORDER BY id")
        .await;
    assert_eq!(reasons, [["-", "true"], ["too loud", "false"]]);
    let unknown = world
        .dispatch(&["integrations", "list", "--organization", "nope"])
        .said()
        .await;
    assert!(
        unknown.code == Some(1) && unknown.stderr.contains("one of: acme, aside, globex"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_test_of_an_account_reports_the_token_s_user_and_whether_the_account_is_usable() {
    let world = TestWorld::acme().await;
    let account = acme::account_id();
    let trial = world
        .dispatch(&[
            "integrations",
            "test",
            &account.to_uppercase(),
            "--organization",
            "acme",
        ])
        .done()
        .await;
    assert_eq!(
        trial["trial"],
        json!({"user": "Bot", "accounts": [acme::ACCOUNT], "usable": true})
    );
    let other = [
        "integrations",
        "test",
        "someone-else-s",
        "--organization",
        "acme",
        "--identity",
        "bot",
    ];
    let (code, said) = world.dispatch(&other).answer().await;
    assert_eq!((code, &said["trial"]["usable"]), (Some(1), &json!(false)));
    world
        .database
        .rows("UPDATE identities SET token_expires_at = now()")
        .await;
    let ended = world
        .dispatch(&["integrations", "test", &account, "--organization", "acme"])
        .said()
        .await;
    assert!(
        ended.code == Some(1) && ended.stderr.contains("its token has expired"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn two_hook_secrets_are_valid_until_the_previous_one_expires() {
    let world = TestWorld::acme().await;
    let account = acme::account_id();
    let rotate = |more: &[&str]| {
        world.dispatch(&[&["integrations", "rotate-secret", &account, "--yes"], more].concat())
    };
    let made = rotate(&["--generate", "--keep-for", "1h"]).done().await;
    let made = made["secret"].as_str().unwrap();
    assert!(made.len() >= 43, "256 bits");
    let stored = world
        .database
        .rows("SELECT row_to_json(s)::text FROM subscriptions s")
        .await
        .concat()
        .concat();
    assert!(
        !stored.contains(made)
            && !world
                .database
                .rows("SELECT after::text FROM audit_log")
                .await
                .concat()
                .concat()
                .contains(made)
    );
    let _worker = world.worker(&WorkerOptions::default());
    publish(&world, "old", acme::HOOK_SECRET).await;
    publish(&world, "made", made).await;
    assert_eq!(
        (
            accepted(&world, "old").await,
            accepted(&world, "made").await
        ),
        (1, 1)
    );

    world
        .database
        .rows("UPDATE subscriptions SET valid_until = now() WHERE valid_until IS NOT NULL")
        .await;
    publish(&world, "too late", acme::HOOK_SECRET).await;
    assert_eq!(accepted(&world, "too late").await, 0);
    let given = rotate(&["--keep-for", "0s"])
        .stdin("given-canary\n")
        .said()
        .await;
    assert_eq!(given.code, Some(0), "{given:?}");
    assert!(!told(&given).contains("given-canary"));
    publish(&world, "made again", made).await;
    publish(&world, "given", "given-canary").await;
    assert_eq!(
        (
            accepted(&world, "made again").await,
            accepted(&world, "given").await
        ),
        (0, 1)
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM subscriptions")
            .await,
        "1",
        "expired secrets are deleted"
    );
    let empty = rotate(&[]).stdin("\n").said().await;
    assert_eq!(empty.code, Some(2), "{empty:?}");
}

fn told(said: &Said) -> String {
    format!("{}{}", said.stdout, said.stderr)
}

/// Returns the command that registers the simulator's keyed webhook under another name.
fn register(world: &TestWorld, url: &str, more: &[&str], secret: &str) -> crate::support::Dispatch {
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
    for (url, secret, right) in [
        ("http://example.com/hook", acme::WEBHOOK_SECRET, "https://"),
        (url.as_str(), "canary-no-key", "whsec_"),
    ] {
        let said = register(&world, url, &[], secret).said().await;
        assert!(
            said.code == Some(2) && said.stderr.contains(right) && !told(&said).contains("canary"),
            "{said:?}"
        );
    }
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
        made.code == Some(0) && !told(&made).contains("whsec_"),
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
    let audit = [
        "destination.register",
        "destination.register",
        "destination.test",
    ];
    assert_eq!(audited(&world).await, audit);
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
        said.code == Some(0) && !told(&said).contains("whsec_"),
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
    let trial = || world.dispatch(&[&["destinations", "test"], &named[..]].concat());
    trial().done().await;
    world.database.rows("UPDATE destinations SET previous_secret_until = now() WHERE previous_secret IS NOT NULL").await;
    let refused = trial().said().await;
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
