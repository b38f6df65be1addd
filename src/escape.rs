//! Escapes untrusted text for logs and terminals: characters that could begin a line, move a
//! cursor or change the direction of text are shown, not executed.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Returns whether a character acts where it is shown: control characters (C0 with CR, LF and ESC;
/// DEL; C1), the line and paragraph separators U+2028 and U+2029, and the characters that embed,
/// override or isolate a direction (Unicode Standard Annex 9).
#[must_use]
pub fn acts(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Displays a text as one harmless line: each character that [`acts`] is written as in a Rust
/// literal (`\n`, `\u{1b}`).
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(acts) {
            let (before, from) = rest.split_at(at);
            f.write_str(before)?;
            let mut characters = from.chars();
            characters
                .next()
                .map_or(Ok(()), |acting| write!(f, "{}", acting.escape_default()))?;
            rest = characters.as_str();
        }
        f.write_str(rest)
    }
}

/// Returns JSON text with the same meaning in which characters that [`acts`] holds for, but that
/// JSON permits in a string, are written as `\uXXXX`. Below U+0020, JSON contains only white space
/// between values.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    let must_go = |character: char| character > '\u{1f}' && acts(character);
    if !text.contains(must_go) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if must_go(character) {
            // All of these characters are in the basic plane, and writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn control_characters_are_escaped_and_all_others_stay() {
        let shown =
            Escaped("a\r\nb\u{1b}[2Jc\u{7f}\u{85}d\u{2028}\u{202e}\u{2066}é\u{0} \\n").to_string();
        assert_eq!(
            shown,
            r"a\r\nb\u{1b}[2Jc\u{7f}\u{85}d\u{2028}\u{202e}\u{2066}é\u{0} \n"
        );
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            prop_assert!(!Escaped(&text).to_string().contains(acts));
        }

        #[test]
        fn a_json_text_keeps_its_meaning(text in any::<String>(), at in any::<char>()) {
            let value = Value::from(format!("{text}\u{9b}{at}\u{2029}"));
            let plain = value.to_string();
            let escaped = json(&plain);
            prop_assert!(!escaped.contains(acts));
            prop_assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
        }
    }
}
