//! Bodies over the limit, which are discarded while they arrive, and the source and dedupe key
//! that a refused message names.

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::repair::{shown_string, without_mark};

/// Size and digest of a body of which only the beginning was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discarded {
    /// Its size as received.
    pub bytes: u64,
    /// SHA-256 of the whole body.
    pub sha256: [u8; 32],
}

impl Discarded {
    /// Returns size and digest of a body that is in memory.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self {
            bytes: body.len() as u64,
            sha256: Sha256::digest(body).into(),
        }
    }
}

/// The source and dedupe key of a refused message, as far as they can be parsed. No other field is
/// built in memory, whatever its size.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JobKey {
    pub source: Option<String>,
    pub dedupe_key: Option<String>,
}

/// The two fields of a complete object in which each occurs at most once.
#[derive(Default, Deserialize)]
struct Whole<'a> {
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    dedupe_key: Option<&'a RawValue>,
}

impl JobKey {
    /// Reads the fields from a complete body.
    #[must_use]
    pub fn in_body(body: &[u8]) -> Self {
        let whole = serde_json::from_slice::<Whole<'_>>(without_mark(body)).unwrap_or_default();
        let text = |value: Option<&RawValue>| value.and_then(|value| shown_string(value.get()));
        Self {
            source: text(whole.source),
            dedupe_key: text(whole.dedupe_key),
        }
    }

    /// Reads the fields from the beginning of a body, whose rest is unknown.
    #[must_use]
    pub fn in_beginning(beginning: &[u8]) -> Self {
        let mut key = Self::default();
        let mut reader = serde_json::Deserializer::from_slice(without_mark(beginning));
        let _end_of_the_beginning =
            serde::Deserializer::deserialize_map(&mut reader, Gather(&mut key));
        key
    }
}

/// Collects the fields of an object until it is truncated.
struct Gather<'s>(&'s mut JobKey);

impl<'de> Visitor<'de> for Gather<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let field = match key.as_str() {
                "source" => &mut self.0.source,
                "dedupe_key" => &mut self.0.dedupe_key,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let is_second = field.is_some();
            *field = shown_string(map.next_value::<&RawValue>()?.get());
            if is_second {
                *self.0 = JobKey::default();
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: Option<&str>, dedupe_key: Option<&str>) -> JobKey {
        JobKey {
            source: source.map(str::to_owned),
            dedupe_key: dedupe_key.map(str::to_owned),
        }
    }

    #[test]
    fn the_beginning_of_a_body_gives_its_source_and_key_as_far_as_it_goes() {
        let body = "\u{feff}{\"source\": \"a\", \"events\": [1, {\"x\": 2}], \"dedupe_key\": \"k\", \"account\": \"…";
        assert_eq!(
            JobKey::in_beginning(body.as_bytes()),
            key(Some("a"), Some("k"))
        );
        let cut = body.find("\"k\"").unwrap() + 2;
        assert_eq!(
            JobKey::in_beginning(&body.as_bytes()[..cut]),
            key(Some("a"), None)
        );
        for nothing in [
            "",
            "{",
            "{\"source\": \"a\", \"source\": \"b\", ",
            "[\"source\"]",
            "\"source\"",
            "\0",
        ] {
            assert_eq!(
                JobKey::in_beginning(nothing.as_bytes()),
                JobKey::default(),
                "{nothing:?}"
            );
        }
    }

    #[test]
    fn a_whole_body_that_cannot_be_parsed_gives_no_source_and_no_key() {
        assert_eq!(
            JobKey::in_body(b"{\"source\": \"a\", \"dedupe_key\": 7}"),
            key(Some("a"), None)
        );
        assert_eq!(
            JobKey::in_body(b"{\"source\": \"a\", \"source\": \"b\"}"),
            JobKey::default(),
            "of two, neither"
        );
        assert_eq!(JobKey::in_body(b"{\"source\": \"a\""), JobKey::default());
    }
}
