//! The open streams of events: a limited number, and a limited number for each token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::console::problem::Problem;

/// The most streams of a console.
const MOST: usize = 50;
/// The most streams of one token: a person's visible tabs, on several screens.
const MOST_OF_ONE: usize = 10;
/// Seconds after which a page without a stream looks again.
const LOOK_AGAIN: u64 = 5;

/// Counts open streams by token.
#[derive(Debug, Clone, Default)]
pub(in crate::console) struct Streams(Arc<Mutex<HashMap<i64, usize>>>);

/// An open stream. Dropping it ends its place.
#[derive(Debug)]
pub(super) struct Open {
    streams: Streams,
    token: i64,
}

impl Streams {
    /// Takes a place for a stream of this token.
    ///
    /// # Errors
    /// `too_busy`.
    pub(super) fn enter(&self, token: i64) -> Result<Open, Problem> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.get(&token).copied().unwrap_or_default();
        if own >= MOST_OF_ONE || open.values().sum::<usize>() >= MOST {
            return Err(Problem::too_busy(format!(
                "expected at most {MOST} open streams, {MOST_OF_ONE} of one token, got one more"
            ))
            .after(LOOK_AGAIN));
        }
        open.insert(token, own + 1);
        Ok(Open {
            streams: self.clone(),
            token,
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self
            .streams
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.token) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(open.remove(&self.token)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_limited_for_each_token_and_in_all_and_a_place_is_freed() {
        let streams = Streams::default();
        let mut open: Vec<Open> = (0..MOST_OF_ONE)
            .map(|_| streams.enter(1).expect("a place"))
            .collect();
        assert_eq!(streams.enter(1).expect_err("one too many").status, 503);
        drop(open.pop());
        open.push(streams.enter(1).expect("a place is free again"));
        for token in 2..=5 {
            open.extend((0..MOST_OF_ONE).map(|_| streams.enter(token).expect("a place")));
        }
        assert_eq!(streams.enter(6).expect_err("none is left").status, 503);
        drop(open);
        assert!(streams.0.lock().expect("not poisoned").is_empty());
    }
}
