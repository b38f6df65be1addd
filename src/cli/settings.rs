//! `dispatch settings`: the table of settings, generated from the parser, so that the
//! documentation cannot differ from it.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Arg, Command};
use serde::Serialize;

use super::output::{Output, markdown_cell};
use crate::config::{self, UnknownSettings, WITHOUT_FLAG, secret_file_setting};

/// One setting: an environment variable and its flag.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Setting {
    environment: String,
    flag: Option<String>,
    default: Option<String>,
    meaning: String,
}

/// Prints the settings of `command` and its subcommands as a Markdown table.
pub(super) fn run(command: &Command, output: Output) -> anyhow::Result<ExitCode> {
    let settings = settings(command);
    output.answer(&settings, || markdown(&settings))?;
    Ok(ExitCode::SUCCESS)
}

/// The settings of `command` and its subcommands as a Markdown table.
pub(super) fn table(command: &Command) -> String {
    markdown(&settings(command))
}

/// Checks that every environment variable with the prefix of settings is a setting of `command` or
/// a subcommand.
pub(super) fn check_environment(command: &Command) -> Result<(), UnknownSettings> {
    let names = |argument| {
        name(argument)
            .into_iter()
            .chain(secret_file_setting(argument))
    };
    let known: Vec<String> = arguments(command).into_iter().flat_map(names).collect();
    config::check_environment(&known)
}

/// Returns every visible setting once: in order of declaration, global settings after those of
/// subcommands, settings without a flag last.
fn settings(command: &Command) -> Vec<Setting> {
    let mut seen = BTreeSet::new();
    let shown = arguments(command)
        .into_iter()
        .filter(|argument| !argument.is_hide_set());
    let mut found: Vec<Setting> = shown
        .flat_map(|argument| setting(argument).into_iter().chain(file(argument)))
        .collect();
    found.retain(|setting| seen.insert(setting.environment.clone()));
    found.extend(WITHOUT_FLAG.map(|(environment, meaning)| {
        let (environment, meaning) = (environment.to_owned(), meaning.to_owned());
        Setting {
            environment,
            flag: None,
            default: None,
            meaning,
        }
    }));
    found
}

fn arguments(command: &Command) -> Vec<&Arg> {
    let inner = command.get_subcommands().flat_map(arguments);
    inner.chain(command.get_arguments()).collect()
}

/// Returns the environment variable of an argument.
fn name(argument: &Arg) -> Option<String> {
    Some(argument.get_env()?.to_string_lossy().into_owned())
}

fn setting(argument: &Arg) -> Option<Setting> {
    let environment = name(argument)?;
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    Some(Setting {
        environment,
        flag: argument.get_long().map(|long| format!("--{long}")),
        default: (!defaults.is_empty()).then(|| defaults.join(", ")),
        meaning: argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default(),
    })
}

/// Returns the `…_FILE` form of a secret setting.
fn file(argument: &Arg) -> Option<Setting> {
    let (environment, secret) = (secret_file_setting(argument)?, name(argument)?);
    let meaning =
        format!("Absolute path of a file with the value of `{secret}`; use one of the two");
    Some(Setting {
        environment,
        flag: None,
        default: None,
        meaning,
    })
}

fn markdown(settings: &[Setting]) -> String {
    let mut lines = vec![
        "| setting | flag | default | meaning |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    let code =
        |text: Option<&String>| text.map_or_else(|| "–".to_owned(), |text| format!("`{text}`"));
    lines.extend(settings.iter().map(|setting| {
        let meaning = markdown_cell(&setting.meaning);
        let (flag, default) = (code(setting.flag.as_ref()), code(setting.default.as_ref()));
        format!(
            "| `{}` | {flag} | {default} | {meaning} |",
            setting.environment
        )
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::config::{Links, WorkerSettings};

    #[test]
    fn each_setting_is_listed_once_with_its_default_and_hidden_ones_are_not() {
        let inner = |name: &'static str| Links::augment_args(Command::new(name));
        let command = Command::new("x")
            .subcommand(WorkerSettings::augment_args(inner("worker")))
            .subcommand(inner("jobs"));
        let settings = settings(&command);
        let count = |name: &str| {
            settings
                .iter()
                .filter(|setting| setting.environment == name)
                .count()
        };
        assert_eq!(
            (
                count("DISPATCH_DATABASE_URL"),
                count("DISPATCH_CONCURRENCY"),
                count("DISPATCH_CRASH_AT")
            ),
            (1, 1, 0)
        );
        assert_eq!(
            (
                count("DISPATCH_DATABASE_URL_FILE"),
                count("DISPATCH_DATABASE_CA_FILE")
            ),
            (1, 0)
        );
        assert!(
            markdown(&settings)
                .contains("| `DISPATCH_CONCURRENCY` | `--concurrency` | `32` | Concurrency limit")
        );
        assert!(markdown(&settings).contains("| `DISPATCH_USER` | – | – | Operator's name"));
    }

    #[test]
    fn no_default_is_a_value_that_the_parser_refuses() {
        let command = Links::augment_args(WorkerSettings::augment_args(Command::new("x")));
        let matches = command.try_get_matches_from(["x"]).unwrap();
        assert!(WorkerSettings::from_arg_matches(&matches).is_ok());
    }
}
