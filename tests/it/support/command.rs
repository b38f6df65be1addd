//! The program's commands, run as a person runs them, without a terminal.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::acme;
use super::servers::BINARY;
use super::world::TestWorld;

/// Commands that need the database owner: they change accounts, producers or the schema. All
/// others run with a worker's login.
const OF_THE_OWNER: [&str; 7] = [
    "migrate",
    "tracker",
    "identities",
    "integrations",
    "destinations",
    "producers",
    "erase",
];
/// The time limit of a command.
const LIMIT: Duration = Duration::from_secs(60);

/// A command with its environment that has not been run yet.
pub(crate) struct Dispatch {
    command: Command,
    stdin: Vec<u8>,
    /// The file that keeps the output for the search at the world's end.
    log: Option<PathBuf>,
}

/// The exit code and the output of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestWorld {
    /// Returns the command that disables or enables the account.
    pub(crate) fn switch_account(&self, verb: &str) -> Dispatch {
        let account = acme::account_id();
        self.dispatch(&[
            "integrations",
            verb,
            &account,
            "--organization",
            "acme",
            "--yes",
        ])
    }

    /// Returns a command that uses this world's servers and keyring, and its simulator as the
    /// providers if there is one.
    pub(crate) fn dispatch(&self, arguments: &[&str]) -> Dispatch {
        let is_owner = arguments
            .first()
            .is_some_and(|command| OF_THE_OWNER.contains(command));
        let database = if is_owner {
            &self.database.url
        } else {
            &self.database.worker_url
        };
        let mut environment = BTreeMap::from([
            ("DATABASE_URL", database.expose_secret().to_owned()),
            ("AMQP_URL", self.amqp_url.expose_secret().to_owned()),
            ("KEYRING", self.keyring_setting.expose_secret().to_owned()),
            ("USER", "olga".to_owned()),
        ]);
        if let Some(simulator) = self.simulator_url() {
            environment.insert("ALLOW_HTTP_LOOPBACK", "true".to_owned());
            environment.insert("DISCORD_URL", format!("{simulator}/api/v10"));
            for name in [
                "AZURE_DEVOPS_URL",
                "AZURE_DEVOPS_PROFILE_URL",
                "AZURE_DEVOPS_GRAPH_URL",
                "AZURE_DEVOPS_SEARCH_URL",
            ] {
                environment.insert(name, simulator.to_owned());
            }
        }
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.kill_on_drop(true);
        command.envs(
            environment
                .into_iter()
                .map(|(name, value)| (format!("DISPATCH_{name}"), value)),
        );
        Dispatch {
            command,
            stdin: Vec::new(),
            log: Some(self.command_log()),
        }
    }
}

impl Dispatch {
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Excludes the output from the search for secrets, for a command that prints secrets on
    /// request.
    pub(crate) fn prints_secrets(mut self) -> Self {
        self.log = None;
        self
    }

    /// Gives the command a terminal as stdout, through `script` (bsdutils, on every Debian), which
    /// also passes stderr on.
    pub(crate) fn on_a_terminal(self) -> Self {
        let inner = self.command.as_std();
        let words = std::iter::once(inner.get_program()).chain(inner.get_args());
        let line: Vec<String> = words
            .map(|word| format!("'{}'", word.to_str().expect("a text without quotes")))
            .collect();
        let mut command = Command::new("script");
        command
            .args([
                "--quiet",
                "--return",
                "--command",
                &line.join(" "),
                "/dev/null",
            ])
            .env_clear()
            .kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        Self { command, ..self }
    }

    /// Starts the command; dropping the child kills it.
    pub(crate) fn start(mut self) -> Child {
        let output = || {
            self.log
                .as_ref()
                .map_or_else(Stdio::null, |log| appended(log).into())
        };
        self.command
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output());
        self.command.spawn().expect("the program starts")
    }

    /// Runs the command to its end.
    pub(crate) async fn said(mut self) -> Said {
        let mut child = self.command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        let write = async move {
            // A command that reads no stdin may have closed it.
            drop(stdin.write_all(&self.stdin).await);
            drop(stdin);
        };
        let run = async { tokio::join!(write, child.wait_with_output()).1 };
        let output = tokio::time::timeout(LIMIT, run)
            .await
            .expect("the command ends in time")
            .expect("its output can be read");
        if let Some(log) = &self.log {
            std::fs::write(log, [&output.stdout[..], &output.stderr].concat())
                .expect("a log can be written");
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is UTF-8");
        Said {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs the command with `--json`; returns its exit code and its answer.
    pub(crate) async fn answer(mut self) -> (Option<i32>, Value) {
        self.command.arg("--json");
        let said = self.said().await;
        let answer = serde_json::from_str(&said.stdout);
        (
            said.code,
            answer.unwrap_or_else(|error| panic!("{error}: {said:?}")),
        )
    }

    /// Runs the command with `--json`, asserts that it succeeds, and returns its answer.
    pub(crate) async fn done(mut self) -> Value {
        self.command.arg("--json");
        let said = self.said().await;
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }
}

/// Returns a count of the program's JSON, below its limit.
pub(crate) fn count(n: usize) -> Value {
    serde_json::json!({"n": n, "exact": true})
}

fn appended(path: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .expect("a log can be written")
}
