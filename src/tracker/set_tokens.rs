//! Registers identities, and replaces their tokens after a person has signed in again. Each
//! function runs in a transaction of its caller, which writes the audit row in it.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use time::OffsetDateTime;

use super::identities::{ACCESS_TOKEN, REFRESH_TOKEN, seal};
use super::registry::{known_organization, unknown};
use super::{
    GivenTokens, IdentityRow, TokenEnd, TrackerFault, execute, in_microseconds, query, query_opt,
};
use crate::secrets::Keyring;

/// The maximum number of names that an error lists.
const OFFERED: i64 = 20;

/// Registers an identity of an organization.
///
/// # Errors
/// [`TrackerFault::UnknownReference`] if the organization does not exist,
/// [`TrackerFault::Document`] if the identity already exists, [`TrackerFault::Database`].
pub async fn register_identity(
    tx: &impl GenericClient,
    keyring: &Keyring,
    organization: &str,
    name: &str,
    tokens: &GivenTokens,
) -> Result<IdentityRow, TrackerFault> {
    const ID: &str = "SELECT nextval(pg_get_serial_sequence('identities', 'id')) AS id";
    const SQL: &str = "
        INSERT INTO identities (id, organization_id, name, access_token, refresh_token, token_expires_at)
        OVERRIDING SYSTEM VALUE
        VALUES ($1, $2, $3, $4, $5, coalesce($6, now() + make_interval(secs => $7)))
        ON CONFLICT (organization_id, name) DO NOTHING";
    let organization_id = known_organization(tx, organization).await?;
    let rows = query(tx, ID, &[]).await?;
    let id: i64 = rows.first().map_or(Ok(0), |row| row.try_get("id"))?;
    let Sealed {
        access,
        refresh,
        at,
        seconds,
    } = Sealed::of(keyring, id, tokens);
    if execute(
        tx,
        SQL,
        &[
            &id,
            &organization_id,
            &name,
            &access,
            &refresh,
            &at,
            &seconds,
        ],
    )
    .await?
        == 0
    {
        return Err(TrackerFault::Document {
            at: format!("identity {name} of organization {organization}"),
            problem: "it is registered already; use `dispatch identities set-tokens`".to_owned(),
        });
    }
    identity_of(tx, organization, name).await
}

/// Replaces all tokens of an identity. Returns the identity before and after the change.
///
/// # Errors
/// [`TrackerFault::UnknownReference`] if the identity does not exist, [`TrackerFault::Database`].
pub async fn set_tokens(
    tx: &impl GenericClient,
    keyring: &Keyring,
    organization: &str,
    name: &str,
    tokens: &GivenTokens,
) -> Result<(IdentityRow, IdentityRow), TrackerFault> {
    const SQL: &str = "
        UPDATE identities
        SET access_token = $2, refresh_token = $3, token_expires_at = coalesce($4, now() + make_interval(secs => $5)),
            version = version + 1, refreshing_until = NULL, refresh_refused_at = NULL, access_refused_at = NULL
        WHERE id = $1";
    let before = identity_of(tx, organization, name).await?;
    let Sealed {
        access,
        refresh,
        at,
        seconds,
    } = Sealed::of(keyring, before.id, tokens);
    execute(tx, SQL, &[&before.id, &access, &refresh, &at, &seconds]).await?;
    let after = identity_of(tx, organization, name).await?;
    Ok((before, after))
}

/// Tokens in the form in which the row stores them.
struct Sealed {
    access: String,
    refresh: Option<String>,
    at: Option<OffsetDateTime>,
    seconds: f64,
}

impl Sealed {
    /// Seals the tokens. A missing access token is stored as an expired empty one, which is
    /// refreshed before its first use.
    fn of(keyring: &Keyring, id: i64, tokens: &GivenTokens) -> Self {
        let (at, life) = match (&tokens.access_token, tokens.end) {
            (Some(_), TokenEnd::At(at)) => (Some(in_microseconds(at)), Duration::ZERO),
            (Some(_), TokenEnd::In(life)) => (None, life),
            (None, _) => (None, Duration::ZERO),
        };
        let access = seal(
            keyring,
            ACCESS_TOKEN,
            id,
            &tokens.access_token.clone().unwrap_or_default(),
        );
        let refresh = tokens
            .refresh_token
            .as_ref()
            .map(|token| seal(keyring, REFRESH_TOKEN, id, token));
        Self {
            access,
            refresh,
            at,
            seconds: life.as_secs_f64(),
        }
    }
}

/// Returns an identity of an organization; inside a transaction, locks it against changes.
async fn identity_of(
    client: &impl GenericClient,
    organization: &str,
    name: &str,
) -> Result<IdentityRow, TrackerFault> {
    const SQL: &str = "
        SELECT i.id, o.slug, i.name, i.token_expires_at, i.version, i.refresh_token IS NOT NULL AS has_refresh_token,
               i.refresh_refused_at
        FROM identities i
        JOIN organizations o ON o.id = i.organization_id
        WHERE i.organization_id = $1 AND i.name = $2
        FOR UPDATE OF i";
    const OFFER: &str =
        "SELECT name FROM identities WHERE organization_id = $1 ORDER BY name LIMIT $2";
    let organization_id = known_organization(client, organization).await?;
    if let Some(row) = query_opt(client, SQL, &[&organization_id, &name]).await? {
        return IdentityRow::of(&row);
    }
    let offered = query(client, OFFER, &[&organization_id, &OFFERED]).await?;
    Err(unknown(
        "identity",
        name,
        offered
            .iter()
            .map(|row| row.try_get("name"))
            .collect::<Result<_, _>>()?,
    ))
}
