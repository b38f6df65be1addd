//! A hold makes the jobs of its scope wait, and no others.

use dispatch_worker::job::JobState;

use super::{SOON, control};
use crate::support::{TestWorld, WorkerOptions, acme, wait_for};

#[tokio::test]
async fn the_jobs_of_each_scope_wait_with_the_reason_and_continue_when_the_hold_ends() {
    let world = TestWorld::acme().await;
    for (key, scope, stage) in [
        ("a", "organization:acme", "check_account"),
        ("b", "lane:dispatch", "check_account"),
        ("c", "stage:dispatch/retrieve_user", "retrieve_user"),
        ("d", "provider:azure_devops", "retrieve_user"),
    ] {
        control(&world, &format!("holds place {scope}")).await;
        // A worker that starts knows every control in force.
        let _worker = world.worker(&WorkerOptions::default());
        let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
        world.publish_job(&acme::job(key, &event)).await;
        let row = world.wait_job_state(key, JobState::Waiting, SOON).await;
        assert_eq!(
            (
                row.wait_reason.as_deref(),
                row.wait_key,
                row.stage.as_str(),
                row.attempt
            ),
            (Some("hold"), Some(format!("hold:{scope}")), stage, 1),
            "{scope}"
        );
        let said = world
            .dispatch(&["jobs", "explain", &row.id.to_string()])
            .said()
            .await;
        assert!(
            said.stdout.contains(&format!("olga holds `{scope}` until"))
                && said.stdout.contains("(maintenance)"),
            "{said:?}"
        );
        control(&world, &format!("holds release {scope}")).await;
        world.wait_job_state(key, JobState::Succeeded, SOON).await;
    }
}

#[tokio::test]
async fn a_hold_of_one_lane_and_of_another_organization_leaves_other_jobs_alone() {
    let world = TestWorld::acme().await;
    control(&world, "holds place organization:aside").await;
    control(&world, "holds place lane:messaging").await;
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let states = "SELECT DISTINCT pipeline, state, wait_key FROM jobs ORDER BY pipeline";
    let expected = [
        ["assignee_sync", "succeeded", "-"],
        ["dispatch", "waiting", "children"],
        ["messaging", "waiting", "hold:lane:messaging"],
    ];
    wait_for("only messages to wait for the hold", SOON, async || {
        let rows = world.database.rows(states).await;
        if rows == expected {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await;
    control(&world, "holds release lane:messaging").await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
}

#[tokio::test]
async fn a_job_that_is_about_to_wait_for_a_hold_that_ends_continues() {
    let world = TestWorld::acme().await;
    control(&world, "holds place organization:acme").await;
    let mut client = world.pool().get().await.unwrap();
    let end = client.transaction().await.unwrap();
    end.execute("UPDATE controls SET released_at = now()", &[])
        .await
        .unwrap();
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND query LIKE '%FROM controls%FOR SHARE%'";
    wait_for(
        "the job's commit to test the hold",
        SOON,
        async || match world.database.one(blocked).await.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        },
    )
    .await;
    end.commit().await.unwrap();
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    let waited = "SELECT count(*) FROM jobs WHERE state = 'waiting'";
    assert_eq!(world.database.one(waited).await, "0");
}

#[tokio::test]
async fn a_scope_that_does_not_exist_is_refused_with_what_exists() {
    let world = TestWorld::acme().await;
    for (scope, expected) in [
        ("organization:acmee", "acme, aside"),
        ("lane:mesaging", "messaging"),
        ("provider:slak", "slack"),
        (
            "stage:dispatch/deliver_message",
            "messaging/deliver_message",
        ),
    ] {
        let line = ["holds", "place", scope, "--reason", "x", "--yes"];
        let said = world.dispatch(&line).said().await;
        assert!(
            said.code != Some(0) && said.stderr.contains(expected),
            "{scope}: {said:?}"
        );
    }
    assert_eq!(
        world.database.one("SELECT count(*) FROM controls").await,
        "0"
    );
}
