//! The page of commands, from the parser.

use std::fmt::Write;

use clap::{Arg, Command};

use crate::cli::output::markdown_cell;

const INTRODUCTION: &str = "\
# Commands

Printed by `dispatch reference commands`. Every command takes the options of `dispatch` itself, before or after its name. An option
that names a variable can be set by that variable ([settings](settings.md)).

- The answer goes to stdout, everything else to stderr. `--json` makes the answer one JSON document.
- Exit codes: 0 done, 1 not done, 2 the command line or a setting is wrong; an interrupted `dispatch demo` exits with 130.
- A command with the option `--yes` asks for confirmation unless it has that option. `--reason` goes into the audit log, with the
  person who ran the command (`DISPATCH_USER`, or the user of the shell) and the login and the address that Postgres reports.
- `NO_COLOR` turns colours off.
";

/// A section for each command that does something, in the order of `--help`.
pub(super) fn page(mut command: Command) -> String {
    command.build();
    let mut page = INTRODUCTION.to_owned();
    let globals: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| is_shown(argument))
        .collect();
    section(&mut page, "dispatch", &command, &globals);
    inner(&mut page, "dispatch", &command);
    page
}

fn inner(page: &mut String, name: &str, command: &Command) {
    for sub in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        let name = format!("{name} {}", sub.get_name());
        if sub
            .get_subcommands()
            .any(|deeper| deeper.get_name() != "help")
        {
            inner(page, &name, sub);
        } else {
            let own: Vec<&Arg> = sub
                .get_arguments()
                .filter(|arg| is_shown(arg) && !arg.is_global_set())
                .collect();
            section(page, &name, sub, &own);
        }
    }
}

fn is_shown(argument: &Arg) -> bool {
    !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
}

fn section(page: &mut String, name: &str, command: &Command, arguments: &[&Arg]) {
    let about = command
        .get_long_about()
        .or_else(|| command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "\n## `{name}`\n\n{}.\n",
        about.trim().trim_end_matches('.')
    );
    if arguments.is_empty() {
        return;
    }
    page.push_str("\n| argument | default | meaning |\n|---|---|---|\n");
    for argument in arguments {
        let _ = writeln!(
            page,
            "| {} | {} | {} |",
            form(argument),
            default(argument),
            meaning(argument)
        );
    }
}

/// How it is written, as `--limit <N>`, and the variable that sets it.
fn form(argument: &Arg) -> String {
    let values = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|value| format!("<{value}>"))
        .collect::<Vec<_>>()
        .join(" ");
    let name = argument.get_long().map(|long| format!("--{long}"));
    let form = match (name, argument.get_action().takes_values()) {
        (Some(name), true) => format!("{name} {values}"),
        (Some(name), false) => name,
        (None, _) => values,
    };
    let variable = argument
        .get_env()
        .map(|variable| format!(" (`{}`)", variable.to_string_lossy()))
        .unwrap_or_default();
    format!("`{}`{variable}", markdown_cell(&form))
}

fn default(argument: &Arg) -> String {
    let values: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    if values.is_empty() || !argument.get_action().takes_values() {
        String::new()
    } else {
        format!("`{}`", markdown_cell(&values.join(", ")))
    }
}

/// What it is for, and the words that it takes where it takes no others.
fn meaning(argument: &Arg) -> String {
    let help = argument
        .get_long_help()
        .or_else(|| argument.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    // Only of an argument that takes values.
    let words = argument.get_possible_values();
    let words: Vec<String> = words
        .iter()
        .filter(|word| !word.is_hide_set())
        .map(|word| format!("`{}`", word.get_name()))
        .collect();
    let required = if argument.is_required_set() {
        " (required)"
    } else {
        ""
    };
    let words = if words.is_empty() {
        String::new()
    } else {
        format!("; one of {}", words.join(", "))
    };
    format!("{}{words}{required}", markdown_cell(&help))
}
