//! Accounting of a connection's deliveries that the driver does not do: the memory charged for
//! each, and the bodies discarded.
//!
//! A process has one [`ByteBudget`]. When it is used up, a connection stops reading before its
//! next large delivery until other messages are stored as rows or dropped. Small messages are not
//! counted: the prefetch limits them, so wake-ups and control messages never wait for memory.
//!
//! **Invariant:** nothing that returns memory to the intake budget waits for memory of the budget,
//! or for a connection that does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use crate::message::Discarded;
use crate::telemetry::names;

/// The maximum number of copies of a body in memory until it is a row: as received, decoded, to be
/// stored, and in the statement.
const COPIES: u64 = 4;
/// The memory that a header value of one byte takes as JSON.
const VALUE: u64 = 128;
/// The number of copies of a header table in memory, as received and as JSON.
const HEADER_COPIES: u64 = 3;
/// Deliveries that take no more bytes than this are not counted.
const UNCOUNTED: u32 = 4 << 10;
/// A connection that was lost while its messages waited reconnects when this part of the budget
/// (1/4) is free.
const COME_BACK: u32 = 4;

/// The memory that messages of one process may take until they are rows, in bytes.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    total: u32,
}

impl ByteBudget {
    #[must_use]
    pub fn new(bytes: u32) -> Self {
        metrics::gauge!(names::INTAKE_BYTES).set(0.0);
        Self {
            free: Arc::new(Semaphore::new(bytes as usize)),
            total: bytes,
        }
    }

    /// Returns the free bytes.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Waits until enough of it is free to make connecting worthwhile.
    pub(in crate::broker) async fn has_room(&self) {
        let enough = self.free.acquire_many(self.total / COME_BACK).await;
        drop(enough.expect("the semaphore is never closed"));
    }

    pub(super) fn gate(&self) -> PollSemaphore {
        PollSemaphore::new(Arc::clone(&self.free))
    }
}

/// A part of the budget, released on drop.
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

/// Returns the memory that a delivery takes, in bytes.
pub(super) fn weight(body: u64, header_frame: usize, values: usize) -> u64 {
    let headers = (header_frame as u64) * HEADER_COPIES + (values as u64) * VALUE;
    body.saturating_mul(COPIES).saturating_add(headers)
}

/// Facts of a delivery that the driver does not report.
#[derive(Debug, Default)]
pub(in crate::broker) struct Arrived {
    /// The memory it takes, if that is counted.
    pub(in crate::broker) charge: Option<Charge>,
    /// Size and digest of a discarded body, and its beginning.
    pub(in crate::broker) discarded: Option<(Discarded, Vec<u8>)>,
    /// Whether the header table was over the limit and is truncated.
    pub(in crate::broker) headers_too_large: bool,
}

/// The deliveries of one connection, between its stream and its consumer.
#[derive(Debug)]
pub(in crate::broker) struct Inbound {
    budget: ByteBudget,
    state: Mutex<State>,
}

/// State shared by the stream and the consumer. The prefetch bounds its size.
#[derive(Debug, Default)]
struct State {
    arrived: HashMap<(u16, u64), Arrived>,
    /// Waker of the stream while it waits for memory.
    waiting: Option<Waker>,
    is_over: bool,
}

/// The consumer's end. Once it is dropped, deliveries have no consumer: until the connection ends,
/// they are read without their bodies and charged nothing.
#[derive(Debug)]
pub(in crate::broker) struct Taker(Arc<Inbound>);

impl Inbound {
    /// Creates both ends for a new connection.
    pub(in crate::broker) fn new(budget: &ByteBudget) -> (Arc<Self>, Taker) {
        let inbound = Arc::new(Self {
            budget: budget.clone(),
            state: Mutex::default(),
        });
        (Arc::clone(&inbound), Taker(inbound))
    }

    /// Limits a weight to the whole budget: a delivery that takes more waits until nothing else is
    /// counted.
    pub(super) fn within_budget(&self, weight: u64) -> u32 {
        u32::try_from(weight)
            .unwrap_or(u32::MAX)
            .min(self.budget.total)
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

    /// Records the facts of a delivery whose header is passed on next.
    pub(super) fn arrived(&self, delivery: (u16, u64), arrived: Arrived) {
        let is_known =
            arrived.charge.is_some() || arrived.discarded.is_some() || arrived.headers_too_large;
        let mut state = self.state();
        if is_known && !state.is_over {
            state.arrived.insert(delivery, arrived);
        }
    }

    /// Registers that the stream waits for memory. Returns `false` if it need not, because the
    /// consumer is gone.
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
    /// Removes and returns the facts of the delivery with this channel and tag.
    pub(in crate::broker) fn take(&self, channel: u16, tag: u64) -> Arrived {
        self.0
            .state()
            .arrived
            .remove(&(channel, tag))
            .unwrap_or_default()
    }

    /// Returns whether the stream waits for memory.
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
