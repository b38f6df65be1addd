//! `dispatch dead-letters replay`: publishes dead letters again.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::app;
use crate::broker::Publisher;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::output::{Output, say};
use crate::config::Links;
use crate::operations::{self, OperationError, Replayer};
use crate::store::{CappedCount, Resolution, Store};

/// Publish dead letters again as they were received; one that is refused again becomes a new dead
/// letter
#[derive(Debug, Args)]
pub(in crate::cli) struct Replay {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct Which {
    /// Numbers of the dead letters
    #[arg(
        value_name = "NUMBER",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    ids: Vec<i64>,
    /// Replay all that are open now, oldest first
    #[arg(long)]
    all: bool,
    /// With --all: only with this code
    #[arg(long, requires = "all", conflicts_with = "ids")]
    code: Option<String>,
    /// With --all: replay at most this many
    #[arg(long, requires = "all", conflicts_with = "ids", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

/// The result of a replay or discard by number.
pub(super) struct Tally {
    how: Resolution,
    pub(super) done: Vec<i64>,
    pub(super) not_done: Vec<(i64, String)>,
    /// Open dead letters beyond the limit.
    left: CappedCount,
}

impl Replay {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let amqp_url = self.links.amqp_url()?;
        let keyring = app::keyring(&self.links)?;
        let store = connect::store(&self.links).await?;
        let (ids, left) = self.which.letters(&store).await?;
        let mut tally = Tally::new(Resolution::Replayed, left);
        if !ids.is_empty() {
            self.consent
                .to(&format!("Publish {} dead letters again?", ids.len()))?;
            let publisher = Publisher::connect(amqp_url).await?;
            let replayer = Replayer {
                store: &store,
                publisher: &publisher,
                keyring: &keyring,
            };
            let actor = self.consent.actor();
            for id in ids {
                match operations::replay(replayer, &actor, id).await {
                    Ok(()) => tally.done.push(id),
                    Err(OperationError::NotPossible(why)) => tally.not_done.push((id, why)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        tally.print(output)
    }
}

impl Which {
    /// Returns the numbers, and how many more there are. They are selected once, so a message that
    /// is refused again is not replayed twice.
    async fn letters(&self, store: &Store) -> anyhow::Result<(Vec<i64>, CappedCount)> {
        if !self.all {
            return Ok((self.ids.clone(), CappedCount::default()));
        }
        let (ids, total) = store
            .open_dead_letters(self.code.as_deref(), self.limit)
            .await?;
        let left = total.without(ids.len());
        Ok((ids, left))
    }
}

impl Tally {
    pub(super) const fn new(how: Resolution, left: CappedCount) -> Self {
        Self {
            how,
            done: Vec::new(),
            not_done: Vec::new(),
            left,
        }
    }

    pub(super) fn print(&self, output: Output) -> anyhow::Result<ExitCode> {
        let word = self.how.word();
        let not_done: Vec<Value> = self
            .not_done
            .iter()
            .map(|(id, why)| json!({"id": id, "why": why}))
            .collect();
        let answer =
            json!({"resolution": word, "done": self.done, "not_done": not_done, "left": self.left});
        output.answer(&answer, || {
            self.done
                .iter()
                .map(|id| format!("dead letter {id}: {word}\n"))
                .collect()
        })?;
        for (id, why) in &self.not_done {
            say(&format!("dead letter {id}: not {word}: {why}"));
        }
        match self.left {
            _ if self.done.is_empty() && self.not_done.is_empty() => say("no dead letters"),
            left if left.is_zero() => {}
            left => say(&format!(
                "{left} more are open; run the command again or increase --limit"
            )),
        }
        Ok(if self.not_done.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
