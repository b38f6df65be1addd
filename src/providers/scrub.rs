//! Removes text that looks like a secret from other services' answers: an error body may repeat a
//! token, and error bodies are stored, logged and shown.

use crate::fault::{MESSAGE_BYTES, storable};

/// The replacement of a secret.
const MARK: &str = "[scrubbed]";
/// A run of letters and digits this long is more likely a key than a word.
const LONG: usize = 32;
/// The shortest credential after `Bot` or `Basic`, which are also ordinary words.
const AFTER_SCHEME: usize = 16;
/// Names of secrets; the value follows after `:` or `=`.
const NAMES: [&str; 7] = [
    "token",
    "secret",
    "password",
    "authorization",
    "signature",
    "api_key",
    "apikey",
];

/// Returns `text` without anything that looks like a credential, truncated to [`MESSAGE_BYTES`].
/// Truncation comes last, so that it cannot shorten a secret to text that no longer looks like
/// one.
#[must_use]
pub fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MESSAGE_BYTES));
    let mut before = Before::default();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = is_word(first);
        let end = rest.find(|c| is_word(c) != in_word).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        if in_word {
            let is_secret = before.makes_secret(run)
                || (looks_secret(run) && !is_mailbox(run, &before.gap, tail));
            out.push_str(if is_secret { MARK } else { run });
            before = Before {
                word: run.to_ascii_lowercase(),
                gap: String::new(),
            };
        } else {
            out.push_str(run);
            run.clone_into(&mut before.gap);
        }
        rest = tail;
    }
    // The replacement of NUL is longer, so it comes before the truncation.
    storable(&out.replace('\0', "\u{fffd}"), MESSAGE_BYTES)
}

/// The text before a word: the previous word, and the characters between them.
#[derive(Default)]
struct Before {
    word: String,
    gap: String,
}

impl Before {
    fn makes_secret(&self, word: &str) -> bool {
        let named =
            self.gap.contains([':', '=']) && NAMES.iter().any(|name| self.word.ends_with(name));
        let scheme = match self.word.as_str() {
            "bearer" => true,
            "bot" | "basic" => word.len() >= AFTER_SCHEME,
            _ => false,
        };
        (named && !is_scheme(word)) || (scheme && self.gap.chars().all(|c| c == ' ' || c == ':'))
    }
}

fn is_scheme(word: &str) -> bool {
    ["bearer", "bot", "basic"]
        .iter()
        .any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Returns whether `c` occurs in base64, base64url, JSON web tokens or percent-encoding. `=` only
/// ends a word and is excluded.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-' | '.' | '~' | '%')
}

fn looks_secret(word: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| word.bytes().any(|byte| kind(&byte));
    word.starts_with("whsec_")
        || (word.starts_with("eyJ") && word.len() > AFTER_SCHEME)
        || (word.len() >= LONG
            && has(u8::is_ascii_digit)
            && has(u8::is_ascii_alphabetic)
            && !is_guid(word))
}

/// Returns whether a word is the local part of an e-mail address, which operators need to read.
/// Credentials in a URL follow a scheme or a colon and do not count.
fn is_mailbox(word: &str, gap: &str, tail: &str) -> bool {
    let of_mailbox = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let domain = tail
        .strip_prefix('@')
        .and_then(|rest| rest.split(|c| !is_word(c)).next())
        .unwrap_or_default();
    // Some names contain a GUID without hyphens; a longer run is a key in front of a host.
    let has_key = word
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|run| run.len() > LONG);
    !gap.ends_with([':', '@'])
        && word.chars().all(of_mailbox)
        && !word.starts_with("eyJ")
        && !has_key
        && domain.contains('.')
}

fn is_guid(word: &str) -> bool {
    let groups: Vec<&str> = word.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_that_looks_like_a_credential_is_removed() {
        for (text, secret) in [
            ("Authorization: Bearer abc.def-ghi rejected", "abc.def-ghi"),
            (
                "header `Authorization: Bot MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs`",
                "ZnCjm1XV",
            ),
            (r#"{"access_token":"short"}"#, "short"),
            (r#"{"client_secret" : "s3"}"#, "s3"),
            ("signed with whsec_MfKQ9r8G", "MfKQ9r8G"),
            (
                "pat lm3nq7aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "lm3nq7",
            ),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIi", "eyJ"),
            (
                "https://user:lm3nq7aaaaaaaaaaaaaaaaaaaaaaaaaaaa@dev.example.com/x",
                "lm3nq7",
            ),
            (
                "https://lm3nq7aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@dev.example.com/x",
                "lm3nq7",
            ),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIi@field.example", "eyJ"),
            (
                "clone lm3nq7aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@dev.example.com",
                "lm3nq7",
            ),
        ] {
            let out = scrub(text);
            assert!(!out.contains(secret), "{out}");
            assert!(out.contains(MARK), "{out}");
        }
    }

    #[test]
    fn text_that_operators_need_is_kept() {
        for text in [
            "VS403351: Test Operation for path /rev failed, value 5 was not equal to test value 4.",
            "TF400813: The user '4d7f2a10-1c2b-4e5f-8a9b-0c1d2e3f4a5b' is not authorized",
            "Microsoft.TeamFoundation.WorkItemTracking.Server.WorkItemUnauthorizedAccessException",
            "the bot cannot post here",
            "The identity value 'OIDCONFLICT_UpnReuse_4d7f2a101c2b4e5f8a9b0c1d2e3f4a5b_ann@field.example' is an unknown identity.",
        ] {
            assert_eq!(scrub(text), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_scrubbed_within_the_limit(text in ".{0,4000}") {
            prop_assert!(scrub(&text).len() <= MESSAGE_BYTES);
        }

        #[test]
        fn a_long_random_key_is_always_removed(key in "[A-Za-z0-9+/]{40,90}", before in "[ \"'(,]{1,2}") {
            prop_assume!(key.bytes().any(|b| b.is_ascii_digit()) && key.bytes().any(|b| b.is_ascii_alphabetic()));
            let out = scrub(&format!("{before}{key} is wrong"));
            prop_assert!(!out.contains(&key));
        }
    }
}
