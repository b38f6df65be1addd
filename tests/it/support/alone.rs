//! Tests that measure time run while no other one does anything: [`TestWorld::acme_alone`](super::TestWorld::acme_alone).

use std::cell::RefCell;
use std::sync::{Arc, LazyLock, Weak};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

static COMPANY: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

thread_local! {
    /// Of this test, which runs on a thread of its own: one with two worlds has one place.
    static PLACE: RefCell<Weak<Place>> = const { RefCell::new(Weak::new()) };
}

/// A test's place among those that run; held by its worlds.
pub(super) enum Place {
    Beside { _others: OwnedRwLockReadGuard<()> },
    Alone { _nobody: OwnedRwLockWriteGuard<()> },
}

impl Place {
    /// Beside others, unless this test is alone already.
    pub(super) async fn beside() -> Arc<Self> {
        let place = PLACE.with_borrow(Weak::upgrade);
        match place {
            Some(place) => place,
            None => Self::Beside { _others: Arc::clone(&COMPANY).read_owned().await }.kept(),
        }
    }

    /// Waits until no other test has a world, and keeps them from beginning one.
    pub(super) async fn alone() -> Arc<Self> {
        Self::Alone { _nobody: Arc::clone(&COMPANY).write_owned().await }.kept()
    }

    fn kept(self) -> Arc<Self> {
        let place = Arc::new(self);
        PLACE.set(Arc::downgrade(&place));
        place
    }
}
