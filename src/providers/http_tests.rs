//! How [`super::http`] behaves towards servers that misbehave.

use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::{Value, json as value};
use tokio::time::Instant;

use super::http::{Answer, BODY_BYTES, Call, HttpClient};
use super::http_fault::{HttpFault, HttpFaultKind, Provider, provider};
use super::scripted::{Reply, Scripted, client, json, reply, soon};
use crate::fault::{Certainty, Class, Fault};

static TEST: Provider = provider!("test");

fn call(url: &str, deadline: Instant) -> Call {
    Call::new(&TEST, Method::POST, Url::parse(url).unwrap(), deadline)
}

async fn send(replies: Vec<Reply>) -> (Result<Answer, HttpFault>, Scripted) {
    let server = Scripted::start(replies);
    let answer = client().send(call(&server.url, soon())).await.and_then(Answer::success);
    (answer, server)
}

async fn fault(reply: Reply) -> HttpFault {
    send(vec![reply]).await.0.err().expect("the call fails")
}

#[tokio::test]
async fn a_request_says_who_sends_it_and_asks_for_no_compression() {
    let (answer, server) = send(vec![json(&value!({"ok": true}))]).await;
    assert_eq!(answer.ok().unwrap().json::<Value>().unwrap(), value!({"ok": true}));
    let request = server.received().remove(0);
    assert_eq!(request.header("user-agent"), Some(concat!("dispatch-worker/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(request.header("accept-encoding"), None);
}

#[tokio::test]
async fn a_lost_answer_is_unknown() {
    let fault = fault(Reply::Lose).await;
    assert_eq!((fault.code(), fault.certainty()), ("test.connection_lost", Certainty::Unknown));
    assert_eq!(fault.class(), Class::Transient { retry_after: None });
}

#[tokio::test]
async fn an_answer_cut_short_is_unknown() {
    let fault = fault(Reply::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n{".to_vec())).await;
    assert_eq!((fault.code(), fault.certainty()), ("test.connection_lost", Certainty::Unknown));
}

#[tokio::test]
async fn bytes_that_are_not_http_are_unknown() {
    let fault = fault(Reply::Bytes(b"220 mail ready\r\n".to_vec())).await;
    assert_eq!((fault.code(), fault.certainty()), ("test.connection_lost", Certainty::Unknown));
}

#[tokio::test]
async fn a_connect_error_is_not_done() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fault = client().send(call(&format!("http://{closed}"), soon())).await.err().unwrap();
    assert_eq!((fault.code(), fault.certainty()), ("test.unreachable", Certainty::NotDone));
    assert_eq!(fault.class(), Class::Transient { retry_after: None });
}

#[tokio::test]
async fn an_answer_after_the_deadline_is_unknown() {
    let server = Scripted::start(vec![Reply::Hang]);
    let deadline = Instant::now() + Duration::from_millis(100);
    let fault = client().send(call(&server.url, deadline)).await.err().unwrap();
    assert_eq!((fault.code(), fault.certainty()), ("test.timed_out", Certainty::Unknown));
}

#[tokio::test]
async fn nothing_is_sent_after_the_deadline() {
    let server = Scripted::start(vec![json(&value!({}))]);
    let fault = client().send(call(&server.url, Instant::now())).await.err().unwrap();
    assert_eq!((fault.code(), fault.certainty()), ("test.timed_out", Certainty::NotDone));
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_read_to_its_end() {
    let fault = fault(reply(200, "", &"x".repeat(BODY_BYTES + 1))).await;
    assert_eq!((fault.code(), fault.class()), ("test.answer_too_large", Class::Permanent));
    let server = Scripted::start(vec![reply(200, "", &"x".repeat(BODY_BYTES + 1))]);
    let raised = call(&server.url, soon()).body_limit(2 * BODY_BYTES);
    assert_eq!(client().send(raised).await.ok().unwrap().body.len(), BODY_BYTES + 1);
}

#[tokio::test]
async fn a_status_alone_needs_no_body() {
    let server = Scripted::start(vec![Reply::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n{".to_vec())]);
    let answer = client().send(call(&server.url, soon()).status_only()).await.ok().unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn a_status_survives_the_loss_of_its_body() {
    let fault = fault(Reply::Bytes(b"HTTP/1.1 403 X\r\ncontent-length: 10\r\n\r\nno".to_vec())).await;
    assert_eq!((fault.code(), fault.certainty()), ("test.forbidden", Certainty::NotDone));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Scripted::start(vec![json(&value!({}))]);
    let fault = fault(reply(302, &format!("location: {}\r\n", target.url), "")).await;
    assert_eq!((fault.code(), fault.class()), ("test.redirected", Class::Permanent));
    assert!(target.received().is_empty());
}

#[tokio::test]
async fn retry_after_reaches_the_class() {
    let fault = fault(reply(429, "retry-after: 9\r\n", "slow down")).await;
    assert_eq!(fault.class(), Class::Transient { retry_after: Some(Duration::from_secs(9)) });
    assert_eq!(fault.certainty(), Certainty::NotDone);
}

#[tokio::test]
async fn an_answer_of_another_shape_is_malformed() {
    let (answer, _) = send(vec![json(&value!([1]))]).await;
    let fault = answer.ok().unwrap().json::<std::collections::BTreeMap<String, i64>>().unwrap_err();
    assert_eq!((fault.code(), fault.certainty()), ("test.malformed_answer", Certainty::Unknown));
    assert_eq!(fault.class(), Class::Transient { retry_after: None });
}

#[tokio::test]
async fn plain_http_is_for_loopback_under_the_setting_only() {
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
        assert_eq!([open.parse_url(url).is_ok(), strict.parse_url(url).is_ok()], allowed, "{url}");
    }
    let fault = open.send(call("http://example.com/", soon())).await.err().unwrap();
    assert!(matches!(fault.kind, HttpFaultKind::Unsendable(_)));
    assert_eq!((fault.code(), fault.class(), fault.certainty()), ("test.unsendable", Class::Permanent, Certainty::NotDone));
}

#[tokio::test]
async fn credentials_are_sent_and_not_shown() {
    let server = Scripted::start(vec![json(&value!({}))]);
    let call = call(&server.url, soon()).authorization("Bearer", &"canary-1".into()).ok().unwrap();
    assert!(!format!("{call:?}").contains("canary"), "{call:?}");
    client().send(call).await.ok().unwrap();
    assert_eq!(server.received()[0].header("authorization"), Some("Bearer canary-1"));
    let broken = self::call(&server.url, soon()).authorization("Bearer", &"a\r\nb".into()).err().unwrap();
    assert_eq!(broken.code(), "test.unsendable");
}
