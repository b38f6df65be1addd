//! Helpers that prepare each statement once per connection, in a transaction or not.

use deadpool_postgres::GenericClient;
// The types of the driver that a change of an operation names.
pub use deadpool_postgres::Transaction;
pub use tokio_postgres::Row;
pub use tokio_postgres::types::Json;
use tokio_postgres::types::ToSql;

use super::error::StoreError;

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Executes a statement, prepared once for each connection, and returns the number of rows.
///
/// # Errors
/// [`StoreError`].
pub async fn execute<C: GenericClient>(
    on: &C,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<u64, StoreError> {
    let statement = on.prepare_cached(sql).await?;
    Ok(on.execute(&statement, parameters).await?)
}

/// Runs a query, prepared once for each connection.
///
/// # Errors
/// [`StoreError`].
pub async fn query<C: GenericClient>(
    on: &C,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<Row>, StoreError> {
    let statement = on.prepare_cached(sql).await?;
    Ok(on.query(&statement, parameters).await?)
}

/// Runs a query that returns at most one row, prepared once for each connection.
///
/// # Errors
/// [`StoreError`].
pub async fn query_opt<C: GenericClient>(
    on: &C,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Option<Row>, StoreError> {
    let statement = on.prepare_cached(sql).await?;
    Ok(on.query_opt(&statement, parameters).await?)
}

/// Runs a query that returns one row, prepared once for each connection.
///
/// # Errors
/// [`StoreError`].
pub async fn query_one<C: GenericClient>(
    on: &C,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Row, StoreError> {
    let statement = on.prepare_cached(sql).await?;
    Ok(on.query_one(&statement, parameters).await?)
}
