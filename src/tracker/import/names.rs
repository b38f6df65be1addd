//! The names that a document may refer to, and the error for an unknown name.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use crate::tracker::TrackerFault;

/// The number of existing names that an error lists.
const TOLD: usize = 10;

/// The rows of one kind by name, within a scope (an organization's id, or 0).
pub(super) struct Names {
    kind: &'static str,
    by_name: BTreeMap<(i64, String), i64>,
}

impl Names {
    /// Reads the names from rows with `scope`, `name` and `id`.
    pub(super) fn of(kind: &'static str, rows: &[Row]) -> Result<Self, TrackerFault> {
        let name = |row: &Row| -> Result<_, TrackerFault> {
            Ok((
                (row.try_get("scope")?, row.try_get("name")?),
                row.try_get("id")?,
            ))
        };
        Ok(Self {
            kind,
            by_name: rows.iter().map(name).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the id of `name`; an error names the place `at` of the reference.
    pub(super) fn id(
        &self,
        scope: i64,
        name: &str,
        at: impl FnOnce() -> String,
    ) -> Result<i64, TrackerFault> {
        let known = self.by_name.get(&(scope, name.to_owned())).copied();
        known.ok_or_else(|| TrackerFault::UnknownReference {
            at: at(),
            kind: self.kind,
            name: name.to_owned(),
            right: self.right(scope),
        })
    }

    fn right(&self, scope: i64) -> String {
        let names: Vec<&str> = self
            .by_name
            .keys()
            .filter(|(of, _)| *of == scope)
            .map(|(_, name)| name.as_str())
            .collect();
        match names.len() {
            0 => format!("one that the document adds (there is no {} yet)", self.kind),
            1..=TOLD => format!("one of: {}", names.join(", ")),
            many => format!(
                "one of: {} and {} more",
                names[..TOLD].join(", "),
                many - TOLD
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_reported_with_some_valid_ones() {
        let by_name = (0..12).map(|n| ((1, format!("t{n:02}")), n)).collect();
        let names = Names {
            kind: "team",
            by_name,
        };
        assert_eq!(names.id(1, "t03", String::new).unwrap(), 3);
        let error = names
            .id(1, "x", || "group WEB-1".to_owned())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "group WEB-1: there is no team `x`; use one of: t00, t01, t02, t03, t04, t05, t06, t07, t08, t09 and 2 more"
        );
        let elsewhere = names
            .id(2, "t03", || "group API-1".to_owned())
            .unwrap_err()
            .to_string();
        assert!(
            elsewhere.ends_with("one that the document adds (there is no team yet)"),
            "{elsewhere}"
        );
    }
}
