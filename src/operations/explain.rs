//! Explains in a sentence the state of a job, its cause and what happens next.

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::{Product, Registry};
use crate::job::{JobId, JobState};
use crate::pipelines;
use crate::store::explain::{self, Facts, Standing, standing};
use crate::store::{CappedCount, JobRow, Store, StoreError};

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

/// Explains a job.
///
/// # Errors
/// [`StoreError`].
pub async fn explain(store: &Store, row: &JobRow) -> Result<Explained, StoreError> {
    let waiting_for_same = match (row.state, &row.wait_key) {
        (JobState::Waiting, Some(key)) => store.waiting_for(key).await?,
        _ => CappedCount::default(),
    };
    let hold = match &row.wait_key {
        Some(key) => store.hold_of(key).await?,
        None => None,
    };
    let facts = Facts {
        waiting_for_same,
        hold,
        ..position(&pipelines::registry(), row)
    };
    Ok(Explained {
        job_id: row.id,
        state: row.state,
        standing: standing(row),
        explanation: explain::explain(row, &facts),
    })
}

/// Returns the position of the job's stage in its pipeline, and the stage's number of attempts.
fn position<P: Product>(registry: &Registry<P>, row: &JobRow) -> Facts {
    let Some(pipeline) = registry.get(&row.pipeline) else {
        return Facts::default();
    };
    let in_turn: Vec<_> = pipeline.stages().filter(|stage| !stage.off_path).collect();
    let at = in_turn.iter().position(|stage| stage.name == row.stage);
    Facts {
        position: at.map(|at| (at + 1, in_turn.len())),
        attempts: pipeline
            .stage(&row.stage)
            .map(|(stage, _)| stage.retry.attempts),
        waiting_for_same: CappedCount::default(),
        hold: None,
    }
}
