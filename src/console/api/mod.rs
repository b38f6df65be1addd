//! The API: a file for each subject, with its routes and their handlers. What a page shows is read
//! by the same functions.

pub(super) mod account;
pub(super) mod alerts;
pub(super) mod campaigns;
pub(super) mod controls;
pub(super) mod dead_letters;
pub(super) mod exports;
pub(super) mod fleet;
pub(super) mod groups;
pub(super) mod job_actions;
pub(super) mod job_data;
pub(super) mod jobs;
pub(super) mod kill_switch;
pub(super) mod overview;
