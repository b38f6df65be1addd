//! The part of RabbitMQ's management HTTP API that the devkit uses. Source:
//! <https://www.rabbitmq.com/docs/management#http-api>, and `/api/index.html` of the server
//! itself.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the API.
pub(crate) struct Management {
    client: Client,
    /// `http://127.0.0.1:PORT/api/`, without credentials.
    base: Url,
    user: String,
    password: String,
}

/// The numbers of messages in a queue, as the API returns them.
#[derive(Deserialize)]
pub(crate) struct QueueTotals {
    pub(crate) name: String,
    /// Absent while the queue's process does not answer.
    pub(crate) messages_ready: Option<u64>,
    pub(crate) messages_unacknowledged: Option<u64>,
}

/// The permissions of a user in a vhost, as patterns of the names of exchanges and queues. The
/// default exchange is `amq.default`. An empty pattern matches nothing.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Rights<'a> {
    /// To create, change and remove them.
    pub configure: &'a str,
    /// To publish to them, and to bind queues.
    pub write: &'a str,
    /// To consume from them.
    pub read: &'a str,
}

/// The permissions of a worker, as the documentation lists them.
pub const WORKER_RIGHTS: Rights<'static> = Rights {
    configure: "^$",
    write: r"^(dispatch\.wake|dispatch\.events|amq\.default)$",
    read: r"^dispatch\.(jobs|control|wake|assignee-sync|messaging|parked)$",
};
/// The permissions of a producer that uses only direct replies.
pub const PRODUCER_RIGHTS: Rights<'static> = Rights {
    configure: "^$",
    write: "^dispatch$",
    read: "^$",
};

impl Management {
    /// Creates a client. `url` is `http://USER:PASSWORD@HOST:PORT`.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        // A provider may be installed already: any will do, because there is no TLS here.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let mut base =
            Url::parse(url).context("expected a management URL http://USER:PASSWORD@HOST:PORT")?;
        let (user, password) = (
            base.username().to_owned(),
            base.password().unwrap_or_default().to_owned(),
        );
        let stripped = base.set_username("").and_then(|()| base.set_password(None));
        if stripped.is_err() {
            bail!("the management URL is not http://USER:PASSWORD@HOST:PORT");
        }
        base.set_path("/api/");
        // No idle connections: they would belong to the runtime of the test that opened them, and
        // fail in the next test.
        let client = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            client,
            base,
            user,
            password,
        })
    }

    /// Returns whether the API answers and accepts the credentials.
    pub(crate) async fn is_up(&self) -> bool {
        self.call(Method::GET, &["whoami"], None).await.is_ok()
    }

    /// Creates a vhost in which `user` may do everything.
    pub(crate) async fn create_vhost(&self, vhost: &str, user: &str) -> anyhow::Result<()> {
        self.call(Method::PUT, &["vhosts", vhost], Some(json!({})))
            .await?;
        self.permit(
            vhost,
            user,
            &Rights {
                configure: ".*",
                write: ".*",
                read: ".*",
            },
        )
        .await
    }

    /// Creates a user with these permissions in a vhost. An existing user gets the password and
    /// the permissions.
    pub(crate) async fn create_user(
        &self,
        vhost: &str,
        user: &str,
        password: &str,
        rights: &Rights<'_>,
    ) -> anyhow::Result<()> {
        self.call(
            Method::PUT,
            &["users", user],
            Some(json!({"password": password, "tags": ""})),
        )
        .await?;
        self.permit(vhost, user, rights).await
    }

    pub(crate) async fn delete_user(&self, user: &str) -> anyhow::Result<()> {
        self.call(Method::DELETE, &["users", user], None)
            .await
            .map(|_| ())
    }

    /// Removes a vhost with its contents, closing its connections. A missing one is not an error.
    pub(crate) async fn delete_vhost(&self, vhost: &str) -> anyhow::Result<()> {
        let response = send(self.request(Method::DELETE, &["vhosts", vhost])?).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        accepted(response).await.map(|_| ())
    }

    /// Returns the ready and unacknowledged messages of each queue in a vhost, by queue name. They
    /// are read from the queues themselves: the statistics that the API returns by default are up
    /// to 5 s old, and zero at first.
    pub(crate) async fn queue_totals(&self, vhost: &str) -> anyhow::Result<Vec<QueueTotals>> {
        let request = self.request(Method::GET, &["queues", vhost])?;
        let request = request.query(&[("disable_stats", "true"), ("enable_queue_totals", "true")]);
        let response = accepted(send(request).await?).await?;
        response
            .json()
            .await
            .context("cannot parse the management API's answer on queues")
    }

    async fn permit(&self, vhost: &str, user: &str, rights: &Rights<'_>) -> anyhow::Result<()> {
        self.call(
            Method::PUT,
            &["permissions", vhost, user],
            Some(serde_json::to_value(rights)?),
        )
        .await
        .map(|_| ())
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Value>,
    ) -> anyhow::Result<Response> {
        let mut request = self.request(method, path)?;
        if let Some(body) = body {
            request = request.json(&body);
        }
        accepted(send(request).await?).await
    }

    fn request(&self, method: Method, path: &[&str]) -> anyhow::Result<RequestBuilder> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("{} has no path", self.base))?
            .pop_if_empty()
            .extend(path);
        Ok(self
            .client
            .request(method, url)
            .basic_auth(&self.user, Some(&self.password)))
    }
}

async fn send(request: RequestBuilder) -> anyhow::Result<Response> {
    request
        .send()
        .await
        .context("RabbitMQ's management API does not answer")
}

async fn accepted(response: Response) -> anyhow::Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    let (status, url) = (response.status(), response.url().clone());
    bail!(
        "{url} answered {status}: {}",
        response.text().await.unwrap_or_default()
    );
}
