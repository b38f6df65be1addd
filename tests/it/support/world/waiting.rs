//! Reads a job's row and waits for conditions.

use std::time::Duration;

use dispatch_worker::devkit::servers::QueueDepth;
use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::{JobRow, JobView};

use super::{TestWorld, queues};
use crate::support::acme;
use crate::support::wait::wait_for;

impl TestWorld {
    /// Waits until a request has met the fault with this id.
    pub(crate) async fn wait_fault_met(&self, id: u64) {
        let simulator = &self.simulator().await.client;
        wait_for(
            "a request that meets the fault",
            Duration::from_secs(30),
            async || {
                let faults = simulator
                    .faults()
                    .await
                    .expect("the simulator lists its faults");
                if faults.iter().any(|fault| fault.id == id && fault.hits > 0) {
                    Ok(())
                } else {
                    Err("none has come")
                }
            },
        )
        .await;
    }

    /// Returns the row of a job of [`acme::SOURCE`].
    pub(crate) async fn job_by_key(&self, dedupe_key: &str) -> Option<JobRow> {
        self.store()
            .job_by_key(acme::SOURCE, dedupe_key)
            .await
            .expect("Postgres answers")
    }

    pub(crate) async fn job_view(&self, job: JobId) -> JobView {
        self.store()
            .job_view(job)
            .await
            .expect("Postgres answers")
            .expect("the job has a row")
    }

    /// Waits until a job of [`acme::SOURCE`] is in a state.
    pub(crate) async fn wait_job_state(
        &self,
        dedupe_key: &str,
        state: JobState,
        limit: Duration,
    ) -> JobRow {
        wait_for(
            &format!("job {dedupe_key} to be {state}"),
            limit,
            async || {
                let row = self
                    .job_by_key(dedupe_key)
                    .await
                    .ok_or_else(|| "there is no such job".to_owned())?;
                if row.state == state {
                    Ok(row)
                } else {
                    Err(serde_json::to_string_pretty(&row).unwrap_or_default())
                }
            },
        )
        .await
    }

    /// Returns the depth of a queue. It retries, as RabbitMQ's management API is slow on a busy
    /// machine.
    pub(crate) async fn queue_depth(&self, queue: &str) -> QueueDepth {
        wait_for(
            "the depth of a queue",
            Duration::from_secs(30),
            async || {
                self.run
                    .servers
                    .queue_depth(&self.database.name, queue)
                    .await
                    .map_err(|error| format!("{error:#}"))
            },
        )
        .await
    }

    /// Waits until no queue holds a message and every outcome event is published.
    pub(crate) async fn wait_quiet(&self, limit: Duration) {
        wait_for("every queue to be empty", limit, async || {
            for queue in queues() {
                let depth = self.queue_depth(queue).await;
                if depth.ready + depth.unacked > 0 {
                    return Err(format!("{queue}: {depth:?}"));
                }
            }
            match self
                .database
                .one("SELECT count(*) FROM announcements")
                .await
                .as_str()
            {
                "0" => Ok(()),
                some => Err(format!("{some} outcome events are not published")),
            }
        })
        .await;
    }
}
