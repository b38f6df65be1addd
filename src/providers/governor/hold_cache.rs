//! The copy of the holds in memory, by which calls are let out.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::LiveHold;
use crate::fault::StageFault;

/// A copy that is older is read again before a job is told to wait.
pub(super) const FRESH: Duration = Duration::from_millis(100);

/// A hold as it is remembered.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Not later than where it is kept.
    pub(super) until: Instant,
    /// When it was read or placed.
    pub(super) noted: Instant,
    pub(super) is_circuit: bool,
    pub(super) reason: String,
}

/// What is known of the holds.
#[derive(Debug, Default)]
pub(super) struct Copied {
    holds: HashMap<String, Held>,
    /// When they were last read, or could not be.
    read: Option<Instant>,
}

impl Copied {
    /// The hold in force, and whether what is known is fresh.
    pub(super) fn known(&self, scope: &str, now: Instant) -> (Option<Held>, bool) {
        let held = self.holds.get(scope).filter(|held| now < held.until).cloned();
        let noted = held.as_ref().map(|held| held.noted).max(self.read);
        (held, noted.is_some_and(|noted| now.saturating_duration_since(noted) < FRESH))
    }

    /// Remembers a hold that was placed here.
    pub(super) fn note(&mut self, scope: &str, held: Held) {
        self.holds.insert(scope.to_owned(), held);
    }

    /// Takes over what was read, `begun` being when reading began. The scopes whose circuit is open no more.
    ///
    /// # Errors
    /// What went wrong with reading; what was known stays.
    pub(super) fn take_over(
        &mut self,
        live: Result<Vec<LiveHold>, StageFault>,
        begun: Instant,
    ) -> Result<Vec<String>, StageFault> {
        self.read = Some(begun);
        let mut known: HashMap<String, Held> = HashMap::new();
        for LiveHold { scope, is_circuit, reason, left } in live? {
            let held = Held { until: begun + left, noted: begun, is_circuit, reason };
            if known.get(&scope).is_none_or(|other| other.until < held.until) {
                known.insert(scope, held);
            }
        }
        let mut gone = Vec::new();
        for (scope, held) in std::mem::replace(&mut self.holds, known) {
            if held.noted > begun {
                // Placed while the others were read.
                self.holds.insert(scope, held);
            } else if held.is_circuit && !self.holds.contains_key(&scope) {
                gone.push(scope);
            }
        }
        Ok(gone)
    }
}
