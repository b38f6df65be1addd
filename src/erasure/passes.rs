//! Passes over whole tables, a few disk pages at a time, because no index contains names. Each
//! window is its own transaction, so an interrupted erasure keeps its changes and is repeated.

use tokio_postgres::types::ToSql;

use super::{Erasure, ErasureError};

/// The number of 8 KiB pages in one window. Large values, such as messages, are stored outside of
/// these pages.
const WINDOW: i64 = 64;
/// The maximum number of passes. A pass may miss a row that is moved at the same time, so passes
/// are repeated until one finds nothing.
const PASSES: usize = 3;

/// Selects the tables that hold rows: the partitions of a partitioned table, otherwise the table
/// itself.
const LEAVES: &str = "
    SELECT id::text AS name, pg_relation_size(id) / current_setting('block_size')::bigint + 1 AS pages
    FROM (SELECT oid::regclass AS id FROM pg_class WHERE oid = $1::text::regclass AND relkind = 'r'
        UNION SELECT relid FROM pg_partition_tree($1::text::regclass) WHERE isleaf) leaves
    ORDER BY name";

/// The action of a pass on the rows that it finds.
pub(super) enum RowEdit<'a> {
    /// Updates the rows with this `SET` clause.
    Set(&'a str),
    Delete,
}

impl Erasure<'_> {
    /// Changes or deletes the rows of a table that meet a condition over `t`, and counts them; a
    /// dry run only counts. A changed row must not meet the condition again.
    pub(super) async fn pass(
        &mut self,
        table: &'static str,
        change: RowEdit<'_>,
        condition: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(), ErasureError> {
        for _ in 0..PASSES {
            let mut rows = 0;
            for leaf in self.client.query(LEAVES, &[&table]).await? {
                let (name, pages): (String, i64) = (leaf.try_get("name")?, leaf.try_get("pages")?);
                let mut first = 0;
                while first < pages {
                    let window = format!(
                        "t.ctid >= '({first},0)' AND t.ctid < '({},0)' AND ({condition})",
                        first + WINDOW
                    );
                    rows += self.window(&name, &change, &window, parameters).await?;
                    first += WINDOW;
                }
            }
            self.count(table, rows);
            if self.is_dry || rows == 0 {
                break;
            }
        }
        Ok(())
    }

    async fn window(
        &self,
        name: &str,
        change: &RowEdit<'_>,
        window: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, ErasureError> {
        if self.is_dry {
            let row = self
                .client
                .query_one(
                    &format!("SELECT count(*) AS rows FROM {name} t WHERE {window}"),
                    parameters,
                )
                .await?;
            return Ok(u64::try_from(row.try_get::<_, i64>("rows")?).unwrap_or(0));
        }
        let sql = match change {
            RowEdit::Set(set) => format!("UPDATE {name} t SET {set} WHERE {window}"),
            RowEdit::Delete => format!("DELETE FROM {name} t WHERE {window}"),
        };
        Ok(self.client.execute(&sql, parameters).await?)
    }
}
