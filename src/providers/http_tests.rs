//! Tests of [`super::http`] against servers that misbehave.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use reqwest::{Method, Url};
use serde_json::{Value, json as value};
use tokio::time::Instant;

use super::http::{BODY_BYTES, HttpRequest, HttpResponse};
use super::http_fault::{HttpFault, Provider, provider};
use super::scripted::{Reply, Scripted, client, json, reply, soon};
use crate::fault::{Certainty, Class, Fault};

static TEST: Provider = provider!("test");

pub(super) fn call(url: &str, deadline: Instant) -> HttpRequest {
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
