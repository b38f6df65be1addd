//! The scopes of the pause and of holds that are wider than one destination.

/// The scope of the pause.
pub const ALL: &str = "all";

/// Returns the scope of a hold of a lane.
#[must_use]
pub fn of_lane(lane: &str) -> String {
    format!("lane:{lane}")
}

/// Returns the scope of a hold of a stage.
#[must_use]
pub fn of_stage(pipeline: &str, stage: &str) -> String {
    format!("stage:{pipeline}/{stage}")
}

/// Returns the scope of a hold of an organization.
#[must_use]
pub fn of_organization(slug: &str) -> String {
    format!("organization:{slug}")
}
