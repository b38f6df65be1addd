//! Free loopback ports below the range from which the kernel picks clients' own ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

use rand::RngExt;

/// Where ports are looked for. Linux gives clients ports from 32768 up (`net.ipv4.ip_local_port_range`): a server's port
/// among them can be taken by somebody's outgoing connection while the server restarts.
const RANGE: Range<u16> = 20_000..32_000;

/// How many ports are tried before giving up.
const TRIES: usize = 200;

/// A TCP port of 127.0.0.1 that was free, kept from other callers of [`reserve`], in this process and in others, while
/// this value lives, also while nothing listens on it.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// The UDP port of the same number, bound: a lock that the kernel drops with the process.
    _lock: UdpSocket,
}

impl Port {
    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Finds a port on which nobody listens.
///
/// # Errors
/// The last refusal, where 200 random ports were all taken.
pub fn reserve() -> io::Result<Port> {
    let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        match lock(rand::rng().random_range(RANGE)) {
            Ok(port) => return Ok(port),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn lock(number: u16) -> io::Result<Port> {
    let lock = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))?;
    // A server may listen on all addresses, which a bind to loopback alone does not always notice.
    drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, number))?);
    drop(TcpListener::bind((Ipv4Addr::LOCALHOST, number))?);
    Ok(Port { number, _lock: lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_free_for_a_server_and_closed_to_others() {
        let port = reserve().unwrap();
        assert!(RANGE.contains(&port.number()));
        assert!(lock(port.number()).is_err());
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        let number = port.number();
        drop(port);
        assert!(lock(number).is_err(), "somebody listens");
        drop(server);
        lock(number).unwrap();
    }
}
