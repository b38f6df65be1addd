//! Microsoft Entra's token endpoint: the refresh grant
//! (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow#refresh-the-access-token>, RFC 6749 §6).
//!
//! Entra gives a new refresh token with every answer and leaves the old one good for its time
//! (<https://learn.microsoft.com/entra/identity-platform/refresh-tokens>). Its errors are told apart by the word in `error`;
//! the numbers in `error_codes` may change at any time, so they are only passed on to people
//! (<https://learn.microsoft.com/entra/identity-platform/reference-error-codes>).

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

static ENTRA: Provider = provider!("entra");
/// Azure DevOps, and a new refresh token.
const SCOPE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default offline_access";
/// The body read of an answer, in bytes: two tokens of some kilobytes each.
const BODY_BYTES: usize = 64 << 10;
/// The longest unknown word that is shown whole.
const WORD_CHARACTERS: usize = 100;
/// The longest life of an access token that is believed; the vendor's longest is a day.
const LONGEST_LIFE: u64 = 7 * 24 * 3600;

/// Where tokens are refreshed, and as which client.
#[derive(Debug, Clone)]
pub struct EntraSettings {
    /// The token endpoint.
    pub token_url: String,
    /// The registered application.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<SecretString>,
}

impl Default for EntraSettings {
    /// The vendor's own address for work and school accounts of any tenant; no client.
    fn default() -> Self {
        let token_url = "https://login.microsoftonline.com/organizations/oauth2/v2.0/token".to_owned();
        Self { token_url, client_id: None, client_secret: None }
    }
}

/// Settings that tokens cannot be refreshed with.
#[derive(Debug, thiserror::Error)]
#[error("{setting} is not usable: {why}")]
pub struct BadEntra {
    setting: &'static str,
    why: &'static str,
}

/// The way to the token endpoint.
#[derive(Debug)]
pub struct Entra {
    http: HttpClient,
    token_url: Url,
    client: Option<(String, SecretString)>,
}

/// Tokens as Microsoft Entra gives them.
#[derive(Debug)]
pub struct Tokens {
    /// The new access token.
    pub access_token: SecretString,
    /// The new refresh token; without one the old one stays (RFC 6749 §6).
    pub refresh_token: Option<SecretString>,
    /// How long the access token lives.
    pub expires_in: Duration,
}

/// A refresh did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum EntraFault {
    /// The refresh token is not (or no longer) accepted, or Microsoft Entra wants to see the person.
    #[error("entra: the refresh token is refused: {0}")]
    Refused(String),
    /// The client is not accepted, or not for this.
    #[error("entra: the client is refused: {text}")]
    Client {
        /// The word in `error`.
        error: String,
        /// What Microsoft Entra says of it, scrubbed.
        text: String,
    },
    /// Microsoft Entra asks for patience, in the words of OAuth.
    #[error("entra: not now: {0}")]
    Later(String),
    /// A word in `error` that is not known here.
    #[error("entra: {text}")]
    Unrecognized {
        /// The word, scrubbed.
        error: String,
        /// What Microsoft Entra says of it, scrubbed.
        text: String,
    },
    /// No client is set.
    #[error("entra: no client is set")]
    NoClient,
    /// What can happen to any call.
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
            Self::Later(_) => "Microsoft Entra asks for patience; it is tried again by itself.".to_owned(),
            Self::Unrecognized { error, .. } => {
                format!("Look `{error}` up among the errors of Microsoft Entra's token endpoint; then retry.")
            }
            Self::NoClient => "Set DISPATCH_ENTRA_CLIENT_ID and DISPATCH_ENTRA_CLIENT_SECRET.".to_owned(),
            Self::Http(fault) => fault.hint(),
        }
    }

    fn certainty(&self) -> Certainty {
        match self {
            Self::Refused(_) | Self::Client { .. } | Self::Later(_) | Self::Unrecognized { .. } | Self::NoClient => {
                Certainty::NotDone
            }
            Self::Http(fault) => fault.certainty(),
        }
    }
}

/// Which setting a word in `error` speaks of.
fn client_hint(error: &str) -> &'static str {
    match error {
        "invalid_client" => "Correct DISPATCH_ENTRA_CLIENT_SECRET: it is not the client's, or it has ended; then retry.",
        "unauthorized_client" => {
            "Correct DISPATCH_ENTRA_CLIENT_ID, or the tenant in DISPATCH_ENTRA_TOKEN_URL: the client is not known there, or may not \
             refresh tokens; then retry."
        }
        "invalid_scope" | "invalid_resource" => {
            "Give the client the permission for Azure DevOps in its registration; then retry."
        }
        _ => "Look whether DISPATCH_ENTRA_TOKEN_URL is the token endpoint of Microsoft Entra, version 2.0; then retry.",
    }
}

#[derive(Deserialize)]
struct Body {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    /// Seconds, as a number; older endpoints send them as text.
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
    /// A way to the token endpoint.
    ///
    /// # Errors
    /// [`BadEntra`] where the address cannot be called, or only half of a client is set.
    pub fn new(http: HttpClient, settings: &EntraSettings) -> Result<Self, BadEntra> {
        let bad = |setting, why| BadEntra { setting, why };
        let token_url = http.parse_url(&settings.token_url).map_err(|why| bad("DISPATCH_ENTRA_TOKEN_URL", why))?;
        let client = match (&settings.client_id, &settings.client_secret) {
            (Some(id), Some(secret)) => Some((id.clone(), secret.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(bad("DISPATCH_ENTRA_CLIENT_SECRET", "it is not set, and the client's id is")),
            (None, Some(_)) => return Err(bad("DISPATCH_ENTRA_CLIENT_ID", "it is not set, and the client's secret is")),
        };
        Ok(Self { http, token_url, client })
    }

    /// Whether there is a client to refresh as.
    #[must_use]
    pub const fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// The token endpoint, as an organization calls it.
    #[must_use]
    pub fn scope(&self, organization: &str) -> Scope {
        Scope::host(organization, ENTRA.name, self.token_url.host_str().unwrap_or_default())
    }

    /// `POST` of the refresh grant. Nothing is sent once `deadline` has passed.
    ///
    /// # Errors
    /// [`EntraFault`], never with a token.
    pub async fn refresh(&self, refresh_token: &SecretString, deadline: Instant) -> Result<Tokens, EntraFault> {
        let (id, secret) = self.client.as_ref().ok_or(EntraFault::NoClient)?;
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", id),
            ("client_secret", secret.expose_secret()),
            ("refresh_token", refresh_token.expose_secret()),
            ("scope", SCOPE),
        ];
        let call = HttpRequest::new(&ENTRA, Method::POST, self.token_url.clone(), deadline);
        let call = call.body("application/x-www-form-urlencoded", encoded(&self.token_url, &form)).body_limit(BODY_BYTES);
        let mut answer = self.http.send(call).await?;
        if (200..300).contains(&answer.status) {
            return tokens(&answer);
        }
        forget(&mut answer.body, &[secret, refresh_token]);
        Err(refusal(answer))
    }
}

/// The form as the URL standard writes one (`application/x-www-form-urlencoded`), which is what a URL's query is.
fn encoded(url: &Url, form: &[(&str, &str)]) -> Vec<u8> {
    let mut url = url.clone();
    url.set_query(None);
    url.query_pairs_mut().extend_pairs(form);
    url.query().unwrap_or_default().as_bytes().to_vec()
}

/// The parser's own message could quote a token, so it is not passed on.
fn tokens(answer: &HttpResponse) -> Result<Tokens, EntraFault> {
    let body: Body = serde_json::from_slice(&answer.body)
        .map_err(|_| answer.malformed("right is a JSON object with access_token and expires_in"))?;
    let seconds = body.expires_in.as_u64().or_else(|| body.expires_in.as_str()?.parse().ok());
    let seconds = seconds.ok_or_else(|| answer.malformed("expires_in is not a number of seconds"))?;
    if body.access_token.trim().is_empty() {
        return Err(answer.malformed("access_token is empty").into());
    }
    Ok(Tokens {
        access_token: SecretString::from(body.access_token),
        refresh_token: body.refresh_token.filter(|token| !token.is_empty()).map(SecretString::from),
        expires_in: Duration::from_secs(seconds.min(LONGEST_LIFE)),
    })
}

/// Takes what was sent out of an answer that repeats it, however short it is.
fn forget(body: &mut Vec<u8>, secrets: &[&SecretString]) {
    let mut text = String::from_utf8_lossy(body).into_owned();
    for secret in secrets.iter().filter(|secret| !secret.expose_secret().is_empty()) {
        text = text.replace(secret.expose_secret(), "[scrubbed]");
    }
    *body = text.into_bytes();
}

/// What an answer other than 2xx means.
fn refusal(answer: HttpResponse) -> EntraFault {
    let told = match answer.status {
        400 | 401 | 403 => serde_json::from_slice::<ErrorBody>(&answer.body).ok(),
        _ => None,
    };
    let Some(told) = told else {
        return match answer.success() {
            Err(fault) => fault.into(),
            Ok(answer) => answer.malformed("an error was expected").into(),
        };
    };
    let text = told.text();
    match told.error.as_str() {
        "invalid_grant" | "interaction_required" | "consent_required" | "login_required" | "bad_token" => {
            EntraFault::Refused(text)
        }
        "temporarily_unavailable" | "server_error" => EntraFault::Later(text),
        "invalid_client"
        | "unauthorized_client"
        | "invalid_scope"
        | "invalid_resource"
        | "invalid_request"
        | "unsupported_grant_type" => EntraFault::Client { error: told.error, text },
        word => EntraFault::Unrecognized { error: cut(&scrub(word), WORD_CHARACTERS), text },
    }
}

impl ErrorBody {
    /// `invalid_grant (AADSTS700082): The refresh token has expired due to inactivity.`, scrubbed. Below the first line there
    /// are only ids of the request.
    fn text(&self) -> String {
        let codes: Vec<String> = self.error_codes.iter().map(|code| format!("AADSTS{code}")).collect();
        let codes = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
        let first = self.error_description.lines().next().unwrap_or_default();
        let first = first.split_once(": ").filter(|(code, _)| code.starts_with("AADSTS")).map_or(first, |(_, rest)| rest);
        scrub(format!("{}{codes}: {first}", self.error).trim_end_matches([':', ' ']))
    }
}

#[cfg(test)]
mod tests;
