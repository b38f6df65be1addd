//! The scopes of holds. A misspelt scope would hold nothing without an error, so each is checked
//! against what exists.
//!
//! A scope with two `|` is a destination; the others begin with their kind and a colon, and contain
//! no `|`.

use std::collections::BTreeSet;

use crate::pipelines;
use crate::providers::provider_names;

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
