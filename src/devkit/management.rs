//! RabbitMQ's management HTTP API, as far as the devkit needs it.
//! Source: <https://www.rabbitmq.com/docs/management#http-api>, and `/api/index.html` of the server itself.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// A queue's messages, as the API tells them.
#[derive(Deserialize)]
pub(crate) struct QueueTotals {
    pub(crate) name: String,
    /// Absent while the queue's process cannot be asked.
    pub(crate) messages_ready: Option<u64>,
    pub(crate) messages_unacknowledged: Option<u64>,
}

/// What a user may do in a vhost, as patterns of the names of exchanges and queues; the exchange without a name is
/// `amq.default`. An empty pattern matches nothing.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Rights<'a> {
    /// To make, change and remove them.
    pub configure: &'a str,
    /// To publish to them, and to bind queues.
    pub write: &'a str,
    /// To consume from them.
    pub read: &'a str,
}

/// Of a worker, as the README gives them.
pub const WORKER_RIGHTS: Rights<'static> = Rights {
    configure: "^$",
    write: r"^(dispatch\.wake|dispatch\.events|amq\.default)$",
    read: r"^dispatch\.(jobs|control|wake|assignee-sync|messaging|parked)$",
};
/// Of a producer that asks for direct replies only.
pub const PRODUCER_RIGHTS: Rights<'static> = Rights { configure: "^$", write: "^dispatch$", read: "^$" };

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
        self.permit(vhost, user, &Rights { configure: ".*", write: ".*", read: ".*" }).await
    }

    /// Makes a user who has these rights in a vhost; one that is there gets the password and the rights.
    pub(crate) async fn create_user(&self, vhost: &str, user: &str, password: &str, rights: &Rights<'_>) -> anyhow::Result<()> {
        self.call(Method::PUT, &["users", user], Some(json!({"password": password, "tags": ""}))).await?;
        self.permit(vhost, user, rights).await
    }

    /// Removes a user.
    pub(crate) async fn delete_user(&self, user: &str) -> anyhow::Result<()> {
        self.call(Method::DELETE, &["users", user], None).await.map(|_| ())
    }

    /// Removes a vhost with all it holds, closing its connections; one that is not there is no error.
    pub(crate) async fn delete_vhost(&self, vhost: &str) -> anyhow::Result<()> {
        let response = send(self.request(Method::DELETE, &["vhosts", vhost])?).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        accepted(response).await.map(|_| ())
    }

    /// Messages ready and unacknowledged in each queue of a vhost, by the queue's name. Asked of the queues themselves: the
    /// statistics that the API shows by default are up to 5 s late, and zero at first.
    pub(crate) async fn queue_totals(&self, vhost: &str) -> anyhow::Result<Vec<QueueTotals>> {
        let request = self.request(Method::GET, &["queues", vhost])?;
        let request = request.query(&[("disable_stats", "true"), ("enable_queue_totals", "true")]);
        let response = accepted(send(request).await?).await?;
        response.json().await.context("the management API's answer on queues cannot be read")
    }

    async fn permit(&self, vhost: &str, user: &str, rights: &Rights<'_>) -> anyhow::Result<()> {
        self.call(Method::PUT, &["permissions", vhost, user], Some(serde_json::to_value(rights)?)).await.map(|_| ())
    }

    async fn call(&self, method: Method, path: &[&str], body: Option<Value>) -> anyhow::Result<Response> {
        let mut request = self.request(method, path)?;
        if let Some(body) = body {
            request = request.json(&body);
        }
        accepted(send(request).await?).await
    }

    fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| anyhow::anyhow!("{} has no path", self.base))?.pop_if_empty().extend(path);
        Ok(self.client.request(method, url).basic_auth(&self.user, Some(&self.password)))
    }
}

async fn send(request: RequestBuilder) -> anyhow::Result<Response> {
    request.send().await.context("RabbitMQ's management API does not answer")
}

async fn accepted(response: Response) -> anyhow::Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    let (status, url) = (response.status(), response.url().clone());
    bail!("{url} answered {status}: {}", response.text().await.unwrap_or_default());
}
