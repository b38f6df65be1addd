//! The scopes of holds. A misspelt scope would hold nothing without an error, so each is checked
//! against what exists.
//!
//! A scope with two `|` is a destination; the others begin with their kind and a colon, and contain
//! no `|`.

use std::collections::BTreeSet;

use crate::pipelines;
use crate::providers::{provider_names, provider_title};

/// Checks the form of a scope, and the names in it that the program knows: lanes, pipelines, stages
/// and providers.
///
/// # Errors
/// What is expected.
pub fn check_scope(text: &str) -> Result<(), String> {
    if text.contains('|') {
        return check_destination(text);
    }
    match text.split_once(':') {
        Some(("lane", lane)) => check_name("a lane", lane, &lanes()),
        Some(("stage", stage)) => check_name("a stage", stage, &stages()),
        Some(("provider", provider)) => check_name(
            "a provider",
            provider,
            &provider_names().map(str::to_owned).collect(),
        ),
        Some(("organization", slug)) if !slug.trim().is_empty() => Ok(()),
        _ => Err(format!(
            "expected a destination, 'lane:NAME', 'stage:PIPELINE/STAGE', 'organization:SLUG' or 'provider:NAME', got '{text}'; \
             use 'acme|discord|7' or 'lane:messaging' for example, or a scope as `dispatch holds list` shows it"
        )),
    }
}

/// Returns the name of a scope for people: `contoso's Azure DevOps`, `the lane messaging`. A scope of
/// another form is returned as it is.
#[must_use]
pub fn name_of_scope(scope: &str) -> String {
    let title = |provider| provider_title(provider).unwrap_or(provider);
    let parts: Vec<&str> = scope.split('|').collect();
    if let [organization, provider, place] = parts.as_slice() {
        return match (*organization, place.parse::<i64>()) {
            ("*", _) => format!("{} ({place})", title(provider)),
            (_, Ok(id)) => format!("{organization}'s {} (destination {id})", title(provider)),
            (_, Err(_)) => format!("{organization}'s {}", title(provider)),
        };
    }
    match scope.split_once(':') {
        Some(("lane", lane)) => format!("the lane {lane}"),
        Some(("stage", stage)) => format!("the stage {stage}"),
        Some(("organization", slug)) => format!("the organization {slug}"),
        Some(("provider", provider)) => title(provider).to_owned(),
        _ => scope.to_owned(),
    }
}

/// Returns the organization that a scope names, whose existence the transaction checks.
pub(super) fn organization_of(scope: &str) -> Option<&str> {
    scope.strip_prefix("organization:")
}

fn check_destination(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('|').collect();
    if parts.len() == 3 && parts.iter().all(|part| !part.trim().is_empty()) {
        return Ok(());
    }
    Err("expected three parts, such as 'acme|azure_devops|dev.azure.com' or 'acme|discord|7'; use a scope as `dispatch holds list` \
         shows it"
        .to_owned())
}

fn check_name(what: &str, name: &str, known: &BTreeSet<String>) -> Result<(), String> {
    if known.contains(name) {
        return Ok(());
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    Err(format!(
        "expected {what} that exists, got '{name}'; use one of: {}",
        known.join(", ")
    ))
}

fn lanes() -> BTreeSet<String> {
    pipelines::registry()
        .iter()
        .map(|pipeline| pipeline.lane.name.to_owned())
        .collect()
}

fn stages() -> BTreeSet<String> {
    let registry = pipelines::registry();
    registry
        .iter()
        .flat_map(|pipeline| {
            let names = pipeline.stages().map(|stage| stage.name);
            names.map(|stage| format!("{}/{stage}", pipeline.name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_a_name_for_people() {
        for (scope, name) in [
            (
                "contoso|azure_devops|dev.azure.com",
                "contoso's Azure DevOps",
            ),
            ("acme|discord|7", "acme's Discord (destination 7)"),
            ("*|slack|T1", "Slack (T1)"),
            ("lane:messaging", "the lane messaging"),
            ("organization:acme", "the organization acme"),
            ("provider:teams", "Microsoft Teams"),
            ("all", "all"),
        ] {
            assert_eq!(name_of_scope(scope), name);
        }
    }

    #[test]
    fn a_destination_has_three_parts() {
        for right in [
            "acme|azure_devops|dev.azure.com",
            "*|discord|bot-1f2e3d4c5b6a7988",
            "acme|webhook|7#seats",
        ] {
            assert_eq!(check_scope(right), Ok(()));
        }
        for wrong in ["acme", "acme|discord", "acme||7", "acme|discord|7|8"] {
            assert!(check_scope(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wider_scope_names_something_that_exists_and_an_error_lists_it() {
        for right in [
            "lane:messaging",
            "stage:dispatch/check_account",
            "provider:azure_devops",
            "organization:acme",
        ] {
            assert_eq!(check_scope(right), Ok(()), "{right}");
        }
        for (wrong, expected) in [
            ("lane:mesaging", "messaging"),
            ("stage:check_account", "dispatch/check_account"),
            ("stage:messaging/check_account", "messaging/deliver_message"),
            ("provider:slak", "slack"),
            ("organization:", "organization:SLUG"),
            ("all", "lane:NAME"),
            ("queue:dispatch", "lane:NAME"),
        ] {
            let error = check_scope(wrong).unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }
}
