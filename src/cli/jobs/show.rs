//! `dispatch jobs show`: shows one job with its history.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use comfy_table::{Cell, Table};

use super::Selector;
use crate::cli::connect;
use crate::cli::output::{Output, milliseconds, or_dash, plain, rendered, when};
use crate::config::Links;
use crate::message::outcome::counted;
use crate::store::{JobRow, JobView};

/// Show one job: its row, checkpoints, attempts, effects and follow-ups
#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    job: Selector,
}

impl Show {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let id = self.job.row(&store).await?.id;
        let view = store
            .job_view(id)
            .await?
            .context("the job was deleted meanwhile")?;
        output.answer(&view, || page(output, &view))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn page(output: Output, view: &JobView) -> String {
    let mut page = rendered(row(output, &view.row));
    let parts = [
        (
            "checkpoints",
            view.checkpoints.len(),
            checkpoints(output, view),
        ),
        (
            "unsuccessful attempts",
            view.attempts.len(),
            attempts(output, view),
        ),
        ("effects", view.effects.len(), effects(output, view)),
        (
            "follow-ups",
            view.children.len(),
            super::list::table(output, &view.children),
        ),
    ];
    for (title, _, table) in parts.into_iter().filter(|(_, rows, _)| *rows > 0) {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n\n{title}\n{}", rendered(table));
    }
    page
}

fn row(output: Output, row: &JobRow) -> Table {
    let mut table = output.table(&[]);
    let wait = row
        .wait_reason
        .as_deref()
        .map(|reason| format!("{reason} ({})", row.wait_key.as_deref().unwrap_or("-")));
    let owner = row.owner.map(|owner| {
        format!(
            "replica {owner}{}",
            if row.owner_alive {
                ""
            } else {
                " (lease expired)"
            }
        )
    });
    table.add_row([Cell::new("id"), Cell::new(row.id)]);
    table.add_row([Cell::new("state"), output.state(row.state)]);
    let texts = [
        ("pipeline", Some(row.pipeline.clone())),
        ("stage", Some(row.stage.clone())),
        ("organization", Some(row.organization.clone())),
        ("source", Some(row.source.clone())),
        ("key", Some(row.dedupe_key.clone())),
        ("follow-up of", row.parent.map(|parent| parent.to_string())),
        ("attempt", Some(row.attempt.to_string())),
        ("generation", Some(row.generation.to_string())),
        ("epoch", Some(row.epoch.to_string())),
        ("owner", owner),
        ("waits for", wait),
        (
            "open follow-ups",
            (row.open_children > 0).then(|| row.open_children.to_string()),
        ),
        ("error", row.error_code.clone()),
        ("message", row.error_message.clone()),
        ("hint", row.error_hint.clone()),
        ("skipped", row.skipped.as_ref().map(counted)),
        (
            "takeovers without progress",
            (row.crash_count > 0).then(|| row.crash_count.to_string()),
        ),
        ("accepted", Some(when(row.created_at))),
        ("due", Some(when(row.due_at))),
        ("woken", row.woken_at.map(when)),
        ("last progress", Some(when(row.last_progress_at))),
        ("deadline", row.deadline.map(when)),
        ("finished", row.finished_at.map(when)),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            table.add_row([Cell::new(name), Cell::new(plain(&text))]);
        }
    }
    table
}

fn checkpoints(output: Output, view: &JobView) -> Table {
    let mut table = output.table(&[
        "generation",
        "stage",
        "attempt",
        "replica",
        "took",
        "committed",
    ]);
    for checkpoint in &view.checkpoints {
        table.add_row([
            Cell::new(checkpoint.generation),
            Cell::new(plain(&checkpoint.stage)),
            Cell::new(checkpoint.attempt),
            Cell::new(checkpoint.replica),
            Cell::new(milliseconds(checkpoint.duration_ms)),
            Cell::new(when(checkpoint.finished_at)),
        ]);
    }
    table
}

fn attempts(output: Output, view: &JobView) -> Table {
    let mut table = output.table(&[
        "generation",
        "stage",
        "attempt",
        "outcome",
        "error",
        "message",
        "took",
        "replica",
        "at",
    ]);
    for attempt in &view.attempts {
        table.add_row([
            Cell::new(attempt.generation),
            Cell::new(plain(&attempt.stage)),
            Cell::new(attempt.attempt),
            Cell::new(plain(&attempt.outcome)),
            Cell::new(plain(&attempt.error_code)),
            Cell::new(plain(&attempt.message)),
            Cell::new(milliseconds(attempt.duration_ms)),
            Cell::new(attempt.replica),
            Cell::new(when(attempt.at)),
        ]);
    }
    table
}

fn effects(output: Output, view: &JobView) -> Table {
    let mut table = output.table(&[
        "stage",
        "target",
        "class",
        "state",
        "possible duplicates",
        "reference",
        "key",
    ]);
    for effect in &view.effects {
        table.add_row([
            Cell::new(plain(&effect.stage)),
            Cell::new(plain(&effect.target)),
            Cell::new(plain(&effect.class)),
            Cell::new(plain(&effect.state)),
            Cell::new(effect.unknowns),
            Cell::new(or_dash(effect.provider_ref.as_deref())),
            Cell::new(plain(&effect.key)),
        ]);
    }
    table
}
