//! `dispatch jobs explain`: explains why a job makes no progress.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Selector;
use crate::cli::connect;
use crate::cli::output::{Output, plain};
use crate::config::Links;
use crate::engine::{Product, Registry};
use crate::job::JobState;
use crate::pipelines;
use crate::store::explain::{Facts, explain, standing};
use crate::store::{CappedCount, JobRow, Store};

/// Explain in a sentence the state of one job, its cause and what happens next
#[derive(Debug, Args)]
pub(in crate::cli) struct Explain {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    job: Selector,
}

/// The key that jobs wait for while everything is paused.
const PAUSE_KEY: &str = "hold:all";

impl Explain {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let row = self.job.row(&store).await?;
        let waiting_for_same = waiting_for_same(&store, &row).await?;
        let hold = match (&row.wait_key, row.state) {
            (Some(key), _) => store.hold_of(key).await?,
            (None, JobState::Ready) => store.hold_of(PAUSE_KEY).await?,
            (None, _) => None,
        };
        let facts = Facts {
            waiting_for_same,
            hold,
            ..position(&pipelines::registry(), &row)
        };
        let sentence = explain(&row, &facts);
        let value = json!({"job_id": row.id, "state": row.state, "standing": standing(&row), "explanation": sentence});
        output.answer(&value, || plain(&sentence))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn waiting_for_same(store: &Store, row: &JobRow) -> anyhow::Result<CappedCount> {
    Ok(match (row.state, &row.wait_key) {
        (JobState::Waiting, Some(key)) => store.waiting_for(key).await?,
        _ => CappedCount::default(),
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
