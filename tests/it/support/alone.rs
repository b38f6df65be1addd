//! Exclusive execution for tests that measure time:
//! [`TestWorld::acme_alone`](super::TestWorld::acme_alone).

use std::cell::RefCell;
use std::sync::{Arc, LazyLock, Weak};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

static COMPANY: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

thread_local! {
    /// The place of the current test. Each test runs on its own thread, so a test with two worlds
    /// has one place.
    static PLACE: RefCell<Weak<Place>> = const { RefCell::new(Weak::new()) };
}

/// A shared or exclusive permit to run a test; held by the worlds of the test.
pub(super) enum Place {
    Beside { _others: OwnedRwLockReadGuard<()> },
    Alone { _nobody: OwnedRwLockWriteGuard<()> },
}

impl Place {
    /// Waits for a shared permit, unless this test already has one.
    pub(super) async fn beside() -> Arc<Self> {
        let place = PLACE.with_borrow(Weak::upgrade);
        match place {
            Some(place) => place,
            None => Self::Beside {
                _others: Arc::clone(&COMPANY).read_owned().await,
            }
            .kept(),
        }
    }

    /// Waits until no other test has a world, and prevents others from creating one.
    pub(super) async fn alone() -> Arc<Self> {
        Self::Alone {
            _nobody: Arc::clone(&COMPANY).write_owned().await,
        }
        .kept()
    }

    fn kept(self) -> Arc<Self> {
        let place = Arc::new(self);
        PLACE.set(Arc::downgrade(&place));
        place
    }
}
