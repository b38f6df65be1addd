//! The run of a stage, which a commit stores.

use std::time::Duration;

use super::claim::Fence;
use crate::job::Job;

/// The run that is committed.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Permits writing for the job.
    pub fence: &'a Fence,
    /// The job as claimed, with the stage and the attempt that ran.
    pub job: &'a Job,
    /// How long the stage ran.
    pub took: Duration,
}
