//! `dispatch jobs cancel`: cancels one job, or all jobs that match a filter. It previews the
//! matches and asks for confirmation. Jobs that are accepted later are not included.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::actions::{print_result, question};
use super::list::table;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::duration;
use crate::cli::failure::Usage;
use crate::cli::output::{Output, rendered, say, say_lines};
use crate::config::Links;
use crate::job::{JobId, JobState};
use crate::operations::{self, CancelledMany};
use crate::store::{ChosenPreview, ManyJobs, Target};

/// Pages between two progress lines.
const PROGRESS: u64 = 10;

/// Cancel an open job and its open follow-ups, or all open jobs that match a filter
#[derive(Debug, Args)]
pub(in crate::cli) struct Cancel {
    #[command(flatten)]
    links: Links,
    /// Id of the job
    #[arg(value_name = "ID", conflicts_with_all = ["key", "source", "organization", "producer", "state", "error_code", "older_than"])]
    id: Option<JobId>,
    /// The job's dedupe_key; requires --source
    #[arg(long, requires = "source", conflicts_with_all = ["organization", "producer", "state", "error_code", "older_than"])]
    key: Option<String>,
    /// Source of the job with --key; otherwise only jobs of this source
    #[arg(long)]
    source: Option<String>,
    /// Only of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Only published by this RabbitMQ user
    #[arg(long, value_name = "USER")]
    producer: Option<String>,
    /// Only in this state: ready, running, waiting or parked
    #[arg(long, value_parser = open_state)]
    state: Option<JobState>,
    /// Only with this error code of the last failure
    #[arg(long, value_name = "CODE")]
    error_code: Option<String>,
    /// Only accepted at least this long ago: 90s, 15m, 24h, 7d; at most 90d
    #[arg(long, value_name = "AGE", value_parser = duration::parse)]
    older_than: Option<Duration>,
    /// Show the jobs that match the filter without cancelling them
    #[arg(long, conflicts_with_all = ["id", "key"])]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

fn open_state(text: &str) -> Result<JobState, String> {
    let state: JobState = text.parse().map_err(|error| format!("{error}"))?;
    if state.is_done() {
        Err("expected the state of an open job, got that of a finished job; use ready, running, waiting or parked".to_owned())
    } else {
        Ok(state)
    }
}

impl Cancel {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.target() {
            Some(target) => self.one(&target, output).await,
            None => self.many(output).await,
        }
    }

    fn target(&self) -> Option<Target> {
        match (self.id, &self.source, &self.key) {
            (Some(id), ..) => Some(Target::Id(id)),
            (None, Some(source), Some(key)) => Some(Target::Key {
                source: source.clone(),
                dedupe_key: key.clone(),
            }),
            (None, ..) => None,
        }
    }

    async fn one(&self, target: &Target, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent
            .to(&question("Cancel", &super::row(&store, target).await?))?;
        print_result(
            output,
            "cancel",
            operations::cancel(&store, &self.consent.actor(), target).await?,
        )
    }

    fn filter(&self) -> anyhow::Result<ManyJobs> {
        let filter = ManyJobs {
            state: self.state,
            organization: self.organization.clone(),
            source: self.source.clone(),
            producer: self.producer.clone(),
            error_code: self.error_code.clone(),
            older_than_seconds: self.older_than.map(|age| age.as_secs()),
        };
        let texts = [
            &filter.organization,
            &filter.source,
            &filter.producer,
            &filter.error_code,
        ];
        if texts.iter().all(|text| text.is_none())
            && filter.state.is_none()
            && filter.older_than_seconds.is_none()
        {
            let what = "expected a job or a filter, got neither; use an ID, --source with --key, or one or more of \
                        --organization, --source, --producer, --state, --error-code, --older-than";
            return Err(Usage(what.to_owned()).into());
        }
        Ok(filter)
    }

    async fn many(&self, output: Output) -> anyhow::Result<ExitCode> {
        let filter = self.filter()?;
        if !self.dry_run {
            self.consent.can_be_had()?;
        }
        let store = connect::store(&self.links).await?;
        let chosen = store.choose_jobs(filter).await?;
        let preview = store.preview_jobs(&chosen).await?;
        if self.dry_run || preview.count.is_zero() {
            return previewed(output, &preview);
        }
        say_lines(&rendered(table(Output::new(false), &preview.sample)));
        self.consent.to(&format!(
            "Cancel {} jobs and their open follow-ups?",
            preview.count
        ))?;
        let mut pages = 0;
        let progress = |so_far: CancelledMany, last| {
            pages += 1;
            if pages % PROGRESS == 0 {
                let jobs = so_far.jobs;
                say(&format!("cancelled {jobs} jobs so far, up to {last}"));
            }
        };
        let CancelledMany { jobs, follow_ups } =
            operations::cancel_many(&store, &self.consent.actor(), &chosen, progress).await?;
        let value =
            json!({"cancelled": jobs, "follow_ups_cancelled": follow_ups, "dry_run": false});
        output.answer(&value, || {
            format!("cancelled {jobs} jobs and {follow_ups} follow-ups")
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn previewed(output: Output, preview: &ChosenPreview) -> anyhow::Result<ExitCode> {
    let value =
        json!({"jobs": preview.count, "sample": preview.sample, "cancelled": 0, "dry_run": true});
    output.answer(&value, || match preview.sample.as_slice() {
        [] => String::new(),
        sample => format!(
            "{}\n\n{} jobs, and their open follow-ups",
            rendered(table(output, sample)),
            preview.count
        ),
    })?;
    if preview.count.is_zero() {
        say("no open job matches");
    }
    Ok(ExitCode::SUCCESS)
}
