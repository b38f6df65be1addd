//! Parsing of the vendor's lists.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A list of entries: `{count, value}`, or a bare array where the documentation states that. A
/// null entry, which the token may not see, is skipped. An entry that cannot be parsed does not
/// affect the others. The parser is streaming and does not copy unused fields, because an answer
/// may be hostile.
pub(super) struct List<'a, T> {
    pub(super) items: Vec<T>,
    /// The entries that do not have the shape of `T`.
    pub(super) unreadable: Vec<Unreadable<'a>>,
}

/// An entry that cannot be parsed.
pub(super) struct Unreadable<'a> {
    pub(super) entry: &'a RawValue,
    pub(super) why: serde_json::Error,
}

impl<T> List<'_, T> {
    /// Returns the entries that could be parsed.
    ///
    /// # Errors
    /// If there are entries and none of them could be parsed: the answer does not match the
    /// vendor's documentation.
    pub(super) fn readable(self) -> Result<Vec<T>, serde_json::Error> {
        match self.unreadable.into_iter().next() {
            Some(first) if self.items.is_empty() => Err(first.why),
            Some(_) | None => Ok(self.items),
        }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    Value,
    #[serde(other)]
    Other,
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<'de, T> {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        list.deserialize_any(ListVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<'de, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, or an object with one as `value`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<List<'de, T>, A::Error> {
        let mut list = List {
            items: Vec::new(),
            unreadable: Vec::new(),
        };
        while let Some(entry) = entries.next_element::<Option<&'de RawValue>>()? {
            let Some(entry) = entry else { continue };
            match serde_json::from_str(entry.get()) {
                Ok(item) => list.items.push(item),
                Err(why) => list.unreadable.push(Unreadable { entry, why }),
            }
        }
        Ok(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<List<'de, T>, A::Error> {
        let mut list = None;
        while let Some(member) = members.next_key()? {
            match member {
                Member::Value => list = Some(members.next_value()?),
                Member::Other => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        list.ok_or_else(|| A::Error::missing_field("value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_cannot_be_parsed_does_not_affect_the_others() {
        for text in [
            r#"{"count": 4, "value": [1, null, "x", 2]}"#,
            r#"[1, null, "x", 2]"#,
        ] {
            let list: List<'_, i64> = serde_json::from_str(text).unwrap();
            assert_eq!(
                list.unreadable
                    .iter()
                    .map(|one| one.entry.get())
                    .collect::<Vec<_>>(),
                [r#""x""#]
            );
            assert_eq!(list.readable().unwrap(), [1, 2]);
        }
    }

    #[test]
    fn a_list_without_readable_entries_is_an_error_and_an_empty_list_is_not() {
        let read = |text: &'static str| {
            serde_json::from_str::<List<'_, i64>>(text)
                .unwrap()
                .readable()
        };
        assert!(read(r#"["x", "y"]"#).is_err());
        assert_eq!(read(r#"{"value": [null]}"#).unwrap(), [0; 0]);
        assert!(serde_json::from_str::<List<'_, i64>>("{}").is_err());
    }
}
