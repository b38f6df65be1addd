//! `dispatch dead-letters discard`: discards dead letters by number, or all open ones that match a
//! filter. It previews the matches and asks for confirmation. Dead letters that are added later
//! are not included.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::resolve::Tally;
use super::table;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::duration;
use crate::cli::output::{Output, say, say_lines};
use crate::config::Links;
use crate::operations::{self, OperationError};
use crate::store::{CappedCount, LettersPreview, ManyLetters, Resolution, Store};

/// Pages between two progress lines.
const PROGRESS: u64 = 10;

/// Discard dead letters: they are kept, but listed with --all only
#[derive(Debug, Args)]
pub(in crate::cli) struct Discard {
    #[command(flatten)]
    links: Links,
    /// Numbers of the dead letters
    #[arg(value_name = "NUMBER", required_unless_present_any = ["all", "code", "source", "producer", "older_than"],
        conflicts_with_all = ["all", "code", "source", "producer", "older_than", "limit", "dry_run"])]
    ids: Vec<i64>,
    /// Discard all that are open now and match the other options
    #[arg(long)]
    all: bool,
    /// Only with this code
    #[arg(long)]
    code: Option<String>,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only published by this RabbitMQ user
    #[arg(long, value_name = "USER")]
    producer: Option<String>,
    /// Only stored at least this long ago: 90s, 15m, 24h, 7d; at most 90d
    #[arg(long, value_name = "AGE", value_parser = duration::parse)]
    older_than: Option<Duration>,
    /// Discard at most this many, oldest first
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Show the matches without discarding them
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Discard {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        if !self.dry_run {
            self.consent.can_be_had()?;
        }
        let store = connect::store(&self.links).await?;
        if self.ids.is_empty() {
            self.many(&store, output).await
        } else {
            self.some(&store, output).await
        }
    }

    async fn some(&self, store: &Store, output: Output) -> anyhow::Result<ExitCode> {
        let mut tally = Tally::new(Resolution::Discarded, CappedCount::default());
        self.consent
            .to(&format!("Discard {} dead letters?", self.ids.len()))?;
        for id in &self.ids {
            match operations::discard(store, &self.consent.actor(), *id).await {
                Ok(()) => tally.done.push(*id),
                Err(OperationError::Unknown(why)) => tally.not_done.push((*id, why)),
                Err(error) => return Err(error.into()),
            }
        }
        tally.print(output)
    }

    async fn many(&self, store: &Store, output: Output) -> anyhow::Result<ExitCode> {
        let filter = ManyLetters {
            code: self.code.clone(),
            source: self.source.clone(),
            producer: self.producer.clone(),
            older_than_seconds: self.older_than.map(|age| age.as_secs()),
            limit: self.limit,
        };
        let chosen = store.choose_letters(filter).await?;
        let preview = store.preview_letters(&chosen).await?;
        if self.dry_run || preview.count.is_zero() {
            return previewed(output, &preview);
        }
        say_lines(&table(Output::new(false), &preview.sample));
        let limit = self
            .limit
            .map(|limit| format!("at most {limit} of "))
            .unwrap_or_default();
        self.consent
            .to(&format!("Discard {limit}{} dead letters?", preview.count))?;
        let mut pages = 0_u64;
        let progress = |letters, last| {
            pages += 1;
            if pages.is_multiple_of(PROGRESS) {
                say(&format!(
                    "discarded {letters} dead letters so far, up to number {last}"
                ));
            }
        };
        let letters =
            operations::discard_many(store, &self.consent.actor(), &chosen, progress).await?;
        let left = preview
            .count
            .without(usize::try_from(letters).unwrap_or(usize::MAX));
        let value = json!({"resolution": Resolution::Discarded.word(), "discarded": letters, "left": left, "dry_run": false});
        output.answer(&value, || format!("discarded {letters} dead letters"))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn previewed(output: Output, preview: &LettersPreview) -> anyhow::Result<ExitCode> {
    let LettersPreview { count, sample } = preview;
    let value = json!({"dead_letters": count, "sample": sample, "discarded": 0, "dry_run": true});
    output.answer(&value, || {
        if sample.is_empty() {
            String::new()
        } else {
            format!("{}\n\n{count} dead letters", table(output, sample))
        }
    })?;
    if count.is_zero() {
        say("no open dead letter matches");
    }
    Ok(ExitCode::SUCCESS)
}
