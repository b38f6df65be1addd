//! The engine's tables in Postgres. Every statement is a constant beside the one function that
//! runs it.
//!
//! **Invariant:** only `claim` makes a [`Fence`], and every write on behalf of a running job
//! requires one.

mod actions;
mod addresses;
mod advance;
mod announcements;
mod audit;
mod backlog;
mod batched_commit;
mod campaigns;
mod cancel_many;
mod causes;
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
mod handle;
mod headers;
mod inspect;
mod intake;
mod intent;
mod job_row;
mod keys;
mod listing;
mod login;
mod migrate;
mod new_job;
mod overdue;
mod parked;
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
mod run;
mod sql;
#[cfg(feature = "devkit")]
mod statements;
mod takeover;
mod turns;
mod watched;

pub use actions::{ActionResult, JobChange, JobTransaction, LockedJob, Target, cancel};
pub use announcements::{Announcement, LEFT_ALONE};
pub use audit::{Action, Actor, AuditedChange, Role, audit_on};
pub use backlog::{Backlog, Count};
pub use campaigns::{
    BulkAction, CampaignChange, CampaignFilter, CampaignItemRow, CampaignJob, CampaignResult,
    CampaignRow, MOST_IDS, NewCampaign, NotStarted, PreviewedJobs, Started, StateCount, StepDone,
    UncertainEffects, Wave,
};
pub use cancel_many::{CancelledPage, ChosenJobs, ChosenPreview, ManyJobs};
pub use causes::CauseCursor;
pub use claim::{Claim, Claimed, Fence, NotClaimed};
pub use commit::{CommitError, Committed, Tables, Writer};
pub use commit_outcome::{Landed, SoFar};
pub use controls::{HoldCursor, HoldRow, NewHold, end_holds};
pub use count::CappedCount;
pub use dead_letters::{DeadLetter, DeadLetterRow, NewDeadLetter};
pub use discard_many::{ChosenLetters, DiscardedPage, LettersPreview, ManyLetters};
pub use due::{Circle, Page};
pub use error::StoreError;
pub use handle::Store;
pub use inspect::{AttemptRow, CheckpointRow, EffectRow, JobView};
pub use intake::Intaken;
pub use intent::IntentOutcome;
pub use job_row::JobRow;
pub use keys::{Resealed, SEALED, SealedPage};
pub use listing::{JobFilter, Listed, Stopped};
pub use login::WorkerLogin;
pub use migrate::{Migrated, migrate, migrate_with};
pub use new_job::{Incoming, NewJob};
pub use pending_cancels::{CancelByKey, Cancelling};
pub use pool::{WRITERS, connect, connect_watched, on_connection, pool, writers_pool};
pub use probe::Session;
pub use producers::{Registration, Tenant, register_producer, remove_producer};
pub use publication::{TooOld, Unsettled};
pub use quotas::QuotaAsk;
pub use releases::Released;
pub use replicas::{Heartbeat, NewReplica, ReplicaRow};
pub use resolve::{NotReplayable, Replay, Resolution};
pub use retention::Keep;
pub use rights::WORKER;
pub use rows::FirstStages;
pub use run::Run;
pub use sql::{execute, query_one};
#[cfg(feature = "devkit")]
pub use statements::{BEHIND_COMMANDS, IN_LOOPS};
pub use takeover::Freed;
pub use turns::Turn;
