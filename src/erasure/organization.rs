//! Erases an organization: its jobs with their history, its dead letters, everything that was
//! registered for it, and the people and accounts that no other organization has.

use tokio_postgres::Client;

use super::passes::RowEdit;
use super::words::Words;
use super::{Erasure, ErasureError, Whose};

const FIND: &str = "SELECT id, name FROM organizations WHERE slug = $1";

/// Selects the users who belong to the organization `$1` and to no other, in any way.
macro_rules! only_here {
    () => {
        "WITH belongings AS (
            SELECT m.user_id, p.organization_id FROM project_members m JOIN projects p ON p.id = m.project_id
            UNION SELECT m.user_id, t.organization_id FROM team_members m JOIN teams t ON t.id = m.team_id
            UNION SELECT s.user_id, p.organization_id FROM group_subscriptions s JOIN issue_groups g ON g.id = s.group_id
                JOIN projects p ON p.id = g.project_id
            UNION SELECT a.user_id, p.organization_id FROM group_assignees a JOIN issue_groups g ON g.id = a.group_id
                JOIN projects p ON p.id = g.project_id WHERE a.user_id IS NOT NULL
            UNION SELECT a.user_id, p.organization_id FROM activities a JOIN issue_groups g ON g.id = a.group_id
                JOIN projects p ON p.id = g.project_id WHERE a.user_id IS NOT NULL
        ), only_here AS (
            SELECT user_id FROM belongings GROUP BY user_id HAVING every(organization_id = $1)
        )"
    };
}

/// Selects the names of those people and of the accounts `$2`; at most one more than the limit.
const NAMES: &str = concat!(
    only_here!(),
    "SELECT name FROM (
        SELECT u.name FROM users u WHERE u.id IN (SELECT user_id FROM only_here)
            AND NOT EXISTS (SELECT FROM users o WHERE lower(o.name) = lower(u.name) AND o.id NOT IN (SELECT user_id FROM only_here))
        UNION SELECT e.email FROM user_emails e WHERE e.user_id IN (SELECT user_id FROM only_here)
            AND NOT EXISTS (SELECT FROM user_emails v WHERE v.email = e.email AND v.user_id NOT IN (SELECT user_id FROM only_here))
        UNION SELECT unnest(ARRAY[i.account_id, i.account_name]) FROM integrations i WHERE i.id = ANY ($2)
    ) names LIMIT 1001"
);

/// Selects the accounts that no other organization has installed.
const ACCOUNTS: &str = "
    SELECT o.integration_id AS id FROM organization_integrations o WHERE o.organization_id = $1 AND NOT EXISTS (
        SELECT FROM organization_integrations x WHERE x.integration_id = o.integration_id AND x.organization_id <> $1)";

/// Selects the people whom one transaction deletes, together with the rows that assign them to the
/// organization.
const PEOPLE: &str = concat!(
    only_here!(),
    ", chosen AS MATERIALIZED (SELECT user_id FROM only_here ORDER BY user_id LIMIT 500)
    SELECT coalesce(array_agg(user_id), '{}') AS ids FROM chosen"
);
const OF_PEOPLE: &[(&str, &str)] = &[
    (
        "project_members",
        "DELETE FROM project_members WHERE user_id = ANY ($1)",
    ),
    (
        "team_members",
        "DELETE FROM team_members WHERE user_id = ANY ($1)",
    ),
    (
        "user_emails",
        "DELETE FROM user_emails WHERE user_id = ANY ($1)",
    ),
    ("users", "DELETE FROM users WHERE id = ANY ($1)"),
];

const OF_JOB: &str = "EXISTS (SELECT FROM jobs j WHERE j.id = t.job_id AND j.organization = $1)";
/// The engine's rows of the jobs of `$1`; jobs last.
const OF_JOBS: &[(&str, &str)] = &[
    ("checkpoints", OF_JOB),
    ("attempts", OF_JOB),
    ("effects", OF_JOB),
    ("announcements", OF_JOB),
    ("job_inputs", OF_JOB),
    ("job_keys", OF_JOB),
    ("seen_events", OF_JOB),
    (
        "controls",
        "t.scope IN ($1, 'organization:' || $1) OR starts_with(t.scope, $1 || '|')",
    ),
    ("jobs", "t.organization = $1"),
];

/// History whose jobs no longer exist, with a text that matches `$1`.
const OF_FORGOTTEN_JOBS: &[(&str, &str)] = &[
    (
        "checkpoints",
        "t.output::text ~* $1 AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = t.job_id)",
    ),
    (
        "attempts",
        "t.message ~* $1 AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = t.job_id)",
    ),
    (
        "effects",
        "concat_ws(' ', t.target, t.resource, t.detail) ~* $1 AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = t.job_id)",
    ),
];

/// Makes the people who belong to the organization only through a group members of a project, so
/// that a repeated erasure finds them again.
const KEEP_FOUND: &str = concat!(
    only_here!(),
    "INSERT INTO project_members (project_id, user_id)
    SELECT (SELECT id FROM projects WHERE organization_id = $1 ORDER BY id LIMIT 1), user_id FROM only_here
    WHERE EXISTS (SELECT FROM projects WHERE organization_id = $1)
    ON CONFLICT (project_id, user_id) DO NOTHING"
);

const IN_GROUPS: &str = "t.group_id IN (SELECT g.id FROM issue_groups g JOIN projects p ON p.id = g.project_id WHERE p.organization_id = $1)";
/// The rows of the groups of organization `$1`, deleted before the people.
const OF_GROUPS: &[(&str, &str)] = &[
    ("activities", IN_GROUPS),
    ("group_history", IN_GROUPS),
    ("group_subscriptions", IN_GROUPS),
    ("group_assignees", IN_GROUPS),
    ("group_links", IN_GROUPS),
    (
        "issue_groups",
        "t.project_id IN (SELECT id FROM projects WHERE organization_id = $1)",
    ),
];

/// The remaining rows of the organization, in the order of references.
const REGISTERED: &[(&str, &str)] = &[
    (
        "project_members",
        "t.project_id IN (SELECT id FROM projects WHERE organization_id = $1)",
    ),
    (
        "team_members",
        "t.team_id IN (SELECT id FROM teams WHERE organization_id = $1)",
    ),
    ("projects", "t.organization_id = $1"),
    ("teams", "t.organization_id = $1"),
    ("destinations", "t.organization_id = $1"),
];

/// The rows of the accounts `$1`.
const OF_ACCOUNTS: &[(&str, &str)] = &[
    ("seen_events", "t.integration_id = ANY ($1)"),
    ("external_issues", "t.integration_id = ANY ($1)"),
    ("subscriptions", "t.integration_id = ANY ($1)"),
];

/// The statements of the last transaction. They share it because the first of these tables
/// determines which accounts are the organization's own.
const LAST: &[(&str, &str)] = &[
    (
        "organization_integrations",
        "DELETE FROM organization_integrations WHERE organization_id = $1 AND $2::bigint[] IS NOT NULL",
    ),
    (
        "integrations",
        "DELETE FROM integrations WHERE id = ANY ($2) AND $1::bigint IS NOT NULL",
    ),
    (
        "identities",
        "DELETE FROM identities WHERE organization_id = $1 AND $2::bigint[] IS NOT NULL",
    ),
    (
        "organizations",
        "DELETE FROM organizations WHERE id = $1 AND $2::bigint[] IS NOT NULL",
    ),
];

/// Finds the organization and the names to search for.
pub(super) async fn find(client: &Client, slug: &str) -> Result<(Whose, Words), ErasureError> {
    let Some(row) = client.query_opt(FIND, &[&slug]).await? else {
        return Err(ErasureError::Unknown {
            kind: "organization",
            name: slug.to_owned(),
            instead: "the slug of one",
        });
    };
    let (id, name): (i64, String) = (row.try_get("id")?, row.try_get("name")?);
    let mut texts = vec![slug.to_owned(), name];
    for row in client
        .query(NAMES, &[&id, &accounts(client, id).await?])
        .await?
    {
        texts.push(row.try_get("name")?);
    }
    let words = Words::of(texts).ok_or(ErasureError::TooMany)?;
    Ok((
        Whose::Organization {
            id,
            slug: slug.to_owned(),
        },
        words,
    ))
}

async fn accounts(client: &Client, id: i64) -> Result<Vec<i64>, ErasureError> {
    client
        .query(ACCOUNTS, &[&id])
        .await?
        .iter()
        .map(|row| Ok(row.try_get("id")?))
        .collect()
}

impl Erasure<'_> {
    pub(super) async fn organization(&mut self, id: i64, slug: &str) -> Result<(), ErasureError> {
        self.no_live_jobs_of(slug).await?;
        let letters = self.letters().await?;
        self.audit(&letters).await?;
        self.delete_letters(&letters).await?;
        for (table, condition) in OF_JOBS {
            self.pass(table, RowEdit::Delete, condition, &[&slug])
                .await?;
        }
        let pattern = self.pattern.clone();
        for (table, condition) in OF_FORGOTTEN_JOBS {
            self.pass(table, RowEdit::Delete, condition, &[&pattern])
                .await?;
        }
        if !self.is_dry {
            self.client.execute(KEEP_FOUND, &[&id]).await?;
        }
        for (table, condition) in OF_GROUPS {
            self.pass(table, RowEdit::Delete, condition, &[&id]).await?;
        }
        self.people(id).await?;
        for (table, condition) in REGISTERED {
            self.pass(table, RowEdit::Delete, condition, &[&id]).await?;
        }
        let accounts = accounts(self.client, id).await?;
        for (table, condition) in OF_ACCOUNTS {
            self.pass(table, RowEdit::Delete, condition, &[&accounts])
                .await?;
        }
        let producers = RowEdit::Set("organizations = array_remove(organizations, $1)");
        self.pass(
            "producers",
            producers,
            "$1 = ANY (t.organizations)",
            &[&slug],
        )
        .await?;
        self.last(id, &accounts).await
    }

    async fn people(&mut self, id: i64) -> Result<(), ErasureError> {
        loop {
            let ids: Vec<i64> = self
                .client
                .query_one(PEOPLE, &[&id])
                .await?
                .try_get("ids")?;
            if self.is_dry {
                self.count("users", ids.len() as u64);
                return Ok(());
            }
            if ids.is_empty() {
                return Ok(());
            }
            let tx = self.client.transaction().await?;
            let mut deleted = Vec::new();
            for (table, sql) in OF_PEOPLE {
                deleted.push((*table, tx.execute(*sql, &[&ids]).await?));
            }
            tx.commit().await?;
            deleted
                .into_iter()
                .for_each(|(table, rows)| self.count(table, rows));
        }
    }

    async fn last(&mut self, id: i64, accounts: &[i64]) -> Result<(), ErasureError> {
        if self.is_dry {
            self.pass(
                "organization_integrations",
                RowEdit::Delete,
                "t.organization_id = $1",
                &[&id],
            )
            .await?;
            self.pass(
                "identities",
                RowEdit::Delete,
                "t.organization_id = $1",
                &[&id],
            )
            .await?;
            self.count("integrations", accounts.len() as u64);
            self.count("organizations", 1);
            return Ok(());
        }
        let tx = self.client.transaction().await?;
        let mut deleted = Vec::new();
        for (table, sql) in LAST {
            deleted.push((*table, tx.execute(*sql, &[&id, &accounts]).await?));
        }
        tx.commit().await?;
        deleted
            .into_iter()
            .for_each(|(table, rows)| self.count(table, rows));
        Ok(())
    }
}
