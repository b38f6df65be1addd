//! A TCP proxy in front of a server. It can cut connections without closing them at the server,
//! hold back what clients send and deliver it after they are gone, refuse connections as a machine
//! that is down does, close them for a time, or accept connections and stay silent.

use std::collections::HashMap;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The default port of each URL scheme.
const PORTS: [(&str, u16); 2] = [("postgres", 5432), ("amqp", 5672)];
/// The size of the copy buffers.
const BYTES: usize = 64 * 1024;

/// A proxy that runs until it is dropped.
pub(crate) struct Proxy {
    url: Url,
    at: SocketAddr,
    ways: Ways,
    carries: JoinSet<()>,
}

/// Shared by the test and the connections.
#[derive(Clone, Default)]
struct Ways {
    /// The connections by the client port that the server sees.
    connections: Arc<Mutex<HashMap<u16, Way>>>,
    /// Bytes that contain this are held back.
    held_back: Arc<Mutex<Option<&'static [u8]>>>,
    /// Once cancelled, nothing is forwarded and nothing is answered.
    silent: CancellationToken,
    /// While it is true, connections are closed as soon as they are accepted.
    is_cut_off: Arc<watch::Sender<bool>>,
}

/// The state of one connection.
#[derive(Clone, Default)]
struct Way {
    cut: CancellationToken,
    /// Cancelled once something has been held back.
    holds: CancellationToken,
    delivered: CancellationToken,
}

impl Proxy {
    pub(crate) async fn to(server: &SecretString) -> Self {
        let mut url = Url::parse(server.expose_secret()).expect("a URL");
        let usual = PORTS
            .iter()
            .find(|(scheme, _)| *scheme == url.scheme())
            .expect("a known scheme")
            .1;
        let there = (
            url.host_str().expect("a host").to_owned(),
            url.port().unwrap_or(usual),
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        url.set_host(Some("127.0.0.1"))
            .expect("an address is a host");
        url.set_port(Some(at.port())).expect("it has a host");
        let ways = Ways::default();
        let mut carries = JoinSet::new();
        carries.spawn(accept(listener, there, ways.clone()));
        Self {
            url,
            at,
            ways,
            carries,
        }
    }

    /// Returns the URL of the server through this proxy.
    pub(crate) fn url(&self) -> String {
        self.url.to_string()
    }

    /// Returns a URL of the server with two addresses: this proxy, then `other`.
    pub(crate) fn url_or(&self, other: &Self) -> String {
        let both = format!("{},{}", self.at, other.at);
        self.url.as_str().replacen(&self.at.to_string(), &both, 1)
    }

    /// Returns the number of connections so far.
    pub(crate) fn carried(&self) -> usize {
        self.ways
            .connections
            .lock()
            .expect("the lock is not poisoned")
            .len()
    }

    /// Closes the client's side of a connection.
    pub(crate) fn cut(&self, seen_from: u16) {
        self.ways.of(seen_from).cut.cancel();
    }

    /// From now on, holds back the first bytes on each connection that contain `text`, and
    /// everything that the client sends after them, until they are [delivered](Self::deliver).
    pub(crate) fn hold_back(&self, text: &'static str) {
        *self
            .ways
            .held_back
            .lock()
            .expect("the lock is not poisoned") = Some(text.as_bytes());
    }

    /// Returns the connections on which something is or was held back.
    pub(crate) fn holding(&self) -> Vec<u16> {
        let connections = self
            .ways
            .connections
            .lock()
            .expect("the lock is not poisoned");
        connections
            .iter()
            .filter(|(_, way)| way.holds.is_cancelled())
            .map(|(seen_from, _)| *seen_from)
            .collect()
    }

    /// Sends what was held back to the server, whether the client is still connected or not.
    pub(crate) fn deliver(&self, seen_from: u16) {
        self.ways.of(seen_from).delivered.cancel();
    }

    /// Cuts every connection and refuses new ones, permanently.
    pub(crate) async fn stop(&mut self) {
        self.carries.shutdown().await;
    }

    /// Closes every connection and each new one, until the server is [connected
    /// again](Self::connect_again).
    pub(crate) fn cut_off(&self) {
        self.ways.is_cut_off.send_replace(true);
    }

    /// Forwards new connections again.
    pub(crate) fn connect_again(&self) {
        self.ways.is_cut_off.send_replace(false);
    }

    /// Keeps existing connections and accepts new ones, but forwards nothing from now on.
    pub(crate) fn fall_silent(&self) {
        self.ways.silent.cancel();
    }
}

impl Ways {
    fn of(&self, seen_from: u16) -> Way {
        self.connections.lock().expect("the lock is not poisoned")[&seen_from].clone()
    }

    fn holds_back(&self, sent: &[u8]) -> bool {
        let text = *self.held_back.lock().expect("the lock is not poisoned");
        text.is_some_and(|text| sent.windows(text.len()).any(|part| part == text))
    }
}

async fn accept(listener: TcpListener, there: (String, u16), ways: Ways) {
    let mut carried = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if ways.silent.is_cancelled() {
            carried.spawn(hold(client));
            continue;
        }
        if *ways.is_cut_off.borrow() {
            continue;
        }
        let server = TcpStream::connect(&there)
            .await
            .expect("the server accepts a connection");
        let seen_from = server.local_addr().expect("it is connected").port();
        let way = Way::default();
        ways.connections
            .lock()
            .expect("the lock is not poisoned")
            .insert(seen_from, way.clone());
        carried.spawn(carry(client, server, way, ways.clone()));
    }
}

async fn hold(_client: TcpStream) {
    pending().await
}

async fn carry(mut client: TcpStream, mut server: TcpStream, way: Way, ways: Ways) {
    let mut held = Vec::new();
    let mut cut_off = ways.is_cut_off.subscribe();
    tokio::select! {
        // One of the two peers has closed the connection; nothing is left to forward.
        _ = both_ways(&mut client, &mut server, (&way, &ways), &mut held) => return,
        () = async { drop(cut_off.wait_for(|is_cut_off| *is_cut_off).await); } => return,
        () = way.cut.cancelled() => drop(client),
        () = ways.silent.cancelled() => pending().await,
    }
    if way.holds.is_cancelled() {
        way.delivered.cancelled().await;
        drop(server.write_all(&held).await);
    }
    pending::<()>().await;
}

/// Forwards bytes in both directions. Bytes that are held back stay in `held`.
async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    (way, ways): (&Way, &Ways),
    held: &mut Vec<u8>,
) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; BYTES], vec![0; BYTES]);
    loop {
        let is_holding = way.holds.is_cancelled() && !held.is_empty();
        tokio::select! {
            read = client.read(&mut up) => match read? {
                0 => return Ok(()),
                sent if is_holding || (!way.holds.is_cancelled() && ways.holds_back(&up[..sent])) => {
                    held.extend_from_slice(&up[..sent]);
                    way.holds.cancel();
                }
                sent => server.write_all(&up[..sent]).await?,
            },
            read = server.read(&mut down) => match read? {
                0 => return Ok(()),
                answered => client.write_all(&down[..answered]).await?,
            },
            () = way.delivered.cancelled(), if is_holding => server.write_all(&std::mem::take(held)).await?,
        }
    }
}
