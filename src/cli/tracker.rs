//! `dispatch tracker import|export`: imports and exports the tracker as one JSON document.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::connect;
use super::consent::operator;
use super::failure::Usage;
use super::output::{Output, plain, rendered, say};
use super::publish::contents;
use crate::app;
use crate::config::Links;
use crate::escape;
use crate::operations;
use crate::secrets::Keyring;
use crate::store::{CappedCount, Released};
use crate::tracker::{ImportCounts, Imported, TrackerDocument};

/// Import or export organizations, people, groups, links, identities and destinations
#[derive(Debug, Subcommand)]
pub(super) enum Tracker {
    Import(Import),
    Export(Export),
}

/// Import a tracker document; idempotent; jobs continue if the import removes the cause of their
/// wait
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(flatten)]
    links: Links,
    /// Reason for the audit log
    #[arg(long)]
    reason: Option<String>,
    /// JSON file with the document; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Print the tracker as a document for import; without secrets, importing it keeps the present
/// ones
#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    links: Links,
    /// Include tokens and secrets in plain text, never on a terminal; the audit log records it
    #[arg(long)]
    with_secrets: bool,
    /// Reason for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl Tracker {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Import(import) => import.run(output).await,
            Self::Export(export) => export.run(output).await,
        }
    }
}

impl Export {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let keyring = self.keyring()?;
        let (store, tracker) = connect::store_and_tracker(&self.links).await?;
        let export = match &keyring {
            Some(keyring) => {
                let actor = operator(self.reason);
                operations::export_secrets(&store, &tracker, keyring, &actor).await?
            }
            None => tracker.export(None).await?,
        };
        let document = serde_json::to_string_pretty(&export.document)
            .context("the document cannot be encoded as JSON")?;
        // Escaped as JSON, so that the file has the same values as the tables.
        output.answer(&export.document, || escape::json(&document).into_owned())?;
        if export.people_left_out > 0 {
            say(&format!(
                "skipped {} people without a verified address: they have no key",
                export.people_left_out
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the keyring that opens the secrets, if they are exported.
    fn keyring(&self) -> anyhow::Result<Option<Keyring>> {
        if !self.with_secrets {
            return Ok(None);
        }
        if io::stdout().is_terminal() {
            return Err(Usage(
                "expected a file for the secrets, got a terminal; use `… > FILE`".to_owned(),
            )
            .into());
        }
        app::keyring(&self.links).map(Some)
    }
}

impl Import {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let keyring = app::keyring(&self.links)?;
        let store = connect::store(&self.links).await?;
        let (name, bytes) = contents(&self.file)?;
        let document: TrackerDocument = parse(&bytes).context(name)?;
        let Imported {
            counts,
            gone,
            released,
        } = operations::import_tracker(
            self.links.database_url()?,
            &keyring,
            &operator(self.reason),
            &document,
        )
        .await?;
        let later = store
            .waiting_for_each(&gone)
            .await?
            .into_iter()
            .map(CappedCount::at_least)
            .sum();
        let released = Released {
            now: released,
            later: CappedCount::of(later),
        };
        let value = json!({"rows": counts, "jobs_released": released.now, "jobs_to_follow": released.later});
        output.answer(&value, || text(output, &counts, released))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses a JSON document. An error names the path, and omits values, which may be tokens.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let document = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        anyhow!(
            "at `{}`: {}",
            error.path(),
            without_values(&error.inner().to_string())
        )
    })?;
    reader
        .end()
        .map_err(|error| anyhow!("after the document: {error}"))?;
    Ok(document)
}

/// Returns a parser's message without the string that it quotes, which may be a token.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}…{}", &message[..=first], &message[last..])
        }
        _ => message.to_owned(),
    }
}

fn text(output: Output, counts: &ImportCounts, released: Released) -> String {
    let mut table = output.table(&["table", "rows added or changed"]);
    for (name, rows) in counts {
        table.add_row([Cell::new(plain(name)), Cell::new(rows)]);
    }
    format!("{}\n\njobs released: {released}", rendered(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_document_is_reported_by_its_path_and_without_its_secrets() {
        let secret = r#"{"integrations":[{"account_id":"a","account_name":"contoso","hook_secrets":"canary"}]}"#;
        let error = parse::<TrackerDocument>(secret.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(
                "at `integrations[0].hook_secrets`: invalid type: string \"…\", expected a sequence"
            ),
            "{error}"
        );
        let unknown = parse::<TrackerDocument>(br#"{"people":[]}"#)
            .unwrap_err()
            .to_string();
        assert!(
            unknown.contains("unknown field `people`") && unknown.contains("`users`"),
            "{unknown}"
        );
        assert!(parse::<TrackerDocument>(b"{} {}").is_err());
    }
}
