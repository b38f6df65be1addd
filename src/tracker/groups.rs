//! Reads groups, the work items that are linked to them, and their assignees.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::organizations::settings_of;
use super::{GroupAssignee, LinkedGroup, OutboundLink, TrackerFault, User, query, query_opt};
use crate::fault::storable;
use crate::job::JobId;

/// The limit of a stored assignee in bytes; longer ones are truncated.
const ASSIGNEE_BYTES: usize = 1024;

/// Returns Azure DevOps' name of an assignee (e-mail or unique name) in the form that the ledger
/// stores and compares.
#[must_use]
pub fn assignee_key(tracker_assignee: &str) -> String {
    storable(&tracker_assignee.to_lowercase(), ASSIGNEE_BYTES)
}

/// Returns the resource name of a work item in the ledger.
#[must_use]
pub fn work_item_resource(integration_id: i64, work_item_id: i64) -> String {
    format!("work_item:{integration_id}:{work_item_id}")
}

/// Returns the groups linked to these work items, in organizations whose installation is enabled
/// and has assignee or status inbound sync on, sorted by group and work item.
pub(super) async fn linked_groups(
    client: &impl GenericClient,
    integration_id: i64,
    work_item_ids: &[i64],
) -> Result<Vec<LinkedGroup>, TrackerFault> {
    const SQL: &str = "
        SELECT g.id AS group_id, g.project_id, p.organization_id, e.work_item_id,
               o.assignee_inbound, o.assignee_outbound, o.status_inbound,
               a.user_id AS assignee, l.applied_rev, l.applied_category
        FROM external_issues e
        JOIN group_links l ON l.external_issue_id = e.id
        JOIN issue_groups g ON g.id = l.group_id
        JOIN projects p ON p.id = g.project_id
        JOIN organization_integrations o ON o.organization_id = p.organization_id AND o.integration_id = e.integration_id
        LEFT JOIN group_assignees a ON a.group_id = g.id
        WHERE e.integration_id = $1 AND e.work_item_id = ANY ($2)
          AND NOT o.disabled AND (o.assignee_inbound OR o.status_inbound)
        ORDER BY g.id, e.work_item_id";
    query(client, SQL, &[&integration_id, &work_item_ids])
        .await?
        .iter()
        .map(linked_group_of)
        .collect()
}

/// Returns every work item linked to these groups through an enabled installation with outbound
/// sync on, sorted by group, integration and work item.
pub(super) async fn outbound_links(
    client: &impl GenericClient,
    group_ids: &[i64],
) -> Result<Vec<OutboundLink>, TrackerFault> {
    const SQL: &str = "
        SELECT l.group_id, e.integration_id, e.work_item_id
        FROM group_links l
        JOIN external_issues e ON e.id = l.external_issue_id
        JOIN issue_groups g ON g.id = l.group_id
        JOIN projects p ON p.id = g.project_id
        JOIN organization_integrations o ON o.organization_id = p.organization_id AND o.integration_id = e.integration_id
        WHERE l.group_id = ANY ($1) AND o.assignee_outbound AND NOT o.disabled
        ORDER BY l.group_id, e.integration_id, e.work_item_id";
    let link = |row: &Row| -> Result<OutboundLink, TrackerFault> {
        Ok(OutboundLink {
            group_id: row.try_get("group_id")?,
            integration_id: row.try_get("integration_id")?,
            work_item_id: row.try_get("work_item_id")?,
        })
    };
    query(client, SQL, &[&group_ids])
        .await?
        .iter()
        .map(link)
        .collect()
}

/// Returns a group's present assignee, with the verified addresses in the order in which they
/// became known; `None` if the group does not exist.
pub(super) async fn group_assignee(
    client: &impl GenericClient,
    group_id: i64,
) -> Result<Option<GroupAssignee>, TrackerFault> {
    const SQL: &str = "
        SELECT a.decided_at, u.id, u.name,
               ARRAY(SELECT e.email FROM user_emails e WHERE e.user_id = u.id AND e.verified ORDER BY e.id) AS emails
        FROM issue_groups g
        LEFT JOIN group_assignees a ON a.group_id = g.id
        LEFT JOIN users u ON u.id = a.user_id
        WHERE g.id = $1";
    let Some(row) = query_opt(client, SQL, &[&group_id]).await? else {
        return Ok(None);
    };
    let id: Option<i64> = row.try_get("id")?;
    let user = match id {
        Some(id) => Some(User {
            id,
            name: row.try_get("name")?,
            emails: row.try_get("emails")?,
        }),
        None => None,
    };
    Ok(Some(GroupAssignee {
        user,
        decided_at: row.try_get("decided_at")?,
    }))
}

/// Returns the revision of a work item last applied to a group's assignee (0 = none), `None` if
/// the two are not linked.
pub(super) async fn link_applied_rev(
    client: &impl GenericClient,
    group_id: i64,
    integration_id: i64,
    work_item_id: i64,
) -> Result<Option<i64>, TrackerFault> {
    const SQL: &str = "
        SELECT l.applied_rev
        FROM group_links l
        JOIN external_issues e ON e.id = l.external_issue_id
        WHERE l.group_id = $1 AND e.integration_id = $2 AND e.work_item_id = $3";
    let row = query_opt(client, SQL, &[&group_id, &integration_id, &work_item_id]).await?;
    row.map(|row| Ok(row.try_get("applied_rev")?)).transpose()
}

/// Returns whether the ledger has an effect that made this revision of a work item: one with the
/// previous revision and this assignee (case-insensitive; `None` = unassigned) that is not known
/// to have failed.
pub(super) async fn own_write(
    client: &impl GenericClient,
    integration_id: i64,
    work_item_id: i64,
    rev: i64,
    tracker_assignee: Option<&str>,
) -> Result<bool, TrackerFault> {
    const SQL: &str = "
        SELECT EXISTS (
            SELECT 1
            FROM effects
            WHERE resource = $1 AND state <> 'failed'
              AND detail ->> 'rev_before' = ($2::bigint - 1)::text
              AND detail ->> 'value' IS NOT DISTINCT FROM $3::text) AS ours";
    let resource = work_item_resource(integration_id, work_item_id);
    let assignee = tracker_assignee.map(assignee_key);
    let row = query_opt(client, SQL, &[&resource, &rev, &assignee]).await?;
    row.map_or(Ok(false), |row| Ok(row.try_get("ours")?))
}

/// Returns whether the ledger has an effect of this job without a known outcome.
pub(super) async fn has_open_effect(
    client: &impl GenericClient,
    job: JobId,
) -> Result<bool, TrackerFault> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM effects WHERE job_id = $1 AND state IN ('in_flight', 'unknown')) AS is_open";
    let row = query_opt(client, SQL, &[&job.0]).await?;
    row.map_or(Ok(false), |row| Ok(row.try_get("is_open")?))
}

fn linked_group_of(row: &Row) -> Result<LinkedGroup, TrackerFault> {
    Ok(LinkedGroup {
        group_id: row.try_get("group_id")?,
        project_id: row.try_get("project_id")?,
        organization_id: row.try_get("organization_id")?,
        work_item_id: row.try_get("work_item_id")?,
        settings: settings_of(row)?,
        assignee: row.try_get("assignee")?,
        applied_rev: row.try_get("applied_rev")?,
        applied_category: row.try_get("applied_category")?,
    })
}
