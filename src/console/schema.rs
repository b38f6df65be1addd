//! Whether the database has the schema that this console was built for. With another one, the
//! console shows what its statements can still read, and changes nothing: a statement of another
//! version could write what the schema no longer means.

use super::problem::Problem;
use super::state::Console;
use crate::store::{Store, StoreError};

/// Seconds after which a refused program tries again.
const AGAIN: u64 = 30;

/// The version that was found, which is not the one that this console needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OtherSchema {
    found: i64,
    needed: i64,
}

impl OtherSchema {
    /// Reads the version. `None` if it is the one that this console was built for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn read(store: &Store) -> Result<Option<Self>, StoreError> {
        match store.schema_version().await {
            Ok((found, needed)) => Ok((found != needed).then_some(Self { found, needed })),
            Err(error) if error.is_of_schema() => Ok(Some(Self {
                found: 0,
                needed: Store::needed_schema_version(),
            })),
            Err(error) => Err(error),
        }
    }

    /// Returns the sentence for the bar of pages.
    pub(super) fn sentence(self) -> String {
        format!(
            "{}. Nothing can be changed here, and some parts may not be readable. {}",
            self.detail(),
            self.hint()
        )
    }

    fn detail(self) -> String {
        format!(
            "Expected schema V{} in the database, got V{}",
            self.needed, self.found
        )
    }

    const fn hint(self) -> &'static str {
        if self.found > self.needed {
            "Deploy the console of the version that has migrated the database."
        } else {
            "Run `dispatch migrate` of this version."
        }
    }
}

impl From<OtherSchema> for Problem {
    fn from(other: OtherSchema) -> Self {
        Self::other_schema(other.detail())
            .hint(other.hint())
            .after(AGAIN)
    }
}

/// Refuses a change while the database has another schema. It is read for each change, so that a
/// migration counts as soon as it is applied.
///
/// # Errors
/// `other_schema`, and errors of the store.
pub(super) async fn permit_changes(console: &Console) -> Result<(), Problem> {
    match OtherSchema::read(&console.parts.reads).await? {
        Some(other) => Err(other.into()),
        None => Ok(()),
    }
}

/// Returns what explains a failed statement: the other schema, if there is one.
pub(super) async fn explained(console: &Console, problem: Problem) -> Problem {
    match OtherSchema::read(&console.parts.reads).await {
        Ok(Some(other)) if problem.code == "internal" => other.into(),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_both_versions_and_what_to_do() {
        let newer = OtherSchema {
            found: 26,
            needed: 25,
        };
        let sentence = newer.sentence();
        assert!(sentence.contains("V25") && sentence.contains("V26"));
        assert!(sentence.contains("Deploy the console"), "{sentence}");
        let older = OtherSchema {
            found: 24,
            needed: 25,
        };
        assert!(older.sentence().contains("dispatch migrate"));
        let problem = Problem::from(older);
        assert_eq!((problem.status, problem.code), (503, "other_schema"));
        assert!(problem.hint.contains("dispatch migrate"));
    }
}
