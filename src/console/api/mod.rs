//! The API: a file for each subject, with its routes and their handlers. What a page shows is read
//! by the same functions.

pub(super) mod account;
pub(super) mod jobs;
