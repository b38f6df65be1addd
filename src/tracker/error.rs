//! What can go wrong with the product's tables.

use deadpool_postgres::PoolError;

use crate::fault::{Class, Fault};
use crate::pg_error::is_infrastructure;
use crate::secrets::SecretError;

/// The tracker's tables could not be read or written as asked.
#[derive(Debug, thiserror::Error)]
pub enum TrackerFault {
    /// Postgres refused a statement, or could not be heard.
    #[error("a statement on the tracker's tables did not succeed")]
    Database(#[from] tokio_postgres::Error),
    /// No connection.
    #[error("no connection to the tracker's tables")]
    Pool(#[from] PoolError),
    /// A sealed value does not open.
    #[error("a token or secret of the tracker cannot be used")]
    Secret(#[from] SecretError),
    /// Something names what does not exist.
    #[error("{at}: there is no {kind} `{name}`; right would be {right}")]
    UnknownReference {
        /// Where it is named.
        at: String,
        /// Of what kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// What would be right.
        right: String,
    },
    /// A tracker document that contradicts itself or the tables.
    #[error("{at}: {problem}")]
    Document {
        /// Where.
        at: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// An output that cannot be written as JSON.
    #[error("what was applied cannot be written as JSON")]
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
            Self::Database(_) | Self::Secret(_) | Self::UnknownReference { .. } | Self::Document { .. } | Self::Encode(_) => {
                Class::Permanent
            }
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Database(_) => "Compare the database's migrations with this worker's version (`dispatch migrate`); otherwise this is a defect of the worker.",
            Self::Pool(_) => "Check that Postgres is up and that its connection limit leaves room for every replica's pool.",
            Self::Secret(_) => "Put the key named back into DISPATCH_KEYRING after the present ones, or import the token anew.",
            Self::UnknownReference { .. } | Self::Document { .. } => "Correct the place named and import again: nothing was changed.",
            Self::Encode(_) => "This is a defect of the worker.",
        }
        .to_owned()
    }
}
