//! What the requests to the console share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::auth::{Rates, Refusals, SigningProxy};
use super::live::{Snapshots, Streams};
use super::panels::Panels;
use super::security_log::SecurityLog;
use crate::ops::HostNames;
use crate::secrets::Keyring;
use crate::store::Store;

/// The parts that a console is made of.
#[derive(Clone)]
pub struct ConsoleParts {
    /// Reads, on connections that may do nothing else.
    pub reads: Store,
    /// Acts.
    pub acts: Store,
    /// Seals sessions, and opens what a person may see.
    pub keyring: Arc<Keyring>,
    /// The names that requests may have as their host.
    pub hosts: HostNames,
    /// Whether a proxy ends TLS in front of the console.
    pub is_behind_proxy: bool,
    /// The proxy that signs people in.
    pub proxy: Option<SigningProxy>,
}

/// The state that all requests share.
pub struct Console {
    pub(super) parts: ConsoleParts,
    pub(super) refusals: Refusals,
    pub(super) rates: Rates,
    pub(super) streams: Streams,
    /// Dry runs of kill switches that may be under way.
    pub(super) previews: Semaphore,
    /// Exports under way.
    pub(super) exports: Semaphore,
    pub(super) snapshots: Snapshots,
    pub(super) panels: Panels,
    pub(super) security_log: SecurityLog,
}

impl Console {
    /// Creates the state.
    #[must_use]
    pub fn new(parts: ConsoleParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            refusals: Refusals::default(),
            rates: Rates::default(),
            streams: Streams::default(),
            previews: Semaphore::new(1),
            exports: Semaphore::new(1),
            snapshots: Snapshots::default(),
            panels: Panels::default(),
            security_log: SecurityLog::default(),
        })
    }
}
