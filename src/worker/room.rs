//! Charges the rows that a delivery makes to the quotas.

use super::Worker;
use super::claiming::Trouble;
use super::quotas::{Permit, counted};
use crate::engine::Product;
use crate::message::{Cancel, Intake, Refusal, Sender};
use crate::store::{ActionResult, Actor, CancelByKey, Cancelling, Tables, Target};

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Returns room for a job in the quotas of its producer and its organization. A message whose
    /// job exists needs no room.
    pub(super) async fn room_for(
        &self,
        sender: &Sender,
        intake: &Intake,
        bytes: usize,
    ) -> Result<Option<Permit>, Trouble> {
        let about = intake.about();
        let ask = || {
            self.quotas
                .job(sender.name(), about.organization, about.not_before, bytes)
        };
        match self.context.until_available(ask).await? {
            Ok(room) => Ok(Some(room)),
            Err(over) => {
                let store = self.context.store();
                let target = Target::Key {
                    source: about.source.to_owned(),
                    dedupe_key: about.dedupe_key.to_owned(),
                };
                let is_there = self
                    .context
                    .until_available(|| store.tenant(&target))
                    .await?
                    .is_some();
                if is_there {
                    Ok(None)
                } else {
                    Err(Refusal::Quota(counted(over)).into())
                }
            }
        }
    }

    /// Cancels a job. If the job has not arrived yet, notes the cancel for its arrival, as far as
    /// the producer's quota has room.
    pub(super) async fn cancel_within_quota(
        &self,
        cancel: &Cancel,
        producer: Option<&str>,
        actor: &Actor,
    ) -> Result<Cancelling, Trouble> {
        let room = self
            .context
            .until_available(|| self.quotas.key(producer))
            .await?;
        let (source, dedupe_key, may_note) = (&*cancel.source, &*cancel.dedupe_key, room.is_ok());
        let asked = CancelByKey {
            source,
            dedupe_key,
            producer,
            may_note,
        };
        let cancelling = self
            .context
            .until_available(|| self.context.store().cancel_by_key(&asked, actor))
            .await?;
        match (&cancelling, room) {
            (Cancelling::Answered(ActionResult::NoSuchJob), Err(over)) => {
                return Err(Refusal::Quota(counted(over)).into());
            }
            (Cancelling::Noted, Ok(room)) => room.stored(),
            (Cancelling::Noted | Cancelling::Answered(_), _) => {}
        }
        Ok(cancelling)
    }
}
