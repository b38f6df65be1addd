//! A way to Postgres on which single connections can be cut without the server hearing of it: it goes on with what it does.

use std::collections::HashMap;
use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// By the port from which the server sees each connection.
type Connections = Arc<Mutex<HashMap<u16, CancellationToken>>>;

/// Where a URL names none.
const POSTGRES_PORT: u16 = 5432;

/// Carries until it is dropped.
pub(crate) struct Proxy {
    url: Url,
    connections: Connections,
    _carries: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(server: &SecretString) -> Self {
        let mut url = Url::parse(server.expose_secret()).expect("a URL");
        let there = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(POSTGRES_PORT));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        url.set_host(Some("127.0.0.1")).expect("an address is a host");
        url.set_port(Some(listener.local_addr().expect("it is bound").port())).expect("it has a host");
        let connections = Connections::default();
        let mut carries = JoinSet::new();
        carries.spawn(accept(listener, there, Arc::clone(&connections)));
        Self { url, connections, _carries: carries }
    }

    /// The same server by way of this.
    pub(crate) fn url(&self) -> String {
        self.url.to_string()
    }

    /// Ends the client's side of a connection.
    pub(crate) fn cut(&self, seen_from: u16) {
        self.connections.lock().expect("nobody panics with it")[&seen_from].cancel();
    }
}

async fn accept(listener: TcpListener, there: (String, u16), connections: Connections) {
    let mut carried = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect(&there).await.expect("the server takes a connection");
        let seen_from = server.local_addr().expect("it is connected").port();
        let cut = CancellationToken::new();
        connections.lock().expect("nobody panics with it").insert(seen_from, cut.clone());
        carried.spawn(carry(client, server, cut));
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, cut: CancellationToken) {
    tokio::select! {
        // Whoever ends it, there is nothing left to carry.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        () = cut.cancelled() => {
            drop(client);
            pending::<()>().await;
        }
    }
}
