//! Faults: what goes wrong on purpose, for which requests, and how often it has.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::Answer;
use super::witness::Provider;

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
}

impl FaultKind {
    /// Whether the request is carried out all the same.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::LoseAnswer | Self::Slow)
    }

    /// Whether an answer goes out.
    #[must_use]
    pub const fn is_answered(self) -> bool {
        !matches!(self, Self::Refuse | Self::LoseAnswer | Self::Hang)
    }
}

/// A fault and the requests it is for: those that fit every filter given.
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
    /// For how many requests; `None` = until it is deleted.
    #[serde(default)]
    pub count: Option<u64>,
    /// How long, in milliseconds, for [`FaultKind::Slow`] and [`FaultKind::Hang`].
    #[serde(default)]
    pub millis: Option<u64>,
    /// Seconds in `Retry-After`, default 1, for [`FaultKind::RateLimit`]; also sent with [`FaultKind::ServerError`] if given.
    #[serde(default)]
    pub retry_after: Option<u64>,
}

impl FaultRule {
    /// A fault that every request meets, until it is deleted.
    #[must_use]
    pub fn new(fault: FaultKind) -> Self {
        Self { fault, provider: None, method: None, path_contains: None, count: None, millis: None, retry_after: None }
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

    fn fits(&self, provider: Provider, method: &str, path: &str) -> bool {
        self.provider.is_none_or(|wanted| wanted == provider)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.path_contains.as_ref().is_none_or(|part| path.contains(part.as_str()))
    }

    /// How long to wait before the request is carried out.
    pub(super) fn delay(&self) -> Duration {
        match self.fault {
            FaultKind::Slow => Duration::from_millis(self.millis.unwrap_or(1000)),
            FaultKind::Refuse
            | FaultKind::LoseAnswer
            | FaultKind::Hang
            | FaultKind::RateLimit
            | FaultKind::ServerError
            | FaultKind::Nonsense => Duration::ZERO,
        }
    }

    /// What is answered instead of carrying the request out; for faults without an answer, never sent.
    pub(super) fn answer(&self) -> Answer {
        let (status, message, retry_after) = match self.fault {
            FaultKind::Nonsense => return Answer::text(StatusCode::OK, "text/html", "<<<{\"value\": [nonsense"),
            FaultKind::RateLimit => (StatusCode::TOO_MANY_REQUESTS, "too many requests", Some(self.retry_after.unwrap_or(1))),
            FaultKind::ServerError | FaultKind::Refuse | FaultKind::LoseAnswer | FaultKind::Hang | FaultKind::Slow => {
                (StatusCode::SERVICE_UNAVAILABLE, "the service is unavailable", self.retry_after)
            }
        };
        let answer = Answer::json(status, &json!({ "message": message, "retry_after": retry_after, "global": false, "code": 0 }));
        match retry_after {
            Some(seconds) => answer.header("retry-after", seconds.to_string()),
            None => answer,
        }
    }
}

/// A fault as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// To delete it by.
    pub id: u64,
    /// How many requests it has met.
    pub hits: u64,
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
        self.listed.insert(self.last_id, FaultReport { id: self.last_id, hits: 0, rule });
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

    /// The oldest fault in force that fits the request, counted as having met it.
    pub(super) fn strike(&mut self, provider: Provider, method: &str, path: &str) -> Option<FaultRule> {
        let in_force = |fault: &&mut FaultReport| fault.rule.count.is_none_or(|count| fault.hits < count);
        let fault = self.listed.values_mut().filter(in_force).find(|fault| fault.rule.fits(provider, method, path))?;
        fault.hits += 1;
        Some(fault.rule.clone())
    }
}
