//! Erases a person or an organization from all tables of the engine and of the product: deletes
//! their own data, and replaces their names by a pseudonym where other data must stay.
//!
//! **Invariant:** an erasure repeats its search until nothing names the subject, and deletes the
//! row that identifies the subject last; an interrupted erasure is repeated unchanged.
//!
//! An erasure scans whole tables, one window at a time, on its own connection without timeouts. It
//! needs the owner's role and the keyring, because it opens the bodies of dead letters to find
//! their subjects. It never runs in a worker.

mod audit;
mod letters;
mod live;
mod organization;
mod passes;
mod person;
mod texts;
mod words;

use std::collections::BTreeMap;

use tokio_postgres::Client;

pub use words::WORDS_LIMIT;

use self::words::Words;
use crate::fault::{Class, Fault};
use crate::pg_error::is_infrastructure;
use crate::secrets::{Keyring, SecretError};

/// The number of live jobs that a refusal names.
const NAMED: usize = 10;

/// The subject of an erasure.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A user, by id or by an address.
    Person(String),
    /// An organization, by its slug.
    Organization(String),
}

/// The numbers of deleted or rewritten rows, by table.
pub type Rows = BTreeMap<&'static str, u64>;

/// An erasure whose subject has been found.
pub struct Erasure<'a> {
    client: &'a mut Client,
    keyring: &'a Keyring,
    whose: Whose,
    words: Words,
    pattern: String,
    pseudonym: String,
    is_dry: bool,
    rows: Rows,
}

#[derive(Clone)]
enum Whose {
    Person { id: i64 },
    Organization { id: i64, slug: String },
}

/// An error that stops an erasure.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// Postgres refused a statement, or the connection failed.
    #[error(
        "a statement of the erasure failed; run the erasure as the owner of the tables, and repeat it to continue"
    )]
    Database(#[from] tokio_postgres::Error),
    /// A sealed value cannot be opened.
    #[error("a sealed value that may name the subject cannot be opened")]
    Secret(#[from] SecretError),
    /// The subject does not exist.
    #[error("expected a {kind}, got `{name}`, which is not known; use {instead}")]
    Unknown {
        /// `user` or `organization`.
        kind: &'static str,
        /// The requested name.
        name: String,
        /// The form of an existing name.
        instead: &'static str,
    },
    /// Several users have an address that none of them has verified.
    #[error("expected one user, got {ids:?}, who all claim the address; use the id of one")]
    Ambiguous {
        /// The ids of these users.
        ids: Vec<i64>,
    },
    /// Live jobs would write the erased data again.
    #[error("expected no live jobs, got {}; let them end or use `dispatch jobs cancel{option}` first", .jobs.join(", "))]
    Live {
        /// Some of these jobs.
        jobs: Vec<String>,
        /// The option of `dispatch jobs cancel` that selects all of them.
        option: String,
    },
    /// More names than one pass can search for.
    #[error(
        "expected at most {WORDS_LIMIT} names and addresses, got more; use `dispatch erase person` for some people first"
    )]
    TooMany,
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for ErasureError {
    fn code(&self) -> &'static str {
        match self {
            Self::Database(_) => "erasure.database",
            Self::Secret(_) => "erasure.secret",
            Self::Unknown { .. } => "erasure.unknown",
            Self::Ambiguous { .. } => "erasure.ambiguous",
            Self::Live { .. } => "erasure.live_jobs",
            Self::TooMany => "erasure.too_many",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Database(error) if is_infrastructure(error) => Class::Infrastructure,
            Self::Database(_)
            | Self::Secret(_)
            | Self::Unknown { .. }
            | Self::Ambiguous { .. }
            | Self::Live { .. }
            | Self::TooMany => Class::Permanent,
        }
    }

    fn hint(&self) -> String {
        "Repeat the erasure: finished parts stay erased, and it continues where it stopped."
            .to_owned()
    }
}

impl<'a> Erasure<'a> {
    /// Finds the subject and the names to search for; changes nothing.
    ///
    /// # Errors
    /// [`ErasureError`].
    pub async fn of(
        client: &'a mut Client,
        keyring: &'a Keyring,
        subject: &Subject,
    ) -> Result<Self, ErasureError> {
        let (whose, words) = match subject {
            Subject::Person(key) => person::find(client, key).await?,
            Subject::Organization(slug) => organization::find(client, slug).await?,
        };
        let hashed = match &whose {
            Whose::Person { id } => keyring.keyed_hash(&format!("person {id}")),
            Whose::Organization { id, .. } => keyring.keyed_hash(&format!("organization {id}")),
        };
        let pseudonym = format!("erased-{}", data_encoding::HEXLOWER.encode(&hashed[..4]));
        let pattern = words.pattern();
        Ok(Self {
            client,
            keyring,
            whose,
            words,
            pattern,
            pseudonym,
            is_dry: true,
            rows: Rows::new(),
        })
    }

    /// Returns the pseudonym: `erased-` and 8 hexadecimal digits. It is the same when the erasure
    /// is repeated.
    #[must_use]
    pub fn pseudonym(&self) -> &str {
        &self.pseudonym
    }

    /// Returns the names that are not searched for in texts, because they are too short or too
    /// long, or because others have them too.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.words.left_out
    }

    /// Erases the subject, or counts the rows in a dry run. Returns the numbers of rows by table.
    /// Changes made before an error stay.
    ///
    /// # Errors
    /// [`ErasureError`]; [`ErasureError::Live`] before anything is changed.
    pub async fn run(&mut self, is_dry: bool) -> Result<Rows, ErasureError> {
        self.is_dry = is_dry;
        self.rows = Rows::new();
        match self.whose.clone() {
            Whose::Person { id } => self.person(id).await?,
            Whose::Organization { id, slug } => self.organization(id, &slug).await?,
        }
        Ok(std::mem::take(&mut self.rows))
    }

    fn count(&mut self, table: &'static str, rows: u64) {
        *self.rows.entry(table).or_default() += rows;
    }
}
