//! Identities and their tokens, which are sealed at rest.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use secrecy::ExposeSecret;
use tokio_postgres::Row;

use super::{AccessToken, Identity, NewTokens, RefreshTurn, TrackerFault, execute, query_opt};
use crate::secrets::{Keyring, Place};

/// The sealed columns.
pub(super) const ACCESS_TOKEN: &str = "access_token";
pub(super) const REFRESH_TOKEN: &str = "refresh_token";

/// Where an identity's sealed column lives.
pub(super) const fn place<'a>(column: &'a str, id: &'a str) -> Place<'a> {
    Place { table: "identities", column, row: id }
}

/// The identity of an organization with this name.
pub(super) async fn identity_by_name(
    client: &impl GenericClient,
    organization_id: i64,
    name: &str,
) -> Result<Option<Identity>, TrackerFault> {
    const SQL: &str = "
        SELECT id, name, token_expires_at, version
        FROM identities
        WHERE organization_id = $1 AND name = $2";
    query_opt(client, SQL, &[&organization_id, &name]).await?.as_ref().map(identity_of).transpose()
}

/// An identity.
pub(super) async fn identity(client: &impl GenericClient, identity_id: i64) -> Result<Option<Identity>, TrackerFault> {
    const SQL: &str = "SELECT id, name, token_expires_at, version FROM identities WHERE id = $1";
    query_opt(client, SQL, &[&identity_id]).await?.as_ref().map(identity_of).transpose()
}

/// An identity's access token, opened.
pub(super) async fn access_token(
    client: &impl GenericClient,
    keyring: &Keyring,
    identity_id: i64,
) -> Result<Option<AccessToken>, TrackerFault> {
    const SQL: &str = "SELECT access_token, token_expires_at, version FROM identities WHERE id = $1";
    let Some(row) = query_opt(client, SQL, &[&identity_id]).await? else { return Ok(None) };
    Ok(Some(AccessToken {
        identity_id,
        token: keyring.open_text(place(ACCESS_TOKEN, &identity_id.to_string()), row.try_get("access_token")?)?,
        expires_at: row.try_get("token_expires_at")?,
        version: row.try_get("version")?,
    }))
}

/// Asks to be the one who refreshes the tokens of this `version`, for at most `longest`. The turn is a time on the row, so
/// that no transaction is open while Microsoft Entra is asked; it ends with [`save_tokens`], or by itself.
pub(super) async fn take_refresh_turn(
    client: &impl GenericClient,
    keyring: &Keyring,
    identity_id: i64,
    version: i64,
    longest: Duration,
) -> Result<RefreshTurn, TrackerFault> {
    const SQL: &str = "
        UPDATE identities
        SET refreshing_until = now() + make_interval(secs => $3)
        WHERE id = $1 AND version = $2 AND (refreshing_until IS NULL OR refreshing_until <= now())
        RETURNING refresh_token";
    let Some(row) = query_opt(client, SQL, &[&identity_id, &version, &longest.as_secs_f64()]).await? else {
        return Ok(RefreshTurn::Taken);
    };
    let sealed: Option<&str> = row.try_get("refresh_token")?;
    let Some(sealed) = sealed else { return Ok(RefreshTurn::Impossible) };
    Ok(RefreshTurn::Yours(keyring.open_text(place(REFRESH_TOKEN, &identity_id.to_string()), sealed)?))
}

/// Saves refreshed tokens in place of those of `version`, and ends the turn. `false`: the tokens have changed since, and
/// nothing was saved.
pub(super) async fn save_tokens(
    client: &impl GenericClient,
    keyring: &Keyring,
    identity_id: i64,
    version: i64,
    tokens: &NewTokens,
) -> Result<bool, TrackerFault> {
    const SQL: &str = "
        UPDATE identities
        SET access_token = $3, refresh_token = coalesce($4, refresh_token), token_expires_at = $5, version = version + 1,
            refreshing_until = NULL
        WHERE id = $1 AND version = $2";
    let id = identity_id.to_string();
    let access = keyring.seal(place(ACCESS_TOKEN, &id), tokens.access_token.expose_secret().as_bytes());
    let seal_refresh = |token: &secrecy::SecretString| keyring.seal(place(REFRESH_TOKEN, &id), token.expose_secret().as_bytes());
    let refresh = tokens.refresh_token.as_ref().map(seal_refresh);
    let saved = execute(client, SQL, &[&identity_id, &version, &access, &refresh, &tokens.expires_at]).await?;
    Ok(saved == 1)
}

fn identity_of(row: &Row) -> Result<Identity, TrackerFault> {
    Ok(Identity {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        token_expires_at: row.try_get("token_expires_at")?,
        version: row.try_get("version")?,
    })
}
