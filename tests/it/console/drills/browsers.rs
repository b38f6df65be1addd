//! Pages in browsers while RabbitMQ is away, and while two people act on one job.

use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::Role;
use serde_json::json;

use super::AFTER_AN_OUTAGE;
use crate::console::SOON;
use crate::console::night::{ENTER, arrived, press_on, says, signed_in};
use crate::support::{ANY_ATTEMPT, Browser, Checks, Proxy, TestWorld, WorkerOptions, acme};

/// The text of the bar above every page.
const BAR: &str = "document.querySelector('aside.in-force').textContent";

/// Parks a job with a change whose message is for a destination that does not exist yet, and
/// registers the destination.
async fn lost(world: &TestWorld) -> JobId {
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let mut message = acme::job("lost", &event);
    message["notify"] = json!(["new"]);
    world.publish_job(&message).await;
    let parked = world.wait_job_state("lost", JobState::Parked, SOON).await;
    world.register_new().await;
    parked.id
}

/// Opens the page of a job, and follows its action Retry to the confirmation by its key.
async fn begins_a_retry(browser: &Browser, job: JobId) {
    browser.press("r").await;
    arrived(browser, &format!("/jobs/{job}/confirm/retry")).await;
}

#[tokio::test]
async fn without_rabbitmq_an_open_page_says_so_and_a_retry_is_a_row_that_waits_for_it() {
    let world = TestWorld::acme().await;
    let proxy = Proxy::to(&world.worker_amqp_url).await;
    let worker = world.worker(&WorkerOptions {
        environment: [("DISPATCH_AMQP_URL".to_owned(), proxy.url())].into(),
        ..WorkerOptions::default()
    });
    let job = lost(&world).await;
    worker.ready().await;
    let console = world.console().await;
    let token = world.token(Role::Operator, "ann", &[]).await;
    let browser = signed_in(&console, &token, &format!("/jobs/{job}")).await;
    says(&browser, "parked").await;

    proxy.cut_off();
    let is_said = format!("{BAR}.includes('accepted jobs are safe, nothing new starts')");
    browser.wait_until(&is_said, &json!(true), SOON).await;
    let enabled = "[...document.querySelectorAll('main button')].every((one) => !one.disabled)";
    assert_eq!(browser.evaluate(enabled).await, json!(true), "actions stay");
    begins_a_retry(&browser, job).await;
    press_on(&browser, "input[name=reason]", &format!("it exists{ENTER}")).await;
    arrived(&browser, &format!("/jobs/{job}")).await;
    says(&browser, "its wake-up is not published yet").await;
    assert_eq!(browser.evaluate(&is_said).await, json!(true));
    let row = "SELECT state, due_at <= now(), woken_at IS NULL FROM jobs WHERE dedupe_key = 'lost'";
    assert_eq!(world.database.rows(row).await, [["ready", "t", "t"]]);

    proxy.connect_again();
    let is_gone = format!("{BAR}.trim()");
    browser.wait_until(&is_gone, &json!(""), SOON).await;
    says(&browser, "succeeded").await;
    browser.close().await;
    world
        .wait_job_state("lost", JobState::Succeeded, SOON)
        .await;
    world.wait_quiet(AFTER_AN_OUTAGE).await;
    let checks = Checks {
        attempts: ANY_ATTEMPT,
    };
    checks.hold(&world).await;
}

#[tokio::test]
async fn of_two_people_at_one_job_the_second_learns_what_the_first_has_done() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = lost(&world).await;
    let console = world.console().await;
    let (ann, bob) = (
        world.token(Role::Operator, "ann", &[]).await,
        world.token(Role::Operator, "bob", &[]).await,
    );
    let page = format!("/jobs/{job}");
    let first = signed_in(&console, &ann, &page).await;
    let second = signed_in(&console, &bob, &page).await;
    for browser in [&first, &second] {
        begins_a_retry(browser, job).await;
    }
    press_on(&first, "input[name=reason]", &format!("it exists{ENTER}")).await;
    arrived(&first, &page).await;
    says(&first, "succeeded").await;

    press_on(&second, "input[name=reason]", &format!("me too{ENTER}")).await;
    says(&second, "The job has moved on").await;
    for part in ["succeeded", "ann", "it exists"] {
        says(&second, part).await;
    }
    let status = "performance.getEntriesByType('navigation')[0].responseStatus";
    assert_eq!(second.evaluate(status).await, json!(412));
    let retries = "SELECT who FROM audit_log WHERE action = 'retry'";
    assert_eq!(world.database.rows(retries).await, [["ann"]]);
    let sent = world.witness().iter().filter(|one| one.effect).count();
    assert_eq!(sent, 1, "one message");
    first.close().await;
    second.close().await;
    let checks = Checks {
        attempts: ANY_ATTEMPT,
    };
    checks.hold(&world).await;
}
