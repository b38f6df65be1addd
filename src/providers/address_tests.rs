//! Tests that [`super::http`] calls only addresses that [`super::address`] permits.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use reqwest::Url;
use serde_json::json as value;

use super::address::Resolver;
use super::http::HttpClient;
use super::http_fault::HttpFaultKind;
use super::http_tests::call;
use super::scripted::{Scripted, client, json, soon};
use crate::fault::{Certainty, Class, Fault};

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
