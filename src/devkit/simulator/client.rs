//! A client of the simulator's admin calls, for tests and the demo.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::admin::{Change, TokenChange};
use super::faults::{FaultReport, FaultRule};
use super::state::{Options, State};
use super::world::Event;

/// Calls `/_sim/…`. Every method fails if the simulator does not answer within 10 s, or answers
/// with an error.
#[derive(Debug, Clone)]
pub struct SimulatorClient {
    url: String,
    http: reqwest::Client,
}

impl SimulatorClient {
    /// Creates a client of the simulator at `url` (`http://127.0.0.1:PORT`, without a trailing
    /// slash).
    ///
    /// # Errors
    /// If no HTTP client can be created.
    pub fn new(url: impl Into<String>) -> anyhow::Result<Self> {
        // An error means that one is already installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self {
            url: url.into(),
            http,
        })
    }

    /// Returns the simulator's base URL, which is also that of every provider.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Replaces the whole state document.
    ///
    /// # Errors
    /// See [`SimulatorClient`]; also if [`State::check`] refuses it.
    pub async fn load_state(&self, state: &State) -> anyhow::Result<()> {
        self.post("state", state).await
    }

    /// Merges a state document into the current one, see [`State::merge`].
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn merge_state(&self, state: &State) -> anyhow::Result<()> {
        self.post("state?mode=merge", state).await
    }

    /// Returns the current state document, with the received messages.
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn state(&self) -> anyhow::Result<State> {
        self.get("state").await
    }

    /// Replaces only the options.
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn options(&self, options: &Options) -> anyhow::Result<()> {
        self.post("options", options).await
    }

    /// Changes a work item as a person would. Returns the service-hook event's body.
    ///
    /// # Errors
    /// See [`SimulatorClient`]; also if the work item, a user or the state does not exist.
    pub async fn change(&self, change: &Change) -> anyhow::Result<Value> {
        self.post("change", change).await
    }

    /// Deletes a work item.
    ///
    /// # Errors
    /// See [`SimulatorClient`]; also if there is no such work item.
    pub async fn delete_work_item(&self, organization: &str, id: i64) -> anyhow::Result<()> {
        self.post(
            "delete_work_item",
            &json!({ "org": organization, "work_item": id }),
        )
        .await
    }

    /// Expires, renews or creates a token.
    ///
    /// # Errors
    /// See [`SimulatorClient`]; also if the token is new and names no user.
    pub async fn token(&self, change: &TokenChange) -> anyhow::Result<()> {
        self.post("tokens", change).await
    }

    /// Adds a fault. Returns its id.
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn fault(&self, rule: &FaultRule) -> anyhow::Result<u64> {
        let answer: Value = self.post("faults", rule).await?;
        answer["id"]
            .as_u64()
            .context("the answer to a new fault has no id")
    }

    /// Returns every fault since the last clearing, with the number of requests that it has
    /// affected.
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn faults(&self) -> anyhow::Result<Vec<FaultReport>> {
        self.get("faults").await
    }

    /// Removes one fault.
    ///
    /// # Errors
    /// See [`SimulatorClient`]; also if there is no such fault.
    pub async fn clear_fault(&self, id: u64) -> anyhow::Result<()> {
        self.call(Method::DELETE, &format!("faults/{id}"), None::<&()>)
            .await
    }

    /// Removes every fault and its counts.
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn clear_faults(&self) -> anyhow::Result<()> {
        self.call(Method::DELETE, "faults", None::<&()>).await
    }

    /// Returns the current assignee (unique name) of every work item, by
    /// [`super::state::work_item_key`].
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn assignees(&self) -> anyhow::Result<BTreeMap<String, Option<String>>> {
        self.get("assignees").await
    }

    /// Returns the service-hook events with a number above `after`, oldest first.
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn events(&self, after: u64) -> anyhow::Result<Vec<Event>> {
        self.get(&format!("events?after={after}")).await
    }

    /// Makes the simulator keep running after the end of its stdin, until SIGTERM.
    ///
    /// # Errors
    /// See [`SimulatorClient`].
    pub async fn detach(&self) -> anyhow::Result<()> {
        self.call(Method::POST, "detach", None::<&()>).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, None::<&()>).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> anyhow::Result<T> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> anyhow::Result<T> {
        let request = self
            .http
            .request(method, format!("{}/_sim/{path}", self.url));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = request
            .send()
            .await
            .with_context(|| format!("simulator call {path}"))?;
        let status = response.status();
        if !status.is_success() {
            bail!(
                "simulator call {path}: {status}: {}",
                response.text().await?
            );
        }
        response
            .json()
            .await
            .with_context(|| format!("simulator call {path}"))
    }
}
