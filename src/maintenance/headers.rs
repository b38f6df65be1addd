//! Seals the headers of dead letters that a worker of an earlier version stored, which still runs
//! or ran until recently.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::secrets::Keyring;
use crate::store::Store;

pub(super) struct SealHeaders {
    pub(super) store: Store,
    pub(super) keyring: Arc<Keyring>,
}

impl Duty for SealHeaders {
    const PLAN: Plan = Plan {
        name: "headers",
        every: Duration::from_secs(10),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(120),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        Ok(self.store.seal_headers(&self.keyring).await?)
    }
}
