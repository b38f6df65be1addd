//! Stores a refused message as a dead letter, as far as its producer's quota has room. The refusal
//! is announced either way.

use super::Worker;
use super::claiming::Taken;
use super::intake_throttle::ONE_DEAD_LETTER;
use super::quotas::LetterRoom;
use crate::broker::Delivery;
use crate::engine::Product;
use crate::fault::{chain, storable};
use crate::message::{JobKey, Named, Refusal, Sender};
use crate::store::{NewDeadLetter, StoreError, Tables};
use crate::telemetry::names;

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Stores a message that could not become a job as a dead letter. If that fails, the message
    /// returns to its queue and is redelivered.
    pub(super) async fn keep(&self, delivery: &Delivery, refusal: &Refusal) -> Taken {
        let read = if delivery.discarded.is_some() {
            JobKey::in_beginning
        } else {
            JobKey::in_body
        };
        let key = read(&delivery.body);
        let text = |value: Option<String>, beside: &Option<String>| {
            value
                .or_else(|| beside.clone())
                .map(|text| storable(&text, 255))
        };
        let short = |text: &Option<String>| text.as_deref().map(|text| storable(text, 255));
        let envelope = &delivery.envelope;
        let sender = self.sender(delivery).await.ok();
        let may_name = |name: Named<'_>| {
            sender
                .as_ref()
                .is_some_and(|sender| sender.may_name(&[name]).is_ok())
        };
        let source = text(key.source, &envelope.app_id);
        let is_its_senders = source
            .as_deref()
            .is_some_and(|source| may_name(Named::Source(source)));
        let new = NewDeadLetter {
            refusal,
            is_its_senders,
            body: &delivery.body,
            discarded: delivery.discarded,
            routing_key: &delivery.routing_key,
            headers: delivery.headers.clone(),
            producer: sender
                .as_ref()
                .map_or(envelope.user_id.as_deref(), Sender::name),
            source,
            dedupe_key: text(key.dedupe_key, &envelope.message_id),
            message_id: short(&envelope.message_id),
            content_type: short(&envelope.content_type),
            content_encoding: short(&envelope.content_encoding),
            app_id: short(&envelope.app_id),
            reply_to: delivery
                .reply_to
                .as_deref()
                .filter(|queue| may_name(Named::ReplyTo(queue))),
            correlation_id: delivery.correlation_id.as_deref(),
        };
        self.keep_refused(&new).await
    }

    async fn keep_refused(&self, new: &NewDeadLetter<'_>) -> Taken {
        let (code, refusal) = (new.refusal.code(), new.refusal);
        match self.store_refused(new).await {
            Ok(Some(id)) => {
                self.throttle.one_more(ONE_DEAD_LETTER);
                metrics::counter!(names::DEAD_LETTERS, "code" => code).increment(1);
                tracing::warn!(
                    dead_letter.id = id,
                    error.code = code,
                    error = chain(refusal),
                    "a message became a dead letter"
                );
                Taken::Nothing
            }
            Ok(None) => {
                tracing::debug!(
                    error.code = code,
                    error = chain(refusal),
                    "a message was refused and is not stored as a dead letter: its producer's quota is full"
                );
                Taken::Nothing
            }
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "a dead letter could not be stored; its message returns to the queue"
                );
                self.context.pause().await;
                Taken::Back
            }
        }
    }

    /// Stores the dead letter and returns its number, or `None` where the quota has no room for
    /// it.
    async fn store_refused(&self, new: &NewDeadLetter<'_>) -> Result<Option<i64>, StoreError> {
        let context = &self.context;
        let bytes = new.kept_bytes();
        match context
            .until_available(|| self.quotas.letter(new.producer, bytes))
            .await?
        {
            LetterRoom::Whole(room) => {
                let id = context
                    .until_available(|| context.store().keep_dead_letter(&context.keyring, new))
                    .await?;
                room.stored();
                Ok(Some(id))
            }
            LetterRoom::WithoutBody(room) => {
                let id = context
                    .until_available(|| {
                        context
                            .store()
                            .keep_dead_letter_without_body(&context.keyring, new)
                    })
                    .await?;
                room.stored();
                Ok(Some(id))
            }
            LetterRoom::Nothing(Some(others)) => {
                context
                    .until_available(|| context.store().announce_refusal(new, others))
                    .await?;
                Ok(None)
            }
            LetterRoom::Nothing(None) => Ok(None),
        }
    }
}
