//! Which of Postgres' errors say that Postgres is ill, and not that the statement is wrong.

use tokio_postgres::Error;

/// How the driver's own errors begin where our statement does not fit its table: defects, not illness.
const DEFECTS: [&str; 6] = [
    "error serializing parameter",
    "error deserializing column",
    "invalid column",
    "query returned an unexpected number",
    "expected ",
    "error encoding message",
];

/// Whether the same statement may well succeed once Postgres is well again: the connection or the server is gone or
/// overloaded (SQLSTATE classes 08, 53, 57P), read-only (25006), or another transaction was in the way (40001, 40P01, 55P03), or the
/// pool's own statement timeout ran out (57014).
/// The driver's errors that carry no SQLSTATE count too, save those that say our statement does not fit its table.
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
#[must_use]
pub fn is_infrastructure(error: &Error) -> bool {
    match error.code() {
        Some(state) => is_ill(state.code()),
        None => {
            let text = error.to_string();
            !DEFECTS.iter().any(|defect| text.starts_with(defect))
        }
    }
}

fn is_ill(state: &str) -> bool {
    ["08", "53", "57P"].iter().any(|class| state.starts_with(class))
        || ["25006", "40001", "40P01", "55P03", "57014"].contains(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ill_server_is_told_from_a_wrong_statement() {
        for ill in ["08006", "53100", "53300", "57P01", "57P03", "25006", "40001", "40P01", "55P03", "57014"] {
            assert!(is_ill(ill), "{ill}");
        }
        for wrong in ["23505", "22021", "42703", "42P01", "40002", "25001"] {
            assert!(!is_ill(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_closed_connection_has_no_state_and_is_an_illness() {
        assert!(is_infrastructure(&Error::__private_api_timeout()));
    }
}
