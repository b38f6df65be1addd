//! Reads organizations and the Azure DevOps accounts that they use.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::{Installation, Integration, SyncSettings, TrackerFault, query, query_opt};

/// Returns the id of the organization with this slug.
pub(super) async fn organization_id(
    client: &impl GenericClient,
    slug: &str,
) -> Result<Option<i64>, TrackerFault> {
    const SQL: &str = "SELECT id FROM organizations WHERE slug = $1";
    let row = query_opt(client, SQL, &[&slug]).await?;
    row.map(|row| Ok(row.try_get("id")?)).transpose()
}

/// Returns the installation of an account, named by its id (case-insensitive), in an organization.
pub(super) async fn installation(
    client: &impl GenericClient,
    organization_id: i64,
    account_id: &str,
) -> Result<Option<Installation>, TrackerFault> {
    const SQL: &str = "
        SELECT i.id AS integration_id, i.account_name, i.account_id, o.disabled, o.identity_id,
               o.assignee_inbound, o.assignee_outbound, o.status_inbound
        FROM organization_integrations o
        JOIN integrations i ON i.id = o.integration_id
        WHERE o.organization_id = $1 AND lower(i.account_id) = lower($2)";
    let row = query_opt(client, SQL, &[&organization_id, &account_id]).await?;
    row.as_ref().map(installation_of).transpose()
}

/// Returns an account, independent of the organizations that use it.
pub(super) async fn integration(
    client: &impl GenericClient,
    integration_id: i64,
) -> Result<Option<Integration>, TrackerFault> {
    const SQL: &str = "SELECT id, account_name, account_id FROM integrations WHERE id = $1";
    let Some(row) = query_opt(client, SQL, &[&integration_id]).await? else {
        return Ok(None);
    };
    Ok(Some(Integration {
        id: row.try_get("id")?,
        account_name: row.try_get("account_name")?,
        account_id: row.try_get("account_id")?,
    }))
}

/// SHA-256 of every shared secret that the account's service hooks may use now.
pub(super) async fn hook_secrets(
    client: &impl GenericClient,
    integration_id: i64,
) -> Result<Vec<[u8; 32]>, TrackerFault> {
    const SQL: &str = "
        SELECT secret_sha256
        FROM subscriptions
        WHERE integration_id = $1 AND (valid_until IS NULL OR valid_until > now())
        ORDER BY id";
    let rows = query(client, SQL, &[&integration_id]).await?;
    let digest = |row: &Row| -> Result<[u8; 32], TrackerFault> {
        let bytes: &[u8] = row.try_get("secret_sha256")?;
        Ok(bytes
            .try_into()
            .expect("the table checks that a digest has 32 bytes"))
    };
    rows.iter().map(digest).collect()
}

fn installation_of(row: &Row) -> Result<Installation, TrackerFault> {
    Ok(Installation {
        integration_id: row.try_get("integration_id")?,
        account_name: row.try_get("account_name")?,
        account_id: row.try_get("account_id")?,
        disabled: row.try_get("disabled")?,
        identity_id: row.try_get("identity_id")?,
        settings: settings_of(row)?,
    })
}

/// Reads the three settings, by their columns' names.
pub(super) fn settings_of(row: &Row) -> Result<SyncSettings, TrackerFault> {
    Ok(SyncSettings {
        assignee_inbound: row.try_get("assignee_inbound")?,
        assignee_outbound: row.try_get("assignee_outbound")?,
        status_inbound: row.try_get("status_inbound")?,
    })
}
