//! Resolves dead letters: publishes them again or discards them.

use secrecy::{ExposeSecret, SecretSlice};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::audit::{Action, Actor, write_audit};
use super::count::CappedCount;
use super::dead_letters::DeadLetter;
use super::error::StoreError;
use super::handle::Store;
use super::sql::{query, query_one, query_opt};
use crate::secrets::Keyring;

/// How a dead letter was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Published again: its message is a job now, or a new dead letter.
    Replayed,
    /// Discarded.
    Discarded,
}

impl Resolution {
    /// Returns the word that is stored and shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// A dead letter as received, to be published again.
#[derive(Debug)]
pub struct Replay {
    /// As received.
    pub routing_key: String,
    /// The user that published it, if known.
    pub producer: Option<String>,
    /// All headers as received, including those of the broker.
    pub headers: Value,
    /// As received; may contain secrets.
    pub body: SecretSlice<u8>,
    /// As received; empty if it had none, `None` if it was not stored.
    pub content_type: Option<String>,
    /// As received.
    pub content_encoding: Option<String>,
    /// As received.
    pub message_id: Option<String>,
    /// As received.
    pub app_id: Option<String>,
    /// As received.
    pub reply_to: Option<String>,
    /// As received.
    pub correlation_id: Option<String>,
}

/// Why a dead letter cannot be published again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    /// There is no such row.
    #[error("there is no such dead letter")]
    NoSuchLetter,
    /// It was resolved before.
    #[error("it was {0} already; `dispatch dead-letters show` shows by whom")]
    Resolved(String),
    /// Only the first bytes of the body are stored.
    #[error(
        "expected a whole body, got the first {kept} of its {bytes} bytes; have its producer publish a smaller message"
    )]
    Cut {
        /// Stored bytes.
        kept: usize,
        /// Received bytes.
        bytes: i64,
    },
    /// The body was not stored because the producer exceeded its quota of dead letters.
    #[error(
        "expected a dead letter with its body, got one of {0} bytes whose body was not kept because its producer's dead letters \
         were over quota; use its source and dedupe_key to have it published again"
    )]
    NotKept(i64),
    /// The keyring does not open the stored body or headers.
    #[error("it cannot be opened: {0}")]
    Sealed(String),
    /// The hash of the stored bytes is not that of the received ones.
    #[error("its stored bytes do not have the SHA-256 of the received body")]
    Damaged,
}

pub(super) const OPEN: &str =
    "SELECT id FROM dead_letters WHERE resolved_at IS NULL ORDER BY id LIMIT $1";
/// Range and order use the columns of the index on `code`; the same is true of the count.
pub(super) const OPEN_OF_CODE: &str = "
    SELECT id FROM dead_letters WHERE resolved_at IS NULL AND code >= $2 AND code <= $2 ORDER BY code, id LIMIT $1";
pub(super) const COUNT: &str = "
    SELECT count(*) AS letters FROM (SELECT FROM dead_letters WHERE resolved_at IS NULL LIMIT $1) counted";
pub(super) const COUNT_OF_CODE: &str = "
    SELECT count(*) AS letters FROM (
        SELECT FROM dead_letters WHERE resolved_at IS NULL AND code >= $2 AND code <= $2 ORDER BY code, id LIMIT $1) counted";

const RESOLVE: &str = "
    UPDATE dead_letters SET resolved_at = now(), resolution = $2, resolved_by = $3, resolved_reason = $4
    WHERE id = $1 AND resolved_at IS NULL
    RETURNING code, source, dedupe_key";

impl DeadLetter {
    /// Returns the message as it was received, if it can be published again.
    ///
    /// # Errors
    /// [`NotReplayable`].
    pub fn replay(self) -> Result<Replay, NotReplayable> {
        if self.row.resolved_at.is_some() {
            let how = self.row.resolution.as_deref().unwrap_or("resolved");
            return Err(NotReplayable::Resolved(how.to_owned()));
        }
        self.whole_body()?;
        let headers = self.all_headers.expose_secret();
        let headers = serde_json::from_str(headers).map_err(|_| NotReplayable::Damaged)?;
        let bytes = self.row.body_bytes;
        Ok(Replay {
            producer: self.row.producer,
            routing_key: self.row.routing_key,
            headers,
            body: self.body.ok_or(NotReplayable::NotKept(bytes))?,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            message_id: self.row.message_id,
            app_id: self.app_id,
            reply_to: self.reply_to,
            correlation_id: self.correlation_id,
        })
    }

    /// Returns what is stored of the body. It may contain secrets.
    ///
    /// # Errors
    /// [`NotReplayable::Sealed`], [`NotReplayable::NotKept`].
    pub fn kept_body(&self) -> Result<&SecretSlice<u8>, NotReplayable> {
        if let Some(why) = &self.sealed {
            return Err(NotReplayable::Sealed(why.clone()));
        }
        let bytes = self.row.body_bytes;
        self.body.as_ref().ok_or(NotReplayable::NotKept(bytes))
    }

    /// Returns the body if all of it is stored. It may contain secrets.
    ///
    /// # Errors
    /// [`NotReplayable`].
    pub fn whole_body(&self) -> Result<&[u8], NotReplayable> {
        let bytes = self.row.body_bytes;
        let body = self.kept_body()?.expose_secret();
        if i64::try_from(body.len()) != Ok(bytes) {
            let kept = body.len();
            return Err(NotReplayable::Cut { kept, bytes });
        }
        if data_encoding::HEXLOWER.encode(&Sha256::digest(body)) != self.body_sha256 {
            return Err(NotReplayable::Damaged);
        }
        Ok(body)
    }
}

impl Store {
    /// Returns the ids of open dead letters, oldest first, at most `limit`, with this code if one
    /// is given; and their number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_dead_letters(
        &self,
        code: Option<&str>,
        limit: i64,
    ) -> Result<(Vec<i64>, CappedCount), StoreError> {
        let client = self.client().await?;
        let (rows, count) = match &code {
            None => (
                query(&client, OPEN, &[&limit]).await?,
                query_one(&client, COUNT, &[&CappedCount::ROWS]).await?,
            ),
            Some(code) => (
                query(&client, OPEN_OF_CODE, &[&limit, code]).await?,
                query_one(&client, COUNT_OF_CODE, &[&CappedCount::ROWS, code]).await?,
            ),
        };
        let ids = rows
            .iter()
            .map(|row| row.try_get("id"))
            .collect::<Result<_, _>>()?;
        Ok((ids, CappedCount::of(count.try_get("letters")?)))
    }

    /// Returns an open dead letter as it was received. Publishing it and calling
    /// [`Store::resolve`] are separate: if the process dies in between, the letter stays open.
    /// Publishing it once more is harmless, because (source, dedupe key) maps to the same job.
    ///
    /// # Errors
    /// [`StoreError`]; the inner error is [`NotReplayable`].
    pub async fn replay(
        &self,
        keyring: &Keyring,
        id: i64,
    ) -> Result<Result<Replay, NotReplayable>, StoreError> {
        let letter = self.dead_letter(keyring, id).await?;
        Ok(letter
            .ok_or(NotReplayable::NoSuchLetter)
            .and_then(|letter| letter.replay()))
    }

    /// Counts the open dead letters.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_open_letters(&self) -> Result<CappedCount, StoreError> {
        let row = query_one(&self.client().await?, COUNT, &[&CappedCount::ROWS]).await?;
        Ok(CappedCount::of(row.try_get("letters")?))
    }

    /// Resolves an open dead letter and writes its audit row. Returns `false` if there is no such
    /// open letter.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resolve(
        &self,
        id: i64,
        how: Resolution,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let action = match how {
            Resolution::Replayed => Action::ReplayDeadLetter,
            Resolution::Discarded => Action::DiscardDeadLetter,
        };
        actor.permit(action)?;
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let Some(row) =
            query_opt(&tx, RESOLVE, &[&id, &how.word(), &actor.who, &actor.reason]).await?
        else {
            return Ok(false);
        };
        let text = |name| row.try_get::<_, Option<String>>(name);
        let before = json!({"dead_letter_id": id, "code": text("code")?, "source": text("source")?, "dedupe_key": text("dedupe_key")?});
        write_audit(
            &tx,
            actor,
            action,
            None,
            &before,
            &json!({"dead_letter_id": id, "resolution": how.word()}),
        )
        .await?;
        tx.commit().await?;
        Ok(true)
    }
}
