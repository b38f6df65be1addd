//! Who asks: a token in a header, or a session in a cookie; and whether a form was made by this
//! console.

mod limits;
mod proxy;
mod sender;
mod session;
mod sign_in;

pub(super) use limits::{Rates, Refusals};
pub use proxy::SigningProxy;
pub(super) use proxy::credential;
pub(super) use sender::Sender;
pub(super) use session::Session;
pub(super) use sign_in::{SIGN_IN, post_sign_in, post_sign_out, show_sign_in};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE as COOKIE_HEADER};
use data_encoding::HEXLOWER;
use serde_json::json;

use super::in_force::Bar;
use super::problem::Problem;
use super::state::Console;
use crate::operations::{Audience, token_digest};
use crate::store::{Action, ApiToken, Role};

/// Bytes of the hash of a token that is not known: enough to see that two were the same.
const HASH_BYTES: usize = 4;

/// A person or program that was recognised.
#[derive(Debug, Clone)]
pub(super) struct SignedIn {
    /// Its token, valid when the request arrived.
    pub(super) token: ApiToken,
    /// The session, if it was recognised by a cookie.
    pub(super) session: Option<Session>,
    /// The bar of its pages.
    pub(super) bar: Bar,
}

impl SignedIn {
    /// Returns whether the token may see this organization.
    pub(super) fn sees(&self, organization: &str) -> bool {
        match &self.token.organizations {
            None => true,
            Some(seen) => seen.iter().any(|one| one == organization),
        }
    }

    /// Returns whether the token may see every organization and source.
    pub(super) fn sees_all(&self) -> bool {
        self.token.organizations.is_none() && self.token.role != Role::Producer
    }

    /// Returns whether a page offers an action: if the role permits it, and anything can be changed.
    pub(super) fn may(&self, action: Action) -> bool {
        !self.bar.is_read_only && self.token.role.may(action)
    }

    /// Returns for whom jobs are explained.
    pub(super) fn audience(&self) -> Audience {
        if self.sees_all() {
            Audience::Everything
        } else {
            Audience::Some
        }
    }

    /// Returns whether the token may see a job of this source and organization.
    pub(super) fn sees_job(&self, source: &str, organization: &str) -> bool {
        let own = self.token.source.as_deref();
        own.is_none_or(|own| own == source) && self.sees(organization)
    }
}

/// Recognises the sender of a request by its `Authorization` header; if there is none, by the proxy;
/// then by its cookie. `None` if it has nothing of these.
///
/// # Errors
/// `unauthorized` or `too_many` for a token or a session that is not valid; `postgres_away`.
pub(super) async fn recognise(
    console: &Console,
    headers: &HeaderMap,
    sender: &Sender,
) -> Result<Option<SignedIn>, Problem> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer).unwrap_or_default();
        let found = by_token(console, token, sender, Action::RefuseRequest);
        return found.await.map(Some);
    }
    if let Some(user) = &sender.user {
        let keyring = &console.parts.keyring;
        let (token, session) = (user.as_token(keyring), Some(user.session(keyring)));
        console.security_log.seen(sender, &token);
        let bar = Bar::default();
        return Ok(Some(SignedIn {
            token,
            session,
            bar,
        }));
    }
    let Some(session) = session_of(console, headers, sender) else {
        return Ok(None);
    };
    let token = console.parts.reads.token(session.token).await?;
    let token = token.filter(|token| token.is_valid);
    Ok(token.map(|token| SignedIn {
        token,
        session: Some(session),
        bar: Bar::default(),
    }))
}

/// Recognises a token. One that is not valid is noted in the audit log as `refused`, with the name
/// that it has, or with a keyed hash from which nobody can guess it.
///
/// # Errors
/// Same as [`recognise`].
async fn by_token(
    console: &Console,
    token: &str,
    sender: &Sender,
    refused: Action,
) -> Result<SignedIn, Problem> {
    let digest = token_digest(token);
    let found = console.parts.reads.token_by_secret(&digest).await?;
    let (log, keyring) = (&console.security_log, &console.parts.keyring);
    match found {
        Some(token) if token.is_valid => {
            return Ok(SignedIn {
                token,
                session: None,
                bar: Bar::default(),
            });
        }
        Some(over) => log.known(sender, &over, refused, json!({"token": "revoked or over"})),
        None => {
            let hash = HEXLOWER.encode(&keyring.keyed_hash(token)[..HASH_BYTES]);
            log.unknown(sender, refused, json!({"token": hash}));
        }
    }
    Err(console.refusals.refused("the token"))
}

/// Returns the token of `Bearer TOKEN` (RFC 6750, 2.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let is_token = !token.is_empty() && token.len() <= 128;
    (scheme.eq_ignore_ascii_case("bearer") && is_token).then_some(token)
}

/// Returns the session of a request: that of the proxy's user, or of its cookie, if it is valid.
pub(super) fn session_of(
    console: &Console,
    headers: &HeaderMap,
    sender: &Sender,
) -> Option<Session> {
    if let Some(user) = &sender.user {
        return Some(user.session(&console.parts.keyring));
    }
    let name = session::cookie_name(console.parts.is_behind_proxy);
    let cookies = headers.get_all(COOKIE_HEADER).iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split("; "))
        .filter_map(|pair| pair.split_once('='))
        .filter(|(found, _)| *found == name)
        .find_map(|(_, value)| Session::open(&console.parts.keyring, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_read() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer abc"), Some("abc"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic abc",
            &format!("Bearer {}", "a".repeat(129)),
        ] {
            assert_eq!(bearer(wrong), None, "{wrong}");
        }
    }
}
