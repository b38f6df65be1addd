//! A job that an intake message makes.

use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::job::{JobId, ReplicaId};

/// A job to be made from an intake message.
#[derive(Debug)]
pub struct NewJob {
    /// Id of the new job; not used if the key is known already.
    pub id: JobId,
    /// Name of its pipeline.
    pub pipeline: &'static str,
    /// First stage of the pipeline.
    pub stage: &'static str,
    /// The user that published the message, as verified by RabbitMQ.
    pub producer: Option<String>,
    /// The name that the producer uses for itself.
    pub source: String,
    /// The producer's key for the message.
    pub dedupe_key: String,
    /// SHA-256 of the canonical message.
    pub digest: [u8; 32],
    /// The tenant.
    pub organization: String,
    /// Schema version of the message.
    pub schema: i64,
    /// Input of the stages, or the sealed bytes of a newer schema.
    pub payload: Incoming,
    /// Size of the message as received, in bytes; counts towards quotas.
    pub bytes: usize,
    /// The job does not run before this time.
    pub not_before: Option<OffsetDateTime>,
    /// The job must be done by this time.
    pub deadline: Option<OffsetDateTime>,
    /// The queue for outcomes, in addition to `dispatch.events`.
    pub reply_to: Option<String>,
    /// Returned with the outcomes.
    pub correlation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C `tracestate` of the message.
    pub tracestate: Option<String>,
    /// The replica that claims the job at once; `None` leaves it to the waker.
    pub owner: Option<ReplicaId>,
    /// The newest schema that this worker can run: a job of a newer one waits.
    pub known_schema: i64,
}

/// An intake payload as stored.
#[derive(Debug)]
pub enum Incoming {
    /// JSON of a known schema.
    Known(Box<RawValue>),
    /// Sealed bytes of a newer schema.
    Newer(String),
}

impl Incoming {
    pub(super) fn known(&self) -> Option<&RawValue> {
        match self {
            Self::Known(payload) => Some(payload),
            Self::Newer(_) => None,
        }
    }

    pub(super) fn sealed(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Newer(sealed) => Some(sealed),
        }
    }

    /// Returns the size in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Known(payload) => payload.get().len(),
            Self::Newer(sealed) => sealed.len(),
        }
    }
}
