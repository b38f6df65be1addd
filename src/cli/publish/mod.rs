//! `dispatch publish`: publishes jobs as a producer does, and waits for the broker's confirms.

mod read;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use comfy_table::Cell;
use indicatif::ProgressBar;
use serde::Serialize;

use self::read::Document;
pub(super) use self::read::contents;
use super::failure::Usage;
use super::output::{Output, or_dash, plain, rendered};
use crate::broker::{EXCHANGE, KEY_JOB, Outgoing, Publisher};
use crate::config::Links;
use crate::message::Outcome;

/// Messages published before their confirms are awaited.
const WINDOW: usize = 256;

/// Publish jobs from files or stdin, and wait for the broker's confirms
#[derive(Debug, Args)]
pub(super) struct Publish {
    #[command(flatten)]
    links: Links,
    /// Files with one JSON document each; no file or `-` is stdin
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Read each line as a document (JSON Lines)
    #[arg(long)]
    lines: bool,
    /// Publish the documents without validation
    #[arg(long)]
    no_validate: bool,
    /// Source for documents without a `source`
    #[arg(long)]
    source: Option<String>,
    /// Queue of the producer that receives the outcome events, in addition to `dispatch.events`
    #[arg(long, value_name = "QUEUE")]
    reply_to: Option<String>,
    /// Correlation id that the outcome events repeat
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    #[command(flatten)]
    wait: wait::Wait,
}

/// A message that the broker has confirmed.
#[derive(Debug, Serialize)]
struct Published {
    /// The source that the worker will see. `None` if the document was not validated and has none.
    source: Option<String>,
    dedupe_key: Option<String>,
    /// File and line of the document.
    origin: String,
    /// The last outcome received, with `--wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

impl Publish {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        if self
            .reply_to
            .as_deref()
            .is_some_and(|queue| queue.starts_with("dispatch."))
            && !self.no_validate
        {
            return Err(Usage(
                "expected --reply-to to be a queue of the producer, got a queue of `dispatch.`"
                    .to_owned(),
            )
            .into());
        }
        let url = self.links.amqp_url()?;
        let documents = self.documents()?;
        if self.wait.wait {
            return self.wait.follow(output, &url, documents).await;
        }
        let publisher = Publisher::connect(url).await?;
        let (published, failure) = self.send(&publisher, documents).await;
        output.answer(&published, || text(output, &published))?;
        failure.map_or(Ok(ExitCode::SUCCESS), Err)
    }

    /// Reads all documents, and validates each one before the first one is published.
    fn documents(&self) -> anyhow::Result<Vec<Document>> {
        let mut documents = read::all(&self.files, self.lines)?;
        for document in &mut documents {
            document.identify(self.source.as_deref());
            if !self.no_validate {
                document.validate()?;
            }
        }
        Ok(documents)
    }

    /// Publishes until one message fails. Returns the confirmed messages and the first error.
    async fn send(
        &self,
        publisher: &Publisher,
        documents: Vec<Document>,
    ) -> (Vec<Published>, Option<anyhow::Error>) {
        let progress = if documents.len() > WINDOW {
            ProgressBar::new(u64::try_from(documents.len()).unwrap_or(u64::MAX))
        } else {
            ProgressBar::hidden()
        };
        let mut published = Vec::with_capacity(documents.len());
        let mut failure = None;
        let mut documents = documents.into_iter().peekable();
        while documents.peek().is_some() && failure.is_none() {
            let window: Vec<Document> = documents.by_ref().take(WINDOW).collect();
            let messages: Vec<Outgoing> = window
                .iter()
                .map(|document| self.message(document))
                .collect();
            for (document, answer) in window
                .into_iter()
                .zip(publisher.publish_all(&messages).await)
            {
                match answer {
                    Ok(()) => published.push(document.into()),
                    Err(error) => {
                        failure = failure.or(Some(anyhow!(error).context(document.origin)))
                    }
                }
            }
            progress.set_position(u64::try_from(published.len()).unwrap_or(u64::MAX));
        }
        progress.finish_and_clear();
        (published, failure)
    }

    fn message(&self, document: &Document) -> Outgoing {
        Outgoing {
            reply_to: self.reply_to.clone(),
            correlation_id: self.correlation_id.clone(),
            ..document.message()
        }
    }
}

impl Document {
    fn message(&self) -> Outgoing {
        Outgoing {
            exchange: EXCHANGE,
            routing_key: KEY_JOB.to_owned(),
            mandatory: true,
            body: self.body.clone(),
            message_id: self.message_id.clone(),
            app_id: self.app_id.clone(),
            ..Outgoing::default()
        }
    }
}

impl From<Document> for Published {
    fn from(document: Document) -> Self {
        Self {
            source: document.source,
            dedupe_key: document.dedupe_key,
            origin: document.origin,
            outcome: None,
        }
    }
}

fn text(output: Output, published: &[Published]) -> String {
    if published.is_empty() {
        return String::new();
    }
    let mut table = output.table(&["source", "key", "from"]);
    for message in published {
        table.add_row([
            Cell::new(or_dash(message.source.as_deref())),
            Cell::new(or_dash(message.dedupe_key.as_deref())),
            Cell::new(plain(&message.origin)),
        ]);
    }
    rendered(table)
}
