//! Imports projects, their members and groups, and the groups' links.

use super::names::Names;
use super::{Import, Tenant};
use crate::tracker::{GroupDocument, ProjectDocument, TrackerFault, email_key};

/// A project whose row exists.
struct Project<'a> {
    id: i64,
    tenant: &'a Tenant<'a>,
    document: &'a ProjectDocument,
}

impl Import<'_> {
    pub(super) async fn projects(
        &mut self,
        tenants: &[Tenant<'_>],
        people: &Names,
        accounts: &Names,
    ) -> Result<(), TrackerFault> {
        const SQL: &str = "
            WITH given AS (
                SELECT organization_id, slug, name, n
                FROM unnest($1::bigint[], $2::text[], $3::text[]) WITH ORDINALITY AS g (organization_id, slug, name, n)
            ), written AS (
                INSERT INTO projects (organization_id, slug, name)
                SELECT g.organization_id, g.slug, g.name
                FROM given g
                LEFT JOIN projects t ON t.organization_id = g.organization_id AND t.slug = g.slug
                WHERE t.id IS NULL OR t.name IS DISTINCT FROM g.name
                ORDER BY t.id, g.n
                ON CONFLICT (organization_id, slug) DO UPDATE SET name = EXCLUDED.name
                RETURNING id, organization_id, slug
            )
            SELECT coalesce(w.id, t.id) AS id, w.id IS NOT NULL AS changed
            FROM given g
            LEFT JOIN written w ON w.organization_id = g.organization_id AND w.slug = g.slug
            LEFT JOIN projects t ON t.organization_id = g.organization_id AND t.slug = g.slug
            ORDER BY g.n";
        let given = || {
            tenants.iter().flat_map(|tenant| {
                tenant
                    .document
                    .projects
                    .iter()
                    .map(move |project| (tenant, project))
            })
        };
        let organizations: Vec<i64> = given().map(|(tenant, _)| tenant.id).collect();
        let slugs: Vec<&str> = given().map(|(_, project)| project.slug.as_str()).collect();
        let names: Vec<&str> = given().map(|(_, project)| project.name.as_str()).collect();
        let ids = self
            .upsert("projects", SQL, &[&organizations, &slugs, &names])
            .await?;
        let project = |((tenant, document), id)| Project {
            id,
            tenant,
            document,
        };
        let projects: Vec<Project<'_>> = given().zip(ids).map(project).collect();
        self.members(&projects, people).await?;
        self.groups(&projects, accounts).await
    }

    async fn members(
        &mut self,
        projects: &[Project<'_>],
        people: &Names,
    ) -> Result<(), TrackerFault> {
        const SQL: &str = "
            INSERT INTO project_members (project_id, user_id)
            SELECT DISTINCT g.project_id, g.user_id
            FROM unnest($1::bigint[], $2::bigint[]) AS g (project_id, user_id)
            ON CONFLICT (project_id, user_id) DO NOTHING";
        let (mut in_projects, mut members) = (Vec::new(), Vec::new());
        for project in projects {
            let at = || {
                format!(
                    "project {} of organization {}",
                    project.document.slug, project.tenant.document.slug
                )
            };
            for email in &project.document.members {
                in_projects.push(project.id);
                members.push(people.id(0, &email_key(email), at)?);
            }
        }
        self.write("project_members", SQL, &[&in_projects, &members])
            .await
    }

    async fn groups(
        &mut self,
        projects: &[Project<'_>],
        accounts: &Names,
    ) -> Result<(), TrackerFault> {
        const TEAMS: &str = "SELECT organization_id AS scope, slug AS name, id FROM teams WHERE organization_id = ANY ($1)";
        const SQL: &str = "
            WITH given AS (
                SELECT project_id, short_id, title, team_id, n
                FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[])
                     WITH ORDINALITY AS g (project_id, short_id, title, team_id, n)
            ), written AS (
                INSERT INTO issue_groups (project_id, short_id, title, team_id)
                SELECT g.project_id, g.short_id, g.title, g.team_id
                FROM given g
                LEFT JOIN issue_groups t ON t.project_id = g.project_id AND t.short_id = g.short_id
                WHERE t.id IS NULL OR (t.title, t.team_id) IS DISTINCT FROM (g.title, g.team_id)
                ORDER BY t.id, g.n
                ON CONFLICT (project_id, short_id) DO UPDATE SET title = EXCLUDED.title, team_id = EXCLUDED.team_id
                RETURNING id, project_id, short_id
            )
            SELECT coalesce(w.id, t.id) AS id, w.id IS NOT NULL AS changed
            FROM given g
            LEFT JOIN written w ON w.project_id = g.project_id AND w.short_id = g.short_id
            LEFT JOIN issue_groups t ON t.project_id = g.project_id AND t.short_id = g.short_id
            ORDER BY g.n";
        let organizations: Vec<i64> = projects.iter().map(|project| project.tenant.id).collect();
        let known_teams = Names::of("team", &self.rows(TEAMS, &[&organizations]).await?)?;
        let (mut in_projects, mut short_ids, mut titles, mut teams) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for project in projects {
            for group in &project.document.groups {
                let team = |name| known_teams.id(project.tenant.id, name, || at(project, group));
                in_projects.push(project.id);
                short_ids.push(group.short_id.as_str());
                titles.push(group.title.as_str());
                teams.push(group.team.as_deref().map(team).transpose()?);
            }
        }
        let ids = self
            .upsert(
                "issue_groups",
                SQL,
                &[&in_projects, &short_ids, &titles, &teams],
            )
            .await?;
        self.links(projects, &ids, accounts).await
    }

    async fn links(
        &mut self,
        projects: &[Project<'_>],
        ids: &[i64],
        accounts: &Names,
    ) -> Result<(), TrackerFault> {
        const ISSUES: &str = "
            INSERT INTO external_issues (integration_id, work_item_id)
            SELECT DISTINCT g.integration_id, g.work_item_id
            FROM unnest($1::bigint[], $2::bigint[]) AS g (integration_id, work_item_id)
            LEFT JOIN external_issues t ON t.integration_id = g.integration_id AND t.work_item_id = g.work_item_id
            WHERE t.id IS NULL
            ORDER BY g.integration_id, g.work_item_id
            ON CONFLICT (integration_id, work_item_id) DO NOTHING";
        const LINKS: &str = "
            INSERT INTO group_links (group_id, external_issue_id)
            SELECT DISTINCT g.group_id, e.id
            FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS g (group_id, integration_id, work_item_id)
            JOIN external_issues e ON e.integration_id = g.integration_id AND e.work_item_id = g.work_item_id
            ON CONFLICT (group_id, external_issue_id) DO NOTHING";
        let groups = projects.iter().flat_map(|project| {
            project
                .document
                .groups
                .iter()
                .map(move |group| (project, group))
        });
        let (mut group_ids, mut integrations, mut work_items) =
            (Vec::new(), Vec::new(), Vec::new());
        for ((project, group), id) in groups.zip(ids) {
            for link in &group.links {
                group_ids.push(*id);
                integrations
                    .push(accounts.id(0, &link.account_id.to_lowercase(), || at(project, group))?);
                work_items.push(link.work_item_id);
            }
        }
        self.write("external_issues", ISSUES, &[&integrations, &work_items])
            .await?;
        self.write(
            "group_links",
            LINKS,
            &[&group_ids, &integrations, &work_items],
        )
        .await
    }
}

fn at(project: &Project<'_>, group: &GroupDocument) -> String {
    format!(
        "group {} of project {} of organization {}",
        group.short_id, project.document.slug, project.tenant.document.slug
    )
}
