//! Causes in the tracker's tables that jobs wait for.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

use super::{TrackerFault, query};

/// Returns the wait key of an identity whose tokens are refused. Jobs observe its `version`.
#[must_use]
pub fn identity_cause(identity_id: i64) -> String {
    format!("identity:{identity_id}")
}

/// Returns the wait key of a disabled installation. Jobs observe nothing of it.
#[must_use]
pub fn installation_cause(integration_id: i64, organization_id: i64) -> String {
    format!("integration:{integration_id}@{organization_id}")
}

/// Returns the wait key of a disabled destination.
#[must_use]
pub fn destination_cause(destination_id: i64) -> String {
    format!("destination:{destination_id}")
}

/// Calls the SQL function of the engine that releases the jobs that wait for a cause.
pub(super) const BEGIN_RELEASE: &str = "SELECT begin_release($1, $2) AS released";

/// Releases the jobs that wait for `cause`, which this transaction removes; with `seen`, only
/// those that observed at most this value. The first jobs are due when the transaction commits. A
/// duty of any replica releases the others later. Returns how many jobs are due at once.
pub(super) async fn begin_release(
    client: &impl GenericClient,
    cause: &str,
    seen: Option<i64>,
) -> Result<u64, TrackerFault> {
    query(client, BEGIN_RELEASE, &[&cause, &seen])
        .await?
        .first()
        .map_or(Ok(0), released)
}

/// Returns how many jobs [`BEGIN_RELEASE`] has made due.
pub(super) fn released(row: &Row) -> Result<u64, TrackerFault> {
    Ok(u64::try_from(row.try_get::<_, i64>("released")?).unwrap_or_default())
}

#[derive(Debug, PartialEq, Eq)]
enum Cause {
    Identity(i64),
    Destination(i64),
    Installation {
        integration_id: i64,
        organization_id: i64,
    },
}

fn cause_of(key: &str) -> Option<Cause> {
    match key.split_once(':')? {
        ("identity", id) => id.parse().ok().map(Cause::Identity),
        ("destination", id) => id.parse().ok().map(Cause::Destination),
        ("integration", place) => {
            let (integration, organization) = place.split_once('@')?;
            let (integration_id, organization_id) =
                (integration.parse().ok()?, organization.parse().ok()?);
            Some(Cause::Installation {
                integration_id,
                organization_id,
            })
        }
        _ => None,
    }
}

/// Returns whether a cause is present: `identity:ID` while the identity's version is the
/// `observed` one, `integration:ID@ORG` (ORG: the organization's row id) while that installation
/// is disabled, `destination:ID` while that destination is disabled. The row stays locked against
/// changes until the transaction ends, so that a cause cannot disappear while a job begins to wait
/// for it. A row that does not exist is no cause. Returns `None` if the tracker does not know this
/// kind of cause.
///
/// # Errors
/// [`TrackerFault::Database`].
pub async fn cause_present(
    tx: &Transaction<'_>,
    key: &str,
    observed: i64,
) -> Result<Option<bool>, TrackerFault> {
    match cause_of(key) {
        Some(Cause::Identity(id)) => identity_is_at(tx, id, observed).await.map(Some),
        Some(Cause::Installation {
            integration_id,
            organization_id,
        }) => is_disabled(tx, integration_id, organization_id)
            .await
            .map(Some),
        Some(Cause::Destination(id)) => takes_nothing(tx, id).await.map(Some),
        None => Ok(None),
    }
}

async fn identity_is_at(
    tx: &Transaction<'_>,
    identity_id: i64,
    version: i64,
) -> Result<bool, TrackerFault> {
    const SQL: &str = "SELECT version FROM identities WHERE id = $1 FOR SHARE";
    let rows = tx.query_typed(SQL, &[(&identity_id, Type::INT8)]).await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    Ok(row.try_get::<_, i64>("version")? == version)
}

async fn takes_nothing(tx: &Transaction<'_>, destination_id: i64) -> Result<bool, TrackerFault> {
    const SQL: &str = "SELECT disabled FROM destinations WHERE id = $1 FOR SHARE";
    let rows = tx
        .query_typed(SQL, &[(&destination_id, Type::INT8)])
        .await?;
    rows.first()
        .map_or(Ok(false), |row| Ok(row.try_get("disabled")?))
}

async fn is_disabled(
    tx: &Transaction<'_>,
    integration_id: i64,
    organization_id: i64,
) -> Result<bool, TrackerFault> {
    const SQL: &str = "
        SELECT disabled
        FROM organization_integrations
        WHERE organization_id = $1 AND integration_id = $2
        FOR SHARE";
    let rows = tx
        .query_typed(
            SQL,
            &[
                (&organization_id, Type::INT8),
                (&integration_id, Type::INT8),
            ],
        )
        .await?;
    rows.first()
        .map_or(Ok(false), |row| Ok(row.try_get("disabled")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_which_cause_it_is() {
        assert_eq!(cause_of(&identity_cause(7)), Some(Cause::Identity(7)));
        let installation = Cause::Installation {
            integration_id: 3,
            organization_id: 9,
        };
        assert_eq!(cause_of(&installation_cause(3, 9)), Some(installation));
        assert_eq!(cause_of(&destination_cause(3)), Some(Cause::Destination(3)));
        for other in [
            "children",
            "destination:x",
            "schema:2",
            "identity:x",
            "integration:3",
            "integration:3@",
        ] {
            assert_eq!(cause_of(other), None, "{other}");
        }
    }
}
