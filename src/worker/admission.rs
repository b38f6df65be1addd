//! Identifies the sender of a message and checks what the message names. RabbitMQ verifies the
//! user; a row says what the user may name. The row is read again every few seconds, and always
//! before a message is refused because of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Worker;
use super::claiming::Trouble;
use crate::broker::Delivery;
use crate::engine::Product;
use crate::message::{Named, Producer, REPLAY, Refusal, Sender, replayed_for};
use crate::store::{StoreError, Tables};

/// How long the row of a producer or an organization is cached. A right that is withdrawn is gone
/// after this time.
const CURRENT: Duration = Duration::from_secs(5);
/// The most names that are cached.
const REMEMBERED: usize = 4096;

/// The cached rows of producers and organizations.
#[derive(Debug)]
pub struct Admission {
    /// Whether every user that may publish is trusted, as with one tenant.
    trusts_all: bool,
    producers: Recent<Option<Arc<Producer>>>,
    organizations: Recent<bool>,
}

impl Admission {
    /// Creates an empty cache. With `trusts_all`, every message is trusted.
    #[must_use]
    pub fn new(trusts_all: bool) -> Self {
        Self {
            trusts_all,
            producers: Recent::default(),
            organizations: Recent::default(),
        }
    }
}

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    pub(super) async fn sender(&self, delivery: &Delivery) -> Result<Sender, Trouble> {
        let user = match delivery.header(REPLAY) {
            // An operator replays the message for its producer. A message kept before producers
            // were verified has none: it is trusted, because the operator is.
            Some(proof) => match replayed_for(&self.context.keyring, &delivery.body, proof) {
                Some(None) => return Ok(Sender::Trusted(None)),
                Some(producer) => producer,
                None => return Err(Refusal::ForgedReplay.into()),
            },
            None => delivery.envelope.user_id.clone(),
        };
        if self.context.admission.trusts_all {
            return Ok(Sender::Trusted(user));
        }
        let user = user.ok_or(Refusal::NoUser)?;
        let known = match self.producer_since(&user, cached_since()).await? {
            Some(producer) => Some(producer),
            None => self.producer_since(&user, delivery.received_at).await?,
        };
        known
            .map(Sender::Known)
            .ok_or_else(|| Refusal::UnknownProducer(crate::fault::storable(&user, 255)).into())
    }

    /// Refuses a message, which arrived at `received`, that names something that is not its
    /// sender's.
    pub(super) async fn permit(
        &self,
        sender: &Sender,
        names: &[Named<'_>],
        received: Instant,
    ) -> Result<(), Trouble> {
        let Err(refusal) = sender.may_name(names) else {
            return Ok(());
        };
        let Some(name) = sender.name() else {
            return Err(refusal.into());
        };
        match self.producer_since(name, received).await? {
            Some(now) => Ok(Sender::Known(now).may_name(names)?),
            None => Err(refusal.into()),
        }
    }

    /// Refuses a message, which arrived at `received`, for an organization that does not exist.
    pub(super) async fn known_organization(
        &self,
        slug: &str,
        received: Instant,
    ) -> Result<(), Trouble> {
        let store = self.context.store();
        for since in [cached_since(), received] {
            let read = || {
                self.context
                    .until_available(|| store.has_organization(slug))
            };
            if self
                .context
                .admission
                .organizations
                .get(slug, since, read)
                .await?
            {
                return Ok(());
            }
        }
        Err(Refusal::UnknownOrganization(crate::fault::storable(slug, 100)).into())
    }

    /// Returns a producer as it was at `since` or later.
    async fn producer_since(
        &self,
        name: &str,
        since: Instant,
    ) -> Result<Option<Arc<Producer>>, StoreError> {
        let store = self.context.store();
        let read = async || {
            Ok(self
                .context
                .until_available(|| store.producer(name))
                .await?
                .map(Arc::new))
        };
        self.context
            .admission
            .producers
            .get(name, since, read)
            .await
    }
}

/// Returns since when a cached row is used. Before a refusal, a row counts only if it was read
/// after the message arrived: a producer can publish as soon as it is registered, and messages
/// that arrive before a read share it.
fn cached_since() -> Instant {
    Instant::now()
        .checked_sub(CURRENT)
        .unwrap_or_else(Instant::now)
}

/// A cache of values that were read by name.
#[derive(Debug)]
struct Recent<V>(Mutex<HashMap<String, (Instant, V)>>);

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Recent<V> {
    /// Returns the value that was read for a name at `since` or later, or reads it now.
    async fn get(
        &self,
        name: &str,
        since: Instant,
        read: impl AsyncFnOnce() -> Result<V, StoreError>,
    ) -> Result<V, StoreError> {
        let remembered = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        if let Some((_, value)) = remembered.filter(|(at, _)| *at >= since) {
            return Ok(value);
        }
        let at = Instant::now();
        let value = read().await?;
        self.remember(name, (at, value.clone()));
        Ok(value)
    }

    fn remember(&self, name: &str, entry: (Instant, V)) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED && !known.contains_key(name) {
            known.retain(|_, (at, _)| at.elapsed() < CURRENT);
            // Unregistered names may arrive by the thousand: each costs a read, but no memory.
            if known.len() >= REMEMBERED {
                return;
            }
        }
        known.insert(name.to_owned(), entry);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_name_is_read_once_in_its_time_and_names_by_the_thousand_take_no_more_memory() {
        let recent = Recent::<usize>::default();
        let get = |name: &str, since, value| {
            recent
                .get(name, since, async move || Ok(value))
                .now_or_never()
                .expect("it does not wait")
                .unwrap()
        };
        let begun = Instant::now();
        assert_eq!([get("a", begun, 1), get("a", begun, 2)], [1, 1]);
        let later = Instant::now() + Duration::from_nanos(1);
        assert_eq!([get("a", later, 3), get("a", begun, 4)], [3, 3]);
        for number in 0..REMEMBERED + 100 {
            assert_eq!(get(&format!("n{number}"), begun, number), number);
        }
        assert_eq!(recent.0.lock().unwrap().len(), REMEMBERED);
        assert_eq!(get("a", begun, 5), 3, "a name in use stays cached");
    }
}
