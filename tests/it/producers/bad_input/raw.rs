//! A minimal AMQP 0-9-1 publisher for messages that no driver sends: properties may contain any
//! bytes.

use dispatch_worker::broker::Outgoing;
use reqwest::Url;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestWorld;

/// The class and method of `basic.ack`, with which the broker confirms a message.
const ACK: [u8; 4] = [0, 60, 0, 80];

/// Properties that replace those of an [`Outgoing`].
#[derive(Default)]
pub(super) struct Raw {
    /// Replaces the routing key of the message.
    routing_key: Option<&'static [u8]>,
    content_type: Option<&'static [u8]>,
    content_encoding: Option<&'static [u8]>,
    headers: Option<Vec<u8>>,
    correlation_id: Option<&'static [u8]>,
    reply_to: Option<&'static [u8]>,
    message_id: Option<&'static [u8]>,
    kind: Option<&'static [u8]>,
    app_id: Option<&'static [u8]>,
}

impl Raw {
    pub(super) fn json() -> Self {
        Self::default().content_type(b"application/json")
    }

    pub(super) fn routing_key(self, key: &'static [u8]) -> Self {
        Self {
            routing_key: Some(key),
            ..self
        }
    }

    pub(super) fn content_type(self, text: &'static [u8]) -> Self {
        Self {
            content_type: Some(text),
            ..self
        }
    }

    pub(super) fn content_encoding(self, text: &'static [u8]) -> Self {
        Self {
            content_encoding: Some(text),
            ..self
        }
    }

    pub(super) fn message_id(self, text: &'static [u8]) -> Self {
        Self {
            message_id: Some(text),
            ..self
        }
    }

    /// Sets every text property that the broker does not check.
    pub(super) fn everywhere(self, text: &'static [u8]) -> Self {
        let text = Some(text);
        Self {
            correlation_id: text,
            reply_to: text,
            message_id: text,
            kind: text,
            app_id: text,
            ..self
        }
    }

    /// Sets a header table with one long text.
    pub(super) fn header(self, name: &[u8], length: usize) -> Self {
        let headers = [&short(name)[..], b"S", &long(&vec![b'x'; length])].concat();
        Self {
            headers: Some(headers),
            ..self
        }
    }

    /// Sets a header table that is nested `depth` levels deep.
    pub(super) fn nested(self, depth: usize) -> Self {
        let headers = (0..depth).fold(Vec::new(), |inner, _| {
            [&short(b"a")[..], b"F", &long(&inner)].concat()
        });
        Self {
            headers: Some(headers),
            ..self
        }
    }

    /// Encodes the property flags and the properties, with delivery mode persistent.
    fn properties(&self, user: &str) -> Vec<u8> {
        let (mut present, mut bytes) = (0_u16, Vec::new());
        let mut add = |bit: u16, property: Option<Vec<u8>>| {
            let Some(property) = property else { return };
            present |= 1 << bit;
            bytes.extend(property);
        };
        add(15, self.content_type.map(short));
        add(14, self.content_encoding.map(short));
        add(13, self.headers.as_deref().map(long));
        add(12, Some(vec![2]));
        add(10, self.correlation_id.map(short));
        add(9, self.reply_to.map(short));
        add(7, self.message_id.map(short));
        add(5, self.kind.map(short));
        add(4, Some(short(user.as_bytes())));
        add(3, self.app_id.map(short));
        [&present.to_be_bytes()[..], &bytes].concat()
    }
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short text")], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(bytes.len()).expect("it fits").to_be_bytes(),
        bytes,
    ]
    .concat()
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, channel][..], &long(payload), &[0xce]].concat()
}

fn method(channel: u8, id: [u8; 4], arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&id[..], arguments].concat())
}

/// Publishes a message with these properties and waits for the confirm.
pub(super) async fn publish(world: &TestWorld, message: &Outgoing, raw: &Raw) {
    let url = Url::parse(world.amqp_url.expose_secret()).expect("a URL");
    let (host, port) = (url.host_str().expect("a host"), url.port().unwrap_or(5672));
    let mut link = Link(
        TcpStream::connect((host, port))
            .await
            .expect("RabbitMQ listens"),
    );
    let vhost = percent_decoded(url.path().trim_start_matches('/'));
    let login = format!(
        "\0{}\0{}",
        percent_decoded(url.username()),
        percent_decoded(url.password().unwrap_or_default())
    );
    link.send(b"AMQP\x00\x00\x09\x01").await;
    link.expect([0, 10, 0, 10]).await;
    let start = [
        &long(b"")[..],
        &short(b"PLAIN"),
        &long(login.as_bytes()),
        &short(b"en_US"),
    ]
    .concat();
    link.send(&method(0, [0, 10, 0, 11], &start)).await;
    let tune = link.expect([0, 10, 0, 30]).await;
    // The limits that the broker offers, without heartbeats.
    link.send(&method(0, [0, 10, 0, 31], &[&tune[..6], &[0, 0]].concat()))
        .await;
    link.send(&method(
        0,
        [0, 10, 0, 40],
        &[&short(vhost.as_bytes())[..], &[0, 0]].concat(),
    ))
    .await;
    link.expect([0, 10, 0, 41]).await;
    link.send(&method(1, [0, 20, 0, 10], &[0])).await;
    link.expect([0, 20, 0, 11]).await;
    link.send(&method(1, [0, 85, 0, 10], &[0])).await;
    link.expect([0, 85, 0, 11]).await;
    let key = raw.routing_key.unwrap_or(message.routing_key.as_bytes());
    let to = [
        &[0, 0][..],
        &short(message.exchange.as_bytes()),
        &short(key),
        &[1],
    ]
    .concat();
    link.send(&method(1, [0, 60, 0, 40], &to)).await;
    let size = (message.body.len() as u64).to_be_bytes();
    link.send(&frame(
        2,
        1,
        &[
            &[0, 60, 0, 0],
            &size[..],
            &raw.properties(&percent_decoded(url.username())),
        ]
        .concat(),
    ))
    .await;
    link.send(&frame(3, 1, &message.body)).await;
    link.expect(ACK).await;
}

struct Link(TcpStream);

impl Link {
    async fn send(&mut self, bytes: &[u8]) {
        self.0
            .write_all(bytes)
            .await
            .expect("RabbitMQ accepts the bytes");
    }

    /// Reads the next method, which must be `id`, and returns its arguments.
    async fn expect(&mut self, id: [u8; 4]) -> Vec<u8> {
        let mut head = [0; 7];
        self.0
            .read_exact(&mut head)
            .await
            .expect("RabbitMQ answers");
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; size as usize + 1];
        self.0
            .read_exact(&mut payload)
            .await
            .expect("a whole frame");
        let answer = String::from_utf8_lossy(&payload).into_owned();
        assert!(
            head[0] == 1 && payload.starts_with(&id),
            "unexpected answer of RabbitMQ: {answer:?}"
        );
        payload[4..].to_vec()
    }
}

fn percent_decoded(text: &str) -> String {
    let url = Url::parse(&format!("http://x/?{text}")).expect("a query");
    url.query_pairs()
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}
