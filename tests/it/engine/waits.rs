//! A job that cannot continue waits without using attempts, and continues when the cause is gone.

use std::time::Duration;

use dispatch_worker::devkit::simulator::admin::TokenChange;
use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, acme};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_job_that_waits_for_reauthentication_continues_when_new_tokens_are_imported() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let simulator = world.simulator().await;
    let expired = TokenChange {
        token: acme::TOKEN.to_owned(),
        expired: Some(true),
        ..TokenChange::default()
    };
    simulator.client.token(&expired).await.unwrap();
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let row = world.wait_job_state("one", JobState::Waiting, SOON).await;
    assert_eq!(
        (row.wait_reason.as_deref(), row.stage.as_str(), row.attempt),
        (Some("reauthentication"), "retrieve_user", 1)
    );
    let identity = world
        .database
        .one("SELECT id FROM identities WHERE name = 'bot'")
        .await;
    assert_eq!(row.wait_key, Some(format!("identity:{identity}")));
    assert!(
        row.error_hint.is_some_and(|hint| !hint.is_empty()),
        "the row has a hint for a person"
    );

    let fresh = "canary-access-token-2";
    let known = TokenChange {
        token: fresh.to_owned(),
        user: Some(acme::BOT.to_owned()),
        ..TokenChange::default()
    };
    simulator.client.token(&known).await.unwrap();
    let mut document = acme::document(&simulator.url);
    document.organizations[0].identities[0].access_token = Some(fresh.to_owned());
    world.import(&document).await;
    let row = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert_eq!(row.error_code, None, "the error is cleared");
    Checks {
        attempts: &[("retrieve_user", "reauthentication")],
    }
    .hold(&world)
    .await;
}
