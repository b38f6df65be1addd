//! Text for people: without control characters, within a channel's limit.

use crate::escape::acts;

/// Text that ends with an ellipsis at its limit, which is in characters (Unicode scalar values).
/// Only whole pieces are added, so that no escape is split.
#[derive(Debug)]
pub(super) struct Capped {
    text: String,
    characters: usize,
    limit: usize,
    full: bool,
}

impl Capped {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            text: String::new(),
            characters: 0,
            limit,
            full: false,
        }
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
        pieces
            .into_iter()
            .for_each(|piece| self.push(piece.as_ref()));
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// Returns the character, or a space for one that would break a line or change the direction of
/// writing.
pub(super) fn visible(character: char) -> char {
    if acts(character) { ' ' } else { character }
}

/// Returns `text` as one line, see [`visible`].
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// The separator between the parts of a possible link.
///
/// A hair space. A character without width does not break a link: some programs treat it as part
/// of a host name (Android's `Linkify`, and mail programs that use it), and browsers remove it
/// from the name (UTS #46), so that the link works. No program makes a link across white space.
pub(super) const LINK_BREAK: char = '\u{200a}';

/// Returns one line of untrusted text in which no program finds a link: neither a URL, nor a bare
/// host name or e-mail address, nor a Windows share. Chats and mail programs make links of them
/// even in messages without markup. The text looks the same except for a [`LINK_BREAK`] before
/// each `:`, `.`, `@` and second `\` inside a possible link; times and numbers stay unchanged.
pub(super) fn unlinked(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for word in line.split_inclusive(char::is_whitespace) {
        // An IPv4 address has three dots.
        let is_number_s = |before: char, after: char| {
            before.is_ascii_digit() && after.is_ascii_digit() && word.matches(is_dot).count() < 3
        };
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

/// Returns whether `character` is a full stop, or equivalent to one in host names (UTS #46).
const fn is_dot(character: char) -> bool {
    matches!(character, '.' | '\u{3002}' | '\u{ff0e}' | '\u{ff61}')
}

/// Returns `text` truncated to `limit` characters (Unicode scalar values). Truncated text ends
/// with an ellipsis.
pub(super) fn cut(text: &str, limit: usize) -> String {
    if text.chars().nth(limit).is_none() {
        return text.to_owned();
    }
    text.chars()
        .take(limit.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Removes the link breaks.
    fn joined(text: &str) -> String {
        text.replace(LINK_BREAK, "")
    }

    #[test]
    fn links_in_a_line_are_broken_and_other_text_stays_unchanged() {
        for (line, shown) in [
            (
                "see https://evil.example/a?b=c.d#e",
                "see https|://evil|.example/a?b=c|.d#e",
            ),
            (
                "www.evil.example, evil.example.",
                "www|.evil|.example, evil|.example.",
            ),
            ("mailto:eve@evil.example", "mailto|:eve|@evil|.example"),
            (
                "tel:+49123 javascript:alert(1)",
                "tel|:+49123 javascript|:alert(1)",
            ),
            ("localhost:8080 10.0.0.1", "localhost|:8080 10|.0|.0|.1"),
            (r"\\evil\share", r"\|\evil\share"),
            (
                "evil\u{3002}example evil\u{ff0e}example i❤.ws",
                "evil|\u{3002}example evil|\u{ff0e}example i❤|.ws",
            ),
            (
                "evil.\u{200b}example https\u{200b}://x",
                "evil|.\u{200b}example https\u{200b}|://x",
            ),
            ("config.rs", "config|.rs"),
            (
                "Größe: 1.5 statt 2.25.1, um 14:05 Uhr ... so. (WEB-17)",
                "Größe: 1.5 statt 2.25.1, um 14:05 Uhr ... so. (WEB-17)",
            ),
            ("", ""),
        ] {
            assert_eq!(unlinked(line).replace(LINK_BREAK, "|"), shown);
            assert_eq!(joined(&unlinked(line)), line);
        }
    }

    proptest! {
        #[test]
        fn a_line_with_the_breaks_has_no_link_and_without_them_is_the_original(
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
    fn text_is_truncated_at_characters_and_ends_with_an_ellipsis() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü€", 3), "äö…");
    }

    #[test]
    fn a_piece_that_does_not_fit_is_omitted_completely() {
        let mut text = Capped::new(5);
        text.push_all(["ab", "&amp;", "c"]);
        assert_eq!(text.finish(), "ab…");
    }

    #[test]
    fn characters_that_break_a_line_or_change_its_direction_become_spaces() {
        assert_eq!(one_line("a\r\nb\u{202e}c\u{2028}d\u{0}é"), "a  b c d é");
    }
}
