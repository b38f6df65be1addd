//! `dispatch audit list`: prints the audit log, newest first, one page at a time.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use time::OffsetDateTime;

use super::connect;
use super::output::{Output, or_dash, plain, rendered, say, when};
use crate::config::Links;
use crate::job::JobId;
use crate::store::{AuditFilter, AuditRow, Since};

/// Read the audit log
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    List(List),
}

/// List who did what, newest first; with --json, one page as a document with the cursor of the next
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
    /// Only about this job
    #[arg(long, value_name = "ID")]
    job: Option<JobId>,
    /// Only by this actor
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only this action, for example retry or hold.place
    #[arg(long)]
    action: Option<String>,
    /// Only of the last while (90s, 15m, 24h, 7d), or at this time or later (RFC 3339)
    #[arg(long, value_name = "LENGTH")]
    since: Option<Since>,
    /// Only older than this row; use the cursor of a page for the next page
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// Show at most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

impl Audit {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let filter = AuditFilter {
            job: self.job,
            who: self.who,
            action: self.action,
            since: self.since.map(|since| since.at(OffsetDateTime::now_utc())),
        };
        let page = store.audit_rows(&filter, self.before, self.limit).await?;
        output.answer(&page, || {
            if page.rows.is_empty() {
                String::new()
            } else {
                table(output, &page.rows)
            }
        })?;
        match page.next {
            Some(next) => say(&format!("older rows: --before {next}")),
            None if page.rows.is_empty() => say("no rows"),
            None => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(output: Output, rows: &[AuditRow]) -> String {
    let headings = ["id", "at", "who", "login", "action", "job", "reason"];
    let mut table = output.table(&headings);
    for row in rows {
        let job = row.job_id.map(|job| job.to_string());
        table.add_row([
            Cell::new(row.id),
            Cell::new(when(row.at)),
            Cell::new(plain(&row.who)),
            Cell::new(or_dash(row.login.as_deref())),
            Cell::new(plain(&row.action)),
            Cell::new(or_dash(job.as_deref())),
            Cell::new(or_dash(row.reason.as_deref())),
        ]);
    }
    rendered(table)
}
