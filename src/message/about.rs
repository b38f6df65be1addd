//! What a job's message says, whatever its schema.

use time::OffsetDateTime;

use super::intake::Intake;

/// What a job's message says, whatever its schema: of a newer one as far as that says it as this one does.
#[derive(Debug, Clone, Copy)]
pub struct AboutJob<'a> {
    /// Of the message.
    pub schema: i64,
    /// The producer's name for itself.
    pub source: &'a str,
    /// The producer's key.
    pub dedupe_key: &'a str,
    /// The tenant; empty where a newer schema does not say it.
    pub organization: &'a str,
    /// SHA-256 of the canonical JSON.
    pub digest: &'a [u8; 32],
    /// Whose interaction of Discord's it passes on.
    pub application: Option<&'a str>,
    /// Not to start before this.
    pub not_before: Option<OffsetDateTime>,
    /// Not to be worked on after this.
    pub deadline: Option<OffsetDateTime>,
}

impl Intake {
    /// What the message says.
    #[must_use]
    pub fn about(&self) -> AboutJob<'_> {
        match self {
            Self::Request { request, digest } => AboutJob {
                schema: request.schema,
                source: &request.source,
                dedupe_key: &request.dedupe_key,
                organization: &request.organization,
                digest,
                application: request.interaction.as_ref().map(|interaction| interaction.application_id.as_str()),
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
