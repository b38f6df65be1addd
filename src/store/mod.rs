//! The engine's tables in Postgres. Every statement is a constant beside the one function that
//! runs it.
//!
//! **Invariant:** only `claim` makes a [`Fence`], and every write on behalf of a running job
//! requires one.

mod actions;
mod addresses;
mod advance;
mod announcements;
mod api_tokens;
mod audit;
mod audit_rows;
mod backlog;
mod batched_commit;
mod campaigns;
mod cancel_many;
mod causes;
mod changes;
mod charts;
mod claim;
mod commit;
mod commit_outcome;
mod connect;
mod control_copy;
mod control_list;
pub mod control_scope;
mod controls;
mod count;
mod dead_letters;
mod discard_many;
mod due;
mod error;
pub mod explain;
mod failure_groups;
mod failure_sightings;
mod fleet;
mod frames;
mod group_commit;
mod group_difference;
mod handle;
mod headers;
pub mod in_force;
mod inputs;
mod inspect;
mod intake;
mod intent;
mod job_filter;
mod job_places;
mod job_row;
mod keys;
mod kill_preview;
mod letter_list;
mod listing;
mod load;
mod login;
mod matcher;
mod migrate;
mod new_job;
mod open_jobs;
mod overdue;
mod parked;
mod partitions;
mod pass_stage;
mod pending_cancels;
mod pool;
mod probe;
mod producers;
mod publication;
mod quotas;
mod releases;
mod repeats;
mod replicas;
mod request_keys;
mod resolve;
mod retention;
mod rights;
mod roles;
mod rows;
mod run;
mod samples;
mod scale;
mod series;
mod since;
mod sql;
#[cfg(feature = "devkit")]
mod statements;
mod stuck;
mod takeover;
mod timeline;
mod turns;
mod wanted_replays;
mod watched;
mod ways;

pub use actions::{
    ActionResult, JobChange, JobTransaction, LockedJob, Target, cancel, cancel_children,
};
pub use announcements::{Announcement, LEFT_ALONE};
pub use api_tokens::{ApiToken, NewApiToken, TOKENS, create_token, revoke_token};
pub use audit::{Action, Actor, AuditedChange, Request, Role, audit_on};
pub use audit_rows::{AuditFilter, AuditPage, AuditRow};
pub use backlog::{Backlog, Count};
pub use campaigns::{
    BulkAction, CampaignChange, CampaignFilter, CampaignItemRow, CampaignJob, CampaignResult,
    CampaignRow, MOST_IDS, NewCampaign, NotStarted, PreviewedJobs, Started, StateCount, StepDone,
    UncertainEffects, Wave,
};
pub use cancel_many::{CancelledPage, ChosenJobs, ChosenPreview, ManyJobs};
pub use causes::CauseCursor;
pub use changes::{AppliedMigration, StartedReplica};
pub use charts::{ChartPoint, Charts, STEP, StageTimes};
pub use claim::{Claim, Claimed, Fence, NotClaimed};
pub use commit::{CommitError, Committed, Tables, Writer};
pub use commit_outcome::{Landed, SoFar};
pub use control_copy::Controls;
pub use control_list::{ControlList, ControlRow};
pub use controls::{HoldCursor, HoldRow, LiveControl, NewHold, end_holds};
pub use count::CappedCount;
pub use dead_letters::{DeadLetter, DeadLetterRow, NewDeadLetter};
pub use discard_many::{ChosenLetters, DiscardedPage, LettersPreview, ManyLetters};
pub use due::{Circle, Page};
pub use error::StoreError;
pub use failure_groups::{
    FailureGroup, GroupCursor, GroupFilter, GroupPage, GroupStatus, ListedGroups, Trend,
};
pub use failure_sightings::SightingCursor;
pub use fleet::{FleetReplica, LaneRow, Lanes};
pub use group_difference::{Difference, Dimension, GroupDifference};
pub use handle::Store;
pub use inputs::InputVersion;
pub use inspect::{AttemptRow, CheckpointRow, EffectRow, JobView};
pub use intake::Intaken;
pub use intent::IntentOutcome;
pub use job_filter::{CodeFilter, InvalidCode, InvalidFilter, JobFilter};
pub use job_places::{CampaignOfJob, JobPlaces, UnpublishedEvent, UnpublishedEvents};
pub use job_row::JobRow;
pub use keys::{Resealed, SEALED, SealedPage};
pub use kill_preview::{KillPreview, KilledJob};
pub use letter_list::{LetterFilter, ListedLetters};
pub use listing::{Listed, Stopped};
pub use load::{DatabaseLoad, PipelineLoad};
pub use login::WorkerLogin;
pub use matcher::{KillAction, Matcher, PayloadCondition, Subject};
pub use migrate::{Migrated, migrate, migrate_with};
pub use new_job::{Incoming, NewJob};
pub use open_jobs::OpenJobs;
pub use parked::park;
pub use pass_stage::{PassedStage, pass_stage};
pub use pending_cancels::{CancelByKey, Cancelling};
pub use pool::{
    WRITERS, connect, connect_watched, on_connection, pool, reading_pool, writers_pool,
};
pub use probe::Session;
pub use producers::{Registration, Tenant, register_producer, remove_producer};
pub use publication::{TooOld, Unsettled};
pub use quotas::QuotaAsk;
pub use releases::Released;
pub use repeats::{EffectCount, MayRepeat};
pub use replicas::{EndedReplica, Heartbeat, NewReplica, ReplicaEnd, ReplicaRow};
pub use request_keys::{KeptAnswer, RequestKey};
pub use resolve::{NotReplayable, Replay, Resolution};
pub use retention::Keep;
pub use rights::WORKER;
pub use rows::FirstStages;
pub use run::Run;
pub use samples::{SampleData, SampleRow};
pub use scale::{LaneLoad, Scale, desired_replicas};
pub use since::{InvalidSince, Since, parse_age};
pub use sql::{Json, Row, Transaction, execute, query, query_one, query_opt};
#[cfg(feature = "devkit")]
pub use statements::{BEHIND_COMMANDS, IN_LOOPS};
pub use stuck::{PipelineLanes, StuckCode, StuckExample, StuckRow, UnknownCode};
pub use takeover::Freed;
pub use timeline::{
    ActionMark, EffectMark, EndMark, FollowUpCount, FollowUps, Span, SpanKind, Timeline,
};
pub use turns::Turn;
pub use wanted_replays::{FixedLetter, WantedReplay, fix_letter, want_replay};
