//! The action of a campaign and the options that select its jobs.

use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::job::{JobId, JobState};
use crate::store::{BulkAction, CampaignFilter};

/// The action and the filter.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// What to do to each job: retry, cancel or park
    #[arg(long)]
    pub(super) action: BulkAction,
    /// These jobs, at most 1000
    #[arg(value_name = "ID")]
    ids: Vec<JobId>,
    /// Only parked jobs with this fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    group: Option<String>,
    /// Only with this error code of the last failure, or with one that begins so: slack.*
    #[arg(long, value_name = "CODE")]
    error_code: Option<String>,
    /// Only waiting for this cause: the wait key that `dispatch jobs show` prints
    #[arg(long, value_name = "KEY")]
    cause: Option<String>,
    /// Only in this state: parked or waiting
    #[arg(long)]
    state: Option<JobState>,
    /// Only of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Only of this pipeline
    #[arg(long)]
    pipeline: Option<String>,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only accepted at this time or later: 2025-03-04T14:05:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    accepted_since: Option<OffsetDateTime>,
}

impl Chosen {
    pub(super) fn filter(&self) -> CampaignFilter {
        CampaignFilter {
            ids: self.ids.clone(),
            group: self.group.clone(),
            error_code: self.error_code.clone(),
            cause: self.cause.clone(),
            state: self.state,
            organization: self.organization.clone(),
            pipeline: self.pipeline.clone(),
            source: self.source.clone(),
            accepted_since: self.accepted_since,
        }
    }
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "expected a time of RFC 3339; use 2025-03-04T14:05:00Z for example".to_owned())
}
