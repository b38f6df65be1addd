//! Errors of the store.

use time::OffsetDateTime;
use tokio_postgres::error::SqlState;

use crate::fault::{Class, Fault};
use crate::pg_error::{self, is_infrastructure, is_rolled_back};
use crate::secrets::SecretError;
use crate::telemetry::names;
use crate::tls_policy::LinkFault;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres refused a statement, or the connection was lost.
    #[error("a request to Postgres failed")]
    Database(#[source] tokio_postgres::Error),
    /// The pool returned no connection.
    #[error("no Postgres connection")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// A sealed value cannot be opened.
    #[error("cannot open a sealed value")]
    Secret(#[from] SecretError),
    /// The error of a whole group of writes.
    #[error(transparent)]
    Group(std::sync::Arc<StoreError>),
    /// A group was committed, but its results could not be read.
    #[error("a group was committed, but its results cannot be read")]
    AfterCommit(#[source] Box<StoreError>),
    /// The write's group panicked.
    #[error("the writer of this group failed; the outcome is unknown")]
    WriterGone,
    /// The key existed and was deleted in between: the message is redelivered.
    #[error("the dedupe key existed and was deleted in between")]
    KeyGone,
    /// A stored value that this version cannot parse.
    #[error("a stored row cannot be parsed: {0}")]
    Row(String),
    /// The server is a standby, or the database is read-only.
    #[error("Postgres is read-only; name the primary, or add target_session_attrs=read-write")]
    ReadOnly,
    /// The clocks of worker and Postgres differ: nothing is deleted or dropped because of its age.
    #[error(
        "expected clocks less than 10 minutes apart, got {worker} here and {database} in Postgres; use NTP on both machines"
    )]
    Clocks {
        /// This machine's clock.
        worker: OffsetDateTime,
        /// Postgres' clock.
        database: OffsetDateTime,
    },
    /// The connection ended during an operation, without an error.
    #[error("Postgres closed the connection")]
    Closed,
    /// The URL of Postgres is not valid.
    #[error("the Postgres URL is not valid: {0}")]
    Url(String),
    /// The connection to Postgres is not permitted.
    #[error("no connection to Postgres is opened")]
    Link(#[from] LinkFault),
    /// The setting of a worker's login is not valid. The text names the mistake and never the
    /// value.
    #[error(
        "expected the worker's login as user:password, {0}; use user:password with eight characters or more of password"
    )]
    Login(&'static str),
    /// Roles are missing or have too many privileges; the text names them and what to do.
    #[error("{0}")]
    Roles(String),
    /// The actor's role does not permit the action.
    #[error("expected a role that permits `{action}`, got `{role}`; use the role `{least}`")]
    NotPermitted {
        /// The actor's role.
        role: &'static str,
        /// The word of the action.
        action: &'static str,
        /// The role that may do least of those that permit the action.
        least: &'static str,
    },
    /// The request was carried out before; its answer is kept under its key.
    #[error("the request was carried out before")]
    Repeated,
    /// A migration failed.
    #[error("a migration failed")]
    Migration(#[from] refinery::Error),
}

/// Counts the error by its class.
impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        metrics::counter!(names::POSTGRES_ERRORS, "class" => pg_error::class(&error)).increment(1);
        Self::Database(error)
    }
}

impl StoreError {
    /// Returns whether to wait and try again: Postgres is unavailable, and the job is not at
    /// fault.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        self.class() == Class::Infrastructure
    }

    /// Returns whether Postgres ended the statement after its time limit.
    #[must_use]
    pub fn is_too_slow(&self) -> bool {
        matches!(self, Self::Database(error) if error.code() == Some(&SqlState::QUERY_CANCELED))
    }

    /// Returns whether a text of the caller has a character that Postgres cannot store, which is
    /// NUL.
    #[must_use]
    pub fn is_of_text(&self) -> bool {
        let codes = [
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            SqlState::UNTRANSLATABLE_CHARACTER,
        ];
        matches!(self, Self::Database(error) if error.code().is_some_and(|code| codes.contains(code)))
    }

    /// Returns whether a statement names a table, column or function that the schema does not have.
    #[must_use]
    pub fn is_of_schema(&self) -> bool {
        let codes = [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::UNDEFINED_FUNCTION,
        ];
        matches!(self, Self::Database(error) if error.code().is_some_and(|code| codes.contains(code)))
    }

    /// Returns whether nothing is stored because Postgres refused a row or another transaction was
    /// in the way; Postgres is available.
    pub(super) fn is_rolled_back(&self) -> bool {
        matches!(self, Self::Database(error) if is_rolled_back(error))
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for StoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::Database(_) => "store.database",
            Self::Pool(_) => "store.no_connection",
            Self::Secret(_) => "store.sealed_value",
            Self::Group(error) => error.code(),
            Self::AfterCommit(_) => "store.after_commit",
            Self::WriterGone => "store.writer_gone",
            Self::KeyGone => "store.key_gone",
            Self::Row(_) => "store.row",
            Self::ReadOnly => "store.read_only",
            Self::Closed => "store.closed",
            Self::Clocks { .. } => "store.clocks",
            Self::Url(_) => "store.url",
            Self::Link(_) => "store.link",
            Self::Login(_) => "store.login",
            Self::Roles(_) => "store.roles",
            Self::NotPermitted { .. } => "store.not_permitted",
            Self::Repeated => "store.repeated",
            Self::Migration(_) => "store.migration",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Database(error) if is_infrastructure(error) => Class::Infrastructure,
            Self::Group(error) => error.class(),
            // The rows are read again before anything else happens to them.
            Self::Pool(_)
            | Self::ReadOnly
            | Self::Closed
            | Self::AfterCommit(_)
            | Self::WriterGone
            | Self::KeyGone => Class::Infrastructure,
            Self::Database(_)
            | Self::Secret(_)
            | Self::Row(_)
            | Self::Clocks { .. }
            | Self::Url(_)
            | Self::Link(_)
            | Self::Login(_)
            | Self::Roles(_)
            | Self::NotPermitted { .. }
            | Self::Repeated
            | Self::Migration(_) => Class::Permanent,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Group(error) => error.hint(),
            Self::Database(_)
            | Self::Pool(_)
            | Self::ReadOnly
            | Self::Closed
            | Self::AfterCommit(_)
            | Self::WriterGone
            | Self::KeyGone => "Check Postgres: its log, its connections, its disk.".to_owned(),
            Self::Secret(_) => {
                "Give the worker the keyring that sealed the value (DISPATCH_KEYRING).".to_owned()
            }
            Self::Row(_) => {
                "A newer worker or a person has written the row; run the newest worker.".to_owned()
            }
            Self::Clocks { .. } => {
                "Synchronize the clocks of this machine and of Postgres with NTP.".to_owned()
            }
            Self::Url(_) | Self::Link(_) => {
                "Correct the setting DISPATCH_DATABASE_URL, or the one that the error names."
                    .to_owned()
            }
            Self::Login(_) => "Set DISPATCH_WORKER_LOGIN to user:password.".to_owned(),
            Self::Roles(_) => {
                "Have an administrator of Postgres run what the error names, then repeat."
                    .to_owned()
            }
            Self::NotPermitted { .. } => "Use an actor with that role.".to_owned(),
            Self::Repeated => "Read the answer that is kept under the request's key.".to_owned(),
            Self::Migration(_) => {
                "Correct the cause, then run `dispatch migrate` again.".to_owned()
            }
        }
    }
}
