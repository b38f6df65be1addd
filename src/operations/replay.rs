//! Publishes a dead letter again. A replay publishes, waits for the confirm, then marks the dead
//! letter. A crash in between leaves it open, and a second replay is harmless: (source, dedupe
//! key) identifies the same job.

use secrecy::ExposeSecret;

use super::OperationError;
use crate::broker::{BrokerError, EXCHANGE, Outgoing, Publisher, WAKE, producer_headers};
use crate::crash_point;
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
    let letter = replayer
        .store
        .replay(replayer.keyring, id)
        .await?
        .map_err(|why| OperationError::NotPossible(why.to_string()))?;
    replayer
        .publish(EXCHANGE, letter)
        .await
        .map_err(|error| OperationError::NotPossible(chain(&error)))?;
    // Another operator may have marked it meanwhile. Then it was published twice, which makes one
    // job.
    replayer
        .store
        .resolve(id, Resolution::Replayed, actor)
        .await?;
    Ok(())
}

/// The result of one step through the dead letters that somebody wants to be published again.
#[derive(Debug)]
pub enum Replayed {
    /// None is due.
    Nothing,
    /// This one was published and marked.
    Done(i64),
    /// This one was not, and why. The reason is stored with it; the next try is after 30 s, unless
    /// it can never be published.
    Failed(i64, String),
}

/// Publishes the next dead letter that somebody wants to be published again, and marks it in that
/// person's name. A worker may not publish to the exchange of producers, so it uses its own.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn replay_wanted(replayer: Replayer<'_>) -> Result<Replayed, OperationError> {
    let Replayer { store, keyring, .. } = replayer;
    let Some(wanted) = store.take_wanted_replay().await? else {
        return Ok(Replayed::Nothing);
    };
    let letter = match store.replay(keyring, wanted.id).await? {
        Ok(letter) => letter,
        Err(why) => {
            let why = why.to_string();
            store.give_up_wanted_replay(wanted.id, &why).await?;
            return Ok(Replayed::Failed(wanted.id, why));
        }
    };
    if let Err(error) = replayer.publish(WAKE, letter).await {
        let why = chain(&error);
        store.wanted_replay_failed(wanted.id, &why).await?;
        return Ok(Replayed::Failed(wanted.id, why));
    }
    crash_point::reach("replays", "after_publish");
    store
        .resolve(wanted.id, Resolution::Replayed, &wanted.actor)
        .await?;
    Ok(Replayed::Done(wanted.id))
}

impl Replayer<'_> {
    async fn publish(&self, exchange: &'static str, letter: Replay) -> Result<(), BrokerError> {
        let message = message(exchange, letter, self.keyring);
        self.publisher.publish(&message).await
    }
}

/// Returns the message to publish. Its `user_id` is the RabbitMQ user of this process; a header
/// proves the original producer.
fn message(exchange: &'static str, letter: Replay, keyring: &Keyring) -> Outgoing {
    let body = letter.body.expose_secret().to_vec();
    let mut headers = producer_headers(&letter.headers);
    headers.insert(
        REPLAY.to_owned(),
        proof_of_replay(keyring, &body, letter.producer.as_deref()).into(),
    );
    Outgoing {
        trace: None,
        exchange,
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
