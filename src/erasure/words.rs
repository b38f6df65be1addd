//! The names of a person or an organization, and the search for them in texts, by Postgres and by
//! this program.

use std::fmt::Write;

use serde_json::Value;

use crate::message::read_body;

/// The minimum length of a word: shorter ones occur in too many other words.
const SHORTEST: usize = 3;
/// The maximum number of words of one erasure; `LENGTH_LIMIT` is the maximum length of one in
/// characters. Every text is matched against a regular expression of all of them.
pub const WORDS_LIMIT: usize = 1_000;
const LENGTH_LIMIT: usize = 320;
/// A regular expression that matches no text.
const NOTHING: &str = "(?=.)(?!.)";

/// Names and addresses. The search is case-insensitive and finds only whole words:
/// `ann@acme.example` is not in `joann@acme.example`.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    /// The words in lowercase, longest first.
    words: Vec<String>,
    /// The words that are not searched for, because they are too short or too long.
    pub(super) left_out: Vec<String>,
}

impl Words {
    /// Collects the words of these texts; `None` if there are more than [`WORDS_LIMIT`].
    pub(super) fn of(texts: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut all = Self::default();
        for text in texts {
            let text = text.trim().to_lowercase();
            let length = text.chars().count();
            if (SHORTEST..=LENGTH_LIMIT).contains(&length) {
                all.words.push(text);
            } else if length > 0 {
                all.left_out.push(text);
            }
        }
        all.words.sort_unstable_by(|one, other| {
            other.len().cmp(&one.len()).then_with(|| one.cmp(other))
        });
        all.words.dedup();
        (all.words.len() <= WORDS_LIMIT).then_some(all)
    }

    /// Returns an advanced regular expression of Postgres for case-insensitive matches. It finds a
    /// word in plain text and in the text of JSON, where characters may be escaped. Without words
    /// it matches nothing.
    pub(super) fn pattern(&self) -> String {
        if self.words.is_empty() {
            return NOTHING.to_owned();
        }
        let words: Vec<String> = self
            .words
            .iter()
            .map(|word| word.chars().map(either).collect())
            .collect();
        // A word may follow a JSON escape, whose last character is a letter.
        let begins = r"(?:(?<![[:alnum:]_.+-])|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4}))";
        let ends = r"(?![[:alnum:]_-]|\.[[:alnum:]])";
        format!("{begins}(?:{}){ends}", words.join("|"))
    }

    /// Returns whether a text contains one of the words.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.words.iter().any(|word| {
            text.match_indices(word.as_str())
                .any(|(at, _)| is_whole(&text[..at], &text[at + word.len()..]))
        })
    }
}

fn is_whole(before: &str, after: &str) -> bool {
    let is_inner = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let begins = !before
        .chars()
        .next_back()
        .is_some_and(|c| is_inner(c) || c == '.' || c == '+')
        || ends_with_escape(before);
    let mut next = after.chars();
    let ends = match next.next() {
        Some('.') => !next.next().is_some_and(char::is_alphanumeric),
        Some(c) => !is_inner(c),
        None => true,
    };
    begins && ends
}

fn ends_with_escape(before: &str) -> bool {
    let short = before
        .strip_suffix(['b', 'f', 'n', 'r', 't'])
        .is_some_and(|rest| rest.ends_with('\\'));
    let hex = before.len().checked_sub(6).and_then(|at| before.get(at..));
    short
        || hex.is_some_and(|hex| {
            hex.starts_with("\\u") && hex[2..].chars().all(|c| c.is_ascii_hexdigit())
        })
}

/// Returns an expression for a character, plain or as JSON may escape it. Serializers never escape
/// ASCII letters and digits.
fn either(c: char) -> String {
    if c.is_ascii_alphanumeric() {
        return c.to_string();
    }
    let mut forms = String::from("(?:");
    for variant in c.to_uppercase().chain(c.to_lowercase()) {
        let mut units = [0; 2];
        forms.push_str(&literal(variant));
        forms.push('|');
        for unit in variant.encode_utf16(&mut units) {
            write!(forms, r"\\u{unit:04x}").expect("writing to a string cannot fail");
        }
        forms.push('|');
    }
    if matches!(c, '"' | '\\' | '/') {
        forms.push_str(r"\\");
        forms.push_str(&literal(c));
        forms.push('|');
    }
    forms.pop();
    forms.push(')');
    forms
}

fn literal(c: char) -> String {
    if c.is_ascii_punctuation() {
        format!("\\{c}")
    } else {
        c.to_string()
    }
}

/// Parses a stored message or payload as intake does, with invalid UTF-8 replaced. Returns `None`
/// if it is not JSON.
pub(super) fn parsed(bytes: &[u8]) -> Option<Value> {
    read_body(String::from_utf8_lossy(bytes).as_bytes())
}

/// Returns the text of a message or a payload for a search by [`Words`]: as stored, which has the
/// values of repeated keys, and JSON serialized again as well, so that no character is escaped
/// unnecessarily.
pub(super) fn readable(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if let Some(json) = read_body(text.as_bytes()) {
        text.push('\n');
        text.push_str(&json.to_string());
    }
    text
}

/// Returns a regular expression for the member of a JSON object that names an organization.
pub(super) fn member(name: &str, value: &str) -> String {
    let value: String = value
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_string()
            } else {
                either(c)
            }
        })
        .collect();
    format!(r#""{name}"\s*:\s*"{value}""#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Words {
        Words::of(texts.iter().map(|text| (*text).to_owned())).unwrap()
    }

    #[test]
    fn a_word_is_found_whole_and_in_any_case() {
        let words = words(&["ann@acme.example", "Zoë Ann"]);
        for text in [
            "ann@acme.example",
            "<ANN@acme.example>",
            "mail ann@acme.example.",
            "a\\nann@acme.example",
            "by ZOË ann, today",
        ] {
            assert!(words.is_in(text), "{text}");
        }
        for text in [
            "joann@acme.example",
            "jo.ann@acme.example",
            "ann@acme.example.org",
            "ann@acme",
            "Zoë Anna",
            "",
        ] {
            assert!(!words.is_in(text), "{text}");
        }
    }

    #[test]
    fn an_escaped_word_is_found_where_the_text_is_json() {
        let words = words(&["Zoë Ann"]);
        for text in [
            r#"{"a": "Zo\u00eb Ann"}"#,
            r#"{"a": "\u005ao\u00eb\u0020Ann"}"#,
            r#"["Zoë Ann"]"#,
            "Zoë Ann, not JSON",
        ] {
            assert!(words.is_in(&readable(text.as_bytes())), "{text}");
        }
        let others: [&[u8]; 5] = [
            b"\xff Zo\xc3\xab Ann",
            b"{\"a\": \"Zo\\u00eb Ann\", \"b\": \"\xff\"}",
            b"\xef\xbb\xbf{\"a\": \"Zo\\u00eb Ann\"}",
            b"{\"a\": \"Zo\\u00eb Ann\", \"b\": \"\\ud800\"}",
            b"{\"a\": \"Zo\xc3\xab Ann\", \"a\": \"shadows it\"}",
        ];
        for bytes in others {
            assert!(
                words.is_in(&readable(bytes)),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        assert_eq!(
            parsed(b"{\"organization\": \"globex\", \"title\": \"acme caf\xe9\"}").unwrap()["organization"],
            "globex"
        );
    }

    #[test]
    fn what_is_too_short_is_left_out_and_said() {
        let words = words(&["Al", "", " al@acme.example "]);
        assert_eq!(
            (words.left_out.as_slice(), words.words.as_slice()),
            (&["al".to_owned()][..], &["al@acme.example".to_owned()][..])
        );
        assert!(Words::of((0..=WORDS_LIMIT).map(|n| format!("word {n}"))).is_none());
        assert_eq!(Words::default().pattern(), NOTHING);
    }
}
