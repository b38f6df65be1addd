//! `dispatch reference`: the pages under `docs/reference/`, printed from the program itself, so
//! that they cannot differ from it.

mod api;
mod commands;
mod events;
mod metrics;

use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
use serde_json::json;

use super::output::Output;
use super::settings;

/// Print a page of the reference as Markdown: the content of docs/reference/
#[derive(Debug, Args)]
pub(super) struct Reference {
    /// The page
    #[arg(value_enum)]
    page: Page,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Page {
    /// Every command with its arguments
    Commands,
    /// Every setting with its flag and default
    Settings,
    /// Every metric with its type and unit
    Metrics,
    /// Every outcome event with its fields
    Events,
    /// Every path of the console's API with its role
    Api,
}

impl Reference {
    pub(super) fn run(self, command: Command, output: Output) -> anyhow::Result<ExitCode> {
        let page = match self.page {
            Page::Commands => commands::page(command),
            Page::Settings => {
                format!(
                    "# Settings\n\nPrinted by `dispatch reference settings`.\n\n{}\n",
                    settings::table(&command)
                )
            }
            Page::Metrics => metrics::page(),
            Page::Events => events::page(),
            Page::Api => api::page(),
        };
        output.answer(&json!({ "markdown": page }), || page.trim_end().to_owned())?;
        Ok(ExitCode::SUCCESS)
    }
}
