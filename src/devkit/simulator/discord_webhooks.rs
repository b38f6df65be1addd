//! Discord v10: messages through a webhook's URL, and answers to interactions, which use the same
//! path (<https://discord.com/developers/docs/resources/webhook>).

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chats::Posted;
use super::discord::{CONTENT_CHARS, invalid, refusal, snowflake};
use super::world::World;
use crate::providers::simulated::{Description, ReceivedCall, SimulatedAnswer};

/// The fields of a new or edited message that are read.
#[derive(Deserialize)]
struct NewMessage {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    allowed_mentions: Value,
}

/// Returns the parts of the path after `webhooks`, with or without a version before it.
fn parts(call: &ReceivedCall) -> Option<Vec<&str>> {
    match call.parts()[..] {
        ["api", "v10", "webhooks", ref rest @ ..] | ["api", "webhooks", ref rest @ ..] => {
            Some(rest.to_vec())
        }
        _ => None,
    }
}

/// Describes a request by its webhook or application, never by the token. There is no key, because
/// neither dedupes.
pub(super) fn describe(call: &ReceivedCall) -> Option<Description> {
    let id = *parts(call)?.first()?;
    Some(Description {
        key: None,
        subject: Some(format!("discord_webhook:{id}")),
    })
}

/// Answers one request, if it is for this module.
pub(super) fn answer(world: &mut World, call: &ReceivedCall) -> Option<SimulatedAnswer> {
    let parts = parts(call)?;
    let [id, token, ref rest @ ..] = parts[..] else {
        return Some(refusal(StatusCode::NOT_FOUND, 10015, "Unknown Webhook"));
    };
    let new = match read(call) {
        Ok(new) => new,
        Err(answer) => return Some(answer),
    };
    let made = snowflake(world.tick());
    let (posted, is_click) = match messages(world, id, token) {
        Ok(found) => found,
        Err(answer) => return Some(answer),
    };
    let wait = is_click || call.query.get("wait").map(String::as_str) == Some("true");
    Some(match (&call.method, rest) {
        (&Method::POST, []) => create(posted, new, made, wait),
        (&Method::PATCH, ["messages", message]) => edit(posted, new, message),
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, 0, "405: Method Not Allowed"),
    })
}

/// Returns the list of messages, and whether it belongs to an interaction: that always returns a
/// new message, a webhook only with `wait`.
fn messages<'w>(
    world: &'w mut World,
    id: &str,
    token: &str,
) -> Result<(&'w mut Vec<Posted>, bool), SimulatedAnswer> {
    let discord = &mut world.state.discord;
    if let Some(webhook) = discord.webhooks.get_mut(id) {
        let is_right = webhook.token == token;
        return if is_right {
            Ok((&mut webhook.posted, false))
        } else {
            Err(refusal(
                StatusCode::UNAUTHORIZED,
                50027,
                "Invalid Webhook Token",
            ))
        };
    }
    match discord
        .clicks
        .get_mut(token)
        .filter(|click| click.application_id == id && !click.ended)
    {
        Some(click) => Ok((&mut click.posted, true)),
        None => Err(refusal(StatusCode::NOT_FOUND, 10015, "Unknown Webhook")),
    }
}

fn read(call: &ReceivedCall) -> Result<NewMessage, SimulatedAnswer> {
    let Ok(new) = call.json::<NewMessage>() else {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            50109,
            "The request body contains invalid JSON.",
        ));
    };
    match new.content.as_deref().unwrap_or_default().chars().count() {
        0 => Err(refusal(
            StatusCode::BAD_REQUEST,
            50006,
            "Cannot send an empty message",
        )),
        1..=CONTENT_CHARS => Ok(new),
        _ => Err(invalid(
            "content",
            "BASE_TYPE_MAX_LENGTH",
            &format!("Must be {CONTENT_CHARS} or fewer in length."),
        )),
    }
}

fn create(posted: &mut Vec<Posted>, new: NewMessage, id: String, wait: bool) -> SimulatedAnswer {
    let NewMessage {
        content,
        flags,
        allowed_mentions,
    } = new;
    let message = Posted {
        id,
        content: content.unwrap_or_default(),
        flags,
        allowed_mentions,
        edits: 0,
    };
    let detail = json!({ "message": message.id });
    let shown = json!({ "id": message.id, "content": message.content, "flags": message.flags });
    posted.push(message);
    let answer = if wait {
        SimulatedAnswer::ok(&shown)
    } else {
        SimulatedAnswer::text(StatusCode::NO_CONTENT, "application/json", "")
    };
    answer.effect().detail(detail)
}

fn edit(posted: &mut [Posted], new: NewMessage, id: &str) -> SimulatedAnswer {
    let known = if id == "@original" {
        posted.first_mut()
    } else {
        posted.iter_mut().find(|message| message.id == id)
    };
    let Some(message) = known else {
        return refusal(StatusCode::NOT_FOUND, 10008, "Unknown Message");
    };
    message.content = new.content.unwrap_or_default();
    message.allowed_mentions = new.allowed_mentions;
    message.edits += 1;
    let shown = json!({ "id": message.id, "content": message.content, "flags": message.flags });
    SimulatedAnswer::ok(&shown)
        .effect()
        .detail(json!({ "message": message.id, "edits": message.edits }))
}
