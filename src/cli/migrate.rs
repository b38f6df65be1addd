//! `dispatch migrate`: brings the schema up to date.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::Output;
use crate::config::Links;
use crate::store;

/// Bring the database's schema up to date; repeating it changes nothing
#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    links: Links,
}

impl Migrate {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let applied = store::migrate(self.links.database_url()?).await?;
        output.answer(&json!({"applied": applied}), || match applied.as_slice() {
            [] => "the schema is up to date".to_owned(),
            names => names.iter().map(|name| format!("applied {name}\n")).collect(),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
