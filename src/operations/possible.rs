//! Which actions are possible on a job, and why the others are not. The actions ask this themselves,
//! so a page that shows it cannot disagree with them.

use serde::Serialize;

use crate::job::{JobState, WaitReason};
use crate::message::SCHEMA;
use crate::pipelines::registry;
use crate::store::JobRow;

/// An action on one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobAction {
    Retry,
    Cancel,
    Configure,
    Park,
    Rerun,
    Skip,
    MarkEffect,
    EditInput,
    RestoreInput,
    Unmask,
}

impl JobAction {
    /// Every action.
    pub const ALL: &[Self] = &[
        Self::Retry,
        Self::Cancel,
        Self::Configure,
        Self::Park,
        Self::Rerun,
        Self::Skip,
        Self::MarkEffect,
        Self::EditInput,
        Self::RestoreInput,
        Self::Unmask,
    ];
}

/// An action, and why it is not possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Possible {
    /// The action.
    pub action: JobAction,
    /// Why it is not possible, and what to do instead; `None` if it is possible.
    pub obstacle: Option<String>,
}

/// Returns every action, each with its obstacle in the job's present state. What the action is given
/// (a stage, an output, an input, the key of an effect) is checked by the action.
#[must_use]
pub fn possible(row: &JobRow) -> Vec<Possible> {
    let of = |action: &JobAction| Possible {
        action: *action,
        obstacle: obstacle(*action, row),
    };
    JobAction::ALL.iter().map(of).collect()
}

/// Returns why an action is not possible, and what to do instead.
pub(super) fn obstacle(action: JobAction, row: &JobRow) -> Option<String> {
    if action == JobAction::Unmask {
        return None;
    }
    if action == JobAction::Configure {
        return (row.wait_reason() != Some(WaitReason::Configuration))
            .then(|| "it does not wait for an account".to_owned());
    }
    if let Some(why) = done(row.state) {
        return Some(why);
    }
    match action {
        JobAction::Retry => in_retry(row.state, row.wait_reason()),
        JobAction::Park => in_park(row),
        JobAction::Rerun => unknown(row),
        JobAction::Skip => waits(row).or_else(|| in_skip(row)),
        JobAction::MarkEffect => waits(row).or_else(|| unreadable(row)),
        JobAction::EditInput | JobAction::RestoreInput => unreadable(row),
        JobAction::Cancel | JobAction::Configure | JobAction::Unmask => None,
    }
}

/// Returns why a job in this state cannot be retried, and what to do instead.
pub(super) fn retry_obstacle(state: JobState, waits_for: Option<WaitReason>) -> Option<String> {
    done(state).or_else(|| in_retry(state, waits_for))
}

/// Returns why a job in this state, which is not parked, cannot be parked, and what to do instead.
pub(super) fn park_obstacle(state: JobState, waits_for: Option<WaitReason>) -> Option<String> {
    done(state).or_else(|| in_wait(waits_for))
}

fn done(state: JobState) -> Option<String> {
    state
        .is_done()
        .then(|| format!("it is {state}; publish it again with a new dedupe_key"))
}

fn in_retry(state: JobState, waits_for: Option<WaitReason>) -> Option<String> {
    if state == JobState::Running {
        return Some("it runs now; there is nothing to retry".to_owned());
    }
    match waits_for {
        Some(WaitReason::Children) => {
            Some("it waits for its follow-ups; retry the one that is parked".to_owned())
        }
        Some(WaitReason::Configuration) => {
            Some("it waits for an account; use `dispatch jobs configure`".to_owned())
        }
        _ => None,
    }
}

fn in_park(row: &JobRow) -> Option<String> {
    if row.state == JobState::Parked {
        return Some("it is parked already".to_owned());
    }
    waits(row)
}

/// A job that waits for these has no stage due: parked or passed, it could not continue.
fn waits(row: &JobRow) -> Option<String> {
    in_wait(row.wait_reason())
}

fn in_wait(waits_for: Option<WaitReason>) -> Option<String> {
    match waits_for {
        Some(WaitReason::Children) => Some(
            "its stages are done and it waits for its follow-ups; act on those, or cancel it"
                .to_owned(),
        ),
        Some(WaitReason::Configuration) => {
            Some("it waits for an account; use `dispatch jobs configure`, or cancel it".to_owned())
        }
        _ => None,
    }
}

/// What this version does not know, it cannot run again.
fn unknown(row: &JobRow) -> Option<String> {
    match registry().get(&row.pipeline) {
        Some(_) => None,
        None => Some(format!(
            "this version has no pipeline `{}`; use the version that does",
            row.pipeline
        )),
    }
}

/// What this version cannot read, it cannot check.
fn unreadable(row: &JobRow) -> Option<String> {
    if row.schema > SCHEMA {
        return Some(format!(
            "its input is sealed: expected at most schema {SCHEMA}, got {}; use the version that knows it",
            row.schema
        ));
    }
    unknown(row)
}

fn in_skip(row: &JobRow) -> Option<String> {
    if let Some(why) = unreadable(row) {
        return Some(why);
    }
    let registry = registry();
    let stage = registry.get(&row.pipeline)?.stage(&row.stage);
    match stage {
        Some((info, _)) if !info.off_path => None,
        Some(_) => Some(format!(
            "`{}` is not on the pipeline's path; re-run the job from a stage that is",
            row.stage
        )),
        None => Some(format!(
            "this version has no stage `{}`; use the version that does",
            row.stage
        )),
    }
}
