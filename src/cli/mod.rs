//! The command line: one file per command. Data goes to stdout, everything else to stderr. The
//! exit code is 0, 1, or 2 for an invalid command line or setting.
//!
//! **Invariant:** only `cli` prints.

mod audit;
mod campaigns;
mod check;
mod completions;
mod connect;
mod consent;
mod console;
mod dead_letters;
#[cfg(feature = "devkit")]
mod demo;
mod destinations;
mod document;
mod duration;
mod erase;
mod failure;
mod failures;
mod fleet;
mod holds;
mod identities;
mod integrations;
mod jobs;
mod keys;
mod killswitch;
mod man;
mod migrate;
mod output;
mod pause;
mod pipelines;
mod producers;
mod publish;
mod reference;
mod schema;
mod secret;
mod settings;
#[cfg(feature = "devkit")]
mod simulator;
mod stuck;
mod tokens;
mod topology;
mod tracker;
mod worker;

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::output::Output;
use crate::config::{self, LogSettings, SecretFileFault};
use crate::telemetry;

/// A queue-driven worker: idempotent stages, checkpoints in Postgres, resume after any crash
#[derive(Debug, Parser)]
#[command(name = "dispatch", version, max_term_width = 100)]
struct Cli {
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    log: LogSettings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run private servers for the parent process
    #[cfg(feature = "devkit")]
    #[command(hide = true)]
    Guard,
    #[command(flatten)]
    Other(Box<Other>),
}

/// A command that runs in this process's runtime, with logs.
#[derive(Debug, Subcommand)]
enum Other {
    Worker(Box<worker::Worker>),
    Console(Box<console::Console>),
    Publish(publish::Publish),
    Schema(schema::Schema),
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    #[command(subcommand)]
    Failures(failures::Failures),
    #[command(subcommand)]
    Campaigns(campaigns::Campaigns),
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    Stuck(stuck::Stuck),
    Replicas(fleet::Replicas),
    Lanes(fleet::Lanes),
    #[command(subcommand)]
    Audit(audit::Audit),
    #[command(subcommand)]
    Holds(holds::Holds),
    Pause(pause::Pause),
    Resume(pause::Resume),
    #[command(subcommand)]
    Killswitch(killswitch::Killswitch),
    #[command(subcommand)]
    Producers(producers::Producers),
    #[command(subcommand)]
    Tracker(tracker::Tracker),
    #[command(subcommand)]
    Identities(identities::Identities),
    #[command(subcommand)]
    Integrations(integrations::Integrations),
    #[command(subcommand)]
    Destinations(destinations::Destinations),
    #[command(subcommand)]
    Erase(erase::Erase),
    #[command(subcommand)]
    Keys(keys::Keys),
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    #[command(subcommand)]
    Topology(topology::Topology),
    Migrate(migrate::Migrate),
    Check(Box<check::Check>),
    /// List every stage in order with its needs, effect class, retry policy and timeout
    Pipelines,
    /// Print the table of settings as Markdown
    Settings,
    Reference(reference::Reference),
    Completions(completions::Completions),
    Man(man::Manual),
    #[cfg(feature = "devkit")]
    Demo(demo::Demo),
    #[cfg(feature = "devkit")]
    #[command(hide = true)]
    Simulator(simulator::Simulator),
}

/// Parses the command line, runs the command and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    let run = || start(parse()?);
    run().unwrap_or_else(|error| failure::report(&error))
}

/// Parses the command line twice: the first pass determines the command, and so the secrets that
/// are read from files. An error of the parser, `--help` and `--version` end the process.
fn parse() -> Result<Cli, SecretFileFault> {
    let matches = Cli::command().get_matches();
    let mut matches = config::with_secret_files(Cli::command(), &matches)?.get_matches();
    Ok(Cli::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| error.format(&mut Cli::command()).exit()))
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    #[cfg_attr(
        not(feature = "devkit"),
        expect(
            clippy::infallible_destructuring_match,
            reason = "with the development kit there is a second command"
        )
    )]
    let command = match cli.command {
        #[cfg(feature = "devkit")]
        Command::Guard => {
            // The guard builds its own runtime. It runs without logs: its stderr reports to the
            // parent process line by line.
            crate::devkit::guard::run()?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Other(command) => command,
    };
    telemetry::log_to_stderr(&cli.log)?;
    if command.takes_settings() {
        settings::check_environment(&Cli::command())?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot build the Tokio runtime")?;
    runtime.block_on(Box::pin(command.run(Output::new(cli.json))))
}

impl Other {
    /// Returns whether a misspelt setting ends the command. `check` reports misspelt settings
    /// itself, with its other findings.
    const fn takes_settings(&self) -> bool {
        match self {
            Self::Check(_)
            | Self::Schema(_)
            | Self::Pipelines
            | Self::Settings
            | Self::Reference(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
            #[cfg(feature = "devkit")]
            Self::Simulator(_) => false,
            _ => true,
        }
    }

    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Worker(worker) => worker.run().await,
            Self::Console(console) => console.run().await,
            Self::Publish(publish) => publish.run(output).await,
            Self::Schema(schema) => schema.run(output),
            Self::Jobs(jobs) => jobs.run(output).await,
            Self::Failures(failures) => failures.run(output).await,
            Self::Campaigns(campaigns) => campaigns.run(output).await,
            Self::DeadLetters(dead_letters) => dead_letters.run(output).await,
            Self::Audit(audit) => audit.run(output).await,
            Self::Stuck(stuck) => stuck.run(output).await,
            Self::Replicas(replicas) => replicas.run(output).await,
            Self::Lanes(lanes) => lanes.run(output).await,
            Self::Holds(holds) => holds.run(output).await,
            Self::Pause(pause) => pause.run(output).await,
            Self::Resume(resume) => resume.run(output).await,
            Self::Killswitch(killswitch) => killswitch.run(output).await,
            Self::Producers(producers) => producers.run(output).await,
            Self::Tracker(tracker) => tracker.run(output).await,
            Self::Identities(identities) => identities.run(output).await,
            Self::Integrations(integrations) => integrations.run(output).await,
            Self::Destinations(destinations) => destinations.run(output).await,
            Self::Erase(erase) => erase.run(output).await,
            Self::Keys(keys) => keys.run(output).await,
            Self::Tokens(tokens) => tokens.run(output).await,
            Self::Topology(topology) => topology.run(output).await,
            Self::Migrate(migrate) => migrate.run(output).await,
            Self::Check(check) => check.run(output).await,
            Self::Pipelines => pipelines::run(output),
            Self::Settings => settings::run(&Cli::command(), output),
            Self::Reference(reference) => reference.run(Cli::command(), output),
            Self::Completions(completions) => completions.run(Cli::command(), output),
            Self::Man(man) => man.run(Cli::command(), output),
            #[cfg(feature = "devkit")]
            Self::Demo(demo) => demo.run(output).await,
            #[cfg(feature = "devkit")]
            Self::Simulator(simulator) => simulator.run().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_that_hides_its_value_has_a_file_and_no_other() {
        fn of(command: &clap::Command) -> Vec<&clap::Arg> {
            command
                .get_subcommands()
                .flat_map(of)
                .chain(command.get_arguments())
                .collect()
        }
        let command = Cli::command();
        let mut files = std::collections::BTreeSet::new();
        for argument in of(&command) {
            let file = config::secret_file_setting(argument);
            assert_eq!(
                file.is_some(),
                argument.is_hide_env_values_set(),
                "{}",
                argument.get_id()
            );
            files.extend(file);
        }
        let names = [
            "AMQP_URL",
            "DATABASE_URL",
            "ENTRA_CLIENT_SECRET",
            "KEYRING",
            "SMTP_URL",
            #[cfg(feature = "otlp")]
            "OTLP_HEADERS",
        ];
        let expected = names.map(|name| format!("DISPATCH_{name}_FILE"));
        assert!(
            expected.iter().all(|name| files.contains(name)),
            "{files:?}"
        );
    }

    #[test]
    fn a_job_is_named_by_its_id_or_by_source_and_key_and_by_nothing_less() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|_| ());
        let id = "0195612e-9a00-7000-8000-000000000001";
        assert!(parse(&format!("dispatch jobs show {id}")).is_ok());
        assert!(parse("dispatch jobs show --source a --key b --json").is_ok());
        for wrong in [
            "",
            " --source a",
            " --key b",
            " not-an-id",
            &format!(" {id} --source a --key b"),
        ] {
            assert_eq!(
                parse(&format!("dispatch jobs show{wrong}"))
                    .unwrap_err()
                    .exit_code(),
                2,
                "{wrong}"
            );
        }
    }
}
