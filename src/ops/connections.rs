//! The connections of the operations server: a limited number, each for one request and a short
//! time.
//!
//! **Invariant:** the operations server has at most 64 connections, fewer when the process may
//! have few file descriptors; a client that opens many takes them from other clients, not from the
//! worker.

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// The limits of connections. Each connection serves one request.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// The longest time until the head of the request has arrived.
    head: Duration,
    /// The longest time until the last byte of the answer is sent.
    whole: Duration,
    /// The most connections at a time.
    connections: usize,
}

/// The limits in use: longer than the readiness checks take, with time to send the answer.
const LIMITS: Limits = Limits {
    head: Duration::from_secs(5),
    whole: Duration::from_secs(10),
    connections: 64,
};
/// The limits of the console, whose pages are read by several people and whose live pages keep a
/// connection open for a time.
const OF_CONSOLE: Limits = Limits {
    head: Duration::from_secs(5),
    whole: Duration::from_secs(60),
    connections: 256,
};
/// The lowest limit of connections: one probe, one scrape and one person would use up fewer.
const FEWEST: usize = 4;
/// The most bytes in the head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// The most headers of a request.
const HEADERS: usize = 64;
/// How long nothing is accepted after a failed accept, because the process may have no file
/// descriptors left.
const PAUSE: Duration = Duration::from_secs(1);
/// How long open connections may continue after the server is cancelled.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Serves until `cancel`. Connections that are open then may continue for a second.
pub async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    serve_within(LIMITS.within(16), listener, router, cancel).await;
}

/// Serves the console as [`serve`] does, with more and longer connections.
pub async fn serve_console(listener: TcpListener, router: Router, cancel: CancellationToken) {
    serve_within(OF_CONSOLE.within(2), listener, router, cancel).await;
}

impl Limits {
    /// Returns the limits with at most this part of the file descriptors that the process may have.
    fn within(self, part: u64) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let connections = usize::try_from(descriptors / part).unwrap_or(usize::MAX);
        Self {
            connections: connections.clamp(FEWEST, self.connections),
            ..self
        }
    }
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    router: Router,
    cancel: CancellationToken,
) {
    let mut open = FuturesUnordered::new();
    let mut places = Places::default();
    let mut door = Door::new(listener);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            // A connection that has ended releases its descriptor before the next one is accepted.
            Some(ended) = open.next(), if !open.is_empty() => places.leave(&ended),
            stream = door.next() => {
                if places.count() < limits.connections || places.send_the_oldest_away() {
                    open.push(connection(limits, stream, router.clone(), places.enter()));
                }
            }
        }
    }
    drop(door);
    // Connections that take longer are cut off.
    drop(tokio::time::timeout(CLOSE_GRACE, open.collect::<Vec<_>>()).await);
}

/// Serves one request, and returns the place of the connection.
async fn connection(
    limits: Limits,
    stream: TcpStream,
    router: Router,
    place: Arc<Place>,
) -> Arc<Place> {
    let router = TowerToHyperService::new(router);
    let peer = stream.peer_addr().ok().map(ConnectInfo);
    let answer = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        place.is_answered.store(true, Ordering::Relaxed);
        let answer = router.call(request);
        async {
            let answer = answer.await;
            place.is_answered.store(false, Ordering::Relaxed);
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false);
    let served = tokio::time::timeout(
        limits.whole,
        http.serve_connection(TokioIo::new(stream), answer),
    );
    // Errors of a connection concern only its client. A page that panics ends only its own
    // connection.
    drop(
        place
            .away
            .run_until_cancelled(AssertUnwindSafe(served).catch_unwind())
            .await,
    );
    place
}

/// The place of a connection among the open ones.
#[derive(Debug, Default)]
struct Place {
    /// Cancelled when another connection gets the place.
    away: CancellationToken,
    /// Whether a request has arrived and is being answered, which has a time limit of its own.
    is_answered: AtomicBool,
}

/// The open connections, oldest first.
#[derive(Debug, Default)]
struct Places(VecDeque<Arc<Place>>);

impl Places {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn enter(&mut self) -> Arc<Place> {
        let place = Arc::new(Place::default());
        self.0.push_back(Arc::clone(&place));
        place
    }

    fn leave(&mut self, ended: &Arc<Place>) {
        self.0.retain(|place| !Arc::ptr_eq(place, ended));
    }

    /// Makes room for a new connection by closing the oldest silent one: a new connection usually
    /// has a request, a silent one has none. Returns `false` if every connection is being
    /// answered.
    fn send_the_oldest_away(&mut self) -> bool {
        let Some(at) = self
            .0
            .iter()
            .position(|place| !place.is_answered.load(Ordering::Relaxed))
        else {
            return false;
        };
        let Some(oldest) = self.0.remove(at) else {
            return false;
        };
        oldest.away.cancel();
        true
    }
}

/// Accepts connections, and pauses after an error: without free descriptors, accepting again at
/// once would fail in a tight loop.
struct Door {
    listener: TcpListener,
    opens: Pin<Box<Sleep>>,
    is_reported: bool,
}

impl Door {
    fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            opens: Box::pin(tokio::time::sleep(Duration::ZERO)),
            is_reported: false,
        }
    }

    /// Accepts the next connection. Safe to drop at any time.
    async fn next(&mut self) -> TcpStream {
        loop {
            if !self.opens.is_elapsed() {
                self.opens.as_mut().await;
            }
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    self.is_reported = false;
                    return stream;
                }
                // This client has disconnected; the next one may be waiting.
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if !self.is_reported {
                        self.is_reported = true;
                        tracing::warn!(
                            error = crate::fault::chain(&error),
                            "the operations server cannot accept connections; it tries again every second"
                        );
                    }
                    self.opens.as_mut().reset(Instant::now() + PAUSE);
                }
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Limits = Limits {
        head: Duration::from_millis(200),
        whole: Duration::from_millis(400),
        connections: 3,
    };
    const LONG: Limits = Limits {
        head: Duration::from_secs(60),
        whole: Duration::from_secs(60),
        connections: 3,
    };

    /// Runs a server within `limits`, whose page `/never` never answers, while `client` runs.
    async fn with<T>(limits: Limits, client: impl AsyncFnOnce(std::net::SocketAddr) -> T) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let panics = async || -> &'static str { panic!("a page that panics") };
        let large = async || "x".repeat(64 << 20);
        let router = Router::new()
            .route("/", get(async || "ok"))
            .route("/never", get(std::future::pending::<&'static str>))
            .route("/panics", get(panics))
            .route("/large", get(large));
        let cancel = CancellationToken::new();
        let run = async {
            let outcome = client(address).await;
            cancel.cancel();
            outcome
        };
        let both =
            async { tokio::join!(serve_within(limits, listener, router, cancel.clone()), run).1 };
        tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .expect("in time")
    }

    /// Sends `text` and reads to the end, which may be a reset.
    async fn sent(address: std::net::SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        ended(&mut stream).await
    }

    async fn ended(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn a_head_that_does_not_come_to_its_end_is_cut_off_and_so_is_silence() {
        with(SHORT, async |address| {
            for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\nx-a: b\r\n"] {
                assert!(!sent(address, begun).await.contains("200 OK"), "{begun:?}");
            }
            assert!(sent(address, REQUEST).await.contains("200 OK"));
        })
        .await;
    }

    #[tokio::test]
    async fn no_connection_stays_open_after_its_answer() {
        with(LONG, async |address| {
            let answer = sent(address, &REQUEST.repeat(2)).await;
            assert!(
                answer.matches("200 OK").count() == 1 && answer.contains("connection: close"),
                "{answer}"
            );
        })
        .await;
    }

    #[tokio::test]
    async fn a_request_without_an_answer_and_a_client_that_does_not_read_are_cut_off() {
        with(SHORT, async |address| {
            assert_eq!(
                sent(address, "GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await,
                ""
            );
            let mut slow = TcpStream::connect(address).await.unwrap();
            slow.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            tokio::time::sleep(2 * SHORT.whole).await;
            assert!(ended(&mut slow).await.len() < 64 << 20);
        })
        .await;
    }

    #[tokio::test]
    async fn the_newest_connection_takes_the_place_of_the_oldest_silent_one() {
        with(LONG, async |address| {
            let mut silent = Vec::new();
            for _ in 0..20 {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            assert!(sent(address, REQUEST).await.contains("200 OK"));
            // All but the newest three were closed, and one of these for the request.
            for stream in &mut silent[..18] {
                assert_eq!(ended(stream).await, "");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_connection_that_is_being_answered_keeps_its_place() {
        with(LONG, async |address| {
            let mut busy = Vec::new();
            for _ in 0..3 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream
                    .write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
                    .await
                    .unwrap();
                busy.push(stream);
                // The server accepts it before the next one connects.
                tokio::task::yield_now().await;
            }
            assert_eq!(sent(address, REQUEST).await, "");
            let mut byte = [0];
            for stream in &mut busy {
                assert!(
                    stream.read(&mut byte).now_or_never().is_none(),
                    "it was closed"
                );
            }
            drop(busy);
        })
        .await;
    }

    #[tokio::test]
    async fn a_page_that_panics_ends_its_own_connection_alone() {
        with(LONG, async |address| {
            assert_eq!(
                sent(address, "GET /panics HTTP/1.1\r\nhost: x\r\n\r\n").await,
                ""
            );
            assert!(sent(address, REQUEST).await.contains("200 OK"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        with(LONG, async |address| {
            let many = format!(
                "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
                "a: b\r\n".repeat(HEADERS)
            );
            let large = format!(
                "GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n",
                "b".repeat(HEAD_BYTES)
            );
            for head in [many, large] {
                let answer = sent(address, &head).await;
                assert!(answer.contains("431") || answer.is_empty(), "{answer}");
            }
        })
        .await;
    }
}
