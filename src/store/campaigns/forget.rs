//! Deletes campaigns that ended long ago: their items, some at a time, and then their rows.

use time::{Duration, OffsetDateTime};

use super::super::error::StoreError;
use super::super::handle::Store;
use super::super::sql::execute;

/// How long a campaign is kept after its end.
const KEEP: Duration = Duration::days(90);
/// Maximum number of items that one statement deletes.
const BATCH: i64 = 2_000;
/// Maximum number of campaigns that one statement deletes.
const CAMPAIGNS: i64 = 100;

/// Begins with the campaign that ended first.
pub(crate) const FORGET_ITEMS: &str = "
    WITH old AS MATERIALIZED (
        SELECT id FROM campaigns WHERE finished_at < $1 AND (SELECT true FROM campaign_items WHERE campaign = campaigns.id LIMIT 1)
        ORDER BY finished_at LIMIT 1
    )
    DELETE FROM campaign_items WHERE campaign = (SELECT id FROM old)
        AND n = ANY (ARRAY(SELECT n FROM campaign_items WHERE campaign = (SELECT id FROM old) ORDER BY campaign, n LIMIT $2))";

const FORGET: &str = "
    DELETE FROM campaigns WHERE id = ANY (ARRAY(
        SELECT id FROM campaigns WHERE finished_at < $1 AND (SELECT true FROM campaign_items WHERE campaign = campaigns.id LIMIT 1) IS NULL
        ORDER BY finished_at LIMIT $2))";

impl Store {
    /// Deletes campaigns that ended more than 90 days ago, a bounded number of rows at a time.
    /// Returns whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_campaigns(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let before = now - KEEP;
        let items = execute(&client, FORGET_ITEMS, &[&before, &BATCH]).await?;
        let campaigns = execute(&client, FORGET, &[&before, &CAMPAIGNS]).await?;
        Ok(items > 0 || i64::try_from(campaigns) == Ok(CAMPAIGNS))
    }
}
