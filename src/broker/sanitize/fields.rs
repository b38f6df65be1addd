//! What is read of a frame's payload: texts that are not UTF-8 are blanked, tables nested too deep become bytes, and the size of the
//! header table is measured. Formats: AMQP 0-9-1, 4.2.3 and 4.2.5, with RabbitMQ's field types
//! (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>).

use crate::message::{DELIVERY_COUNTS, DEPTH_LIMIT, HEADERS_LIMIT};

/// `basic.deliver`: its class and its method.
pub(super) const DELIVER: [u8; 4] = [0, 60, 0, 60];
/// Class, weight and the body's size come before the properties.
const PROPERTIES: usize = 12;
/// A table begins with its length in four bytes.
const LENGTH: usize = 4;

/// A frame's payload, read and repaired from its beginning to its end. Where something cannot be read, the rest stays as it is: the
/// driver's parser is the judge.
pub(super) struct Fields<'f> {
    bytes: &'f mut [u8],
    at: usize,
    headers: Headers,
}

/// What a content header's table is found to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Headers {
    /// Values, nested ones too, of the fields up to `kept`.
    pub(super) values: usize,
    /// The table's size on the wire in bytes, without the counts that RabbitMQ has added.
    pub(super) bytes: usize,
    /// Where the table's length stands in the payload.
    pub(super) at: usize,
    /// Where the last field ends with which the table is within [`HEADERS_LIMIT`].
    pub(super) kept: usize,
    /// Where the table ends.
    pub(super) end: usize,
}

impl Headers {
    /// Whether the table is larger than intake takes.
    pub(super) const fn is_too_large(&self) -> bool {
        self.bytes > HEADERS_LIMIT
    }
}

impl<'f> Fields<'f> {
    /// Of this payload.
    pub(super) fn of(bytes: &'f mut [u8]) -> Self {
        Self { bytes, at: 0, headers: Headers::default() }
    }

    /// Consumer tag, delivery tag, whether it is a redelivery, exchange, routing key. Returns the delivery tag; `None` where the
    /// payload cannot be read or is no `basic.deliver`.
    pub(super) fn deliver(&mut self) -> Option<u64> {
        if !self.bytes.starts_with(&DELIVER) {
            return None;
        }
        self.skip(DELIVER.len())?;
        self.text()?;
        let tag = self.number(8)?;
        self.skip(1)?;
        self.text()?;
        self.text()?;
        Some(tag)
    }

    /// Class, weight, the body's size, a bit for each property that is there, from the highest on, and these. Returns what the
    /// header table is.
    pub(super) fn properties(&mut self) -> Option<Headers> {
        self.skip(PROPERTIES)?;
        let present = self.number(2)?;
        for bit in (2..16).rev().filter(|bit| present >> bit & 1 == 1) {
            match bit {
                13 => self.header_table()?,
                // Delivery mode and priority; the timestamp.
                11 | 12 => self.skip(1)?,
                6 => self.skip(8)?,
                _ => self.text()?,
            }
        }
        Some(self.headers)
    }

    fn header_table(&mut self) -> Option<()> {
        let at = self.at;
        let end = self.length()?;
        let (mut kept, mut values, mut counts) = (self.at, 0, 0);
        while self.at < end {
            let from = self.at;
            self.text()?;
            let name = from + 1..self.at;
            let is_integer = matches!(self.bytes.get(self.at)?, b'I' | b'l');
            self.value(0)?;
            if is_integer && DELIVERY_COUNTS.iter().any(|count| count.as_bytes() == &self.bytes[name.clone()]) {
                counts += self.at - from;
            }
            if self.at - at - counts <= HEADERS_LIMIT {
                (kept, values) = (self.at, self.headers.values);
            }
        }
        self.headers = Headers { values, bytes: end - at - counts, at, kept, end };
        (self.at == end).then_some(())
    }

    /// A list of values, or a table of names and values.
    fn list(&mut self, depth: usize, is_table: bool) -> Option<()> {
        let end = self.length()?;
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
        self.headers.values += 1;
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
                let end = self.length()?;
                self.skip(end - self.at)
            }
            _ => None,
        }
    }

    fn text(&mut self) -> Option<()> {
        let length = usize::try_from(self.number(1)?).ok()?;
        let from = self.at;
        self.skip(length)?;
        blank(&mut self.bytes[from..from + length]);
        Some(())
    }

    /// A length of four bytes; returns where what it is of ends.
    fn length(&mut self) -> Option<usize> {
        let length = usize::try_from(self.number(LENGTH)?).ok()?;
        self.at.checked_add(length).filter(|end| *end <= self.bytes.len())
    }

    fn number(&mut self, length: usize) -> Option<u64> {
        let from = self.at;
        self.skip(length)?;
        Some(number(&self.bytes[from..self.at]))
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.at = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        Some(())
    }
}

/// Up to eight bytes, the most significant first.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
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
