//! The faults of HTTP calls, for all providers: the class of each fault, and whether the provider
//! may have acted.

use std::fmt;
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::address::RefusedName;
use super::governor::Rate;
use super::said::Said;
use crate::fault::{Certainty, Class, Fault};

/// A provider, as errors name it, with its stable error codes.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// The prefix of its error codes: `azure_devops`. Stored, so never renamed.
    pub name: &'static str,
    /// Its name in messages for people: `Azure DevOps`.
    pub title: &'static str,
    /// The rate limit of calls to one destination, unless the settings name another. A provider
    /// without one gets [`Rate::OF_ANY_OTHER`].
    pub rate: Option<Rate>,
    pub(super) codes: Codes,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Codes {
    pub(super) unsendable: &'static str,
    pub(super) address_refused: &'static str,
    pub(super) unreachable: &'static str,
    pub(super) timed_out: &'static str,
    pub(super) connection_lost: &'static str,
    pub(super) answer_too_large: &'static str,
    pub(super) malformed_answer: &'static str,
    pub(super) rate_limited: &'static str,
    pub(super) try_later: &'static str,
    pub(super) server_error: &'static str,
    pub(super) unauthorized: &'static str,
    pub(super) forbidden: &'static str,
    pub(super) not_found: &'static str,
    pub(super) redirected: &'static str,
    pub(super) refused: &'static str,
    pub(super) bad_config: &'static str,
    /// The provider answered with an unknown error code, see [`Class::Unrecognized`].
    pub(super) unrecognized: &'static str,
}

/// A [`Provider`] whose codes all begin with its name, with its title and its rate limit:
/// `provider!("slack", "Slack", 3 calls in 3 s)`.
macro_rules! provider {
    ($name:literal) => {
        provider!($name, $name, None)
    };
    ($name:literal, $title:literal, $calls:literal calls in $seconds:literal s) => {
        provider!(
            $name,
            $title,
            Some($crate::providers::governor::Rate::new($calls, $seconds))
        )
    };
    ($name:literal, $title:literal, $rate:expr) => {
        $crate::providers::http_fault::Provider {
            name: $name,
            title: $title,
            rate: $rate,
            codes: $crate::providers::http_fault::Codes {
                unsendable: concat!($name, ".unsendable"),
                address_refused: concat!($name, ".address_refused"),
                unreachable: concat!($name, ".unreachable"),
                timed_out: concat!($name, ".timed_out"),
                connection_lost: concat!($name, ".connection_lost"),
                answer_too_large: concat!($name, ".answer_too_large"),
                malformed_answer: concat!($name, ".malformed_answer"),
                rate_limited: concat!($name, ".rate_limited"),
                try_later: concat!($name, ".try_later"),
                server_error: concat!($name, ".server_error"),
                unauthorized: concat!($name, ".unauthorized"),
                forbidden: concat!($name, ".forbidden"),
                not_found: concat!($name, ".not_found"),
                redirected: concat!($name, ".redirected"),
                refused: concat!($name, ".refused"),
                bad_config: concat!($name, ".bad_config"),
                unrecognized: concat!($name, ".unrecognized"),
            },
        }
    };
}
pub(super) use provider;

/// A failed call to one provider.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", provider.name)]
pub struct HttpFault {
    /// The provider that was called.
    pub provider: &'static Provider,
    /// The kind of failure.
    #[source]
    pub kind: HttpFaultKind,
}

/// The kind of failure of a call.
#[derive(Debug, thiserror::Error)]
pub enum HttpFaultKind {
    /// The request could not be built, or must not be sent. Nothing was sent.
    #[error("not sent: {0}")]
    Unsendable(String),
    /// The address may not be called; the text states what is expected. Nothing was sent.
    #[error("not sent: {0}")]
    AddressRefused(String),
    /// No connection was established: resolving, connecting or the TLS handshake failed or timed
    /// out.
    #[error("no connection")]
    Unreachable(#[source] reqwest::Error),
    /// The call's deadline had passed before anything was sent.
    #[error("not sent: the call's deadline had passed")]
    Expired,
    /// The call's deadline passed after the request may have gone out.
    #[error("no answer before the call's deadline")]
    TimedOut,
    /// The connection broke before the answer was complete.
    #[error("the connection was lost before the answer was complete")]
    Lost(#[source] reqwest::Error),
    /// The answer exceeds the limit for its size.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// A 2xx whose body does not match the vendor's documentation.
    #[error("the answer does not have the expected shape: {0}")]
    Malformed(String),
    /// An answer other than 2xx.
    #[error("answered {status}: {body}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The provider's `Retry-After`.
        retry_after: Option<Duration>,
        /// See [`Patience::with_all`].
        with_all: bool,
        /// The provider's explanation: see [`Said`].
        body: String,
    },
}

/// The rate limit that an answer states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patience {
    /// The time to wait before the next call.
    pub retry_after: Option<Duration>,
    /// Whether the limit applies to all calls with the same credential or from the same address,
    /// not to this destination alone.
    pub with_all: bool,
}

impl HttpFaultKind {
    /// Returns the fault of an answer other than 2xx.
    #[must_use]
    pub fn of_status(status: u16, patience: Patience, body: &[u8]) -> Self {
        let Patience {
            retry_after,
            with_all,
        } = patience;
        Self::Status {
            status,
            retry_after,
            with_all,
            body: Said::of(body).to_string(),
        }
    }

    /// Converts an error of the HTTP driver.
    #[must_use]
    pub(super) fn of_driver(error: reqwest::Error) -> Self {
        // A URL may contain a secret (a path with a key in it).
        let error = error.without_url();
        if error.is_builder() {
            return Self::Unsendable("the request could not be built".to_owned());
        }
        if let Some(refused) = RefusedName::in_chain(&error) {
            return Self::AddressRefused(refused.to_string());
        }
        if error.is_connect() {
            Self::Unreachable(error)
        } else {
            Self::Lost(error)
        }
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for HttpFault {
    fn code(&self) -> &'static str {
        let codes = &self.provider.codes;
        match &self.kind {
            HttpFaultKind::Unsendable(_) => codes.unsendable,
            HttpFaultKind::AddressRefused(_) => codes.address_refused,
            HttpFaultKind::Unreachable(_) => codes.unreachable,
            HttpFaultKind::Expired | HttpFaultKind::TimedOut => codes.timed_out,
            HttpFaultKind::Lost(_) => codes.connection_lost,
            HttpFaultKind::TooLarge(_) => codes.answer_too_large,
            HttpFaultKind::Malformed(_) => codes.malformed_answer,
            HttpFaultKind::Status { status, .. } => match status {
                401 => codes.unauthorized,
                403 => codes.forbidden,
                404 | 410 => codes.not_found,
                408 | 425 => codes.try_later,
                429 => codes.rate_limited,
                300..=399 => codes.redirected,
                500..=599 => codes.server_error,
                _ => codes.refused,
            },
        }
    }

    fn class(&self) -> Class {
        match &self.kind {
            HttpFaultKind::Unsendable(_)
            | HttpFaultKind::AddressRefused(_)
            | HttpFaultKind::TooLarge(_) => Class::Permanent,
            HttpFaultKind::Unreachable(_)
            | HttpFaultKind::Expired
            | HttpFaultKind::TimedOut
            | HttpFaultKind::Lost(_)
            | HttpFaultKind::Malformed(_) => Class::Transient { retry_after: None },
            HttpFaultKind::Status {
                status,
                retry_after,
                ..
            } => match status {
                429 => Class::RateLimited {
                    retry_after: *retry_after,
                },
                408 | 425 | 500..=599 => Class::Transient {
                    retry_after: *retry_after,
                },
                _ => Class::Permanent,
            },
        }
    }

    fn hint(&self) -> String {
        let name = self.provider.name;
        match &self.kind {
            HttpFaultKind::Unsendable(why) => {
                format!("Correct the address or the settings of {name}: {why}.")
            }
            HttpFaultKind::AddressRefused(why) => {
                format!("Register another address for {name}: {why}.")
            }
            HttpFaultKind::Unreachable(_) => {
                format!("Check that this machine can reach {name} (name, route, certificate).")
            }
            HttpFaultKind::Expired | HttpFaultKind::TimedOut | HttpFaultKind::Lost(_) => {
                format!("{name} or the network is slow; the job is retried automatically.")
            }
            HttpFaultKind::TooLarge(limit) => {
                format!("{name} sent more than the limit of {limit} bytes; request less.")
            }
            HttpFaultKind::Malformed(_) => {
                format!("Check that the address belongs to {name}, and not to a proxy.")
            }
            HttpFaultKind::Status { status, .. } => match status {
                401 => format!("{name} does not accept the credentials: renew them."),
                403 => format!("The credentials for {name} lack a permission: grant it."),
                404 | 410 => format!(
                    "The requested resource does not exist at {name}: check the ids and addresses."
                ),
                300..=399 => format!(
                    "{name} redirects, and redirects are not followed: register the final address."
                ),
                408 | 425 | 429 | 500..=599 => {
                    format!("{name} is busy or unavailable; the job is retried automatically.")
                }
                _ => format!("{name} refuses the request; its answer states the reason."),
            },
        }
    }

    fn certainty(&self) -> Certainty {
        match &self.kind {
            HttpFaultKind::Unsendable(_)
            | HttpFaultKind::AddressRefused(_)
            | HttpFaultKind::Unreachable(_)
            | HttpFaultKind::Expired => Certainty::NotDone,
            HttpFaultKind::Status {
                status: 400..=499, ..
            } => Certainty::NotDone,
            HttpFaultKind::TimedOut
            | HttpFaultKind::Lost(_)
            | HttpFaultKind::TooLarge(_)
            | HttpFaultKind::Malformed(_)
            | HttpFaultKind::Status { .. } => Certainty::Unknown,
        }
    }

    fn limits_all(&self) -> bool {
        matches!(self.kind, HttpFaultKind::Status { with_all: true, .. })
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Returns the time stated by `Retry-After`, as seconds or as an HTTP-date in any of its three
/// forms (RFC 9110 §10.2.3, §5.6.7). Returns `None` for a value that cannot be parsed, for zero
/// and for a date in the past: caches in front of an unavailable server send such values with
/// every answer, and a job that followed them would use all its attempts within seconds.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .ok()?,
    };
    nonzero_wait(asked)
}

/// Returns the time to wait, or `None` if it is zero.
pub(super) fn nonzero_wait(asked: Duration) -> Option<Duration> {
    (!asked.is_zero()).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    static TEST: Provider = provider!("test");

    fn of_status(status: u16) -> HttpFault {
        let patience = Patience {
            retry_after: Some(Duration::from_secs(3)),
            with_all: false,
        };
        HttpFault {
            provider: &TEST,
            kind: HttpFaultKind::of_status(status, patience, b"no"),
        }
    }

    #[test]
    fn only_listed_statuses_are_transient_and_only_4xx_proves_that_nothing_was_done() {
        let retry_after = Some(Duration::from_secs(3));
        let patient = Class::Transient { retry_after };
        for (status, code, class, certainty) in [
            (302, "test.redirected", Class::Permanent, Certainty::Unknown),
            (400, "test.refused", Class::Permanent, Certainty::NotDone),
            (
                401,
                "test.unauthorized",
                Class::Permanent,
                Certainty::NotDone,
            ),
            (403, "test.forbidden", Class::Permanent, Certainty::NotDone),
            (404, "test.not_found", Class::Permanent, Certainty::NotDone),
            (408, "test.try_later", patient.clone(), Certainty::NotDone),
            (425, "test.try_later", patient.clone(), Certainty::NotDone),
            (
                429,
                "test.rate_limited",
                Class::RateLimited { retry_after },
                Certainty::NotDone,
            ),
            (
                500,
                "test.server_error",
                patient.clone(),
                Certainty::Unknown,
            ),
            (
                599,
                "test.server_error",
                patient.clone(),
                Certainty::Unknown,
            ),
        ] {
            let fault = of_status(status);
            assert_eq!(
                (fault.code(), fault.class(), fault.certainty()),
                (code, class, certainty),
                "{status}"
            );
        }
    }

    #[test]
    fn retry_after_is_parsed_as_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        for (text, expected) in [
            ("17", Some(17)),
            (" 0 ", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(77)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(77)),
            ("Sun Nov  6 08:49:37 1994", Some(77)),
            ("Sun, 06 Nov 1994 08:48:20 GMT", None),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(
                retry_after(&headers, now),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn an_error_body_is_scrubbed_and_truncated() {
        let body = format!("Bearer s3cr3t {}", "x ".repeat(5000));
        let fault = HttpFaultKind::of_status(400, Patience::default(), body.as_bytes()).to_string();
        assert!(!fault.contains("s3cr3t") && fault.len() < 2100, "{fault}");
    }
}
