//! Erasing a person or an organization from every table, of the engine and of the product: what is theirs is deleted, and where
//! something else must stay, a pseudonym stands in their place.
//!
//! **Invariant:** what names somebody is looked for until nothing is left, and the row that says who it is goes last: an erasure that
//! dies is repeated as it is.
//!
//! An erasure walks over whole tables, a window at a time, on a connection of its own without limits of time. It needs the owner's role
//! and the keyring: bodies of dead letters are opened to see whose they are. Nothing of it runs in a worker.

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

/// Live jobs that a refusal names.
const NAMED: usize = 10;

/// Whom.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A user, by id or by an address.
    Person(String),
    /// An organization, by its slug.
    Organization(String),
}

/// Rows deleted or rewritten, by table.
pub type Rows = BTreeMap<&'static str, u64>;

/// What is to be erased, found and named.
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

/// Why nothing, or not everything, is erased.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// Postgres refused, or the link broke.
    #[error("a statement of the erasure failed; run it as the owner of the tables, and again to go on")]
    Database(#[from] tokio_postgres::Error),
    /// A sealed value does not open.
    #[error("a sealed value that may name them")]
    Secret(#[from] SecretError),
    /// Nobody is known so.
    #[error("expected a {kind}, got `{name}`, which is not known; use {instead}")]
    Unknown {
        /// `user` or `organization`.
        kind: &'static str,
        /// As asked.
        name: String,
        /// What would be known.
        instead: &'static str,
    },
    /// Several people have claimed an address that none of them has verified.
    #[error("expected one user, got {ids:?}, who all claim the address; use the id of one")]
    Ambiguous {
        /// Their ids.
        ids: Vec<i64>,
    },
    /// Jobs that are not done would go on with what is erased.
    #[error("expected no live jobs, got {}; let them end or use `dispatch jobs cancel{option}` first", .jobs.join(", "))]
    Live {
        /// Some of them.
        jobs: Vec<String>,
        /// What chooses them all.
        option: String,
    },
    /// More people than one pass can look for.
    #[error("expected at most {WORDS_LIMIT} names and addresses, got more; use `dispatch erase person` for some people first")]
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
        "Repeat the erasure: what was done stays, and it goes on where it stopped.".to_owned()
    }
}

impl<'a> Erasure<'a> {
    /// Finds whom it is about and what names them; changes nothing.
    ///
    /// # Errors
    /// [`ErasureError`].
    pub async fn of(client: &'a mut Client, keyring: &'a Keyring, subject: &Subject) -> Result<Self, ErasureError> {
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
        Ok(Self { client, keyring, whose, words, pattern, pseudonym, is_dry: true, rows: Rows::new() })
    }

    /// What stands in their place: `erased-` and 8 hexadecimal digits, the same however often the erasure is repeated.
    #[must_use]
    pub fn pseudonym(&self) -> &str {
        &self.pseudonym
    }

    /// Names that are not looked for in texts, since they are too short to tell them from other words, or others have them, too.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.words.left_out
    }

    /// Erases, or, dry, counts what would be; how many rows of each table. What was done before an error stays.
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
