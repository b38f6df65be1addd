//! The one HTTP client: what every call to the outside has in common.
//!
//! No redirects, no proxy of the system, no decompression; a deadline per call, looked at before anything is sent; a limit
//! on what is read; only addresses that [`super::address`] lets through.

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Method, Response, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::address::{self, Resolver};
use super::http_fault::{HttpFault, HttpFaultKind, Patience, Provider, retry_after};
use crate::trace::{TRACEPARENT, TRACESTATE, Trace};

/// The body read of an ordinary answer, in bytes.
pub const BODY_BYTES: usize = 1 << 20;
/// The body read of an answer to a batch, in bytes: room for 20 KiB of each of 200 work items, search results or users.
pub const BATCH_BODY_BYTES: usize = 4 << 20;
/// The body read of an answer other than 2xx, in bytes; the rest is left.
const ERROR_BODY_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Shorter than the idle time of common servers: a connection they have closed meanwhile makes an outcome unknown.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const AGENT: &str = concat!("dispatch-worker/", env!("CARGO_PKG_VERSION"));

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    /// TLS has no cryptography.
    #[error("no cryptography provider is installed; install rustls' ring provider before the first client")]
    NoCryptoProvider,
    /// The driver refuses its settings.
    #[error("the HTTP client cannot be made")]
    Driver(#[source] reqwest::Error),
}

/// Sends requests. Cheap to clone: clones share their connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    allow_http_loopback: bool,
}

/// A request that is ready to go. Its `Debug` form shows nothing of the address, which may hold a secret.
pub struct HttpRequest {
    provider: &'static Provider,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
    deadline: Instant,
    reading: Reading,
}

/// What is read of the body of a 2xx answer.
#[derive(Debug, Clone, Copy)]
enum Reading {
    Nothing,
    /// Nothing after this many bytes.
    Start(usize),
    /// All; an answer with more bytes is a fault.
    Whole(usize),
}

/// An answer, whatever its status. Its `Debug` form does not exist: bodies hold other people's data.
pub struct HttpResponse {
    provider: &'static Provider,
    /// The HTTP status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body: as the call asked for where the status is 2xx, else as much as could be read of its first 64 KiB.
    pub body: Vec<u8>,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest").field("provider", self.provider).field("method", &self.method).finish_non_exhaustive()
    }
}

impl HttpRequest {
    /// A call that must be over at `deadline` (the runtime's monotonic clock).
    #[must_use]
    pub fn new(provider: &'static Provider, method: Method, url: Url, deadline: Instant) -> Self {
        let (headers, body) = (HeaderMap::new(), Vec::new());
        Self { provider, method, url, headers, body, deadline, reading: Reading::Whole(BODY_BYTES) }
    }

    /// With a header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With credentials: `Authorization: SCHEME SECRET`, kept out of `Debug` output.
    ///
    /// # Errors
    /// [`HttpFaultKind::Unsendable`] where the secret cannot stand in a header (a line break, for example).
    pub fn authorization(self, scheme: &str, secret: &SecretString) -> Result<Self, HttpFault> {
        let value = HeaderValue::from_str(&format!("{scheme} {}", secret.expose_secret()));
        let mut value = value.map_err(|_| self.unsendable("the credentials hold characters that no header can carry"))?;
        value.set_sensitive(true);
        Ok(self.header(AUTHORIZATION, value))
    }

    /// With a body of the given media type.
    #[must_use]
    pub fn body(mut self, media_type: &'static str, body: Vec<u8>) -> Self {
        self.body = body;
        self.header(CONTENT_TYPE, HeaderValue::from_static(media_type))
    }

    /// With a JSON body of the given media type.
    ///
    /// # Errors
    /// [`HttpFaultKind::Unsendable`] where `value` has no JSON form.
    pub fn json(self, media_type: &'static str, value: &impl Serialize) -> Result<Self, HttpFault> {
        let body = serde_json::to_vec(value).map_err(|error| self.unsendable(&error.to_string()))?;
        Ok(self.body(media_type, body))
    }

    /// Reading at most `limit` bytes of a 2xx answer instead of [`BODY_BYTES`].
    #[must_use]
    pub const fn body_limit(mut self, limit: usize) -> Self {
        self.reading = Reading::Whole(limit);
        self
    }

    /// Reading the first `limit` bytes of a 2xx answer, and leaving the rest, for a vendor that says in a few words what came of
    /// the call.
    #[must_use]
    pub const fn body_start(mut self, limit: usize) -> Self {
        self.reading = Reading::Start(limit);
        self
    }

    /// Reading nothing of a 2xx answer: its status says all.
    #[must_use]
    pub const fn status_only(mut self) -> Self {
        self.reading = Reading::Nothing;
        self
    }

    /// The host it goes to.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    fn unsendable(&self, why: &str) -> HttpFault {
        HttpFault { provider: self.provider, kind: HttpFaultKind::Unsendable(why.to_owned()) }
    }
}

impl HttpClient {
    /// A client. `allow_http_loopback` lets `http:` addresses of this machine through (development).
    ///
    /// # Errors
    /// [`ClientFault`] where no cryptography provider is installed or the driver refuses.
    pub fn new(allow_http_loopback: bool) -> Result<Self, ClientFault> {
        Self::resolving(Resolver::of_system(allow_http_loopback), allow_http_loopback)
    }

    pub(super) fn resolving(resolver: Resolver, allow_http_loopback: bool) -> Result<Self, ClientFault> {
        // The driver would panic without one.
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
            .default_headers(HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(AGENT))]))
            .build()
            .map_err(ClientFault::Driver)?;
        Ok(Self { client, allow_http_loopback })
    }

    /// Whether `url` may be called: `https:`, or `http:` to loopback where the settings allow it; no credentials inside; where
    /// the host is an address, one that may be called. What a name resolves to is looked at when it is connected to.
    ///
    /// # Errors
    /// What would be right, for a person.
    pub fn check_url(&self, url: &Url) -> Result<(), &'static str> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the address must not contain a user name or password");
        }
        let host = url.host_str().ok_or("the address must name a host")?;
        // The URL's parser has made dotted numbers of every other way to write an IPv4 address.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        if let Some(rule) = literal.and_then(|literal| address::broken_rule(literal, self.allow_http_loopback)) {
            return Err(rule.text());
        }
        let is_loopback = host == "localhost" || literal.is_some_and(|literal| literal.is_loopback());
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.allow_http_loopback && is_loopback => Ok(()),
            _ => Err("the address must begin with https:// (plain http only to loopback, where the settings allow it)"),
        }
    }

    /// Reads and checks an address from settings.
    ///
    /// # Errors
    /// What would be right, for a person.
    pub fn parse_url(&self, text: &str) -> Result<Url, &'static str> {
        let url = Url::parse(text).map_err(|_| "the address must be an absolute URL such as https://example.com/hook")?;
        self.check_url(&url)?;
        Ok(url)
    }

    /// Sends `call` and reads the answer, whatever its status.
    ///
    /// # Errors
    /// Every [`HttpFaultKind`] but `Status` and `Malformed`.
    pub async fn send(&self, call: HttpRequest) -> Result<HttpResponse, HttpFault> {
        let HttpRequest { provider, method, url, headers, body, deadline, reading } = call;
        let fault = |kind| HttpFault { provider, kind };
        self.check_url(&url).map_err(|why| fault(HttpFaultKind::AddressRefused(why.to_owned())))?;
        if Instant::now() >= deadline {
            return Err(fault(HttpFaultKind::Expired));
        }
        let request = self.client.request(method, url).headers(headers).headers(trace_headers()).body(body).send();
        let sent = within(deadline, request).await.ok_or_else(|| fault(HttpFaultKind::TimedOut))?;
        let mut response = sent.map_err(|error| fault(HttpFaultKind::of_driver(error)))?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = match reading {
            _ if !status.is_success() => read_some(&mut response, deadline).await,
            Reading::Nothing => Vec::new(),
            Reading::Start(limit) => read_start(&mut response, limit, deadline).await.map_err(fault)?,
            Reading::Whole(limit) => read_whole(&mut response, limit, deadline).await.map_err(fault)?,
        };
        Ok(HttpResponse { provider, status: status.as_u16(), headers, body })
    }
}

impl HttpResponse {
    /// Itself where the status is 2xx.
    ///
    /// # Errors
    /// [`HttpFaultKind::Status`] otherwise.
    pub fn success(self) -> Result<Self, HttpFault> {
        let retry_after = retry_after(&self.headers, SystemTime::now());
        self.success_or(Patience { retry_after, with_all: false })
    }

    /// As [`HttpResponse::success`], where the vendor says in its own way how long to wait, and with what.
    ///
    /// # Errors
    /// [`HttpFaultKind::Status`] unless the status is 2xx.
    pub fn success_or(self, patience: Patience) -> Result<Self, HttpFault> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        Err(self.fault(HttpFaultKind::of_status(self.status, patience, &self.body)))
    }

    /// The body, decoded. What `T` does not name costs nothing.
    ///
    /// # Errors
    /// [`HttpFaultKind::Malformed`] where it does not have the shape of `T`.
    pub fn json<'body, T: Deserialize<'body>>(&'body self) -> Result<T, HttpFault> {
        serde_json::from_slice(&self.body).map_err(|error| self.malformed(&error.to_string()))
    }

    /// That this answer is not what the vendor describes.
    #[must_use]
    pub fn malformed(&self, why: &str) -> HttpFault {
        self.fault(HttpFaultKind::Malformed(super::scrub::scrub(why)))
    }

    /// A header field as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    const fn fault(&self, kind: HttpFaultKind) -> HttpFault {
        HttpFault { provider: self.provider, kind }
    }
}

/// W3C Trace Context of the job that the call is made for, in a span of its own.
fn trace_headers() -> HeaderMap {
    let Some(trace) = Trace::child_of_current() else { return HeaderMap::new() };
    let named = [(TRACEPARENT, Some(trace.to_string())), (TRACESTATE, trace.state().map(str::to_owned))];
    let header = |(name, value): (&'static str, Option<String>)| {
        Some((HeaderName::from_static(name), HeaderValue::try_from(value?).ok()?))
    };
    named.into_iter().filter_map(header).collect()
}

/// What `future` gives, or nothing once `deadline` has passed. The clock is read before each poll: a process that was
/// frozen between connecting and sending must not send afterwards, which a timer alone (it fires late) would let happen.
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

async fn read_whole(response: &mut Response, limit: usize, deadline: Instant) -> Result<Vec<u8>, HttpFaultKind> {
    let body = read_start(response, limit + 1, deadline).await?;
    if body.len() > limit { Err(HttpFaultKind::TooLarge(limit)) } else { Ok(body) }
}

/// The first `limit` bytes. A body that breaks off before them is a fault: what is missing could say anything.
async fn read_start(response: &mut Response, limit: usize, deadline: Instant) -> Result<Vec<u8>, HttpFaultKind> {
    let mut body = Vec::new();
    while body.len() < limit {
        let chunk = within(deadline, response.chunk()).await.ok_or(HttpFaultKind::TimedOut)?;
        let Some(chunk) = chunk.map_err(HttpFaultKind::of_driver)? else { break };
        body.extend_from_slice(&chunk);
    }
    body.truncate(limit);
    Ok(body)
}

/// As much of an error's body as comes in time: the status is known and must not be lost with it.
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
    async fn what_was_frozen_beyond_its_deadline_does_not_go_on() {
        let mut went_on = false;
        let frozen = poll_fn(|_| {
            went_on = true;
            Poll::Ready(())
        });
        let result = within(Instant::now(), frozen).await;
        assert_eq!((result, went_on), (None, false));
    }
}
