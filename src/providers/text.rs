//! Text for people: without controls, within a channel's limit.

use crate::escape::acts;

/// Text that ends with an ellipsis at its limit, which is in characters (Unicode scalar values). It grows by whole pieces, so
/// that no escape is cut in two.
#[derive(Debug)]
pub(super) struct Capped {
    text: String,
    characters: usize,
    limit: usize,
    full: bool,
}

impl Capped {
    pub(super) const fn new(limit: usize) -> Self {
        Self { text: String::new(), characters: 0, limit, full: false }
    }

    pub(super) fn push(&mut self, piece: &str) {
        if self.full {
            return;
        }
        let length = piece.chars().count();
        if self.characters + length < self.limit {
            self.text.push_str(piece);
            self.characters += length;
        } else {
            self.text.push('…');
            self.full = true;
        }
    }

    pub(super) fn push_all<P: AsRef<str>>(&mut self, pieces: impl IntoIterator<Item = P>) {
        pieces.into_iter().for_each(|piece| self.push(piece.as_ref()));
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// The character, or a space for what would break a line or turn the direction of writing around.
pub(super) fn visible(character: char) -> char {
    if acts(character) { ' ' } else { character }
}

/// `text` as one line, see [`visible`].
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// `text` cut to `limit` characters (Unicode scalar values), the last one an ellipsis where something was cut.
pub(super) fn cut(text: &str, limit: usize) -> String {
    if text.chars().nth(limit).is_none() {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_characters_and_says_so() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü€", 3), "äö…");
    }

    #[test]
    fn a_piece_that_does_not_fit_is_left_out_whole() {
        let mut text = Capped::new(5);
        text.push_all(["ab", "&amp;", "c"]);
        assert_eq!(text.finish(), "ab…");
    }

    #[test]
    fn what_breaks_a_line_or_turns_it_around_becomes_a_space() {
        assert_eq!(one_line("a\r\nb\u{202e}c\u{2028}d\u{0}é"), "a  b c d é");
    }
}
