//! What lies between a connection's bytes and the driver. It makes what producers write legible: the driver's parser takes the
//! whole connection for broken where a text is not UTF-8, which AMQP allows, and follows tables as deep as they are nested, which may
//! be deeper than its stack: one such message, handed out again and again, would stop its lane. And it limits the memory that
//! deliveries take: the driver gathers whatever is announced, all that the prefetch lets come.
//!
//! In texts, bytes that are not UTF-8 become NUL, which intake refuses wherever a text counts; a table or list nested deeper than JSON
//! may be becomes plain bytes ([`fields`]). A body over the limit is counted and thrown away while it comes, and a header table over
//! its limit is cut; both are known by the delivery's tag ([`frames`]). A delivery that there is no memory for waits in the socket
//! ([`inbound`]), and with it all that comes behind it over this connection; the driver gets heartbeats meanwhile.

mod fields;
mod frames;
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
/// Shorter than the shortest time after which a driver misses heartbeats.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);

/// A stream from a broker, repaired and limited as it is read.
pub(super) struct Legible<S> {
    inner: S,
    frames: Frames,
    /// What has come, and which part of it is not taken yet.
    chunk: Box<[u8]>,
    came: std::ops::Range<usize>,
    /// What can be passed on, and how much of it has been.
    legible: Vec<u8>,
    given: usize,
    /// The inner stream's end.
    end: Option<io::Result<()>>,
    memory: Option<Memory>,
}

/// What a consuming connection waits for before a delivery.
struct Memory {
    inbound: Arc<Inbound>,
    gate: PollSemaphore,
    /// Until the next heartbeat that the driver gets while it waits.
    heartbeat: Pin<Box<Sleep>>,
}

impl<S> Legible<S> {
    /// Of a connection, which consumes where `inbound` is given. Within a runtime.
    pub(super) fn new(inner: S, inbound: Option<Arc<Inbound>>) -> Self {
        let memory = inbound.as_ref().map(|inbound| Memory {
            gate: inbound.gate(),
            inbound: Arc::clone(inbound),
            heartbeat: Box::pin(tokio::time::sleep(HEARTBEAT_EVERY)),
        });
        let (frames, chunk) = (Frames::new(inbound), vec![0; CHUNK].into());
        Self { inner, frames, chunk, came: 0..0, legible: Vec::new(), given: 0, end: None, memory }
    }

    /// Ready when the held delivery, if there is one, may go on, or when there is something to pass on meanwhile.
    fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(weight), Some(memory)) = (self.frames.held(), &mut self.memory) else { return Poll::Ready(()) };
        // Registered first: what ends meanwhile wakes this reader.
        if !memory.inbound.waits(cx.waker()) {
            // What it stood in line for is somebody else's.
            memory.gate = memory.inbound.gate();
            self.frames.refuse(&mut self.legible);
            return Poll::Ready(());
        }
        if let Poll::Ready(permit) = memory.gate.poll_acquire_many(cx, weight) {
            memory.inbound.goes_on();
            let permit = permit.expect("the semaphore is never closed");
            self.frames.admit(Charge::of(permit), &mut self.legible);
            return Poll::Ready(());
        }
        ready!(memory.heartbeat.as_mut().poll(cx));
        memory.heartbeat.as_mut().reset(Instant::now() + HEARTBEAT_EVERY);
        self.legible.extend_from_slice(&HEARTBEAT_FRAME);
        Poll::Ready(())
    }

    /// Takes what has come as far as it can be.
    fn take_in(&mut self) {
        match self.frames.feed(&self.chunk[self.came.clone()], &mut self.legible) {
            Ok(taken) => self.came.start += taken,
            Err(error) => (self.came, self.end) = (0..0, Some(Err(error))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Legible<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.given == this.legible.len() {
            this.legible.clear();
            this.legible.shrink_to(CHUNK);
            this.given = 0;
            ready!(this.poll_memory(cx));
            if !this.came.is_empty() {
                this.take_in();
            } else if !this.legible.is_empty() {
                break;
            } else if let Some(end) = &mut this.end {
                return Poll::Ready(std::mem::replace(end, Ok(())));
            } else {
                let mut read = ReadBuf::new(&mut this.chunk);
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
                this.came = 0..read.filled().len();
                if this.came.is_empty() {
                    this.end = Some(Ok(()));
                    this.legible = this.frames.rest();
                }
            }
        }
        let ready = &this.legible[this.given..];
        let taken = ready.len().min(buffer.remaining());
        buffer.put_slice(&ready[..taken]);
        this.given += taken;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Legible<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
