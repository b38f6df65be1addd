//! The pipeline `messaging`: one message to one destination.

pub mod deliver_message;
pub mod render_message;
mod templates;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use deliver_message::{DeliverMessage, DeliveredMessage};
pub use render_message::{RenderMessage, RenderedMessage};

use super::{Dispatch, MESSAGING, ProductFault, Services};
use crate::engine::{Child, Pipeline};
use crate::fault::StageFault;
use crate::providers::channel::Channel;
use crate::tracker::{AssigneeChange, Destination, StatusChange};

/// The pipeline's name.
pub const NAME: &str = "messaging";

/// ★ The stages in order.
#[must_use]
pub fn pipeline() -> Pipeline<Dispatch> {
    Pipeline::new(NAME, MESSAGING).then(RenderMessage).then(DeliverMessage)
}

/// The payload: what to tell whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The destination.
    pub destination_id: i64,
    /// When the work item changed, by the tracker's clock.
    #[serde(with = "time::serde::rfc3339::option")]
    pub happened_at: Option<OffsetDateTime>,
    /// What happened.
    pub event: Event,
}

/// What happened to a group: one template for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Its assignee changed.
    Assignee(AssigneeChange),
    /// Its status changed.
    Status(StatusChange),
}

impl Notice {
    /// The follow-up that carries it out. Its target names all that tells it from others.
    ///
    /// # Panics
    /// Never: the years of a `System.ChangedDate` are those of RFC 3339, from which it was read.
    #[must_use]
    pub fn child(&self) -> Child {
        let (group_id, kind) = match &self.event {
            Event::Assignee(change) => (change.group_id, "assignee"),
            Event::Status(change) => (change.group_id, "status"),
        };
        let payload = serde_json::to_value(self).expect("numbers, texts and an RFC 3339 date have a JSON form");
        Child { pipeline: NAME, target: format!("{NAME}:{}:{group_id}:{kind}", self.destination_id), payload }
    }
}

/// The destination as it is now, with its channel. Its secret is never part of a checkpoint.
async fn destination(services: &Services, id: i64) -> Result<(Destination, &dyn Channel), StageFault> {
    let destination = services.tracker.destination(id).await?.ok_or(ProductFault::DestinationGone(id))?;
    let channel = services.providers.channel(&destination.kind);
    let channel =
        channel.ok_or_else(|| ProductFault::UnknownChannel { name: destination.name.clone(), kind: destination.kind.clone() })?;
    Ok((destination, channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_payload_reads_back_and_each_kind_of_change_is_a_target_of_its_own() {
        let status = StatusChange {
            group_id: 5,
            organization_id: 1,
            group_short_id: "WEB-17".to_owned(),
            group_title: "T".to_owned(),
            work_item_id: 17,
            to: "resolved".to_owned(),
        };
        let notice = Notice { destination_id: 9, happened_at: None, event: Event::Status(status) };
        let child = notice.child();
        assert_eq!((child.pipeline, child.target.as_str()), ("messaging", "messaging:9:5:status"));
        assert_eq!(serde_json::from_value::<Notice>(child.payload).unwrap(), notice);
    }
}
