//! Makes what producers write legible to the driver. Its parser takes the whole connection for broken where a text is not UTF-8,
//! which AMQP allows, and follows tables as deep as they are nested, which may be deeper than its stack: one such message, handed
//! out again and again, would stop its lane.
//!
//! A frame keeps its length. In texts, bytes that are not UTF-8 become NUL, which intake refuses wherever a text counts; a table
//! or list nested deeper than JSON may be becomes plain bytes. Frame and field formats: AMQP 0-9-1, 4.2.3 and 4.2.5, with
//! RabbitMQ's field types (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::message::DEPTH_LIMIT;

/// Type, channel and size.
const HEAD: usize = 7;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// `basic.deliver`: its class and its method.
const DELIVER: [u8; 4] = [0, 60, 0, 60];
/// A frame to be mended is gathered first. RabbitMQ's frames have 128 KiB at most.
const LARGEST: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

/// A stream from a broker, mended as it is read.
pub(super) struct Legible<S> {
    inner: S,
    mender: Mender,
    chunk: Box<[u8]>,
    mended: Vec<u8>,
    given: usize,
    is_over: bool,
}

impl<S> Legible<S> {
    pub(super) fn new(inner: S) -> Self {
        let chunk = vec![0; CHUNK].into();
        Self { inner, mender: Mender::default(), chunk, mended: Vec::new(), given: 0, is_over: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Legible<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.given == this.mended.len() && !this.is_over {
            this.mended.clear();
            this.given = 0;
            let mut read = ReadBuf::new(&mut this.chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            this.is_over = read.filled().is_empty();
            this.mender.feed(read.filled(), &mut this.mended);
            if this.is_over {
                this.mended.append(&mut this.mender.frame);
            }
        }
        let ready = &this.mended[this.given..];
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

/// Finds the frames in a stream of bytes and mends those that need it.
struct Mender {
    state: State,
    /// What is gathered of a frame.
    frame: Vec<u8>,
}

#[derive(Clone, Copy)]
enum State {
    /// So many bytes are missing until more can be said.
    Gather(usize),
    /// So many bytes are none of our business.
    Pass(usize),
    /// Whatever this is, it is not AMQP's frames.
    Lost,
}

impl Default for Mender {
    fn default() -> Self {
        Self { state: State::Gather(HEAD), frame: Vec::new() }
    }
}

impl Mender {
    /// Takes what has come and appends what can be passed on.
    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            let wanted = match self.state {
                State::Gather(missing) | State::Pass(missing) => missing,
                State::Lost => input.len(),
            };
            let (part, rest) = input.split_at(wanted.min(input.len()));
            input = rest;
            match self.state {
                State::Gather(missing) => {
                    self.frame.extend_from_slice(part);
                    self.state = State::Gather(missing - part.len());
                    if missing == part.len() {
                        self.state = self.gathered(out);
                    }
                }
                State::Pass(missing) => {
                    out.extend_from_slice(part);
                    self.state = if missing == part.len() { State::Gather(HEAD) } else { State::Pass(missing - part.len()) };
                }
                State::Lost => out.extend_from_slice(part),
            }
        }
    }

    /// A frame's head is there, or all of it.
    fn gathered(&mut self, out: &mut Vec<u8>) -> State {
        if self.frame.len() > HEAD {
            mend(&mut self.frame);
            out.append(&mut self.frame);
            return State::Gather(HEAD);
        }
        let [kind, _, _, size @ ..] = &self.frame[..] else { return State::Lost };
        // After the payload comes one more byte, the frame's end.
        let rest = number(size) + 1;
        match *kind {
            METHOD | CONTENT_HEADER if rest <= LARGEST => State::Gather(rest),
            METHOD | CONTENT_HEADER | BODY | HEARTBEAT => {
                out.append(&mut self.frame);
                State::Pass(rest)
            }
            _ => {
                out.append(&mut self.frame);
                State::Lost
            }
        }
    }
}

/// Where something cannot be read, the rest stays as it is: the driver's parser is the judge.
fn mend(frame: &mut [u8]) {
    let kind = frame[0];
    let end = frame.len() - 1;
    let fields = &mut Fields { bytes: &mut frame[HEAD..end], at: 0 };
    let _as_far_as_it_reads = match kind {
        METHOD if fields.bytes.starts_with(&DELIVER) => fields.deliver(),
        CONTENT_HEADER => fields.properties(),
        _ => None,
    };
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// A frame's payload, read and mended from its beginning to its end.
struct Fields<'f> {
    bytes: &'f mut [u8],
    at: usize,
}

impl Fields<'_> {
    /// Consumer tag, delivery tag, whether it is a redelivery, exchange, routing key.
    fn deliver(&mut self) -> Option<()> {
        self.skip(DELIVER.len())?;
        self.text()?;
        self.skip(9)?;
        self.text()?;
        self.text()
    }

    /// Class, weight, the body's size, a bit for each property that is there, from the highest on, and these.
    fn properties(&mut self) -> Option<()> {
        self.skip(12)?;
        let present = self.number(2)?;
        for bit in (2..16).rev().filter(|bit| present >> bit & 1 == 1) {
            match bit {
                // The headers; delivery mode and priority; the timestamp.
                13 => self.list(0, true)?,
                11 | 12 => self.skip(1)?,
                6 => self.skip(8)?,
                _ => self.text()?,
            }
        }
        Some(())
    }

    /// A list of values, or a table of names and values.
    fn list(&mut self, depth: usize, is_table: bool) -> Option<()> {
        let length = self.number(4)?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        while self.at < end {
            if is_table {
                self.text()?;
            }
            self.value(depth)?;
        }
        (self.at == end).then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let kind = self.at;
        self.skip(1)?;
        match self.bytes[kind] {
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'V' => Some(()),
            b'F' | b'A' if depth + 1 < DEPTH_LIMIT => self.list(depth + 1, self.bytes[kind] == b'F'),
            b'S' | b'x' | b'F' | b'A' => {
                if matches!(self.bytes[kind], b'F' | b'A') {
                    // Bytes have the same form: a length, and as many.
                    self.bytes[kind] = b'x';
                }
                let length = self.number(4)?;
                self.skip(length)
            }
            _ => None,
        }
    }

    fn text(&mut self) -> Option<()> {
        let length = self.number(1)?;
        let from = self.at;
        self.skip(length)?;
        blank(&mut self.bytes[from..from + length]);
        Some(())
    }

    fn number(&mut self, length: usize) -> Option<usize> {
        let from = self.at;
        self.skip(length)?;
        Some(number(&self.bytes[from..self.at]))
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.at = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        Some(())
    }
}

/// Makes what is not UTF-8 NUL.
fn blank(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let from = error.valid_up_to();
        let until = error.error_len().map_or(text.len(), |length| from + length);
        text[from..until].fill(0);
        text = &mut text[until..];
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::{AMQPValue, FieldTable};
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &size[..], payload, &[0xce]].concat()
    }

    fn text(bytes: &[u8]) -> Vec<u8> {
        [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    /// A content header with these properties.
    fn header(present: u16, properties: &[u8]) -> Vec<u8> {
        let size = [0, 0, 0, 0, 0, 0, 0, 2];
        frame(CONTENT_HEADER, &[&[0, 60, 0, 0], &size[..], &present.to_be_bytes(), properties].concat())
    }

    fn mended(input: &[u8]) -> Vec<u8> {
        let (mut mender, mut out) = (Mender::default(), Vec::new());
        mender.feed(input, &mut out);
        out
    }

    /// Tables within a table.
    fn nested(depth: usize) -> Vec<u8> {
        (0..depth).fold(Vec::new(), |inner, _| [&text(b"a\xff")[..], b"F", &long(&inner)].concat())
    }

    #[test]
    fn texts_become_utf_8_wherever_they_stand() {
        let all = |bytes: &[u8]| {
            let headers = [&text(bytes)[..], b"S", &long(b"\xff"), &text(bytes), b"A", &long(b"t\x01")].concat();
            let texts = |count: usize| text(bytes).repeat(count);
            let properties = [texts(2), long(&headers), vec![2, 0], texts(4), vec![0; 8], texts(4)].concat();
            let deliver = [&DELIVER[..], &text(b"tag"), &[0; 9], &text(b"dispatch"), &text(bytes)].concat();
            [frame(METHOD, &deliver), header(0xfffc, &properties), frame(BODY, b"\xff\xfe"), frame(HEARTBEAT, b"")].concat()
        };
        assert_eq!(mended(&all(b"x\xff\xc3y\xe2\x82")), all(b"x\0\0y\0\0"));
        assert_eq!(mended(&all("né".as_bytes())), all("né".as_bytes()), "what is right stays");
    }

    #[test]
    fn tables_are_nested_as_deep_as_json_may_be_and_no_deeper() {
        // The header table itself is one more.
        for (depth, is_kept) in [(DEPTH_LIMIT - 1, true), (DEPTH_LIMIT, false), (10_000, false)] {
            let input = header(1 << 13, &long(&nested(depth)));
            let output = mended(&input);
            assert_eq!(output.len(), input.len());
            // The mended text before each table, and the table's kind: a length may have that byte, too.
            let kept = output.windows(3).filter(|window| *window == b"a\0F").count();
            assert_eq!(kept == depth, is_kept, "{depth}: {kept}");
            assert!(kept < DEPTH_LIMIT);
        }
    }

    #[test]
    fn what_is_not_a_frame_is_passed_on_as_it_is() {
        for input in [&b"AMQP\x00\x00\x09\x01\xff\xff"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n\xff", &header(0xffff, b"\xff")] {
            assert_eq!(mended(input), input);
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_gives_all_it_had() {
        let whole = header(1 << 7, &text(b"\xff"));
        let cut = &whole[..whole.len() - 2];
        let mut out = Vec::new();
        Legible::new(cut).read_to_end(&mut out).await.unwrap();
        assert_eq!(out, cut);
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_stream_is_cut(
            parts in prop::collection::vec((1..4_u8, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cuts in prop::collection::vec(1..30_usize, 1..40),
        ) {
            let input: Vec<u8> = parts.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            let (mut mender, mut out, mut rest, mut cuts) = (Mender::default(), Vec::new(), &input[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (part, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                mender.feed(part, &mut out);
                rest = after;
            }
            prop_assert_eq!(&out, &mended(&input));
            prop_assert_eq!(out.len(), input.len());
        }

        #[test]
        fn what_the_driver_writes_is_not_touched(names in prop::collection::vec("[a-zé]{1,9}", 0..6), number: i64) {
            let mut table = FieldTable::default();
            for name in names {
                let inner = AMQPValue::FieldArray(vec![AMQPValue::LongLongInt(number), AMQPValue::Void].into());
                table.insert(name.as_str().into(), inner);
            }
            let properties = lapin::BasicProperties::default().with_headers(table).with_message_id("é".into());
            let header = lapin::protocol::basic::gen_properties(&properties);
            let bytes = header(Vec::new().into()).unwrap().into_inner().0;
            let input = frame(CONTENT_HEADER, &[&[0; 12][..], &bytes].concat());
            prop_assert_eq!(mended(&input), input);
        }
    }
}
