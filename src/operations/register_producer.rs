//! Registers a producer, or replaces what the registered one may use.

use super::OperationError;
use crate::message::Producer;
use crate::store::{self, Action, Actor, AuditedChange, Store};

/// A source that another producer may use too. Producers with the same source can cancel each
/// other's jobs and take their keys.
#[derive(Debug)]
pub struct SharedSource {
    /// The other producer.
    pub producer: String,
    /// The first source that both may use.
    pub source: String,
}

/// Registers a producer and returns whether anything has changed.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn register_producer(
    store: &Store,
    actor: &Actor,
    new: &Producer,
) -> Result<bool, OperationError> {
    let change = store.audited(actor, Action::RegisterProducer, async |tx| {
        let audit = store::register_producer(tx, new).await?;
        Ok::<_, OperationError>(AuditedChange {
            answer: audit.is_some(),
            audit,
            gone: None,
        })
    });
    Ok(change.await?.0)
}

/// Returns the registered producers that share a source with a new one.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn shared_sources(
    store: &Store,
    new: &Producer,
) -> Result<Vec<SharedSource>, OperationError> {
    let others = store.producers().await?;
    let shared = |other: Producer| {
        let mut sources = new.sources.iter();
        let source = sources.find(|source| other.sources.contains(source))?;
        Some(SharedSource {
            source: source.clone(),
            producer: other.name,
        })
    };
    Ok(others
        .into_iter()
        .filter(|other| other.name != new.name)
        .filter_map(shared)
        .collect())
}
