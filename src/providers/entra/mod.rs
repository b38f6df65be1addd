//! Microsoft Entra's token endpoint: the refresh grant
//! (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow#refresh-the-access-token>,
//! RFC 6749 §6).
//!
//! Entra returns a new refresh token with every answer, and the old one stays valid until its
//! expiry (<https://learn.microsoft.com/entra/identity-platform/refresh-tokens>). Its errors are
//! distinguished by `error`; the numbers in `error_codes` may change at any time, so they are only
//! shown to people (<https://learn.microsoft.com/entra/identity-platform/reference-error-codes>).

use std::time::Duration;

use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::governor::Scope;
use super::http::{HttpClient, HttpRequest, HttpResponse};
use super::http_fault::{HttpFault, Provider, provider};
use super::scrub::scrub;
use super::text::cut;
use crate::fault::{Certainty, Class, Fault};

pub(super) static ENTRA: Provider = provider!("entra", "Microsoft Entra", None);
/// The scope: Azure DevOps, and a new refresh token.
const SCOPE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default offline_access";
/// The limit for the body of an answer, in bytes: two tokens of some kilobytes each.
const BODY_BYTES: usize = 64 << 10;
/// The limit for an unknown error code in a hint.
const WORD_CHARACTERS: usize = 100;
/// The longest accepted lifetime of an access token, in seconds; the vendor's longest is a day.
const LONGEST_LIFE: u64 = 7 * 24 * 3600;

/// The token endpoint, and the client that refreshes tokens.
#[derive(Debug, Clone)]
pub struct EntraSettings {
    /// The token endpoint.
    pub token_url: String,
    /// The id of the registered application.
    pub client_id: Option<String>,
    /// The secret of the application.
    pub client_secret: Option<SecretString>,
}

impl Default for EntraSettings {
    /// Returns the vendor's address for work and school accounts of any tenant, without a client.
    fn default() -> Self {
        let token_url =
            "https://login.microsoftonline.com/organizations/oauth2/v2.0/token".to_owned();
        Self {
            token_url,
            client_id: None,
            client_secret: None,
        }
    }
}

/// An invalid setting of the token endpoint or the client.
#[derive(Debug, thiserror::Error)]
#[error("{setting} is invalid: {why}")]
pub struct BadEntra {
    setting: &'static str,
    why: &'static str,
}

/// The client of the token endpoint.
#[derive(Debug)]
pub struct Entra {
    http: HttpClient,
    token_url: Url,
    client: Option<(String, SecretString)>,
}

/// Tokens issued by Microsoft Entra.
#[derive(Debug)]
pub struct Tokens {
    /// The new access token.
    pub access_token: SecretString,
    /// The new refresh token; without one, the old one stays valid (RFC 6749 §6).
    pub refresh_token: Option<SecretString>,
    /// The lifetime of the access token.
    pub expires_in: Duration,
}

/// A failed refresh.
#[derive(Debug, thiserror::Error)]
pub enum EntraFault {
    /// The refresh token is not (or no longer) accepted, or Microsoft Entra requires an
    /// interactive sign-in.
    #[error("entra: the refresh token is refused: {0}")]
    Refused(String),
    /// The client is not accepted, or not permitted to refresh tokens.
    #[error("entra: the client is refused: {text}")]
    Client {
        /// The `error` of the answer.
        error: String,
        /// The explanation of Microsoft Entra, scrubbed.
        text: String,
    },
    /// Microsoft Entra is temporarily unavailable, according to the OAuth error.
    #[error("entra: temporarily unavailable: {0}")]
    Later(String),
    /// The `error` of the answer is unknown.
    #[error("entra: {text}")]
    Unrecognized {
        /// The `error` of the answer, scrubbed.
        error: String,
        /// The explanation of Microsoft Entra, scrubbed.
        text: String,
    },
    /// No client is set.
    #[error("entra: no client is set")]
    NoClient,
    /// A fault that any HTTP call can have.
    #[error(transparent)]
    Http(#[from] HttpFault),
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for EntraFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "entra.refresh_refused",
            Self::Client { .. } => "entra.client_refused",
            Self::Later(_) => ENTRA.codes.try_later,
            Self::Unrecognized { .. } => ENTRA.codes.unrecognized,
            Self::NoClient => "entra.no_client",
            Self::Http(fault) => fault.code(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Refused(_) | Self::Client { .. } | Self::NoClient => Class::Permanent,
            Self::Later(_) => Class::Transient { retry_after: None },
            Self::Unrecognized { .. } => Class::Unrecognized,
            Self::Http(fault) => fault.class(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Refused(_) => "Sign the identity in again.".to_owned(),
            Self::Client { error, .. } => client_hint(error).to_owned(),
            Self::Later(_) => {
                "Microsoft Entra is temporarily unavailable; the job is retried automatically."
                    .to_owned()
            }
            Self::Unrecognized { error, .. } => {
                format!(
                    "Look up `{error}` in the list of errors of Microsoft Entra's token endpoint; then retry."
                )
            }
            Self::NoClient => {
                "Set DISPATCH_ENTRA_CLIENT_ID and DISPATCH_ENTRA_CLIENT_SECRET.".to_owned()
            }
            Self::Http(fault) => fault.hint(),
        }
    }

    fn certainty(&self) -> Certainty {
        match self {
            Self::Refused(_)
            | Self::Client { .. }
            | Self::Later(_)
            | Self::Unrecognized { .. }
            | Self::NoClient => Certainty::NotDone,
            Self::Http(fault) => fault.certainty(),
        }
    }
}

/// Returns the hint for an `error` about the client, which names the setting to correct.
fn client_hint(error: &str) -> &'static str {
    match error {
        "invalid_client" => {
            "Correct DISPATCH_ENTRA_CLIENT_SECRET: it is not the client's, or it has expired; then retry."
        }
        "unauthorized_client" => {
            "Correct DISPATCH_ENTRA_CLIENT_ID, or the tenant in DISPATCH_ENTRA_TOKEN_URL: the client is unknown there, or may \
             not refresh tokens; then retry."
        }
        "invalid_scope" | "invalid_resource" => {
            "Give the client the permission for Azure DevOps in its registration; then retry."
        }
        _ => {
            "Check that DISPATCH_ENTRA_TOKEN_URL is the token endpoint of Microsoft Entra, version 2.0; then retry."
        }
    }
}

#[derive(Deserialize)]
struct Body {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    /// The lifetime in seconds, as a number; older endpoints send text.
    expires_in: Value,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u64>,
}

impl Entra {
    /// Creates a client of the token endpoint.
    ///
    /// # Errors
    /// [`BadEntra`] if the address may not be called, or only one of the client's id and secret is
    /// set.
    pub fn new(http: HttpClient, settings: &EntraSettings) -> Result<Self, BadEntra> {
        let bad = |setting, why| BadEntra { setting, why };
        let token_url = http
            .parse_url(&settings.token_url)
            .map_err(|why| bad("DISPATCH_ENTRA_TOKEN_URL", why))?;
        let client = match (&settings.client_id, &settings.client_secret) {
            (Some(id), Some(secret)) => Some((id.clone(), secret.clone())),
            (None, None) => None,
            (Some(_), None) => {
                return Err(bad(
                    "DISPATCH_ENTRA_CLIENT_SECRET",
                    "it is not set, but the client's id is",
                ));
            }
            (None, Some(_)) => {
                return Err(bad(
                    "DISPATCH_ENTRA_CLIENT_ID",
                    "it is not set, but the client's secret is",
                ));
            }
        };
        Ok(Self {
            http,
            token_url,
            client,
        })
    }

    /// Returns whether a client is set.
    #[must_use]
    pub const fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// Returns the scope of calls of an organization to the token endpoint.
    #[must_use]
    pub fn scope(&self, organization: &str) -> Scope {
        Scope::host(
            organization,
            ENTRA.name,
            self.token_url.host_str().unwrap_or_default(),
        )
    }

    /// Sends the refresh grant. Nothing is sent once `deadline` has passed.
    ///
    /// # Errors
    /// [`EntraFault`], never with a token.
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
        deadline: Instant,
    ) -> Result<Tokens, EntraFault> {
        let (id, secret) = self.client.as_ref().ok_or(EntraFault::NoClient)?;
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", id),
            ("client_secret", secret.expose_secret()),
            ("refresh_token", refresh_token.expose_secret()),
            ("scope", SCOPE),
        ];
        let call = HttpRequest::new(&ENTRA, Method::POST, self.token_url.clone(), deadline);
        let call = call
            .body(
                "application/x-www-form-urlencoded",
                encoded(&self.token_url, &form),
            )
            .body_limit(BODY_BYTES);
        let mut answer = self.http.send(call).await?;
        if (200..300).contains(&answer.status) {
            return tokens(&answer);
        }
        forget(&mut answer.body, &[secret, refresh_token]);
        Err(refusal(answer))
    }
}

/// Encodes a form as `application/x-www-form-urlencoded`, which is the encoding of a URL's query.
fn encoded(url: &Url, form: &[(&str, &str)]) -> Vec<u8> {
    let mut url = url.clone();
    url.set_query(None);
    url.query_pairs_mut().extend_pairs(form);
    url.query().unwrap_or_default().as_bytes().to_vec()
}

/// Parses the tokens. The message of the parser could quote a token, so it is discarded.
fn tokens(answer: &HttpResponse) -> Result<Tokens, EntraFault> {
    let body: Body = serde_json::from_slice(&answer.body)
        .map_err(|_| answer.malformed("expected a JSON object with access_token and expires_in"))?;
    let seconds = body
        .expires_in
        .as_u64()
        .or_else(|| body.expires_in.as_str()?.parse().ok());
    let seconds =
        seconds.ok_or_else(|| answer.malformed("expires_in is not a number of seconds"))?;
    if body.access_token.trim().is_empty() {
        return Err(answer.malformed("access_token is empty").into());
    }
    Ok(Tokens {
        access_token: SecretString::from(body.access_token),
        refresh_token: body
            .refresh_token
            .filter(|token| !token.is_empty())
            .map(SecretString::from),
        expires_in: Duration::from_secs(seconds.min(LONGEST_LIFE)),
    })
}

/// Removes the sent secrets from an answer that repeats them, also short ones.
fn forget(body: &mut Vec<u8>, secrets: &[&SecretString]) {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for secret in secrets
        .iter()
        .filter(|secret| !secret.expose_secret().is_empty())
    {
        text = text.replace(secret.expose_secret(), "[scrubbed]");
    }
    *body = text.into_bytes();
}

/// Returns the fault of an answer other than 2xx.
fn refusal(answer: HttpResponse) -> EntraFault {
    let error_body = match answer.status {
        400 | 401 | 403 => serde_json::from_slice::<ErrorBody>(&answer.body).ok(),
        _ => None,
    };
    let Some(error_body) = error_body else {
        return match answer.success() {
            Err(fault) => fault.into(),
            Ok(answer) => answer.malformed("an error was expected").into(),
        };
    };
    let text = error_body.text();
    match error_body.error.as_str() {
        "invalid_grant"
        | "interaction_required"
        | "consent_required"
        | "login_required"
        | "bad_token" => EntraFault::Refused(text),
        "temporarily_unavailable" | "server_error" => EntraFault::Later(text),
        "invalid_client"
        | "unauthorized_client"
        | "invalid_scope"
        | "invalid_resource"
        | "invalid_request"
        | "unsupported_grant_type" => EntraFault::Client {
            error: error_body.error,
            text,
        },
        word => EntraFault::Unrecognized {
            error: cut(&scrub(word), WORD_CHARACTERS),
            text,
        },
    }
}

impl ErrorBody {
    /// Returns the explanation, scrubbed: `invalid_grant (AADSTS700082): The refresh token has
    /// expired due to inactivity.` The lines after the first one have only ids of the request.
    fn text(&self) -> String {
        let codes: Vec<String> = self
            .error_codes
            .iter()
            .map(|code| format!("AADSTS{code}"))
            .collect();
        let codes = if codes.is_empty() {
            String::new()
        } else {
            format!(" ({})", codes.join(", "))
        };
        let first = self.error_description.lines().next().unwrap_or_default();
        let first = first
            .split_once(": ")
            .filter(|(code, _)| code.starts_with("AADSTS"))
            .map_or(first, |(_, rest)| rest);
        scrub(format!("{}{codes}: {first}", self.error).trim_end_matches([':', ' ']))
    }
}

#[cfg(test)]
mod tests;
