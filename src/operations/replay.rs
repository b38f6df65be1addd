//! Publishes a dead letter again. A replay publishes, waits for the confirm, then marks the dead
//! letter. A crash in between leaves it open, and a second replay is harmless: (source, dedupe
//! key) identifies the same job.

use secrecy::ExposeSecret;

use super::OperationError;
use crate::broker::{EXCHANGE, Outgoing, Publisher, producer_headers};
use crate::fault::chain;
use crate::message::{REPLAY, proof_of_replay};
use crate::secrets::Keyring;
use crate::store::{Action, Actor, Replay, Resolution, Store};

/// What a replay needs.
#[derive(Clone, Copy)]
pub struct Replayer<'a> {
    /// The engine's tables.
    pub store: &'a Store,
    /// A connection to RabbitMQ.
    pub publisher: &'a Publisher,
    /// Opens the body and proves its producer.
    pub keyring: &'a Keyring,
}

/// Publishes an open dead letter as it was received and marks it as replayed. If it is refused
/// again, it becomes a new dead letter.
///
/// # Errors
/// [`OperationError::NotPossible`] if it cannot be published, and [`OperationError::Store`].
pub async fn replay(replayer: Replayer<'_>, actor: &Actor, id: i64) -> Result<(), OperationError> {
    actor.permit(Action::ReplayDeadLetter)?;
    let Replayer {
        store,
        publisher,
        keyring,
    } = replayer;
    let letter = store
        .replay(keyring, id)
        .await?
        .map_err(|why| OperationError::NotPossible(why.to_string()))?;
    publisher
        .publish(&message(letter, keyring))
        .await
        .map_err(|error| OperationError::NotPossible(chain(&error)))?;
    // Another operator may have marked it meanwhile. Then it was published twice, which makes one
    // job.
    store.resolve(id, Resolution::Replayed, actor).await?;
    Ok(())
}

/// Returns the message to publish. Its `user_id` is the RabbitMQ user of this process; a header
/// proves the original producer.
fn message(letter: Replay, keyring: &Keyring) -> Outgoing {
    let body = letter.body.expose_secret().to_vec();
    let mut headers = producer_headers(&letter.headers);
    headers.insert(
        REPLAY.to_owned(),
        proof_of_replay(keyring, &body, letter.producer.as_deref()).into(),
    );
    Outgoing {
        trace: None,
        exchange: EXCHANGE,
        routing_key: letter.routing_key,
        mandatory: true,
        body,
        content_type: letter.content_type,
        content_encoding: letter.content_encoding,
        message_id: letter.message_id,
        app_id: letter.app_id,
        reply_to: letter.reply_to,
        correlation_id: letter.correlation_id,
        headers,
    }
}
