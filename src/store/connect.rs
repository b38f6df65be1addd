//! Connections to Postgres. The addresses of the setting are tried in turn, each with a timeout,
//! until a server has the requested properties. The order and the meaning of the setting are those
//! of `tokio_postgres::Config::connect`, which has no timeout for a server that accepts the
//! connection and then sends nothing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::seq::SliceRandom;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use super::addresses;
use super::watched::{Watch, Watched, WatchedTls};

/// The time limit for one address, until a session is established.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

type Socket = Either<TcpStream, UnixStream>;
/// A client, and the future that drives its connection.
pub(super) type Connected = (Client, BoxFuture<'static, Result<(), Error>>);

/// The servers of Postgres and how to connect to them.
#[derive(Clone)]
pub(super) struct Servers {
    config: Config,
    tls: MakeRustlsConnect,
    hosts: Vec<Server>,
}

/// One host of the setting.
#[derive(Debug, Clone)]
struct Server {
    /// The address to connect to.
    at: Host,
    port: u16,
    /// The name that the certificate must contain.
    name: Option<String>,
    /// The address in the words of error messages.
    address: String,
}

impl Servers {
    /// # Errors
    /// A description of the mistake in the setting, if its hosts, addresses and ports do not
    /// match.
    pub(super) fn new(config: Config, tls: MakeRustlsConnect) -> Result<Self, &'static str> {
        let (names, literal, ports) = (
            config.get_hosts(),
            config.get_hostaddrs(),
            config.get_ports(),
        );
        let count = names.len().max(literal.len());
        if count == 0 {
            return Err("it names no host");
        }
        if !names.is_empty() && !literal.is_empty() && names.len() != literal.len() {
            return Err("`host` and `hostaddr` differ in number; use one address for each name");
        }
        if ports.len() > 1 && ports.len() != count {
            return Err("ports and hosts differ in number; use one port for all, or one for each");
        }
        let server = |number: usize| {
            let at = literal
                .get(number)
                .map(|address| Host::Tcp(address.to_string()));
            let at = at.or_else(|| names.get(number).cloned())?;
            let name = match names.get(number) {
                Some(Host::Tcp(name)) => Some(name.clone()),
                Some(Host::Unix(_)) | None => None,
            };
            let port = ports
                .get(number)
                .or_else(|| ports.first())
                .copied()
                .unwrap_or(5432);
            let address = match &at {
                Host::Tcp(host) if host.contains(':') => format!("[{host}]:{port}"),
                Host::Tcp(host) => format!("{host}:{port}"),
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            };
            Some(Server {
                at,
                port,
                name,
                address,
            })
        };
        let hosts = (0..count).filter_map(server).collect();
        Ok(Self { config, tls, hosts })
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the address of each host, in the words of error messages.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.hosts.iter().map(|host| host.address.clone()).collect()
    }

    /// Opens a session. The session fails if Postgres owes an answer and sends nothing for
    /// `silence`.
    ///
    /// # Errors
    /// The error of the only server, or of a server that answered; otherwise an error that names
    /// all servers.
    pub(super) async fn connect(&self, silence: Option<Duration>) -> Result<Connected, Error> {
        let mut hosts: Vec<&Server> = self.hosts.iter().collect();
        if self.is_shuffled() {
            hosts.shuffle(&mut rand::rng());
        }
        addresses::failed_last(&mut hosts, |host| &host.address);
        let mut errors = Vec::new();
        for host in hosts {
            match self.connect_to(host, silence).await {
                Ok(session) => {
                    addresses::works(&host.address);
                    return Ok(session);
                }
                Err(error) => {
                    addresses::refused(&host.address);
                    errors.push((host.address.as_str(), error));
                }
            }
        }
        Err(one_of(errors).await)
    }

    fn is_shuffled(&self) -> bool {
        self.config.get_load_balance_hosts() == LoadBalanceHosts::Random
    }

    /// Tries each address of one host in turn.
    async fn connect_to(
        &self,
        host: &Server,
        silence: Option<Duration>,
    ) -> Result<Connected, Error> {
        let name = match &host.at {
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{}", host.port));
                return self
                    .within(host, silence, async {
                        Ok(Either::Right(UnixStream::connect(path).await?))
                    })
                    .await;
            }
            Host::Tcp(name) => name.as_str(),
        };
        let found = async {
            Ok(tokio::net::lookup_host((name, host.port))
                .await?
                .collect::<Vec<_>>())
        };
        let mut found: Vec<SocketAddr> = match limited(found).await {
            Ok(found) => found,
            Err(error) => return Err(as_error(error).await),
        };
        if self.is_shuffled() {
            found.shuffle(&mut rand::rng());
        }
        let mut last = None;
        for address in found {
            match self.within(host, silence, self.open(address)).await {
                Ok(session) => return Ok(session),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => Err(as_error(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ))
            .await),
        }
    }

    async fn open(&self, address: SocketAddr) -> io::Result<Socket> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if let Some(limit) = self.config.get_tcp_user_timeout() {
            user_timeout(&stream, *limit)?;
        }
        if self.config.get_keepalives() {
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, self.config.get_keepalives_idle())?;
            if let Some(interval) = self.config.get_keepalives_interval() {
                sockopt::set_tcp_keepintvl(&stream, interval)?;
            }
            if let Some(retries) = self.config.get_keepalives_retries() {
                sockopt::set_tcp_keepcnt(&stream, retries)?;
            }
        }
        Ok(Either::Left(stream))
    }

    /// Opens a session over the socket that `open` returns, within [`CONNECT_TIMEOUT`] in all.
    async fn within(
        &self,
        host: &Server,
        silence: Option<Duration>,
        open: impl Future<Output = io::Result<Socket>>,
    ) -> Result<Connected, Error> {
        let session = async {
            let socket = match open.await {
                Ok(socket) => socket,
                Err(error) => return Ok(Err(as_error(error).await)),
            };
            Ok(Box::pin(self.session(
                socket,
                host,
                Watch::new(silence, host.address.clone(), addresses::silent),
            ))
            .await)
        };
        match limited(session).await {
            Ok(session) => session,
            Err(error) => Err(as_error(error).await),
        }
    }

    async fn session(
        &self,
        socket: Socket,
        host: &Server,
        watch: Arc<Watch>,
    ) -> Result<Connected, Error> {
        let name = host.name.as_deref().unwrap_or_default();
        let Ok(tls) = MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls.clone(), name);
        let stream = Watched::new(socket, Arc::clone(&watch));
        let (client, mut connection) = self.config.connect_raw(stream, WatchedTls(tls)).await?;
        watch.begin();
        if let Some(unwanted) = self.unwanted() {
            tokio::select! {
                answer = is_read_only(&client) => {
                    if answer? == unwanted {
                        let text = if unwanted { "the server is read-only" } else { "the server is not read-only" };
                        return Err(as_error(io::Error::new(io::ErrorKind::PermissionDenied, text)).await);
                    }
                }
                ended = &mut connection => {
                    ended?;
                    return Err(as_error(io::ErrorKind::UnexpectedEof.into()).await);
                }
            }
        }
        Ok((client, connection.boxed()))
    }

    /// Returns the value of `transaction_read_only` that is not acceptable.
    fn unwanted(&self) -> Option<bool> {
        match self.config.get_target_session_attrs() {
            TargetSessionAttrs::ReadWrite => Some(true),
            TargetSessionAttrs::ReadOnly => Some(false),
            // `Any`, and values that a later version of the driver may add.
            _ => None,
        }
    }
}

async fn is_read_only(client: &Client) -> Result<bool, Error> {
    let answer = client.simple_query("SHOW transaction_read_only").await?;
    let is_on = |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on"));
    Ok(answer.iter().any(is_on))
}

async fn limited<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let too_long = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no session within {} s", CONNECT_TIMEOUT.as_secs()),
        )
    };
    tokio::time::timeout(CONNECT_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(too_long()))
}

#[cfg(target_os = "linux")]
fn user_timeout(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, millis)?)
}

#[cfg(not(target_os = "linux"))]
fn user_timeout(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Returns one error for the errors of all servers.
async fn one_of(mut errors: Vec<(&str, Error)>) -> Error {
    // An error that a server sent is more useful than an error of the connection.
    if let Some(number) = errors.iter().position(|(_, error)| error.code().is_some()) {
        return errors.swap_remove(number).1;
    }
    if errors.len() == 1 {
        return errors.swap_remove(0).1;
    }
    let each: Vec<String> = errors
        .iter()
        .map(|(address, error)| format!("{address}: {}", crate::fault::chain(error)))
        .collect();
    as_error(io::Error::other(each.join("; "))).await
}

/// Converts `error` into an error of the driver. Only the driver can create its errors, so the
/// driver gets a stream that fails with `error`.
async fn as_error(error: io::Error) -> Error {
    let failed = Config::new()
        .user("nobody")
        .connect_raw(Failing(Some(error)), NoTls)
        .await;
    failed
        .err()
        .expect("a session begins with a byte that is sent")
}

/// A stream that fails at once.
struct Failing(Option<io::Error>);

impl Failing {
    fn fail<T>(&mut self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(self
            .0
            .take()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.fail()
    }
}

impl AsyncWrite for Failing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.fail()
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }
}
