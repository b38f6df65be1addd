//! Reads destinations for messages.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::{Destination, TrackerFault, query, query_opt};
use crate::secrets::{Keyring, Place};

/// The sealed columns.
pub(super) const SECRET: &str = "secret";
pub(super) const PREVIOUS_SECRET: &str = "previous_secret";

/// Returns the place of a destination's sealed column.
pub(super) const fn place<'a>(column: &'a str, id: &'a str) -> Place<'a> {
    Place {
        table: "destinations",
        column,
        row: id,
    }
}

/// Returns an organization's default destinations, sorted by name.
pub(super) async fn default_destinations(
    client: &impl GenericClient,
    keyring: &Keyring,
    organization_id: i64,
) -> Result<Vec<Destination>, TrackerFault> {
    const SQL: &str = "
        SELECT d.id, o.slug AS organization, d.name, d.kind, d.config, d.secret, d.unknown_policy, d.disabled,
               CASE WHEN d.previous_secret_until > now() THEN d.previous_secret END AS previous_secret
        FROM destinations d JOIN organizations o ON o.id = d.organization_id
        WHERE d.organization_id = $1 AND d.is_default
        ORDER BY d.name";
    let rows = query(client, SQL, &[&organization_id]).await?;
    rows.iter()
        .map(|row| destination_of(row, keyring))
        .collect()
}

/// Returns an organization's destinations with these names, in the order of the names;
/// unregistered names are omitted.
pub(super) async fn destinations_by_name(
    client: &impl GenericClient,
    keyring: &Keyring,
    organization_id: i64,
    names: &[String],
) -> Result<Vec<Destination>, TrackerFault> {
    const SQL: &str = "
        SELECT d.id, o.slug AS organization, d.name, d.kind, d.config, d.secret, d.unknown_policy, d.disabled,
               CASE WHEN d.previous_secret_until > now() THEN d.previous_secret END AS previous_secret
        FROM unnest($2::text[]) WITH ORDINALITY AS wanted (name, n)
        JOIN destinations d ON d.organization_id = $1 AND d.name = wanted.name
        JOIN organizations o ON o.id = d.organization_id
        ORDER BY wanted.n";
    let rows = query(client, SQL, &[&organization_id, &names]).await?;
    rows.iter()
        .map(|row| destination_of(row, keyring))
        .collect()
}

pub(super) async fn destination(
    client: &impl GenericClient,
    keyring: &Keyring,
    id: i64,
) -> Result<Option<Destination>, TrackerFault> {
    const SQL: &str = "
        SELECT d.id, o.slug AS organization, d.name, d.kind, d.config, d.secret, d.unknown_policy, d.disabled,
               CASE WHEN d.previous_secret_until > now() THEN d.previous_secret END AS previous_secret
        FROM destinations d JOIN organizations o ON o.id = d.organization_id
        WHERE d.id = $1";
    query_opt(client, SQL, &[&id])
        .await?
        .map(|row| destination_of(&row, keyring))
        .transpose()
}

fn destination_of(row: &Row, keyring: &Keyring) -> Result<Destination, TrackerFault> {
    let id: i64 = row.try_get("id")?;
    let row_id = id.to_string();
    let open = |column| -> Result<_, TrackerFault> {
        let sealed: Option<&str> = row.try_get(column)?;
        Ok(sealed
            .map(|sealed| keyring.open_text(place(column, &row_id), sealed))
            .transpose()?)
    };
    Ok(Destination {
        id,
        organization: row.try_get("organization")?,
        name: row.try_get("name")?,
        kind: row.try_get("kind")?,
        config: row.try_get("config")?,
        secret: open(SECRET)?,
        previous_secret: open(PREVIOUS_SECRET)?,
        unknown_policy: row.try_get("unknown_policy")?,
        disabled: row.try_get("disabled")?,
    })
}
