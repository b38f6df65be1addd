//! The audit log: who acts, what the action is called, and the row that is written in the
//! transaction of the change.
//!
//! **Invariant:** an operator's change and its audit row are one transaction.

use deadpool_postgres::{GenericClient, Transaction};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::releases::{Released, begin_for_people};
use super::request_keys::{RequestKey, keep_answer};
use super::sql::execute;
use crate::job::JobId;

/// What an actor may do. The words are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A program that publishes jobs and acts on its own ones.
    Producer,
    /// A person who reads.
    Viewer,
    /// A person who acts on jobs, holds, campaigns and dead letters.
    Operator,
    /// A person who may do everything. At the command line, the login's rights in Postgres are
    /// the limit.
    Admin,
    /// The worker itself: retention.
    Worker,
    /// Somebody whom the console has not recognised.
    Nobody,
}

/// The person or program that acts, and the reason.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Name of the actor.
    pub who: String,
    /// The actor's role.
    pub role: Role,
    /// The reason, in the actor's words.
    pub reason: Option<String>,
    /// The request that asks for the action; `None` for a command and for a message.
    pub request: Option<Request>,
}

/// A request to the console or its API.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its id, which is also in the answer and the log.
    pub id: Uuid,
    /// The name of its token.
    pub token: String,
    /// The key under which the answer is kept.
    pub key: Option<RequestKey>,
}

/// Declares [`Action`] with the stored word of each action.
macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// An action that the audit log records. The words are stored, so they are never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $name,)+
        }

        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the stored word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

actions! {
    /// `dispatch jobs retry`.
    Retry = "retry",
    /// `dispatch jobs cancel` for one job, a producer's message, or a cancel that waits for its job.
    Cancel = "cancel",
    /// `dispatch jobs configure`, or a producer's message.
    Configure = "configure",
    /// `dispatch jobs park`.
    Park = "park",
    /// `dispatch jobs rerun`.
    Rerun = "rerun",
    /// `dispatch jobs skip`.
    SkipStage = "skip",
    /// `dispatch jobs effect`.
    MarkEffect = "effect.mark",
    /// `dispatch jobs edit`.
    EditInput = "input.edit",
    /// `dispatch jobs restore`.
    RestoreInput = "input.restore",
    /// Written before the input and the outputs are shown.
    Unmask = "unmask",
    /// Written before the first job of a filter is cancelled.
    CancelMany = "jobs.cancel_many",
    /// Written after the last job of a filter is cancelled.
    CancelledMany = "jobs.cancelled_many",
    StartCampaign = "campaign.start",
    /// By a person, or by the worker because too many jobs failed again.
    PauseCampaign = "campaign.pause",
    ResumeCampaign = "campaign.resume",
    AbortCampaign = "campaign.abort",
    /// In the console, a row when it is asked for and one when it was published.
    ReplayDeadLetter = "dead_letter.replay",
    /// The body is replaced by a corrected one, and published again.
    FixDeadLetter = "dead_letter.fix",
    /// By number, by filter, or by retention.
    DiscardDeadLetter = "dead_letter.discard",
    /// Written before the body is shown.
    ShowRawDeadLetter = "dead_letter.show_raw",
    /// Written before the first dead letter of a filter is discarded.
    DiscardManyDeadLetters = "dead_letters.discard_many",
    /// Written after the last dead letter of a filter is discarded.
    DiscardedManyDeadLetters = "dead_letters.discarded_many",
    /// Owner, note, muted and resolved.
    NoteFailureGroup = "failure_group.note",
    PlaceHold = "hold.place",
    ReleaseHold = "hold.release",
    PauseAll = "controls.pause",
    ResumeAll = "controls.resume",
    PlaceKillSwitch = "controls.place_kill_switch",
    EndKillSwitch = "controls.end_kill_switch",
    RegisterDestination = "destination.register",
    EnableDestination = "destination.enable",
    DisableDestination = "destination.disable",
    RotateDestinationSecret = "destination.rotate_secret",
    /// Written before the test message is sent.
    TestDestination = "destination.test",
    RegisterIntegration = "integration.register",
    EnableIntegration = "integration.enable",
    DisableIntegration = "integration.disable",
    RotateHookSecret = "integration.rotate_secret",
    RegisterIdentity = "identity.register",
    SetTokens = "identity.set_tokens",
    RegisterProducer = "producer.register",
    RemoveProducer = "producer.remove",
    /// Written before the first value is resealed.
    RotateKeys = "keys.rotate",
    /// Written after the last value is resealed.
    RotatedKeys = "keys.rotated",
    ImportTracker = "tracker.import",
    /// Written before the secrets are read.
    ExportSecrets = "tracker.export_secrets",
    /// Written before the first row is erased.
    ErasePerson = "erase.person",
    /// Written after the last row is erased, by the actor `erase`.
    ErasedPerson = "erased.person",
    /// Written before the first row is erased.
    EraseOrganization = "erase.organization",
    /// Written after the last row is erased, by the actor `erase`.
    ErasedOrganization = "erased.organization",
    CreateToken = "token.create",
    RevokeToken = "token.revoke",
    /// A person signed in to the console with a token.
    SignIn = "console.sign_in",
    /// A person ended the session of a browser.
    SignOut = "console.sign_out",
    /// A sign-in with a token that is not valid or not a person's.
    RefuseSignIn = "console.refused_sign_in",
    /// A request to the console that was refused: its token is not valid, or may not do it.
    RefuseRequest = "console.refused",
    /// Written before the rows are sent.
    ExportAudit = "audit.export",
    /// Written before the rows are sent.
    ExportCampaign = "campaign.export",
    Migrate = "migrate",
    /// The login of the workers is created or changed.
    MakeWorkerLogin = "migrate.worker_login",
}

impl Action {
    const fn is_of_operators(self) -> bool {
        matches!(
            self,
            Self::Retry
                | Self::Cancel
                | Self::Configure
                | Self::CancelMany
                | Self::CancelledMany
                | Self::ReplayDeadLetter
                | Self::PlaceHold
                | Self::ReleaseHold
                | Self::SignIn
                | Self::ExportAudit
                | Self::ExportCampaign
                | Self::Park
                | Self::NoteFailureGroup
                | Self::StartCampaign
                | Self::PauseCampaign
                | Self::ResumeCampaign
                | Self::AbortCampaign
        )
    }
}

impl Role {
    /// The roles of people and programs, from the one that may do least.
    pub const OF_TOKENS: [Self; 4] = [Self::Producer, Self::Viewer, Self::Operator, Self::Admin];

    /// Returns the role with this stored word, if this version knows it.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        Self::OF_TOKENS
            .into_iter()
            .chain([Self::Worker, Self::Nobody])
            .find(|role| role.word() == word)
    }

    /// Returns the stored word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Worker => "worker",
            Self::Nobody => "nobody",
        }
    }

    /// Returns whether the role permits the action.
    #[must_use]
    pub const fn may(self, action: Action) -> bool {
        match self {
            Self::Admin => true,
            Self::Operator => action.is_of_operators(),
            Self::Viewer => matches!(
                action,
                Action::SignIn | Action::ExportAudit | Action::ExportCampaign
            ),
            Self::Nobody => false,
            Self::Producer => matches!(action, Action::Cancel | Action::Configure),
            Self::Worker => matches!(
                action,
                Action::Cancel | Action::DiscardDeadLetter | Action::PauseCampaign
            ),
        }
    }

    /// Returns the role that may do least of those that permit the action.
    #[must_use]
    pub fn least(action: Action) -> Self {
        Self::OF_TOKENS
            .into_iter()
            .find(|role| role.may(action))
            .unwrap_or(Self::Admin)
    }
}

impl Actor {
    /// Checks that the actor's role permits the action.
    ///
    /// # Errors
    /// [`StoreError::NotPermitted`].
    pub fn permit(&self, action: Action) -> Result<(), StoreError> {
        if self.role.may(action) {
            Ok(())
        } else {
            Err(StoreError::NotPermitted {
                role: self.role.word(),
                action: action.word(),
                least: Role::least(action).word(),
            })
        }
    }

    fn request_id(&self) -> Option<Uuid> {
        self.request.as_ref().map(|request| request.id)
    }

    fn token(&self) -> Option<&str> {
        self.request.as_ref().map(|request| request.token.as_str())
    }
}

/// A change of the product's tables by a person.
#[derive(Debug, Clone)]
pub struct AuditedChange<T> {
    /// The answer for the caller.
    pub answer: T,
    /// The state before and after the change, for the audit log; `None` if nothing has changed.
    pub audit: Option<(Value, Value)>,
    /// The cause that the change removes; the jobs that wait for it are released.
    pub gone: Option<String>,
}

const AUDIT: &str = "
    INSERT INTO audit_log (who, role, action, job_id, before, after, reason, request_id, token)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

impl Store {
    /// Makes a change of one transaction and writes its audit row in it. Jobs that wait for the
    /// cause that the change removes are released in the same transaction, even if nothing was
    /// changed. Without a change and a cause, the transaction is rolled back. Returns the answer of the change and the number of released jobs.
    ///
    /// # Errors
    /// [`StoreError::NotPermitted`] before anything is done; errors of `change`, and
    /// [`StoreError`]. Nothing is changed then.
    pub async fn audited<T, E: From<StoreError>>(
        &self,
        actor: &Actor,
        action: Action,
        change: impl AsyncFnOnce(&Transaction<'_>) -> Result<AuditedChange<T>, E>,
    ) -> Result<(T, Released), E> {
        actor.permit(action)?;
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(StoreError::from)?;
        let AuditedChange {
            answer,
            audit,
            gone,
        } = change(&tx).await?;
        if audit.is_none() && gone.is_none() {
            return Ok((answer, Released::default()));
        }
        if let Some((before, after)) = audit {
            write_audit(&tx, actor, action, None, &before, &after).await?;
        }
        let released = match &gone {
            Some(cause) => begin_for_people(&tx, cause).await?,
            None => Released::default(),
        };
        tx.commit().await.map_err(StoreError::from)?;
        Ok((answer, released))
    }

    /// Writes the audit row of an action that is no single transaction; `before` and `after`
    /// describe what it changes or concerns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit(
        &self,
        actor: &Actor,
        action: Action,
        before: &Value,
        after: &Value,
    ) -> Result<(), StoreError> {
        actor.permit(action)?;
        write_audit(&self.client().await?, actor, action, None, before, after).await
    }

    /// Writes the audit row of what needs no permission: a refusal, the end of a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_refusal(
        &self,
        actor: &Actor,
        action: Action,
        after: &Value,
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        write_audit(&client, actor, action, None, &Value::Null, after).await
    }
}

/// Writes an audit row on a connection or transaction that is not the pool's.
///
/// # Errors
/// [`StoreError`].
pub async fn audit_on<C: tokio_postgres::GenericClient>(
    on: &C,
    actor: &Actor,
    action: Action,
    before: &Value,
    after: &Value,
) -> Result<(), StoreError> {
    actor.permit(action)?;
    let (who, role, word) = (&actor.who, actor.role.word(), action.word());
    on.execute(
        AUDIT,
        &[
            who,
            &role,
            &word,
            &None::<Uuid>,
            &Json(before),
            &Json(after),
            &actor.reason,
            &actor.request_id(),
            &actor.token(),
        ],
    )
    .await?;
    Ok(())
}

/// Writes the audit row, and the answer under the request's key.
pub(super) async fn write_audit<C: GenericClient>(
    on: &C,
    actor: &Actor,
    action: Action,
    job: Option<JobId>,
    before: &Value,
    after: &Value,
) -> Result<(), StoreError> {
    let (who, role, word) = (&actor.who, actor.role.word(), action.word());
    let job = job.map(|job| job.0);
    execute(
        on,
        AUDIT,
        &[
            who,
            &role,
            &word,
            &job,
            &Json(before),
            &Json(after),
            &actor.reason,
            &actor.request_id(),
            &actor.token(),
        ],
    )
    .await?;
    match actor
        .request
        .as_ref()
        .and_then(|request| request.key.as_ref())
    {
        Some(key) => keep_answer(on, key, before, after).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_may_cancel_and_configure_its_jobs_and_nothing_else() {
        let may: Vec<&str> = Action::ALL
            .iter()
            .filter(|action| Role::Producer.may(**action))
            .map(|action| action.word())
            .collect();
        assert_eq!(may, ["cancel", "configure"]);
    }

    #[test]
    fn an_action_that_the_role_does_not_permit_is_refused_by_name() {
        let producer = Actor {
            who: "shop".to_owned(),
            role: Role::Producer,
            reason: None,
            request: None,
        };
        assert!(producer.permit(Action::Cancel).is_ok());
        assert_eq!(
            producer.permit(Action::Retry).unwrap_err().to_string(),
            "expected a role that permits `retry`, got `producer`; use the role `operator`"
        );
    }
}
