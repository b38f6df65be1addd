//! `dispatch dead-letters`: lists, shows, corrects, replays and discards messages that could not
//! become a job.

mod discard;
mod fix;
mod resolve;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::connect;
use super::consent::operator;
use super::output::{Output, or_dash, plain, rendered, say, verbatim, when};
use crate::app;
use crate::config::Links;
use crate::operations;
use crate::store::{DeadLetter, DeadLetterRow, LetterFilter};

/// List, show, correct, replay or discard dead letters: messages that could not become a job
#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    List(List),
    Show(Show),
    Replay(resolve::Replay),
    Fix(fix::Fix),
    Discard(discard::Discard),
}

/// List dead letters, newest first
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
    /// Include replayed and discarded dead letters
    #[arg(long)]
    all: bool,
    /// Only with this code
    #[arg(long)]
    code: Option<String>,
    /// Only of this source; looks at 5,000 dead letters at a time
    #[arg(long)]
    source: Option<String>,
    /// Only older than this number; use the last number of a page for the next page
    #[arg(long, value_name = "NUMBER", default_value_t = i64::MAX, hide_default_value = true)]
    before: i64,
    /// Show at most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

/// Show one dead letter: its code, detail, origin, trace and broker headers, size and SHA-256
#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    links: Links,
    /// Number of the dead letter
    #[arg(value_name = "NUMBER")]
    id: i64,
    /// Print the body, and on stderr all headers; they may contain secrets, so the audit log
    /// records it
    #[arg(long)]
    raw: bool,
    /// Reason for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl DeadLetters {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Show(show) => show.run(output).await,
            Self::Replay(replay) => replay.run(output).await,
            Self::Fix(fix) => fix.run(output).await,
            Self::Discard(discard) => discard.run(output).await,
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let filter = LetterFilter {
            resolved_too: self.all,
            code: self.code,
            source: self.source,
            before: self.before,
            limit: self.limit,
        };
        let listed = store.list_letters(&filter).await?;
        output.rows(&listed.letters, table)?;
        if listed.letters.is_empty() {
            say("no dead letters");
        }
        if let Some(looked) = listed.looked {
            say(&format!(
                "looked at {looked} dead letters; there are older ones"
            ));
        }
        if let Some(next) = listed.next {
            say(&format!("next page: --before {next}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (keyring, store) = (
            app::keyring(&self.links)?,
            connect::store(&self.links).await?,
        );
        let letter = store
            .dead_letter(&keyring, self.id)
            .await?
            .context("there is no dead letter with this number")?;
        if !self.raw {
            output.answer(&letter, || page(output, &letter))?;
            return Ok(ExitCode::SUCCESS);
        }
        let body = letter.kept_body()?;
        operations::show_raw(&store, &operator(self.reason), self.id).await?;
        let body = String::from_utf8_lossy(body.expose_secret());
        let (body, headers) = (body.as_ref(), letter.all_headers.expose_secret());
        if output.is_json() {
            let mut value =
                serde_json::to_value(&letter).context("the answer cannot be encoded as JSON")?;
            value["body"] = Value::from(body);
            value["headers"] =
                serde_json::from_str(headers).context("the headers cannot be parsed as JSON")?;
            output.answer(&value, String::new)?;
        } else {
            say(&format!("headers: {headers}"));
            verbatim(body)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(output: Output, rows: &[DeadLetterRow]) -> String {
    let mut table = output.table(&[
        "number",
        "code",
        "detail",
        "source",
        "key",
        "routing key",
        "bytes",
        "received",
        "resolved",
    ]);
    for row in rows {
        table.add_row([
            Cell::new(row.id),
            Cell::new(plain(&row.code)),
            Cell::new(plain(&row.detail)),
            Cell::new(or_dash(row.source.as_deref())),
            Cell::new(or_dash(row.dedupe_key.as_deref())),
            Cell::new(plain(&row.routing_key)),
            Cell::new(row.body_bytes),
            Cell::new(when(row.created_at)),
            Cell::new(or_dash(row.resolution.as_deref())),
        ]);
    }
    rendered(table)
}

fn page(output: Output, letter: &DeadLetter) -> String {
    let row = &letter.row;
    let mut table = output.table(&[]);
    let lines = [
        ("number", row.id.to_string()),
        ("code", plain(&row.code)),
        ("detail", plain(&row.detail)),
        ("source", or_dash(row.source.as_deref())),
        ("key", or_dash(row.dedupe_key.as_deref())),
        ("message id", or_dash(row.message_id.as_deref())),
        ("routing key", plain(&row.routing_key)),
        ("cannot be opened", or_dash(letter.sealed.as_deref())),
        ("headers", plain(&letter.headers.to_string())),
        ("bytes", row.body_bytes.to_string()),
        ("sha256", letter.body_sha256.clone()),
        ("received", when(row.created_at)),
        (
            "resolved",
            row.resolved_at.map_or_else(|| "-".to_owned(), when),
        ),
        ("how", or_dash(row.resolution.as_deref())),
        ("by", or_dash(row.resolved_by.as_deref())),
        ("why", or_dash(row.resolved_reason.as_deref())),
        ("producer", or_dash(row.producer.as_deref())),
        ("replay wanted by", or_dash(row.replay_wanted_by.as_deref())),
        ("replay failed", or_dash(row.replay_error.as_deref())),
        ("corrected by", or_dash(row.fixed_by.as_deref())),
    ];
    for (name, text) in lines {
        table.add_row([name.to_owned(), text]);
    }
    rendered(table)
}
