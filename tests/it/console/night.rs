//! A night of an SRE in a browser: from the alert to the report, by keys alone, on a small screen
//! without scripts, and what a page does while something changes under it.

use std::time::Duration;

use dispatch_worker::store::Role;
use serde_json::json;

use crate::support::{Browser, ConsoleProcess, Proxy, TestWorld, WorkerOptions};

const SOON: Duration = Duration::from_secs(30);
pub(super) const ENTER: &str = "\u{e007}";
/// Waves of 1 and 3 jobs.
const JOBS: usize = 4;

/// Opens a browser whose person has signed in, and shows a page.
pub(super) async fn signed_in(console: &ConsoleProcess, token: &str, page: &str) -> Browser {
    let browser = Browser::open().await;
    browser.go(&console.url(page)).await;
    arrived(&browser, "/sign-in").await;
    // The field has the focus.
    browser.press(&format!("{token}{ENTER}")).await;
    arrived(&browser, page).await;
    browser
}

/// Waits for a page by the beginning of its path. The page on which a person confirms an action has
/// the path of the page after it as its beginning.
pub(super) async fn arrived(browser: &Browser, path: &str) {
    let confirms = path.contains("/confirm/");
    let there = format!(
        "document.readyState === 'complete' && location.pathname.startsWith('{path}')
            && location.pathname.includes('/confirm/') === {confirms}"
    );
    browser.wait_until(&there, &json!(true), SOON).await;
}

/// Waits for a text in the content of the page.
pub(super) async fn says(browser: &Browser, text: &str) {
    let says = format!("document.querySelector('main').textContent.includes('{text}')");
    browser.wait_until(&says, &json!(true), SOON).await;
}

/// Puts the focus on the first element that fits, as Tab would, and presses keys.
pub(super) async fn press_on(browser: &Browser, selector: &str, keys: &str) {
    let focus = format!(
        "(document.querySelector('{selector}').focus(), document.activeElement.matches('{selector}'))"
    );
    assert_eq!(
        browser.evaluate(&focus).await,
        json!(true),
        "{selector} takes the focus"
    );
    browser.press(keys).await;
}

#[tokio::test]
async fn from_the_alert_to_the_report_by_keys_alone() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    for number in 0..JOBS {
        world.publish_lost(&format!("lost-{number}")).await;
    }
    let console = world.console().await;
    let token = world.token(Role::Operator, "ann", &[]).await;
    let browser = signed_in(&console, &token, "/go/DispatchParkedGrowing").await;
    // The alert leads to the groups, the group says what is different.
    press_on(&browser, "main a[href^=\"/groups\"]", ENTER).await;
    arrived(&browser, "/groups").await;
    browser.press(&format!("j{ENTER}")).await;
    arrived(&browser, "/groups/").await;
    says(&browser, "What is different").await;
    says(&browser, "unknown_destination").await;

    // The cause is repaired, then all of it is retried.
    world.register_new().await;
    browser.press("r").await;
    arrived(&browser, "/campaigns/preview").await;
    says(&browser, &format!("{JOBS} jobs")).await;
    press_on(
        &browser,
        "input[name=reason]",
        &format!("it is repaired{ENTER}"),
    )
    .await;
    arrived(&browser, "/campaigns/1").await;
    // The ten seconds in which a person may abort it are over.
    let now = "UPDATE campaigns SET next_at = now()";
    world.database.rows(now).await;
    // The page shows the report by itself.
    says(&browser, "finished").await;
    says(&browser, &format!("{JOBS} good")).await;
    browser.go(&console.url("/jobs?state=parked")).await;
    assert_eq!(
        browser
            .evaluate("document.querySelectorAll('main tbody tr').length")
            .await,
        json!(0)
    );
    // The picture of the README: copy it to docs/console.png.
    browser.viewport(1200, 800).await;
    browser.go(&console.url("/")).await;
    arrived(&browser, "/").await;
    let picture = concat!(env!("CARGO_TARGET_TMPDIR"), "/console.png");
    std::fs::write(picture, browser.screenshot().await).expect("the picture is written");
    browser.close().await;
}

#[tokio::test]
async fn without_scripts_on_a_small_screen_in_both_schemes() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    world.publish_lost("lost-0").await;
    let console = world.console().await;
    let token = world.token(Role::Operator, "ann", &[]).await;
    let browser = signed_in(&console, &token, "/jobs").await;
    browser.viewport(390, 844).await;
    browser.scripts(false).await;
    let job = world.job_by_key("lost-0").await.expect("the job exists").id;
    for scheme in ["light", "dark"] {
        browser.colour_scheme(scheme).await;
        for page in [
            "/",
            "/jobs",
            "/stuck",
            "/groups",
            "/controls",
            "/fleet",
            "/audit",
            "/go/DispatchStuck",
            &format!("/jobs/{job}"),
        ] {
            browser.go(&console.url(page)).await;
            let fits = "document.documentElement.scrollWidth <= window.innerWidth";
            assert_eq!(browser.evaluate(fits).await, json!(true), "{page} fits");
            let small = "[...document.querySelectorAll('main button, main a.button')].filter((one) => one.getBoundingClientRect().height < 32).length";
            assert_eq!(
                browser.evaluate(small).await,
                json!(0),
                "{page} has targets of 32 px"
            );
        }
    }
    // A retry: the page of the job, the confirmation, the job again.
    browser
        .go(&console.url(&format!("/jobs/{job}/confirm/retry")))
        .await;
    press_on(&browser, "input[name=reason]", &format!("try again{ENTER}")).await;
    arrived(&browser, &format!("/jobs/{job}")).await;
    let audit = "SELECT count(*) FROM audit_log WHERE action = 'retry' AND who = 'ann'";
    assert_eq!(world.database.one(audit).await, "1");
    browser.close().await;
}

#[tokio::test]
async fn a_page_changes_under_its_reader_in_eight_tabs_and_without_postgres() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut proxy = Proxy::to(&world.database.worker_url).await;
    let console = ConsoleProcess::start(&world, Some(&proxy.url())).await;
    let token = world.token(Role::Operator, "ann", &[]).await;
    let browser = signed_in(&console, &token, "/jobs").await;
    for _ in 0..7 {
        let tab = browser.new_tab().await;
        browser.show_tab(&tab).await;
        // A browser has six connections to a server, so a stream for each tab would block this.
        browser.go(&console.url("/jobs?state=parked")).await;
        arrived(&browser, "/jobs").await;
    }
    world.publish_lost("lost-0").await;
    let rows = "document.querySelectorAll('main tbody tr').length";
    browser.wait_until(rows, &json!(1), SOON).await;

    browser.press("?").await;
    browser
        .wait_until("document.querySelector('#keys').open", &json!(true), SOON)
        .await;
    browser
        .evaluate("document.querySelector('#keys').close()")
        .await;
    browser.press("t").await;
    let zone = "localStorage.getItem('zone')";
    assert_eq!(browser.evaluate(zone).await, json!("local"));

    proxy.stop().await;
    browser
        .wait_until(
            "document.body.classList.contains('away')",
            &json!(true),
            SOON,
        )
        .await;
    let bar = "document.querySelector('#live').textContent";
    let bar = browser.evaluate(bar).await;
    assert!(
        bar.as_str().is_some_and(|text| text.contains("as of")),
        "{bar}"
    );
    assert_eq!(browser.evaluate(rows).await, json!(1), "the page stays");
    browser.close().await;
}
