//! `dispatch erase`: erases a person or an organization from every table. It first shows the
//! number of rows in each table, and changes nothing without consent.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::{Value, json};

use super::connect;
use super::consent::Consent;
use super::output::{Output, plain, rendered, say, say_lines};
use crate::app;
use crate::config::Links;
use crate::erasure::{Erasure, Rows, Subject};
use crate::store::{self, Actor, Store};

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
            let mut erasure = Erasure::of(client, &keyring, &subject).await?;
            self.erase(kind, &mut erasure, &store, output).await
        })
        .await
    }

    async fn erase(
        &self,
        kind: &str,
        erasure: &mut Erasure<'_>,
        store: &Store,
        output: Output,
    ) -> anyhow::Result<ExitCode> {
        let pseudonym = erasure.pseudonym().to_owned();
        let would_be = erasure.run(true).await?;
        for name in erasure.left_out() {
            say(&format!(
                "texts are not searched for `{name}` alone: it is too short or too long, or others have it too"
            ));
        }
        if !self.consent.is_possible() {
            answer(output, &pseudonym, &would_be, true)?;
            say("nothing was changed; use --yes to erase these rows");
            return Ok(ExitCode::SUCCESS);
        }
        say_lines(&table(Output::new(false), &would_be));
        self.consent.to(&format!(
            "Erase {kind} {pseudonym} from these rows permanently?"
        ))?;
        let actor = self.consent.actor();
        let named = json!({"pseudonym": pseudonym});
        // Written before the audit log is searched, so that a reason that names the person is
        // erased too.
        store
            .audit(&actor, &format!("erase.{kind}"), None, &Value::Null, &named)
            .await?;
        let rows = erasure.run(false).await?;
        // The actor may be the erased person.
        let done = Actor {
            who: "erase".to_owned(),
            role: actor.role,
            reason: None,
        };
        let after = json!({"pseudonym": pseudonym, "rows": rows});
        store
            .audit(&done, &format!("erased.{kind}"), None, &Value::Null, &after)
            .await?;
        answer(output, &pseudonym, &rows, false)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn answer(output: Output, pseudonym: &str, rows: &Rows, is_dry: bool) -> anyhow::Result<()> {
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
