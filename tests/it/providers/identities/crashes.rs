//! Workers that die, or lose a job, between the answer of Microsoft Entra and the commit.

use std::os::unix::process::ExitStatusExt;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::Options;
use dispatch_worker::devkit::simulator::witness::Provider;
use serde_json::{Value, json};

use super::{
    SIGABRT, SOON, configured, identities, publish, refreshes, row, sign_in_again, succeeds,
    waits_for_the_person, with_ended_token,
};
use crate::support::{Checks, TestWorld, WorkerOptions, count, wait_for};

/// Runs a worker that aborts at a crash point of its refresh, and asserts that it had called only
/// Entra by then.
async fn abort_at(world: &TestWorld, point: &str) {
    let crash_at = Some(format!("fetch_states:{point}"));
    let mut worker = world.worker(&WorkerOptions {
        crash_at,
        ..configured()
    });
    publish(world, "one").await;
    let status = worker.wait_exit(SOON).await;
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");
    let called: Vec<Provider> = world.witness().iter().map(|entry| entry.provider).collect();
    assert_eq!(
        called,
        [Provider::Entra],
        "no token was used before it was saved"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_lost_before_they_are_saved_are_requested_again() {
    let world = with_ended_token(Options::default()).await;
    abort_at(&world, "after_refresh_answer").await;
    assert_eq!(
        row(&world).await,
        "0|f|f|f",
        "nothing was saved, and the refresh is still reserved"
    );
    let _second = world.worker(&configured());
    succeeds(&world, "one").await;
    let asked: Vec<Option<String>> = refreshes(&world)
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert!(
        asked.len() == 2 && asked[0] == asked[1],
        "the same refresh token twice: {asked:?}"
    );
    assert_eq!(row(&world).await, "1|f|f|t");
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_replaces_tokens_that_were_lost_with_a_single_use_refresh_token() {
    let world = with_ended_token(Options {
        refresh_tokens_once: true,
        ..Options::default()
    })
    .await;
    abort_at(&world, "after_refresh_answer").await;
    let _second = world.worker(&configured());
    waits_for_the_person(&world, "one", "invalid_grant (AADSTS50173)").await;
    assert_eq!(row(&world).await, "0|f|t|t");
    publish(&world, "two").await;
    waits_for_the_person(
        &world,
        "two",
        "The provided grant has expired due to it having been used, a fresh auth token is needed. (a moment ago",
    )
    .await;
    assert_eq!(
        refreshes(&world).len(),
        2,
        "the second job did not refresh again"
    );

    let listed = identities(&world, &["list"], &Value::Null).await.unwrap();
    assert_eq!(
        (&listed[0]["jobs_waiting"], &listed[0]["has_refresh_token"]),
        (&count(2), &json!(true))
    );
    assert!(listed[0]["refresh_refused_at"].is_string());
    let set = sign_in_again(&world).await;
    assert_eq!(
        (&set["jobs_released"], &set["identity"]["version"]),
        (&json!(2), &json!(3))
    );
    succeeds(&world, "one").await;
    succeeds(&world, "two").await;
    let audit = world
        .database
        .rows(
            "SELECT who, action, reason, before ->> 'version', after ->> 'version' FROM audit_log",
        )
        .await;
    assert_eq!(
        audit,
        [["tester", "identity.set_tokens", "signed in again", "2", "3"]]
    );
    let audited = world
        .database
        .one("SELECT row_to_json(a) FROM audit_log a")
        .await;
    assert!(!audited.contains("canary"), "{audited}");
    Checks {
        attempts: &[("fetch_states", "reauthentication")],
    }
    .hold(&world)
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_tokens_are_used_after_a_crash() {
    let world = with_ended_token(Options {
        refresh_tokens_once: true,
        ..Options::default()
    })
    .await;
    abort_at(&world, "after_refresh_saved").await;
    assert_eq!(row(&world).await, "1|f|f|t");
    let _second = world.worker(&configured());
    succeeds(&world, "one").await;
    assert_eq!(refreshes(&world).len(), 1);
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_tokens_are_saved_although_the_worker_loses_its_job_meanwhile() {
    let world = with_ended_token(Options {
        refresh_tokens_once: true,
        ..Options::default()
    })
    .await;
    let slow = FaultRule::new(FaultKind::Slow)
        .provider(Provider::Entra)
        .millis(5000)
        .times(1);
    world.simulator().await.client.fault(&slow).await.unwrap();
    let _worker = world.worker(&configured());
    publish(&world, "one").await;
    let is = async |what: &str, sql: &str| {
        wait_for(what, SOON, async || {
            if world.database.one(sql).await == "t" {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await;
    };
    is(
        "a refresh to begin",
        "SELECT refreshing_until IS NOT NULL FROM identities WHERE name = 'bot'",
    )
    .await;
    let mut client = world.pool().get().await.unwrap();
    let lock = client.transaction().await.unwrap();
    lock.execute("SELECT FROM identities WHERE name = 'bot' FOR UPDATE", &[])
        .await
        .unwrap();
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    is(
        "the save to wait",
        &format!("{waits} AND query LIKE '%access_token = $3%'"),
    )
    .await;
    world
        .database
        .rows("UPDATE replicas SET alive_until = now() - interval '1 second'")
        .await;
    is("a new incarnation", "SELECT count(*) = 2 FROM replicas").await;
    lock.rollback().await.unwrap();
    succeeds(&world, "one").await;
    assert_eq!(
        (refreshes(&world).len(), row(&world).await.as_str()),
        (1, "1|f|f|t"),
        "the received tokens were not lost"
    );
    Checks::default().hold(&world).await;
}
