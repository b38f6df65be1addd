//! Applies changes inside the transaction of a job's commit: the plan of `update_assignments`, and
//! the revisions of our own writes. Groups are locked in the order of their ids, so two commits
//! cannot wait for each other. The lock (`FOR NO KEY UPDATE`) does not conflict with inserting
//! rows that refer to a group, so an import does not wait either.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

use super::apply_batch::Written;
use super::assignment_rules::{GroupNow, LinkNow, News, Rank, Verdict, judge};
use super::events::stored_id;
use super::groups::{assignee_key, work_item_resource};
use super::organizations::settings_of;
use super::{
    Applied, AssigneeChange, AssigneePlan, BehindLink, ChangedBy, Changes, PlannedLink,
    StatusChange, TrackerFault, Typed,
};

/// Applies a stage's changes. Returns the stage's output as JSON: [`Applied`] for
/// [`Changes::Assignments`], `{}` for [`Changes::AppliedRevision`]. Applying the same changes a
/// second time changes nothing.
///
/// # Errors
/// [`TrackerFault::Database`]; [`TrackerFault::UnknownReference`] if the plan assigns a user that
/// does not exist.
pub async fn apply(
    tx: &Transaction<'_>,
    by: ChangedBy,
    changes: &Changes,
) -> Result<Box<RawValue>, TrackerFault> {
    let output = match changes {
        Changes::Assignments {
            integration_id,
            links,
            seen_events,
        } => {
            let mut applied = apply_assignments(tx, by, *integration_id, links).await?;
            applied.events_seen = mark_seen(tx, by, *integration_id, seen_events).await?;
            serde_json::value::to_raw_value(&applied)
        }
        Changes::AppliedRevision {
            group_id,
            integration_id,
            work_item_id,
            rev,
        } => {
            apply_revision(tx, *group_id, *integration_id, *work_item_id, *rev).await?;
            RawValue::from_string("{}".to_owned())
        }
    };
    output.map_err(TrackerFault::Encode)
}

/// A group and the names of users, from which the output about a change is made.
struct ReportedGroup<'a> {
    group: &'a GroupNow,
    names: &'a HashMap<i64, String>,
}

async fn apply_assignments(
    tx: &Transaction<'_>,
    by: ChangedBy,
    integration_id: i64,
    links: &[PlannedLink],
) -> Result<Applied, TrackerFault> {
    let plan = newest_of_each(links);
    let mut groups = lock_groups(tx, &plan).await?;
    let news = read_links(tx, integration_id, &plan, &mut groups).await?;
    let names = read_names(tx, &groups, &plan).await?;
    let mut applied = Applied::default();
    let mut written = Written::default();
    for (group_id, news) in &news {
        let Some(group) = groups.get(group_id) else {
            continue;
        };
        let verdict = judge(group, news);
        ReportedGroup {
            group,
            names: &names,
        }
        .report(&verdict, &mut applied)?;
        written.note(group, &verdict);
    }
    written.save(tx, by).await?;
    Ok(applied)
}

impl ReportedGroup<'_> {
    fn report(&self, verdict: &Verdict<'_>, applied: &mut Applied) -> Result<(), TrackerFault> {
        let group = self.group;
        if let Some(decision) = verdict
            .assignee
            .filter(|decision| decision.user != group.assignee)
        {
            applied.assignees.push(AssigneeChange {
                group_id: group.id,
                organization_id: group.organization_id,
                group_short_id: group.short_id.clone(),
                group_title: group.title.clone(),
                work_item_id: decision.news.planned.work_item_id,
                from: group.assignee.map(|user| self.named(user)).transpose()?,
                to: decision.user.map(|user| self.named(user)).transpose()?,
            });
        }
        if let Some(decision) = verdict.status {
            applied.statuses.push(StatusChange {
                group_id: group.id,
                organization_id: group.organization_id,
                group_short_id: group.short_id.clone(),
                group_title: group.title.clone(),
                work_item_id: decision.news.planned.work_item_id,
                to: status_word(decision.resolved).to_owned(),
            });
        }
        let behind = |news: &&News<'_>| BehindLink {
            group_id: group.id,
            work_item_id: news.planned.work_item_id,
        };
        applied.behind.extend(verdict.behind.iter().map(behind));
        applied.old_news += verdict.old_news;
        applied.unresolved += u32::try_from(verdict.unresolved.len()).unwrap_or(u32::MAX);
        Ok(())
    }

    fn named(&self, user: i64) -> Result<(i64, String), TrackerFault> {
        let name = self
            .names
            .get(&user)
            .ok_or_else(|| TrackerFault::UnknownReference {
                at: format!("the plan for group {}", self.group.short_id),
                kind: "user",
                name: user.to_string(),
                right: "the id of an existing user".to_owned(),
            })?;
        Ok((user, name.clone()))
    }
}

/// Returns the word that is stored for a status.
pub(super) const fn status_word(resolved: bool) -> &'static str {
    if resolved { "resolved" } else { "unresolved" }
}

/// Returns the plan by (group, work item). If a link is named twice, the newer revision is used.
fn newest_of_each(links: &[PlannedLink]) -> BTreeMap<(i64, i64), &PlannedLink> {
    let mut plan: BTreeMap<(i64, i64), &PlannedLink> = BTreeMap::new();
    for link in links {
        let known = plan
            .entry((link.group_id, link.work_item_id))
            .or_insert(link);
        if link.rev > known.rev {
            *known = link;
        }
    }
    plan
}

type Groups = BTreeMap<i64, GroupNow>;

/// Locks the plan's groups in the order of their ids. Reads only columns of the locked rows: after
/// waiting for a lock, Postgres reads the locked row again, but not the rows joined to it.
async fn lock_groups(
    tx: &Transaction<'_>,
    plan: &BTreeMap<(i64, i64), &PlannedLink>,
) -> Result<Groups, TrackerFault> {
    const SQL: &str = "
        SELECT g.id, g.short_id, g.title, g.status, p.organization_id
        FROM issue_groups g
        JOIN projects p ON p.id = g.project_id
        WHERE g.id = ANY ($1)
        ORDER BY g.id
        FOR NO KEY UPDATE OF g";
    let mut ids: Vec<i64> = plan.keys().map(|(group, _)| *group).collect();
    ids.dedup();
    let group = |row: &Row| -> Result<(i64, GroupNow), TrackerFault> {
        let id = row.try_get("id")?;
        let now = GroupNow {
            id,
            organization_id: row.try_get("organization_id")?,
            short_id: row.try_get("short_id")?,
            title: row.try_get("title")?,
            resolved: row.try_get::<_, &str>("status")? == status_word(true),
            assignee: None,
            decided: None,
        };
        Ok((id, now))
    };
    tx.query_typed(SQL, &[(&ids, Type::INT8_ARRAY)])
        .await?
        .iter()
        .map(group)
        .collect()
}

/// Reads links and assignees of locked groups, and whether the ledger identifies the planned
/// revisions as our own writes. Skips links that were removed since the plan was made. An effect
/// whose detail names a `group_id` is an own write of that group only; for another group of the
/// same work item it is a new change.
async fn read_links<'a>(
    tx: &Transaction<'_>,
    integration_id: i64,
    plan: &BTreeMap<(i64, i64), &'a PlannedLink>,
    groups: &mut Groups,
) -> Result<BTreeMap<i64, Vec<News<'a>>>, TrackerFault> {
    const SQL: &str = "
        SELECT w.group_id, w.work_item_id, l.external_issue_id, l.applied_rev, l.status_rev, l.applied_category,
               o.assignee_inbound, o.assignee_outbound, o.status_inbound,
               a.user_id AS assignee, a.decided_at, a.decided_by,
               EXISTS (
                   SELECT 1
                   FROM effects f
                   WHERE f.resource = w.resource AND f.state <> 'failed'
                     AND f.detail ->> 'rev_before' = (w.rev - 1)::text
                     AND f.detail ->> 'value' IS NOT DISTINCT FROM w.assignee
                     AND coalesce(f.detail ->> 'group_id', w.group_id::text) = w.group_id::text
               ) AS own_write
        FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[])
             AS w (group_id, work_item_id, rev, assignee, resource)
        JOIN external_issues e ON e.integration_id = $1 AND e.work_item_id = w.work_item_id
        JOIN group_links l ON l.group_id = w.group_id AND l.external_issue_id = e.id
        JOIN issue_groups g ON g.id = w.group_id
        JOIN projects p ON p.id = g.project_id
        JOIN organization_integrations o ON o.organization_id = p.organization_id AND o.integration_id = $1
        LEFT JOIN group_assignees a ON a.group_id = w.group_id
        ORDER BY w.group_id, w.work_item_id";
    let group_ids: Vec<i64> = plan.keys().map(|(group, _)| *group).collect();
    let work_items: Vec<i64> = plan.keys().map(|(_, work_item)| *work_item).collect();
    let revs: Vec<i64> = plan.values().map(|link| link.rev).collect();
    let assignees: Vec<Option<String>> = plan
        .values()
        .map(|link| link.tracker_assignee.as_deref().map(assignee_key))
        .collect();
    let resources: Vec<String> = work_items
        .iter()
        .map(|id| work_item_resource(integration_id, *id))
        .collect();
    let params: Typed<'_> = &[
        (&integration_id, Type::INT8),
        (&group_ids, Type::INT8_ARRAY),
        (&work_items, Type::INT8_ARRAY),
        (&revs, Type::INT8_ARRAY),
        (&assignees, Type::TEXT_ARRAY),
        (&resources, Type::TEXT_ARRAY),
    ];
    let mut news: BTreeMap<i64, Vec<News<'a>>> = BTreeMap::new();
    for row in tx.query_typed(SQL, params).await? {
        let key: (i64, i64) = (row.try_get("group_id")?, row.try_get("work_item_id")?);
        let (Some(planned), Some(group)) = (plan.get(&key), groups.get_mut(&key.0)) else {
            continue;
        };
        group.assignee = row.try_get("assignee")?;
        group.decided = decided_of(&row)?;
        news.entry(key.0).or_default().push(News {
            planned,
            now: link_of(&row)?,
        });
    }
    Ok(news)
}

fn decided_of(row: &Row) -> Result<Option<Rank>, TrackerFault> {
    let (at, by) = (
        row.try_get::<_, Option<_>>("decided_at")?,
        row.try_get::<_, Option<_>>("decided_by")?,
    );
    Ok(at.zip(by).map(|(at, by)| Rank { at, by }))
}

fn link_of(row: &Row) -> Result<LinkNow, TrackerFault> {
    Ok(LinkNow {
        external_issue_id: row.try_get("external_issue_id")?,
        settings: settings_of(row)?,
        applied_rev: row.try_get("applied_rev")?,
        status_rev: row.try_get("status_rev")?,
        applied_category: row.try_get("applied_category")?,
        own_write: row.try_get("own_write")?,
    })
}

/// Reads the names of all present and planned assignees.
async fn read_names(
    tx: &Transaction<'_>,
    groups: &Groups,
    plan: &BTreeMap<(i64, i64), &PlannedLink>,
) -> Result<HashMap<i64, String>, TrackerFault> {
    const SQL: &str = "SELECT id, name FROM users WHERE id = ANY ($1)";
    let present = groups.values().filter_map(|group| group.assignee);
    let planned = plan.values().filter_map(|link| match link.assignee {
        AssigneePlan::Assign(user) => Some(user),
        AssigneePlan::Unassign | AssigneePlan::Keep | AssigneePlan::Unresolved(_) => None,
    });
    let ids: Vec<i64> = present.chain(planned).collect();
    let named = |row: &Row| -> Result<(i64, String), TrackerFault> {
        Ok((row.try_get("id")?, row.try_get("name")?))
    };
    tx.query_typed(SQL, &[(&ids, Type::INT8_ARRAY)])
        .await?
        .iter()
        .map(named)
        .collect()
}

/// Marks events as seen and returns how many are new. Inserts in the order of ids, so that two
/// commits cannot wait for each other.
async fn mark_seen(
    tx: &Transaction<'_>,
    by: ChangedBy,
    integration_id: i64,
    event_ids: &[String],
) -> Result<u32, TrackerFault> {
    const SQL: &str = "
        INSERT INTO seen_events (integration_id, event_id, job_id)
        SELECT $1, event_id, $3
        FROM (SELECT DISTINCT unnest($2::text[]) AS event_id ORDER BY 1) AS events
        ON CONFLICT (integration_id, event_id) DO NOTHING";
    if event_ids.is_empty() {
        return Ok(0);
    }
    let stored: Vec<String> = event_ids.iter().map(|id| stored_id(id)).collect();
    let params: Typed<'_> = &[
        (&integration_id, Type::INT8),
        (&stored, Type::TEXT_ARRAY),
        (&by.job.0, Type::UUID),
    ];
    let marked = tx.execute_typed(SQL, params).await?;
    Ok(u32::try_from(marked).unwrap_or(u32::MAX))
}

/// Stores the revision that has our value, under the group's lock. A revision older than the
/// link's changes nothing.
async fn apply_revision(
    tx: &Transaction<'_>,
    group_id: i64,
    integration_id: i64,
    work_item_id: i64,
    rev: i64,
) -> Result<(), TrackerFault> {
    const LOCK: &str = "SELECT id FROM issue_groups WHERE id = $1 FOR NO KEY UPDATE";
    const SQL: &str = "
        UPDATE group_links l
        SET applied_rev = $4
        FROM external_issues e
        WHERE e.id = l.external_issue_id AND e.integration_id = $2 AND e.work_item_id = $3
          AND l.group_id = $1 AND l.applied_rev < $4";
    tx.query_typed(LOCK, &[(&group_id, Type::INT8)]).await?;
    let params: Typed<'_> = &[
        (&group_id, Type::INT8),
        (&integration_id, Type::INT8),
        (&work_item_id, Type::INT8),
        (&rev, Type::INT8),
    ];
    tx.execute_typed(SQL, params).await?;
    Ok(())
}
