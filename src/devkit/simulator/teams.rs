//! Microsoft Teams workflows that post the bodies their webhooks receive, at
//! `/teams/NAME?sig=SIGNATURE`.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::call::{Description, ReceivedCall, SimulatedAnswer};
use super::world::World;

/// The largest body, in bytes.
const BODY_BYTES: usize = 28 * 1024;
const CARD: &str = "application/vnd.microsoft.card.adaptive";

/// Describes a request by its workflow. There is no key, because a workflow does not dedupe.
pub(super) fn describe(call: &ReceivedCall) -> Description {
    Description {
        key: None,
        subject: call.segments.get(1).map(|name| format!("teams:{name}")),
    }
}

/// Answers one request.
pub(super) fn answer(world: &mut World, call: &ReceivedCall) -> SimulatedAnswer {
    let ["teams", name] = call.parts()[..] else {
        return refusal(StatusCode::NOT_FOUND, "the path is /teams/NAME");
    };
    let Some(workflow) = world.state.teams.get_mut(name) else {
        return refusal(StatusCode::NOT_FOUND, "there is no such workflow");
    };
    if call.query.get("sig") != Some(&workflow.signature) {
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
