//! The provider simulator: Azure DevOps 7.1, Microsoft Entra's token endpoint, Discord v10, signed
//! webhook receivers and the channels that simulate themselves on one loopback port, distinguished
//! by path, and a mail server on another. It has a [`witness`] log of every received request, and
//! [`faults`] on demand.
//!
//! A request is read completely, may be affected by a fault, is carried out under one lock, is
//! written to the witness log in the order in which it took effect, and is answered when that line
//! is on disk. Carrying out is a plain function from the [`world`] and the request to an answer,
//! one per provider. A sender that disconnects undoes nothing.
//!
//! **Invariant:** a request that took effect has a line in the simulator's witness log before its
//! sender can know.

pub mod admin;
mod azure_devops;
pub mod chats;
pub mod client;
mod discord;
mod discord_webhooks;
mod entra;
mod fault_answers;
pub mod faults;
mod hooks;
pub mod process;
mod smtp;
pub mod state;
#[cfg(test)]
mod tests;
mod webhook;
pub mod witness;
pub mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use faults::{FaultKind, FaultRule};
use state::State;
use witness::{Entry, Provider, Witness};
use world::World;

use crate::providers::simulated::{
    Description, ReceivedCall, SimulatedAnswer, SimulatedChannel, simulated,
};

/// The largest accepted body, in bytes.
const BODY_BYTES: usize = 16 * 1024 * 1024;

/// The addresses and files of the simulator.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// The address; port 0 = any free one.
    pub listen: SocketAddr,
    /// The witness log. An existing one is continued.
    pub witness: PathBuf,
    /// A JSON file with the initial [`State`]; it is not written to.
    pub state: Option<PathBuf>,
}

/// Serves until SIGTERM or, unless detached, until stdin ends (at once if stdin is closed or
/// `/dev/null`). `announce` gets one line when the ports are open:
/// `{"url":"http://127.0.0.1:PORT","smtp":"smtp://127.0.0.1:PORT"}`.
///
/// # Errors
/// If the state file is not a [`State`], the witness log cannot be opened, or the address cannot
/// be listened on.
pub async fn run(options: SimulatorOptions, announce: impl FnOnce(&str)) -> anyhow::Result<()> {
    let state = match &options.state {
        Some(path) => read_state(path).with_context(|| format!("state file {}", path.display()))?,
        None => State::new(),
    };
    let witness = Witness::open(&options.witness)
        .with_context(|| format!("witness log {}", options.witness.display()))?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("listening on {}", options.listen))?;
    let mail = TcpListener::bind((options.listen.ip(), 0))
        .await
        .context("listening for mail")?;
    let mut terminated = signal(SignalKind::terminate())?;
    let stdin_ended = stdin_end()?;
    let (url, smtp) = (
        format!("http://{}", listener.local_addr()?),
        format!("smtp://{}", mail.local_addr()?),
    );
    announce(&json!({ "url": url, "smtp": smtp }).to_string());
    let simulator = Arc::new(Simulator {
        world: Mutex::new(World::new(state)),
        witness,
    });
    let holder_gone = async {
        // Either stdin or its thread has ended.
        let _ = stdin_ended.await;
        if simulator.world().detached {
            std::future::pending::<()>().await;
        }
    };
    let stop = async {
        tokio::select! {
            _ = terminated.recv() => {}
            () = holder_gone => {}
        }
    };
    tokio::select! {
        () = serve(listener, Arc::clone(&simulator), stop) => {}
        () = smtp::serve(mail, Arc::clone(&simulator)) => {}
    }
    Ok(())
}

fn read_state(path: &std::path::Path) -> anyhow::Result<State> {
    let state: State = serde_json::from_slice(&std::fs::read(path)?)?;
    state.check().map_err(anyhow::Error::msg)?;
    Ok(state)
}

/// Returns a receiver that completes when stdin ends. A separate thread reads stdin, because the
/// runtime could not stop while one of its threads did.
fn stdin_end() -> std::io::Result<oneshot::Receiver<()>> {
    let (ended, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            // An error ends stdin as well.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = ended.send(());
        })?;
    Ok(receiver)
}

struct Simulator {
    world: Mutex<World>,
    witness: Witness,
}

/// The error on which hyper closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped")]
struct Dropped;

/// Accepts connections until `stop`, then drops every open one.
async fn serve(listener: TcpListener, simulator: Arc<Simulator>, stop: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&simulator)));
                }
                // There are no free file descriptors, or the peer is gone: the next one may
                // succeed.
                Err(error) => {
                    tracing::warn!(error = crate::fault::chain(&error), "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, simulator: Arc<Simulator>) {
    // A failure only affects speed.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| handle(Arc::clone(&simulator), request));
    // An error means that the peer has disconnected, or is our own `Dropped`.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the work outlives a sender that disconnects, as at a real provider"
)]
async fn handle(
    simulator: Arc<Simulator>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(Body::new(body), BODY_BYTES).await else {
        return Ok(response(SimulatedAnswer::text(
            StatusCode::PAYLOAD_TOO_LARGE,
            "text/plain",
            "the body is too large",
        )));
    };
    let Parts {
        method,
        uri,
        headers,
        ..
    } = parts;
    let call = ReceivedCall::new(method, uri.path(), uri.query(), headers, body.to_vec());
    if admin::is_admin(&call.path) {
        return Ok(response(admin::answer(&mut simulator.world(), &call)));
    }
    let provider = provider_of(&call);
    let (fault, caller, latency) = {
        let mut world = simulator.world();
        let caller = world.caller(provider, &call);
        let fault = world
            .faults
            .strike(&matched(&call, provider, caller.as_deref()));
        (
            fault,
            caller,
            Duration::from_millis(world.state.options.latency_millis),
        )
    };
    let delay = latency + fault.as_ref().map_or(Duration::ZERO, FaultRule::delay);
    let kind = fault.as_ref().map(|rule| rule.fault);
    let held_for = fault
        .as_ref()
        .and_then(|rule| rule.millis)
        .map(Duration::from_millis);
    let work = tokio::spawn(async move {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        simulator
            .carry_out(provider, &call, caller, fault.as_ref())
            .await
    });
    let answer = work.await.map_err(|_| Dropped)?.ok_or(Dropped)?;
    match kind {
        Some(FaultKind::Hang) => {
            match held_for {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
            Err(Dropped)
        }
        Some(kind) if !kind.is_answered() => Err(Dropped),
        Some(_) | None => Ok(response(answer)),
    }
}

fn provider_of(call: &ReceivedCall) -> Provider {
    match call.parts()[..] {
        ["api", ..] => Provider::Discord,
        ["webhook", ..] => Provider::Webhook,
        [_, "oauth2", "v2.0", "token"] => Provider::Entra,
        [name, ..] => {
            simulated(name).map_or(Provider::AzureDevops, |(kind, _)| Provider::chat(kind))
        }
        [] => Provider::AzureDevops,
    }
}

impl Simulator {
    /// Locks the data, also after a panic under the lock, which is a bug in one answer: further
    /// tests can still use the data.
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out the request or its fault, and returns the answer when the witness log has it on
    /// disk, or `None` if the log cannot be written.
    async fn carry_out(
        &self,
        provider: Provider,
        call: &ReceivedCall,
        caller: Option<String>,
        fault: Option<&FaultRule>,
    ) -> Option<SimulatedAnswer> {
        let description = match provider {
            // Mail does not arrive over HTTP, and requests that match no provider belong to Azure
            // DevOps.
            Provider::AzureDevops | Provider::Email => azure_devops::describe(call),
            Provider::Entra => entra::describe(call),
            Provider::Discord => discord::describe(call),
            Provider::Webhook => webhook::describe(call),
            Provider::Chat(kind) => (of_chat(kind).describe)(call),
        };
        let (answer, stored) = {
            let mut world = self.world();
            let answer = match fault {
                Some(rule) if !rule.is_done() => rule.answer(),
                Some(rule) => rule.dressed(real_answer(&mut world, provider, call)),
                None => real_answer(&mut world, provider, call),
            };
            let entry = Entry {
                caller,
                ..entry(
                    provider,
                    call,
                    description,
                    fault.map(|rule| rule.fault),
                    &answer,
                )
            };
            let stored = self.witness.submit(entry);
            drop(world);
            (answer, stored)
        };
        stored.await.ok().map(|()| answer)
    }
}

fn real_answer(world: &mut World, provider: Provider, call: &ReceivedCall) -> SimulatedAnswer {
    match provider {
        Provider::AzureDevops | Provider::Email => azure_devops::answer(world, call),
        Provider::Entra => entra::answer(world, call),
        Provider::Discord => discord::answer(world, call),
        Provider::Webhook => webhook::answer(world, call),
        Provider::Chat(kind) => {
            let now = world.tick();
            let rooms = world.state.rooms.entry(kind.to_owned()).or_default();
            (of_chat(kind).answer)(rooms, call, now)
        }
    }
}

fn of_chat(kind: &str) -> &'static SimulatedChannel {
    let (_, channel) = simulated(kind).expect("only a channel that simulates itself is a chat");
    channel
}

/// Returns the properties by which faults are matched.
fn matched<'a>(
    call: &'a ReceivedCall,
    provider: Provider,
    caller: Option<&'a str>,
) -> faults::Request<'a> {
    faults::Request {
        provider,
        method: call.method.as_str(),
        path: &call.path,
        caller,
        query: call.raw_query.as_deref().unwrap_or_default(),
        body: &call.body,
    }
}

fn response(answer: SimulatedAnswer) -> Response<Body> {
    let mut response = Response::builder()
        .status(answer.status)
        .header("content-type", answer.content_type.as_ref());
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response
        .body(Body::from(answer.body))
        .expect("headers made here are visible ASCII, and a rule's are checked")
}

fn entry(
    provider: Provider,
    call: &ReceivedCall,
    about: Description,
    fault: Option<FaultKind>,
    answer: &SimulatedAnswer,
) -> Entry {
    let is_answered = fault.is_none_or(FaultKind::is_answered);
    let mut detail = answer.detail.clone();
    if fault == Some(FaultKind::LoseAnswer) {
        detail["lost_status"] = json!(answer.status.as_u16());
    }
    Entry {
        seq: 0,
        at: time::OffsetDateTime::now_utc(),
        provider,
        method: call.method.to_string(),
        path: call.told_path(),
        query: call.told_query(),
        content_type: call.header("content-type").map(str::to_owned),
        key: about.key,
        caller: None,
        traceparent: call.header("traceparent").map(str::to_owned),
        body_sha256: call.body_sha256(),
        body_shape: call.shape(),
        status: is_answered.then_some(answer.status.as_u16()),
        effect: answer.effect,
        subject: about.subject,
        fault,
        detail,
    }
}
