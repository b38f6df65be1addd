//! Creates a token of the console and its API. The token is returned once; only its SHA-256 is
//! stored, which is enough because 256 random bits cannot be guessed from it.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use secrecy::SecretString;
use serde_json::{Value, to_value};
use sha2::{Digest, Sha256};

use super::OperationError;
use crate::store::{
    self, Action, Actor, ApiToken, AuditedChange, NewApiToken, Role, Store, TOKENS,
};

/// Shows what a leaked text is, and lets scanners of secrets find it.
const PREFIX: &str = "dispatch_";
/// Names in the audit log for what has no token.
const RESERVED: [&str; 2] = ["proxy", "unknown"];
/// The longest validity.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// What a new token permits.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// The name of the person or program, 1 to 64 characters.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The source of a producer's jobs.
    pub source: Option<String>,
    /// The organizations that it may see; `None`: all.
    pub organizations: Option<Vec<String>>,
    /// How long it is valid, at most a year.
    pub valid: Duration,
}

/// Creates a token and returns its row and the token.
///
/// # Errors
/// [`OperationError::Invalid`] for settings that do not fit together;
/// [`OperationError::NotPossible`] if the name is in use; [`OperationError::Store`].
pub async fn create_token(
    store: &Store,
    actor: &Actor,
    settings: TokenSettings,
) -> Result<(ApiToken, SecretString), OperationError> {
    check(&settings)?;
    let secret = format!(
        "{PREFIX}{}",
        BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())
    );
    let new = NewApiToken {
        name: settings.name,
        role: settings.role,
        source: settings.source,
        organizations: settings.organizations,
        sha256: token_digest(&secret),
        seconds: settings.valid.as_secs_f64(),
    };
    let change = store.audited(actor, Action::CreateToken, async |tx| {
        let token = store::create_token(tx, &new, &actor.who)
            .await?
            .ok_or_else(|| {
                OperationError::NotPossible(format!(
                    "expected a name without a token that is not revoked, and fewer than {TOKENS} of them, got `{}`; revoke it first",
                    new.name
                ))
            })?;
        let after = to_value(&token)?;
        Ok::<_, OperationError>(AuditedChange {
            answer: token,
            audit: Some((Value::Null, after)),
            gone: None,
        })
    });
    Ok((change.await?.0, secret.into()))
}

/// Returns the SHA-256 of a token, which identifies it.
#[must_use]
pub fn token_digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn check(settings: &TokenSettings) -> Result<(), OperationError> {
    let invalid = |text: &str| Err(OperationError::Invalid(text.to_owned()));
    if settings.name.is_empty() || settings.name.chars().count() > 64 {
        return invalid(
            "expected a name of 1 to 64 characters; use the person's or program's name",
        );
    }
    if RESERVED.contains(&settings.name.as_str()) {
        return invalid(
            "expected another name than `proxy` and `unknown`, which the audit log uses; use the person's or program's name",
        );
    }
    if (settings.role == Role::Producer) != settings.source.is_some() {
        return invalid(
            "expected a source for the role `producer`, and for no other role; use --role producer --source SOURCE",
        );
    }
    let source = settings
        .source
        .as_ref()
        .map(|source| source.chars().count());
    if source.is_some_and(|length| length > 64) {
        return invalid("expected a source of at most 64 characters; use that of the producer");
    }
    if !Role::OF_TOKENS.contains(&settings.role) {
        return invalid("expected the role producer, viewer, operator or admin");
    }
    if settings.valid.is_zero() || settings.valid > LONGEST {
        return invalid("expected an end within 366 days; use a shorter time");
    }
    if settings
        .organizations
        .as_ref()
        .is_some_and(|list| !(1..=100).contains(&list.len()))
    {
        return invalid("expected 1 to 100 organizations, or none for all");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(role: Role, source: Option<&str>) -> TokenSettings {
        TokenSettings {
            name: "shop".to_owned(),
            role,
            source: source.map(str::to_owned),
            organizations: None,
            valid: Duration::from_hours(1),
        }
    }

    #[test]
    fn a_producer_has_a_source_and_nobody_else_has_one() {
        assert!(check(&settings(Role::Producer, Some("shop"))).is_ok());
        assert!(check(&settings(Role::Viewer, None)).is_ok());
        for wrong in [
            settings(Role::Producer, None),
            settings(Role::Admin, Some("shop")),
            settings(Role::Worker, None),
            settings(Role::Nobody, None),
            settings(Role::Producer, Some(&"x".repeat(65))),
            TokenSettings {
                valid: LONGEST + Duration::from_secs(1),
                ..settings(Role::Viewer, None)
            },
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }
}
