//! Checks of the fields of an intake message: lengths, numbers of entries, names and dates.

use serde_json::Value;
use time::{OffsetDateTime, UtcOffset};

use super::refusal::Refusal;
use super::{
    ACCOUNT_LENGTH, EVENTS_LIMIT, NAME_LENGTH, NOTIFY_LIMIT, SEARCH_LENGTH, SEARCH_LIMIT,
    SEARCH_NAME_LENGTH, SEARCH_NAMES_LIMIT, Search, TOKEN_LENGTH, wire,
};

pub(super) fn key_field(
    peek: &Value,
    name: &'static str,
    beside: Option<&str>,
    limit: usize,
) -> Result<String, Refusal> {
    let value = match peek.get(name) {
        None | Some(Value::Null) => beside.ok_or(Refusal::Missing(name))?,
        Some(value) => value
            .as_str()
            .ok_or_else(|| invalid(name, "expected a string"))?,
    };
    text_field(name, value, limit)?;
    Ok(value.to_owned())
}

fn text_field(path: &str, value: &str, limit: usize) -> Result<(), Refusal> {
    wire::check_text(value, limit).map_err(|detail| invalid(path, &detail))
}

fn names_field(path: &str, names: &[String], limit: usize, length: usize) -> Result<(), Refusal> {
    if names.len() > limit {
        return Err(invalid(
            path,
            &format!("expected at most {limit} names, got {}", names.len()),
        ));
    }
    names
        .iter()
        .try_for_each(|name| text_field(path, name, length))
}

/// Checks that a time can be written in UTC, as Postgres stores it: near the ends of the calendar,
/// its year in UTC may be one that RFC 3339 cannot write.
fn date_field(path: &str, value: Option<OffsetDateTime>) -> Result<(), Refusal> {
    let Some(value) = value else { return Ok(()) };
    match value.checked_to_offset(UtcOffset::UTC) {
        Some(utc) if (0..=9999).contains(&utc.year()) => Ok(()),
        Some(_) | None => Err(invalid(
            path,
            "expected a time in the years 0000 to 9999, in UTC",
        )),
    }
}

pub(super) fn check_job(wire: &wire::Job) -> Result<(), Refusal> {
    text_field("organization", &wire.organization, NAME_LENGTH)?;
    for (path, value) in [("account", &wire.account), ("identity", &wire.identity)] {
        if let Some(value) = value {
            text_field(path, value, ACCOUNT_LENGTH)?;
        }
    }
    for (path, value) in [("not_before", wire.not_before), ("deadline", wire.deadline)] {
        date_field(path, value)?;
    }
    if wire.events.len() > EVENTS_LIMIT {
        return Err(Refusal::TooManyEvents(wire.events.len()));
    }
    if let Some(search) = &wire.search {
        check_search(search)?;
    }
    if let Some(interaction) = &wire.interaction {
        check_interaction(interaction)?;
    }
    names_field(
        "notify",
        wire.notify.as_deref().unwrap_or_default(),
        NOTIFY_LIMIT,
        ACCOUNT_LENGTH,
    )
}

fn check_search(search: &Search) -> Result<(), Refusal> {
    text_field("search.text", &search.text, SEARCH_LENGTH)?;
    if let Some(project) = &search.project {
        text_field("search.project", project, SEARCH_NAME_LENGTH)?;
        if !wire::is_segment(project) {
            let right = "expected a project's name or id: no control characters, and not only dots and blanks";
            return Err(invalid("search.project", right));
        }
    }
    for (path, names) in [
        ("search.work_item_types", &search.work_item_types),
        ("search.states", &search.states),
    ] {
        names_field(path, names, SEARCH_NAMES_LIMIT, SEARCH_NAME_LENGTH)?;
    }
    if !(1..=SEARCH_LIMIT).contains(&search.limit) {
        return Err(invalid(
            "search.limit",
            &format!("expected 1 to {SEARCH_LIMIT}"),
        ));
    }
    Ok(())
}

/// Checks the parts of an interaction that become part of a URL, so that none can lead to another
/// address.
fn check_interaction(interaction: &wire::Interaction) -> Result<(), Refusal> {
    if !wire::is_discord_id(&interaction.application_id) {
        return Err(invalid(
            "interaction.application_id",
            "expected a Discord id: up to 20 digits, as a string",
        ));
    }
    if interaction
        .message_id
        .as_deref()
        .is_some_and(|id| id != "@original" && !wire::is_discord_id(id))
    {
        return Err(invalid(
            "interaction.message_id",
            "expected a Discord id, as a string, or `@original`",
        ));
    }
    text_field("interaction.token", &interaction.token, TOKEN_LENGTH)?;
    if !wire::is_interaction_token(&interaction.token) {
        return Err(invalid(
            "interaction.token",
            "expected the token as issued by Discord",
        ));
    }
    Ok(())
}

pub(super) fn invalid(path: &str, detail: &str) -> Refusal {
    Refusal::Invalid {
        path: path.to_owned(),
        detail: detail.to_owned(),
    }
}
