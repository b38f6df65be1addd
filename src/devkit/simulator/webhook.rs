//! A webhook receiver according to the Standard Webhooks specification
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use axum::http::{Method, StatusCode};
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;
use time::OffsetDateTime;

use super::state::{Delivered, WebhookMode};
use super::world::World;
use crate::providers::simulated::{Description, ReceivedCall, SimulatedAnswer};

/// The largest difference of `webhook-timestamp` from now, in seconds.
const TOLERANCE_SECONDS: i64 = 300;

/// Describes a request by its receiver, with `webhook-id` as key.
pub(super) fn describe(call: &ReceivedCall) -> Description {
    let key = call.header("webhook-id").map(str::to_owned);
    let subject = call.segments.get(1).map(|name| format!("webhook:{name}"));
    Description { key, subject }
}

/// Answers one request.
pub(super) fn answer(world: &mut World, call: &ReceivedCall) -> SimulatedAnswer {
    let parts = call.parts();
    let ["webhook", name] = parts[..] else {
        return refusal(StatusCode::NOT_FOUND, "the path is /webhook/NAME");
    };
    let Some(receiver) = world.state.webhooks.get_mut(name) else {
        return refusal(StatusCode::NOT_FOUND, "there is no such receiver");
    };
    if call.method != Method::POST {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "the method is POST");
    }
    let id = match verified(
        &receiver.secret,
        call,
        OffsetDateTime::now_utc().unix_timestamp(),
    ) {
        Ok(id) => id.to_owned(),
        Err(reason) => return refusal(StatusCode::UNAUTHORIZED, reason),
    };
    let is_new = receiver.keys.insert(id.clone());
    let accepted = SimulatedAnswer::ok(&json!({ "ok": true }));
    if !is_new && receiver.mode == WebhookMode::Keyed {
        return accepted.detail(json!({ "deduped": true }));
    }
    receiver.received.push(Delivered {
        id,
        body: String::from_utf8_lossy(&call.body).into_owned(),
    });
    accepted.effect().detail(json!({ "repeated": !is_new }))
}

/// Returns the `webhook-id` of a request that is signed with `secret` and current, or else the
/// reason for a refusal.
fn verified<'a>(secret: &str, call: &'a ReceivedCall, now: i64) -> Result<&'a str, &'static str> {
    let id = call.header("webhook-id").ok_or("webhook-id is missing")?;
    let timestamp = call
        .header("webhook-timestamp")
        .ok_or("webhook-timestamp is missing")?;
    let signatures = call
        .header("webhook-signature")
        .ok_or("webhook-signature is missing")?;
    let seconds: i64 = timestamp
        .parse()
        .map_err(|_| "webhook-timestamp is in whole seconds since 1970")?;
    if seconds.abs_diff(now) > TOLERANCE_SECONDS.unsigned_abs() {
        return Err("webhook-timestamp is too far from now");
    }
    let key = secret
        .strip_prefix("whsec_")
        .and_then(|encoded| BASE64.decode(encoded.as_bytes()).ok());
    let key = key.ok_or("the receiver's secret is whsec_ and base64")?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&key).map_err(|_| "the receiver's secret is no key")?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(&call.body);
    let of_version = signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"));
    let mut decoded = of_version.filter_map(|signature| BASE64.decode(signature.as_bytes()).ok());
    if decoded.any(|signature| mac.clone().verify_slice(&signature).is_ok()) {
        Ok(id)
    } else {
        Err("no signature fits")
    }
}

fn refusal(status: StatusCode, message: &str) -> SimulatedAnswer {
    SimulatedAnswer::json(status, &json!({ "error": message }))
        .detail(json!({ "refused": message }))
}
