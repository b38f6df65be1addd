//! Registration of destinations and their secrets.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::{Rotated, RowChange, seconds, unknown};
use crate::secrets::Keyring;
use crate::tracker::destinations::{PREVIOUS_SECRET, SECRET, place};
use crate::tracker::moved::{ONE_AT_A_TIME, Target, check_same_place};
use crate::tracker::{TrackerFault, execute, query, query_opt};

/// A destination without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DestinationRow {
    /// Row id.
    pub id: i64,
    /// The tenant's slug.
    pub organization: String,
    /// Unique in the organization.
    pub name: String,
    /// The channel's kind.
    pub kind: String,
    /// Public settings of the channel.
    pub config: Value,
    /// Whether jobs that name no destinations send here.
    pub default: bool,
    /// `resend` or `hold`.
    pub unknown_policy: String,
    /// Whether the destination is disabled; its messages wait.
    pub disabled: bool,
    pub has_secret: bool,
    /// When the previous secret expires.
    #[serde(with = "time::serde::rfc3339::option")]
    pub previous_secret_until: Option<OffsetDateTime>,
}

/// A destination to register. A field that is `None` keeps its value; in a new row it is null,
/// `false` or `resend`.
#[derive(Debug)]
pub struct NewDestination<'a> {
    /// The tenant.
    pub organization_id: i64,
    /// Unique in the organization.
    pub name: &'a str,
    /// The channel's kind.
    pub kind: &'a str,
    /// Public settings of the channel.
    pub config: &'a Value,
    /// The secret. A new one ends a rotation in progress.
    pub secret: Option<&'a SecretString>,
    /// Whether jobs that name no destinations send here.
    pub default: Option<bool>,
    /// `resend` or `hold`.
    pub unknown_policy: Option<&'a str>,
}

/// Makes a query for the columns of [`DestinationRow`].
macro_rules! rows {
    ($condition:literal) => {
        concat!(
            "SELECT d.id, g.slug, d.name, d.kind, d.config, d.is_default, d.unknown_policy, d.disabled,
                d.secret IS NOT NULL AS has_secret,
                CASE WHEN d.previous_secret_until > now() THEN d.previous_secret_until END AS previous_secret_until
            FROM destinations d JOIN organizations g ON g.id = d.organization_id ",
            $condition,
            " ORDER BY g.slug, d.name"
        )
    };
}

const ALL: &str = rows!("");
const OF_ORGANIZATION: &str = rows!("WHERE d.organization_id = $1");
const ONE: &str = rows!("WHERE d.organization_id = $1 AND d.name = $2");

/// Returns the destinations of one organization or of all, sorted by organization and name.
///
/// # Errors
/// [`TrackerFault::Database`].
pub async fn destination_rows(
    client: &impl GenericClient,
    organization_id: Option<i64>,
) -> Result<Vec<DestinationRow>, TrackerFault> {
    let rows = match organization_id {
        None => query(client, ALL, &[]).await?,
        Some(id) => query(client, OF_ORGANIZATION, &[&id]).await?,
    };
    rows.iter().map(row_of).collect()
}

/// Returns the row id of a destination.
///
/// # Errors
/// [`TrackerFault::UnknownReference`] lists the existing names; [`TrackerFault::Database`].
pub async fn destination_id(
    client: &impl GenericClient,
    organization_id: i64,
    name: &str,
) -> Result<i64, TrackerFault> {
    let rows = destination_rows(client, Some(organization_id)).await?;
    let found = rows.iter().find(|row| row.name == name).map(|row| row.id);
    found.ok_or_else(|| {
        unknown(
            "destination",
            name,
            rows.into_iter().map(|row| row.name).collect(),
        )
    })
}

/// Registers a destination, or changes the one with this name. The caller checks that the channel
/// accepts the settings.
///
/// # Errors
/// [`TrackerFault::Document`] if kind, host or channel change and a secret would stay;
/// [`TrackerFault::Database`].
pub async fn register_destination(
    client: &impl GenericClient,
    keyring: &Keyring,
    new: &NewDestination<'_>,
) -> Result<RowChange<DestinationRow>, TrackerFault> {
    const WRITE: &str = "
        INSERT INTO destinations AS d (organization_id, name, kind, config, is_default, unknown_policy)
        VALUES ($1, $2, $3, $4, coalesce($5, false), coalesce($6, 'resend'))
        ON CONFLICT (organization_id, name) DO UPDATE
        SET kind = EXCLUDED.kind, config = EXCLUDED.config, is_default = coalesce($5, d.is_default),
            unknown_policy = coalesce($6, d.unknown_policy)
        RETURNING id";
    const SECRET_SQL: &str = "
        UPDATE destinations SET secret = $2, previous_secret = NULL, previous_secret_until = NULL WHERE id = $1";
    let NewDestination {
        organization_id,
        name,
        kind,
        config,
        default,
        unknown_policy,
        ..
    } = new;
    query(client, ONE_AT_A_TIME, &[]).await?;
    let before = only(client, *organization_id, name).await?;
    if let (Some(before), None) = (
        before.as_ref().filter(|before| before.has_secret),
        new.secret,
    ) {
        check_secret_place(before, kind, config)?;
    }
    let written = query(
        client,
        WRITE,
        &[organization_id, name, kind, config, default, unknown_policy],
    )
    .await?;
    let id: i64 = written.first().ok_or_else(|| gone(name))?.try_get("id")?;
    if let Some(secret) = new.secret {
        let sealed = keyring.seal(
            place(SECRET, &id.to_string()),
            secret.expose_secret().as_bytes(),
        );
        execute(client, SECRET_SQL, &[&id, &sealed]).await?;
    }
    let after = only(client, *organization_id, name)
        .await?
        .ok_or_else(|| gone(name))?;
    Ok(RowChange { before, after })
}

/// Refuses a change without a secret that would send the stored secret to another place.
///
/// # Errors
/// [`TrackerFault::Document`] describes the change.
pub fn check_secret_place(
    before: &DestinationRow,
    kind: &str,
    config: &Value,
) -> Result<(), TrackerFault> {
    let (from, to) = (
        Target {
            kind: &before.kind,
            config: &before.config,
        },
        Target { kind, config },
    );
    check_same_place(&before.name, from, to, "--secret-file")
}

/// Disables or enables a destination.
///
/// # Errors
/// [`TrackerFault::UnknownReference`] if there is none with this name; [`TrackerFault::Database`].
pub async fn set_destination_disabled(
    client: &impl GenericClient,
    organization_id: i64,
    name: &str,
    disabled: bool,
) -> Result<RowChange<DestinationRow>, TrackerFault> {
    const SQL: &str = "UPDATE destinations SET disabled = $2 WHERE id = $1";
    let id = destination_id(client, organization_id, name).await?;
    let before = only(client, organization_id, name)
        .await?
        .ok_or_else(|| gone(name))?;
    execute(client, SQL, &[&id, &disabled]).await?;
    let after = DestinationRow {
        disabled,
        ..before.clone()
    };
    Ok(RowChange {
        before: Some(before),
        after,
    })
}

/// Replaces a destination's secret; the previous one stays valid for `keep`. If the secret is
/// already the present one, nothing changes.
///
/// # Errors
/// [`TrackerFault::Secret`] if the present secret cannot be opened,
/// [`TrackerFault::UnknownReference`] if the destination does not exist;
/// [`TrackerFault::Database`].
pub async fn rotate_destination_secret(
    client: &impl GenericClient,
    keyring: &Keyring,
    id: i64,
    secret: &SecretString,
    keep: Duration,
) -> Result<Rotated, TrackerFault> {
    const READ: &str = "
        SELECT secret, CASE WHEN previous_secret_until > now() THEN previous_secret_until END AS previous_secret_until
        FROM destinations WHERE id = $1 FOR UPDATE";
    const WRITE: &str = "
        UPDATE destinations
        SET secret = $2, previous_secret = $3,
            previous_secret_until = CASE WHEN $3::text IS NOT NULL THEN now() + make_interval(secs => $4) END
        WHERE id = $1
        RETURNING previous_secret_until";
    let row_id = id.to_string();
    let Some(row) = query_opt(client, READ, &[&id]).await? else {
        return Err(unknown("destination", &row_id, Vec::new()));
    };
    let present = row.try_get::<_, Option<&str>>("secret")?;
    let present = present
        .map(|sealed| keyring.open_text(place(SECRET, &row_id), sealed))
        .transpose()?;
    if present
        .as_ref()
        .is_some_and(|present| present.expose_secret() == secret.expose_secret())
    {
        return Ok(Rotated {
            previous_until: row.try_get("previous_secret_until")?,
            forgotten: 0,
        });
    }
    let previous = present.filter(|_| !keep.is_zero());
    let seal = |column, secret: &SecretString| {
        keyring.seal(place(column, &row_id), secret.expose_secret().as_bytes())
    };
    let (present, previous) = (
        seal(SECRET, secret),
        previous.map(|previous| seal(PREVIOUS_SECRET, &previous)),
    );
    let written = query(client, WRITE, &[&id, &present, &previous, &seconds(keep)]).await?;
    let previous_until = written
        .first()
        .map_or(Ok(None), |row| row.try_get("previous_secret_until"))?;
    Ok(Rotated {
        previous_until,
        forgotten: forget_previous_secrets(client, None).await?,
    })
}

/// Deletes previous secrets that expire by `now`, or, without it, by Postgres' clock.
pub(super) async fn forget_previous_secrets(
    client: &impl GenericClient,
    now: Option<OffsetDateTime>,
) -> Result<u64, TrackerFault> {
    const SQL: &str = "
        UPDATE destinations SET previous_secret = NULL, previous_secret_until = NULL
        WHERE previous_secret_until <= coalesce($1, now())";
    execute(client, SQL, &[&now]).await
}

async fn only(
    client: &impl GenericClient,
    organization_id: i64,
    name: &str,
) -> Result<Option<DestinationRow>, TrackerFault> {
    query(client, ONE, &[&organization_id, &name])
        .await?
        .first()
        .map(row_of)
        .transpose()
}

fn gone(name: &str) -> TrackerFault {
    TrackerFault::Document {
        at: format!("destination {name}"),
        problem: "it was removed meanwhile; register it again".to_owned(),
    }
}

fn row_of(row: &Row) -> Result<DestinationRow, TrackerFault> {
    Ok(DestinationRow {
        id: row.try_get("id")?,
        organization: row.try_get("slug")?,
        name: row.try_get("name")?,
        kind: row.try_get("kind")?,
        config: row.try_get("config")?,
        default: row.try_get("is_default")?,
        unknown_policy: row.try_get("unknown_policy")?,
        disabled: row.try_get("disabled")?,
        has_secret: row.try_get("has_secret")?,
        previous_secret_until: row.try_get("previous_secret_until")?,
    })
}
