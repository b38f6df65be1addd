//! Forgets unused quotas, in memory and in Postgres, and sets the gauge of the fullest ones.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::Store;
use crate::worker::Quotas;

pub(super) struct TidyQuotas {
    pub(super) store: Store,
    pub(super) quotas: Arc<Quotas>,
}

impl Duty for TidyQuotas {
    const PLAN: Plan = Plan {
        name: "quotas",
        every: Duration::from_secs(10),
        at_most: Duration::from_secs(5),
        late_after: Duration::from_secs(120),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        self.quotas.tidy();
        Ok(self.store.forget_grants().await?)
    }
}
