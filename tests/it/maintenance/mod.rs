//! The duties of a replica beside its jobs: releases, retention, partitions, backpressure.

mod backlog;
mod duties;
mod partitions;
mod releases;
pub(crate) mod retention;
