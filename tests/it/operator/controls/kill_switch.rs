//! A kill switch stops exactly the jobs that match, and one that is not understood stops none.

use dispatch_worker::job::JobState;

use super::{SOON, control};
use crate::support::{TestWorld, WorkerOptions, acme, count, wait_for};

const PLACE: &str =
    "killswitch place --organization acme --pipeline dispatch --payload dedupe_key=";

#[tokio::test]
async fn the_jobs_that_match_are_parked_or_cancelled_and_the_others_run() {
    let world = TestWorld::acme().await;
    control(&world, &format!("{PLACE}bad --action park")).await;
    control(&world, &format!("{PLACE}worse --action cancel")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    for key in ["bad", "worse", "good"] {
        world.publish_job(&acme::job(key, &event)).await;
    }
    let parked = world.wait_job_state("bad", JobState::Parked, SOON).await;
    let message = parked.error_message.unwrap();
    assert_eq!(
        (parked.error_code.as_deref(), parked.stage.as_str()),
        (Some("operator.kill_switch"), "check_account")
    );
    assert!(
        message.contains("kill switch 1 of olga") && message.contains("maintenance"),
        "{message}"
    );
    world
        .wait_job_state("worse", JobState::Cancelled, SOON)
        .await;
    world
        .wait_job_state("good", JobState::Succeeded, SOON)
        .await;
    let audit = "SELECT who, role FROM audit_log WHERE action = 'cancel'";
    assert_eq!(
        world.database.rows(audit).await,
        [["kill switch 2 of olga", "worker"]]
    );
    control(&world, "killswitch end 1").await;
    // The worker applies the end with its next read.
    wait_for("the parked job to run after a retry", SOON, async || {
        let id = parked.id.to_string();
        world
            .dispatch(&["jobs", "retry", &id, "--yes"])
            .said()
            .await;
        match world.job_by_key("bad").await {
            Some(row) if row.state == JobState::Succeeded => Ok(()),
            row => Err(format!("{row:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_counts_what_matches_and_changes_nothing() {
    let world = TestWorld::acme().await;
    world
        .database
        .rows(
            "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, wait_reason, wait_key)
             SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
                 'dispatch', 'shop', n, CASE WHEN n <= 3 THEN 'acme' ELSE 'aside' END, 1, json_build_object('n', n % 2),
                 CASE WHEN n = 2 THEN 'parked' ELSE 'waiting' END, 'check_account', CASE WHEN n <> 2 THEN 'configuration' END,
                 CASE WHEN n <> 2 THEN 'k' END
             FROM generate_series(1, 6) n",
        )
        .await;
    let place = |rest: &str| format!("killswitch place --action park --reason x --dry-run {rest}");
    for (conditions, open, intake) in [
        ("--organization acme", 2, 3),
        ("--source shop --payload n=1", 3, 3),
        ("--source nobody", 0, 0),
    ] {
        let line = place(conditions);
        let arguments: Vec<&str> = line.split(' ').collect();
        let found = world.dispatch(&arguments).done().await;
        assert_eq!(
            (&found["open"], &found["intake_of_last_hour"]),
            (&count(open), &count(intake)),
            "{conditions}: {found}"
        );
        assert_eq!(
            found["sample"].as_array().map(Vec::len),
            Some(open),
            "{found}"
        );
    }
    assert_eq!(
        world.database.one("SELECT count(*) FROM controls").await,
        "0"
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM audit_log WHERE action LIKE 'controls.%'")
            .await,
        "0"
    );
}

#[tokio::test]
async fn a_matcher_that_is_not_understood_stops_no_job_and_is_reported() {
    let world = TestWorld::acme().await;
    world
        .database
        .rows(
            r#"INSERT INTO controls (kind, scope, matcher, reason, who, expires_at) VALUES ('kill_switch', 'organization:acme',
               '{"organization": "acme", "planet": "mars", "action": "cancel"}', 'x', 'olga', now() + interval '1 hour')"#,
        )
        .await;
    let worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert!(
        worker
            .metrics()
            .await
            .contains("dispatch_kill_switches_not_understood 1"),
        "the metric counts it"
    );
    let reports = worker
        .log()
        .matches("the matcher of a kill switch is not understood")
        .count();
    assert_eq!(reports, 1, "one line in the log");
    let (_, listed) = world.dispatch(&["killswitch", "list"]).answer().await;
    assert_eq!(listed[0]["is_understood"], false, "{listed}");
}
