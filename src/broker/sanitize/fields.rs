//! Reads and repairs the payload of a frame: texts that are not UTF-8 are blanked, tables nested
//! too deeply become bytes, and the size of the header table is measured. Formats: AMQP 0-9-1,
//! 4.2.3 and 4.2.5, with RabbitMQ's field types
//! (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>).

use crate::message::{DELIVERY_COUNTS, DEPTH_LIMIT, HEADERS_LIMIT};

/// Class and method of `basic.deliver`.
pub(super) const DELIVER: [u8; 4] = [0, 60, 0, 60];
/// Position of the properties, after class, weight and the body's size.
const PROPERTIES: usize = 12;
/// Size of a table's length field, in bytes.
const LENGTH: usize = 4;

/// A frame's payload, read and repaired from its beginning to its end. If something cannot be
/// parsed, the rest stays as it is, and the driver's parser decides.
pub(super) struct Fields<'f> {
    bytes: &'f mut [u8],
    at: usize,
    headers: Headers,
}

/// Measurements of a content header's table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Headers {
    /// Number of values, including nested ones, in the fields up to `kept`.
    pub(super) values: usize,
    /// The table's size on the wire in bytes, without the delivery counts that RabbitMQ adds.
    pub(super) bytes: usize,
    /// Position of the table's length in the payload.
    pub(super) at: usize,
    /// End of the last field with which the table is within [`HEADERS_LIMIT`].
    pub(super) kept: usize,
    /// End of the table.
    pub(super) end: usize,
}

impl Headers {
    /// Returns whether the table is larger than intake accepts.
    pub(super) const fn is_too_large(&self) -> bool {
        self.bytes > HEADERS_LIMIT
    }
}

impl<'f> Fields<'f> {
    /// Creates a reader of this payload.
    pub(super) fn of(bytes: &'f mut [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            headers: Headers::default(),
        }
    }

    /// Reads a `basic.deliver`: consumer tag, delivery tag, redelivered flag, exchange, routing
    /// key. Returns the delivery tag, or `None` if the payload cannot be parsed or is another
    /// method.
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

    /// Reads a content header: class, weight, the body's size, one flag per property from the
    /// highest bit on, and the properties. Returns the measurements of the header table.
    pub(super) fn properties(&mut self) -> Option<Headers> {
        self.skip(PROPERTIES)?;
        let present = self.number(2)?;
        for bit in (2..16).rev().filter(|bit| present >> bit & 1 == 1) {
            match bit {
                13 => self.header_table()?,
                // Delivery mode and priority. 6 is the timestamp.
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
            if is_integer
                && DELIVERY_COUNTS
                    .iter()
                    .any(|count| count.as_bytes() == &self.bytes[name.clone()])
            {
                counts += self.at - from;
            }
            if self.at - at - counts <= HEADERS_LIMIT {
                (kept, values) = (self.at, self.headers.values);
            }
        }
        self.headers = Headers {
            values,
            bytes: end - at - counts,
            at,
            kept,
            end,
        };
        (self.at == end).then_some(())
    }

    /// Reads a list of values, or a table of names and values.
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
            b'F' | b'A' if depth + 1 < DEPTH_LIMIT => {
                self.list(depth + 1, self.bytes[kind] == b'F')
            }
            b'S' | b'x' | b'F' | b'A' => {
                if matches!(self.bytes[kind], b'F' | b'A') {
                    // Byte arrays have the same form: a length, and that many bytes.
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

    /// Reads a length of four bytes. Returns the end of what it measures.
    fn length(&mut self) -> Option<usize> {
        let length = usize::try_from(self.number(LENGTH)?).ok()?;
        self.at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len())
    }

    fn number(&mut self, length: usize) -> Option<u64> {
        let from = self.at;
        self.skip(length)?;
        Some(number(&self.bytes[from..self.at]))
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.at = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len())?;
        Some(())
    }
}

/// Returns the number in up to eight bytes, the most significant first.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Replaces bytes that are not UTF-8 by NUL.
fn blank(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let from = error.valid_up_to();
        let until = error.error_len().map_or(text.len(), |length| from + length);
        text[from..until].fill(0);
        text = &mut text[until..];
    }
}
