//! The real console as a process.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use dispatch_worker::devkit::ports::{self, Port};
use dispatch_worker::operations::{TokenSettings, create_token};
use dispatch_worker::store::{Actor, Role};
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, RequestBuilder, Response};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::servers::BINARY;
use super::wait::wait_for;
use super::world::TestWorld;

/// The time limit until the console answers.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);

/// A running console. Dropping it kills the process.
pub(crate) struct ConsoleProcess {
    child: Child,
    port: Port,
    http: Client,
}

impl ConsoleProcess {
    /// Starts a console on the world's database, or on another address of it, and waits until it
    /// answers.
    pub(crate) async fn start(world: &TestWorld, database_url: Option<&str>) -> Self {
        Self::start_with(world, database_url, &[]).await
    }

    /// Starts a console as [`ConsoleProcess::start`] does, with further settings.
    pub(crate) async fn start_with(
        world: &TestWorld,
        database_url: Option<&str>,
        settings: &[(&str, &str)],
    ) -> Self {
        let port = ports::reserve().expect("a free port");
        let log = File::create(
            world
                .folder()
                .join(format!("console-{}.log", port.number())),
        );
        let log = log.expect("a log file");
        let database = database_url.unwrap_or_else(|| world.database.worker_url.expose_secret());
        let child = Command::new(BINARY)
            .arg("console")
            .env_clear()
            .env("DISPATCH_DATABASE_URL", database)
            .env("DISPATCH_KEYRING", world.keyring_setting.expose_secret())
            .env(
                "DISPATCH_CONSOLE_LISTEN",
                format!("127.0.0.1:{}", port.number()),
            )
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the console starts");
        let http = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("an HTTP client");
        let console = Self { child, port, http };
        wait_for("a console to answer", LISTENS_WITHIN, async || {
            let asked = console.http.get(console.url("/sign-in")).send().await;
            asked.map(drop).map_err(|error| error.to_string())
        })
        .await;
        console
    }

    /// Ends the console in order, and waits for its end.
    pub(crate) async fn end(mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(Pid::from_raw).expect("a running process");
        kill_process(pid, Signal::TERM).expect("the process is a child");
        let ended = tokio::time::timeout(LISTENS_WITHIN, self.child.wait()).await;
        let status = ended.expect("an end in time").expect("a status");
        assert!(status.success(), "{status}");
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!(
            "http://{}:{}{path}",
            Ipv4Addr::LOCALHOST,
            self.port.number()
        )
    }

    /// Begins a request.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// Sends a `GET` to the API.
    pub(crate) async fn get(&self, token: &str, path: &str) -> Response {
        let path = format!("/api/v1{path}");
        let asked = self.request(Method::GET, &path).bearer_auth(token);
        asked.send().await.expect("the console answers")
    }

    /// Returns the body of a `GET` to the API, which must succeed.
    pub(crate) async fn json(&self, token: &str, path: &str) -> Value {
        let answer = self.get(token, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("JSON")
    }

    /// Sends a `POST` to the API.
    pub(crate) async fn post(&self, token: &str, path: &str, body: &Value) -> Response {
        let path = format!("/api/v1{path}");
        let asked = self.request(Method::POST, &path).bearer_auth(token);
        asked.json(body).send().await.expect("the console answers")
    }
}

impl ConsoleProcess {
    /// Signs in as a person does, and returns the cookie.
    pub(crate) async fn sign_in(&self, token: &str) -> String {
        let fields = [
            ("token", token.to_owned()),
            ("next", "/jobs?state=parked".to_owned()),
        ];
        let request = self
            .request(Method::POST, "/sign-in")
            .header("sec-fetch-site", "same-origin");
        let answer = form(request, &fields).send().await.expect("an answer");
        assert_eq!(answer.status(), 303);
        assert_eq!(answer.headers()[LOCATION], "/jobs?state=parked");
        let cookie = answer.headers()[SET_COOKIE].to_str().expect("a text");
        assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
        cookie.split(';').next().expect("a first part").to_owned()
    }

    /// Returns a page as somebody who has signed in sees it; it must exist.
    pub(crate) async fn page(&self, cookie: &str, path: &str) -> String {
        let request = self.request(Method::GET, path).header(COOKIE, cookie);
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a text");
        assert_eq!(status, 200, "{path}: {text}");
        text
    }

    /// Submits a form of a page with these values of its fields, and those that it has hidden.
    pub(crate) async fn submit(
        &self,
        cookie: &str,
        page: &str,
        action: &str,
        fields: &[(&str, &str)],
    ) -> Response {
        let of_action = format!("method=\"post\" action=\"{action}\"");
        let form_text = page.split(&of_action).nth(1);
        let form_text = form_text.unwrap_or_else(|| panic!("no form for {action}: {page}"));
        let form_text = form_text.split("</form>").next().expect("a first part");
        let hidden = form_text.split("type=\"hidden\" name=\"").skip(1);
        let mut all: Vec<(&str, String)> = hidden
            .filter_map(|from| from.split('"').next())
            .map(|name| (name, field(form_text, name)))
            .collect();
        all.extend(
            fields
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let request = self.request(Method::POST, action).header(COOKIE, cookie);
        let request = request.header("sec-fetch-site", "same-origin");
        form(request, &all).send().await.expect("an answer")
    }
}

/// Returns the value of a field in the text of a page.
pub(crate) fn field(page: &str, name: &str) -> String {
    let from = page.split(&format!("name=\"{name}\" value=\"")).nth(1);
    let from = from.unwrap_or_else(|| panic!("no field {name}: {page}"));
    let value = from.split('"').next().expect("a first part");
    value
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// Gives a request the body of a page's form.
pub(crate) fn form(request: RequestBuilder, fields: &[(&str, String)]) -> RequestBuilder {
    let body = serde_urlencoded::to_string(fields).expect("texts");
    request
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body)
}

impl TestWorld {
    /// Starts a console.
    pub(crate) async fn console(&self) -> ConsoleProcess {
        ConsoleProcess::start(self, None).await
    }

    /// Creates a token with the name of its role, or with `name`.
    pub(crate) async fn token(&self, role: Role, name: &str, organizations: &[&str]) -> String {
        let actor = Actor {
            who: "olga".to_owned(),
            role: Role::Admin,
            reason: None,
            request: None,
        };
        let organizations = organizations.iter().map(|&one| one.to_owned());
        let settings = TokenSettings {
            name: name.to_owned(),
            role,
            source: (role == Role::Producer).then(|| super::acme::SOURCE.to_owned()),
            organizations: Some(organizations.collect()).filter(|list: &Vec<_>| !list.is_empty()),
            valid: Duration::from_hours(1),
        };
        let created = create_token(&self.store(), &actor, settings).await;
        created.expect("a new token").1.expose_secret().to_owned()
    }
}
