//! The rows that applying a plan writes, collected over all its groups and saved with one
//! statement per table.

use time::OffsetDateTime;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::assignment_rules::{GroupNow, News, Verdict};
use super::assignments::status_word;
use super::{ChangedBy, TrackerFault, Typed};
use crate::fault::{MESSAGE_BYTES, storable};

/// The rows to write, in columns.
#[derive(Default)]
pub(super) struct Written {
    links: Links,
    decisions: Decisions,
    assignments: Assignments,
    statuses: Statuses,
    activities: Activities,
    history: History,
}

#[derive(Default)]
struct Links {
    group_id: Vec<i64>,
    external_issue_id: Vec<i64>,
    applied_rev: Vec<i64>,
    status_rev: Vec<i64>,
    category: Vec<Option<String>>,
}

/// Decided assignees, including unchanged ones.
#[derive(Default)]
struct Decisions {
    group_id: Vec<i64>,
    user_id: Vec<Option<i64>>,
    at: Vec<OffsetDateTime>,
    by: Vec<i64>,
}

/// Groups whose assignee has changed.
#[derive(Default)]
struct Assignments {
    group_id: Vec<i64>,
    user_id: Vec<Option<i64>>,
}

#[derive(Default)]
struct Statuses {
    group_id: Vec<i64>,
    status: Vec<&'static str>,
}

#[derive(Default)]
struct Activities {
    group_id: Vec<i64>,
    kind: Vec<&'static str>,
    user_id: Vec<Option<i64>>,
    reason: Vec<Option<String>>,
    external_issue_id: Vec<i64>,
    rev: Vec<i64>,
}

#[derive(Default)]
struct History {
    group_id: Vec<i64>,
    field: Vec<&'static str>,
    before: Vec<Option<String>>,
    after: Vec<Option<String>>,
}

impl Written {
    /// Adds the rows that result from a verdict.
    pub(super) fn note(&mut self, group: &GroupNow, verdict: &Verdict<'_>) {
        for link in &verdict.links {
            self.links.group_id.push(group.id);
            self.links.external_issue_id.push(link.external_issue_id);
            self.links.applied_rev.push(link.applied_rev);
            self.links.status_rev.push(link.status_rev);
            self.links.category.push(
                link.applied_category
                    .map(|category| storable(category, MESSAGE_BYTES)),
            );
        }
        for (news, reason) in &verdict.unresolved {
            self.activities
                .push(group, "assignee_unresolved", None, Some(reason), news);
        }
        self.note_assignee(group, verdict);
        if let Some(decision) = verdict.status {
            let after = status_word(decision.resolved);
            self.statuses.group_id.push(group.id);
            self.statuses.status.push(after);
            self.activities
                .push(group, after, None, None, decision.news);
            self.history.push(
                group,
                "status",
                Some(status_word(group.resolved).to_owned()),
                Some(after.to_owned()),
            );
        }
    }

    fn note_assignee(&mut self, group: &GroupNow, verdict: &Verdict<'_>) {
        let Some(decision) = verdict.assignee else {
            return;
        };
        self.decisions.group_id.push(group.id);
        self.decisions.user_id.push(decision.user);
        self.decisions.at.push(decision.rank.at);
        self.decisions.by.push(decision.rank.by);
        if decision.user == group.assignee {
            return;
        }
        self.assignments.group_id.push(group.id);
        self.assignments.user_id.push(decision.user);
        let kind = if decision.user.is_some() {
            "assigned"
        } else {
            "unassigned"
        };
        self.activities
            .push(group, kind, decision.user, None, decision.news);
        let text = |user: Option<i64>| user.map(|id| id.to_string());
        self.history
            .push(group, "assignee", text(group.assignee), text(decision.user));
    }

    /// Writes all collected rows.
    pub(super) async fn save(
        &self,
        tx: &Transaction<'_>,
        by: ChangedBy,
    ) -> Result<(), TrackerFault> {
        self.links.save(tx).await?;
        self.decisions.save(tx).await?;
        self.assignments.save(tx).await?;
        self.statuses.save(tx).await?;
        self.activities.save(tx, by).await?;
        self.history.save(tx, by).await
    }
}

impl Activities {
    fn push(
        &mut self,
        group: &GroupNow,
        kind: &'static str,
        user: Option<i64>,
        reason: Option<&str>,
        news: &News<'_>,
    ) {
        self.group_id.push(group.id);
        self.kind.push(kind);
        self.user_id.push(user);
        self.reason
            .push(reason.map(|reason| storable(reason, MESSAGE_BYTES)));
        self.external_issue_id.push(news.now.external_issue_id);
        self.rev.push(news.planned.rev);
    }

    async fn save(&self, tx: &Transaction<'_>, by: ChangedBy) -> Result<(), TrackerFault> {
        const SQL: &str = "
            INSERT INTO activities (group_id, kind, user_id, reason, external_issue_id, rev, job_id)
            SELECT a.group_id, a.kind, a.user_id, a.reason, a.external_issue_id, a.rev, $7
            FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[])
                 AS a (group_id, kind, user_id, reason, external_issue_id, rev)";
        let params: Typed<'_> = &[
            (&self.group_id, Type::INT8_ARRAY),
            (&self.kind, Type::TEXT_ARRAY),
            (&self.user_id, Type::INT8_ARRAY),
            (&self.reason, Type::TEXT_ARRAY),
            (&self.external_issue_id, Type::INT8_ARRAY),
            (&self.rev, Type::INT8_ARRAY),
            (&by.job.0, Type::UUID),
        ];
        write(tx, &self.group_id, SQL, params).await
    }
}

impl History {
    fn push(
        &mut self,
        group: &GroupNow,
        field: &'static str,
        before: Option<String>,
        after: Option<String>,
    ) {
        self.group_id.push(group.id);
        self.field.push(field);
        self.before.push(before);
        self.after.push(after);
    }

    async fn save(&self, tx: &Transaction<'_>, by: ChangedBy) -> Result<(), TrackerFault> {
        const SQL: &str = "
            INSERT INTO group_history (group_id, field, before, after, job_id)
            SELECT h.group_id, h.field, h.before, h.after, $5
            FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS h (group_id, field, before, after)";
        let params: Typed<'_> = &[
            (&self.group_id, Type::INT8_ARRAY),
            (&self.field, Type::TEXT_ARRAY),
            (&self.before, Type::TEXT_ARRAY),
            (&self.after, Type::TEXT_ARRAY),
            (&by.job.0, Type::UUID),
        ];
        write(tx, &self.group_id, SQL, params).await
    }
}

impl Links {
    async fn save(&self, tx: &Transaction<'_>) -> Result<(), TrackerFault> {
        const SQL: &str = "
            UPDATE group_links l
            SET applied_rev = n.applied_rev, status_rev = n.status_rev, applied_category = n.category
            FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[])
                 AS n (group_id, external_issue_id, applied_rev, status_rev, category)
            WHERE l.group_id = n.group_id AND l.external_issue_id = n.external_issue_id
              AND (l.applied_rev, l.status_rev) IS DISTINCT FROM (n.applied_rev, n.status_rev)";
        let params: Typed<'_> = &[
            (&self.group_id, Type::INT8_ARRAY),
            (&self.external_issue_id, Type::INT8_ARRAY),
            (&self.applied_rev, Type::INT8_ARRAY),
            (&self.status_rev, Type::INT8_ARRAY),
            (&self.category, Type::TEXT_ARRAY),
        ];
        write(tx, &self.group_id, SQL, params).await
    }
}

impl Decisions {
    async fn save(&self, tx: &Transaction<'_>) -> Result<(), TrackerFault> {
        const SQL: &str = "
            INSERT INTO group_assignees (group_id, user_id, decided_at, decided_by)
            SELECT d.group_id, d.user_id, d.at, d.by
            FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::bigint[]) AS d (group_id, user_id, at, by)
            ON CONFLICT (group_id) DO UPDATE
            SET user_id = EXCLUDED.user_id, decided_at = EXCLUDED.decided_at, decided_by = EXCLUDED.decided_by";
        let params: Typed<'_> = &[
            (&self.group_id, Type::INT8_ARRAY),
            (&self.user_id, Type::INT8_ARRAY),
            (&self.at, Type::TIMESTAMPTZ_ARRAY),
            (&self.by, Type::INT8_ARRAY),
        ];
        write(tx, &self.group_id, SQL, params).await
    }
}

impl Assignments {
    /// Updates subscriptions: deletes the old assignee's and inserts the new one's. The members of
    /// the group's team are subscribed while one of them is the assignee. Subscriptions that
    /// people made themselves stay.
    async fn save(&self, tx: &Transaction<'_>) -> Result<(), TrackerFault> {
        const OFF: &str = "
            DELETE FROM group_subscriptions s
            USING unnest($1::bigint[], $2::bigint[]) AS c (group_id, user_id), issue_groups g
            WHERE s.group_id = c.group_id AND g.id = c.group_id
              AND (s.reason = 'assigned' AND s.user_id IS DISTINCT FROM c.user_id
                   OR s.reason = 'team' AND NOT EXISTS (
                       SELECT 1 FROM team_members m WHERE m.team_id = g.team_id AND m.user_id = c.user_id))";
        const ON: &str = "
            WITH c AS (SELECT group_id, user_id FROM unnest($1::bigint[], $2::bigint[]) AS c (group_id, user_id))
            INSERT INTO group_subscriptions (group_id, user_id, reason)
            SELECT c.group_id, c.user_id, 'assigned'
            FROM c
            WHERE c.user_id IS NOT NULL
            UNION ALL
            SELECT c.group_id, member.user_id, 'team'
            FROM c
            JOIN issue_groups g ON g.id = c.group_id
            JOIN team_members assignee ON assignee.team_id = g.team_id AND assignee.user_id = c.user_id
            JOIN team_members member ON member.team_id = g.team_id
            ON CONFLICT (group_id, user_id, reason) DO NOTHING";
        let params: Typed<'_> = &[
            (&self.group_id, Type::INT8_ARRAY),
            (&self.user_id, Type::INT8_ARRAY),
        ];
        write(tx, &self.group_id, OFF, params).await?;
        write(tx, &self.group_id, ON, params).await
    }
}

impl Statuses {
    async fn save(&self, tx: &Transaction<'_>) -> Result<(), TrackerFault> {
        const SQL: &str = "
            UPDATE issue_groups g
            SET status = s.status
            FROM unnest($1::bigint[], $2::text[]) AS s (group_id, status)
            WHERE g.id = s.group_id";
        let params: Typed<'_> = &[
            (&self.group_id, Type::INT8_ARRAY),
            (&self.status, Type::TEXT_ARRAY),
        ];
        write(tx, &self.group_id, SQL, params).await
    }
}

/// Runs a statement over columns, unless they are empty.
async fn write(
    tx: &Transaction<'_>,
    rows: &[i64],
    sql: &str,
    params: Typed<'_>,
) -> Result<(), TrackerFault> {
    if !rows.is_empty() {
        tx.execute_typed(sql, params).await?;
    }
    Ok(())
}
