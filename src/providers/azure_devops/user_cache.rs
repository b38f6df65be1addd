//! A bounded cache of the users found for e-mail addresses, with a short lifetime. Each tenant
//! sees only what its own identities have found: the identities of others may not see the same
//! users, and must not learn who is in an account.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::FoundUser;

/// An account's name and e-mail addresses, in lower case, sorted.
pub(super) type Key = (String, Vec<String>);
const KEPT_FOR: Duration = Duration::from_secs(300);
/// The most entries of one tenant.
const OF_TENANT: usize = 512;
/// The most entries of all tenants.
const ENTRIES: usize = 4096;

#[derive(Debug)]
struct Entry {
    at: Instant,
    user: FoundUser,
}

type OfTenant = HashMap<Key, Entry>;

/// Results of searches (also [`FoundUser::Nobody`]) by the tenant's row id, each kept for
/// [`KEPT_FOR`]. A tenant has at most [`OF_TENANT`] entries, of which the oldest is evicted; all
/// tenants have at most [`ENTRIES`], of which the tenant with the most entries loses its oldest.
#[derive(Debug, Default)]
pub(super) struct UserCache(Mutex<HashMap<i64, OfTenant>>);

impl UserCache {
    pub(super) fn get(&self, tenant: i64, key: &Key, now: Instant) -> Option<FoundUser> {
        let tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tenants
            .get(&tenant)?
            .get(key)
            .filter(|entry| is_fresh(entry, now))
            .map(|entry| entry.user.clone())
    }

    pub(super) fn put(&self, tenant: i64, key: Key, user: FoundUser, now: Instant) {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = tenants
            .get_mut(&tenant)
            .filter(|own| own.len() >= OF_TENANT)
        {
            own.retain(|_, entry| is_fresh(entry, now));
            if own.len() >= OF_TENANT {
                forget_oldest(own);
            }
        }
        if count(&tenants) >= ENTRIES {
            tenants.retain(|_, own| {
                own.retain(|_, entry| is_fresh(entry, now));
                !own.is_empty()
            });
        }
        if count(&tenants) >= ENTRIES
            && let Some(most) = tenants.values_mut().max_by_key(|own| own.len())
        {
            forget_oldest(most);
        }
        tenants
            .entry(tenant)
            .or_default()
            .insert(key, Entry { at: now, user });
    }
}

fn count(tenants: &HashMap<i64, OfTenant>) -> usize {
    tenants.values().map(HashMap::len).sum()
}

fn forget_oldest(own: &mut OfTenant) {
    if let Some(oldest) = own
        .iter()
        .min_by_key(|(_, entry)| entry.at)
        .map(|(key, _)| key.clone())
    {
        own.remove(&oldest);
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

    /// Adds `count` entries of a tenant, a microsecond apart.
    fn fill(cache: &UserCache, tenant: i64, count: usize, start: Instant) {
        for number in 0..count {
            cache.put(
                tenant,
                key(number),
                FoundUser::Nobody,
                start + Duration::from_micros(u64::try_from(number).unwrap()),
            );
        }
    }

    fn kept(cache: &UserCache, tenant: i64) -> usize {
        cache.0.lock().unwrap().get(&tenant).map_or(0, HashMap::len)
    }

    #[test]
    fn an_entry_is_kept_for_five_minutes() {
        let (cache, start) = (UserCache::default(), Instant::now());
        cache.put(1, key(1), FoundUser::Nobody, start);
        assert_eq!(
            cache.get(1, &key(1), start + KEPT_FOR - Duration::from_secs(1)),
            Some(FoundUser::Nobody)
        );
        assert_eq!(cache.get(1, &key(1), start + KEPT_FOR), None);
        assert_eq!(cache.get(1, &key(2), start), None);
    }

    #[test]
    fn a_tenant_does_not_see_the_entries_of_another() {
        let (cache, start) = (UserCache::default(), Instant::now());
        cache.put(1, key(1), FoundUser::Nobody, start);
        assert_eq!(cache.get(2, &key(1), start), None);
    }

    #[test]
    fn a_full_tenant_evicts_only_its_own_oldest_entry() {
        let (cache, start) = (UserCache::default(), Instant::now());
        cache.put(2, key(0), FoundUser::Nobody, start);
        fill(&cache, 1, OF_TENANT + 1, start);
        let now = start + Duration::from_secs(2);
        assert_eq!(
            (kept(&cache, 1), cache.get(1, &key(0), now)),
            (OF_TENANT, None)
        );
        assert_eq!(cache.get(1, &key(OF_TENANT), now), Some(FoundUser::Nobody));
        assert_eq!(
            cache.get(2, &key(0), now),
            Some(FoundUser::Nobody),
            "as old as the oldest"
        );
    }

    #[test]
    fn a_full_cache_evicts_an_entry_of_the_tenant_with_the_most() {
        let (cache, start) = (UserCache::default(), Instant::now());
        let full = i64::try_from(ENTRIES / OF_TENANT).unwrap() - 1;
        (1..=full).for_each(|tenant| fill(&cache, tenant, OF_TENANT, start));
        fill(&cache, 100, OF_TENANT - 1, start);
        fill(&cache, 101, 1, start);
        let now = start + Duration::from_secs(1);
        (102..202).for_each(|tenant| fill(&cache, tenant, 1, now));
        assert_eq!(count(&cache.0.lock().unwrap()), ENTRIES);
        assert!(
            (101..202).all(|tenant| kept(&cache, tenant) == 1),
            "tenants with few entries keep them"
        );
        assert!((1..=full).all(|tenant| kept(&cache, tenant) < OF_TENANT));
        let late = start + KEPT_FOR + Duration::from_millis(1);
        fill(&cache, 300, 1, late);
        assert_eq!(
            (kept(&cache, 1), kept(&cache, 201), kept(&cache, 300)),
            (0, 1, 1),
            "expired entries are evicted first"
        );
    }
}
