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

/// Between the parts of what would be a link.
///
/// A hair space, and none of the characters without a width: those are part of a host name to some (Android's `Linkify`, and the
/// mail programs made with it), and browsers leave them out of it (UTS #46), so that the link works. No reader makes a link
/// across white space.
pub(super) const LINK_BREAK: char = '\u{200a}';

/// One line of others' text in which no reader finds a link: neither an address with a scheme, nor a bare host name or e-mail
/// address, nor a share of Windows'. Chats and mail programs make links of them whether or not a message has any markup. It looks
/// the same but for a [`LINK_BREAK`] before each `:`, `.`, `@` and second `\` that holds such a thing together; times and numbers
/// stay as they are.
pub(super) fn unlinked(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for word in line.split_inclusive(char::is_whitespace) {
        // An address of IPv4 has three.
        let is_number_s =
            |before: char, after: char| before.is_ascii_digit() && after.is_ascii_digit() && word.matches(is_dot).count() < 3;
        let (mut before, mut characters) = (' ', word.chars().peekable());
        while let Some(character) = characters.next() {
            let after = characters.peek().copied().unwrap_or(' ');
            if holds_together(before, character, after) && !is_number_s(before, after) {
                text.push(LINK_BREAK);
            }
            text.push(character);
            before = character;
        }
    }
    text
}

fn holds_together(before: char, character: char, after: char) -> bool {
    let is_inside = !before.is_whitespace() && !after.is_whitespace();
    match character {
        ':' | '@' => is_inside,
        '\\' => before == '\\',
        dot if is_dot(dot) => is_inside && !is_dot(before),
        _ => false,
    }
}

/// A full stop, or what host names take for one (UTS #46).
const fn is_dot(character: char) -> bool {
    matches!(character, '.' | '\u{3002}' | '\u{ff0e}' | '\u{ff61}')
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
    use proptest::prelude::*;

    use super::*;

    /// Without the breaks.
    fn joined(text: &str) -> String {
        text.replace(LINK_BREAK, "")
    }

    #[test]
    fn nothing_in_a_line_is_a_link_and_what_is_none_stays_as_it_is() {
        for (line, shown) in [
            ("see https://evil.example/a?b=c.d#e", "see https|://evil|.example/a?b=c|.d#e"),
            ("www.evil.example, evil.example.", "www|.evil|.example, evil|.example."),
            ("mailto:eve@evil.example", "mailto|:eve|@evil|.example"),
            ("tel:+49123 javascript:alert(1)", "tel|:+49123 javascript|:alert(1)"),
            ("localhost:8080 10.0.0.1", "localhost|:8080 10|.0|.0|.1"),
            (r"\\evil\share", r"\|\evil\share"),
            ("evil\u{3002}example evil\u{ff0e}example i❤.ws", "evil|\u{3002}example evil|\u{ff0e}example i❤|.ws"),
            ("evil.\u{200b}example https\u{200b}://x", "evil|.\u{200b}example https\u{200b}|://x"),
            ("config.rs", "config|.rs"),
            ("Größe: 1.5 statt 2.25.1, um 14:05 Uhr ... so. (WEB-17)", "Größe: 1.5 statt 2.25.1, um 14:05 Uhr ... so. (WEB-17)"),
            ("", ""),
        ] {
            assert_eq!(unlinked(line).replace(LINK_BREAK, "|"), shown);
            assert_eq!(joined(&unlinked(line)), line);
        }
    }

    proptest! {
        #[test]
        fn a_line_without_the_breaks_is_what_was_written_and_with_them_has_no_link(
            parts in prop::collection::vec(prop_oneof![
                Just("https://".to_owned()), Just(".".to_owned()), Just("@".to_owned()), Just(":".to_owned()), Just("www.".to_owned()),
                Just(" ".to_owned()), Just("evil".to_owned()), Just("com".to_owned()), Just("\\\\".to_owned()), ".{0,3}",
            ], 0..20)
        ) {
            let line = joined(&parts.concat());
            let text = unlinked(&line);
            prop_assert_eq!(joined(&text), line);
            for sign in ["://", "www.e", ".com", ":evil", "\\\\", "evil@e"] {
                let found = text.match_indices(sign).any(|(at, _)| text[..at].ends_with(char::is_alphanumeric));
                prop_assert!(!found, "{} in {}", sign, text);
            }
        }
    }

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
