//! What is known of the deliveries of a connection beside what the driver hands out: the memory each is charged with, and what was
//! thrown away of it.
//!
//! A process has one [`ByteBudget`]. Where it is used up, a connection's stream is not read on before its next delivery of some
//! size, until others are rows, or gone. Small messages are not counted: the prefetch limits them, and wake-ups and control messages
//! never wait for memory.
//!
//! **Invariant:** nothing that gives memory of the budget back waits for memory of the budget, or for a connection that does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use crate::message::Discarded;
use crate::telemetry::names;

/// A body is in memory up to so many times until it is a row: as it came, decoded, to be stored, and in the statement.
const COPIES: u64 = 4;
/// A header table is in memory as it came and as JSON; a value of one byte takes so many there.
const VALUE: u64 = 128;
const HEADER_COPIES: u64 = 3;
/// What takes no more than this is not counted.
const UNCOUNTED: u32 = 4 << 10;
/// A connection that was given up while its messages waited comes back when such a part of the budget is free.
const COME_BACK: u32 = 4;

/// Memory that messages of one process may take until they are rows, in bytes.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    total: u32,
}

impl ByteBudget {
    /// Of so many bytes.
    #[must_use]
    pub fn new(bytes: u32) -> Self {
        metrics::gauge!(names::INTAKE_BYTES).set(0.0);
        Self { free: Arc::new(Semaphore::new(bytes as usize)), total: bytes }
    }

    /// Bytes that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Until a part of it is free that is worth connecting for.
    pub(in crate::broker) async fn has_room(&self) {
        let enough = self.free.acquire_many(self.total / COME_BACK).await;
        drop(enough.expect("the semaphore is never closed"));
    }

    pub(super) fn gate(&self) -> PollSemaphore {
        PollSemaphore::new(Arc::clone(&self.free))
    }
}

/// A part of the budget; dropping it gives it back.
#[derive(Debug)]
pub(in crate::broker) struct Charge(OwnedSemaphorePermit);

impl Charge {
    pub(super) fn of(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(names::INTAKE_BYTES).increment(permit.num_permits() as f64);
        Self(permit)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        metrics::gauge!(names::INTAKE_BYTES).decrement(self.0.num_permits() as f64);
    }
}

/// The memory that a delivery takes, in bytes.
pub(super) fn weight(body: u64, header_frame: usize, values: usize) -> u64 {
    let headers = (header_frame as u64) * HEADER_COPIES + (values as u64) * VALUE;
    body.saturating_mul(COPIES).saturating_add(headers)
}

/// What is known of a delivery beside what the driver hands out.
#[derive(Debug, Default)]
pub(in crate::broker) struct Arrived {
    /// The memory it takes, where that is counted.
    pub(in crate::broker) charge: Option<Charge>,
    /// What is known of a body that was thrown away, and how it began.
    pub(in crate::broker) discarded: Option<(Discarded, Vec<u8>)>,
    /// The size of a header table that was cut.
    pub(in crate::broker) header_bytes: Option<usize>,
}

/// The deliveries of one connection, between its stream and its consumer.
#[derive(Debug)]
pub(in crate::broker) struct Inbound {
    budget: ByteBudget,
    state: Mutex<State>,
}

/// Bounded by the prefetch.
#[derive(Debug, Default)]
struct State {
    arrived: HashMap<(u16, u64), Arrived>,
    /// The stream waits for memory.
    waiting: Option<Waker>,
    is_over: bool,
}

/// The consumer's end. Dropped, nobody takes deliveries any more: they are read without their bodies, and charged with nothing, until
/// the connection has ended.
#[derive(Debug)]
pub(in crate::broker) struct Taker(Arc<Inbound>);

impl Inbound {
    /// For a new connection.
    pub(in crate::broker) fn new(budget: &ByteBudget) -> (Arc<Self>, Taker) {
        let inbound = Arc::new(Self { budget: budget.clone(), state: Mutex::default() });
        (Arc::clone(&inbound), Taker(inbound))
    }

    /// A delivery that takes more than there is waits until nothing else is counted.
    pub(super) fn within_budget(&self, weight: u64) -> u32 {
        u32::try_from(weight).unwrap_or(u32::MAX).min(self.budget.total)
    }

    pub(super) const fn counts(&self, weight: u32) -> bool {
        weight > UNCOUNTED
    }

    pub(super) fn gate(&self) -> PollSemaphore {
        self.budget.gate()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// Its header is passed on next.
    pub(super) fn arrived(&self, delivery: (u16, u64), arrived: Arrived) {
        let is_known = arrived.charge.is_some() || arrived.discarded.is_some() || arrived.header_bytes.is_some();
        let mut state = self.state();
        if is_known && !state.is_over {
            state.arrived.insert(delivery, arrived);
        }
    }

    /// The stream waits for memory. `false`: it need not, as nobody takes deliveries any more.
    pub(super) fn waits(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        if !state.is_over {
            state.waiting = Some(waker.clone());
        }
        !state.is_over
    }

    pub(super) fn goes_on(&self) {
        self.state().waiting = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taker {
    /// What is known of a delivery of this channel and tag; once.
    pub(in crate::broker) fn take(&self, channel: u16, tag: u64) -> Arrived {
        self.0.state().arrived.remove(&(channel, tag)).unwrap_or_default()
    }

    /// Whether the stream waits for memory.
    pub(in crate::broker) fn waits(&self) -> bool {
        self.0.state().waiting.is_some()
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_over = true;
        let (left, waiting) = (std::mem::take(&mut state.arrived), state.waiting.take());
        drop(state);
        drop(left);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}
