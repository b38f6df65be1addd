//! A scripted HTTP server for the tests of this module, and what these tests send to it. The server
//! sends the given answers in order, on loopback, and records the requests. It works on bytes, so it
//! can also lose an answer or stop in the middle of one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use tokio::time::Instant;

use super::channel::{ChannelConfig, Message};
use super::http::HttpClient;
use super::kind::{ApiUrls, ChannelParts};

/// A received request.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The reply to the next request.
pub(super) enum Reply {
    /// Send these bytes and close.
    Bytes(Vec<u8>),
    /// Close the connection without an answer.
    Lose,
    /// Keep the connection open without an answer until the client closes it.
    Hang,
}

/// Returns an answer with a status, extra header lines and a body.
pub(super) fn reply(status: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
    );
    Reply::Bytes([head.as_bytes(), body.as_bytes()].concat())
}

/// Returns a 200 with a JSON body.
pub(super) fn json(body: &Value) -> Reply {
    reply(200, "content-type: application/json\r\n", &body.to_string())
}

/// A server that follows a script.
pub(super) struct Scripted {
    pub(super) url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Scripted {
    /// Answers one request with each of `replies`.
    pub(super) fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        std::thread::spawn(move || {
            for reply in replies {
                let Ok((stream, _)) = listener.accept() else {
                    return;
                };
                answer(stream, reply, &log);
            }
        });
        Self { url, received }
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, reply: Reply, log: &Mutex<Vec<Received>>) {
    let Some(request) = read(&mut BufReader::new(&stream)) else {
        return;
    };
    log.lock().unwrap().push(request);
    match reply {
        // The client may have closed the connection because of the size of the answer.
        Reply::Bytes(bytes) => drop(stream.write_all(&bytes)),
        Reply::Lose => {}
        Reply::Hang => drop(stream.read(&mut [0])),
    }
}

fn read(stream: &mut impl BufRead) -> Option<Received> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request = Received {
        method: words.next()?,
        target: words.next()?,
        ..Received::default()
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        request
            .headers
            .push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = request
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// Returns a client that may call the server.
pub(super) fn client() -> HttpClient {
    // Another test of this process may have installed it already.
    drop(rustls::crypto::ring::default_provider().install_default());
    HttpClient::new(true).unwrap()
}

/// Returns the parts of channels with that client, the vendors' addresses, and no mail server.
pub(super) fn parts() -> ChannelParts {
    ChannelParts {
        http: client(),
        urls: ApiUrls::default(),
        smtp: None,
    }
}

/// Returns settings of a destination, with no previous secret.
pub(super) fn channel_config(public: Value, secret: Option<&str>) -> ChannelConfig {
    ChannelConfig {
        public,
        secret: secret.map(SecretString::from),
        previous_secret: None,
    }
}

/// Returns a message of which only the text matters.
pub(super) fn message(title: &str, lines: &[&str]) -> Message {
    Message {
        event: "x".into(),
        happened_at: None,
        title: title.into(),
        lines: lines.iter().map(|&line| line.to_owned()).collect(),
        details: Value::Null,
    }
}

/// Returns a deadline that no working test reaches.
pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}
