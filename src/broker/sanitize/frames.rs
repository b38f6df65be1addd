//! Splits a stream of bytes into frames, repairs frames where needed, discards bodies that are too
//! large, and stops before a delivery for which there is no memory. Frames: AMQP 0-9-1, 2.3.5 and
//! 4.2.3; contents: 4.2.6.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::fields::{Fields, Headers, number};
use super::inbound::{Arrived, Charge, Inbound, weight};
use crate::message::{Discarded, MESSAGE_LIMIT};

/// Length of a frame's head: type, channel and size.
const HEAD: usize = 7;
/// The last byte of every frame.
const FRAME_END: u8 = 0xce;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// A heartbeat as a server sends it.
pub(super) const HEARTBEAT_FRAME: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];
/// Position of the body's size in a content header's payload.
const BODY_SIZE: std::ops::Range<usize> = 4..12;
/// The largest frame that is buffered for repair. RabbitMQ's frames have at most 128 KiB, but a
/// header table grows by what RabbitMQ adds.
const LARGEST: usize = 1 << 20;
/// The number of bytes kept of a discarded body, to identify its message.
pub(super) const BEGINNING: usize = 4 << 10;

/// Splits a stream of bytes into frames.
#[derive(Default)]
pub(super) struct Frames {
    state: State,
    /// The buffered part of a frame.
    frame: Vec<u8>,
    /// The content that is incomplete on each channel.
    contents: HashMap<u16, Content>,
    /// The accounting of deliveries, on a consuming connection.
    inbound: Option<Arc<Inbound>>,
}

#[derive(Debug)]
enum State {
    /// This many bytes are missing for the next decision.
    Gather(usize),
    /// This many bytes are passed on unchanged.
    Pass(usize),
    /// This many bytes, including the frame's last one, belong to a discarded body.
    Discard(u16, usize),
    /// The buffered frame is a delivery's content header, and there is no memory for its body yet.
    Held(Announced),
    /// The stream does not consist of AMQP frames.
    Lost,
}

impl Default for State {
    fn default() -> Self {
        Self::Gather(HEAD)
    }
}

/// A delivery whose content header has arrived.
#[derive(Debug, Clone, Copy)]
struct Announced {
    channel: u16,
    tag: u64,
    headers: Headers,
    body: u64,
    weight: u32,
}

/// What follows a method that carries content.
enum Content {
    /// The header of the delivery with this tag.
    Delivery(u64),
    /// This many bytes of a body.
    Body(u64),
    /// This many bytes of a body that is discarded.
    Discarded(u64, Box<Discarding>),
}

/// A body that is being discarded. Its header is held back, because with it the driver has the
/// whole message.
struct Discarding {
    delivery: Announced,
    charge: Option<Charge>,
    header: Vec<u8>,
    beginning: Vec<u8>,
    sha256: Sha256,
}

impl Frames {
    /// Creates the splitter of a connection, which consumes if `inbound` is given.
    pub(super) fn new(inbound: Option<Arc<Inbound>>) -> Self {
        Self {
            inbound,
            ..Self::default()
        }
    }

    /// Processes `input` and appends to `out` what can be passed on. Returns the number of bytes
    /// processed, which is less than all of them if a delivery is [held](Self::held).
    ///
    /// # Errors
    /// The peer breaks the order of contents; `out` has everything before that.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut rest = input;
        while !rest.is_empty() {
            let wanted = match self.state {
                State::Gather(missing) | State::Pass(missing) | State::Discard(_, missing) => {
                    missing
                }
                State::Held(_) => break,
                State::Lost => rest.len(),
            };
            let (part, after) = rest.split_at(wanted.min(rest.len()));
            rest = after;
            let is_all = part.len() == wanted;
            match self.state {
                State::Gather(missing) => {
                    self.frame.extend_from_slice(part);
                    self.state = if is_all {
                        self.gathered(out)?
                    } else {
                        State::Gather(missing - part.len())
                    };
                }
                State::Pass(missing) => {
                    out.extend_from_slice(part);
                    self.state = if is_all {
                        State::default()
                    } else {
                        State::Pass(missing - part.len())
                    };
                }
                State::Discard(channel, missing) => {
                    self.discard(channel, part, is_all, out)?;
                    self.state = if is_all {
                        State::default()
                    } else {
                        State::Discard(channel, missing - part.len())
                    };
                }
                State::Held(_) | State::Lost => out.extend_from_slice(part),
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Returns the memory that the held delivery takes, in bytes.
    pub(super) const fn held(&self) -> Option<u32> {
        match self.state {
            State::Held(Announced { weight, .. }) => Some(weight),
            State::Gather(_) | State::Pass(_) | State::Discard(..) | State::Lost => None,
        }
    }

    /// Admits the held delivery.
    pub(super) fn admit(&mut self, charge: Charge, out: &mut Vec<u8>) {
        if let State::Held(delivery) = std::mem::take(&mut self.state) {
            self.begin(delivery, Some(charge), out);
        }
    }

    /// Discards the held delivery's body, because its consumer is gone.
    pub(super) fn refuse(&mut self, out: &mut Vec<u8>) {
        if let State::Held(delivery) = std::mem::take(&mut self.state) {
            self.begin_discarding(delivery, None, out);
        }
    }

    /// Returns the buffered part of a frame when the stream has ended.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.frame)
    }

    /// Processes the buffer, which holds a frame's head or a whole frame.
    fn gathered(&mut self, out: &mut Vec<u8>) -> io::Result<State> {
        if self.frame.len() > HEAD {
            return self.whole(out);
        }
        let [kind, first, second, size @ ..] = &self.frame[..] else {
            return Ok(State::Lost);
        };
        let (kind, channel, size) = (*kind, u16::from_be_bytes([*first, *second]), number(size));
        // The payload is followed by one more byte, the frame end.
        let rest = usize::try_from(size)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        match kind {
            METHOD | CONTENT_HEADER if rest <= LARGEST => Ok(State::Gather(rest)),
            BODY => self.body(channel, size, rest, out),
            HEARTBEAT if rest <= LARGEST => {
                out.append(&mut self.frame);
                Ok(State::Pass(rest))
            }
            METHOD | CONTENT_HEADER | HEARTBEAT => Err(broken(&format!(
                "expected a frame of at most {LARGEST} bytes, got {rest}"
            ))),
            _ => {
                out.append(&mut self.frame);
                Ok(State::Lost)
            }
        }
    }

    /// Processes the head of a body frame.
    fn body(
        &mut self,
        channel: u16,
        size: u64,
        rest: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<State> {
        let left = match self.contents.get_mut(&channel) {
            Some(Content::Body(left) | Content::Discarded(left, _)) => left,
            Some(Content::Delivery(_)) | None => return Err(broken("expected no body, got one")),
        };
        *left = left
            .checked_sub(size)
            .ok_or_else(|| broken(&format!("expected {left} more bytes of a body, got {size}")))?;
        match self.contents.get(&channel) {
            Some(Content::Discarded(..)) => {
                self.frame.clear();
                return Ok(State::Discard(channel, rest));
            }
            Some(Content::Body(0)) => drop(self.contents.remove(&channel)),
            Some(Content::Body(_) | Content::Delivery(_)) | None => {}
        }
        out.append(&mut self.frame);
        Ok(State::Pass(rest))
    }

    /// Processes a method or a content header.
    fn whole(&mut self, out: &mut Vec<u8>) -> io::Result<State> {
        let channel = u16::from_be_bytes([self.frame[1], self.frame[2]]);
        let before = self.contents.remove(&channel);
        if matches!(before, Some(Content::Body(_) | Content::Discarded(..))) {
            return Err(broken("expected the rest of a body, got another frame"));
        }
        let end = self.frame.len() - 1;
        if self.frame[0] == CONTENT_HEADER {
            return self.content_header(channel, before, out);
        }
        if let Some(tag) = Fields::of(&mut self.frame[HEAD..end]).deliver() {
            self.contents.insert(channel, Content::Delivery(tag));
        }
        out.append(&mut self.frame);
        Ok(State::default())
    }

    fn content_header(
        &mut self,
        channel: u16,
        before: Option<Content>,
        out: &mut Vec<u8>,
    ) -> io::Result<State> {
        let end = self.frame.len() - 1;
        let payload = &mut self.frame[HEAD..end];
        let body = payload.get(BODY_SIZE).map_or(0, number);
        let headers = Fields::of(payload).properties().unwrap_or_default();
        let (Some(inbound), Some(Content::Delivery(tag))) = (&self.inbound, before) else {
            if self.inbound.is_some() && body > MESSAGE_LIMIT as u64 {
                return Err(broken("expected a delivery, got another large content"));
            }
            // A message that was published over this connection and is returned over it.
            self.pass_header(channel, body, out);
            return Ok(State::default());
        };
        if headers.is_too_large() {
            cut(&mut self.frame, &headers);
        }
        let kept = if body > MESSAGE_LIMIT as u64 {
            BEGINNING as u64
        } else {
            body
        };
        let weight = inbound.within_budget(weight(kept, self.frame.len(), headers.values));
        let delivery = Announced {
            channel,
            tag,
            headers,
            body,
            weight,
        };
        if inbound.is_over() {
            self.begin_discarding(delivery, None, out);
        } else if inbound.counts(weight) {
            return Ok(State::Held(delivery));
        } else {
            self.begin(delivery, None, out);
        }
        Ok(State::default())
    }

    /// Continues after a content header, with a body for the driver or one that is discarded.
    fn begin(&mut self, delivery: Announced, charge: Option<Charge>, out: &mut Vec<u8>) {
        if delivery.body > MESSAGE_LIMIT as u64 {
            return self.begin_discarding(delivery, charge, out);
        }
        self.account(&delivery, charge, None);
        self.pass_header(delivery.channel, delivery.body, out);
    }

    fn pass_header(&mut self, channel: u16, body: u64, out: &mut Vec<u8>) {
        if body > 0 {
            self.contents.insert(channel, Content::Body(body));
        }
        out.append(&mut self.frame);
    }

    fn begin_discarding(&mut self, delivery: Announced, charge: Option<Charge>, out: &mut Vec<u8>) {
        self.frame[HEAD + BODY_SIZE.start..HEAD + BODY_SIZE.end].fill(0);
        let header = std::mem::take(&mut self.frame);
        let discarding = Discarding {
            delivery,
            charge,
            header,
            beginning: Vec::new(),
            sha256: Sha256::new(),
        };
        if delivery.body == 0 {
            out.extend(discarding.header);
            return;
        }
        self.contents.insert(
            delivery.channel,
            Content::Discarded(delivery.body, Box::new(discarding)),
        );
    }

    /// Counts and discards a part of a body. `is_last` marks the part that ends its frame.
    fn discard(
        &mut self,
        channel: u16,
        part: &[u8],
        is_last: bool,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Some(Content::Discarded(left, discarding)) = self.contents.get_mut(&channel) else {
            return Ok(());
        };
        let payload = if is_last {
            part.strip_suffix(&[FRAME_END])
        } else {
            Some(part)
        };
        let payload =
            payload.ok_or_else(|| broken("expected the end of a frame, got another byte"))?;
        discarding.sha256.update(payload);
        let room = BEGINNING - discarding.beginning.len();
        discarding
            .beginning
            .extend_from_slice(&payload[..payload.len().min(room)]);
        if is_last && *left == 0 {
            self.discarded(channel, out);
        }
        Ok(())
    }

    /// Passes a message on without its body after all of the body was discarded.
    fn discarded(&mut self, channel: u16, out: &mut Vec<u8>) {
        let Some(Content::Discarded(_, discarding)) = self.contents.remove(&channel) else {
            return;
        };
        let Discarding {
            delivery,
            charge,
            header,
            beginning,
            sha256,
        } = *discarding;
        let whole = Discarded {
            bytes: delivery.body,
            sha256: sha256.finalize().into(),
        };
        self.account(&delivery, charge, Some((whole, beginning)));
        out.extend(header);
    }

    fn account(
        &self,
        delivery: &Announced,
        charge: Option<Charge>,
        discarded: Option<(Discarded, Vec<u8>)>,
    ) {
        if let Some(inbound) = &self.inbound {
            inbound.arrived(
                (delivery.channel, delivery.tag),
                Arrived {
                    charge,
                    discarded,
                    headers_too_large: delivery.headers.is_too_large(),
                },
            );
        }
    }
}

/// Truncates the header table of a content header after the last field that is kept.
fn cut(frame: &mut Vec<u8>, headers: &Headers) {
    let first_field = headers.at + 4;
    let length = u32::try_from(headers.kept - first_field).unwrap_or_default();
    frame[HEAD + headers.at..HEAD + first_field].copy_from_slice(&length.to_be_bytes());
    frame.drain(HEAD + headers.kept..HEAD + headers.end);
    let payload = u32::try_from(frame.len() - HEAD - 1).unwrap_or_default();
    frame[HEAD - 4..HEAD].copy_from_slice(&payload.to_be_bytes());
}

fn broken(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the frames from RabbitMQ are invalid: {why}"),
    )
}
