//! A stream to Postgres that fails if an answer is owed and no bytes arrive for too long.
//!
//! **Invariant:** a pooled connection on which Postgres owes an answer and sends nothing for 9 s
//! fails with every statement on it; a connection on which nothing is owed has no limit.
//!
//! Postgres' own limits are shorter, so a healthy server always answers in time. Owed answers are
//! counted: Postgres owes one `ReadyForQuery` for each `Query` and each `Sync` that was sent.
//! Counting bytes is not enough: the answer to a statement whose caller has given up may arrive
//! while the next statement waits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::frames::Frames;

/// `Query` and `Sync`: Postgres answers each with one [`ANSWERED`].
const ASKS: &[u8] = b"QS";
/// `ReadyForQuery`.
const ANSWERED: &[u8] = b"Z";

/// State shared between the streams of one connection and the code that opened it.
#[derive(Debug)]
pub(super) struct Watch {
    /// The longest silence while an answer is owed; `None` for no limit.
    limit: Option<Duration>,
    /// Set once the session is established. Before that, messages have another format, and
    /// connecting has a timeout of its own.
    is_on: AtomicBool,
    /// Called with the address when the limit is reached.
    on_silence: fn(&str),
    address: String,
}

impl Watch {
    pub(super) fn new(limit: Option<Duration>, address: String, on_silence: fn(&str)) -> Arc<Self> {
        Arc::new(Self {
            limit,
            is_on: AtomicBool::new(false),
            on_silence,
            address,
        })
    }

    /// Starts to measure silence.
    pub(super) fn begin(&self) {
        self.is_on.store(true, Ordering::Relaxed);
    }
}

/// A stream with a limit on its silence.
pub(super) struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
    asks: Frames,
    answers: Frames,
    /// Number of answers that Postgres owes.
    owed: usize,
    /// Whether the stream does not accept bytes that are to be sent.
    is_stuck: bool,
    /// When the limit is reached, while silence is measured.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, watch: Arc<Watch>) -> Self {
        let (asks, answers) = (Frames::default(), Frames::default());
        Self {
            stream,
            watch,
            asks,
            answers,
            owed: 0,
            is_stuck: false,
            end: None,
        }
    }

    /// Returns the inner stream, for a layer between it and the messages.
    pub(super) fn into_parts(self) -> (S, Arc<Watch>) {
        (self.stream, self.watch)
    }

    fn limit(&self) -> Option<Duration> {
        self.watch
            .limit
            .filter(|_| self.watch.is_on.load(Ordering::Relaxed))
    }

    /// Returns the limit if the silence has reached it. Otherwise the task that polls is woken
    /// when it does.
    fn is_over(&mut self, context: &mut Context<'_>) -> Option<Duration> {
        let Some(limit) = self.limit().filter(|_| self.owed > 0 || self.is_stuck) else {
            self.end = None;
            return None;
        };
        let end = self
            .end
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        end.as_mut().poll(context).is_ready().then_some(limit)
    }

    /// Returns an error if the silence has reached the limit; called after an operation that could
    /// do nothing.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let Some(limit) = self.is_over(context) else {
            return Poll::Pending;
        };
        (self.watch.on_silence)(&self.watch.address);
        let text = format!(
            "{} owes an answer and has sent nothing for {limit:?}",
            self.watch.address
        );
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }

    /// Handles the outcome of sending. Sending that succeeds does not fail for the silence: an
    /// answer may have arrived and not been read yet.
    fn sent<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.is_stuck = outcome.is_pending();
        if self.is_stuck {
            return self.wait(context);
        }
        self.is_over(context);
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        // Available bytes are read first: this process may have been suspended, and not Postgres.
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) else {
            return self.wait(context);
        };
        read?;
        if self.limit().is_some() {
            let answered = self.answers.count(&buffer.filled()[before..], ANSWERED);
            self.owed = self.owed.saturating_sub(answered);
            self.end = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let (Poll::Ready(Ok(taken)), Some(_)) = (&outcome, self.limit()) {
            let asked = self.asks.count(&bytes[..*taken], ASKS);
            // Sending more does not prolong the silence while an answer is owed already.
            if self.owed == 0 {
                self.end = None;
            }
            self.owed += asked;
        }
        self.sent(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.sent(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.sent(context, outcome)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Watched<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// Adds TLS below the watched stream, so that the stream sees the messages in plain text.
pub(super) struct WatchedTls<C>(pub(super) C);

impl<S, C> TlsConnect<Watched<S>> for WatchedTls<C>
where
    C: TlsConnect<S>,
    C::Future: Send + 'static,
{
    type Stream = Watched<C::Stream>;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, Self::Error>>;

    fn connect(self, stream: Watched<S>) -> Self::Future {
        let (stream, watch) = stream.into_parts();
        let encrypted = self.0.connect(stream);
        Box::pin(async move { Ok(Watched::new(encrypted.await?, watch)) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);
    const SYNC: &[u8] = b"S\0\0\0\x04";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    const NOTICE: &[u8] = b"N\0\0\0\x05\0";
    /// Shorter than the limit; twice this is longer.
    const A_WHILE: Duration = Duration::from_millis(60);

    /// Returns a watched stream and the other end of its connection.
    fn pair(on_silence: fn(&str)) -> (Watched<DuplexStream>, DuplexStream) {
        let (here, there) = duplex(64);
        let watch = Watch::new(Some(LIMIT), "db.test:5432".to_owned(), on_silence);
        watch.begin();
        (Watched::new(here, watch), there)
    }

    fn ignore(_: &str) {}

    #[tokio::test]
    async fn an_answer_that_is_owed_and_does_not_come_ends_the_stream() {
        static SILENT: AtomicU32 = AtomicU32::new(0);
        let (mut stream, _there) = pair(|address| {
            assert_eq!(address, "db.test:5432");
            SILENT.fetch_add(1, Ordering::Relaxed);
        });
        stream.write_all(SYNC).await.unwrap();
        let begun = Instant::now();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(
            error.to_string().contains("db.test:5432 owes an answer") && begun.elapsed() >= LIMIT,
            "{error}"
        );
        assert_eq!(SILENT.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_reader_that_waits_already_is_woken_by_the_limit_of_what_is_sent_afterwards() {
        let (stream, _there) = pair(ignore);
        let (mut reads, mut writes) = tokio::io::split(stream);
        let late = async {
            tokio::time::sleep(LIMIT * 2).await;
            writes.write_all(SYNC).await.unwrap();
        };
        let begun = Instant::now();
        let (read, ()) = tokio::join!(reads.read_u8(), late);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(
            begun.elapsed() >= LIMIT * 3,
            "nothing was owed at first: {:?}",
            begun.elapsed()
        );
    }

    #[tokio::test]
    async fn each_question_is_owed_its_own_answer() {
        let (mut stream, mut there) = pair(ignore);
        stream
            .write_all(&[SYNC, b"Q\0\0\0\x05\0"].concat())
            .await
            .unwrap();
        there.write_all(READY).await.unwrap();
        stream.read_exact(&mut [0; 6]).await.unwrap();
        assert_eq!(
            stream.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::TimedOut,
            "the second is not answered"
        );
    }

    #[tokio::test]
    async fn a_server_that_sends_something_is_not_silent_and_one_that_owes_nothing_may_be() {
        let (mut stream, mut there) = pair(ignore);
        stream.write_all(SYNC).await.unwrap();
        for bytes in [NOTICE, NOTICE, READY] {
            tokio::time::sleep(A_WHILE).await;
            there.write_all(bytes).await.unwrap();
            stream.read_exact(&mut [0; 6]).await.unwrap();
        }
        // Postgres does not answer Terminate.
        stream.write_all(b"X\0\0\0\x04").await.unwrap();
        assert!(
            tokio::time::timeout(LIMIT * 3, stream.read_u8())
                .await
                .is_err(),
            "it waits"
        );
    }

    #[tokio::test]
    async fn sending_more_prolongs_no_silence() {
        let (mut stream, _there) = pair(ignore);
        for _ in 0..5 {
            stream.write_all(SYNC).await.unwrap();
            if tokio::time::timeout(A_WHILE, stream.read_u8())
                .await
                .is_ok()
            {
                return;
            }
        }
        panic!("it never fails");
    }

    #[tokio::test]
    async fn an_answer_that_is_there_is_read_however_late() {
        let (mut stream, mut there) = pair(ignore);
        stream.write_all(SYNC).await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(1), stream.read_u8())
                .await
                .is_err()
        );
        there.write_all(READY).await.unwrap();
        // This process is suspended and reads before it looks at its clock.
        std::thread::sleep(LIMIT * 2);
        stream.flush().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'Z');
    }

    #[tokio::test]
    async fn bytes_that_are_not_taken_are_as_bad_as_no_answer() {
        let (mut stream, _there) = pair(ignore);
        let bind = [b"B\0\0\x03\xe8".as_slice(), &[0; 996]].concat();
        assert_eq!(
            stream.write_all(&bind).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    #[tokio::test]
    async fn without_a_limit_or_before_it_begins_nothing_is_measured() {
        for (limit, begins) in [(None, true), (Some(LIMIT), false)] {
            let (here, _there) = duplex(64);
            let watch = Watch::new(limit, "db.test:5432".to_owned(), ignore);
            if begins {
                watch.begin();
            }
            let mut stream = Watched::new(here, watch);
            stream.write_all(SYNC).await.unwrap();
            assert!(
                tokio::time::timeout(LIMIT * 2, stream.read_u8())
                    .await
                    .is_err()
            );
        }
    }
}
