//! Measures every page of the console on tables as after a bad week: a million jobs with ten
//! checkpoints each, 80,000 of them parked, 200,000 due. Each page is read several times, long
//! enough apart that nothing is served from the console's memory.
//!
//! `cargo bench --bench pages`, with `-- SCALE` for another number of jobs: 62,500 times SCALE, 16
//! by default. It starts servers of its own, and fails if a page takes longer than the goal.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot continue panics"
)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::time::{Duration, Instant};

use dispatch_worker::devkit::servers::Servers;
use dispatch_worker::devkit::{many_rows, ports};
use dispatch_worker::operations::{TokenSettings, create_token};
use dispatch_worker::pipelines::registry;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::store::{self, Actor, Role, Store, StuckCode};
use reqwest::Client;
use reqwest::header::{COOKIE, SET_COOKIE};
use secrecy::{ExposeSecret, SecretString};
use tokio::process::{Child, Command};

const BINARY: &str = env!("CARGO_BIN_EXE_dispatch");
const GOAL: Duration = Duration::from_millis(100);
/// How often each page is read.
const ROUNDS: usize = 5;
/// Longer than any panel is kept in memory.
const A_ROUND_EVERY: Duration = Duration::from_secs(8);

/// A page whose parts `/` has too: it is read in a pass of its own, so that nothing of it is kept.
const ALONE: &str = "/stuck";

/// The pages that do not name a row; `nobody` is an organization without jobs.
const PAGES: &[&str] = &[
    ALONE,
    "/",
    "/jobs",
    "/jobs?state=parked",
    "/jobs?state=waiting",
    "/jobs?state=running",
    "/jobs?state=ready",
    "/jobs?state=succeeded",
    "/jobs?state=cancelled",
    "/jobs?organization=org-7",
    "/jobs?organization=org-7&state=parked",
    "/jobs?organization=nobody",
    "/jobs?organization=nobody&state=parked",
    "/jobs?organization=nobody&code=slack.*",
    "/jobs?organization=nobody&group=f-1",
    "/jobs?organization=nobody&cause=identity:1",
    "/jobs?source=shop-7",
    "/jobs?source=nobody",
    "/jobs?source=shop-7&key=k-7",
    "/jobs?key=k-7",
    "/jobs?key=nothing",
    "/jobs?pipeline=messaging",
    "/jobs?stage=check_account",
    "/jobs?code=slack.not_in_channel",
    "/jobs?code=slack.*",
    "/jobs?group=f-1",
    "/jobs?group=f-2",
    "/jobs?cause=identity:1",
    "/jobs?replica=1",
    "/jobs?item=17",
    "/groups",
    "/groups?status=new",
    "/groups?code=slack.*",
    "/groups/f-1",
    "/groups/f-2",
    "/campaigns",
    "/campaigns/1",
    "/campaigns/preview?action=retry&group=f-1",
    "/campaigns/preview?action=retry&code=slack.*",
    "/campaigns/preview?action=cancel&cause=identity:1",
    "/campaigns/preview?action=retry&state=parked&organization=nobody",
    "/controls",
    "/controls/kill-switch?organization=org-7&action=park",
    "/controls/kill-switch?organization=nobody&action=park",
    "/dead-letters",
    "/dead-letters?all=true",
    "/dead-letters?code=rare",
    "/dead-letters?source=nobody",
    "/fleet",
    "/pipelines",
    "/audit",
    "/audit?who=person%207",
    "/audit?who=nobody",
    "/audit?action=cancel",
];

/// The jobs whose pages are read: parked, held, with 8,000 follow-ups, running, succeeded, waiting
/// for a sign-in, due; by their numbers, and what they are.
const JOBS: &[(&str, &str)] = &[
    ("1", "parked"),
    ("parked_to() + 1", "held"),
    ("held_to() + 1", "with 8,000 follow-ups"),
    ("running_to()", "running"),
    ("done_to()", "succeeded"),
    ("waiting_to()", "waiting"),
    ("jobs()", "due"),
];

/// What a reader calls a page, and its path.
struct Page {
    name: String,
    path: String,
}

/// A running console with a session. Dropping it kills the process.
struct Console {
    _process: Child,
    http: Client,
    address: String,
    cookie: String,
}

impl Console {
    async fn start(url: &SecretString) -> Self {
        let port = ports::reserve().unwrap();
        let address = format!("127.0.0.1:{}", port.number());
        let process = Command::new(BINARY)
            .arg("console")
            .env_clear()
            .env("DISPATCH_DATABASE_URL", url.expose_secret())
            .env("DISPATCH_KEYRING", Keyring::fresh_setting().expose_secret())
            .env("DISPATCH_CONSOLE_LISTEN", &address)
            .env("DISPATCH_LOG", "warn")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut console = Self {
            _process: process,
            http: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            address,
            cookie: String::new(),
        };
        let sign_in = format!("http://{}/sign-in", console.address);
        while console.http.get(&sign_in).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let token = token(url).await;
        let form = [("token", token.expose_secret()), ("next", "/")];
        let request = console
            .http
            .post(&sign_in)
            .header("sec-fetch-site", "same-origin");
        let body = serde_urlencoded::to_string(form).unwrap();
        let answer = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .unwrap();
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        cookie
            .split(';')
            .next()
            .unwrap()
            .clone_into(&mut console.cookie);
        console
    }

    /// Returns how long a page took, and its size in bytes.
    async fn read(&self, path: &str) -> (Duration, usize) {
        let url = format!("http://{}{path}", self.address);
        let began = Instant::now();
        let request = self.http.get(url).header(COOKIE, &self.cookie);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        let took = began.elapsed();
        assert!(status.is_success(), "{path}: {status} {text}");
        (took, text.len())
    }
}

async fn token(url: &SecretString) -> SecretString {
    let actor = Actor {
        who: "bench".to_owned(),
        role: Role::Admin,
        reason: None,
        request: None,
    };
    let settings = TokenSettings {
        name: "bench".to_owned(),
        role: Role::Admin,
        source: None,
        organizations: None,
        valid: Duration::from_hours(1),
    };
    let store = Store::new(store::pool(url, 1).unwrap());
    create_token(&store, &actor, settings).await.unwrap().1
}

#[tokio::main]
async fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let scale = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse::<u32>().ok())
        .unwrap_or(16);
    let servers = Servers::start(Path::new(BINARY), |line| eprintln!("{line}"))
        .await
        .unwrap();
    let url = SecretString::from(servers.create_database("pages", None).await.unwrap());
    store::migrate(&url).await.unwrap();
    let began = Instant::now();
    many_rows::name_places(&url, scale).await.unwrap();
    many_rows::fill(&url, scale).await.unwrap();
    serve(&url).await;
    many_rows::vacuum(&url).await.unwrap();
    eprintln!("filled the tables in {:.0?}", began.elapsed());
    let pages = pages(&url).await;
    let console = Console::start(&url).await;
    let mut times = vec![Vec::with_capacity(ROUNDS); pages.len()];
    let mut sizes = vec![0; pages.len()];
    let mut rounds = tokio::time::interval(A_ROUND_EVERY);
    for _ in 0..ROUNDS {
        rounds.tick().await;
        for (index, page) in pages.iter().enumerate() {
            let (took, size) = console.read(&page.path).await;
            if page.path == ALONE {
                rounds.tick().await;
            }
            times[index].push(took);
            sizes[index] = size;
        }
    }
    let slow = report(&pages, &mut times, &sizes);
    servers.stop().await;
    assert!(slow == 0, "{slow} pages take longer than {GOAL:?}");
}

/// Has the living replicas serve every lane.
async fn serve(url: &SecretString) {
    let registry = registry();
    let lanes: Vec<&str> = registry.iter().map(|one| one.lane.name).collect();
    let client = store::pool(url, 1).unwrap().get().await.unwrap();
    let sql = "UPDATE replicas SET lanes = $1 WHERE ended_at IS NULL";
    client.execute(sql, &[&lanes]).await.unwrap();
}

/// Returns every page that is measured.
async fn pages(url: &SecretString) -> Vec<Page> {
    let same = |path: &&str| Page {
        name: (*path).to_owned(),
        path: (*path).to_owned(),
    };
    let mut pages: Vec<Page> = PAGES.iter().map(same).collect();
    let codes = StuckCode::ALL
        .iter()
        .map(|code| format!("/stuck?code={}", code.word()));
    pages.extend(codes.map(|path| same(&path.as_str())));
    let pool = store::pool(url, 1).unwrap();
    let client = pool.get().await.unwrap();
    for (number, what) in JOBS {
        let sql = format!("SELECT job({number})::text");
        let id: String = client.query_one(&sql, &[]).await.unwrap().get(0);
        pages.push(Page {
            name: format!("/jobs/… ({what})"),
            path: format!("/jobs/{id}"),
        });
    }
    pages
}

/// Prints a line for each page. Returns how many are slower than the goal: their median is.
fn report(pages: &[Page], times: &mut [Vec<Duration>], sizes: &[usize]) -> usize {
    println!(
        "{:<70} {:>9} {:>9} {:>9} {:>8}",
        "page, ms", "first", "median", "longest", "KiB"
    );
    let mut slow = 0;
    for ((page, times), size) in pages.iter().zip(times).zip(sizes) {
        let first = times[0];
        times.sort();
        let (median, longest) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
        let is_slow = median > GOAL;
        slow += usize::from(is_slow);
        println!(
            "{:<70} {:>9} {:>9} {:>9} {:>8}{}",
            page.name,
            ms(first),
            ms(median),
            ms(longest),
            size / 1024,
            if is_slow { "  slow" } else { "" }
        );
    }
    slow
}
