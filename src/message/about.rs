//! The common facts of a job's message, for every schema.

use time::OffsetDateTime;

use super::intake::Intake;
use super::{LONGEST_DELAY, Named, Refusal};

/// The common facts of a job's message. For a newer schema, the fields that it shares with this
/// one.
#[derive(Debug, Clone, Copy)]
pub struct AboutJob<'a> {
    /// Schema version of the message.
    pub schema: i64,
    pub source: &'a str,
    pub dedupe_key: &'a str,
    /// The tenant's slug; empty if a newer schema does not have it.
    pub organization: &'a str,
    /// SHA-256 of the canonical JSON.
    pub digest: &'a [u8; 32],
    /// The Discord application of the job's interaction.
    pub application: Option<&'a str>,
    /// The earliest time to start.
    pub not_before: Option<OffsetDateTime>,
    /// The time after which the job is parked instead of run.
    pub deadline: Option<OffsetDateTime>,
}

impl<'a> AboutJob<'a> {
    /// Returns the names that the sender must be permitted to use.
    #[must_use]
    pub fn names(&self, reply_to: Option<&'a str>) -> Vec<Named<'a>> {
        let mut names = vec![
            Named::Source(self.source),
            Named::Organization(self.organization),
        ];
        names.extend(reply_to.map(Named::ReplyTo));
        names.extend(self.application.map(Named::Application));
        names
    }

    /// Checks that the job starts soon enough.
    ///
    /// # Errors
    /// [`Refusal::TooFarAhead`].
    pub fn check_delay(&self, now: OffsetDateTime) -> Result<(), Refusal> {
        match self.not_before.filter(|time| *time > now + LONGEST_DELAY) {
            Some(time) => Err(Refusal::TooFarAhead(time.to_string())),
            None => Ok(()),
        }
    }
}

impl Intake {
    /// Returns the common facts of the message.
    #[must_use]
    pub fn about(&self) -> AboutJob<'_> {
        match self {
            Self::Request { request, digest } => AboutJob {
                schema: request.schema,
                source: &request.source,
                dedupe_key: &request.dedupe_key,
                organization: &request.organization,
                digest,
                application: request
                    .interaction
                    .as_ref()
                    .map(|interaction| interaction.application_id.as_str()),
                not_before: request.not_before,
                deadline: request.deadline,
            },
            Self::Newer(newer) => AboutJob {
                schema: newer.schema,
                source: &newer.source,
                dedupe_key: &newer.dedupe_key,
                organization: &newer.organization,
                digest: &newer.digest,
                application: None,
                not_before: None,
                deadline: None,
            },
        }
    }
}
