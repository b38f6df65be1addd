//! The connection to a mail server until TLS begins (RFC 3207).
//!
//! Bytes before TLS can come from anyone on the network. The driver reads ahead and keeps the
//! bytes across the upgrade, so it would accept a reply injected in plaintext as one of the
//! server's (the flaw of many clients, CVE-2011-0411 and similar). Therefore the driver gets one
//! line at a time, and any further byte that is present when the client sends ends the connection.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// The most bytes that are received and not yet passed on; further bytes stay in the system's
/// buffer.
const UNREAD_BYTES: usize = 1024;
/// The first byte of a TLS handshake (RFC 8446 §5.1), which no command of SMTP begins with.
const HANDSHAKE: u8 = 22;

/// Bytes that arrived before a command that they could answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected nothing before the next command or TLS, got at least {0} unsolicited bytes; use smtps://, which is encrypted from \
         its first byte"
)]
pub(super) struct Unasked(usize);

impl Unasked {
    /// Returns whether unsolicited bytes are among the causes of an error.
    pub(super) fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
        std::iter::successors(Some(error), |&error| error.source()).any(|one| {
            one.downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
                .is_some_and(|inner| inner.is::<Self>())
        })
    }
}

/// A connection in lockstep. Passes on one line of plaintext at a time, and refuses to send while
/// further bytes are present. From the first byte of a TLS handshake on, passes everything
/// through.
#[derive(Debug)]
pub(super) struct Lockstep<S> {
    stream: S,
    /// Received but not yet passed on; at most [`UNREAD_BYTES`].
    unread: Vec<u8>,
    is_through: bool,
}

/// Connects to the first address of a host that answers within a time.
///
/// # Errors
/// The error of the last address.
pub(super) async fn connect(
    server: (&str, u16),
    within: Duration,
) -> io::Result<Lockstep<TcpStream>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(server).await? {
        match timeout(within, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                return Ok(Lockstep {
                    stream,
                    unread: Vec::new(),
                    is_through: false,
                });
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

impl<S: AsyncRead + Unpin> Lockstep<S> {
    /// Reads the available bytes, up to a total of [`UNREAD_BYTES`]. Returns how many were read.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0; UNREAD_BYTES];
        let mut read = ReadBuf::new(&mut space[self.unread.len()..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.unread.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Checks that no byte is present that was not passed on.
    fn nothing_unasked(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.unread.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_fill(cx)
        {
            return Err(error);
        }
        match self.unread.len() {
            0 => Ok(()),
            bytes => Err(io::Error::new(io::ErrorKind::InvalidData, Unasked(bytes))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lockstep<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_through {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        if this.unread.is_empty() && ready!(this.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let line = this
            .unread
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(this.unread.len(), |end| end + 1);
        let handed: Vec<u8> = this.unread.drain(..line.min(buffer.remaining())).collect();
        buffer.put_slice(&handed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lockstep<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !this.is_through {
            this.nothing_unasked(cx)?;
            this.is_through = bytes.first() == Some(&HANDSHAKE);
        }
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Lockstep<TcpStream> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn pair() -> (Lockstep<DuplexStream>, DuplexStream) {
        let (stream, server) = duplex(1 << 14);
        (
            Lockstep {
                stream,
                unread: Vec::new(),
                is_through: false,
            },
            server,
        )
    }

    async fn read(from: &mut Lockstep<DuplexStream>) -> String {
        let mut bytes = [0; 64];
        let length = from.read(&mut bytes).await.unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_multiline_reply_is_passed_on_line_by_line_and_a_command_may_follow() {
        let (mut client, mut server) = pair();
        server.write_all(b"250-one\r\n250 two\r\n").await.unwrap();
        assert_eq!(
            (
                read(&mut client).await.as_str(),
                read(&mut client).await.as_str()
            ),
            ("250-one\r\n", "250 two\r\n")
        );
        client.write_all(b"STARTTLS\r\n").await.unwrap();
        server.write_all(b"220 go").await.unwrap();
        assert_eq!(
            read(&mut client).await,
            "220 go",
            "a line may arrive in pieces"
        );
        server.write_all(b" on\r\n").await.unwrap();
        assert_eq!(read(&mut client).await, " on\r\n");
        client.write_all(&[HANDSHAKE, 3, 1]).await.unwrap();
        server.write_all(b"\x16\n\x03").await.unwrap();
        assert_eq!(
            read(&mut client).await,
            "\x16\n\x03",
            "TLS records are not split into lines"
        );
        client.write_all(&[HANDSHAKE]).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_sent_while_unsolicited_bytes_are_present() {
        for unasked in [&b"250 "[..], b"250 fine\r\n", &[b'2'; 5000]] {
            for at_once in [true, false] {
                let (mut client, mut server) = pair();
                server.write_all(b"220 go on\r\n").await.unwrap();
                if at_once {
                    server.write_all(unasked).await.unwrap();
                }
                assert_eq!(read(&mut client).await, "220 go on\r\n");
                if !at_once {
                    server.write_all(unasked).await.unwrap();
                }
                let error = client.write_all(&[HANDSHAKE, 3, 1]).await.unwrap_err();
                assert!(
                    Unasked::is_cause_of(&error) && error.to_string().contains("use smtps://"),
                    "{error}"
                );
                assert!(
                    client.unread.len() <= UNREAD_BYTES
                        && client.write_all(b"QUIT\r\n").await.is_err(),
                    "it stays refused"
                );
            }
        }
    }
}
