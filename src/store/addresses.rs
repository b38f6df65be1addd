//! Addresses of Postgres that failed recently. They are tried last, and pooled connections to them
//! that are older than the failure are not reused.
//!
//! The state is shared in the process, so that pools and heartbeat profit from each other.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a failed address is tried last.
const REMEMBERED: Duration = Duration::from_secs(30);

/// By address; the settings contain only a few.
static FAILED: LazyLock<Mutex<HashMap<String, Failed>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Clone, Copy, Default)]
struct Failed {
    /// Time of the last failure, unless a connection was opened since.
    at: Option<Instant>,
    /// When an established connection was closed because the server was silent.
    silent: Option<Instant>,
}

fn failed<T>(look: impl FnOnce(&mut HashMap<String, Failed>) -> T) -> T {
    // The map is consistent after a panic: entries are replaced as a whole.
    look(&mut FAILED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Records that no connection could be opened to it, or none with the requested properties.
pub(super) fn refused(address: &str) {
    failed(|all| all.entry(address.to_owned()).or_default().at = Some(Instant::now()));
}

/// Records that it owed an answer for too long.
pub(super) fn silent(address: &str) {
    let now = Some(Instant::now());
    failed(|all| {
        all.insert(
            address.to_owned(),
            Failed {
                at: now,
                silent: now,
            },
        )
    });
}

/// Records that a connection to it was opened.
pub(super) fn works(address: &str) {
    failed(|all| {
        if let Some(known) = all.get_mut(address) {
            known.at = None;
        }
    });
}

/// Moves the addresses that failed recently to the end, the most recent failure last.
pub(super) fn failed_last<T>(ways: &mut [T], address: impl Fn(&T) -> &str) {
    failed(|all| {
        let failed_at = |way: &T| {
            all.get(address(way))
                .and_then(|failed| failed.at)
                .filter(|at| at.elapsed() < REMEMBERED)
        };
        ways.sort_by_key(failed_at);
    });
}

/// Returns whether one of `addresses` was silent since `made`: a connection of that age may lead
/// to a server that does not answer.
pub(super) fn is_suspect(addresses: &[String], made: Instant) -> bool {
    failed(|all| {
        addresses
            .iter()
            .filter_map(|address| all.get(address)?.silent)
            .any(|silent| silent >= made)
    })
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
        assert!(
            !is_suspect(&[two.to_owned(), three.to_owned()], made),
            "refusing new ones says nothing of old ones"
        );
        works(one);
        works(three);
        assert_eq!(order(), [one, three, two]);
        assert!(
            is_suspect(&[one.to_owned()], made) && !is_suspect(&[one.to_owned()], Instant::now())
        );
        refused(one);
        assert!(is_suspect(&[one.to_owned()], made), "it is still known");
    }
}
