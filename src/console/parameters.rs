//! The parameters of a query. One may be given several times where its type is a list.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor,
    value::StringDeserializer,
};
use serde::forward_to_deserialize_any;

/// Parses a query string into its type.
///
/// # Errors
/// What was expected, and of which parameter.
pub(super) fn read<T: DeserializeOwned>(query: &str) -> Result<T, String> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for (name, value) in pairs(query) {
        if name.contains('\0') || value.contains('\0') {
            return Err("expected text without the character NUL, got one with it".to_owned());
        }
        match parameters.iter_mut().find(|one| one.name == name) {
            Some(known) => known.values.push(value),
            None => parameters.push(Parameter {
                name,
                values: vec![value],
            }),
        }
    }
    let fields = parameters.into_iter().map(|one| (one.name.clone(), one));
    T::deserialize(MapDeserializer::new(fields)).map_err(|error: Error| error.to_string())
}

/// Returns the names and values of a query, decoded, in their order.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    // Every text is a valid query: what is not encoded is taken as it is.
    serde_urlencoded::from_str(query).unwrap_or_default()
}

/// Returns a query with other values of these parameters; `None` removes one.
pub(super) fn with(query: &str, changes: &[(&str, Option<&str>)]) -> String {
    let is_kept = |name: &str| changes.iter().all(|(changed, _)| *changed != name);
    let mut kept = pairs(query);
    kept.retain(|(name, _)| is_kept(name));
    for (name, value) in changes {
        kept.extend(value.map(|value| ((*name).to_owned(), value.to_owned())));
    }
    serde_urlencoded::to_string(kept).unwrap_or_default()
}

/// Returns the address of a page with a query, which may be empty.
pub(super) fn address(path: &str, query: &str) -> String {
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// A parameter with everything that it was given as, at least one value.
struct Parameter {
    name: String,
    values: Vec<String>,
}

impl Parameter {
    fn one(mut self) -> Result<(String, String), Error> {
        match (self.values.pop(), self.values.len()) {
            (Some(value), 0) => Ok((self.name, value)),
            (_, more) => Err(Error::custom(format!(
                "expected one value of `{}`, got {}",
                self.name,
                more + 1
            ))),
        }
    }

    fn number<T: FromStr<Err: Display>>(self) -> Result<T, Error> {
        let (name, value) = self.one()?;
        value.parse().map_err(|error| named(&name, error))
    }

    /// Lets `visit` read the one value.
    fn text<R>(
        self,
        visit: impl FnOnce(StringDeserializer<Error>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (name, value) = self.one()?;
        visit(value.into_deserializer()).map_err(|error| named(&name, error))
    }
}

/// Returns an error that names its parameter.
fn named(name: &str, error: impl Display) -> Error {
    let text = error.to_string();
    if text.contains(&format!("`{name}`")) {
        Error::custom(text)
    } else {
        Error::custom(format!("`{name}`: {text}"))
    }
}

impl IntoDeserializer<'_> for Parameter {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Declares how numbers are read.
macro_rules! numbers {
    ($($method:ident $visit:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number()?)
        })+
    };
}

impl<'de> Deserializer<'de> for Parameter {
    type Error = Error;

    numbers! { deserialize_bool visit_bool deserialize_i32 visit_i32 deserialize_i64 visit_i64 deserialize_u64 visit_u64 }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.text(|text| text.deserialize_any(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let name = self.name.clone();
        visitor
            .visit_some(self)
            .map_err(|error: Error| named(&name, error))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.text(|text| text.deserialize_enum(name, variants, visitor))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self { name, mut values } = self;
        let mut known = Vec::new();
        values.retain(|value| {
            let is_new = !known.contains(value);
            known.push(value.clone());
            is_new
        });
        let each = values.into_iter().map(|value| Self {
            name: name.clone(),
            values: vec![value],
        });
        let read = visitor.visit_seq(SeqDeserializer::new(each));
        read.map_err(|error: Error| named(&name, error))
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::job::{JobId, JobState};
    use crate::store::Since;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Asked {
        state: Vec<JobState>,
        parent: Option<JobId>,
        item: Option<i64>,
        since: Option<Since>,
        all: bool,
    }

    fn asked(query: &str) -> Result<Asked, String> {
        read(query)
    }

    #[test]
    fn a_list_takes_several_values_and_every_other_parameter_one() {
        let both = Asked {
            state: vec![JobState::Parked, JobState::Waiting],
            ..Asked::default()
        };
        assert_eq!(asked("state=parked&state=waiting&state=parked"), Ok(both));
        let id = "0195612e-9a00-7000-8000-000000000001";
        let one = Asked {
            parent: id.parse().ok(),
            item: Some(-3),
            all: true,
            ..Asked::default()
        };
        assert_eq!(asked(&format!("parent={id}&item=-3&all=true")), Ok(one));
        assert_eq!(asked(""), Ok(Asked::default()));
    }

    #[test]
    fn a_wrong_parameter_is_refused_by_its_name() {
        for (query, part) in [
            ("item=1&item=2", "one value of `item`, got 2"),
            ("all=true&all=true", "one value of `all`"),
            ("item=x", "`item`: invalid digit"),
            ("item=99999999999999999999", "`item`: number too large"),
            ("item=", "`item`: "),
            ("all=yes", "`all`: "),
            ("state=red", "`state`: unknown variant"),
            ("parent=x", "`parent`: "),
            ("since=x", "`since`: expected an age"),
            ("colour=red", "unknown field `colour`"),
            ("state=%00", "NUL"),
        ] {
            let error = asked(query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }

    #[test]
    fn a_query_is_changed_without_losing_the_other_parameters() {
        let query = "state=parked&source=a%26b&state=waiting&before=x";
        assert_eq!(
            with(query, &[("before", Some("y")), ("limit", None)]),
            "state=parked&source=a%26b&state=waiting&before=y"
        );
        assert_eq!(with("before=x", &[("before", None)]), "");
    }
}
