//! Calls to providers: requests, answers, rate limits, and holds.

mod answers;
pub(crate) mod contracts;
mod field_answers;
mod governor;
mod identities;
mod interactions;
mod messaging;
mod outgoing;
