//! Dead letters that somebody wants to be published again: the request is a row, and a worker
//! publishes. A worker that tries moves the time of the next try on, so no other worker tries at
//! the same time, and a worker that dies is followed by another one.

use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::audit::{Actor, Role};
use super::dead_letters::place;
use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query_opt};
use crate::secrets::Keyring;

/// A request to publish a dead letter again.
#[derive(Debug)]
pub struct WantedReplay {
    /// The number of the letter.
    pub id: i64,
    /// Who asked for it.
    pub actor: Actor,
}

/// A corrected message for a dead letter.
#[derive(Debug)]
pub struct FixedLetter<'a> {
    /// The number of the letter.
    pub id: i64,
    /// SHA-256 of the body that is replaced, hex.
    pub replaces: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The source that it names.
    pub source: &'a str,
    /// The dedupe key that it names.
    pub dedupe_key: &'a str,
}

/// Sets what a request to publish a letter again sets. `$2` is who asks, `$3` the role, `$4` the
/// reason.
macro_rules! wanted {
    () => {
        "replay_wanted_at = now(), replay_next_at = now(), replay_wanted_by = $2, replay_wanted_role = $3, \
         replay_wanted_reason = $4, replay_error = NULL"
    };
}

const WANT: &str = concat!(
    "UPDATE dead_letters SET ",
    wanted!(),
    " WHERE id = $1 AND resolved_at IS NULL AND replay_wanted_at IS NULL RETURNING code, source, dedupe_key"
);

/// The body is replaced only if it is still the one that was looked at.
const FIX: &str = concat!(
    "UPDATE dead_letters SET ",
    wanted!(),
    ", fixed_at = now(), fixed_by = $2, sealed_body = $5, body_bytes = $6, body_sha256 = $7, content_type = 'application/json',
        content_encoding = NULL, source = $8, dedupe_key = $9,
        kept_bytes = coalesce(kept_bytes, 0) + octet_length($5) - coalesce(octet_length(sealed_body), 0)
    WHERE id = $1 AND resolved_at IS NULL AND replay_wanted_at IS NULL AND body_sha256 = decode($10, 'hex')
    RETURNING code"
);

pub(super) const TAKE: &str = "
    WITH taken AS MATERIALIZED (
        SELECT id FROM dead_letters WHERE replay_next_at <= now() AND resolved_at IS NULL
        ORDER BY replay_next_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE dead_letters SET replay_next_at = now() + interval '30 seconds' WHERE id = ANY (ARRAY(SELECT id FROM taken))
    RETURNING id, replay_wanted_by, replay_wanted_role, replay_wanted_reason";

const FAILED: &str = "
    UPDATE dead_letters SET replay_error = $2, replay_next_at = now() + interval '30 seconds'
    WHERE id = $1 AND resolved_at IS NULL AND replay_wanted_at IS NOT NULL";

const GIVE_UP: &str = "
    UPDATE dead_letters SET replay_error = $2, replay_wanted_at = NULL, replay_next_at = NULL
    WHERE id = $1 AND resolved_at IS NULL";

/// The longest error that is stored, in bytes.
const ERROR_BYTES: usize = 1000;

/// Asks a worker to publish an open dead letter again. Returns what the audit log says about it
/// before and after; `None` if it is resolved or already asked for.
///
/// # Errors
/// [`StoreError`].
pub async fn want_replay(
    tx: &Transaction<'_>,
    actor: &Actor,
    id: i64,
) -> Result<Option<(Value, Value)>, StoreError> {
    let role = actor.role.word();
    let row = query_opt(tx, WANT, &[&id, &actor.who, &role, &actor.reason]).await?;
    let Some(row) = row else { return Ok(None) };
    let text = |name| row.try_get::<_, Option<String>>(name);
    Ok(Some((
        json!({"dead_letter_id": id, "code": text("code")?, "source": text("source")?, "dedupe_key": text("dedupe_key")?}),
        json!({"dead_letter_id": id, "replay": "wanted"}),
    )))
}

/// Replaces the body of an open dead letter and asks a worker to publish it. Returns what the audit
/// log says about it before and after: the hash of each body; `None` if the letter is resolved, is
/// about to be published, or has another body by now.
///
/// # Errors
/// [`StoreError`].
pub async fn fix_letter(
    tx: &Transaction<'_>,
    keyring: &Keyring,
    actor: &Actor,
    fixed: &FixedLetter<'_>,
) -> Result<Option<(Value, Value)>, StoreError> {
    let FixedLetter {
        id,
        replaces,
        body,
        source,
        dedupe_key,
    } = fixed;
    let (role, digest) = (actor.role.word(), Sha256::digest(body));
    let row = query_opt(
        tx,
        FIX,
        &[
            id,
            &actor.who,
            &role,
            &actor.reason,
            &keyring.seal(place(&id.to_string()), body),
            &i64::try_from(body.len()).unwrap_or(i64::MAX),
            &digest.as_slice(),
            source,
            dedupe_key,
            replaces,
        ],
    )
    .await?;
    let Some(row) = row else { return Ok(None) };
    let code: String = row.try_get("code")?;
    let sha256 = data_encoding::HEXLOWER.encode(&digest);
    Ok(Some((
        json!({"dead_letter_id": id, "code": code, "body_sha256": replaces}),
        json!({"dead_letter_id": id, "replay": "wanted", "body_sha256": sha256, "source": source, "dedupe_key": dedupe_key}),
    )))
}

impl Store {
    /// Returns the next dead letter to publish, if one is due. For 30 s, no other caller gets it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_wanted_replay(&self) -> Result<Option<WantedReplay>, StoreError> {
        let Some(row) = query_opt(&self.client().await?, TAKE, &[]).await? else {
            return Ok(None);
        };
        let role: &str = row.try_get("replay_wanted_role")?;
        Ok(Some(WantedReplay {
            id: row.try_get("id")?,
            actor: Actor {
                who: row.try_get("replay_wanted_by")?,
                role: Role::of_word(role).unwrap_or(Role::Operator),
                reason: row.try_get("replay_wanted_reason")?,
                request: None,
            },
        }))
    }

    /// Records why a dead letter was not published. It is due again after 30 s.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wanted_replay_failed(&self, id: i64, why: &str) -> Result<(), StoreError> {
        self.wanted_replay_ended(FAILED, id, why).await
    }

    /// Records why a dead letter can never be published, and forgets the request.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_up_wanted_replay(&self, id: i64, why: &str) -> Result<(), StoreError> {
        self.wanted_replay_ended(GIVE_UP, id, why).await
    }

    async fn wanted_replay_ended(&self, sql: &str, id: i64, why: &str) -> Result<(), StoreError> {
        let why = crate::fault::storable(why, ERROR_BYTES);
        execute(&self.client().await?, sql, &[&id, &why]).await?;
        Ok(())
    }
}
