//! Identities and their tokens, which are sealed at rest.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::{AccessToken, Identity, TrackerFault, query_opt};
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
    const SQL: &str = "
        SELECT i.access_token, i.token_expires_at, i.version, o.slug
        FROM identities i
        JOIN organizations o ON o.id = i.organization_id
        WHERE i.id = $1";
    let Some(row) = query_opt(client, SQL, &[&identity_id]).await? else { return Ok(None) };
    Ok(Some(AccessToken {
        identity_id,
        organization: row.try_get("slug")?,
        token: keyring.open_text(place(ACCESS_TOKEN, &identity_id.to_string()), row.try_get("access_token")?)?,
        expires_at: row.try_get("token_expires_at")?,
        version: row.try_get("version")?,
    }))
}

fn identity_of(row: &Row) -> Result<Identity, TrackerFault> {
    Ok(Identity {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        token_expires_at: row.try_get("token_expires_at")?,
        version: row.try_get("version")?,
    })
}
