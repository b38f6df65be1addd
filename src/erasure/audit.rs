//! Erases from the audit log: actions stay, and a pseudonym replaces the subject. Only the owner's
//! function `erase_from_audit` may change the log; it changes texts only, one page at a time, and
//! records that in the log.

use super::words::member;
use super::{Erasure, ErasureError, Whose};

const NEWEST: &str = "SELECT coalesce(max(id), 0) AS newest FROM audit_log";

const PAGE: &str = "SELECT last, changed FROM erase_from_audit($1, $2, $3, $4, $5, $6, $7)";

impl Erasure<'_> {
    /// Erases from all rows that are in the log at the start. A dry run rolls its changes back.
    pub(super) async fn audit(&mut self, letters: &[i64]) -> Result<(), ErasureError> {
        let up_to: i64 = self
            .client
            .query_one(NEWEST, &[])
            .await?
            .try_get("newest")?;
        let slug = match &self.whose {
            Whose::Person { .. } => None,
            Whose::Organization { slug, .. } => Some(slug.clone()),
        };
        let own = slug.as_ref().map(|slug| member("organization", slug));
        let (mut after, mut all) = (0_i64, 0_u64);
        loop {
            let (pattern, pseudonym) = (self.pattern.clone(), self.pseudonym.clone());
            let tx = self.client.transaction().await?;
            let row = tx
                .query_one(
                    PAGE,
                    &[&after, &up_to, &pattern, &pseudonym, &slug, &own, &letters],
                )
                .await?;
            if self.is_dry {
                tx.rollback().await?;
            } else {
                tx.commit().await?;
            }
            all += u64::try_from(row.try_get::<_, i64>("changed")?).unwrap_or(0);
            let Some(last) = row.try_get("last")? else {
                break;
            };
            after = last;
        }
        self.count("audit_log", all);
        Ok(())
    }
}
