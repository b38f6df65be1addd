//! Live pages: the stream that names changed parts, its limits, and pages without Postgres.

use std::time::Duration;

use dispatch_worker::store::Role;
use reqwest::header::{ACCEPT, COOKIE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::waiting_job;
use crate::support::{ConsoleProcess, Proxy, TestWorld, WorkerOptions};

const SOON: Duration = Duration::from_secs(30);
/// Open streams of one token.
const STREAMS: usize = 10;

/// An open stream of events.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    async fn of(console: &ConsoleProcess, cookie: &str, page: &str) -> Self {
        let answer = ask(console, cookie, page).await;
        assert_eq!(answer.status(), 200, "{page}");
        let text = String::new();
        Self { answer, text }
    }

    /// Returns the name and the data of the next event.
    async fn next(&mut self) -> (String, String) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|text| text.trim().to_owned())
                };
                let found = field("event:").zip(field("data:"));
                self.text = rest.to_owned();
                if let Some(found) = found {
                    return found;
                }
                continue;
            }
            let more = tokio::time::timeout(SOON, self.answer.chunk()).await;
            let more = more.expect("an event in time").expect("the stream is open");
            let more = more.expect("the stream goes on");
            self.text
                .push_str(std::str::from_utf8(&more).expect("text"));
        }
    }

    /// Returns the next versions of which the one of this part is another one.
    async fn changed(&mut self, part: &str, before: Option<&str>) -> String {
        loop {
            let (name, data) = self.next().await;
            let versions = (name == "versions").then(|| version(&data, part)).flatten();
            if let Some(version) = versions.filter(|version| Some(version.as_str()) != before) {
                return version;
            }
        }
    }
}

async fn ask(console: &ConsoleProcess, cookie: &str, page: &str) -> Response {
    let request = console.request(Method::GET, "/events");
    let request = request.query(&[("page", page)]).header(COOKIE, cookie);
    request.send().await.expect("the console answers")
}

/// Returns the version of a part.
fn version(versions: &str, part: &str) -> Option<String> {
    let own = |pair: &str| {
        pair.strip_prefix(part)?
            .strip_prefix(':')
            .map(str::to_owned)
    };
    versions.split(' ').find_map(own)
}

#[tokio::test]
async fn a_stream_names_the_parts_of_a_page_that_have_changed() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let console = world.console().await;
    let cookie = console
        .sign_in(&world.token(Role::Operator, "ann", &[]).await)
        .await;
    let list = "/jobs?state=waiting";
    let mut events = Events::of(&console, &cookie, list).await;
    let before = events.changed("jobs", None).await;
    let job = waiting_job(&world, "a").await;
    let now = events.changed("jobs", Some(&before)).await;

    // The page states the same version, and is not sent again to who has it.
    let get = async |known: Option<&str>| {
        let request = console.request(Method::GET, list).header(COOKIE, &cookie);
        let request = known
            .into_iter()
            .fold(request, |request, tag| request.header(IF_NONE_MATCH, tag));
        request.send().await.expect("an answer")
    };
    let page = get(None).await;
    let tag = page.headers()[ETAG].to_str().expect("a text").to_owned();
    let page = page.text().await.expect("a text");
    assert!(page.contains(&format!("jobs:{now}")), "{page}");
    assert_eq!(get(Some(&tag)).await.status(), StatusCode::NOT_MODIFIED);

    let mut events = Events::of(&console, &cookie, &format!("/jobs/{}", job.id)).await;
    assert_eq!(events.next().await.0, "versions");
    let confirm = format!("/jobs/{}/confirm/cancel", job.id);
    for wrong in [
        "",
        &confirm,
        "/nothing",
        "/jobs/",
        "https://example.org/jobs",
        "/events",
    ] {
        let refused = ask(&console, &cookie, wrong).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn streams_are_limited_and_a_page_can_load_itself_again() {
    let world = TestWorld::new().await;
    let console = world.console().await;
    let token = world.token(Role::Viewer, "ann", &[]).await;
    let cookie = console.sign_in(&token).await;
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        open.push(Events::of(&console, &cookie, "/jobs").await);
    }
    let refused = ask(&console, &cookie, "/jobs").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()[RETRY_AFTER], "5");
    let other = console
        .sign_in(&world.token(Role::Viewer, "bob", &[]).await)
        .await;
    drop(Events::of(&console, &other, "/jobs").await);
    open.clear();
    crate::support::wait_for("a place for a stream", SOON, async || {
        let answer = ask(&console, &cookie, "/jobs").await;
        if answer.status() == StatusCode::OK {
            Ok(())
        } else {
            Err(answer.status())
        }
    })
    .await;

    let get = async |path: &str| {
        let request = console.request(Method::GET, path).header(COOKIE, &cookie);
        request
            .header(ACCEPT, "text/html")
            .send()
            .await
            .expect("an answer")
    };
    let page = get("/jobs?state=parked&refresh=10").await;
    assert_eq!(
        (page.status(), &page.headers()["refresh"]),
        (StatusCode::OK, &"10".parse().unwrap())
    );
    let page = get("/jobs?refresh=1").await;
    assert_eq!(
        (page.status(), page.headers().get("refresh")),
        (StatusCode::OK, None)
    );
}

#[tokio::test]
async fn without_postgres_a_page_is_shown_as_it_was_and_nothing_can_be_pressed() {
    let world = TestWorld::new().await;
    let mut proxy = Proxy::to(&world.database.worker_url).await;
    let console = ConsoleProcess::start(&world, Some(&proxy.url())).await;
    let token = world.token(Role::Operator, "ann", &[]).await;
    let cookie = console.sign_in(&token).await;
    assert!(
        console
            .page(&cookie, "/controls")
            .await
            .contains("Controls")
    );
    let mut events = Events::of(&console, &cookie, "/controls").await;
    assert_eq!(events.next().await.0, "versions");
    proxy.stop().await;

    let (name, data) = events.next().await;
    let why: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(
        (name.as_str(), &why["title"]),
        ("away", &json!("Postgres is not available"))
    );
    let get = async |path: &str| {
        let request = console.request(Method::GET, path).header(COOKIE, &cookie);
        request.send().await.expect("an answer")
    };
    let shown = get("/controls").await;
    assert_eq!(shown.status(), StatusCode::SERVICE_UNAVAILABLE);
    let shown = shown.text().await.expect("a text");
    assert!(shown.contains("This is the page as of"), "{shown}");
    assert!(
        shown.contains("<fieldset class=\"snapshot\" disabled>"),
        "{shown}"
    );
    let never_read = get("/audit").await.text().await.expect("a text");
    assert!(
        never_read.contains("Postgres is not available"),
        "{never_read}"
    );
    let api = console.get(&token, "/jobs").await;
    assert_eq!(api.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(api.headers().contains_key(RETRY_AFTER));
    let problem: Value = api.json().await.expect("JSON");
    assert_eq!(problem["code"], "postgres_away");
}
