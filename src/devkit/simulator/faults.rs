//! Injected faults, the requests that they apply to, and counts of affected requests.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::witness::Provider;

/// The SMTP command that names one recipient.
pub(super) const RECIPIENT: &str = "RCPT";

/// The properties of a request by which a fault is matched.
pub(super) struct Request<'a> {
    pub(super) provider: Provider,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// See [`super::witness::Entry::caller`].
    pub(super) caller: Option<&'a str>,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The connection is dropped; the request is not carried out.
    Refuse,
    /// The request is carried out and logged, then the connection is dropped without an answer.
    LoseAnswer,
    /// The request is neither carried out nor answered. The connection is dropped after `millis`
    /// (never, without).
    Hang,
    /// The request is carried out after `millis` (default 1000), even if the sender has given up
    /// by then.
    Slow,
    /// 429 with `Retry-After`; the request is not carried out.
    RateLimit,
    /// 503; the request is not carried out.
    ServerError,
    /// 200 with a body that is not JSON; the request is not carried out.
    Nonsense,
    /// The rule's `answer`; the request is not carried out, unless `done` is set.
    Answer,
    /// The request is carried out, and its own answer is sent with [`FaultRule::headers`] added.
    Decorate,
}

impl FaultKind {
    /// Returns whether an answer is sent.
    #[must_use]
    pub const fn is_answered(self) -> bool {
        !matches!(self, Self::Refuse | Self::LoseAnswer | Self::Hang)
    }
}

/// An answer defined by a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedAnswer {
    /// The HTTP status, 200 to 599. Mail takes its code from the reply line in `body`.
    pub status: u16,
    /// Headers. Without `content-type`, the body is JSON if it parses as JSON, else HTML if it
    /// begins with `<`, else plain text.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body. For mail, the reply line without its line end: `550 5.1.1 unknown`.
    #[serde(default)]
    pub body: String,
}

/// A fault and the requests that it applies to, which match every given filter. For a single
/// recipient of a mail: the method `RCPT`, the address as the path, and [`FaultKind::Answer`] with
/// the reply line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The kind of the fault.
    pub fault: FaultKind,
    /// Only requests to this provider.
    #[serde(default)]
    pub provider: Option<Provider>,
    /// Only this HTTP method, upper case.
    #[serde(default)]
    pub method: Option<String>,
    /// Only paths that contain this (compared as sent, percent-encoded).
    #[serde(default)]
    pub path_contains: Option<String>,
    /// Only requests of this user, see [`super::witness::Entry::caller`].
    #[serde(default)]
    pub caller: Option<String>,
    /// Only queries that contain this (as sent).
    #[serde(default)]
    pub query_contains: Option<String>,
    /// Only bodies that contain this (as sent).
    #[serde(default)]
    pub body_contains: Option<String>,
    /// The number of matching requests, not affected by an older fault, that are let through
    /// first.
    #[serde(default)]
    pub after: Option<u64>,
    /// The number of requests to affect; `None` = all, until it is removed.
    #[serde(default)]
    pub count: Option<u64>,
    /// The duration in milliseconds for [`FaultKind::Slow`] and [`FaultKind::Hang`]; the delay for
    /// [`FaultKind::Answer`] and [`FaultKind::Decorate`] (default 0).
    #[serde(default)]
    pub millis: Option<u64>,
    /// Seconds in `Retry-After`, default 1, for [`FaultKind::RateLimit`]; also sent with
    /// [`FaultKind::ServerError`] if given.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// The answer of [`FaultKind::Answer`], which requires it.
    #[serde(default)]
    pub answer: Option<ScriptedAnswer>,
    /// For [`FaultKind::Answer`]: the request is carried out, and only its answer is replaced.
    #[serde(default)]
    pub done: Option<bool>,
    /// For [`FaultKind::Decorate`]: headers added to the real answer.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl FaultRule {
    /// Creates a fault that affects every request until it is removed.
    #[must_use]
    pub fn new(fault: FaultKind) -> Self {
        Self {
            fault,
            provider: None,
            method: None,
            path_contains: None,
            caller: None,
            query_contains: None,
            body_contains: None,
            after: None,
            count: None,
            millis: None,
            retry_after: None,
            answer: None,
            done: None,
            headers: BTreeMap::new(),
        }
    }

    /// Creates a fault that sends this answer without carrying out the request, see
    /// [`ScriptedAnswer`].
    #[must_use]
    pub fn answering(status: u16, body: impl Into<String>) -> Self {
        let answer = ScriptedAnswer {
            status,
            headers: BTreeMap::new(),
            body: body.into(),
        };
        Self {
            answer: Some(answer),
            ..Self::new(FaultKind::Answer)
        }
    }

    /// Creates a fault that sends the real answer with the headers that [`Self::header`] adds.
    #[must_use]
    pub fn decorating() -> Self {
        Self::new(FaultKind::Decorate)
    }

    /// Adds a header to the given answer, or to the real one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let headers = self
            .answer
            .as_mut()
            .map_or(&mut self.headers, |answer| &mut answer.headers);
        headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets [`Self::done`].
    #[must_use]
    pub fn done(mut self) -> Self {
        self.done = Some(true);
        self
    }

    /// Sets [`Self::after`].
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.after = Some(count);
        self
    }

    /// Restricts the fault to requests to `provider`.
    #[must_use]
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Restricts the fault to this HTTP method, in upper case.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Restricts the fault to paths that contain `part`.
    #[must_use]
    pub fn path_contains(mut self, part: &str) -> Self {
        self.path_contains = Some(part.to_owned());
        self
    }

    /// Restricts the fault to requests of this user.
    #[must_use]
    pub fn caller(mut self, unique_name: &str) -> Self {
        self.caller = Some(unique_name.to_owned());
        self
    }

    /// Restricts the fault to queries that contain `part`.
    #[must_use]
    pub fn query_contains(mut self, part: &str) -> Self {
        self.query_contains = Some(part.to_owned());
        self
    }

    /// Restricts the fault to bodies that contain `part`.
    #[must_use]
    pub fn body_contains(mut self, part: &str) -> Self {
        self.body_contains = Some(part.to_owned());
        self
    }

    /// Restricts the fault to the next `count` matching requests.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Sets the duration, see [`Self::millis`].
    #[must_use]
    pub fn millis(mut self, millis: u64) -> Self {
        self.millis = Some(millis);
        self
    }

    /// Sets [`Self::retry_after`].
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Returns whether the request is carried out.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self.fault {
            FaultKind::LoseAnswer | FaultKind::Slow | FaultKind::Decorate => true,
            FaultKind::Answer => self.done == Some(true),
            FaultKind::Refuse
            | FaultKind::Hang
            | FaultKind::RateLimit
            | FaultKind::ServerError
            | FaultKind::Nonsense => false,
        }
    }

    /// Checks that the answer can be sent. The error states what was expected.
    ///
    /// # Errors
    /// If [`FaultKind::Answer`] has no answer, or its status or a header is invalid in HTTP.
    pub fn check(&self) -> Result<(), String> {
        match (self.fault, &self.answer) {
            (FaultKind::Answer, None) => {
                return Err("expected `answer` beside the fault `answer`, got none".to_owned());
            }
            (_, Some(answer)) if !(200..600).contains(&answer.status) => {
                return Err(format!(
                    "expected an answer's status from 200 to 599, got {}",
                    answer.status
                ));
            }
            _ => {}
        }
        let of_answer = self.answer.iter().flat_map(|answer| &answer.headers);
        for (name, value) in self.headers.iter().chain(of_answer) {
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                return Err(format!(
                    "expected a header's name and visible ASCII, got {name:?}: {value:?}"
                ));
            }
        }
        Ok(())
    }

    /// Returns whether the rule matches. A single recipient matches only rules that name its
    /// method, so that rules for whole mails are not used up.
    fn fits(&self, request: &Request<'_>) -> bool {
        let has = |part: &Option<String>, text: &str| {
            part.as_ref()
                .is_none_or(|part| text.contains(part.as_str()))
        };
        self.provider
            .is_none_or(|wanted| wanted == request.provider)
            && self
                .method
                .as_ref()
                .map_or(request.method != RECIPIENT, |wanted| {
                    wanted == request.method
                })
            && has(&self.path_contains, request.path)
            && self
                .caller
                .as_ref()
                .is_none_or(|wanted| request.caller == Some(wanted))
            && has(&self.query_contains, request.query)
            && has(&self.body_contains, &String::from_utf8_lossy(request.body))
    }
}

/// An entry of the list of faults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// The id, for removing it.
    pub id: u64,
    /// The number of affected requests.
    pub hits: u64,
    /// The number of requests let through, see [`FaultRule::after`].
    #[serde(default)]
    pub passed: u64,
    /// The rule as posted.
    #[serde(flatten)]
    pub rule: FaultRule,
}

/// The faults, oldest first. A used-up fault stays listed.
#[derive(Default)]
pub(super) struct Faults {
    last_id: u64,
    listed: BTreeMap<u64, FaultReport>,
}

impl Faults {
    pub(super) fn add(&mut self, rule: FaultRule) -> u64 {
        self.last_id += 1;
        self.listed.insert(
            self.last_id,
            FaultReport {
                id: self.last_id,
                hits: 0,
                passed: 0,
                rule,
            },
        );
        self.last_id
    }

    pub(super) fn list(&self) -> Vec<&FaultReport> {
        self.listed.values().collect()
    }

    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.listed.remove(&id).is_some()
    }

    pub(super) fn clear(&mut self) {
        self.listed.clear();
    }

    /// Returns the oldest active fault that matches the request and does not let it through, and
    /// counts the request.
    pub(super) fn strike(&mut self, request: &Request<'_>) -> Option<FaultRule> {
        let in_force =
            |fault: &&mut FaultReport| fault.rule.count.is_none_or(|count| fault.hits < count);
        for fault in self
            .listed
            .values_mut()
            .filter(in_force)
            .filter(|fault| fault.rule.fits(request))
        {
            if fault.passed < fault.rule.after.unwrap_or(0) {
                fault.passed += 1;
                continue;
            }
            fault.hits += 1;
            return Some(fault.rule.clone());
        }
        None
    }
}
