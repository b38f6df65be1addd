//! The real console as a process.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use dispatch_worker::devkit::ports::{self, Port};
use dispatch_worker::operations::{TokenSettings, create_token};
use dispatch_worker::store::{Actor, Role};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response};
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
    _child: Child,
    port: Port,
    http: Client,
}

impl ConsoleProcess {
    /// Starts a console on the world's database, or on another address of it, and waits until it
    /// answers.
    pub(crate) async fn start(world: &TestWorld, database_url: Option<&str>) -> Self {
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
        let console = Self {
            _child: child,
            port,
            http,
        };
        wait_for("a console to answer", LISTENS_WITHIN, async || {
            let asked = console.http.get(console.url("/sign-in")).send().await;
            asked.map(drop).map_err(|error| error.to_string())
        })
        .await;
        console
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
