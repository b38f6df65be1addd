//! `dispatch tracker import`: organizations, people, groups and links, from one JSON document.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::output::{Output, plain, rendered};
use super::publish::contents;
use crate::config::Links;
use crate::secrets::Keyring;
use crate::store::{self, StoreError};
use crate::tracker::{self, ImportCounts, TrackerDocument};

/// Bring in organizations, people, groups and links
#[derive(Debug, Subcommand)]
pub(super) enum Tracker {
    Import(Import),
}

/// Import a tracker document; repeating it changes nothing. Jobs whose cause for waiting is gone go on
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(flatten)]
    links: Links,
    /// The document, JSON; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Tracker {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let Self::Import(import) = self;
        import.run(output).await
    }
}

impl Import {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let keyring = Keyring::parse(self.links.keyring()?)?;
        let store = connect::store(&self.links).await?;
        let (name, bytes) = contents(&self.file)?;
        let document = parse(&bytes).context(name)?;
        let (counts, causes) = import(&self.links, &keyring, &document).await?;
        let mut released = 0;
        for cause in &causes {
            released += store.release_all(cause).await?;
        }
        output.answer(&json!({"rows": counts, "jobs_released": released}), || text(output, &counts, released))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn import(links: &Links, keyring: &Keyring, document: &TrackerDocument) -> anyhow::Result<(ImportCounts, Vec<String>)> {
    let (mut client, connection) = store::connect(links.database_url()?).await?;
    tokio::pin!(connection);
    tokio::select! {
        imported = tracker::import(&mut client, keyring, document) => Ok(imported?),
        ended = &mut connection => Err(match ended {
            Err(error) => StoreError::Database(error).into(),
            Ok(()) => anyhow!("Postgres closed the connection"),
        }),
    }
}

fn parse(bytes: &[u8]) -> anyhow::Result<TrackerDocument> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let document = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| anyhow!("at `{}`: {}", error.path(), without_values(&error.inner().to_string())))?;
    reader.end().map_err(|error| anyhow!("after the document: {error}"))?;
    Ok(document)
}

/// A parser's message without the string it quotes, which may be a token.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &message[..=first], &message[last..]),
        _ => message.to_owned(),
    }
}

fn text(output: Output, counts: &ImportCounts, released: u64) -> String {
    let mut table = output.table(&["table", "rows added or changed"]);
    for (name, rows) in counts {
        table.add_row([Cell::new(plain(name)), Cell::new(rows)]);
    }
    format!("{}\n\njobs that go on: {released}", rendered(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_document_is_told_by_its_path_and_without_its_secrets() {
        let secret = r#"{"integrations":[{"account_id":"a","account_name":"contoso","hook_secrets":"canary"}]}"#;
        let error = parse(secret.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("at `integrations[0].hook_secrets`: invalid type: string \"…\", expected a sequence"),
            "{error}"
        );
        let unknown = parse(br#"{"people":[]}"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `people`") && unknown.contains("`users`"), "{unknown}");
        assert!(parse(b"{} {}").is_err());
    }
}
