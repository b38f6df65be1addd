//! `dispatch migrate`: migrates the schema to the current version.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::consent::operator;
use super::output::{Output, plain, say};
use crate::config::{Links, MigrateSettings};
use crate::store::{self, Migrated, WorkerLogin};

/// Migrate the database schema and grant the roles their rights, as the owner; idempotent
#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    settings: MigrateSettings,
}

impl Migrate {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let login = self
            .settings
            .worker_login
            .as_ref()
            .map(WorkerLogin::parse)
            .transpose()?;
        let Migrated { applied, left } = store::migrate_with(
            self.links.database_url()?,
            login.as_ref(),
            Some(&operator(None)),
        )
        .await?;
        let name = login.as_ref().map(WorkerLogin::name);
        output.answer(
            &json!({"applied": applied, "worker_login": name, "left": left}),
            || {
                let schema = match applied.as_slice() {
                    [] => "the schema is up to date".to_owned(),
                    names => names
                        .iter()
                        .map(|name| format!("applied {name}\n"))
                        .collect(),
                };
                let login = name.map_or_else(String::new, |name| {
                    format!("\nlogin for workers: {}", plain(name))
                });
                format!("{}{login}", schema.trim_end())
            },
        )?;
        for statement in left {
            say(&format!(
                "expected the right to run this statement, got none; have an administrator run: {statement}"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
