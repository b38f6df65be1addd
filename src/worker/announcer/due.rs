//! Takes announcements whose rows are due, because they were not published or are to be repeated,
//! and drops those that are too old.

use std::time::Duration;

use tokio::sync::mpsc;

use super::dropped::Drops;
use super::message::is_replied_to;
use super::verdict::{Dropped, What, Why};
use super::{EventLinks, HandedOver};
use crate::store::{Store, StoreError, TooOld};

/// The part of the announcer that takes rows that are due.
pub struct DueAnnouncements {
    pub(super) store: Store,
    pub(super) links: EventLinks,
    /// The age at which announcements are dropped.
    pub(super) longest: Duration,
    pub(super) publishes: mpsc::Sender<HandedOver>,
}

impl DueAnnouncements {
    /// Runs one bounded round: drops up to 200 announcements that are too old, and passes on up to
    /// 200 that are due, without waiting for their confirms. Takes none while both connections are
    /// unavailable, or while two rounds wait already. Returns `true` if there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publish_due(&self) -> Result<bool, StoreError> {
        let (old, more_old) = self.store.drop_old_announcements(self.longest).await?;
        let mut drops = Drops::default();
        drops.add(old.iter().flat_map(dropped));
        drops.log();
        let is_cut_off =
            self.links.events.trouble().is_some() && self.links.replies.trouble().is_some();
        let Ok(place) = self.publishes.try_reserve() else {
            return Ok(false);
        };
        if is_cut_off {
            return Ok(more_old);
        }
        let (due, more_due) = self.store.due_announcements().await?;
        if !due.is_empty() {
            place.send(HandedOver::now(due));
        }
        Ok(more_old || more_due)
    }
}

fn dropped(old: &TooOld) -> impl Iterator<Item = Dropped> + use<> {
    let reply = old
        .reply_to
        .as_deref()
        .is_some_and(is_replied_to)
        .then_some(What::Reply);
    let (why, job) = (Why::TooOld, old.job);
    old.event
        .then_some(What::Event)
        .into_iter()
        .chain(reply)
        .map(move |what| Dropped { what, why, job })
}
