//! The meaning of Discord's JSON error codes
//! (<https://docs.discord.com/developers/topics/opcodes-and-status-codes#json>).
//!
//! The status decides in almost all cases. The code decides if it is a transient one, with any
//! 4xx; and if Discord does not document the status, so that the code is treated as unrecognized.

use std::time::SystemTime;

use serde::Deserialize;

use crate::fault::{Certainty, Class};
use crate::providers::channel::Refusal;
use crate::providers::http::HttpResponse;
use crate::providers::http_fault::{Provider, retry_after};
use crate::providers::said::Said;

/// "Unknown Message".
pub(super) const UNKNOWN_MESSAGE: u32 = 10008;
/// Transient codes: slow mode; write limits of a channel and of a server; sending, or a feature,
/// temporarily disabled; "service resource is being rate limited"; "application not yet
/// available"; "API resource is currently overloaded".
const LATER: [u32; 8] = [20016, 20028, 20029, 40004, 40006, 40062, 110_001, 130_000];
/// The 4xx statuses that Discord documents, and those that any HTTP server may answer.
const DESCRIBED: [u16; 13] = [
    400, 401, 403, 404, 405, 408, 410, 411, 413, 414, 415, 425, 429,
];
const PATIENCE: &str = "Discord is busy or unavailable; the job is retried automatically.";

#[derive(Deserialize)]
struct ErrorBody {
    code: u32,
}

/// Returns Discord's error code, if the answer has one.
pub(super) fn code(answer: &HttpResponse) -> Option<u32> {
    answer.json::<ErrorBody>().ok().map(|body| body.code)
}

/// Returns the refusal that Discord's code means, or `None` if the status decides.
pub(super) fn refusal(provider: &'static Provider, answer: &HttpResponse) -> Option<Refusal> {
    if !(400..500).contains(&answer.status) || answer.status == 429 {
        return None;
    }
    let code = code(answer)?;
    let (stable, class, hint) = if LATER.contains(&code) {
        let retry_after = retry_after(&answer.headers, SystemTime::now());
        (
            provider.codes.try_later,
            Class::Transient { retry_after },
            PATIENCE.into(),
        )
    } else if DESCRIBED.contains(&answer.status) {
        return None;
    } else {
        let hint =
            format!("Look up the code {code} in Discord's list of JSON error codes; then retry.");
        (
            provider.codes.unrecognized,
            Class::Unrecognized,
            hint.into(),
        )
    };
    let said = format!("{}: {}", answer.status, Said::of(&answer.body));
    Some(Refusal {
        provider,
        code: stable,
        said,
        class,
        certainty: Certainty::NotDone,
        hint,
    })
}
