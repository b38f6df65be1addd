//! The copy of the holds in memory, by which calls are admitted.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::LiveHold;
use crate::fault::StageFault;

/// The age up to which the copy is fresh. An older copy is refreshed before a job waits for a
/// hold.
pub(super) const FRESH: Duration = Duration::from_millis(100);

/// A hold in the copy.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The end of the hold, not later than in the store.
    pub(super) until: Instant,
    /// When the hold was read or placed.
    pub(super) noted: Instant,
    pub(super) is_circuit: bool,
    pub(super) reason: String,
}

/// The known holds.
#[derive(Debug, Default)]
pub(super) struct HoldCache {
    holds: HashMap<String, Held>,
    /// When the last read began, successful or not.
    read: Option<Instant>,
}

impl HoldCache {
    /// Returns the hold in force of a scope, and whether that knowledge is fresh.
    pub(super) fn known(&self, scope: &str, now: Instant) -> (Option<Held>, bool) {
        let held = self
            .holds
            .get(scope)
            .filter(|held| now < held.until)
            .cloned();
        let noted = held.as_ref().map(|held| held.noted).max(self.read);
        (
            held,
            noted.is_some_and(|noted| now.saturating_duration_since(noted) < FRESH),
        )
    }

    /// Adds a hold that this replica has placed.
    pub(super) fn note(&mut self, scope: &str, held: Held) {
        self.holds.insert(scope.to_owned(), held);
    }

    /// Replaces the copy with the holds read from the store; the read began at `begun`. Returns
    /// the scopes whose holds of an open circuit are gone.
    ///
    /// # Errors
    /// The fault of the read. The copy then stays as it was.
    pub(super) fn take_over(
        &mut self,
        live: Result<Vec<LiveHold>, StageFault>,
        begun: Instant,
    ) -> Result<Vec<String>, StageFault> {
        self.read = Some(begun);
        let mut known: HashMap<String, Held> = HashMap::new();
        for LiveHold {
            scope,
            is_circuit,
            reason,
            left,
        } in live?
        {
            let held = Held {
                until: begun + left,
                noted: begun,
                is_circuit,
                reason,
            };
            if known
                .get(&scope)
                .is_none_or(|other| other.until < held.until)
            {
                known.insert(scope, held);
            }
        }
        let mut gone = Vec::new();
        for (scope, held) in std::mem::replace(&mut self.holds, known) {
            if held.noted > begun {
                // Placed during the read.
                self.holds.insert(scope, held);
            } else if held.is_circuit && !self.holds.contains_key(&scope) {
                gone.push(scope);
            }
        }
        Ok(gone)
    }
}
