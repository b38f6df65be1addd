//! Explains in a sentence the state of a job, its cause and what happens next.

use schemars::JsonSchema;
use serde::Serialize;

use crate::job::{JobId, JobState};
use crate::pipelines;
use crate::store::explain::{self, Facts, Standing, standing};
use crate::store::{CappedCount, HoldRow, JobRow, Store, StoreError};

/// The wait key of the pause of everything.
const PAUSE_KEY: &str = "hold:all";

/// Returns a hold without the person who placed it and the reason.
fn nameless(hold: HoldRow) -> HoldRow {
    HoldRow {
        who: "an operator".to_owned(),
        reason: "your token does not show why".to_owned(),
        ..hold
    }
}

/// What there is to say about a job.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Explained {
    /// The job.
    pub job_id: JobId,
    /// Its state.
    pub state: JobState,
    /// What the claim, the waker and the takeover make of it.
    pub standing: Standing,
    /// The sentence.
    pub explanation: String,
}

/// For whom a job is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Who may see every organization.
    Everything,
    /// Who may see some organizations: who holds or pauses everything, and why, is not for them.
    Some,
}

/// Explains a job.
///
/// # Errors
/// [`StoreError`].
pub async fn explain(
    store: &Store,
    row: &JobRow,
    audience: Audience,
) -> Result<Explained, StoreError> {
    let waiting_for_same = match (row.state, &row.wait_key) {
        (JobState::Waiting, Some(key)) => store.waiting_for(key).await?,
        _ => CappedCount::default(),
    };
    let hold = match (&row.wait_key, row.state) {
        (Some(key), _) => store.hold_of(key).await?,
        (None, JobState::Ready) => store.hold_of(PAUSE_KEY).await?,
        (None, _) => None,
    };
    let (waiting_for_same, hold) = match audience {
        Audience::Everything => (waiting_for_same, hold),
        Audience::Some => (CappedCount::default(), hold.map(nameless)),
    };
    let place = pipelines::place_of(&row.pipeline, &row.stage);
    let facts = Facts {
        position: place.and_then(|place| place.position),
        attempts: place.map(|place| place.attempts),
        waiting_for_same,
        hold,
    };
    Ok(Explained {
        job_id: row.id,
        state: row.state,
        standing: standing(row),
        explanation: explain::explain(row, &facts),
    })
}
