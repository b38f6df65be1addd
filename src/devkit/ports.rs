//! Free loopback ports below the range that the kernel uses for outgoing connections.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

use rand::RngExt;

/// The range of ports to try. Linux uses ports from 32768 up for clients
/// (`net.ipv4.ip_local_port_range`): an outgoing connection could take such a port while a server
/// restarts.
const RANGE: Range<u16> = 20_000..32_000;

/// The number of ports to try.
const TRIES: usize = 200;

/// A TCP port of 127.0.0.1 that was free. While this value lives, no other caller of [`reserve`]
/// gets it, in this process or in another, even if no program listens on it.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// The UDP port of the same number, bound as a lock that the kernel releases with the process.
    _lock: UdpSocket,
}

impl Port {
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Finds a port on which no program listens.
///
/// # Errors
/// The last error, if 200 random ports were all taken.
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
    // A server may listen on all addresses, which a bind to loopback does not always detect.
    drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, number))?);
    drop(TcpListener::bind((Ipv4Addr::LOCALHOST, number))?);
    Ok(Port {
        number,
        _lock: lock,
    })
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
