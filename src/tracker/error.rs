//! Errors of the product's tables.

use deadpool_postgres::PoolError;

use crate::fault::{Class, Fault};
use crate::pg_error::is_infrastructure;
use crate::secrets::SecretError;

/// An error while the tracker's tables are read or written.
#[derive(Debug, thiserror::Error)]
pub enum TrackerFault {
    /// Postgres refused a statement, or the connection failed.
    #[error("a statement on the tracker's tables failed")]
    Database(#[from] tokio_postgres::Error),
    /// The pool returned no connection.
    #[error("no connection to the tracker's tables is available")]
    Pool(#[from] PoolError),
    #[error("a token or secret of the tracker cannot be opened")]
    Secret(#[from] SecretError),
    /// A reference to something that does not exist.
    #[error("{at}: there is no {kind} `{name}`; use {right}")]
    UnknownReference {
        /// The place of the reference.
        at: String,
        /// The kind of the missing object.
        kind: &'static str,
        name: String,
        /// The names to use instead.
        right: String,
    },
    /// A tracker document that contradicts itself or the tables.
    #[error("{at}: {problem}")]
    Document {
        /// The place in the document.
        at: String,
        /// The problem and its solution.
        problem: String,
    },
    #[error("the applied changes cannot be serialized as JSON")]
    Encode(#[source] serde_json::Error),
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for TrackerFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Database(_) => "tracker.database",
            Self::Pool(_) => "tracker.pool",
            Self::Secret(_) => "tracker.secret",
            Self::UnknownReference { .. } => "tracker.unknown_reference",
            Self::Document { .. } => "tracker.document",
            Self::Encode(_) => "tracker.encode",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Database(error) if is_infrastructure(error) => Class::Infrastructure,
            Self::Pool(_) => Class::Infrastructure,
            Self::Database(_)
            | Self::Secret(_)
            | Self::UnknownReference { .. }
            | Self::Document { .. }
            | Self::Encode(_) => Class::Permanent,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Database(_) => "Compare the database's migrations with this worker's version (`dispatch migrate`); otherwise this is a defect of the worker.",
            Self::Pool(_) => "Check that Postgres is up and that its connection limit leaves room for every replica's pool.",
            Self::Secret(_) => "Add the named key to DISPATCH_KEYRING again, after the present ones, or import the token again.",
            Self::UnknownReference { .. } | Self::Document { .. } => "Correct the named place and import again: nothing was changed.",
            Self::Encode(_) => "This is a defect of the worker.",
        }
        .to_owned()
    }
}
