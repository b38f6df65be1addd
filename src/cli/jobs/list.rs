//! `dispatch jobs list`: lists jobs, newest first, one page at a time.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Cell, ColumnConstraint, Table};
use time::OffsetDateTime;

use crate::cli::connect;
use crate::cli::output::{Output, or_dash, plain, rendered, say, when};
use crate::config::Links;
use crate::job::{JobId, JobState};
use crate::store::{CodeFilter, JobFilter, JobRow, Listed, Since, Stopped};

/// List jobs, newest first
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    links: Links,
    /// Only in this state: ready, running, waiting, succeeded, cancelled or parked; given several times, in one of them
    #[arg(long)]
    state: Vec<JobState>,
    /// Only of this pipeline; given several times, of one of them
    #[arg(long)]
    pipeline: Vec<String>,
    /// Only of this organization; given several times, of one of them
    #[arg(long, value_name = "SLUG")]
    organization: Vec<String>,
    /// Only of this source; given several times, of one of them
    #[arg(long)]
    source: Vec<String>,
    /// Only follow-ups of this job
    #[arg(long, value_name = "ID")]
    parent: Option<JobId>,
    /// Only with this error code (slack.not_in_channel), or with a code that begins so (slack.*); given several times, with
    /// one of them; without --state, only jobs that are not done
    #[arg(long, value_name = "CODE")]
    error_code: Vec<CodeFilter>,
    /// Only of this failure group, see `dispatch failures list`; without --state, only jobs that are not done
    #[arg(long, value_name = "FINGERPRINT")]
    group: Option<String>,
    /// Only with this dedupe_key, of any source
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only running on this replica
    #[arg(long, value_name = "NUMBER")]
    replica: Option<i64>,
    /// Only waiting for this cause, as `dispatch jobs show` prints it
    #[arg(long, value_name = "KEY")]
    cause: Option<String>,
    /// Only at this stage; given several times, at one of them
    #[arg(long)]
    stage: Vec<String>,
    /// Only accepted within this time (90s, 15m, 24h, 7d), or at this time or later (RFC 3339)
    #[arg(long, value_name = "LENGTH")]
    since: Option<Since>,
    /// Only jobs that changed this work item, in any account, or a group that it is linked to
    #[arg(long, value_name = "NUMBER")]
    work_item: Option<i64>,
    /// Only older than this job; use the last id of a page for the next page
    #[arg(long, value_name = "ID")]
    before: Option<JobId>,
    /// Show at most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

impl List {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let filter = JobFilter {
            states: self.state,
            pipelines: self.pipeline,
            organizations: self.organization,
            sources: self.source,
            parent: self.parent,
            error_codes: self.error_code,
            fingerprint: self.group,
            dedupe_key: self.key,
            replica: self.replica,
            cause: self.cause,
            stages: self.stage,
            since: self.since.map(|since| since.at(OffsetDateTime::now_utc())),
            work_item: self.work_item,
            before: self.before,
            limit: self.limit,
        }
        .checked()?;
        let Listed { jobs, stopped } = store.jobs(&filter).await?;
        output.answer(&jobs, || {
            if jobs.is_empty() {
                String::new()
            } else {
                rendered(table(output, &jobs))
            }
        })?;
        match (stopped, jobs.last()) {
            (
                Some(Stopped {
                    looked,
                    back_to,
                    before,
                }),
                _,
            ) => {
                let back_to = when(back_to);
                say(&format!(
                    "searched {looked} jobs, back to {back_to}; use --before {before} to search older jobs"
                ));
            }
            (None, None) => say("no jobs"),
            (None, Some(last)) if i64::try_from(jobs.len()) == Ok(filter.limit) => {
                say(&format!("next page: --before {}", last.id))
            }
            (None, Some(_)) => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns jobs as a table.
pub(super) fn table(output: Output, jobs: &[JobRow]) -> Table {
    let mut table = output.table(&[
        "id",
        "state",
        "stage",
        "why",
        "organization",
        "source",
        "key",
        "accepted",
    ]);
    for job in jobs {
        let why = job.wait_reason.as_deref().or(job.error_code.as_deref());
        table.add_row([
            Cell::new(job.id),
            output.state(job.state),
            Cell::new(plain(&format!("{}/{}", job.pipeline, job.stage))),
            Cell::new(or_dash(why)),
            Cell::new(plain(&job.organization)),
            Cell::new(plain(&job.source)),
            Cell::new(plain(&job.dedupe_key)),
            Cell::new(when(job.created_at)),
        ]);
    }
    // Ids and states are not wrapped, so that they can be copied.
    for column in table.column_iter_mut().take(2) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}
