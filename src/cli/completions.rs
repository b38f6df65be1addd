//! `dispatch completions`: a script that completes the command line in a shell.

use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use serde_json::json;

use super::output::Output;

/// Print a script that completes commands and options in a shell
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(super) fn run(self, command: Command, output: Output) -> anyhow::Result<ExitCode> {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut visible(&command), "dispatch", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        output.answer(
            &json!({"shell": shell.to_string(), "script": script}),
            || script.clone(),
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the command without its hidden subcommands, which the generator would offer.
fn visible(command: &Command) -> Command {
    let inner = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set());
    Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(command.get_version().is_none())
        .args(command.get_arguments())
        .subcommands(inner.map(visible))
}
