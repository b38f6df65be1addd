//! Registration of Azure DevOps accounts for organizations, and of the secrets of their service
//! hooks.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::{Rotated, RowChange, seconds, unknown};
use crate::tracker::organizations::settings_of;
use crate::tracker::{SyncSettings, TrackerFault, execute, query, query_opt};

/// An account in use by an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstallationRow {
    /// The tenant's slug.
    pub organization: String,
    /// Row id of the account.
    pub integration_id: i64,
    /// The account's id (a GUID).
    pub account_id: String,
    /// The account's name in URLs.
    pub account_name: String,
    /// The identity that the worker acts as when a job names none.
    pub identity: Option<String>,
    /// The row id of the identity.
    pub identity_id: Option<i64>,
    /// Whether the account is disabled; its jobs wait.
    pub disabled: bool,
    /// The settings for synchronization.
    pub settings: SyncSettings,
    /// The number of secrets that its service hooks may use now.
    pub hook_secrets: i64,
}

/// An account to register for an organization. A field that is `None` keeps its value; in a new
/// row, settings are on and there is no identity.
#[derive(Debug, Clone)]
pub struct NewInstallation<'a> {
    /// The tenant.
    pub organization_id: i64,
    /// The account's id (a GUID).
    pub account_id: &'a str,
    /// The account's name in URLs.
    pub account_name: &'a str,
    /// An identity of the organization.
    pub identity: Option<&'a str>,
    /// See [`SyncSettings`].
    pub assignee_inbound: Option<bool>,
    /// See [`SyncSettings`].
    pub assignee_outbound: Option<bool>,
    /// See [`SyncSettings`].
    pub status_inbound: Option<bool>,
    /// Whether the account is disabled; its jobs wait.
    pub disabled: Option<bool>,
}

/// Makes a query for the columns of [`InstallationRow`].
macro_rules! rows {
    ($condition:literal) => {
        concat!(
            "SELECT g.slug, i.id AS integration_id, i.account_id, i.account_name, d.name AS identity, o.identity_id, o.disabled,
                o.assignee_inbound, o.assignee_outbound, o.status_inbound, (SELECT count(*) FROM subscriptions s
                    WHERE s.integration_id = i.id AND (s.valid_until IS NULL OR s.valid_until > now())) AS hook_secrets
            FROM organization_integrations o JOIN organizations g ON g.id = o.organization_id
                JOIN integrations i ON i.id = o.integration_id LEFT JOIN identities d ON d.id = o.identity_id ",
            $condition,
            " ORDER BY g.slug, i.account_name, i.id"
        )
    };
}

const ALL: &str = rows!("");
const OF_ORGANIZATION: &str = rows!("WHERE o.organization_id = $1");
const ONE: &str = rows!("WHERE o.organization_id = $1 AND lower(i.account_id) = lower($2)");

/// Returns the accounts in use of one organization or of all, sorted by organization and name.
///
/// # Errors
/// [`TrackerFault::Database`].
pub async fn installation_rows(
    client: &impl GenericClient,
    organization_id: Option<i64>,
) -> Result<Vec<InstallationRow>, TrackerFault> {
    let rows = match organization_id {
        None => query(client, ALL, &[]).await?,
        Some(id) => query(client, OF_ORGANIZATION, &[&id]).await?,
    };
    rows.iter().map(row_of).collect()
}

/// Registers an account for an organization, or changes the registration.
///
/// # Errors
/// [`TrackerFault::UnknownReference`] if the organization does not have the identity;
/// [`TrackerFault::Database`].
pub async fn register_installation(
    client: &impl GenericClient,
    new: &NewInstallation<'_>,
) -> Result<RowChange<InstallationRow>, TrackerFault> {
    const ACCOUNT: &str = "
        INSERT INTO integrations (account_id, account_name) VALUES ($1, $2)
        ON CONFLICT (lower(account_id)) DO UPDATE SET account_name = EXCLUDED.account_name
        RETURNING id";
    const INSTALL: &str = "
        INSERT INTO organization_integrations AS o (organization_id, integration_id, identity_id, disabled, assignee_inbound,
                                                    assignee_outbound, status_inbound)
        VALUES ($1, $2, $3, coalesce($4, false), coalesce($5, true), coalesce($6, true), coalesce($7, true))
        ON CONFLICT (organization_id, integration_id) DO UPDATE
        SET identity_id = coalesce($3, o.identity_id), disabled = coalesce($4, o.disabled),
            assignee_inbound = coalesce($5, o.assignee_inbound), assignee_outbound = coalesce($6, o.assignee_outbound),
            status_inbound = coalesce($7, o.status_inbound)";
    let organization_id = new.organization_id;
    let before = only(client, organization_id, new.account_id).await?;
    let identity = match new.identity {
        Some(name) => Some(identity(client, organization_id, name).await?),
        None => None,
    };
    let account = query(client, ACCOUNT, &[&new.account_id, &new.account_name]).await?;
    let integration_id: i64 = account
        .first()
        .ok_or_else(|| gone(new.account_id))?
        .try_get("id")?;
    let NewInstallation {
        disabled,
        assignee_inbound,
        assignee_outbound,
        status_inbound,
        ..
    } = new;
    execute(
        client,
        INSTALL,
        &[
            &organization_id,
            &integration_id,
            &identity,
            disabled,
            assignee_inbound,
            assignee_outbound,
            status_inbound,
        ],
    )
    .await?;
    let after = only(client, organization_id, new.account_id)
        .await?
        .ok_or_else(|| gone(new.account_id))?;
    Ok(RowChange { before, after })
}

/// Disables or enables an organization's account.
///
/// # Errors
/// [`TrackerFault::UnknownReference`] if the organization does not use it;
/// [`TrackerFault::Database`].
pub async fn set_installation_disabled(
    client: &impl GenericClient,
    organization_id: i64,
    account_id: &str,
    disabled: bool,
) -> Result<RowChange<InstallationRow>, TrackerFault> {
    const SQL: &str = "
        UPDATE organization_integrations o SET disabled = $3
        FROM integrations i
        WHERE i.id = o.integration_id AND o.organization_id = $1 AND lower(i.account_id) = lower($2)";
    let Some(before) = only(client, organization_id, account_id).await? else {
        let known = installation_rows(client, Some(organization_id)).await?;
        return Err(unknown(
            "account",
            account_id,
            known.into_iter().map(|row| row.account_id).collect(),
        ));
    };
    execute(client, SQL, &[&organization_id, &account_id, &disabled]).await?;
    let after = InstallationRow {
        disabled,
        ..before.clone()
    };
    Ok(RowChange {
        before: Some(before),
        after,
    })
}

/// Replaces the account's hook secret by one that is given as its SHA-256; previous secrets expire
/// after `keep` at the latest. Deletes expired secrets.
///
/// # Errors
/// [`TrackerFault::UnknownReference`] if the account does not exist; [`TrackerFault::Database`].
pub async fn rotate_hook_secret(
    client: &impl GenericClient,
    account_id: &str,
    sha256: &[u8; 32],
    keep: Duration,
) -> Result<Rotated, TrackerFault> {
    const ACCOUNT: &str =
        "SELECT id FROM integrations WHERE lower(account_id) = lower($1) FOR UPDATE";
    const KNOWN: &str = "SELECT account_id FROM integrations ORDER BY account_name LIMIT 10";
    const END: &str = "
        UPDATE subscriptions SET valid_until = least(valid_until, now() + make_interval(secs => $3))
        WHERE integration_id = $1 AND secret_sha256 <> $2";
    const PRESENT: &str = "
        INSERT INTO subscriptions (integration_id, secret_sha256) VALUES ($1, $2)
        ON CONFLICT (integration_id, secret_sha256) DO UPDATE SET valid_until = NULL";
    const PREVIOUS: &str =
        "SELECT max(valid_until) AS until FROM subscriptions WHERE integration_id = $1";
    let Some(row) = query_opt(client, ACCOUNT, &[&account_id]).await? else {
        let known = query(client, KNOWN, &[]).await?;
        let known = known
            .iter()
            .map(|row| row.try_get("account_id"))
            .collect::<Result<_, _>>()?;
        return Err(unknown("account", account_id, known));
    };
    let integration_id: i64 = row.try_get("id")?;
    let digest = sha256.as_slice();
    execute(client, END, &[&integration_id, &digest, &seconds(keep)]).await?;
    execute(client, PRESENT, &[&integration_id, &digest]).await?;
    let forgotten = forget_hook_secrets(client, None).await?;
    let previous = query(client, PREVIOUS, &[&integration_id]).await?;
    let previous_until = previous
        .first()
        .map_or(Ok(None), |row| row.try_get("until"))?;
    Ok(Rotated {
        previous_until,
        forgotten,
    })
}

/// Deletes hook secrets that expire by `now`, or, without it, by Postgres' clock.
pub(super) async fn forget_hook_secrets(
    client: &impl GenericClient,
    now: Option<OffsetDateTime>,
) -> Result<u64, TrackerFault> {
    const SQL: &str = "DELETE FROM subscriptions WHERE valid_until <= coalesce($1, now())";
    execute(client, SQL, &[&now]).await
}

async fn only(
    client: &impl GenericClient,
    organization_id: i64,
    account_id: &str,
) -> Result<Option<InstallationRow>, TrackerFault> {
    query(client, ONE, &[&organization_id, &account_id])
        .await?
        .first()
        .map(row_of)
        .transpose()
}

async fn identity(
    client: &impl GenericClient,
    organization_id: i64,
    name: &str,
) -> Result<i64, TrackerFault> {
    const SQL: &str = "SELECT id, name FROM identities WHERE organization_id = $1 ORDER BY name";
    let rows = query(client, SQL, &[&organization_id]).await?;
    let mut known = Vec::new();
    for row in &rows {
        let one: String = row.try_get("name")?;
        if one == name {
            return Ok(row.try_get("id")?);
        }
        known.push(one);
    }
    Err(unknown("identity", name, known))
}

fn gone(account_id: &str) -> TrackerFault {
    TrackerFault::Document {
        at: format!("account {account_id}"),
        problem: "it was removed meanwhile; register it again".to_owned(),
    }
}

fn row_of(row: &Row) -> Result<InstallationRow, TrackerFault> {
    Ok(InstallationRow {
        organization: row.try_get("slug")?,
        integration_id: row.try_get("integration_id")?,
        account_id: row.try_get("account_id")?,
        account_name: row.try_get("account_name")?,
        identity: row.try_get("identity")?,
        identity_id: row.try_get("identity_id")?,
        disabled: row.try_get("disabled")?,
        settings: settings_of(row)?,
        hook_secrets: row.try_get("hook_secrets")?,
    })
}
