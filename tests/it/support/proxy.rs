//! A way to a server on which connections can be cut without the server hearing of it, and which can be stopped whole: it
//! refuses as a machine that is down does, or takes connections and says nothing.

use std::collections::HashMap;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where a URL names none.
const PORTS: [(&str, u16); 2] = [("postgres", 5432), ("amqp", 5672)];

/// Carries until it is dropped.
pub(crate) struct Proxy {
    url: Url,
    at: SocketAddr,
    state: Arc<State>,
    carries: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// By the port from which the server sees each connection.
    connections: Mutex<HashMap<u16, CancellationToken>>,
    /// From here on nothing is carried any more, and nothing that is sent is answered.
    silent: CancellationToken,
}

impl Proxy {
    pub(crate) async fn to(server: &SecretString) -> Self {
        let mut url = Url::parse(server.expose_secret()).expect("a URL");
        let usual = PORTS.iter().find(|(scheme, _)| *scheme == url.scheme()).expect("a server that is known").1;
        let there = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(usual));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        url.set_host(Some("127.0.0.1")).expect("an address is a host");
        url.set_port(Some(at.port())).expect("it has a host");
        let state = Arc::new(State::default());
        let mut carries = JoinSet::new();
        carries.spawn(accept(listener, there, Arc::clone(&state)));
        Self { url, at, state, carries }
    }

    /// The same server by way of this.
    pub(crate) fn url(&self) -> String {
        self.url.to_string()
    }

    /// The same server by way of this, or of `other` where this is stopped.
    pub(crate) fn url_or(&self, other: &Self) -> String {
        let both = format!("{},{}", self.at, other.at);
        self.url.as_str().replacen(&self.at.to_string(), &both, 1)
    }

    /// How many connections it carries, or has carried.
    pub(crate) fn carried(&self) -> usize {
        self.state.connections.lock().expect("nobody panics with it").len()
    }

    /// Ends the client's side of a connection.
    pub(crate) fn cut(&self, seen_from: u16) {
        self.state.connections.lock().expect("nobody panics with it")[&seen_from].cancel();
    }

    /// Cuts every connection and refuses new ones, for good.
    pub(crate) async fn stop(&mut self) {
        self.carries.shutdown().await;
    }

    /// Keeps every connection and carries nothing on them, takes new ones and says nothing to them, for good.
    pub(crate) fn fall_silent(&self) {
        self.state.silent.cancel();
    }
}

async fn accept(listener: TcpListener, there: (String, u16), state: Arc<State>) {
    let mut carried = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if state.silent.is_cancelled() {
            carried.spawn(hold(client));
            continue;
        }
        let server = TcpStream::connect(&there).await.expect("the server takes a connection");
        let seen_from = server.local_addr().expect("it is connected").port();
        let cut = CancellationToken::new();
        state.connections.lock().expect("nobody panics with it").insert(seen_from, cut.clone());
        carried.spawn(carry(client, server, cut, state.silent.clone()));
    }
}

async fn hold(_client: TcpStream) {
    pending().await
}

async fn carry(mut client: TcpStream, mut server: TcpStream, cut: CancellationToken, silent: CancellationToken) {
    tokio::select! {
        // Whoever ends it, there is nothing left to carry.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        () = cut.cancelled() => {
            drop(client);
            pending::<()>().await;
        }
        () = silent.cancelled() => pending().await,
    }
}
