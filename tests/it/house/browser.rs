//! Pages in a browser: of a small screen, with and without scripts.

use std::time::Duration;

use crate::support::{Browser, TestWorld, WorkerOptions};
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);
/// A page that shows whether its script has run.
const SCRIPTED: &str = "data:text/html,<p id=shown>off</p><script>shown.textContent='on'</script>";

#[tokio::test]
async fn the_first_page_of_a_worker_is_read_on_a_small_screen_with_and_without_scripts() {
    let world = TestWorld::new().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let browser = Browser::open().await;
    browser.viewport(390, 844).await;
    for are_on in [true, false] {
        browser.scripts(are_on).await;
        browser.go(SCRIPTED).await;
        let expected = json!(if are_on { "on" } else { "off" });
        browser
            .wait_until(
                "document.getElementById('shown').textContent",
                &expected,
                SOON,
            )
            .await;

        browser
            .go(&format!("http://{}/", worker.operations()))
            .await;
        let link = "document.querySelector(\"a[href='/readyz']\").textContent";
        assert_eq!(browser.evaluate(link).await, json!("/readyz"));
        assert_eq!(browser.evaluate("window.innerWidth").await, json!(390));
    }
    for scheme in ["dark", "light"] {
        browser.colour_scheme(scheme).await;
        let asked = format!("matchMedia('(prefers-color-scheme: {scheme})').matches");
        browser.wait_until(&asked, &json!(true), SOON).await;
    }
    let image = browser.screenshot().await;
    assert!(image.starts_with(b"\x89PNG"), "a PNG image");
    browser.close().await;
}
