//! A worker process: its death, its lease, its memory, its version.

mod frozen_replica;
mod lost_leases;
mod memory;
pub(crate) mod newer_schema;
mod storm;
