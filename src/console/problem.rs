//! Errors of the console, as problem details for programs (RFC 9457) and as pages for people.

use std::ops::{Deref, DerefMut};

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::fault::{Fault as _, chain};
use crate::operations::OperationError;
use crate::store::StoreError;

/// A problem. It is boxed, because nearly every function may return one.
#[derive(Debug, Clone)]
pub(super) struct Problem(Box<Body>);

/// The body of the answer, with the media type `application/problem+json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Body {
    /// The status code.
    pub(super) status: u16,
    /// The stable code of the problem.
    pub(super) code: &'static str,
    /// A summary for people, the same for each problem of this code.
    pub(super) title: &'static str,
    /// What was expected and what came.
    pub(super) detail: String,
    /// What to do.
    pub(super) hint: String,
    /// The id of the request, as in the log and in the audit log.
    #[schemars(with = "Option<String>")]
    pub(super) request_id: Option<uuid::Uuid>,
    /// What the resource has become, for `moved_on`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) now: Option<Value>,
    /// After how many seconds to try again.
    #[serde(skip)]
    pub(super) retry_after: Option<u64>,
}

/// Declares functions that make a problem from its detail.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $title:literal, $hint:literal;)+) => {
        impl Problem {
            $($(#[$doc])*
            pub(super) fn $name(detail: impl Into<String>) -> Self {
                Self(Box::new(Body {
                    status: StatusCode::$status.as_u16(),
                    code: stringify!($name),
                    title: $title,
                    detail: detail.into(),
                    hint: $hint.to_owned(),
                    request_id: None,
                    now: None,
                    retry_after: None,
                }))
            })+
        }
    };
}

problems! {
    invalid_filter = BAD_REQUEST, "The query is not valid", "Correct the query.";
    invalid_request = BAD_REQUEST, "The request is not valid", "Correct the request.";
    unauthorized = UNAUTHORIZED, "A token is required", "Send a valid token: `Authorization: Bearer …`; `dispatch tokens create` makes one.";
    forbidden = FORBIDDEN, "The role does not permit this", "Use a token of a role that permits it.";
    not_found = NOT_FOUND, "There is no such thing", "Check the address.";
    method_not_allowed = METHOD_NOT_ALLOWED, "The method is not allowed here", "Use a method of the OpenAPI document.";
    not_possible = CONFLICT, "This is not possible now", "Read the detail; it says what to do instead.";
    moved_on = PRECONDITION_FAILED, "The job has moved on", "Look at it again, then decide.";
    too_large = PAYLOAD_TOO_LARGE, "The body is too large", "Send at most 256 KiB.";
    wrong_host = MISDIRECTED_REQUEST, "The host is not this server's", "Use the server's address, or add the name to DISPATCH_CONSOLE_HOSTS.";
    unsupported = UNSUPPORTED_MEDIA_TYPE, "The media type is not supported", "Send application/json.";
    invalid_input = UNPROCESSABLE_ENTITY, "The input is not valid", "Correct the input.";
    key_reused = UNPROCESSABLE_ENTITY, "The Idempotency-Key was used for another request", "Use a new key for a new request.";
    too_many = TOO_MANY_REQUESTS, "Too many requests", "Wait as long as Retry-After says.";
    internal = INTERNAL_SERVER_ERROR, "The console failed", "Look into its log for the request id.";
    provider = BAD_GATEWAY, "A provider failed", "Read the detail.";
    postgres_away = SERVICE_UNAVAILABLE, "Postgres is not available", "Try again; the job rows are safe in Postgres.";
    other_schema = SERVICE_UNAVAILABLE, "The database has another schema", "Deploy the console that belongs to the schema.";
    too_busy = SERVICE_UNAVAILABLE, "The console is busy", "Wait as long as Retry-After says.";
    too_slow = SERVICE_UNAVAILABLE, "The answer took longer than 2 s", "Narrow the query.";
}

impl Deref for Problem {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Body {
        &mut self.0
    }
}

impl Problem {
    /// Sets after how many seconds to try again.
    #[must_use]
    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Replaces the hint.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Returns the status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_too_slow() {
            return Self::too_slow("Postgres ended the statement after its time limit").after(5);
        }
        if error.is_infrastructure() {
            return Self::postgres_away(chain(&error)).after(5);
        }
        if error.is_of_text() {
            return Self::invalid_input("expected text without the character NUL, got one with it");
        }
        if matches!(error, StoreError::NotPermitted { .. }) {
            return Self::forbidden(error.to_string());
        }
        tracing::error!(error = chain(&error), "a request to Postgres failed");
        Self::internal(error.to_string()).hint(error.hint())
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        if error.is_of_input() {
            return Self::invalid_input(error.to_string());
        }
        if error.is_infrastructure() {
            return Self::postgres_away(chain(&error)).after(5);
        }
        match error {
            OperationError::Unknown(text) => Self::not_found(text),
            OperationError::NotPossible(text) => Self::not_possible(text),
            OperationError::Invalid(text) => Self::invalid_input(text),
            OperationError::Provider(_) => Self::provider(error.to_string()),
            OperationError::Store(error) => error.into(),
            OperationError::Tracker(_) | OperationError::Erasure(_) | OperationError::Encode(_) => {
                tracing::error!(error = chain(&error), "an operation failed");
                Self::internal(error.to_string())
            }
        }
    }
}
