//! Sanitizes the bytes of a connection before the driver reads them. It repairs the text of
//! producers: the driver's parser closes the whole connection on text that is not UTF-8, which
//! AMQP allows, and recurses into nested tables without a limit, which can overflow its stack. One
//! such message, delivered again and again, would stop its lane. It also limits the memory of
//! deliveries: the driver buffers whatever is announced, as much as the prefetch allows.
//!
//! In texts, bytes that are not UTF-8 become NUL, which intake refuses wherever the text matters.
//! A table or list nested deeper than JSON may be becomes plain bytes ([`fields`]). A body over
//! the limit is counted and discarded while it arrives, and a header table over its limit is
//! truncated; both are recorded under the delivery's tag ([`frames`]). A delivery for which there
//! is no memory waits in the socket ([`inbound`]), and everything behind it on this connection
//! waits too; the driver gets heartbeats meanwhile.

mod fields;
mod frames;
#[cfg(test)]
mod fuzz;
mod inbound;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSemaphore;

use frames::{Frames, HEARTBEAT_FRAME};
pub use inbound::ByteBudget;
pub(super) use inbound::{Arrived, Charge, Inbound, Taker};

const CHUNK: usize = 64 << 10;
/// The interval of heartbeats to the driver, shorter than any time after which it misses one.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);

/// A stream from the broker, repaired and limited as it is read.
pub(super) struct Sanitized<S> {
    inner: S,
    frames: Frames,
    /// Bytes read from the stream; `unprocessed` is the range that has not been parsed.
    chunk: Box<[u8]>,
    unprocessed: std::ops::Range<usize>,
    /// Bytes that can be passed on; the first `passed_on` of them have been.
    sanitized: Vec<u8>,
    passed_on: usize,
    /// The inner stream's end.
    end: Option<io::Result<()>>,
    memory: Option<Memory>,
}

/// The memory that a consuming connection waits for before a delivery.
struct Memory {
    inbound: Arc<Inbound>,
    gate: PollSemaphore,
    /// Time of the next heartbeat to the driver while it waits.
    heartbeat: Pin<Box<Sleep>>,
}

impl<S> Sanitized<S> {
    /// Wraps the stream of a connection, which consumes if `inbound` is given. Requires a runtime.
    pub(super) fn new(inner: S, inbound: Option<Arc<Inbound>>) -> Self {
        let memory = inbound.as_ref().map(|inbound| Memory {
            gate: inbound.gate(),
            inbound: Arc::clone(inbound),
            heartbeat: Box::pin(tokio::time::sleep(HEARTBEAT_EVERY)),
        });
        let (frames, chunk) = (Frames::new(inbound), vec![0; CHUNK].into());
        Self {
            inner,
            frames,
            chunk,
            unprocessed: 0..0,
            sanitized: Vec::new(),
            passed_on: 0,
            end: None,
            memory,
        }
    }

    /// Is ready when there is no held delivery, when it is admitted, or when there is something to
    /// pass on meanwhile.
    fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(weight), Some(memory)) = (self.frames.held(), &mut self.memory) else {
            return Poll::Ready(());
        };
        // The waker is registered first, so that a consumer that ends now wakes this reader.
        if !memory.inbound.waits(cx.waker()) {
            // A new gate leaves the queue of the semaphore, so that others get the memory.
            memory.gate = memory.inbound.gate();
            self.frames.refuse(&mut self.sanitized);
            return Poll::Ready(());
        }
        if let Poll::Ready(permit) = memory.gate.poll_acquire_many(cx, weight) {
            memory.inbound.goes_on();
            let permit = permit.expect("the semaphore is never closed");
            self.frames.admit(Charge::of(permit), &mut self.sanitized);
            return Poll::Ready(());
        }
        ready!(memory.heartbeat.as_mut().poll(cx));
        memory
            .heartbeat
            .as_mut()
            .reset(Instant::now() + HEARTBEAT_EVERY);
        self.sanitized.extend_from_slice(&HEARTBEAT_FRAME);
        Poll::Ready(())
    }

    /// Processes the bytes read so far, as far as possible.
    fn take_in(&mut self) {
        match self
            .frames
            .feed(&self.chunk[self.unprocessed.clone()], &mut self.sanitized)
        {
            Ok(taken) => self.unprocessed.start += taken,
            Err(error) => (self.unprocessed, self.end) = (0..0, Some(Err(error))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sanitized<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.passed_on == this.sanitized.len() {
            this.sanitized.clear();
            this.sanitized.shrink_to(CHUNK);
            this.passed_on = 0;
            ready!(this.poll_memory(cx));
            if !this.unprocessed.is_empty() {
                this.take_in();
            } else if !this.sanitized.is_empty() {
                break;
            } else if let Some(end) = &mut this.end {
                return Poll::Ready(std::mem::replace(end, Ok(())));
            } else {
                let mut read = ReadBuf::new(&mut this.chunk);
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
                this.unprocessed = 0..read.filled().len();
                if this.unprocessed.is_empty() {
                    this.end = Some(Ok(()));
                    this.sanitized = this.frames.rest();
                }
            }
        }
        let ready = &this.sanitized[this.passed_on..];
        let taken = ready.len().min(buffer.remaining());
        buffer.put_slice(&ready[..taken]);
        this.passed_on += taken;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sanitized<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
