//! The console and its API, as a process of its own.

mod access;
mod actions;
mod answers;
mod bad_input;
mod choose;
mod dead_letters;
mod described;
mod drills;
mod fleet;
mod job_forms;
mod job_page;
mod kill_switch;
mod live;
mod night;
mod other_schema;
mod proxy;
mod reading;
mod refusals;

use std::time::Duration;

use dispatch_worker::job::JobState;
use dispatch_worker::store::JobRow;
use serde_json::Value;

use crate::support::{TestWorld, acme};

const SOON: Duration = Duration::from_secs(30);

/// Creates a job that waits for an account; a worker must run.
pub(crate) async fn waiting_job(world: &TestWorld, key: &str) -> JobRow {
    let mut message = acme::job(key, &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await);
    message["account"] = Value::Null;
    world.publish_job(&message).await;
    world.wait_job_state(key, JobState::Waiting, SOON).await
}
