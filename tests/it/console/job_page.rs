//! The page of a job and its timeline: what it did, what it waited for, and what it does not show.

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::Role;
use serde_json::{Value, json};

use super::SOON;
use crate::support::{Browser, ConsoleProcess, TestWorld, WorkerOptions, acme};

/// A name and an address that nothing else of the world has.
const PERSON: &str = "Zacharias Quill";
const ADDRESS: &str = "zacharias@quill.example";

fn kinds(timeline: &Value) -> Vec<&str> {
    let spans = timeline["spans"].as_array().unwrap().iter();
    spans.map(|span| span["kind"].as_str().unwrap()).collect()
}

/// Returns the kinds in the table of the page, in its order.
fn kinds_on(page: &str) -> Vec<&str> {
    let cells = page.split("data-kind=\"").skip(1);
    cells.map(|from| from.split('"').next().unwrap()).collect()
}

/// Asserts that the spans follow each other from the acceptance to the end.
fn assert_covered(timeline: &Value) {
    let mut end = &timeline["job"]["created_at"];
    for span in timeline["spans"].as_array().unwrap() {
        assert_eq!(&span["from"], end, "{timeline:#}");
        end = &span["until"];
    }
    assert_eq!(end, &timeline["until"]);
}

/// Lets a job fail once and be retried, be refused and parked, be retried by a person, lose its
/// owner, and succeed.
async fn eventful(world: &TestWorld, console: &ConsoleProcess, operator: &str) -> JobId {
    let simulator = &world.simulator().await.client;
    let first = world.worker(&WorkerOptions::default());
    for fault in [
        FaultRule::new(FaultKind::ServerError),
        FaultRule::answering(400, "{}"),
    ] {
        let fault = fault.path_contains(acme::PROFILE).times(1);
        simulator.fault(&fault).await.unwrap();
    }
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("eventful", &event)).await;
    let parked = world
        .wait_job_state("eventful", JobState::Parked, SOON)
        .await;
    let hang = FaultRule::new(FaultKind::Hang).path_contains(acme::PROFILE);
    let hang = simulator.fault(&hang.times(1)).await.unwrap();
    let cookie = console.sign_in(operator).await;
    let confirm = format!("/jobs/{}/confirm/retry", parked.id);
    let confirm = console.page(&cookie, &confirm).await;
    let action = format!("/jobs/{}/retry", parked.id);
    let reason = [("reason", "the account is fixed")];
    let retried = console.submit(&cookie, &confirm, &action, &reason).await;
    assert_eq!(retried.status(), 303);
    world.wait_fault_met(hang).await;
    let second = world.worker(&WorkerOptions::default());
    second.ready().await;
    first.kill9().await;
    world
        .wait_job_state("eventful", JobState::Succeeded, SOON)
        .await;
    parked.id
}

#[tokio::test]
async fn a_job_that_failed_was_retried_lost_its_owner_and_succeeded_shows_all_of_it() {
    let world = TestWorld::acme().await;
    let console = world.console().await;
    let operator = world.token(Role::Operator, "ann", &[]).await;
    let id = eventful(&world, &console, &operator).await;
    let timeline = console
        .json(&operator, &format!("/jobs/{id}/timeline"))
        .await;
    assert_covered(&timeline);
    let kinds = kinds(&timeline);
    let order = [
        "stage",
        "retried",
        "backoff",
        "failed",
        "parked",
        "owner_died",
        "queued",
        "stage",
        "follow_ups",
    ];
    let mut left = kinds.iter();
    for kind in order {
        assert!(
            left.any(|found| *found == kind),
            "{kind} is missing or out of order in {kinds:?}"
        );
    }
    assert_eq!(
        timeline["actions"][0]["action"],
        json!("retry"),
        "{timeline:#}"
    );
    assert_eq!(timeline["ends"][0]["ended_well"], json!(false));
    let succeeded = timeline["follow_ups"]["states"][0]["state"].as_str();
    assert_eq!(succeeded, Some("succeeded"), "{timeline:#}");

    let cookie = console.sign_in(&operator).await;
    let page = console.page(&cookie, &format!("/jobs/{id}")).await;
    assert_eq!(kinds_on(&page), kinds, "the page and the API agree");
    for (n, kind) in kinds.iter().enumerate() {
        let is_drawn = page.contains(&format!("href=\"#span-{n}\""));
        assert_eq!(is_drawn, *kind != "commit", "bar {n}");
        assert!(page.contains(&format!("id=\"span-{n}\"")), "row {n}");
    }
    assert!(!page.contains(" style="), "nothing is inline");
    let to_scale = console
        .page(&cookie, &format!("/jobs/{id}?scale=true"))
        .await;
    assert!(to_scale.contains("To scale."));
    assert!(!to_scale.contains("drawn short"));
    fits_a_small_screen(&console, &operator, id).await;
}

/// Opens the page at 390 px in both colour schemes.
async fn fits_a_small_screen(console: &ConsoleProcess, token: &str, id: JobId) {
    let browser = Browser::open().await;
    browser.viewport(390, 844).await;
    browser.go(&console.url(&format!("/sign-in#{token}"))).await;
    browser
        .wait_until("location.pathname", &json!("/"), SOON)
        .await;
    for scheme in ["light", "dark"] {
        browser.colour_scheme(scheme).await;
        browser.go(&console.url(&format!("/jobs/{id}"))).await;
        let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(browser.evaluate(fits).await, json!(true), "{scheme}");
        let bars = "Array.from(document.querySelectorAll('.bar')).every(bar => bar.getBoundingClientRect().width > 0)";
        assert_eq!(browser.evaluate(bars).await, json!(true), "{scheme}");
        let unreadable = "Array.from(document.querySelectorAll('.bar')).filter(bar => {
            const fill = getComputedStyle(bar).fill;
            return fill === 'rgb(0, 0, 0)' || fill === getComputedStyle(bar.closest('ol')).backgroundColor;
        }).length";
        assert_eq!(browser.evaluate(unreadable).await, json!(0), "{scheme}");
    }
    browser.close().await;
}

#[tokio::test]
async fn a_job_that_is_held_says_by_what_and_names_nobody_until_it_is_unmasked() {
    let world = TestWorld::acme().await;
    let console = world.console().await;
    let admin = world.token(Role::Admin, "olga", &[]).await;
    let hold = json!({"scope": "organization:acme", "minutes": 60, "reason": "<b>test</b>"});
    let held = console.post(&admin, "/controls/hold", &hold).await;
    assert_eq!(held.status(), 200);
    // A worker that starts knows every control in force.
    let _worker = world.worker(&WorkerOptions::default());
    let mut message = acme::job(
        "held",
        &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await,
    );
    message["search"] = json!({"text": format!("{PERSON} <script>alert(1)</script> {ADDRESS}")});
    world.publish_job(&message).await;
    let row = world.wait_job_state("held", JobState::Waiting, SOON).await;
    let path = format!("/jobs/{}", row.id);
    let timeline = console.json(&admin, &format!("{path}/timeline")).await;
    assert_covered(&timeline);
    let last = timeline["spans"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["kind"], &last["text"]),
        (&json!("held"), &json!("held by organization:acme"))
    );
    plant(&world, row.id).await;

    let viewer = world.token(Role::Viewer, "vera", &[]).await;
    let seen = console.sign_in(&viewer).await;
    let page = console.page(&seen, &path).await;
    assert!(page.contains("held by organization:acme"));
    let main = page.split("<main").nth(1).unwrap();
    let main = main.split("</main>").next().unwrap();
    assert!(
        !main.contains("<form") && !main.contains("/confirm/"),
        "{main}"
    );
    for path in [&path, &format!("{path}/data"), &format!("{path}/timeline")] {
        let api = console.json(&viewer, path).await.to_string();
        for planted in [PERSON, ADDRESS, "Quill"] {
            assert!(!api.contains(planted), "{path}: {api}");
        }
    }
    for planted in [PERSON, ADDRESS, "Quill", "<script>alert", "<b>test"] {
        assert!(!page.contains(planted), "{planted}: {page}");
    }
    assert!(page.contains("&lt;img"), "hostile text is text: {page}");
    assert!(page.contains("person·"), "a person is a hash");
    unmasked_once(&world, &console, &admin, &path).await;
}

/// Plants a person in an output, and hostile text in an effect, an event and a message.
async fn plant(world: &TestWorld, id: JobId) {
    let hostile = "<img src=x onerror=alert(1)>";
    world
        .database
        .rows(&format!(
            "INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
                VALUES ('{id}', 7, 'planted', 1, '{{\"displayName\": \"{PERSON}\", \"mail\": \"{ADDRESS}\"}}', 1, 1, 1, now());
            INSERT INTO effects (job_id, key, generation, stage, target, class, state, detail, epoch, deadline_at)
                VALUES ('{id}', '{hostile}', 1, '{hostile}', '{hostile}', 'K3', 'unknown', '{{}}', 1, now());
            INSERT INTO announcements (job_id, routing_key, body, publish_after)
                VALUES ('{id}', 'job.{hostile}', '{{\"event\": \"{hostile}\"}}', now() + interval '1 hour');
            UPDATE jobs SET error_message = '{hostile}', error_code = '{hostile}' WHERE id = '{id}'"
        ))
        .await;
}

/// Unmasks by a form and by the API: shown once, audited each time, and never by a repetition.
async fn unmasked_once(world: &TestWorld, console: &ConsoleProcess, admin: &str, path: &str) {
    let cookie = console.sign_in(admin).await;
    let confirm = console
        .page(&cookie, &format!("{path}/confirm/unmask"))
        .await;
    let action = format!("{path}/unmask");
    let reason = [("reason", "a complaint")];
    let shown = console.submit(&cookie, &confirm, &action, &reason).await;
    assert_eq!(shown.status(), 200);
    assert_eq!(shown.headers()["cache-control"], "no-store");
    let shown = shown.text().await.unwrap();
    assert!(shown.contains(PERSON) && shown.contains(ADDRESS), "{shown}");
    assert!(!shown.contains("<script>alert"), "{shown}");
    assert!(!shown.contains("secret_sha256"), "{shown}");
    let again = console.submit(&cookie, &confirm, &action, &reason).await;
    assert_eq!(again.status(), 303, "a reload shows the job");

    let api = async || {
        let path = format!("/api/v1{path}/unmask");
        let request = console.request(reqwest::Method::POST, &path);
        let request = request.bearer_auth(admin).header("idempotency-key", "u1");
        let answer = request.json(&json!({"reason": "again"})).send().await;
        answer.unwrap().json::<Value>().await.unwrap()
    };
    let text = api().await["data"]["input"]["search"]["text"].to_string();
    assert!(text.contains(PERSON), "{text}");
    assert_eq!(api().await["data"], Value::Null);
    let actions = "SELECT who, reason FROM audit_log WHERE action = 'unmask' ORDER BY id";
    assert_eq!(
        world.database.rows(actions).await,
        [["olga", "a complaint"], ["olga", "again"]]
    );
}
