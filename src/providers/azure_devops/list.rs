//! The vendor's lists.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// They come as `{count, value}`, and where the description says so as a bare array. What is null, as the token may not see it, is
/// left out. An entry that cannot be read spoils no other one. Read as it comes, without a copy of what nobody asked for: an answer
/// may be hostile.
pub(super) struct List<'a, T> {
    pub(super) items: Vec<T>,
    /// The entries that do not have the shape of `T`.
    pub(super) unreadable: Vec<Unreadable<'a>>,
}

/// An entry that cannot be read.
pub(super) struct Unreadable<'a> {
    pub(super) entry: &'a RawValue,
    pub(super) why: serde_json::Error,
}

impl<T> List<'_, T> {
    /// The entries that could be read.
    ///
    /// # Errors
    /// Where there are entries and none of them could be read: the answer is not what the vendor describes.
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
        let mut list = List { items: Vec::new(), unreadable: Vec::new() };
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
    fn an_entry_that_cannot_be_read_spoils_no_other_one() {
        for text in [r#"{"count": 4, "value": [1, null, "x", 2]}"#, r#"[1, null, "x", 2]"#] {
            let list: List<'_, i64> = serde_json::from_str(text).unwrap();
            assert_eq!(list.unreadable.iter().map(|one| one.entry.get()).collect::<Vec<_>>(), [r#""x""#]);
            assert_eq!(list.readable().unwrap(), [1, 2]);
        }
    }

    #[test]
    fn a_list_of_which_nothing_can_be_read_is_no_list_and_an_empty_one_is() {
        let read = |text: &'static str| serde_json::from_str::<List<'_, i64>>(text).unwrap().readable();
        assert!(read(r#"["x", "y"]"#).is_err());
        assert_eq!(read(r#"{"value": [null]}"#).unwrap(), [0; 0]);
        assert!(serde_json::from_str::<List<'_, i64>>("{}").is_err());
    }
}
