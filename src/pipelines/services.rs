//! The services that stages use.

use super::configuration_link::ConfigurationLinks;
use crate::engine::Spawn;
use crate::providers::Providers;
use crate::tracker::{SealedTracker, Tracker};

/// The services that stages use to access our tables and the providers. Signing in as an identity
/// is in `sign_in`.
pub struct Services {
    /// Our own tables.
    pub tracker: Tracker,
    /// The sealed values in our own tables.
    pub sealed: SealedTracker,
    /// Azure DevOps, Microsoft Entra and the channels of messages.
    pub providers: Providers,
    /// Links to the page on which a person chooses an account.
    pub links: ConfigurationLinks,
    /// Spawns work that must finish even if the stage that started it is dropped.
    pub spawn: Spawn,
}
