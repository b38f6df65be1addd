//! The fleet, the pages of alerts, the number of replicas, charts, and the overview.

use std::collections::BTreeSet;
use std::time::Duration;

use dispatch_worker::alerts::ALERTS;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::store::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::documents::document;
use crate::support::{ConsoleProcess, TestWorld, WorkerOptions, count, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// A hold of a vendor, and what it is called.
const HELD: (&str, &str) = (
    "contoso|azure_devops|dev.azure.com",
    "contoso's Azure DevOps",
);

/// Returns a page, which must be there.
async fn page(console: &ConsoleProcess, token: &str, path: &str) -> String {
    let asked = console.request(Method::GET, path).bearer_auth(token);
    let answer = asked.send().await.expect("the console answers");
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.expect("text")
}

/// Waits until an answer of the API is as expected, and returns it.
async fn until(
    console: &ConsoleProcess,
    token: &str,
    path: &str,
    what: &str,
    is_there: impl Fn(&Value) -> bool,
) -> Value {
    wait_for(what, SOON, async || {
        let found = console.json(token, path).await;
        if is_there(&found) {
            Ok(found)
        } else {
            Err(found.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn the_fleet_shows_a_worker_its_drain_and_how_the_last_one_ended() {
    let world = TestWorld::acme().await;
    let console = world.console().await;
    let token = world.token(Role::Viewer, "ann", &[]).await;
    let empty = console.json(&token, "/").await;
    assert_eq!(empty["summary"]["cause"], "infrastructure");
    let bar = page(&console, &token, "/jobs").await;
    assert!(bar.contains("No worker runs. Accepted jobs are safe"));
    assert!(bar.contains("None has ended within a day."));

    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let fleet = until(
        &console,
        &token,
        "/fleet",
        "a sample of the worker",
        |found| {
            // Each part is kept for a moment, so one may be newer than another.
            let replica = &found["replicas"][0];
            let lanes = found["lanes"]["lanes"].as_array();
            replica["permits"] == 32 + 16 + 16
                && replica["not_ready"] == json!([])
                && lanes.is_some_and(|lanes| lanes.iter().all(|lane| lane["consumers"] == 1))
        },
    )
    .await;
    let replica = &fleet["replicas"][0];
    assert_eq!(replica["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(replica["deaf"], json!([]));
    assert_eq!(replica["rabbitmq_away"], false);
    assert_eq!(fleet["versions"], Value::Null);
    assert_eq!(fleet["errors"], json!([]));
    until(
        &console,
        &token,
        "/",
        "the state without a fault",
        |found| found["summary"]["cause"] == "nothing",
    )
    .await;
    let listed = world.dispatch(&["replicas"]).done().await;
    assert_eq!(listed["running"][0]["id"], replica["id"]);
    let lanes = world.dispatch(&["lanes"]).done().await;
    assert_eq!(lanes["scale"]["desired"], 1);
    assert_eq!(lanes["lanes"][0]["lane"], "dispatch");

    worker.kill9().await;
    let ended = until(&console, &token, "/fleet", "the death", |found| {
        found["replicas"] == json!([])
            && found["ended"]
                .as_array()
                .is_some_and(|ended| ended.iter().any(|one| one["id"] == replica["id"]))
    })
    .await;
    let dead = ended["ended"].as_array().expect("a list").iter();
    let dead: Vec<&Value> = dead.filter(|one| one["id"] == replica["id"]).collect();
    assert_eq!(dead[0]["how"], "lease_expired");
    until(
        &console,
        &token,
        "/",
        "the sentence about the death",
        |found| {
            let sentence = found["summary"]["sentence"].as_str();
            sentence.is_some_and(|text| text.contains("died, and its jobs wait for a worker"))
        },
    )
    .await;

    hosts_are_for_those_who_see_all(&world, &console, &token, &replica["host"]).await;
    drain(&world, &console, &token, &replica["id"]).await;
}

/// Compares the bar of a limited token with that of one which sees every organization.
async fn hosts_are_for_those_who_see_all(
    world: &TestWorld,
    console: &ConsoleProcess,
    token: &str,
    host: &Value,
) {
    let host = format!(" on {}, died", host.as_str().expect("a name"));
    let limited = world.token(Role::Viewer, "bob", &["acme"]).await;
    let bar = page(console, token, "/jobs").await;
    assert!(bar.contains(&host), "{bar}");
    let bar = page(console, &limited, "/jobs").await;
    assert!(
        bar.contains("No worker runs.") && !bar.contains(&host),
        "{bar}"
    );
}

/// Drains a second worker, which has taken over from a dead one.
async fn drain(world: &TestWorld, console: &ConsoleProcess, token: &str, replica: &Value) {
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Hang))
        .await;
    worker.terminate();
    until(console, token, "/fleet", "the drain", |found| {
        let mut ended = found["ended"].as_array().into_iter().flatten();
        found["replicas"][0]["draining"] == true
            && ended.any(|one| one["id"] == *replica && one["how"] == "taken_over")
    })
    .await;
    let shown = page(console, token, "/fleet").await;
    assert!(shown.contains("drains") && shown.contains("died, and its jobs were taken over"));
    worker.kill9().await;
}

/// Inserts jobs with these columns and values beside the usual ones.
async fn jobs(world: &TestWorld, number: u32, columns: &str, values: &str) {
    let sql = format!(
        "INSERT INTO jobs (id, source, dedupe_key, organization, schema, payload, stage, pipeline, {columns})
         SELECT gen_random_uuid(), 's', gen_random_uuid()::text, 'contoso', 1, '{{}}', 'check_account', 'dispatch', {values}
         FROM generate_series(1, {number})"
    );
    world.database.rows(&sql).await;
}

/// Inserts a sample of replica 1 that is some seconds old, with the number of jobs that it has parked.
async fn sample(world: &TestWorld, age: u32, parked: u32) {
    let data = json!({
        "version": "1", "ready": true, "not_ready": [], "stages": {},
        "counters": {r#"dispatch_jobs_total{pipeline="dispatch",state="parked"}"#: parked},
        "gauges": {r#"dispatch_permits{lane="dispatch"}"#: 8},
    });
    let sql = format!(
        "INSERT INTO samples (at, replica, data) VALUES (now() - interval '{age} seconds', 1, '{data}')"
    );
    world.database.rows(&sql).await;
}

/// A world without processes: a replica that lives for an hour, and jobs in several states.
async fn planted() -> TestWorld {
    let world = TestWorld::new().await;
    let replica = "INSERT INTO replicas (version, host, pid, alive_until, lanes)
        VALUES ('1', 'h', 1, now() + interval '1 hour', '{dispatch,messaging,assignee_sync}')";
    world.database.rows(replica).await;
    jobs(&world, 40, "state, due_at", "'ready', now()").await;
    jobs(
        &world,
        3,
        "state, due_at",
        "'ready', now() + interval '30 seconds'",
    )
    .await;
    jobs(
        &world,
        1,
        "state, due_at",
        "'ready', now() + interval '1 hour'",
    )
    .await;
    jobs(&world, 2, "state, owner", "'running', 1").await;
    let wait = "state, wait_reason, wait_key, wait_observed";
    let held = format!("'waiting', 'hold', 'hold:{}', 0", HELD.0);
    jobs(&world, 7, wait, &held).await;
    let version = "'waiting', 'version', 'schema:2', 0";
    jobs(&world, 5, wait, version).await;
    world
}

#[tokio::test]
async fn what_is_planted_is_counted_drawn_and_said_and_one_panel_fails_alone() {
    let world = planted().await;
    let console = world.console().await;
    let token = world.token(Role::Viewer, "ann", &[]).await;
    scale(&world, &console, &token).await;
    sentence(&world, &console, &token).await;
    charts(&console, &token).await;
    // A token of its own, because each has a limit of requests.
    let other = world.token(Role::Viewer, "otto", &[]).await;
    alerts(&console, &other).await;
    failing_panel(&world, &console, &token).await;
}

async fn scale(world: &TestWorld, console: &ConsoleProcess, token: &str) {
    let mut expected =
        json!({"desired": 3, "ready": 40, "in_flight": 2, "due_60s": 3, "waits_on_vendor": 7});
    assert_eq!(console.json(token, "/scale").await, expected);
    let keda = document("deploy/kubernetes/keda-metrics-api.yaml");
    assert!(keda.contains("/api/v1/scale\n") && keda.contains("valueLocation: desired\n"));
    // The console reads a sample once, so those of the past come first.
    for (age, parked) in [(300, 100), (200, 103), (100, 104), (20, 0)] {
        sample(world, age, parked).await;
    }
    expected["desired"] = json!(6);
    until(
        console,
        token,
        "/scale",
        "the permits of the sample",
        |found| *found == expected,
    )
    .await;
}

async fn sentence(world: &TestWorld, console: &ConsoleProcess, token: &str) {
    let hold = format!(
        "INSERT INTO controls (kind, scope, reason, who, automatic, expires_at)
         VALUES ('hold', '{}', '429', 'replica 1', true, now() + interval '9 minutes')",
        HELD.0
    );
    world.database.rows(&hold).await;
    let begin = format!("7 jobs wait for {}, held until ", HELD.1);
    let status = until(console, token, "/", "the vendor's hold", |found| {
        let sentence = found["summary"]["sentence"].as_str();
        sentence.is_some_and(|text| text.starts_with(&begin) && text.ends_with("; all else flows."))
    })
    .await;
    assert_eq!(status["summary"]["cause"], "vendor");
    assert_eq!(status["open"]["waiting"], count(12));
    two_versions(world, console, token).await;
    let changes = until(console, token, "/", "the changes", |found| {
        let changes = found["changes"].as_array();
        changes.is_some_and(|changes| changes.iter().any(|one| one["kind"] == "control"))
    })
    .await;
    let kinds: Vec<&Value> = changes["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["kind"])
        .collect();
    for kind in ["replica_started", "migration", "control"] {
        assert!(kinds.contains(&&json!(kind)), "{kinds:?}");
    }
}

async fn two_versions(world: &TestWorld, console: &ConsoleProcess, token: &str) {
    let other = "INSERT INTO replicas (version, host, pid, alive_until, lanes)
        VALUES ('9.9.9', 'h', 1, now() + interval '1 hour', '{}')";
    world.database.rows(other).await;
    until(console, token, "/fleet", "two versions", |found| {
        found["versions"] == json!(["1", "9.9.9"])
    })
    .await;
    let bar = page(console, token, "/jobs").await;
    assert!(bar.contains("Workers of 2 versions run: 1, 9.9.9."));
}

async fn charts(console: &ConsoleProcess, token: &str) {
    let parked = |found: &Value| -> f64 {
        let points = found["points"].as_array().expect("points").iter();
        points
            .map(|point| point["parked"].as_f64().expect("a number"))
            .sum()
    };
    // The newest sample is that of another process: its counter has begun again.
    until(console, token, "/samples", "four jobs parked", |found| {
        (parked(found) - 4.0).abs() < 0.01
    })
    .await;
    let since = (time::OffsetDateTime::now_utc() - time::Duration::hours(3))
        .format(&time::format_description::well_known::Rfc3339)
        .expect("a time");
    let long = console
        .json(token, &format!("/samples?since={since}"))
        .await;
    let points = long["points"].as_array().expect("points").len();
    assert!((180..=182).contains(&points), "{points}");
    for wrong in ["yesterday", "2999-01-01T00:00:00Z"] {
        let answer = console.get(token, &format!("/samples?since={wrong}")).await;
        assert_eq!(answer.status(), 400, "{wrong}");
    }
    let shown = page(console, token, "/").await;
    assert!(shown.contains("<polyline class=\"line-d\"") && shown.contains("<details>"));
    assert!(
        shown.contains("<line class=\"mark\""),
        "changes are on the axis"
    );
    assert!(!shown.contains(" style="), "nothing is inline");
    assert!(
        page(console, token, "/pipelines")
            .await
            .contains("<code>check_account</code>")
    );
}

async fn alerts(console: &ConsoleProcess, token: &str) {
    let mut links = BTreeSet::new();
    for alert in ALERTS {
        let path = format!("/go/{}", alert.name);
        let found = console.json(token, &path).await;
        assert_eq!(found["runbook"], alert.runbook);
        let numbers = found["numbers"].as_array().expect("numbers");
        assert!(!numbers.is_empty(), "{path}");
        for number in numbers {
            assert_eq!(number["error"], Value::Null, "{path}: {number}");
        }
        let shown = page(console, token, &path).await;
        assert!(shown.contains(alert.summary) && shown.contains("<h2>Safe actions</h2>"));
        let found = shown.split("href=\"").skip(1);
        links.extend(found.filter_map(|rest| Some(rest.split_once('"')?.0.replace("&amp;", "&"))));
    }
    for link in &links {
        page(console, token, link).await;
    }
    assert_eq!(
        console.get(token, "/go/DispatchNothing").await.status(),
        404
    );
}

async fn failing_panel(world: &TestWorld, console: &ConsoleProcess, token: &str) {
    let revoke = "REVOKE SELECT ON samples FROM dispatch_worker";
    world.database.rows(revoke).await;
    let status = until(console, token, "/", "the panel that fails", |found| {
        found["charts"] == Value::Null
    })
    .await;
    let failed = status["errors"].as_array().expect("errors").iter();
    let failed: Vec<&str> = failed.filter_map(|one| one["panel"].as_str()).collect();
    assert!(failed.contains(&"charts"), "{failed:?}");
    assert!(!failed.contains(&"open"), "{failed:?}");
    assert_eq!(status["open"]["running"], count(2));
    let shown = page(console, token, "/").await;
    assert!(shown.contains("This could not be read: ") && shown.contains("▶ running 2"));
    let scale = console.get(token, "/scale").await;
    assert_ne!(scale.status(), 200, "it depends on the samples");
}
