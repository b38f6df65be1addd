//! Campaigns: bulk actions on a snapshot of jobs, carried out in waves by any replica. The rows of
//! a campaign say all that a replica needs to continue it.
//!
//! **Invariant:** an item of a campaign is acted on in the transaction that records it, under a
//! lock of the campaign's row: no item is acted on twice, and none is skipped.

mod action;
mod change;
mod forget;
mod not_started;
mod preview;
pub(super) mod select;
mod show;
mod start;
pub(super) mod step;
mod wave;

pub use action::BulkAction;
pub use change::{CampaignChange, CampaignResult};
pub use not_started::NotStarted;
pub use preview::{CampaignJob, PreviewedJobs, StateCount, UncertainEffects};
pub use select::{CampaignFilter, MOST_IDS};
pub use show::{CampaignItemRow, CampaignRow};
pub use start::{NewCampaign, Started};
pub use step::StepDone;
pub use wave::Wave;

#[cfg(feature = "devkit")]
pub(super) use forget::FORGET_ITEMS;
#[cfg(feature = "devkit")]
pub(super) use preview::{EFFECTS, SAMPLE};
#[cfg(feature = "devkit")]
pub(super) use show::{ITEMS, LIST, SINCE};
