//! The driver's transport: TCP, TLS if the link requires it, and the sanitizing of incoming bytes.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{Stream, TryFutureExt};
use lapin::uri::{AMQPAuthority, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::either::Either;

use super::sanitize::{Inbound, Sanitized};

type Link = Compat<Sanitized<Either<TlsStream<TcpStream>, TcpStream>>>;

/// The driver's own reactor, except for its TCP streams.
#[derive(Debug, Clone)]
struct Links(Tokio);

impl Reactor for Links {
    type TcpStream = Link;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Link>> + Send + 'static {
        TcpStream::connect(address).map_ok(|tcp| sanitized(Either::Right(tcp), None))
    }
}

/// Connects to `uri`, over TLS if `tls` is given. The connection consumes if `inbound` is given.
pub(super) async fn connect(
    uri: AMQPUri,
    tls: Option<TlsConnector>,
    properties: ConnectionProperties,
    inbound: Option<Arc<Inbound>>,
) -> lapin::Result<Connection> {
    let runtime = Runtime::new(RuntimeParts::new(Tokio::current(), Links(Tokio::current())));
    let open = async move |uri: AMQPUri, _| {
        Ok(AsyncTcpStream::Plain(
            link(&uri.authority, tls.as_ref(), inbound.clone()).await?,
        ))
    };
    Connection::connector(uri, runtime, open, properties).await
}

async fn link(
    authority: &AMQPAuthority,
    tls: Option<&TlsConnector>,
    inbound: Option<Arc<Inbound>>,
) -> io::Result<Link> {
    let tcp = TcpStream::connect((authority.host.as_str(), authority.port)).await?;
    // Acks and confirms are small and latency-sensitive.
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(sanitized(Either::Right(tcp), inbound));
    };
    let name = ServerName::try_from(authority.host.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(sanitized(
        Either::Left(tls.connect(name, tcp).await?),
        inbound,
    ))
}

fn sanitized(way: Either<TlsStream<TcpStream>, TcpStream>, inbound: Option<Arc<Inbound>>) -> Link {
    Sanitized::new(way, inbound).compat()
}
