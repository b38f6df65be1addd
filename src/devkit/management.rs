//! RabbitMQ's management HTTP API, as far as the devkit needs it.
//! Source: <https://www.rabbitmq.com/docs/management#http-api>, and `/api/index.html` of the server itself.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

/// The longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the API.
pub(crate) struct Management {
    client: Client,
    /// `http://127.0.0.1:PORT/api/`, without credentials.
    base: Url,
    user: String,
    password: String,
}

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct QueueDepth {
    /// Messages waiting for a consumer.
    #[serde(rename = "messages_ready", default)]
    pub ready: u64,
    /// Messages handed out and not yet acknowledged.
    #[serde(rename = "messages_unacknowledged", default)]
    pub unacked: u64,
    /// Consumers attached.
    #[serde(default)]
    pub consumers: u64,
}

impl Management {
    /// `url` is `http://USER:PASSWORD@HOST:PORT`.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        // Somebody else may have installed a provider: any will do, as there is no TLS here.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let mut base = Url::parse(url).context("the management URL is not http://USER:PASSWORD@HOST:PORT")?;
        let (user, password) = (base.username().to_owned(), base.password().unwrap_or_default().to_owned());
        let stripped = base.set_username("").and_then(|()| base.set_password(None));
        if stripped.is_err() {
            bail!("the management URL is not http://USER:PASSWORD@HOST:PORT");
        }
        base.set_path("/api/");
        // No idle connections: they would belong to the runtime of the test that opened them, and break in the next test.
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(TIMEOUT).build()?;
        Ok(Self { client, base, user, password })
    }

    /// Whether the API answers and accepts the credentials.
    pub(crate) async fn is_up(&self) -> bool {
        self.call(Method::GET, &["whoami"], None).await.is_ok()
    }

    /// Makes a vhost in which `user` may do everything.
    pub(crate) async fn create_vhost(&self, vhost: &str, user: &str) -> anyhow::Result<()> {
        self.call(Method::PUT, &["vhosts", vhost], Some(json!({}))).await?;
        let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.call(Method::PUT, &["permissions", vhost, user], Some(everything)).await?;
        Ok(())
    }

    /// Removes a vhost with all it holds, closing its connections; one that is not there is no error.
    pub(crate) async fn delete_vhost(&self, vhost: &str) -> anyhow::Result<()> {
        let response = self.send(Method::DELETE, &["vhosts", vhost], None).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        accepted(response).await.map(|_| ())
    }

    /// What a queue holds now.
    pub(crate) async fn queue_depth(&self, vhost: &str, queue: &str) -> anyhow::Result<QueueDepth> {
        let response = self.call(Method::GET, &["queues", vhost, queue], None).await?;
        response.json().await.context("the management API's answer on a queue cannot be read")
    }

    async fn call(&self, method: Method, path: &[&str], body: Option<serde_json::Value>) -> anyhow::Result<Response> {
        accepted(self.send(method, path, body).await?).await
    }

    async fn send(&self, method: Method, path: &[&str], body: Option<serde_json::Value>) -> anyhow::Result<Response> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| anyhow::anyhow!("{} has no path", self.base))?.pop_if_empty().extend(path);
        let mut request = self.client.request(method, url).basic_auth(&self.user, Some(&self.password));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.context("RabbitMQ's management API does not answer")
    }
}

async fn accepted(response: Response) -> anyhow::Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    let (status, url) = (response.status(), response.url().clone());
    bail!("{url} answered {status}: {}", response.text().await.unwrap_or_default());
}
