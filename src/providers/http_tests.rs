//! Tests of [`super::http`] against servers that misbehave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::FutureExt;
use reqwest::{Method, Url};
use serde_json::{Value, json as value};
use tokio::time::Instant;

use super::address::Resolver;
use super::http::{BODY_BYTES, HttpClient, HttpRequest, HttpResponse};
use super::http_fault::{HttpFault, HttpFaultKind, Provider, provider};
use super::scripted::{Reply, Scripted, client, json, reply, soon};
use crate::fault::{Certainty, Class, Fault};

static TEST: Provider = provider!("test");

fn call(url: &str, deadline: Instant) -> HttpRequest {
    HttpRequest::new(&TEST, Method::POST, Url::parse(url).unwrap(), deadline)
}

async fn send(replies: Vec<Reply>) -> (Result<HttpResponse, HttpFault>, Scripted) {
    let server = Scripted::start(replies);
    let answer = client()
        .send(call(&server.url, soon()))
        .await
        .and_then(HttpResponse::success);
    (answer, server)
}

async fn fault(reply: Reply) -> HttpFault {
    send(vec![reply]).await.0.err().expect("the call fails")
}

#[tokio::test]
async fn a_request_names_its_sender_and_accepts_no_compression() {
    let (answer, server) = send(vec![json(&value!({"ok": true}))]).await;
    assert_eq!(
        answer.ok().unwrap().json::<Value>().unwrap(),
        value!({"ok": true})
    );
    let request = server.received().remove(0);
    assert_eq!(
        request.header("user-agent"),
        Some(concat!("dispatch-worker/", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(request.header("accept-encoding"), None);
}

#[tokio::test]
async fn a_lost_answer_is_unknown() {
    let fault = fault(Reply::Lose).await;
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.connection_lost", Certainty::Unknown)
    );
    assert_eq!(fault.class(), Class::Transient { retry_after: None });
}

#[tokio::test]
async fn an_answer_cut_short_is_unknown() {
    let fault = fault(Reply::Bytes(
        b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n{".to_vec(),
    ))
    .await;
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.connection_lost", Certainty::Unknown)
    );
}

#[tokio::test]
async fn bytes_that_are_not_http_are_unknown() {
    let fault = fault(Reply::Bytes(b"220 mail ready\r\n".to_vec())).await;
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.connection_lost", Certainty::Unknown)
    );
}

#[tokio::test]
async fn a_connect_error_is_not_done() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let fault = client()
        .send(call(&format!("http://{closed}"), soon()))
        .await
        .err()
        .unwrap();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.unreachable", Certainty::NotDone)
    );
    assert_eq!(fault.class(), Class::Transient { retry_after: None });
}

#[tokio::test]
async fn an_answer_after_the_deadline_is_unknown() {
    let server = Scripted::start(vec![Reply::Hang]);
    let deadline = Instant::now() + Duration::from_millis(100);
    let fault = client()
        .send(call(&server.url, deadline))
        .await
        .err()
        .unwrap();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.timed_out", Certainty::Unknown)
    );
}

#[tokio::test]
async fn nothing_is_sent_after_the_deadline() {
    let server = Scripted::start(vec![json(&value!({}))]);
    let fault = client()
        .send(call(&server.url, Instant::now()))
        .await
        .err()
        .unwrap();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.timed_out", Certainty::NotDone)
    );
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_read_to_its_end() {
    let fault = fault(reply(200, "", &"x".repeat(BODY_BYTES + 1))).await;
    assert_eq!(
        (fault.code(), fault.class()),
        ("test.answer_too_large", Class::Permanent)
    );
    let server = Scripted::start(vec![reply(200, "", &"x".repeat(BODY_BYTES + 1))]);
    let raised = call(&server.url, soon()).body_limit(2 * BODY_BYTES);
    assert_eq!(
        client().send(raised).await.ok().unwrap().body.len(),
        BODY_BYTES + 1
    );
}

#[tokio::test]
async fn a_request_for_the_status_only_needs_no_body() {
    let server = Scripted::start(vec![Reply::Bytes(
        b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n{".to_vec(),
    )]);
    let answer = client()
        .send(call(&server.url, soon()).status_only())
        .await
        .ok()
        .unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn only_the_start_of_a_body_is_read() {
    let long = format!(
        "HTTP/1.1 200 X\r\ncontent-length: 1000000\r\n\r\n{}",
        "x".repeat(5000)
    );
    let server = Scripted::start(vec![Reply::Bytes(long.into_bytes())]);
    let answer = client()
        .send(call(&server.url, soon()).body_start(100))
        .await
        .ok()
        .unwrap();
    assert_eq!(answer.body, "x".repeat(100).into_bytes());
}

#[tokio::test]
async fn a_truncated_start_is_not_taken_for_a_whole_body() {
    let server = Scripted::start(vec![Reply::Bytes(
        b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n1".to_vec(),
    )]);
    let fault = client()
        .send(call(&server.url, soon()).body_start(100))
        .await
        .err()
        .unwrap();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.connection_lost", Certainty::Unknown)
    );
}

#[tokio::test]
async fn a_status_survives_the_loss_of_its_body() {
    let fault = fault(Reply::Bytes(
        b"HTTP/1.1 403 X\r\ncontent-length: 10\r\n\r\nno".to_vec(),
    ))
    .await;
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.forbidden", Certainty::NotDone)
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Scripted::start(vec![json(&value!({}))]);
    let fault = fault(reply(302, &format!("location: {}\r\n", target.url), "")).await;
    assert_eq!(
        (fault.code(), fault.class()),
        ("test.redirected", Class::Permanent)
    );
    assert!(target.received().is_empty());
}

#[tokio::test]
async fn a_redirect_to_a_metadata_service_is_an_error_and_not_followed() {
    let fault = fault(reply(
        302,
        "location: http://169.254.169.254/latest/meta-data/\r\n",
        "",
    ))
    .await;
    assert_eq!(
        (fault.code(), fault.class()),
        ("test.redirected", Class::Permanent)
    );
    assert!(
        fault.hint().contains("redirects are not followed"),
        "{}",
        fault.hint()
    );
}

#[tokio::test]
async fn an_answer_without_a_length_is_cut_off_at_the_limit_too() {
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    let head = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = |chunks: usize| {
        Reply::Bytes(format!("{head}{}0\r\n\r\n", chunk.repeat(chunks)).into_bytes())
    };
    assert_eq!(
        send(vec![chunked(16)]).await.0.ok().unwrap().body.len(),
        BODY_BYTES
    );
    assert_eq!(fault(chunked(17)).await.code(), "test.answer_too_large");
    // The chunk has no end: the rest is never sent, and the client does not wait for it.
    let endless = format!("{head}{}", chunk.repeat(17)).into_bytes();
    assert_eq!(
        fault(Reply::Bytes(endless)).await.code(),
        "test.answer_too_large"
    );
    let until_closed = [
        "HTTP/1.1 200 X\r\nconnection: close\r\n\r\n",
        &"x".repeat(BODY_BYTES + 1),
    ]
    .concat();
    assert_eq!(
        fault(Reply::Bytes(until_closed.into_bytes())).await.code(),
        "test.answer_too_large"
    );
}

#[tokio::test]
async fn a_compressed_answer_is_not_decompressed() {
    // 20,000 blanks.
    let packed = BASE64
        .decode(b"H4sIAAAAAAACA+3BMQEAAADCoCrrn9IaHkABAAAAAAAAAAAAAAAAAAAAAAAA8GAoxAiFIE4AAA==")
        .unwrap();
    let head = format!(
        "HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        packed.len()
    );
    let answer = send(vec![Reply::Bytes([head.as_bytes(), &packed].concat())])
        .await
        .0
        .ok()
        .unwrap();
    assert_eq!(answer.body, packed);
    assert_eq!(
        answer.json::<Value>().unwrap_err().code(),
        "test.malformed_answer"
    );
}

#[tokio::test]
async fn retry_after_reaches_the_class() {
    let fault = fault(reply(429, "retry-after: 9\r\n", "slow down")).await;
    assert_eq!(
        fault.class(),
        Class::RateLimited {
            retry_after: Some(Duration::from_secs(9))
        }
    );
    assert_eq!(fault.certainty(), Certainty::NotDone);
}

#[tokio::test]
async fn an_answer_of_another_shape_is_malformed() {
    let (answer, _) = send(vec![json(&value!([1]))]).await;
    let fault = answer
        .ok()
        .unwrap()
        .json::<std::collections::BTreeMap<String, i64>>()
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.malformed_answer", Certainty::Unknown)
    );
    assert_eq!(fault.class(), Class::Transient { retry_after: None });
}

#[tokio::test]
async fn plain_http_is_permitted_only_to_loopback_under_the_setting() {
    let (open, strict) = (client(), HttpClient::new(false).unwrap());
    for (url, allowed) in [
        ("https://example.com/hook", [true, true]),
        ("http://127.0.0.1:9/x", [true, false]),
        ("http://[::1]:9/x", [true, false]),
        ("http://localhost:9/x", [true, false]),
        ("http://example.com/hook", [false, false]),
        ("http://10.0.0.1/hook", [false, false]),
        ("http://127.0.0.1.example.com/", [false, false]),
        ("https://user:password@example.com/", [false, false]),
        ("file:///etc/passwd", [false, false]),
        ("hook", [false, false]),
    ] {
        assert_eq!(
            [open.parse_url(url).is_ok(), strict.parse_url(url).is_ok()],
            allowed,
            "{url}"
        );
    }
    let fault = open
        .send(call("http://example.com/", soon()))
        .await
        .err()
        .unwrap();
    assert!(matches!(fault.kind, HttpFaultKind::AddressRefused(_)));
    assert_eq!(fault.code(), "test.address_refused");
    assert_eq!(
        (fault.class(), fault.certainty()),
        (Class::Permanent, Certainty::NotDone)
    );
}

#[tokio::test]
async fn an_address_that_is_not_public_is_refused_in_every_notation() {
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "10.0.0.1",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0",
        "[::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "[64:ff9b::a00:1]",
        "[2002:a00:1::]",
        "[fc00::1]",
    ] {
        let url = format!("https://{host}/hook");
        let strict = HttpClient::new(false).unwrap();
        let why = strict
            .parse_url(&url)
            .err()
            .unwrap_or_else(|| panic!("{url} is accepted"));
        assert!(why.contains("expected"), "{why}");
        let fault = strict.send(call(&url, soon())).await.err().unwrap();
        assert_eq!(
            (fault.code(), fault.certainty()),
            ("test.address_refused", Certainty::NotDone),
            "{url}"
        );
    }
}

/// Returns a client that resolves every name to `to`, and the number of its lookups. All addresses
/// have the same port.
fn resolving(open: bool, to: &[&str], port: u16) -> (HttpClient, Arc<AtomicUsize>) {
    drop(client());
    let found: Vec<SocketAddr> = to
        .iter()
        .map(|ip| SocketAddr::new(ip.parse().unwrap(), port))
        .collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, answers) = (Arc::clone(&asked), Mutex::new(found));
    let lookup = move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let now = answers.lock().unwrap().clone();
        // The next lookup returns another address.
        *answers.lock().unwrap() = vec![SocketAddr::from(([10, 0, 0, 1], port))];
        std::future::ready(Ok(now)).boxed()
    };
    (
        HttpClient::resolving(Resolver::new(open, Arc::new(lookup)), open).unwrap(),
        asked,
    )
}

#[tokio::test]
async fn a_name_that_resolves_to_an_internal_address_is_refused_without_a_connection() {
    let inner = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    inner.set_nonblocking(true).unwrap();
    let port = inner.local_addr().unwrap().port();
    for (to, rule) in [
        (&["127.0.0.1"][..], "this machine"),
        (&["::ffff:127.0.0.1"], "inside an IPv6 one"),
        (&["169.254.169.254"], "metadata"),
        (&["10.1.2.3"], "private"),
        // One internal address among several refuses the name.
        (&["13.107.42.20", "127.0.0.1"], "this machine"),
        (&["2606:4700::1", "fd00::1"], "private"),
    ] {
        let (strict, _) = resolving(false, to, port);
        let fault = strict
            .send(call(&format!("https://hooks.example:{port}/x"), soon()))
            .await
            .err()
            .unwrap();
        assert_eq!(
            (fault.code(), fault.class()),
            ("test.address_refused", Class::Permanent),
            "{to:?}: {fault}"
        );
        assert_eq!(fault.certainty(), Certainty::NotDone);
        let (said, address) = (fault.to_string(), to.last().unwrap());
        assert!(
            said.contains(rule) && said.contains(&format!("hooks.example resolves to {address}")),
            "{said}"
        );
        assert!(fault.hint().contains(rule), "{}", fault.hint());
    }
    assert_eq!(
        inner.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "the client has connected"
    );
}

#[tokio::test]
async fn the_connection_goes_to_the_checked_address() {
    let server = Scripted::start(vec![json(&value!({})), json(&value!({}))]);
    let port = Url::parse(&server.url).unwrap().port().unwrap();
    let (open, asked) = resolving(true, &["127.0.0.1"], port);
    let url = format!("http://localhost:{port}/");
    assert_eq!(
        open.send(call(&url, soon())).await.ok().unwrap().status,
        200
    );
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "a second lookup could return another address"
    );
    let rebound = open.send(call(&url, soon())).await.err().unwrap();
    assert_eq!(
        rebound.code(),
        "test.address_refused",
        "each new connection is checked"
    );
}

#[tokio::test]
async fn credentials_are_sent_and_not_shown() {
    let server = Scripted::start(vec![json(&value!({}))]);
    let call = call(&server.url, soon())
        .authorization("Bearer", &"canary-1".into())
        .ok()
        .unwrap();
    assert!(!format!("{call:?}").contains("canary"), "{call:?}");
    client().send(call).await.ok().unwrap();
    assert_eq!(
        server.received()[0].header("authorization"),
        Some("Bearer canary-1")
    );
    let broken = self::call(&server.url, soon())
        .authorization("Bearer", &"a\r\nb".into())
        .err()
        .unwrap();
    assert_eq!(broken.code(), "test.unsendable");
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_with_an_untrusted_certificate() {
    drop(client());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(
        config
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap(),
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "https://localhost:{}/hook",
        listener.local_addr().unwrap().port()
    );
    let server = std::thread::spawn(move || {
        let tls = rustls::ServerConnection::new(config).unwrap();
        let mut said = Vec::new();
        let mut stream = rustls::StreamOwned::new(tls, listener.accept().unwrap().0);
        drop(std::io::Read::read_to_end(&mut stream, &mut said));
        said
    });
    let call = call(&url, soon())
        .authorization("Bearer", &"canary-1".into())
        .ok()
        .unwrap();
    let fault = client().send(call).await.err().unwrap();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("test.unreachable", Certainty::NotDone)
    );
    let said = crate::fault::chain(&fault);
    assert!(
        said.contains("certificate") && fault.hint().contains("certificate"),
        "{said}"
    );
    assert!(server.join().unwrap().is_empty(), "a request has gone out");
}
