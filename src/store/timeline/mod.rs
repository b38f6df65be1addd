//! What has happened to a job, in the order of time: what it did, what it waited for in between,
//! and what else happened at which moment.

mod facts;
mod follow_ups;
mod marks;
mod read;
mod spans;
#[cfg(test)]
mod tests;

pub use facts::{Span, SpanKind};
pub use follow_ups::{FollowUpCount, FollowUps};
pub use marks::{ActionMark, EffectMark, EndMark};
pub use read::Timeline;

#[cfg(feature = "devkit")]
pub(super) use follow_ups::{COUNTS, WORST};
#[cfg(feature = "devkit")]
pub(super) use marks::{EFFECTS, ENDS};
#[cfg(feature = "devkit")]
pub(super) use read::{ATTEMPTS, CHECKPOINTS};
