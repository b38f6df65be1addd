//! Publishes dead letters again that somebody asked for in the console.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::broker::Publisher;
use crate::operations::{Replayed, Replayer, replay_wanted};
use crate::secrets::Keyring;
use crate::store::Store;

pub(super) struct Replays {
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) keyring: Arc<Keyring>,
}

impl Duty for Replays {
    const PLAN: Plan = Plan {
        name: "replays",
        every: Duration::from_secs(1),
        at_most: Duration::from_secs(20),
        late_after: Duration::from_secs(120),
    };

    /// Publishes one dead letter. After a failure, the others wait for the next run, because the
    /// cause is most often RabbitMQ itself.
    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let replayer = Replayer {
            store: &self.store,
            publisher: &self.publisher,
            keyring: &self.keyring,
        };
        match replay_wanted(replayer).await? {
            Replayed::Nothing => Ok(false),
            Replayed::Done(id) => {
                tracing::info!(dead_letter.id = id, "a dead letter was published again");
                Ok(true)
            }
            Replayed::Failed(id, why) => {
                tracing::warn!(
                    dead_letter.id = id,
                    error = why,
                    "a dead letter could not be published again; its page shows why"
                );
                Ok(false)
            }
        }
    }
}
