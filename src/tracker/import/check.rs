//! Checks of a document that do not need the tables.

use std::collections::HashSet;

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::tracker::{
    IntegrationDocument, OrganizationDocument, ProjectDocument, TrackerDocument, TrackerFault,
    UserDocument, email_key,
};

/// Refuses a document that contradicts itself.
pub(super) fn check(document: &TrackerDocument) -> Result<(), TrackerFault> {
    users(&document.users)?;
    distinct(
        "integrations",
        document
            .integrations
            .iter()
            .map(|integration| integration.account_id.to_lowercase()),
    )?;
    document.integrations.iter().try_for_each(hook_secrets)?;
    distinct(
        "organizations",
        document
            .organizations
            .iter()
            .map(|organization| organization.slug.clone()),
    )?;
    document.organizations.iter().try_for_each(organization)
}

fn users(users: &[UserDocument]) -> Result<(), TrackerFault> {
    let mut owners = HashSet::new();
    for user in users {
        if user.emails.is_empty() {
            return wrong(
                format!("user {}", user.name),
                "at least one e-mail is required: the first one is the key",
            );
        }
        let emails: HashSet<String> = user.emails.iter().map(|email| email_key(email)).collect();
        for email in emails {
            if email.is_empty() {
                return wrong(format!("user {}", user.name), "an e-mail is empty");
            }
            if !owners.insert(email.clone()) {
                return wrong(
                    format!("user {}", user.name),
                    &format!("`{email}` belongs to another user of the document"),
                );
            }
        }
    }
    Ok(())
}

/// Parses a SHA-256 from its hexadecimal digits.
pub(super) fn sha256(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE
        .decode(hex.as_bytes())
        .ok()?
        .try_into()
        .ok()
}

fn hook_secrets(integration: &IntegrationDocument) -> Result<(), TrackerFault> {
    if integration
        .hook_secrets
        .iter()
        .any(|secret| secret.trim().is_empty())
    {
        return wrong(
            format!("integration {}", integration.account_id),
            "a hook secret is empty; leave it out instead",
        );
    }
    if integration
        .hook_secret_digests
        .iter()
        .any(|digest| sha256(&digest.sha256).is_none())
    {
        let problem = "a digest of a hook secret is not a SHA-256; use 64 hexadecimal digits";
        return wrong(format!("integration {}", integration.account_id), problem);
    }
    Ok(())
}

fn organization(organization: &OrganizationDocument) -> Result<(), TrackerFault> {
    let at = |what: &str| format!("{what} of organization {}", organization.slug);
    distinct(
        &at("identities"),
        organization
            .identities
            .iter()
            .map(|identity| identity.name.clone()),
    )?;
    let accounts = organization
        .installations
        .iter()
        .map(|installation| installation.account_id.to_lowercase());
    distinct(&at("installations"), accounts)?;
    distinct(
        &at("teams"),
        organization.teams.iter().map(|team| team.slug.clone()),
    )?;
    distinct(
        &at("projects"),
        organization
            .projects
            .iter()
            .map(|project| project.slug.clone()),
    )?;
    distinct(
        &at("destinations"),
        organization
            .destinations
            .iter()
            .map(|destination| destination.name.clone()),
    )?;
    for identity in &organization.identities {
        let at = || at(&format!("identity {}", identity.name));
        if identity
            .access_token
            .as_ref()
            .is_some_and(|token| token.trim().is_empty())
        {
            return wrong(at(), "the access token is empty");
        }
        if identity
            .refresh_token
            .as_ref()
            .is_some_and(|token| token.trim().is_empty())
        {
            return wrong(at(), "the refresh token is empty; leave it out instead");
        }
        if identity.access_token.is_some() != identity.expires_at.is_some() {
            return wrong(
                at(),
                "access_token and expires_at belong together; use both or neither",
            );
        }
    }
    for destination in &organization.destinations {
        if !["resend", "hold"].contains(&destination.unknown_policy.as_str()) {
            let problem = format!(
                "there is no unknown_policy `{}`; use resend or hold",
                destination.unknown_policy
            );
            return wrong(at(&format!("destination {}", destination.name)), &problem);
        }
    }
    organization
        .projects
        .iter()
        .try_for_each(|project| groups(organization, project))
}

fn groups(
    organization: &OrganizationDocument,
    project: &ProjectDocument,
) -> Result<(), TrackerFault> {
    let at = format!(
        "groups of project {} of organization {}",
        project.slug, organization.slug
    );
    distinct(
        &at,
        project.groups.iter().map(|group| group.short_id.clone()),
    )?;
    for group in &project.groups {
        if let Some(link) = group.links.iter().find(|link| link.work_item_id <= 0) {
            let problem = format!(
                "there is no work item {}; use a number from 1",
                link.work_item_id
            );
            return wrong(format!("group {}", group.short_id), &problem);
        }
    }
    Ok(())
}

fn distinct(at: &str, keys: impl Iterator<Item = String>) -> Result<(), TrackerFault> {
    let mut seen = HashSet::new();
    for key in keys {
        if key.trim().is_empty() {
            return wrong(at.to_owned(), "a key is empty");
        }
        if let Some(twice) = seen.replace(key) {
            return wrong(
                at.to_owned(),
                &format!("`{twice}` occurs twice; use it once"),
            );
        }
    }
    Ok(())
}

fn wrong<T>(at: String, problem: &str) -> Result<T, TrackerFault> {
    Err(TrackerFault::Document {
        at,
        problem: problem.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(document: serde_json::Value) -> String {
        let document: TrackerDocument = serde_json::from_value(document).unwrap();
        check(&document).unwrap_err().to_string()
    }

    #[test]
    fn users_and_integrations_that_contradict_themselves_are_refused() {
        let users = |users: serde_json::Value| json!({"users": users});
        let integration = |extra: serde_json::Value| {
            let mut whole = json!({"account_id": "A", "account_name": "a"});
            whole
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            json!({"integrations": [whole]})
        };
        let table = [
            (
                users(json!([{"name": "Ann", "emails": []}])),
                "at least one e-mail",
            ),
            (
                users(json!([{"name": "Ann", "emails": [" "]}])),
                "an e-mail is empty",
            ),
            (
                users(
                    json!([{"name": "A", "emails": ["x@y.z"]}, {"name": "B", "emails": ["b@y.z", "X@y.z"]}]),
                ),
                "`x@y.z` belongs",
            ),
            (
                integration(json!({"hook_secrets": [""]})),
                "hook secret is empty",
            ),
            (
                integration(json!({"hook_secret_digests": [{"sha256": "ab"}]})),
                "64 hexadecimal digits",
            ),
        ];
        for (document, expected) in table {
            let error = refusal(document);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_organization_that_contradicts_itself_is_refused() {
        let settings =
            json!({"assignee_inbound": true, "assignee_outbound": true, "status_inbound": true});
        let identity =
            json!({"name": "bot", "access_token": " ", "expires_at": "2026-01-01T00:00:00Z"});
        let installation = |id: &str| json!({"account_id": id, "settings": settings});
        let group = json!({"short_id": "WEB-1", "title": "It", "links": [{"account_id": "A", "work_item_id": 0}]});
        let table = [
            (json!({"identities": [identity]}), "access token is empty"),
            (
                json!({"identities": [{"name": "bot", "access_token": "t"}]}),
                "both or neither",
            ),
            (
                json!({"identities": [{"name": "bot", "refresh_token": " "}]}),
                "refresh token is empty",
            ),
            (
                json!({"installations": [installation("A"), installation("a")]}),
                "`a` occurs twice",
            ),
            (
                json!({"destinations": [{"name": "d", "kind": "k", "config": {}, "unknown_policy": "x"}]}),
                "resend or hold",
            ),
            (
                json!({"projects": [{"slug": "web", "name": "Web", "groups": [group]}]}),
                "a number from 1",
            ),
            (
                json!({"teams": [{"slug": " ", "members": []}]}),
                "a key is empty",
            ),
        ];
        for (part, expected) in table {
            let mut organization = json!({"slug": "acme", "name": "Acme"});
            organization
                .as_object_mut()
                .unwrap()
                .extend(part.as_object().unwrap().clone());
            let error = refusal(json!({"organizations": [organization]}));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn one_person_may_give_an_address_twice() {
        let document = json!({"users": [{"name": "Ann", "emails": ["ann@x.y", "Ann@X.y"]}]});
        check(&serde_json::from_value(document).unwrap()).unwrap();
    }
}
