//! The messages of Postgres' protocol in a stream of bytes, distinguished by their first byte.
//! Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats".

/// Size of a message's kind and length. The length is in network order and counts itself, but not
/// the kind.
const HEADER: usize = 5;
/// Size of the length.
const LENGTH: usize = 4;

/// Position in the stream after the bytes seen so far; initially between two messages.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header seen so far.
    filled: usize,
    /// Bytes of the message that are still to come after its header.
    rest: usize,
}

impl Frames {
    /// Returns how many messages of one of `kinds` begin in `bytes`, which follow the bytes seen
    /// before.
    pub(super) fn count(&mut self, mut bytes: &[u8], kinds: &[u8]) -> usize {
        let mut found = 0;
        while !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                let [kind, length @ ..] = self.header;
                self.filled = 0;
                self.rest = usize::try_from(u32::from_be_bytes(length))
                    .unwrap_or(usize::MAX)
                    .saturating_sub(LENGTH);
                found += usize::from(kinds.contains(&kind));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_wherever_the_stream_is_cut() {
        // A row whose text looks like `ReadyForQuery`, two `ReadyForQuery`, and a message without
        // a body.
        let stream = b"D\0\0\0\x0aZ\0\0\0\x05IZ\0\0\0\x05In\0\0\0\x04Z\0\0\0\x05T";
        for cut in 0..=stream.len() {
            let mut frames = Frames::default();
            let (first, second) = stream.split_at(cut);
            assert_eq!(
                frames.count(first, b"Z") + frames.count(second, b"Z"),
                2,
                "cut at {cut}"
            );
            assert_eq!((frames.filled, frames.rest), (0, 0), "cut at {cut}");
        }
        let mut frames = Frames::default();
        assert_eq!(
            stream
                .iter()
                .map(|byte| frames.count(&[*byte], b"ZD"))
                .sum::<usize>(),
            3
        );
    }
}
