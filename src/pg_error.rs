//! Which Postgres errors mean that Postgres is ill, not that the statement is wrong.

use tokio_postgres::error::SqlState;

/// Whether `error` is the server's or the link's trouble: no SQLSTATE at all (connection lost), or class 08 (connection), 53
/// (resources), 57P (operator intervention), 25006 (read-only), 40001 (serialization), 40P01 (deadlock), 55P03 (lock not
/// available). Codes: PostgreSQL documentation, appendix A.
#[must_use]
pub fn is_infrastructure(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else { return error.is_closed() || is_io(error) };
    let named = [
        &SqlState::READ_ONLY_SQL_TRANSACTION,
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::LOCK_NOT_AVAILABLE,
    ];
    named.contains(&code) || ["08", "53", "57P"].iter().any(|class| code.code().starts_with(class))
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    use std::error::Error;
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<std::io::Error>() {
            return true;
        }
        cause = inner.source();
    }
    false
}
