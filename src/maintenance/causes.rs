//! Tests again whether the causes that jobs wait for are gone, and releases jobs that wait for a
//! version which this worker knows.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::engine::Product;
use crate::store::{CauseCursor, CommitError, StoreError, Tables};
use crate::worker::{WorkerContext, version_key};

pub(super) struct Causes<P: Product, T: Tables<Changes = P::Changes>> {
    pub(super) context: WorkerContext<P, T>,
    /// The position of the pass over all causes.
    pub(super) at: CauseCursor,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Duty for Causes<P, T> {
    const PLAN: Plan = Plan {
        name: "causes",
        every: Duration::from_secs(300),
        at_most: Duration::from_secs(60),
        late_after: Duration::from_secs(900),
    };

    /// Tests a bounded number of causes. A cause that cannot be tested does not stop the others.
    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let more = match self.context.writer.retest_causes(&mut self.at).await {
            Ok(more) => more,
            Err(CommitError::Changes(fault)) => {
                tracing::warn!(
                    error = fault.message(),
                    "a cause cannot be tested; the duty tests the others"
                );
                true
            }
            Err(error) => return Err(error.into()),
        };
        if !more {
            self.release_known_versions().await?;
        }
        Ok(more)
    }
}

impl<P: Product, T: Tables<Changes = P::Changes>> Causes<P, T> {
    async fn release_known_versions(&self) -> Result<(), StoreError> {
        let mut keys: Vec<String> = (1..=self.context.known_schema)
            .map(|schema| format!("schema:{schema}"))
            .collect();
        for pipeline in self.context.registry.iter() {
            keys.push(version_key(pipeline.name));
            for stage in pipeline.stages() {
                keys.extend((1..=stage.version).map(|version| {
                    version_key(&format!("{}/{}@{version}", pipeline.name, stage.name))
                }));
            }
        }
        for key in keys {
            self.context.store().begin_release(&key).await?;
        }
        Ok(())
    }
}
