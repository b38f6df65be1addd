//! The HTTP client for all calls to other services.
//!
//! The client follows no redirects, uses no proxy of the system, and does not decompress answers.
//! Each call has a deadline, which is checked before anything is sent, and a limit for the size of
//! the answer. Only addresses that [`super::address`] permits are called.

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use reqwest::{Method, Response, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::address::{self, Resolver};
use super::call_span::{span_of, trace_headers};
use super::http_fault::{HttpFault, HttpFaultKind, Patience, Provider, retry_after};
use crate::fault::Fault as _;
use crate::trace::{in_span, note};

/// The limit for the body of an ordinary answer, in bytes.
pub const BODY_BYTES: usize = 1 << 20;
/// The limit for the body of an answer to a batch, in bytes: 20 KiB for each of 200 work items,
/// search results or users.
pub const BATCH_BODY_BYTES: usize = 4 << 20;
/// The part of the body that is read of an answer other than 2xx, in bytes.
const ERROR_BODY_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Shorter than the idle timeout of common servers: a call over a connection that the server has
/// closed has an unknown outcome.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const AGENT: &str = concat!("dispatch-worker/", env!("CARGO_PKG_VERSION"));

/// The client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    /// No cryptography provider for TLS is installed.
    #[error(
        "no cryptography provider is installed; install rustls' ring provider before the first client"
    )]
    NoCryptoProvider,
    /// The driver refuses its settings.
    #[error("the HTTP client cannot be created")]
    Driver(#[source] reqwest::Error),
}

/// A client that sends requests. Cheap to clone: clones share their connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    allow_http_loopback: bool,
}

/// A request that is ready to be sent. Its `Debug` form does not show the address, which may
/// contain a secret.
pub struct HttpRequest {
    provider: &'static Provider,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
    deadline: Instant,
    reading: Reading,
}

/// The part of the body that is read of a 2xx answer.
#[derive(Debug, Clone, Copy)]
enum Reading {
    Nothing,
    /// The first bytes, at most this many.
    Start(usize),
    /// The whole body; an answer with more bytes is a fault.
    Whole(usize),
}

/// An answer with any status. It has no `Debug` form, because bodies contain other people's data.
pub struct HttpResponse {
    provider: &'static Provider,
    /// The HTTP status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body: as the call requests for a 2xx, otherwise as much as could be read of its first
    /// 64 KiB.
    pub body: Vec<u8>,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("provider", self.provider)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl HttpRequest {
    /// Creates a request whose call must end before `deadline` (the runtime's monotonic clock).
    #[must_use]
    pub fn new(provider: &'static Provider, method: Method, url: Url, deadline: Instant) -> Self {
        let (headers, body) = (HeaderMap::new(), Vec::new());
        Self {
            provider,
            method,
            url,
            headers,
            body,
            deadline,
            reading: Reading::Whole(BODY_BYTES),
        }
    }

    /// Sets a header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the credentials, `Authorization: SCHEME SECRET`, which `Debug` output does not show.
    ///
    /// # Errors
    /// [`HttpFaultKind::Unsendable`] if a header cannot carry the secret (because of a line break,
    /// for example).
    pub fn authorization(self, scheme: &str, secret: &SecretString) -> Result<Self, HttpFault> {
        let value = HeaderValue::from_str(&format!("{scheme} {}", secret.expose_secret()));
        let mut value = value.map_err(|_| {
            self.unsendable("the credentials contain characters that no header can carry")
        })?;
        value.set_sensitive(true);
        Ok(self.header(AUTHORIZATION, value))
    }

    /// Sets a body of the given media type.
    #[must_use]
    pub fn body(mut self, media_type: &'static str, body: Vec<u8>) -> Self {
        self.body = body;
        self.header(CONTENT_TYPE, HeaderValue::from_static(media_type))
    }

    /// Sets a JSON body of the given media type.
    ///
    /// # Errors
    /// [`HttpFaultKind::Unsendable`] if `value` has no JSON form.
    pub fn json(self, media_type: &'static str, value: &impl Serialize) -> Result<Self, HttpFault> {
        let body =
            serde_json::to_vec(value).map_err(|error| self.unsendable(&error.to_string()))?;
        Ok(self.body(media_type, body))
    }

    /// Limits the body of a 2xx answer to `limit` bytes instead of [`BODY_BYTES`].
    #[must_use]
    pub const fn body_limit(mut self, limit: usize) -> Self {
        self.reading = Reading::Whole(limit);
        self
    }

    /// Reads only the first `limit` bytes of a 2xx answer, for a vendor that states the result of
    /// the call in a few words.
    #[must_use]
    pub const fn body_start(mut self, limit: usize) -> Self {
        self.reading = Reading::Start(limit);
        self
    }

    /// Reads nothing of the body of a 2xx answer: its status is sufficient.
    #[must_use]
    pub const fn status_only(mut self) -> Self {
        self.reading = Reading::Nothing;
        self
    }

    /// Returns the host of the request.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    fn unsendable(&self, why: &str) -> HttpFault {
        HttpFault {
            provider: self.provider,
            kind: HttpFaultKind::Unsendable(why.to_owned()),
        }
    }
}

impl HttpClient {
    /// Creates a client. `allow_http_loopback` permits `http:` addresses of this machine
    /// (development).
    ///
    /// # Errors
    /// [`ClientFault`] if no cryptography provider is installed or the driver refuses its
    /// settings.
    pub fn new(allow_http_loopback: bool) -> Result<Self, ClientFault> {
        Self::resolving(
            Resolver::of_system(allow_http_loopback),
            allow_http_loopback,
        )
    }

    pub(super) fn resolving(
        resolver: Resolver,
        allow_http_loopback: bool,
    ) -> Result<Self, ClientFault> {
        // The driver panics without a cryptography provider.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(ClientFault::NoCryptoProvider);
        }
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .dns_resolver(Arc::new(resolver))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .default_headers(HeaderMap::from_iter([(
                USER_AGENT,
                HeaderValue::from_static(AGENT),
            )]))
            .build()
            .map_err(ClientFault::Driver)?;
        Ok(Self {
            client,
            allow_http_loopback,
        })
    }

    /// Checks that `url` may be called: `https:`, or `http:` to loopback if the settings permit
    /// it; without credentials; and if the host is an address, one that may be called. A name is
    /// checked when the client connects to it.
    ///
    /// # Errors
    /// What the URL must be, for an operator.
    pub fn check_url(&self, url: &Url) -> Result<(), &'static str> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the address must not contain a user name or password");
        }
        let host = url.host_str().ok_or("the address must name a host")?;
        // The URL parser has converted every other notation of an IPv4 address to dotted numbers.
        let literal = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .ok();
        if let Some(rule) =
            literal.and_then(|literal| address::broken_rule(literal, self.allow_http_loopback))
        {
            return Err(rule.text());
        }
        let is_loopback =
            host == "localhost" || literal.is_some_and(|literal| literal.is_loopback());
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.allow_http_loopback && is_loopback => Ok(()),
            _ => Err(
                "the address must begin with https:// (plain http only to loopback, where the settings allow it)",
            ),
        }
    }

    /// Parses and checks an address from settings.
    ///
    /// # Errors
    /// What the URL must be, for an operator.
    pub fn parse_url(&self, text: &str) -> Result<Url, &'static str> {
        let url = Url::parse(text)
            .map_err(|_| "the address must be an absolute URL such as https://example.com/hook")?;
        self.check_url(&url)?;
        Ok(url)
    }

    /// Sends `call` and reads the answer, with any status.
    ///
    /// # Errors
    /// Every [`HttpFaultKind`] but `Status` and `Malformed`.
    pub async fn send(&self, call: HttpRequest) -> Result<HttpResponse, HttpFault> {
        let (provider, method) = (call.provider, call.method.clone());
        in_span(move || span_of(provider, &method), async {
            let answer = self.send_request(call).await;
            match &answer {
                Ok(answer) => note("http.response.status_code", i64::from(answer.status)),
                Err(fault) => note("error.type", fault.code()),
            }
            answer
        })
        .await
    }

    async fn send_request(&self, call: HttpRequest) -> Result<HttpResponse, HttpFault> {
        let HttpRequest {
            provider,
            method,
            url,
            headers,
            body,
            deadline,
            reading,
        } = call;
        let fault = |kind| HttpFault { provider, kind };
        self.check_url(&url)
            .map_err(|why| fault(HttpFaultKind::AddressRefused(why.to_owned())))?;
        if Instant::now() >= deadline {
            return Err(fault(HttpFaultKind::Expired));
        }
        let request = self
            .client
            .request(method, url)
            .headers(headers)
            .headers(trace_headers())
            .body(body)
            .send();
        let sent = within(deadline, request)
            .await
            .ok_or_else(|| fault(HttpFaultKind::TimedOut))?;
        let mut response = sent.map_err(|error| fault(HttpFaultKind::of_driver(error)))?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = match reading {
            _ if !status.is_success() => read_some(&mut response, deadline).await,
            Reading::Nothing => Vec::new(),
            Reading::Start(limit) => read_start(&mut response, limit, deadline)
                .await
                .map_err(fault)?,
            Reading::Whole(limit) => read_whole(&mut response, limit, deadline)
                .await
                .map_err(fault)?,
        };
        Ok(HttpResponse {
            provider,
            status: status.as_u16(),
            headers,
            body,
        })
    }
}

#[cfg(test)]
impl HttpResponse {
    /// Returns an answer that nobody sent.
    pub(super) fn made_up(
        provider: &'static Provider,
        status: u16,
        kind: &'static str,
        body: &[u8],
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(kind));
        headers.insert("retry-after", HeaderValue::from_static("7"));
        Self {
            provider,
            status,
            headers,
            body: body.to_vec(),
        }
    }
}

impl HttpResponse {
    /// Returns the answer if its status is 2xx.
    ///
    /// # Errors
    /// [`HttpFaultKind::Status`] otherwise.
    pub fn success(self) -> Result<Self, HttpFault> {
        let retry_after = retry_after(&self.headers, SystemTime::now());
        self.success_or(Patience {
            retry_after,
            with_all: false,
        })
    }

    /// As [`HttpResponse::success`], for a vendor that states the rate limit and its extent in its
    /// own way.
    ///
    /// # Errors
    /// [`HttpFaultKind::Status`] unless the status is 2xx.
    pub fn success_or(self, patience: Patience) -> Result<Self, HttpFault> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        Err(self.fault(HttpFaultKind::of_status(self.status, patience, &self.body)))
    }

    /// Decodes the JSON body. Fields that `T` does not name are skipped.
    ///
    /// # Errors
    /// [`HttpFaultKind::Malformed`] if the body does not have the shape of `T`.
    pub fn json<'body, T: Deserialize<'body>>(&'body self) -> Result<T, HttpFault> {
        serde_json::from_slice(&self.body).map_err(|error| self.malformed(&error.to_string()))
    }

    /// Returns the fault of an answer that does not match the vendor's documentation.
    #[must_use]
    pub fn malformed(&self, why: &str) -> HttpFault {
        self.fault(HttpFaultKind::Malformed(super::scrub::scrub(why)))
    }

    /// Returns a header field as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    const fn fault(&self, kind: HttpFaultKind) -> HttpFault {
        HttpFault {
            provider: self.provider,
            kind,
        }
    }
}

/// Returns the output of `future`, or `None` once `deadline` has passed. The clock is read before
/// each poll: a process that was frozen between connecting and sending must not send afterwards. A
/// timer alone fires late and does not prevent that.
pub(super) async fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut alarm = pin!(sleep_until(deadline));
    poll_fn(|cx| {
        if Instant::now() >= deadline {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        alarm.as_mut().poll(cx).map(|()| None)
    })
    .await
}

async fn read_whole(
    response: &mut Response,
    limit: usize,
    deadline: Instant,
) -> Result<Vec<u8>, HttpFaultKind> {
    let body = read_start(response, limit + 1, deadline).await?;
    if body.len() > limit {
        Err(HttpFaultKind::TooLarge(limit))
    } else {
        Ok(body)
    }
}

/// Reads the first `limit` bytes. A body that is truncated before them is a fault, because the
/// missing part is not known.
async fn read_start(
    response: &mut Response,
    limit: usize,
    deadline: Instant,
) -> Result<Vec<u8>, HttpFaultKind> {
    let mut body = Vec::new();
    while body.len() < limit {
        let chunk = within(deadline, response.chunk())
            .await
            .ok_or(HttpFaultKind::TimedOut)?;
        let Some(chunk) = chunk.map_err(HttpFaultKind::of_driver)? else {
            break;
        };
        body.extend_from_slice(&chunk);
    }
    body.truncate(limit);
    Ok(body)
}

/// Reads as much of an error's body as arrives in time. A failure is ignored, because the status
/// is known and must be kept.
async fn read_some(response: &mut Response, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(Ok(Some(chunk))) = within(deadline, response.chunk()).await {
        body.extend_from_slice(&chunk);
        if body.len() >= ERROR_BODY_BYTES {
            body.truncate(ERROR_BODY_BYTES);
            break;
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_frozen_beyond_the_deadline_does_not_continue_the_call() {
        let mut went_on = false;
        let frozen = poll_fn(|_| {
            went_on = true;
            Poll::Ready(())
        });
        let result = within(Instant::now(), frozen).await;
        assert_eq!((result, went_on), (None, false));
    }
}
