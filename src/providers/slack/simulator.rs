//! The simulated `chat.postMessage` (<https://docs.slack.dev/reference/methods/chat.postMessage/>),
//! below `/slack/api`. A room is a channel, and its secret a bot token, which may write to every
//! channel.

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::providers::simulated::{
    Description, ReceivedCall, Rooms, SimulatedAnswer, SimulatedChannel,
};

pub(super) const SIMULATED: SimulatedChannel = SimulatedChannel {
    room: "C042",
    destination: |_, token| (json!({"channel": SIMULATED.room}), token.to_owned()),
    api: "/slack/api",
    secrets_in_query: &[],
    is_keyed: false,
    describe,
    answer,
};

/// The longest text, in characters.
const TEXT_CHARS: usize = 40_000;

/// The fields of a new message that are read.
#[derive(Deserialize)]
struct NewMessage {
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    text: Option<String>,
}

/// Describes a request by its channel. There is no key, because Slack does not dedupe.
fn describe(call: &ReceivedCall) -> Description {
    let channel = call.json::<NewMessage>().ok().and_then(|new| new.channel);
    Description {
        key: None,
        subject: channel.map(|channel| format!("slack:{channel}")),
    }
}

/// Answers one request. Errors are reported inside a 200.
fn answer(rooms: &mut Rooms, call: &ReceivedCall, now: OffsetDateTime) -> SimulatedAnswer {
    let ["slack", "api", "chat.postMessage"] = call.parts()[..] else {
        return refusal("unknown_method");
    };
    if call.method != Method::POST {
        return SimulatedAnswer::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "the method is POST",
        );
    }
    match call.bearer() {
        None => return refusal("not_authed"),
        Some(token) if !rooms.values().any(|room| room.secret == token) => {
            return refusal("invalid_auth");
        }
        Some(_) => {}
    }
    if call.media_type() != "application/json" {
        return refusal("invalid_post_type");
    }
    let (Ok(body), Ok(NewMessage { channel, text })) = (call.json::<Value>(), call.json()) else {
        return refusal("invalid_json");
    };
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return refusal("no_text");
    }
    if text.chars().count() > TEXT_CHARS {
        return refusal("msg_too_long");
    }
    let channel = channel.unwrap_or_default();
    let Some(room) = rooms.get_mut(&channel) else {
        return refusal("channel_not_found");
    };
    room.received.push(body);
    let ts = format!("{}.{:06}", now.unix_timestamp(), now.microsecond());
    let message = json!({ "type": "message", "text": text, "ts": ts, "bot_id": "B0000000001" });
    let answer = json!({ "ok": true, "channel": channel, "ts": ts, "message": message });
    SimulatedAnswer::ok(&answer)
        .effect()
        .detail(json!({ "ts": ts }))
}

fn refusal(word: &str) -> SimulatedAnswer {
    SimulatedAnswer::ok(&json!({ "ok": false, "error": word })).detail(json!({ "refused": word }))
}
