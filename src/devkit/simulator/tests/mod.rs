//! Tests of the simulator over real connections.

mod azure_devops;
mod chat;
mod chats;
mod entra;
mod faults;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::client::SimulatorClient;
use super::state::{State, WebhookMode};
use super::witness::{self, Entry, Witness};
use super::world::World;
use super::{Simulator, serve};

/// `whsec_` and the base64 of "a signing secret".
const SECRET: &str = "whsec_YSBzaWduaW5nIHNlY3JldA==";

/// A simulator on a loopback port, with its witness log. Both are removed on drop.
struct Bench {
    client: SimulatorClient,
    http: reqwest::Client,
    witness: PathBuf,
    _stop: oneshot::Sender<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        std::fs::remove_file(&self.witness).unwrap();
    }
}

impl Bench {
    #[expect(
        clippy::disallowed_methods,
        reason = "the server runs beside the test that calls it"
    )]
    async fn start(state: State) -> Self {
        let path = std::env::temp_dir().join(format!("witness-{}", uuid::Uuid::now_v7()));
        let witness = Witness::open(&path).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let simulator = Arc::new(Simulator {
            world: Mutex::new(World::new(State::new())),
            witness,
        });
        tokio::spawn(serve(listener, simulator, async { drop(stopped.await) }));
        let client = SimulatorClient::new(url).unwrap();
        client.load_state(&state).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            client,
            http,
            witness: path,
            _stop: stop,
        }
    }

    /// Creates Jane and Ödön in `contoso`, its project `Fabrikam Fiber` with the unassigned bug
    /// 17, a channel and two receivers.
    async fn furnished() -> Self {
        Self::start(furnished()).await
    }

    /// Prepares a call of Azure DevOps with Jane's token. `path` may contain a query.
    fn azure(&self, method: Method, path: &str) -> RequestBuilder {
        self.azure_as("jane-token", method, path)
    }

    fn azure_as(&self, token: &str, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.client.url()));
        request
            .bearer_auth(token)
            .query(&[("api-version", "7.1-preview.1")])
    }

    /// Assigns bug 17 if its revision is `rev`.
    fn patch(&self, rev: i64, assignee: &str) -> RequestBuilder {
        let body = json!([
            { "op": "test", "path": "/rev", "value": rev },
            { "op": "add", "path": "/fields/System.AssignedTo", "value": assignee }
        ]);
        let request = self.azure(Method::PATCH, "/contoso/_apis/wit/workitems/17");
        request
            .header("content-type", "application/json-patch+json")
            .body(body.to_string())
    }

    fn entries(&self) -> Vec<Entry> {
        witness::read(&self.witness).unwrap()
    }

    fn last_entry(&self) -> Entry {
        self.entries().pop().unwrap()
    }
}

fn furnished() -> State {
    State::new()
        .user("Jane Doe", "jane@contoso.example")
        .user("Ödön <von> Horváth", "odon@contoso.example")
        .token("jane-token", "jane@contoso.example")
        .account("contoso", "Fabrikam Fiber")
        .bug(
            "contoso",
            "Fabrikam Fiber",
            17,
            "The printer is on fire",
            None,
        )
        .channel("bot-token", "4711")
        .webhook("keyed", SECRET, WebhookMode::Keyed)
        .webhook("blind", SECRET, WebhookMode::Blind)
}

async fn json_of(request: RequestBuilder) -> (u16, Value) {
    let response: Response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn status_of(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}
