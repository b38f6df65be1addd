//! Imports users, their addresses, teams and memberships.

use std::collections::{BTreeSet, HashSet};

use super::names::Names;
use super::{Import, Tenant};
use crate::tracker::{TrackerDocument, TrackerFault, UserDocument, email_key};

impl Import<'_> {
    pub(super) async fn users(&mut self, users: &[UserDocument]) -> Result<(), TrackerFault> {
        const SQL: &str = "
            INSERT INTO users (id, name) OVERRIDING SYSTEM VALUE
            SELECT g.id, g.name
            FROM unnest($1::bigint[], $2::text[]) AS g (id, name)
            LEFT JOIN users t ON t.id = g.id
            WHERE t.id IS NULL OR t.name IS DISTINCT FROM g.name
            ORDER BY g.id
            ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name";
        let ids = self.user_ids(users).await?;
        let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
        self.write("users", SQL, &[&ids, &names]).await?;
        self.emails(users, &ids).await
    }

    /// Returns the id of each user: the one of the first e-mail, or a new one.
    async fn user_ids(&self, users: &[UserDocument]) -> Result<Vec<i64>, TrackerFault> {
        const SQL: &str = "
            SELECT coalesce(e.user_id, nextval(pg_get_serial_sequence('users', 'id'))) AS id
            FROM unnest($1::text[]) WITH ORDINALITY AS g (email, n)
            LEFT JOIN user_emails e ON e.email = g.email AND e.verified
            ORDER BY g.n";
        let firsts: Vec<String> = users
            .iter()
            .filter_map(|user| user.emails.first())
            .map(|email| email_key(email))
            .collect();
        let rows = self.rows(SQL, &[&firsts]).await?;
        let ids: Vec<i64> = rows
            .iter()
            .map(|row| row.try_get("id"))
            .collect::<Result<_, _>>()?;
        let mut known = HashSet::new();
        match ids.iter().zip(users).find(|(id, _)| !known.insert(**id)) {
            Some((_, twice)) => Err(TrackerFault::Document {
                at: format!("user {}", twice.name),
                problem: "the first e-mail belongs to an earlier user of the document; use one entry for both".to_owned(),
            }),
            None => Ok(ids),
        }
    }

    async fn emails(&mut self, users: &[UserDocument], ids: &[i64]) -> Result<(), TrackerFault> {
        const TAKEN: &str = "
            SELECT e.email, u.name
            FROM unnest($1::bigint[], $2::text[]) AS g (user_id, email)
            JOIN user_emails e ON e.email = g.email AND e.verified AND e.user_id <> g.user_id
            JOIN users u ON u.id = g.user_id
            ORDER BY e.email
            LIMIT 1";
        const SQL: &str = "
            INSERT INTO user_emails (user_id, email, verified)
            SELECT g.user_id, g.email, true
            FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS g (user_id, email, n)
            LEFT JOIN user_emails t ON t.user_id = g.user_id AND t.email = g.email
            WHERE t.id IS NULL OR NOT t.verified
            ORDER BY g.n
            ON CONFLICT (user_id, email) DO UPDATE SET verified = true";
        let (mut owners, mut emails, mut known) = (Vec::new(), Vec::new(), HashSet::new());
        for (user, id) in users.iter().zip(ids) {
            for email in user.emails.iter().map(|email| email_key(email)) {
                if known.insert(email.clone()) {
                    owners.push(*id);
                    emails.push(email);
                }
            }
        }
        if let Some(taken) = self.rows(TAKEN, &[&owners, &emails]).await?.first() {
            let (email, name): (String, String) = (taken.try_get("email")?, taken.try_get("name")?);
            let problem = format!(
                "`{email}` belongs to another user; use an address that nobody else has verified"
            );
            return Err(TrackerFault::Document {
                at: format!("user {name}"),
                problem,
            });
        }
        self.write("user_emails", SQL, &[&owners, &emails]).await
    }

    /// Returns the users by verified e-mail to which the document may refer: its own users and the
    /// members of teams and projects.
    pub(super) async fn known_people(
        &self,
        document: &TrackerDocument,
    ) -> Result<Names, TrackerFault> {
        const SQL: &str = "
            SELECT 0::bigint AS scope, email AS name, user_id AS id
            FROM user_emails
            WHERE verified AND email = ANY ($1)";
        let own = document.users.iter().flat_map(|user| &user.emails);
        let organizations = &document.organizations;
        let in_teams = organizations
            .iter()
            .flat_map(|organization| &organization.teams)
            .flat_map(|team| &team.members);
        let in_projects = organizations
            .iter()
            .flat_map(|organization| &organization.projects)
            .flat_map(|project| &project.members);
        let emails: BTreeSet<String> = own
            .chain(in_teams)
            .chain(in_projects)
            .map(|email| email_key(email))
            .collect();
        let emails: Vec<String> = emails.into_iter().collect();
        Names::of("user", &self.rows(SQL, &[&emails]).await?)
    }

    pub(super) async fn teams(
        &mut self,
        tenants: &[Tenant<'_>],
        people: &Names,
    ) -> Result<(), TrackerFault> {
        const SQL: &str = "
            WITH given AS (
                SELECT organization_id, slug, n
                FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS g (organization_id, slug, n)
            ), written AS (
                INSERT INTO teams (organization_id, slug)
                SELECT g.organization_id, g.slug
                FROM given g
                LEFT JOIN teams t ON t.organization_id = g.organization_id AND t.slug = g.slug
                WHERE t.id IS NULL
                ORDER BY g.n
                RETURNING id, organization_id, slug
            )
            SELECT coalesce(w.id, t.id) AS id, w.id IS NOT NULL AS changed
            FROM given g
            LEFT JOIN written w ON w.organization_id = g.organization_id AND w.slug = g.slug
            LEFT JOIN teams t ON t.organization_id = g.organization_id AND t.slug = g.slug
            ORDER BY g.n";
        const MEMBERS: &str = "
            INSERT INTO team_members (team_id, user_id)
            SELECT DISTINCT g.team_id, g.user_id
            FROM unnest($1::bigint[], $2::bigint[]) AS g (team_id, user_id)
            ON CONFLICT (team_id, user_id) DO NOTHING";
        let teams = || {
            tenants
                .iter()
                .flat_map(|tenant| tenant.document.teams.iter().map(move |team| (tenant, team)))
        };
        let organizations: Vec<i64> = teams().map(|(tenant, _)| tenant.id).collect();
        let slugs: Vec<&str> = teams().map(|(_, team)| team.slug.as_str()).collect();
        let ids = self.upsert("teams", SQL, &[&organizations, &slugs]).await?;
        let at = |tenant: &Tenant<'_>, slug: &str| {
            format!("team {slug} of organization {}", tenant.document.slug)
        };
        let (mut in_teams, mut members) = (Vec::new(), Vec::new());
        for ((tenant, team), id) in teams().zip(ids) {
            for email in &team.members {
                in_teams.push(id);
                members.push(people.id(0, &email_key(email), || at(tenant, &team.slug))?);
            }
        }
        self.write("team_members", MEMBERS, &[&in_teams, &members])
            .await
    }
}
