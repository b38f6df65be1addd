//! Refusals by Microsoft Entra and Azure DevOps.

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::Options;
use dispatch_worker::devkit::simulator::witness::Provider;
use dispatch_worker::job::JobState;

use super::{
    ENDED, SOON, configured, publish, refreshes, row, scene, sign_in_again, succeeds,
    waits_for_the_person, with_ended_token,
};
use crate::support::{Checks, acme};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_refused_before_its_expiry_is_refreshed_once() {
    let world = scene(ENDED, "2099-01-01T00:00:00Z", Options::default()).await;
    let _worker = world.worker(&configured());
    publish(&world, "one").await;
    succeeds(&world, "one").await;
    assert_eq!(
        (refreshes(&world).len(), row(&world).await.as_str()),
        (1, "1|t|f|t")
    );
    let profiles = world
        .witness()
        .iter()
        .filter(|entry| entry.path == acme::PROFILE)
        .map(|entry| entry.status)
        .collect::<Vec<_>>();
    assert_eq!(profiles, [Some(401), Some(200)]);
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_wait_for_a_person_if_the_new_tokens_are_refused_too_and_do_not_refresh_again() {
    let world = scene(
        ENDED,
        "2099-01-01T00:00:00Z",
        Options {
            issued_tokens_refused: true,
            ..Options::default()
        },
    )
    .await;
    let _worker = world.worker(&configured());
    publish(&world, "one").await;
    waits_for_the_person(&world, "one", "Azure DevOps does not accept its token").await;
    publish(&world, "two").await;
    waits_for_the_person(
        &world,
        "two",
        "already refreshed for that reason a short time ago",
    )
    .await;
    assert_eq!(
        (refreshes(&world).len(), row(&world).await.as_str()),
        (1, "1|t|f|t")
    );
    sign_in_again(&world).await;
    succeeds(&world, "one").await;
    succeeds(&world, "two").await;
    Checks {
        attempts: &[("retrieve_user", "reauthentication")],
    }
    .hold(&world)
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_token_endpoint_causes_retries_and_a_refused_client_parks_the_job() {
    let world = with_ended_token(Options::default()).await;
    let unavailable = FaultRule::new(FaultKind::ServerError)
        .provider(Provider::Entra)
        .times(2);
    world
        .simulator()
        .await
        .client
        .fault(&unavailable)
        .await
        .unwrap();
    let mut worker = world.worker(&configured());
    publish(&world, "one").await;
    succeeds(&world, "one").await;
    let attempts = world
        .database
        .rows("SELECT stage, error_code FROM attempts ORDER BY at")
        .await;
    assert_eq!(
        attempts,
        [
            ["fetch_states", "entra.server_error"],
            ["fetch_states", "entra.server_error"]
        ]
    );
    assert_eq!(row(&world).await, "1|f|f|t");
    worker.terminate();
    worker.wait_exit(SOON).await;

    let mut wrong = configured();
    wrong.environment.insert(
        "DISPATCH_ENTRA_CLIENT_SECRET".to_owned(),
        "canary-wrong-secret".to_owned(),
    );
    let _wrong = world.worker(&wrong);
    world
        .database
        .rows("UPDATE identities SET token_expires_at = now()")
        .await;
    publish(&world, "two").await;
    let parked = world.wait_job_state("two", JobState::Parked, SOON).await;
    assert_eq!(parked.error_code.as_deref(), Some("entra.client_refused"));
    assert!(
        parked
            .error_hint
            .is_some_and(|hint| hint.contains("DISPATCH_ENTRA_CLIENT_SECRET"))
    );
    assert!(
        parked
            .error_message
            .is_some_and(|message| !message.contains("canary"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limited_token_endpoint_is_held_and_no_job_uses_an_attempt_meanwhile() {
    let world = with_ended_token(Options::default()).await;
    let busy = FaultRule::new(FaultKind::RateLimit)
        .provider(Provider::Entra)
        .retry_after(3)
        .times(1);
    world.simulator().await.client.fault(&busy).await.unwrap();
    let _worker = world.worker(&configured());
    let keys: Vec<String> = (0..12).map(|number| format!("job-{number}")).collect();
    for key in &keys {
        publish(&world, key).await;
    }
    for key in &keys {
        succeeds(&world, key).await;
    }
    assert_eq!(
        refreshes(&world).len(),
        2,
        "one that was refused, and one for all jobs after the hold"
    );
    let attempts = world
        .database
        .rows("SELECT error_code FROM attempts WHERE error_code <> 'governor.held'")
        .await;
    assert_eq!(
        attempts,
        [["entra.rate_limited"]],
        "only the job that made the request"
    );
    assert_eq!(
        world
            .database
            .one("SELECT max(attempt) FROM checkpoints WHERE stage = 'fetch_states'")
            .await,
        "2"
    );
}
