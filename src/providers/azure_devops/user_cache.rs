//! Remembers which user answers to which e-mail addresses, for a short time and a bounded number of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::FoundUser;

/// An account's name and e-mail addresses, in lower case, sorted.
pub(super) type Key = (String, Vec<String>);
const KEPT_FOR: Duration = Duration::from_secs(300);
const ENTRIES: usize = 1024;

#[derive(Debug)]
struct Entry {
    at: Instant,
    user: FoundUser,
}

/// At most [`ENTRIES`] findings (nobody is one too), each for [`KEPT_FOR`].
#[derive(Debug, Default)]
pub(super) struct UserCache(Mutex<HashMap<Key, Entry>>);

impl UserCache {
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<FoundUser> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|entry| is_fresh(entry, now)).map(|entry| entry.user.clone())
    }

    pub(super) fn put(&self, key: Key, user: FoundUser, now: Instant) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES {
            entries.retain(|_, entry| is_fresh(entry, now));
        }
        if entries.len() >= ENTRIES
            && let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.at).map(|(key, _)| key.clone())
        {
            entries.remove(&oldest);
        }
        entries.insert(key, Entry { at: now, user });
    }
}

fn is_fresh(entry: &Entry, now: Instant) -> bool {
    now.saturating_duration_since(entry.at) < KEPT_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        ("org".to_owned(), vec![format!("{number}@example.com")])
    }

    #[test]
    fn a_finding_is_kept_for_five_minutes() {
        let (cache, start) = (UserCache::default(), Instant::now());
        cache.put(key(1), FoundUser::Nobody, start);
        assert_eq!(cache.get(&key(1), start + KEPT_FOR - Duration::from_secs(1)), Some(FoundUser::Nobody));
        assert_eq!(cache.get(&key(1), start + KEPT_FOR), None);
        assert_eq!(cache.get(&key(2), start), None);
    }

    #[test]
    fn the_oldest_makes_room_when_all_places_are_taken() {
        let (cache, start) = (UserCache::default(), Instant::now());
        for number in 0..=ENTRIES {
            cache.put(key(number), FoundUser::Nobody, start + Duration::from_millis(u64::try_from(number).unwrap()));
        }
        let now = start + Duration::from_secs(2);
        assert_eq!(cache.0.lock().unwrap().len(), ENTRIES);
        assert_eq!(cache.get(&key(0), now), None);
        assert_eq!(cache.get(&key(ENTRIES), now), Some(FoundUser::Nobody));
    }
}
