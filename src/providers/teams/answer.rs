//! The proof of delivery in an answer of Microsoft Teams to a card.
//!
//! **Proof of delivery**: a 2xx without a body (a workflow answers 202 after it has accepted the
//! card), or a 200 with the body `1` (the answer of a connector). Any other body of a 2xx proves
//! nothing: connectors answer 200 even if the service behind them refused the card, and state it
//! in the body: `Webhook message delivery failed with error: Microsoft Teams endpoint returned
//! HTTP error 429 with ContextId …` (<https://github.com/MicrosoftDocs/msteams-docs/issues/7425>,
//! <https://github.com/MicrosoftDocs/msteams-docs/issues/1810>), and a proxy answers with its own
//! page.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use crate::fault::{Certainty, Class};
use crate::providers::channel::{ChannelFault, Refusal};
use crate::providers::http::HttpResponse;
use crate::providers::http_fault::{Provider, retry_after};
use crate::providers::scrub::scrub;
use crate::providers::text::cut;

/// The part of the body that is read of an answer, in bytes.
pub(super) const ANSWER_BYTES: usize = 4 << 10;
/// The limit for the vendor's text in an error.
const SAID_CHARACTERS: usize = 500;
const CONNECTOR_TOOK_IT: &str = "1";
const DELIVERY_FAILED: &str = "delivery failed";
/// The text before the status of the service behind a connector.
const INNER_STATUS: &str = "http error ";

const TOO_LARGE: &str = "Teams accepts no card of this size: this is a defect of the worker, which limits the size of cards.";
const REFUSED: &str = "Teams refuses the card; its answer states the reason. Check that the channel still exists, and use the \
                       address of a workflow, not of a connector.";
const PATIENCE: &str = "Teams is busy or unavailable; the job is retried automatically.";
const UNPROVED: &str = "The answer does not prove that the card was accepted: check that the address belongs to a workflow that \
                        answers 202 without a body, and whether the card is in the channel; then retry or cancel.";
const UNKNOWN: &str = "Teams states that the delivery failed, without a reason: check the workflow's run history; then retry.";

/// Checks that an answer with a 2xx proves that the card was accepted.
///
/// # Errors
/// [`ChannelFault::Refused`], whose certainty states whether the card may have been accepted
/// nevertheless.
pub(super) fn proof(
    provider: &'static Provider,
    answer: &HttpResponse,
) -> Result<(), ChannelFault> {
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() || (answer.status == 200 && text == CONNECTOR_TOOK_IT) {
        return Ok(());
    }
    let Some(inner) = failure(text) else {
        return Err(proves_nothing(provider, text).into());
    };
    let patience = retry_after(&answer.headers, SystemTime::now());
    Err(refusal(provider, inner, text, patience).into())
}

/// Returns the refusal of an answer that proves nothing. The card may have been accepted, and each
/// retry may post it again, so the number of retries is small.
fn proves_nothing(provider: &'static Provider, text: &str) -> Refusal {
    Refusal {
        provider,
        code: provider.codes.malformed_answer,
        said: scrub(&format!(
            "expected an empty body or `1`, got: {}",
            cut(text, SAID_CHARACTERS)
        )),
        class: Class::Unrecognized,
        certainty: Certainty::Unknown,
        hint: Cow::Borrowed(UNPROVED),
    }
}

/// Returns the inner status if `text` states that the delivery failed; the status is `None` if the
/// text has none. An HTML page does not count, whatever its text.
fn failure(text: &str) -> Option<Option<u16>> {
    if text.starts_with('<') {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let status = text
        .split_once(INNER_STATUS)
        .and_then(|(_, rest)| rest.get(..3)?.parse().ok());
    (status.is_some() || text.contains(DELIVERY_FAILED)).then_some(status)
}

fn refusal(
    provider: &'static Provider,
    inner: Option<u16>,
    text: &str,
    retry_after: Option<Duration>,
) -> Refusal {
    const FAILED: &str = "teams.delivery_failed";
    let transient = Class::Transient { retry_after };
    let (code, class, hint) = match inner {
        Some(429) => (
            provider.codes.rate_limited,
            Class::RateLimited { retry_after },
            PATIENCE,
        ),
        Some(408 | 425 | 500..=599) => (FAILED, transient, PATIENCE),
        Some(413) => (FAILED, Class::Permanent, TOO_LARGE),
        Some(400..=499) => (FAILED, Class::Permanent, REFUSED),
        _ => (provider.codes.unrecognized, Class::Unrecognized, UNKNOWN),
    };
    let said = scrub(&cut(text, SAID_CHARACTERS));
    // A 5xx proves nothing, also if a connector reports it.
    let certainty = if matches!(inner, Some(500..=599)) {
        Certainty::Unknown
    } else {
        Certainty::NotDone
    };
    Refusal {
        provider,
        code,
        said,
        class,
        certainty,
        hint: Cow::Borrowed(hint),
    }
}
