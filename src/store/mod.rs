//! The engine's tables in Postgres. Every statement is a constant beside the one function that
//! runs it.
//!
//! **Invariant:** only `claim` makes a [`Fence`], and every write on behalf of a running job
//! requires one.

mod actions;
mod addresses;
mod announcements;
mod audit;
mod backlog;
mod batched_commit;
mod cancel_many;
mod claim;
mod commit;
mod commit_outcome;
mod connect;
mod controls;
mod count;
mod dead_letters;
mod discard_many;
mod due;
mod error;
pub mod explain;
mod frames;
mod group_commit;
mod headers;
mod inspect;
mod intake;
mod intent;
mod keys;
mod listing;
mod login;
mod migrate;
mod overdue;
mod partitions;
mod pending_cancels;
mod pool;
mod probe;
mod producers;
mod publication;
mod quotas;
mod releases;
mod replicas;
mod resolve;
mod retention;
mod rights;
mod roles;
mod rows;
mod sql;
#[cfg(feature = "devkit")]
mod statements;
mod takeover;
mod turns;
mod watched;

pub use actions::{ActionResult, JobChange, LockedJob, Target};
pub use announcements::Announcement;
pub use audit::{Action, Actor, AuditedChange, Role, audit_on};
pub use backlog::{Backlog, Count};
pub use cancel_many::{CancelledPage, ChosenJobs, ChosenPreview, ManyJobs};
pub use claim::{Claim, Claimed, Fence, NotClaimed};
pub use commit::{CommitError, Committed, Run, Tables, Writer};
pub use commit_outcome::{Landed, SoFar};
pub use controls::{HoldCursor, HoldRow, NewHold, end_holds};
pub use count::CappedCount;
pub use dead_letters::{DeadLetter, DeadLetterRow, NewDeadLetter};
pub use discard_many::{ChosenLetters, DiscardedPage, LettersPreview, ManyLetters};
pub use due::{Circle, Page};
pub use error::StoreError;
pub use group_commit::WRITERS;
pub use inspect::{AttemptRow, CheckpointRow, EffectRow, JobRow, JobView};
pub use intake::{Incoming, Intaken, NewJob};
pub use intent::IntentOutcome;
pub use keys::{Resealed, SEALED, SealedPage};
pub use listing::{JobFilter, Listed, Stopped};
pub use login::WorkerLogin;
pub use migrate::{Migrated, migrate, migrate_with};
pub use pending_cancels::{CancelByKey, Cancelling};
pub use pool::{connect, connect_watched, on_connection, pool, writers_pool};
pub use probe::Session;
pub use producers::{Registration, Tenant, register_producer, remove_producer};
pub use publication::{LEFT_ALONE, TooOld, Unsettled};
pub use quotas::QuotaAsk;
pub use releases::{CauseCursor, Released};
pub use replicas::{Heartbeat, NewReplica, ReplicaRow};
pub use resolve::{NotReplayable, Replay, Resolution};
pub use retention::Keep;
pub use rights::WORKER;
pub use rows::FirstStages;
pub use sql::{execute, query_one};
#[cfg(feature = "devkit")]
pub use statements::{BEHIND_COMMANDS, IN_LOOPS};
pub use takeover::Freed;
pub use turns::Turn;

/// Access to the engine's tables.
#[derive(Clone)]
pub struct Store {
    pool: deadpool_postgres::Pool,
}

impl Store {
    /// Creates a store over a pool.
    #[must_use]
    pub const fn new(pool: deadpool_postgres::Pool) -> Self {
        Self { pool }
    }

    async fn client(&self) -> Result<deadpool_postgres::Client, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// Checks that Postgres answers and accepts writes.
    ///
    /// # Errors
    /// [`StoreError`] if it does not.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let row = self
            .client()
            .await?
            .query_one(
                "SELECT current_setting('transaction_read_only') = 'on' AS read_only",
                &[],
            )
            .await?;
        if row.try_get("read_only")? {
            Err(StoreError::ReadOnly)
        } else {
            Ok(())
        }
    }
}
