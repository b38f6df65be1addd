//! A message that is refused becomes a dead letter, as far as its producer's quota has room; its producer is told either way.

use super::Worker;
use super::claiming::Taken;
use super::inflow::ONE_DEAD_LETTER;
use super::quotas::LetterRoom;
use crate::engine::Product;
use crate::fault::chain;
use crate::store::{NewDeadLetter, StoreError, Tables};
use crate::telemetry::names;

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Keeps what could not become a job. Where even that fails, the message goes back and comes again.
    pub(super) async fn keep_refused(&self, new: &NewDeadLetter<'_>) -> Taken {
        let (code, refusal) = (new.refusal.code(), new.refusal);
        match self.store_refused(new).await {
            Ok(Some(id)) => {
                self.inflow.one_more(ONE_DEAD_LETTER);
                metrics::counter!(names::DEAD_LETTERS, "code" => code).increment(1);
                tracing::warn!(dead_letter.id = id, error.code = code, error = %refusal, "a message became a dead letter");
                Taken::Nothing
            }
            Ok(None) => {
                tracing::debug!(error.code = code, error = %refusal, "a message is refused and not kept: its producer's quota is full");
                Taken::Nothing
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "a dead letter cannot be stored");
                self.parts.pause().await;
                Taken::Back
            }
        }
    }

    /// The number of the dead letter, if there is room for one.
    async fn store_refused(&self, new: &NewDeadLetter<'_>) -> Result<Option<i64>, StoreError> {
        let parts = &self.parts;
        let bytes = new.kept_bytes();
        match parts.patiently(|| self.quotas.letter(new.producer, bytes)).await? {
            LetterRoom::Whole(room) => {
                let id = parts.patiently(|| parts.store().keep_dead_letter(new)).await?;
                room.stored();
                Ok(Some(id))
            }
            LetterRoom::WithoutBody(room) => {
                let id = parts.patiently(|| parts.store().keep_dead_letter_without_body(new)).await?;
                room.stored();
                Ok(Some(id))
            }
            LetterRoom::Nothing(Some(others)) => {
                parts.patiently(|| parts.store().announce_refusal(new, others)).await?;
                Ok(None)
            }
            LetterRoom::Nothing(None) => Ok(None),
        }
    }
}
