//! The simulated workflows that post the bodies their webhooks receive, at
//! `/teams/NAME?sig=SIGNATURE`. A room is a workflow, and its secret the signature.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::providers::simulated::{
    Description, ReceivedCall, Rooms, SimulatedAnswer, SimulatedChannel,
};

pub(super) const SIMULATED: SimulatedChannel = SimulatedChannel {
    room: "flow",
    destination: |simulator, signature| {
        let address = format!("{simulator}/teams/{}?sig={signature}", SIMULATED.room);
        (json!({}), address)
    },
    api: "",
    secrets_in_query: &["sig"],
    is_keyed: false,
    describe,
    answer,
};

/// The largest body, in bytes.
const BODY_BYTES: usize = 28 * 1024;
const CARD: &str = "application/vnd.microsoft.card.adaptive";

/// Describes a request by its workflow. There is no key, because a workflow does not dedupe.
fn describe(call: &ReceivedCall) -> Description {
    Description {
        key: None,
        subject: call.segments.get(1).map(|name| format!("teams:{name}")),
    }
}

/// Answers one request.
fn answer(rooms: &mut Rooms, call: &ReceivedCall, _: OffsetDateTime) -> SimulatedAnswer {
    let ["teams", name] = call.parts()[..] else {
        return refusal(StatusCode::NOT_FOUND, "the path is /teams/NAME");
    };
    let Some(workflow) = rooms.get_mut(name) else {
        return refusal(StatusCode::NOT_FOUND, "there is no such workflow");
    };
    if call.query.get("sig") != Some(&workflow.secret) {
        return refusal(StatusCode::UNAUTHORIZED, "the signature is not right");
    }
    if call.method != Method::POST {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "the method is POST");
    }
    if call.body.len() > BODY_BYTES {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    }
    let Ok(body) = call.json::<Value>() else {
        return refusal(StatusCode::BAD_REQUEST, "the body is no JSON");
    };
    let attachment = &body["attachments"][0];
    let is_card = body["type"] == "message"
        && attachment["contentType"] == CARD
        && attachment["content"]["body"].is_array();
    if !is_card {
        return refusal(
            StatusCode::BAD_REQUEST,
            "the body is no message with a card",
        );
    }
    workflow.received.push(body);
    SimulatedAnswer::text(StatusCode::ACCEPTED, "text/plain", "").effect()
}

fn refusal(status: StatusCode, message: &str) -> SimulatedAnswer {
    SimulatedAnswer::json(status, &json!({ "error": { "message": message } }))
        .detail(json!({ "refused": message }))
}
