//! `dispatch erase`: erases a person or an organization from every table. It first shows the
//! number of rows in each table, and changes nothing without consent.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::consent::Consent;
use super::output::{Output, plain, rendered, say, say_lines};
use crate::app;
use crate::config::Links;
use crate::erasure::{Rows, Subject};
use crate::operations::{self, Erased};
use crate::store::{self, Store};

/// Erase a person or an organization from every table, as the owner; docs/operators.md describes
/// what backups keep
#[derive(Debug, Subcommand)]
pub(super) enum Erase {
    Person(Person),
    Organization(Organization),
}

/// Erase a person: show the row counts and ask; without --yes and a terminal, change nothing
#[derive(Debug, Args)]
pub(super) struct Person {
    /// Id or e-mail address of a user
    #[arg(value_name = "ID|E-MAIL")]
    person: String,
    #[command(flatten)]
    erasing: Erasing,
}

/// Erase an organization, with the people and accounts of no other organization: show the row
/// counts and ask; without --yes and a terminal, change nothing
#[derive(Debug, Args)]
pub(super) struct Organization {
    /// Slug of the organization
    #[arg(value_name = "SLUG")]
    organization: String,
    #[command(flatten)]
    erasing: Erasing,
}

#[derive(Debug, Args)]
struct Erasing {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    consent: Consent,
}

impl Erase {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Person(Person { person, erasing }) => {
                erasing.run("person", Subject::Person(person), output).await
            }
            Self::Organization(Organization {
                organization,
                erasing,
            }) => {
                erasing
                    .run("organization", Subject::Organization(organization), output)
                    .await
            }
        }
    }
}

impl Erasing {
    async fn run(self, kind: &str, subject: Subject, output: Output) -> anyhow::Result<ExitCode> {
        let keyring = app::keyring(&self.links)?;
        let store = connect::store(&self.links).await?;
        store::on_connection(self.links.database_url()?, async |client| {
            let mut erasing = operations::Erasing::of(client, &keyring, &subject).await?;
            self.erase(kind, &mut erasing, &store, output).await
        })
        .await
    }

    async fn erase(
        &self,
        kind: &str,
        erasing: &mut operations::Erasing<'_>,
        store: &Store,
        output: Output,
    ) -> anyhow::Result<ExitCode> {
        let would_be = erasing.preview().await?;
        for name in erasing.left_out() {
            say(&format!(
                "texts are not searched for `{name}` alone: it is too short or too long, or others have it too"
            ));
        }
        if !self.consent.is_possible() {
            answer(output, &would_be, true)?;
            say("nothing was changed; use --yes to erase these rows");
            return Ok(ExitCode::SUCCESS);
        }
        say_lines(&table(Output::new(false), &would_be.rows));
        self.consent.to(&format!(
            "Erase {kind} {} from these rows permanently?",
            would_be.pseudonym
        ))?;
        let erased = erasing.erase(store, &self.consent.actor()).await?;
        answer(output, &erased, false)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn answer(output: Output, erased: &Erased, is_dry: bool) -> anyhow::Result<()> {
    let Erased { pseudonym, rows } = erased;
    let value = json!({"pseudonym": pseudonym, "dry_run": is_dry, "rows": rows});
    output.answer(&value, || {
        format!("{}\n\npseudonym: {pseudonym}", table(output, rows))
    })
}

fn table(output: Output, rows: &Rows) -> String {
    let heading = "rows deleted or rewritten";
    let mut table = output.table(&["table", heading]);
    for (name, rows) in rows.iter().filter(|(_, rows)| **rows > 0) {
        table.add_row([Cell::new(plain(name)), Cell::new(rows)]);
    }
    rendered(table)
}
