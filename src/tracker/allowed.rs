//! What a job's own input may name: its organization, its account and its identity as rows. A person
//! who writes an output by hand may name nothing else.

use deadpool_postgres::GenericClient;

use super::organizations::{installation, organization_id};
use super::{Installation, TrackerFault, query_opt};

/// What the input of a job names.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Row id of the organization.
    pub organization_id: Option<i64>,
    /// The installation of the account in that organization.
    pub installation: Option<Installation>,
    /// Row id of the identity that the job acts as.
    pub identity_id: Option<i64>,
    /// Whether the input names an identity itself; otherwise it is that of the installation.
    pub names_identity: bool,
}

/// Finds what an incoming request names.
///
/// # Errors
/// [`TrackerFault`].
pub async fn allowed_by_request(
    client: &impl GenericClient,
    organization: &str,
    account: Option<&str>,
    identity: Option<&str>,
) -> Result<Allowed, TrackerFault> {
    const IDENTITY: &str = "SELECT id FROM identities WHERE organization_id = $1 AND name = $2";
    let Some(organization_id) = organization_id(client, organization).await? else {
        return Ok(Allowed::default());
    };
    let installation = match account {
        Some(account) => installation(client, organization_id, account).await?,
        None => None,
    };
    let identity_id = match identity {
        Some(name) => match query_opt(client, IDENTITY, &[&organization_id, &name]).await? {
            Some(row) => Some(row.try_get("id")?),
            None => None,
        },
        None => installation.as_ref().and_then(|found| found.identity_id),
    };
    Ok(Allowed {
        organization_id: Some(organization_id),
        installation,
        identity_id,
        names_identity: identity.is_some(),
    })
}

/// Finds what a follow-up names by row ids: the organization and its installation of the account.
///
/// # Errors
/// [`TrackerFault`].
pub async fn allowed_by_ids(
    client: &impl GenericClient,
    organization_id: i64,
    integration_id: i64,
) -> Result<Allowed, TrackerFault> {
    let installation = match super::organizations::integration(client, integration_id).await? {
        Some(account) => installation(client, organization_id, &account.account_id).await?,
        None => None,
    };
    Ok(Allowed {
        organization_id: Some(organization_id),
        identity_id: installation.as_ref().and_then(|found| found.identity_id),
        installation,
        names_identity: false,
    })
}

/// Returns one of the groups that is not of the organization, if there is one.
///
/// # Errors
/// [`TrackerFault`].
pub async fn group_outside(
    client: &impl GenericClient,
    organization_id: Option<i64>,
    groups: &[i64],
) -> Result<Option<i64>, TrackerFault> {
    const SQL: &str = "
        SELECT asked.id FROM unnest($1::bigint[]) AS asked (id)
            LEFT JOIN issue_groups g ON g.id = asked.id LEFT JOIN projects p ON p.id = g.project_id
        WHERE $2::bigint IS NULL OR p.organization_id IS DISTINCT FROM $2 ORDER BY asked.id LIMIT 1";
    if groups.is_empty() {
        return Ok(None);
    }
    let row = query_opt(client, SQL, &[&groups, &organization_id]).await?;
    row.map(|row| Ok(row.try_get("id")?)).transpose()
}
