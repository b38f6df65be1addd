//! Classifies errors of Postgres: is the server unavailable, or is the statement wrong?

use tokio_postgres::Error;

/// Prefixes of the driver's own errors for mistakes of this program: a statement that does not fit
/// its tables, or a setting that cannot be parsed. The driver keeps its kinds of errors private,
/// so their texts must do.
const OURS: [&str; 7] = [
    "error serializing parameter",
    "error deserializing column",
    "error encoding message",
    "expected ",
    "invalid column",
    "invalid con",
    "query returned an unexpected number",
];

/// Returns whether `error` is one of the server or the connection: class 08 (connection), 53
/// (resources), 57P (operator intervention), 58 (system error), 25006 (read-only), 40001
/// (serialization), 40P01 (deadlock), 55P03 (lock not available), 57014 (the pool's own statement
/// timeout), or no SQLSTATE at all (connection lost, no answer), unless the driver reports a
/// mistake of this program. Codes: PostgreSQL documentation, appendix A.
#[must_use]
pub fn is_infrastructure(error: &Error) -> bool {
    error.code().map_or_else(
        || !is_ours(&error.to_string()),
        |state| is_unavailable(state.code()),
    )
}

/// Returns whether Postgres has refused a row, or another transaction was in the way: the whole
/// transaction is rolled back, and Postgres is available.
#[must_use]
pub fn is_rolled_back(error: &Error) -> bool {
    error
        .code()
        .is_some_and(|state| !is_unavailable(state.code()) || CONTENTION.contains(&state.code()))
}

/// The classes of errors that [`class`] returns.
pub const CLASSES: [&str; 10] = [
    "connection",
    "resources",
    "shutdown",
    "system",
    "read_only",
    "contention",
    "timeout",
    "refused",
    "no_answer",
    "program",
];

/// Returns the class of an error, for a metric: `refused` is a statement that Postgres refused,
/// `no_answer` a lost connection, `program` a mistake of this program.
#[must_use]
pub fn class(error: &Error) -> &'static str {
    match error.code() {
        Some(state) => class_of(state.code()),
        None if is_ours(&error.to_string()) => "program",
        None => "no_answer",
    }
}

fn class_of(state: &str) -> &'static str {
    match state {
        "25006" => "read_only",
        "57014" => "timeout",
        state if CONTENTION.contains(&state) => "contention",
        state if state.starts_with("08") => "connection",
        state if state.starts_with("53") => "resources",
        state if state.starts_with("57P") => "shutdown",
        state if state.starts_with("58") => "system",
        _ => "refused",
    }
}

/// Serialization, deadlock, lock not available.
const CONTENTION: [&str; 3] = ["40001", "40P01", "55P03"];

fn is_unavailable(state: &str) -> bool {
    ["08", "53", "57P", "58"]
        .iter()
        .any(|class| state.starts_with(class))
        || ["25006", "40001", "40P01", "55P03", "57014"].contains(&state)
}

fn is_ours(text: &str) -> bool {
    OURS.iter().any(|ours| text.starts_with(ours))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::{Config, NoTls};

    use super::*;

    #[test]
    fn every_state_has_a_class_of_the_closed_list() {
        for (state, class) in [
            ("08006", "connection"),
            ("53300", "resources"),
            ("57P01", "shutdown"),
            ("57014", "timeout"),
            ("58030", "system"),
            ("25006", "read_only"),
            ("40P01", "contention"),
            ("23505", "refused"),
        ] {
            assert_eq!(class_of(state), class);
            assert!(CLASSES.contains(&class), "{class}");
        }
    }

    #[test]
    fn an_unavailable_server_is_distinguished_from_a_wrong_statement() {
        for unavailable in [
            "08006", "53100", "53300", "57P01", "57P03", "25006", "40001", "40P01", "55P03",
            "57014",
        ] {
            assert!(is_unavailable(unavailable), "{unavailable}");
        }
        for wrong in ["23505", "22021", "42703", "42P01", "40002", "25001"] {
            assert!(!is_unavailable(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_setting_is_a_mistake_of_this_program() {
        assert!(!is_infrastructure(
            &"port=none".parse::<Config>().unwrap_err()
        ));
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_reached_is_unavailable() {
        let nobody = tokio_postgres::connect("host=127.0.0.1 port=1 user=nobody", NoTls).await;
        assert!(is_infrastructure(&nobody.err().unwrap()));
    }
}
