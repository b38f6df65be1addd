//! A browser without a window, for tests of pages: Chromium, driven over WebDriver
//! (<https://www.w3.org/TR/webdriver2/>). A client crate would turn on `preserve_order` of
//! `serde_json` for the whole program under test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use data_encoding::BASE64;
use dispatch_worker::devkit::install::{self, Wanted};
use dispatch_worker::devkit::ports::{self, Port};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::wait::wait_for;

/// The time limit until the driver listens.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// The time limit of one command.
const LONGEST: Duration = Duration::from_secs(30);
/// Runs the driver until standard input ends, which happens however this process ends. Then the
/// driver ends its browsers.
const UNTIL_END_OF_INPUT: &str = r#"
    "$1" --port="$2" --log-level=SEVERE < /dev/null &
    read -r _
    if exec 3<> "/dev/tcp/127.0.0.1/$2"; then
        printf 'GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
        read -r -t 5 _ <&3
    fi
    kill %1
"#;

/// The driver of a run, which every browser uses.
struct Driver {
    url: String,
    chromium: PathBuf,
    _port: Port,
    /// Its standard input is open as long as this process runs.
    _process: Child,
}

static DRIVER: OnceCell<Driver> = OnceCell::const_new();

impl Driver {
    async fn start() -> Self {
        let found = tokio::task::spawn_blocking(|| {
            let wanted = Wanted {
                chromium: true,
                ..Wanted::default()
            };
            install::ensure(wanted, &|line| eprintln!("{line}"))
        });
        let programs = found.await.expect("no panic");
        let programs =
            programs.unwrap_or_else(|error| panic!("tests of pages need Chromium: {error:#}"));
        let (chromium, chromedriver) = programs.chromium.zip(programs.chromedriver).expect("found");
        let port = ports::reserve().expect("a free port");
        let process = Command::new("bash")
            .args(["-c", UNTIL_END_OF_INPUT, "chromedriver"])
            .arg(chromedriver)
            .arg(port.number().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash runs");
        let url = format!("http://127.0.0.1:{}", port.number());
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        wait_for("chromedriver to be ready", READY_WITHIN, async || {
            let status = http.get(format!("{url}/status")).send().await;
            status
                .and_then(reqwest::Response::error_for_status)
                .map(drop)
        })
        .await;
        Self {
            url,
            chromium,
            _port: port,
            _process: process,
        }
    }
}

/// An open browser with a new, empty profile. [`Browser::close`] ends it.
pub(crate) struct Browser {
    http: reqwest::Client,
    /// The address of the session.
    session: String,
    profile: PathBuf,
}

impl Browser {
    pub(crate) async fn open() -> Self {
        let driver = DRIVER.get_or_init(Driver::start).await;
        let profile = std::env::temp_dir().join(format!("browser-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&profile).expect("a folder for the profile");
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let options = json!({"binary": driver.chromium, "args": flags});
        let wanted = json!({"browserName": "chrome", "goog:chromeOptions": options});
        let mut browser = Self {
            http: client(),
            session: format!("{}/session", driver.url),
            profile,
        };
        let begun = browser
            .post("", json!({"capabilities": {"alwaysMatch": wanted}}))
            .await;
        let id = begun["sessionId"].as_str().expect("the id of the session");
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    /// Sets the size of the page, in CSS pixels.
    pub(crate) async fn viewport(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// Sets the preferred colour scheme: `light` or `dark`.
    pub(crate) async fn colour_scheme(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let media = json!({"features": features});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// Turns the scripts of pages on or off, from the next page on.
    pub(crate) async fn scripts(&self, are_on: bool) {
        let off = json!({"value": !are_on});
        self.devtools("Emulation.setScriptExecutionDisabled", off)
            .await;
    }

    async fn devtools(&self, command: &str, arguments: Value) {
        let body = json!({"cmd": command, "params": arguments});
        self.post("/goog/cdp/execute", body).await;
    }

    pub(crate) async fn go(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// Evaluates an expression in the page, also where the page's own scripts are off.
    pub(crate) async fn evaluate(&self, expression: &str) -> Value {
        let body = json!({"script": format!("return {expression}"), "args": []});
        self.post("/execute/sync", body).await
    }

    /// Waits until the expression has this value in the page.
    pub(crate) async fn wait_until(&self, expression: &str, expected: &Value, limit: Duration) {
        wait_for(expression, limit, async || {
            let value = self.evaluate(expression).await;
            if value == *expected {
                Ok(())
            } else {
                Err(value)
            }
        })
        .await;
    }

    /// Presses keys one after the other, in the element that has the focus. `\u{e007}` is Enter
    /// (WebDriver, 17.4.2).
    pub(crate) async fn press(&self, keys: &str) {
        let presses: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})))
            .collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": presses});
        self.post("/actions", json!({"actions": [keyboard]})).await;
    }

    /// Opens another tab, and returns it and the present one. Calls go to the one last shown.
    pub(crate) async fn new_tab(&self) -> String {
        let tab = self.post("/window/new", json!({"type": "tab"})).await;
        tab["handle"].as_str().expect("a handle").to_owned()
    }

    /// Shows a tab.
    pub(crate) async fn show_tab(&self, handle: &str) {
        self.post("/window", json!({"handle": handle})).await;
    }

    /// Returns what the page shows, as a PNG image.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let answer = self.http.get(format!("{}/screenshot", self.session)).send();
        let image = value(answer.await).await;
        let image = image.as_str().expect("text").as_bytes();
        BASE64.decode(image).expect("the image is in base64")
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self
            .http
            .post(format!("{}{path}", self.session))
            .json(&body);
        value(request.send().await).await
    }

    /// Ends the browser and removes its profile.
    pub(crate) async fn close(self) {
        value(self.http.delete(&self.session).send().await).await;
        // Processes of the browser may still write to it.
        drop(std::fs::remove_dir_all(&self.profile));
    }
}

fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().timeout(LONGEST);
    client.build().expect("a client")
}

/// Returns the value of an answer. Panics with the error of the driver.
async fn value(answer: reqwest::Result<reqwest::Response>) -> Value {
    let answer = answer.expect("the driver answers");
    let is_success = answer.status().is_success();
    let mut answer: Value = answer.json().await.expect("the driver answers in JSON");
    let value = answer["value"].take();
    assert!(is_success, "{value}");
    value
}
