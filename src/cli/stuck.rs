//! `dispatch stuck`: shows what does not move, why, and what to do.

use std::process::ExitCode;

use clap::Args;
use comfy_table::Cell;

use super::connect;
use super::output::{Output, or_dash, plain, rendered, when};
use crate::config::Links;
use crate::pipelines;
use crate::store::{PipelineLanes, StuckCode, StuckRow};

/// Count the jobs that do not move, by what stops them, with the oldest, examples and the next action
#[derive(Debug, Args)]
pub(super) struct Stuck {
    #[command(flatten)]
    links: Links,
    /// Only this code; the answer has its predicate and examples
    #[arg(long)]
    code: Option<StuckCode>,
}

impl Stuck {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let lanes = PipelineLanes::of(&pipelines::registry());
        if let Some(code) = self.code {
            let row = store.stuck_code(code, &lanes).await?;
            output.answer(&row, || one(output, &row))?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = store.stuck(&lanes).await;
        output.answer(&rows, || all(output, &rows))?;
        let unread = rows.iter().any(|row| row.error.is_some());
        Ok(if unread {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn all(output: Output, rows: &[StuckRow]) -> String {
    let mut table = output.table(&["code", "jobs", "oldest", "example", "next"]);
    for row in rows {
        let example = row.examples.first().map(|example| example.id.to_string());
        table.add_row([
            Cell::new(row.code.word()),
            Cell::new(count(row)),
            Cell::new(row.oldest.map_or_else(|| "-".to_owned(), when)),
            Cell::new(or_dash(example.as_deref())),
            Cell::new(row.next),
        ]);
    }
    rendered(table)
}

fn one(output: Output, row: &StuckRow) -> String {
    let mut table = output.table(&["job", "organization", "since", "detail"]);
    for example in &row.examples {
        table.add_row([
            Cell::new(example.id),
            Cell::new(plain(&example.organization)),
            Cell::new(when(example.since)),
            Cell::new(or_dash(example.detail.as_deref())),
        ]);
    }
    let head = format!(
        "{}: {}. {}\nCounted: {}.\nNext: {}\n",
        row.code.word(),
        count(row),
        row.sentence,
        row.predicate,
        row.next
    );
    if row.examples.is_empty() {
        head
    } else {
        format!("{head}\n{}", rendered(table))
    }
}

fn count(row: &StuckRow) -> String {
    match (&row.count, &row.error) {
        (Some(count), _) => count.to_string(),
        (None, Some(why)) => format!("unknown: {}", plain(why)),
        (None, None) => "-".to_owned(),
    }
}
