//! Minimal peers that go no further than the TLS handshake of a protocol, and certificate
//! authorities for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// `SSLRequest`: a length of 8, and the code 80877103 (PostgreSQL documentation, "Message
/// Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The protocol header (AMQP 0-9-1, 4.2.2).
const AMQP_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The greeting (RFC 5321, 4.2).
const SMTP_GREETING: &[u8] = b"220 ready\r\n";
/// Replies to EHLO, AUTH, MAIL, RCPT, DATA, the content and QUIT.
const INJECTED: &[u8] =
    b"250-mine\r\n250 AUTH PLAIN LOGIN\r\n235 in\r\n250 fine\r\n250 fine\r\n354 go on\r\n250 taken\r\n221 bye\r\n";
/// The years of a valid certificate.
pub(super) const GOOD: [i32; 2] = [2020, 2100];
/// The years of an expired certificate.
pub(super) const OVER: [i32; 2] = [2001, 2002];

/// A certificate authority.
pub(super) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // A unique name, or two authorities would differ only in their signatures.
        params
            .distinguished_name
            .push(DnType::CommonName, uuid::Uuid::now_v7().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = years(GOOD);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Issues a certificate for these names or addresses.
    pub(super) fn issue(&self, names: &[&str], good: [i32; 2]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = years(good);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity {
            certificate,
            key: key.serialize_pem(),
        }
    }

    /// Writes the authority's certificate to a file in `folder`.
    pub(super) fn file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("authority.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }
}

fn years([from, until]: [i32; 2]) -> (time::OffsetDateTime, time::OffsetDateTime) {
    (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1))
}

/// The protocol before the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Postgres,
    Amqp,
    /// TLS from the start.
    Smtps,
    /// TLS after STARTTLS; a peer without an identity does not offer STARTTLS.
    Smtp,
    /// As `Smtp`, but the packet with the reply to STARTTLS also contains replies to all later
    /// commands, as an attacker on the network may add them. Under TLS the peer answers nothing.
    InjectedSmtp,
}

/// A server that accepts one connection.
pub(super) struct Peer {
    listener: TcpListener,
    pub(super) port: u16,
    protocol: Protocol,
    identity: Option<Identity>,
}

/// The outcome of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The client completed the handshake and trusts the peer.
    Trusted,
    /// The client did not complete the handshake.
    Refused,
    /// The peer had no TLS; the bytes that the client sent nevertheless.
    Plaintext(Vec<u8>),
}

impl Peer {
    /// Creates a peer; without an identity it has no TLS.
    pub(super) async fn new(protocol: Protocol, identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            listener,
            port,
            protocol,
            identity,
        }
    }

    pub(super) async fn serve(self) -> Seen {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        match self.protocol {
            Protocol::Postgres => {
                let mut asked = [0; 8];
                stream.read_exact(&mut asked).await.unwrap();
                assert_eq!(asked, SSL_REQUEST);
                stream
                    .write_all(if self.identity.is_some() { b"S" } else { b"N" })
                    .await
                    .unwrap();
            }
            Protocol::Smtp => greet(&mut stream, self.identity.is_some(), b"").await,
            Protocol::InjectedSmtp => greet(&mut stream, true, INJECTED).await,
            Protocol::Amqp | Protocol::Smtps => {}
        }
        match self.identity {
            Some(identity) => shake_hands(stream, &identity, self.protocol).await,
            None => decline(stream, self.protocol).await,
        }
    }
}

/// Speaks SMTP up to the reply to STARTTLS (RFC 3207), or to EHLO if it is not offered; appends
/// `injected` to the reply.
async fn greet(stream: &mut TcpStream, offers_tls: bool, injected: &[u8]) {
    stream.write_all(SMTP_GREETING).await.unwrap();
    // The client sends nothing before it has the reply, so the buffer contains no byte of the
    // handshake.
    let mut lines = BufReader::new(stream).lines();
    assert!(
        lines
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .starts_with("EHLO")
    );
    let replies: &[u8] = if offers_tls {
        b"250-hello\r\n250 STARTTLS\r\n"
    } else {
        b"250-hello\r\n250 AUTH PLAIN LOGIN\r\n"
    };
    lines.get_mut().write_all(replies).await.unwrap();
    if offers_tls {
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "STARTTLS");
        lines
            .get_mut()
            .write_all(&[b"220 go on\r\n", injected].concat())
            .await
            .unwrap();
    }
}

async fn shake_hands(stream: TcpStream, identity: &Identity, protocol: Protocol) -> Seen {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
        return Seen::Refused;
    };
    if protocol == Protocol::Smtps {
        // The client may have closed the connection.
        drop(stream.write_all(SMTP_GREETING).await);
    }
    // In TLS 1.3 the client verifies after the server's last handshake message; only later data
    // shows that it trusts the server.
    match stream.read(&mut [0; 64]).await {
        Ok(1..) => Seen::Trusted,
        Ok(0) | Err(_) => Seen::Refused,
    }
}

async fn decline(mut stream: TcpStream, protocol: Protocol) -> Seen {
    match protocol {
        Protocol::Amqp => stream.write_all(AMQP_HEADER).await.unwrap(),
        Protocol::Smtps => stream.write_all(SMTP_GREETING).await.unwrap(),
        Protocol::Postgres | Protocol::Smtp | Protocol::InjectedSmtp => {}
    }
    let mut said = Vec::new();
    // The connection may end with a reset; only the bytes before it count.
    drop(stream.read_to_end(&mut said).await);
    Seen::Plaintext(said)
}
