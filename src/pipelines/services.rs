//! What stages reach the outside with.

use crate::engine::Spawn;
use crate::providers::Providers;
use crate::tracker::Tracker;

/// What stages reach the outside with. Signing in as an identity is in `sign_in`.
pub struct Services {
    /// Our own tables.
    pub tracker: Tracker,
    /// Azure DevOps, Microsoft Entra and the channels of messages.
    pub providers: Providers,
    /// Starts what must be done even where the stage that began it is let go.
    pub spawn: Spawn,
}
