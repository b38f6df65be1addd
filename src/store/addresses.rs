//! Which addresses of Postgres have failed of late: they are tried last, and what is left of them is not used again.
//!
//! It is kept for the process: its pools and its heartbeat learn of each other.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an address is tried last.
const REMEMBERED: Duration = Duration::from_secs(30);

/// By address, of which settings name a few.
static FAILED: LazyLock<Mutex<HashMap<String, Failed>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Clone, Copy, Default)]
struct Failed {
    /// The last time, unless it has worked since.
    at: Option<Instant>,
    /// When a connection that had been made was given up for its silence.
    silent: Option<Instant>,
}

fn failed<T>(look: impl FnOnce(&mut HashMap<String, Failed>) -> T) -> T {
    // Whoever panicked left whole entries.
    look(&mut FAILED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// No connection could be made to it, or not one of the kind that was asked for.
pub(super) fn refused(address: &str) {
    failed(|all| all.entry(address.to_owned()).or_default().at = Some(Instant::now()));
}

/// It owed an answer for too long.
pub(super) fn silent(address: &str) {
    let now = Some(Instant::now());
    failed(|all| all.insert(address.to_owned(), Failed { at: now, silent: now }));
}

/// A connection to it was made.
pub(super) fn works(address: &str) {
    failed(|all| {
        if let Some(known) = all.get_mut(address) {
            known.at = None;
        }
    });
}

/// Puts what has failed of late behind the rest, the most recent last.
pub(super) fn failed_last<T>(ways: &mut [T], address: impl Fn(&T) -> &str) {
    failed(|all| {
        let failed_at = |way: &T| all.get(address(way)).and_then(|failed| failed.at).filter(|at| at.elapsed() < REMEMBERED);
        ways.sort_by_key(failed_at);
    });
}

/// Whether one of `addresses` has been silent since `made`: a connection of that age may be to a server that does nothing.
pub(super) fn is_suspect(addresses: &[String], made: Instant) -> bool {
    failed(|all| addresses.iter().filter_map(|address| all.get(address)?.silent).any(|silent| silent >= made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_of_late_is_tried_last_and_its_old_connections_are_suspect() {
        let [one, two, three] = ["one.test:1", "two.test:1", "three.test:1"];
        let order = || {
            let mut ways = vec![one, two, three];
            failed_last(&mut ways, |way| way);
            ways
        };
        let made = Instant::now();
        assert_eq!(order(), [one, two, three]);
        silent(one);
        refused(two);
        assert_eq!(order(), [three, one, two]);
        assert!(is_suspect(&[three.to_owned(), one.to_owned()], made));
        assert!(!is_suspect(&[two.to_owned(), three.to_owned()], made), "refusing new ones says nothing of old ones");
        works(one);
        works(three);
        assert_eq!(order(), [one, three, two]);
        assert!(is_suspect(&[one.to_owned()], made) && !is_suspect(&[one.to_owned()], Instant::now()));
        refused(one);
        assert!(is_suspect(&[one.to_owned()], made), "it is still known");
    }
}
