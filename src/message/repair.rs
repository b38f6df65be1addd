//! Repair of JSON that is grammatically valid but holds a value that cannot be represented, so
//! that one such value does not make the whole message unreadable.
//!
//! The grammar (RFC 8259, <https://www.rfc-editor.org/rfc/rfc8259>) allows the escape of half a
//! surrogate pair (section 8.2) and numbers of any size (section 6), and lets a parser ignore a
//! byte order mark (section 8.1). `serde_json` rejects all three. Text that is not JSON stays as
//! it is, and is refused where it is parsed.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::{Number, Value};

/// U+FEFF in UTF-8, with which some producers begin a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The replacement character, which replaces half a surrogate pair and is as long as its escape.
const REPLACEMENT: &str = "\\ufffd";
/// Bytes of an escaped UTF-16 code unit: `\u` and four hex digits.
const CODE_UNIT_BYTES: usize = 6;
/// The length in characters up to which a number without an exponent is below the largest double,
/// 1.8e308.
const DIGITS_IN_RANGE: usize = 308;

/// A JSON text after [`repair`].
pub(super) struct Repaired<'a> {
    /// The original text if it needed no repair; otherwise at most 1.4 times as long.
    pub(super) text: Cow<'a, str>,
    /// The deepest nesting of its arrays and objects.
    pub(super) depth: usize,
}

/// Replaces each half of a surrogate pair that stands alone by U+FFFD, and each number that
/// `serde_json` cannot represent by a string of the same characters, so that two different numbers
/// stay different. Reads the text once, and copies it only if something changes. Text that is not
/// JSON does not become JSON.
pub(super) fn repair(text: &str) -> Repaired<'_> {
    let mut pass = Pass {
        text,
        copied: 0,
        out: String::new(),
        open: 0,
        depth: 0,
    };
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        at = match byte {
            b'"' => pass.string(at + 1),
            b'-' | b'0'..=b'9' => pass.number(at),
            b'[' | b'{' => pass.opened(at),
            b']' | b'}' => pass.closed(at),
            _ => at + 1,
        };
    }
    pass.end()
}

/// Returns a message's body without its byte order mark.
#[must_use]
pub fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)
}

/// Returns a JSON string as it is displayed: half a surrogate pair becomes U+FFFD, and a number
/// that cannot be represented becomes its characters. Returns `None` for other values.
#[must_use]
pub fn shown_string(json: &str) -> Option<String> {
    serde_json::from_str(&repair(json).text).ok()
}

/// Parses a message's body as intake does, but without its limits. Returns `None` if it is not
/// JSON.
#[must_use]
pub fn read_body(body: &[u8]) -> Option<Value> {
    let text = str::from_utf8(without_mark(body)).ok()?;
    serde_json::from_str(&repair(text).text).ok()
}

struct Pass<'a> {
    text: &'a str,
    /// The length of the part of `text` that is in `out`, repaired.
    copied: usize,
    out: String,
    open: usize,
    depth: usize,
}

/// Each method takes a position in the text and returns the position after the part that it has
/// read.
impl<'a> Pass<'a> {
    fn opened(&mut self, at: usize) -> usize {
        self.open += 1;
        self.depth = self.depth.max(self.open);
        at + 1
    }

    const fn closed(&mut self, at: usize) -> usize {
        self.open = self.open.saturating_sub(1);
        at + 1
    }

    /// Reads the rest of a string, including its closing quote.
    fn string(&mut self, mut at: usize) -> usize {
        while let Some(byte) = self.text.as_bytes().get(at) {
            at = match byte {
                b'"' => return at + 1,
                b'\\' => self.escape(at),
                _ => at + 1,
            };
        }
        at
    }

    fn escape(&mut self, at: usize) -> usize {
        let next = at + CODE_UNIT_BYTES;
        match self.code_unit(at) {
            // A backslash and one more byte. After an unfinished `\u` that byte may be anything;
            // the text is then not JSON.
            None => at + 2,
            Some(0xd800..=0xdbff) if matches!(self.code_unit(next), Some(0xdc00..=0xdfff)) => {
                next + CODE_UNIT_BYTES
            }
            Some(0xd800..=0xdfff) => self.replace(at, next, REPLACEMENT),
            Some(_) => next,
        }
    }

    /// Returns the UTF-16 code unit whose escape begins here.
    fn code_unit(&self, at: usize) -> Option<u16> {
        let escape = self.text.as_bytes().get(at..at + CODE_UNIT_BYTES)?;
        let digits = escape.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some(unit << 4 | u16::try_from(digit).ok()?)
        })
    }

    fn number(&mut self, at: usize) -> usize {
        let rest = &self.text[at..];
        let is_of_numbers = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
        let (number, behind) =
            rest.split_at(rest.find(|c| !is_of_numbers(c)).unwrap_or(rest.len()));
        let end = at + number.len();
        if !is_out_of_range(number) {
            return end;
        }
        // Before a colon, a string would be a key, and the text would become JSON.
        if behind
            .trim_start_matches([' ', '\t', '\n', '\r'])
            .starts_with(':')
        {
            return end;
        }
        self.replace(at, end, &format!("\"{number}\""))
    }

    fn replace(&mut self, from: usize, to: usize, with: &str) -> usize {
        self.out.push_str(&self.text[self.copied..from]);
        self.out.push_str(with);
        self.copied = to;
        to
    }

    fn end(mut self) -> Repaired<'a> {
        let text = if self.copied == 0 {
            Cow::Borrowed(self.text)
        } else {
            self.out.push_str(&self.text[self.copied..]);
            Cow::Owned(self.out)
        };
        Repaired {
            text,
            depth: self.depth,
        }
    }
}

/// Returns whether the text is a JSON number that `serde_json` cannot represent. Deserializing it
/// as ignored checks only its grammar.
fn is_out_of_range(number: &str) -> bool {
    let may_be = number.len() > DIGITS_IN_RANGE || number.contains(['e', 'E']);
    may_be
        && serde_json::from_str::<IgnoredAny>(number).is_ok()
        && serde_json::from_str::<Number>(number).is_err()
}
