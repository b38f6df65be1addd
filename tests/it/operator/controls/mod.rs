//! Holds of wide scopes, the pause and kill switches.

mod holds;
mod kill_switch;
mod pause;

use std::time::Duration;

use crate::support::TestWorld;

const SOON: Duration = Duration::from_secs(60);

/// Runs a command that changes a control.
async fn control(world: &TestWorld, line: &str) {
    let mut arguments: Vec<&str> = line.split(' ').collect();
    arguments.extend(["--reason", "maintenance", "--yes"]);
    let said = world.dispatch(&arguments).said().await;
    assert_eq!(said.code, Some(0), "{line}: {said:?}");
}
