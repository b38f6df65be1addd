//! Discord v10: messages in channels (<https://discord.com/developers/docs/resources/message>).

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::discord_webhooks;
use super::hooks::timestamp;
use super::state::Message;
use super::world::World;
use crate::providers::simulated::{Description, ReceivedCall, SimulatedAnswer};

/// The longest text, in characters.
pub(super) const CONTENT_CHARS: usize = 2000;
/// The longest nonce, in characters.
const NONCE_CHARS: usize = 25;
/// The first time that a snowflake can represent, in milliseconds since 1970.
const EPOCH_MILLIS: i128 = 1_420_070_400_000;

/// The fields of a new message that are read.
#[derive(Deserialize)]
struct NewMessage {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    nonce: Value,
    #[serde(default)]
    enforce_nonce: Option<bool>,
    #[serde(default)]
    allowed_mentions: Value,
}

/// Describes a request by its channel, with the nonce as key.
pub(super) fn describe(call: &ReceivedCall) -> Description {
    if let Some(description) = discord_webhooks::describe(call) {
        return description;
    }
    let ["api", "v10", "channels", channel, ..] = call.parts()[..] else {
        return Description::default();
    };
    let nonce = call
        .json::<NewMessage>()
        .ok()
        .and_then(|message| nonce_text(&message.nonce));
    Description {
        key: nonce,
        subject: Some(format!("discord:{channel}")),
    }
}

/// Answers one request.
pub(super) fn answer(world: &mut World, call: &ReceivedCall) -> SimulatedAnswer {
    if let Some(answer) = discord_webhooks::answer(world, call) {
        return answer;
    }
    let token = call
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bot "));
    if !token.is_some_and(|token| world.state.discord.tokens.contains(token)) {
        return refusal(StatusCode::UNAUTHORIZED, 0, "401: Unauthorized");
    }
    let ["api", "v10", "channels", channel, "messages"] = call.parts()[..] else {
        return refusal(StatusCode::NOT_FOUND, 0, "404: Not Found");
    };
    if !world.state.discord.channels.contains_key(channel) {
        return refusal(StatusCode::NOT_FOUND, 10003, "Unknown Channel");
    }
    match call.method {
        Method::POST => create(world, call, channel),
        Method::GET => list(world, call, channel),
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, 0, "405: Method Not Allowed"),
    }
}

fn create(world: &mut World, call: &ReceivedCall, channel: &str) -> SimulatedAnswer {
    let Ok(new) = call.json::<NewMessage>() else {
        return refusal(
            StatusCode::BAD_REQUEST,
            50109,
            "The request body contains invalid JSON.",
        );
    };
    let content = match new.content {
        Some(text) if !text.is_empty() => text,
        Some(_) | None => {
            return refusal(
                StatusCode::BAD_REQUEST,
                50006,
                "Cannot send an empty message",
            );
        }
    };
    if content.chars().count() > CONTENT_CHARS {
        return invalid(
            "content",
            "BASE_TYPE_MAX_LENGTH",
            &format!("Must be {CONTENT_CHARS} or fewer in length."),
        );
    }
    let nonce = match checked_nonce(&new.nonce) {
        Ok(nonce) => nonce,
        Err(answer) => return answer,
    };
    let now = world.tick();
    let remembered_since = now - Duration::seconds(world.state.options.nonce_seconds);
    let messages = world
        .state
        .discord
        .channels
        .entry(channel.to_owned())
        .or_default();
    if new.enforce_nonce == Some(true) && nonce.is_some() {
        let mut recent = messages
            .iter()
            .rev()
            .take_while(|message| message.timestamp >= remembered_since);
        if let Some(made) = recent.find(|message| message.nonce == new.nonce) {
            return SimulatedAnswer::ok(&shown(channel, made))
                .detail(json!({ "deduped": true, "message": made.id }));
        }
    }
    let id = snowflake(now);
    let detail = json!({ "message": id });
    messages.push(Message {
        id,
        content,
        nonce: new.nonce,
        allowed_mentions: new.allowed_mentions,
        timestamp: now,
    });
    let made = messages
        .last()
        .map(|made| shown(channel, made))
        .unwrap_or_default();
    SimulatedAnswer::ok(&made).effect().detail(detail)
}

/// Returns the nonce as text, or the refusal of an invalid one.
fn checked_nonce(value: &Value) -> Result<Option<String>, SimulatedAnswer> {
    let nonce = nonce_text(value);
    if nonce.is_none() && !value.is_null() {
        return Err(invalid(
            "nonce",
            "NONCE_TYPE_NONCE",
            "Must be a string or an integer.",
        ));
    }
    if nonce
        .as_ref()
        .is_some_and(|nonce| nonce.chars().count() > NONCE_CHARS)
    {
        return Err(invalid(
            "nonce",
            "NONCE_TYPE_TOO_LONG",
            &format!("Must be {NONCE_CHARS} or fewer in length."),
        ));
    }
    Ok(nonce)
}

/// Lists messages, newest first.
fn list(world: &World, call: &ReceivedCall, channel: &str) -> SimulatedAnswer {
    let limit = call
        .query
        .get("limit")
        .map_or(Ok(50), |limit| limit.parse::<usize>());
    let Some(limit) = limit.ok().filter(|limit| (1..=100).contains(limit)) else {
        return invalid(
            "limit",
            "NUMBER_TYPE_RANGE",
            "int value should be between 1 and 100.",
        );
    };
    let messages = world
        .state
        .discord
        .channels
        .get(channel)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let page: Vec<Value> = messages
        .iter()
        .rev()
        .take(limit)
        .map(|message| shown(channel, message))
        .collect();
    SimulatedAnswer::ok(&Value::Array(page))
}

/// Returns the id of an object created at this time.
pub(super) fn snowflake(at: OffsetDateTime) -> String {
    let millis = at.unix_timestamp_nanos() / 1_000_000 - EPOCH_MILLIS;
    (millis << 22).to_string()
}

/// Returns a nonce as text, or `None` if there is none or it is neither a string nor an integer.
fn nonce_text(nonce: &Value) -> Option<String> {
    match nonce {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

/// Returns a `MessageResponse` with every required member.
fn shown(channel: &str, message: &Message) -> Value {
    let mut shown = json!({
        "id": message.id,
        "channel_id": channel,
        "type": 0,
        "content": message.content,
        "author": {
            "id": "1000000000000000001", "username": "dispatch", "discriminator": "0000", "global_name": null,
            "avatar": null, "bot": true, "flags": 0, "public_flags": 0, "primary_guild": null
        },
        "timestamp": timestamp(message.timestamp),
        "edited_timestamp": null,
        "tts": false,
        "mention_everyone": false,
        "mentions": [],
        "mention_roles": [],
        "attachments": [],
        "embeds": [],
        "components": [],
        "pinned": false,
        "flags": 0
    });
    if !message.nonce.is_null() {
        shown["nonce"] = message.nonce.clone();
    }
    shown
}

pub(super) fn invalid(field: &str, code: &str, message: &str) -> SimulatedAnswer {
    let errors = json!({ field: { "_errors": [{ "code": code, "message": message }] } });
    let body = json!({ "message": "Invalid Form Body", "code": 50035, "errors": errors });
    SimulatedAnswer::json(StatusCode::BAD_REQUEST, &body)
}

pub(super) fn refusal(status: StatusCode, code: u32, message: &str) -> SimulatedAnswer {
    SimulatedAnswer::json(status, &json!({ "message": message, "code": code }))
}
