//! Refuses requests that name another host, and requests with a body.
//!
//! Another site can let its own name point at this machine (DNS rebinding), and the browsers of
//! its visitors would then read the pages of the operations server. Browsers send the name that
//! they asked for, so names other than the server's own are refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The names of the operations server: loopback, the address that it listens on, and those of a
/// setting.
#[derive(Debug, Clone)]
pub struct HostNames {
    listen: IpAddr,
    more: Arc<[String]>,
}

/// The reason why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NoHost,
    OtherHost,
    Body,
}

impl HostNames {
    /// Creates the set of names. `more` are names or addresses without a port, as in
    /// DISPATCH_OPS_HOSTS.
    #[must_use]
    pub fn new(listen: SocketAddr, more: &[String]) -> Self {
        let more = more.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self {
            listen: listen.ip(),
            more,
        }
    }

    /// Returns whether the authority names this server. The port is not compared: a browser cannot
    /// be made to send a false name, and that is enough.
    fn has(&self, authority: &Authority) -> bool {
        let name = authority.host().to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let is_ours = |address: IpAddr| address.is_loopback() || address == self.listen;
        name == "localhost"
            || bare.parse().is_ok_and(is_ours)
            || self.more.iter().any(|more| *more == name || *more == bare)
    }

    /// Returns whether the request names this server and nothing else.
    #[must_use]
    pub fn names(&self, request: &Request<Body>) -> bool {
        self.judge_name(request).is_ok()
    }

    fn judge(&self, request: &Request<Body>) -> Result<(), Refusal> {
        self.judge_name(request)?;
        if has_body(request.headers()) {
            Err(Refusal::Body)
        } else {
            Ok(())
        }
    }

    fn judge_name(&self, request: &Request<Body>) -> Result<(), Refusal> {
        let mut named = request.headers().get_all(HOST).iter();
        let host = match (named.next(), named.next()) {
            (Some(host), None) => Some(
                host.to_str()
                    .ok()
                    .and_then(|host| host.parse().ok())
                    .ok_or(Refusal::NoHost)?,
            ),
            // RFC 9112, 3.2: exactly one Host. HTTP/1.0 does not require it, and every browser
            // sends one.
            (None, _) if request.version() == Version::HTTP_10 => None,
            _ => return Err(Refusal::NoHost),
        };
        // A name in the request line takes precedence (RFC 9112, 3.2.2), so both names must be the
        // server's.
        let asked = request.uri().authority().into_iter().chain(host.as_ref());
        if asked.into_iter().all(|authority| self.has(authority)) {
            Ok(())
        } else {
            Err(Refusal::OtherHost)
        }
    }
}

/// Returns whether a request has a body. No page takes one, so none is read.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let answer = match self {
            Self::NoHost => (
                StatusCode::BAD_REQUEST,
                "expected one Host header, got none or several; use the server's address\n",
            ),
            // The name that was sent is not repeated: it is untrusted text.
            Self::OtherHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "expected a name of this server as the Host, got another one; use its address, or add the name to DISPATCH_OPS_HOSTS\n",
            ),
            Self::Body => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "expected a request without a body, got one with a body; use GET\n",
            ),
        };
        answer.into_response()
    }
}

/// Passes on only requests that name this server and have no body.
pub(super) async fn only_ours(
    State(hosts): State<HostNames>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.judge(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(version: Version, uri: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let hosts = HostNames::new(
            "10.1.2.3:9464".parse().unwrap(),
            &["Ops.example".to_owned(), "2001:db8::7".to_owned()],
        );
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        hosts.judge(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn a_request_for_another_name_is_not_answered() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:9464",
            "127.8.8.8",
            "[::1]:9464",
            "10.1.2.3",
            "ops.example:443",
            "OPS.EXAMPLE",
            "[2001:db8::7]:1",
        ] {
            assert_eq!(
                judge(Version::HTTP_11, "/", &[("host", host)]),
                Ok(()),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.1.2.4:9464",
            "evil.ops.example",
            "0.0.0.0",
            "127.0.0.1.evil.example",
        ] {
            assert_eq!(
                judge(Version::HTTP_11, "/", &[("host", host)]),
                Err(Refusal::OtherHost),
                "{host}"
            );
        }
        assert_eq!(
            judge(
                Version::HTTP_11,
                "http://evil.example/",
                &[("host", "localhost")]
            ),
            Err(Refusal::OtherHost)
        );
        assert_eq!(
            judge(Version::HTTP_10, "http://evil.example/", &[]),
            Err(Refusal::OtherHost)
        );
        assert_eq!(
            judge(Version::HTTP_10, "/", &[("host", "evil.example")]),
            Err(Refusal::OtherHost)
        );
    }

    #[test]
    fn a_request_names_one_host_but_one_of_http_1_0_may_have_none() {
        assert_eq!(judge(Version::HTTP_10, "/", &[]), Ok(()));
        for headers in [
            &[][..],
            &[("host", "localhost"), ("host", "localhost")],
            &[("host", "")],
            &[("host", "a b")],
        ] {
            assert_eq!(
                judge(Version::HTTP_11, "/", headers),
                Err(Refusal::NoHost),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_request_with_a_body_is_refused_before_it_is_read() {
        for (header, refused) in [
            (("content-length", "0"), false),
            (("content-length", "1"), true),
            (("transfer-encoding", "x"), true),
        ] {
            let judged = judge(Version::HTTP_11, "/", &[("host", "localhost"), header]);
            assert_eq!(
                judged,
                if refused { Err(Refusal::Body) } else { Ok(()) },
                "{header:?}"
            );
        }
    }
}
