//! Answers to requests that are affected by a fault: another answer, or the real one with headers
//! added.

use std::time::Duration;

use axum::http::StatusCode;
use serde::de::IgnoredAny;
use serde_json::json;

use super::faults::{FaultKind, FaultRule, ScriptedAnswer};
use crate::providers::simulated::SimulatedAnswer;

impl FaultRule {
    /// Returns the delay before the request is carried out.
    pub(super) fn delay(&self) -> Duration {
        match self.fault {
            FaultKind::Slow => Duration::from_millis(self.millis.unwrap_or(1000)),
            FaultKind::Answer | FaultKind::Decorate => {
                Duration::from_millis(self.millis.unwrap_or(0))
            }
            FaultKind::Refuse
            | FaultKind::LoseAnswer
            | FaultKind::Hang
            | FaultKind::RateLimit
            | FaultKind::ServerError
            | FaultKind::Nonsense => Duration::ZERO,
        }
    }

    /// Returns the answer that is sent without carrying out the request. For faults without an
    /// answer, it is never sent.
    pub(super) fn answer(&self) -> SimulatedAnswer {
        let (status, message, retry_after) = match self.fault {
            FaultKind::Nonsense => {
                return SimulatedAnswer::text(
                    StatusCode::OK,
                    "text/html",
                    "<<<{\"value\": [nonsense",
                );
            }
            FaultKind::RateLimit => (
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests",
                Some(self.retry_after.unwrap_or(1)),
            ),
            FaultKind::Answer => {
                return self.scripted(SimulatedAnswer::text(StatusCode::OK, "text/plain", ""));
            }
            FaultKind::ServerError
            | FaultKind::Refuse
            | FaultKind::LoseAnswer
            | FaultKind::Hang
            | FaultKind::Slow
            | FaultKind::Decorate => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the service is unavailable",
                self.retry_after,
            ),
        };
        let answer = SimulatedAnswer::json(
            status,
            &json!({ "message": message, "retry_after": retry_after, "global": false, "code": 0 }),
        );
        match retry_after {
            Some(seconds) => answer.header("retry-after", seconds.to_string()),
            None => answer,
        }
    }

    /// Returns the answer to send for a request that was carried out.
    pub(super) fn dressed(&self, real: SimulatedAnswer) -> SimulatedAnswer {
        match self.fault {
            FaultKind::Answer => self.scripted(real),
            FaultKind::Decorate => {
                let add = |answer: SimulatedAnswer, (name, value): (&String, &String)| {
                    answer.header(name, value.clone())
                };
                self.headers.iter().fold(real, add)
            }
            FaultKind::Refuse
            | FaultKind::LoseAnswer
            | FaultKind::Hang
            | FaultKind::Slow
            | FaultKind::RateLimit
            | FaultKind::ServerError
            | FaultKind::Nonsense => real,
        }
    }

    /// Returns the scripted answer with the effect and facts of the real one.
    fn scripted(&self, real: SimulatedAnswer) -> SimulatedAnswer {
        let Some(scripted) = &self.answer else {
            return real;
        };
        let status =
            StatusCode::from_u16(scripted.status).expect("a rule was checked when it was posted");
        let mut answer = SimulatedAnswer::text(status, scripted.content_type(), &scripted.body);
        (answer.effect, answer.detail) = (real.effect, real.detail);
        if self.is_done() {
            answer.detail["replaced_status"] = json!(real.status.as_u16());
        }
        let others = scripted
            .headers
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        others.fold(answer, |answer, (name, value)| {
            answer.header(name, value.clone())
        })
    }

    /// Returns the reply line for mail, if given.
    pub(super) fn reply(&self) -> Option<&str> {
        self.answer.as_ref().map(|answer| answer.body.as_str())
    }
}

impl ScriptedAnswer {
    fn content_type(&self) -> String {
        let given = self
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let guessed = || {
            if serde_json::from_str::<IgnoredAny>(&self.body).is_ok() {
                "application/json; charset=utf-8"
            } else if self.body.starts_with('<') {
                "text/html; charset=utf-8"
            } else {
                "text/plain; charset=utf-8"
            }
        };
        given.map_or_else(|| guessed().to_owned(), |(_, value)| value.clone())
    }
}
