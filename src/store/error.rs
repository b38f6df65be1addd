//! What goes wrong between the worker and its tables.

use time::OffsetDateTime;

use crate::fault::{Class, Fault};
use crate::pg_error::{is_infrastructure, is_rolled_back};
use crate::secrets::SecretError;
use crate::tls_policy::LinkFault;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres refused, or the link broke.
    #[error("Postgres")]
    Database(#[from] tokio_postgres::Error),
    /// No connection could be had.
    #[error("no Postgres connection")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// A sealed value does not open.
    #[error("a sealed value")]
    Secret(#[from] SecretError),
    /// What a whole group of writes met.
    #[error(transparent)]
    Group(std::sync::Arc<StoreError>),
    /// A group was written; what came of it could not be read.
    #[error("what was written cannot be read back")]
    AfterCommit(#[source] Box<StoreError>),
    /// The write's group had a defect.
    #[error("no writer answers")]
    WriterGone,
    /// A key was known and is not any more: the message is taken again.
    #[error("a key was known and is not any more")]
    KeyGone,
    /// A stored value that this version does not understand.
    #[error("a stored row does not read: {0}")]
    Row(String),
    /// A standby, or a database that is set so.
    #[error("Postgres is read-only; name the primary, or add target_session_attrs=read-write")]
    ReadOnly,
    /// The machines' clocks: nothing is deleted or dropped because of its age.
    #[error("expected clocks less than 10 minutes apart, got {worker} here and {database} in Postgres; use NTP on both machines")]
    Clocks {
        /// This machine's.
        worker: OffsetDateTime,
        /// Postgres'.
        database: OffsetDateTime,
    },
    /// In the middle of something, without an error.
    #[error("Postgres closed the connection")]
    Closed,
    /// A setting.
    #[error("the Postgres URL is not right: {0}")]
    Url(String),
    /// The way to Postgres.
    #[error("the link to Postgres is not made")]
    Link(#[from] LinkFault),
    /// The setting of a worker's login; what is wrong with it, never what it is.
    #[error("expected the worker's login as user:password, {0}; use user:password with eight characters or more of password")]
    Login(&'static str),
    /// Roles that are missing, or that can do too much; the text says which, and what to do.
    #[error("{0}")]
    Roles(String),
    /// A migration failed.
    #[error("a migration failed")]
    Migration(#[from] refinery::Error),
}

impl StoreError {
    /// Whether waiting and trying again is right: Postgres is ill, the job is not.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        self.class() == Class::Infrastructure
    }

    /// Whether it says that nothing is stored, because of a row or of another transaction: Postgres is well.
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
            Self::Migration(_) => "store.migration",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Database(error) if is_infrastructure(error) => Class::Infrastructure,
            Self::Group(error) => error.class(),
            // The rows are read again before anything else is done about them.
            Self::Pool(_) | Self::ReadOnly | Self::Closed | Self::AfterCommit(_) | Self::WriterGone | Self::KeyGone => {
                Class::Infrastructure
            }
            Self::Database(_)
            | Self::Secret(_)
            | Self::Row(_)
            | Self::Clocks { .. }
            | Self::Url(_)
            | Self::Link(_)
            | Self::Login(_)
            | Self::Roles(_)
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
            | Self::KeyGone => "Look at Postgres: its log, its connections, its disk.".to_owned(),
            Self::Secret(_) => "Give the worker the keyring that sealed the value (DISPATCH_KEYRING).".to_owned(),
            Self::Row(_) => "A newer worker or a hand has written the row; run the newest worker.".to_owned(),
            Self::Clocks { .. } => "Look at the clocks of this machine and of Postgres'; let NTP set both.".to_owned(),
            Self::Url(_) | Self::Link(_) => "Mend the setting DISPATCH_DATABASE_URL, or the one that the error names.".to_owned(),
            Self::Login(_) => "Set DISPATCH_WORKER_LOGIN to user:password.".to_owned(),
            Self::Roles(_) => "Have an administrator of Postgres run what the error names, then repeat.".to_owned(),
            Self::Migration(_) => "Read the cause, mend it, run `dispatch migrate` again.".to_owned(),
        }
    }
}
