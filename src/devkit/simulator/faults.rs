//! Faults: what goes wrong on purpose, for which requests, and how often it has.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::witness::Provider;

/// The SMTP command that names one recipient.
pub(super) const RECIPIENT: &str = "RCPT";

/// What a fault is looked for by.
pub(super) struct Request<'a> {
    pub(super) provider: Provider,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// See [`super::witness::Entry::caller`].
    pub(super) caller: Option<&'a str>,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The connection is dropped; nothing is done.
    Refuse,
    /// It is done and logged, then the connection is dropped without an answer.
    LoseAnswer,
    /// Nothing is done and no answer comes; after `millis` (never, without) the connection is dropped.
    Hang,
    /// It is done after `millis` (default 1000), even if the sender has given up by then.
    Slow,
    /// 429 with `Retry-After`; nothing is done.
    RateLimit,
    /// 503; nothing is done.
    ServerError,
    /// 200 with a body that is no JSON; nothing is done.
    Nonsense,
    /// The rule's `answer` as it stands; nothing is done, unless its `done` says so.
    Answer,
    /// It is done, and its own answer goes out with [`FaultRule::headers`] added.
    Decorate,
}

impl FaultKind {
    /// Whether an answer goes out.
    #[must_use]
    pub const fn is_answered(self) -> bool {
        !matches!(self, Self::Refuse | Self::LoseAnswer | Self::Hang)
    }
}

/// An answer in the test's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedAnswer {
    /// The HTTP status, 200 to 599. Mail takes its code from the reply line in `body`.
    pub status: u16,
    /// Without `content-type` the body is JSON where it parses as JSON, else HTML where it begins with `<`, else plain text.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body; for mail the reply line, without its end: `550 5.1.1 unknown`.
    #[serde(default)]
    pub body: String,
}

/// A fault and the requests it is for: those that fit every filter given. For a single recipient of a mail: the method `RCPT`,
/// the address as the path, and [`FaultKind::Answer`] with the reply line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// What goes wrong.
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
    /// The first so many requests that fit, and that no older fault has met, are let through.
    #[serde(default)]
    pub after: Option<u64>,
    /// For how many requests; `None` = until it is deleted.
    #[serde(default)]
    pub count: Option<u64>,
    /// How long, in milliseconds, for [`FaultKind::Slow`] and [`FaultKind::Hang`]; how late, for [`FaultKind::Answer`] and
    /// [`FaultKind::Decorate`] (default 0).
    #[serde(default)]
    pub millis: Option<u64>,
    /// Seconds in `Retry-After`, default 1, for [`FaultKind::RateLimit`]; also sent with [`FaultKind::ServerError`] if given.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// For [`FaultKind::Answer`], which needs it.
    #[serde(default)]
    pub answer: Option<ScriptedAnswer>,
    /// For [`FaultKind::Answer`]: the request is carried out all the same, and only its answer is replaced.
    #[serde(default)]
    pub done: Option<bool>,
    /// For [`FaultKind::Decorate`]: added to the real answer.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl FaultRule {
    /// A fault that every request meets, until it is deleted.
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

    /// This answer instead of doing anything, see [`ScriptedAnswer`].
    #[must_use]
    pub fn answering(status: u16, body: impl Into<String>) -> Self {
        let answer = ScriptedAnswer { status, headers: BTreeMap::new(), body: body.into() };
        Self { answer: Some(answer), ..Self::new(FaultKind::Answer) }
    }

    /// The real answer, with what [`Self::header`] adds.
    #[must_use]
    pub fn decorating() -> Self {
        Self::new(FaultKind::Decorate)
    }

    /// With a header: of the answer given, or beside those of the real one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let headers = self.answer.as_mut().map_or(&mut self.headers, |answer| &mut answer.headers);
        headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// See [`Self::done`].
    #[must_use]
    pub fn done(mut self) -> Self {
        self.done = Some(true);
        self
    }

    /// See [`Self::after`].
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.after = Some(count);
        self
    }

    /// Only for requests to `provider`.
    #[must_use]
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Only for this HTTP method, upper case.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only for paths that contain `part`.
    #[must_use]
    pub fn path_contains(mut self, part: &str) -> Self {
        self.path_contains = Some(part.to_owned());
        self
    }

    /// Only for requests of this user.
    #[must_use]
    pub fn caller(mut self, unique_name: &str) -> Self {
        self.caller = Some(unique_name.to_owned());
        self
    }

    /// Only for queries that contain `part`.
    #[must_use]
    pub fn query_contains(mut self, part: &str) -> Self {
        self.query_contains = Some(part.to_owned());
        self
    }

    /// Only for bodies that contain `part`.
    #[must_use]
    pub fn body_contains(mut self, part: &str) -> Self {
        self.body_contains = Some(part.to_owned());
        self
    }

    /// Only for the next `count` requests that fit.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// For how long, see [`Self::millis`].
    #[must_use]
    pub fn millis(mut self, millis: u64) -> Self {
        self.millis = Some(millis);
        self
    }

    /// See [`Self::retry_after`].
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Whether the request is carried out all the same.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self.fault {
            FaultKind::LoseAnswer | FaultKind::Slow | FaultKind::Decorate => true,
            FaultKind::Answer => self.done == Some(true),
            FaultKind::Refuse | FaultKind::Hang | FaultKind::RateLimit | FaultKind::ServerError | FaultKind::Nonsense => false,
        }
    }

    /// Checks what cannot be sent; the error says what is expected.
    ///
    /// # Errors
    /// If [`FaultKind::Answer`] has no answer, or the answer's status or a header is none that HTTP knows.
    pub fn check(&self) -> Result<(), String> {
        match (self.fault, &self.answer) {
            (FaultKind::Answer, None) => return Err("expected `answer` beside the fault `answer`, got none".to_owned()),
            (_, Some(answer)) if !(200..600).contains(&answer.status) => {
                return Err(format!("expected an answer's status from 200 to 599, got {}", answer.status));
            }
            _ => {}
        }
        let of_answer = self.answer.iter().flat_map(|answer| &answer.headers);
        for (name, value) in self.headers.iter().chain(of_answer) {
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                return Err(format!("expected a header's name and visible ASCII, got {name:?}: {value:?}"));
            }
        }
        Ok(())
    }

    /// A single recipient is met only by rules that name its method, so that those for whole mails stay as they are.
    fn fits(&self, request: &Request<'_>) -> bool {
        let has = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| text.contains(part.as_str()));
        self.provider.is_none_or(|wanted| wanted == request.provider)
            && self.method.as_ref().map_or(request.method != RECIPIENT, |wanted| wanted == request.method)
            && has(&self.path_contains, request.path)
            && self.caller.as_ref().is_none_or(|wanted| request.caller == Some(wanted))
            && has(&self.query_contains, request.query)
            && has(&self.body_contains, &String::from_utf8_lossy(request.body))
    }
}

/// A fault as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// To delete it by.
    pub id: u64,
    /// How many requests it has met.
    pub hits: u64,
    /// How many it has let through, see [`FaultRule::after`].
    #[serde(default)]
    pub passed: u64,
    /// As posted.
    #[serde(flatten)]
    pub rule: FaultRule,
}

/// The faults in force, oldest first. One that is used up stays listed.
#[derive(Default)]
pub(super) struct Faults {
    last_id: u64,
    listed: BTreeMap<u64, FaultReport>,
}

impl Faults {
    pub(super) fn add(&mut self, rule: FaultRule) -> u64 {
        self.last_id += 1;
        self.listed.insert(self.last_id, FaultReport { id: self.last_id, hits: 0, passed: 0, rule });
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

    /// The oldest fault in force that fits the request and does not let it through, counted as having met it.
    pub(super) fn strike(&mut self, request: &Request<'_>) -> Option<FaultRule> {
        let in_force = |fault: &&mut FaultReport| fault.rule.count.is_none_or(|count| fault.hits < count);
        for fault in self.listed.values_mut().filter(in_force).filter(|fault| fault.rule.fits(request)) {
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
