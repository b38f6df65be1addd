//! `dispatch check`: checks everything that a worker needs, and prints one line for each check:
//! its state and, on failure, what to use instead.

mod live;
mod offline;

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use comfy_table::Cell;
use serde::Serialize;
use serde_json::json;

use super::failure::USAGE;
use super::output::{Output, plain, rendered};
use crate::config::{Links, WorkerSettings};

/// Check settings, keyring and URLs; with --live also servers, schema, role, rights, topology,
/// keys and clock
///
/// Exit code 2 if a setting is invalid, 1 if only a check of --live fails.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Check Postgres and RabbitMQ too, without changing anything
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    settings: WorkerSettings,
}

/// The result of one check.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    /// What was found, and on failure what to use instead.
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// A worker runs, but the setting is not recommended.
    Warn,
    Fail,
}

impl Check {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let mut findings = vec![offline::environment(&super::Cli::command())];
        findings.extend(offline::findings(&self.links, &self.settings));
        let settings_are_right = right(&findings);
        if self.live {
            findings.extend(live::findings(&self.links).await);
        }
        let right = right(&findings);
        output.answer(&json!({"right": right, "findings": findings}), || {
            table(output, &findings)
        })?;
        Ok(match (settings_are_right, right) {
            (false, _) => ExitCode::from(USAGE),
            (true, false) => ExitCode::FAILURE,
            (true, true) => ExitCode::SUCCESS,
        })
    }
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Ok,
            detail: detail.into(),
        }
    }

    fn warn(check: &'static str, detail: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Warn,
            detail: detail.into(),
        }
    }

    fn fail(check: &'static str, detail: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Fail,
            detail: detail.into(),
        }
    }

    /// Converts a result: `Ok` passes, `Err` fails with its text as the detail.
    fn of(check: &'static str, seen: Result<String, String>) -> Self {
        match seen {
            Ok(detail) => Self::ok(check, detail),
            Err(why) => Self::fail(check, why),
        }
    }
}

fn right(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Fail)
}

fn table(output: Output, findings: &[Finding]) -> String {
    let mut table = output.table(&["", "check", ""]);
    for Finding {
        check,
        state,
        detail,
    } in findings
    {
        let word = match state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        table.add_row([Cell::new(word), Cell::new(check), Cell::new(plain(detail))]);
    }
    rendered(table)
}
