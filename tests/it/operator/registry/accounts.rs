//! Commands for accounts of Azure DevOps and their hook secrets.

use dispatch_worker::job::JobState;
use dispatch_worker::tracker::TrackerDocument;
use serde_json::json;

use super::{SOON, accepted, audited, printed, publish};
use crate::support::{Dispatch, TestWorld, WorkerOptions, acme};

#[tokio::test]
async fn jobs_of_a_disabled_account_wait_until_it_is_enabled() {
    let world = TestWorld::acme().await;
    let switch = |verb| world.switch_account(verb);
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
    an_identity_of_another_organization_is_refused(&world, register(&["--identity", "bot"])).await;
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
    an_unknown_organization_is_named_with_the_known_ones(&world).await;
}

async fn an_identity_of_another_organization_is_refused(world: &TestWorld, register: Dispatch) {
    let refused = register.said().await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .contains("no identity `bot`; use one of: robot"),
        "{refused:?}"
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM integrations")
            .await,
        "1",
        "a refused registration stores nothing"
    );
}

async fn an_unknown_organization_is_named_with_the_known_ones(world: &TestWorld) {
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
    let tested = world
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
        tested["trial"],
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
    assert!(!printed(&given).contains("given-canary"));
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
