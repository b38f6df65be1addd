//! Environment variables that are not settings of the command line, and the check for unknown
//! settings.

/// Returns the Postgres and RabbitMQ URLs of servers that tests use instead of private ones.
#[must_use]
pub fn test_servers() -> Option<(String, String)> {
    let read = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    Some((
        read("DISPATCH_TEST_DATABASE_URL")?,
        read("DISPATCH_TEST_AMQP_URL")?,
    ))
}

/// Returns the number of cases that a property test with real servers runs, if set.
#[must_use]
pub fn test_cases() -> Option<u32> {
    number("DISPATCH_TEST_CASES")
}

/// Returns the number of inputs of each target of `fuzz`, if set.
#[cfg(test)]
pub(crate) fn fuzz_inputs() -> Option<u64> {
    number("DISPATCH_FUZZ_INPUTS")
}

/// Returns the factor by which the tables for the tests of statements are larger than usual, if
/// set.
#[must_use]
pub fn test_scale() -> Option<u32> {
    number("DISPATCH_TEST_SCALE")
}

/// Returns the seed of the only case that a property test with real servers runs, if set.
#[must_use]
pub fn test_seed() -> Option<u64> {
    number("DISPATCH_TEST_SEED")
}

fn number<N: std::str::FromStr>(name: &str) -> Option<N> {
    std::env::var_os(name)?.into_string().ok()?.parse().ok()
}

/// Settings without a flag, with their descriptions.
pub const WITHOUT_FLAG: [(&str, &str); 1] = [(
    "DISPATCH_USER",
    "Operator's name in the audit log; if unset, the first of `SUDO_USER`, `USER` and `LOGNAME` that is set",
)];
/// Variables that only tests read.
const OF_TESTS: [&str; 6] = [
    "DISPATCH_TEST_DATABASE_URL",
    "DISPATCH_TEST_AMQP_URL",
    "DISPATCH_TEST_CASES",
    "DISPATCH_TEST_SEED",
    "DISPATCH_TEST_SCALE",
    "DISPATCH_FUZZ_INPUTS",
];
const PREFIX: &str = "DISPATCH_";

/// Environment variables with the prefix of settings that are not settings.
#[derive(Debug, thiserror::Error)]
#[error("{}; use a setting that `dispatch settings` lists", .0.join(", "))]
pub struct UnknownSettings(Vec<String>);

/// Checks that every environment variable with the prefix of settings is a setting: a misspelt one
/// would have no effect. `known` are the names of the command line.
///
/// # Errors
/// [`UnknownSettings`] names each unknown variable and the most similar setting.
pub fn check_environment(known: &[String]) -> Result<(), UnknownSettings> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let unknown = unknown_settings(names, known);
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(UnknownSettings(unknown))
    }
}

fn unknown_settings(names: impl Iterator<Item = String>, known: &[String]) -> Vec<String> {
    let is_known = |name: &str| {
        let flagless = WITHOUT_FLAG.iter().any(|(known, _)| *known == name);
        flagless || OF_TESTS.contains(&name) || known.iter().any(|known| known == name)
    };
    let is_unknown =
        |name: &String| name.starts_with(PREFIX) && !is_known(name) && !is_service_link(name);
    let mut unknown: Vec<String> = names.filter(is_unknown).collect();
    unknown.sort_unstable();
    let report = |name: &String| match nearest(name, known) {
        Some(near) => format!("{name} is not a setting (did you mean {near}?)"),
        None => format!("{name} is not a setting"),
    };
    unknown.iter().map(report).collect()
}

/// Returns whether Kubernetes sets the variable. For a service named `dispatch-…` it sets
/// `DISPATCH_…_SERVICE_HOST`, `…_SERVICE_PORT[_NAME]`, `…_PORT`, `…_PORT_5432_TCP[_ADDR]` and
/// similar variables in every container of the namespace
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn is_service_link(name: &str) -> bool {
    let is_number = |rest: &str| {
        rest.strip_prefix('_')
            .is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut after_port = name
        .match_indices("_PORT")
        .map(|(at, port)| &name[at + port.len()..]);
    let is_port = after_port.any(|rest| rest.is_empty() || is_number(rest));
    is_port || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT_")
}

/// Returns the known name with the smallest edit distance from `name`, if that is at most a third
/// of its length.
fn nearest<'n>(name: &str, known: &'n [String]) -> Option<&'n str> {
    let tail = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let wanted = tail(name);
    let near = known
        .iter()
        .map(|known| (distance(&wanted, &tail(known)), known))
        .min()?;
    (near.0 * 3 <= wanted.chars().count()).then_some(near.1)
}

/// Returns the Levenshtein distance: the number of insertions, deletions and substitutions that
/// turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Returns the user who runs the command, for the audit log.
#[must_use]
pub fn user() -> String {
    let name = ["DISPATCH_USER", "SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(std::env::var_os);
    name.and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Returns whether colours are disabled (<https://no-color.org>).
#[must_use]
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(names: &[&str]) -> Vec<String> {
        let known = [
            "DISPATCH_CONCURRENCY",
            "DISPATCH_DATABASE_URL",
            "DISPATCH_DATABASE_CA",
        ]
        .map(str::to_owned);
        unknown_settings(names.iter().map(|&name| name.to_owned()), &known)
    }

    #[test]
    fn an_unknown_setting_is_reported_with_the_most_similar_one() {
        for (name, near) in [
            ("DISPATCH_CONCURENCY", "did you mean DISPATCH_CONCURRENCY?"),
            (
                "DISPATCH_CONCURRENCY_",
                "did you mean DISPATCH_CONCURRENCY?",
            ),
            (
                "DISPATCH_DATABSE_URI",
                "did you mean DISPATCH_DATABASE_URL?",
            ),
            (
                "DISPATCH_DATABASE_CAS",
                "did you mean DISPATCH_DATABASE_CA?",
            ),
        ] {
            let reported = unknown(&[name]);
            assert!(
                reported.len() == 1 && reported[0].starts_with(name) && reported[0].contains(near),
                "{reported:?}"
            );
        }
        assert_eq!(
            unknown(&["DISPATCH_", "DISPATCH_COLOUR"]),
            [
                "DISPATCH_ is not a setting",
                "DISPATCH_COLOUR is not a setting"
            ]
        );
    }

    #[test]
    fn settings_and_variables_of_other_programs_are_accepted() {
        let service =
            ["HOST", "PORT", "PORT_AMQP"].map(|what| format!("DISPATCH_RABBITMQ_SERVICE_{what}"));
        let port = ["", "_5672_TCP", "_5672_TCP_ADDR", "_5672_TCP_PROTO"]
            .map(|what| format!("DISPATCH_PORT{what}"));
        let others = [
            "DISPATCH_CONCURRENCY",
            "DISPATCH_USER",
            "DISPATCH_TEST_SEED",
            "DISPATCHER",
            "PATH",
        ];
        let names: Vec<&str> = others
            .into_iter()
            .chain(service.iter().chain(&port).map(String::as_str))
            .collect();
        assert_eq!(unknown(&names), Vec::<String>::new());
    }
}
