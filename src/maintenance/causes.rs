//! Tests again whether the causes are gone that jobs wait for, and lets jobs go that waited for a version which this worker knows.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, Plan, Trouble};
use crate::engine::Product;
use crate::store::{StoreError, Tables};
use crate::worker::{Parts, version_key};

/// See the module.
pub(super) struct Causes<P: Product, T: Tables<Changes = P::Changes>>(pub(super) Parts<P, T>);

impl<P: Product, T: Tables<Changes = P::Changes>> Duty for Causes<P, T> {
    const PLAN: Plan = Plan {
        name: "causes",
        every: Duration::from_secs(300),
        at_most: Duration::from_secs(60),
        late_after: Duration::from_secs(900),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, Trouble> {
        let released = self.0.writer.retest_causes().await?;
        if released > 0 {
            tracing::info!(released, "causes are gone");
        }
        self.release_known_versions().await?;
        Ok(false)
    }
}

impl<P: Product, T: Tables<Changes = P::Changes>> Causes<P, T> {
    async fn release_known_versions(&self) -> Result<(), StoreError> {
        let mut keys: Vec<String> = (1..=self.0.known_schema).map(|schema| format!("schema:{schema}")).collect();
        for pipeline in self.0.registry.iter() {
            keys.push(version_key(pipeline.name));
            for stage in pipeline.stages() {
                keys.extend(
                    (1..=stage.version).map(|version| version_key(&format!("{}/{}@{version}", pipeline.name, stage.name))),
                );
            }
        }
        for key in keys {
            self.0.store().release_all(&key).await?;
        }
        Ok(())
    }
}
