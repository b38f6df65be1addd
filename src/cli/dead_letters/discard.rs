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
use crate::store::{CappedCount, ChosenLetters, LettersPreview, ManyLetters, Resolution, Store};

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
            if store
                .resolve(*id, Resolution::Discarded, &self.consent.actor())
                .await?
            {
                tally.done.push(*id);
            } else {
                tally.not_done.push((
                    *id,
                    "there is no open dead letter with this number".to_owned(),
                ));
            }
        }
        tally.tell(output)
    }

    async fn many(&self, store: &Store, output: Output) -> anyhow::Result<ExitCode> {
        let filter = ManyLetters {
            code: self.code.clone(),
            source: self.source.clone(),
            producer: self.producer.clone(),
            older_than_seconds: self.older_than.map(|age| age.as_secs()),
            limit: self.limit,
        };
        let chosen = store.choose_letters(filter.clone()).await?;
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
        let actor = self.consent.actor();
        store
            .audit(
                &actor,
                "dead_letters.discard_many",
                None,
                &json!(null),
                &json!(filter),
            )
            .await?;
        let letters = self.discard(store, &chosen).await?;
        store
            .audit(
                &actor,
                "dead_letters.discarded_many",
                None,
                &json!(filter),
                &json!({"discarded": letters}),
            )
            .await?;
        let left = preview
            .count
            .without(usize::try_from(letters).unwrap_or(usize::MAX));
        let value = json!({"resolution": Resolution::Discarded.word(), "discarded": letters, "left": left, "dry_run": false});
        output.answer(&value, || format!("discarded {letters} dead letters"))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Discards page by page until no match is left or the limit is reached. The audit log gets
    /// one row for each dead letter, and one row before and one after them for the action.
    async fn discard(&self, store: &Store, chosen: &ChosenLetters) -> anyhow::Result<u64> {
        let (mut after, mut letters, mut pages) = (0, 0, 0_u64);
        loop {
            let left = chosen
                .limit()
                .map(|limit| u64::from(limit).saturating_sub(letters));
            let page = store
                .discard_page(chosen, after, left, &self.consent.actor())
                .await?;
            (letters, pages) = (letters + page.letters, pages + 1);
            let is_full = chosen
                .limit()
                .is_some_and(|limit| letters >= u64::from(limit));
            let Some(next) = page.next.filter(|_| !is_full) else {
                return Ok(letters);
            };
            if pages % PROGRESS == 0 {
                say(&format!(
                    "discarded {letters} dead letters so far, up to number {next}"
                ));
            }
            after = next;
        }
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
