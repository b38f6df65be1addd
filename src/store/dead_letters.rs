//! Dead letters: messages that could not become a job, stored with their sealed body and headers.

use deadpool_postgres::GenericClient;
use secrecy::{SecretSlice, SecretString};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::error::StoreError;
use super::handle::Store;
use super::headers;
use super::sql::{execute, query, query_one, query_opt};
use crate::message::{Discarded, MESSAGE_LIMIT, Refusal, allowed_headers};
use crate::secrets::{Keyring, Place};

/// A message to store as a dead letter.
#[derive(Debug)]
pub struct NewDeadLetter<'a> {
    /// Why the message was refused.
    pub refusal: &'a Refusal,
    /// The body as received, or its first bytes if the rest was discarded.
    pub body: &'a [u8],
    /// Size and hash of a body of which only the first bytes are left.
    pub discarded: Option<Discarded>,
    /// As received.
    pub routing_key: &'a str,
    /// As received.
    pub headers: Value,
    /// The user that published the message, as verified by RabbitMQ.
    pub producer: Option<&'a str>,
    /// Whether the producer may use this source. Only then are source and key announced.
    pub is_its_senders: bool,
    /// The source, if the message contains one.
    pub source: Option<String>,
    /// The dedupe key, if the message contains one.
    pub dedupe_key: Option<String>,
    /// As received.
    pub message_id: Option<String>,
    /// As received.
    pub content_type: Option<String>,
    /// As received.
    pub content_encoding: Option<String>,
    /// As received.
    pub app_id: Option<String>,
    /// As received.
    pub reply_to: Option<&'a str>,
    /// As received.
    pub correlation_id: Option<&'a str>,
}

impl NewDeadLetter<'_> {
    /// Returns the stored size in bytes: body and headers as sealed, and the unsealed headers.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        let sealed = |bytes: usize| bytes.div_ceil(3) * 4 + SEAL_BYTES;
        let headers = self.headers.to_string().len();
        (sealed(self.body.len().min(MESSAGE_LIMIT)) + sealed(headers) + headers) as u64
    }
}

/// The approximate size that a seal adds: the id of the key, a nonce and a tag.
const SEAL_BYTES: usize = 80;

/// A dead letter's row, as commands print it.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct DeadLetterRow {
    /// Its id.
    pub id: i64,
    /// Reason code.
    pub code: String,
    /// The expectation and what was received instead.
    pub detail: String,
    /// The producer.
    pub source: Option<String>,
    /// The producer's key.
    pub dedupe_key: Option<String>,
    /// As received.
    pub message_id: Option<String>,
    /// As received.
    pub routing_key: String,
    /// Size of the body as received.
    pub body_bytes: i64,
    /// When the message was received.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: OffsetDateTime,
    /// When it was resolved.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub resolved_at: Option<OffsetDateTime>,
    /// How: `replayed` or `discarded`.
    pub resolution: Option<String>,
    /// The person or duty that resolved it.
    pub resolved_by: Option<String>,
    /// The reason, in their words.
    pub resolved_reason: Option<String>,
    /// The user that published the message, as verified by RabbitMQ.
    pub producer: Option<String>,
    /// When somebody asked a worker to publish it again.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub replay_wanted_at: Option<OffsetDateTime>,
    /// Who asked.
    pub replay_wanted_by: Option<String>,
    /// Why the last try of a worker failed.
    pub replay_error: Option<String>,
    /// When its body was replaced by a corrected one.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub fixed_at: Option<OffsetDateTime>,
    /// Who replaced it.
    pub fixed_by: Option<String>,
}

/// A dead letter with the received message.
#[derive(Debug, serde::Serialize)]
pub struct DeadLetter {
    /// Its row.
    #[serde(flatten)]
    pub row: DeadLetterRow,
    /// The headers of the allow-list. A dead letter that a worker of an earlier version stored has
    /// all headers here for a short while.
    pub headers: Value,
    /// SHA-256 of the body, hex.
    pub body_sha256: String,
    /// As received; empty if it had none, `None` if it was not stored.
    pub content_type: Option<String>,
    /// As received.
    pub content_encoding: Option<String>,
    /// As received.
    pub app_id: Option<String>,
    /// As received.
    #[serde(skip)]
    pub reply_to: Option<String>,
    /// As received.
    #[serde(skip)]
    pub correlation_id: Option<String>,
    /// Why the keyring does not open body and headers, and what to do; `None` if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// The opened body, shown only on an audited request; `None` if it was not stored or is
    /// [sealed](Self::sealed).
    #[serde(skip)]
    pub body: Option<SecretSlice<u8>>,
    /// All headers as received, opened, as a JSON object; shown only on an audited request. Empty
    /// if they are [sealed](Self::sealed).
    #[serde(skip)]
    pub all_headers: SecretString,
}

const ANNOUNCE: &str = "
    INSERT INTO announcements (routing_key, reply_to, correlation_id, body, publish_after)
    VALUES ('message.refused', $1, $2, json_strip_nulls(json_build_object('event', 'message.refused', 'source', $3::text, 'dedupe_key',
        $4::text, 'message_id', $5::text, 'code', $6::text, 'detail', $7::text, 'dead_letter_id', $8::bigint, 'producer', $9::text, 'at',
        to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))), now())";

const NEXT_ID: &str = "SELECT nextval(pg_get_serial_sequence('dead_letters', 'id')) AS id";

const INSERT: &str = "
    INSERT INTO dead_letters (id, code, detail, source, dedupe_key, message_id, reply_to, correlation_id, routing_key, headers,
        sealed_body, body_bytes, body_sha256, content_type, content_encoding, app_id, producer,
        sealed_headers, kept_bytes)
    OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, coalesce($14, ''), $15, $16, $17, $18, $19)";

/// The columns of a [`DeadLetterRow`].
macro_rules! letter_columns {
    () => {
        "id, code, detail, source, dedupe_key, message_id, routing_key, body_bytes, created_at, resolved_at, resolution, \
         resolved_by, resolved_reason, producer, replay_wanted_at, replay_wanted_by, replay_error, fixed_at, fixed_by"
    };
}
pub(super) use letter_columns;

/// Selects the rows below an id.
macro_rules! list {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            letter_columns!(),
            " FROM dead_letters WHERE ",
            $condition,
            "id < $1 ORDER BY id DESC LIMIT $2"
        )
    };
}

pub(super) const LIST: &str = list!("");
pub(super) const LIST_OPEN: &str = list!("resolved_at IS NULL AND ");

const SHOW: &str = concat!(
    "SELECT ",
    letter_columns!(),
    ", headers, sealed_headers, sealed_body, body_sha256, content_type, content_encoding, app_id, reply_to, correlation_id \
      FROM dead_letters WHERE id = $1"
);

impl Store {
    /// Stores a message and announces its refusal, in one transaction. Returns the id of the dead
    /// letter.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_dead_letter(
        &self,
        keyring: &Keyring,
        new: &NewDeadLetter<'_>,
    ) -> Result<i64, StoreError> {
        self.keep(keyring, new, true).await
    }

    /// Stores a message like [`Store::keep_dead_letter`], but without body and headers: only hash,
    /// size and code.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_dead_letter_without_body(
        &self,
        keyring: &Keyring,
        new: &NewDeadLetter<'_>,
    ) -> Result<i64, StoreError> {
        self.keep(keyring, new, false).await
    }

    async fn keep(
        &self,
        keyring: &Keyring,
        new: &NewDeadLetter<'_>,
        with_body: bool,
    ) -> Result<i64, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let id: i64 = query_one(&tx, NEXT_ID, &[]).await?.try_get("id")?;
        let row = id.to_string();
        let body = &new.body[..new.body.len().min(MESSAGE_LIMIT)];
        let sealed = with_body.then(|| keyring.seal(place(&row), body));
        let whole = new.discarded.unwrap_or_else(|| Discarded::of(new.body));
        let received = if with_body {
            &new.headers
        } else {
            &Value::Object(Map::new())
        };
        let sealed_headers = headers::seal(keyring, &row, received);
        let kept_bytes = if with_body {
            i32::try_from(new.kept_bytes()).unwrap_or(i32::MAX)
        } else {
            0
        };
        let (code, detail) = (new.refusal.code(), detail_of(new));
        execute(
            &tx,
            INSERT,
            &[
                &id,
                &code,
                &detail,
                &new.source,
                &new.dedupe_key,
                &new.message_id,
                &new.reply_to,
                &new.correlation_id,
                &new.routing_key,
                &Json(allowed_headers(received)),
                &sealed,
                &i64::try_from(whole.bytes).unwrap_or(i64::MAX),
                &whole.sha256.as_slice(),
                &new.content_type,
                &new.content_encoding,
                &new.app_id,
                &new.producer,
                &sealed_headers,
                &kept_bytes,
            ],
        )
        .await?;
        announce(&tx, new, Some(id), &detail).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// Announces the refusal of a message that is not stored, and the number of earlier ones that
    /// were not announced.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn announce_refusal(
        &self,
        new: &NewDeadLetter<'_>,
        others: u64,
    ) -> Result<(), StoreError> {
        let detail = format!(
            "{}; this message is not kept, and {others} others before it were neither kept nor announced: the producer's dead letters \
             are over quota",
            detail_of(new)
        );
        announce(&self.client().await?, new, None, &detail).await
    }

    /// Returns the newest dead letters below `before`; only open ones unless `resolved_too`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dead_letters(
        &self,
        resolved_too: bool,
        before: i64,
        limit: i64,
    ) -> Result<Vec<DeadLetterRow>, StoreError> {
        let sql = if resolved_too { LIST } else { LIST_OPEN };
        query(&self.client().await?, sql, &[&before, &limit])
            .await?
            .iter()
            .map(row_of)
            .collect()
    }

    /// Returns one dead letter, opened if the keyring opens it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dead_letter(
        &self,
        keyring: &Keyring,
        id: i64,
    ) -> Result<Option<DeadLetter>, StoreError> {
        let Some(row) = query_opt(&self.client().await?, SHOW, &[&id]).await? else {
            return Ok(None);
        };
        let (sealed, body, all_headers) = match opened(keyring, id, &row) {
            Ok((body, headers)) => (None, body, headers),
            Err(StoreError::Secret(why)) => (Some(why.to_string()), None, json!({})),
            Err(error) => return Err(error),
        };
        let Json(headers) = row.try_get::<_, Json<Value>>("headers")?;
        let digest: Vec<u8> = row.try_get("body_sha256")?;
        Ok(Some(DeadLetter {
            row: row_of(&row)?,
            headers,
            body_sha256: data_encoding::HEXLOWER.encode(&digest),
            content_type: row.try_get("content_type")?,
            content_encoding: row.try_get("content_encoding")?,
            app_id: row.try_get("app_id")?,
            reply_to: row.try_get("reply_to")?,
            correlation_id: row.try_get("correlation_id")?,
            sealed,
            body: body.map(SecretSlice::from),
            all_headers: SecretString::from(all_headers.to_string()),
        }))
    }
}

/// Opens the body, if it was stored, and the headers.
fn opened(keyring: &Keyring, id: i64, row: &Row) -> Result<(Option<Vec<u8>>, Value), StoreError> {
    let id = id.to_string();
    let sealed: Option<String> = row.try_get("sealed_body")?;
    let body = sealed.map(|sealed| keyring.open(place(&id), &sealed));
    Ok((body.transpose()?, headers::received(keyring, &id, row)?))
}

async fn announce<C: GenericClient>(
    on: &C,
    new: &NewDeadLetter<'_>,
    id: Option<i64>,
    detail: &str,
) -> Result<(), StoreError> {
    let code = new.refusal.code();
    let (source, dedupe_key) = if new.is_its_senders {
        (&new.source, &new.dedupe_key)
    } else {
        (&None, &None)
    };
    let producer = &new.producer;
    execute(
        on,
        ANNOUNCE,
        &[
            &new.reply_to,
            &new.correlation_id,
            source,
            dedupe_key,
            &new.message_id,
            &code,
            &detail,
            &id,
            producer,
        ],
    )
    .await?;
    Ok(())
}

fn detail_of(new: &NewDeadLetter<'_>) -> String {
    crate::fault::storable(&new.refusal.to_string(), 1000)
}

pub(super) const fn place(row: &str) -> Place<'_> {
    Place {
        table: "dead_letters",
        column: "sealed_body",
        row,
    }
}

pub(super) fn row_of(row: &Row) -> Result<DeadLetterRow, StoreError> {
    Ok(DeadLetterRow {
        id: row.try_get("id")?,
        code: row.try_get("code")?,
        detail: row.try_get("detail")?,
        source: row.try_get("source")?,
        dedupe_key: row.try_get("dedupe_key")?,
        message_id: row.try_get("message_id")?,
        routing_key: row.try_get("routing_key")?,
        body_bytes: row.try_get("body_bytes")?,
        created_at: row.try_get("created_at")?,
        resolved_at: row.try_get("resolved_at")?,
        resolution: row.try_get("resolution")?,
        resolved_by: row.try_get("resolved_by")?,
        resolved_reason: row.try_get("resolved_reason")?,
        producer: row.try_get("producer")?,
        replay_wanted_at: row.try_get("replay_wanted_at")?,
        replay_wanted_by: row.try_get("replay_wanted_by")?,
        replay_error: row.try_get("replay_error")?,
        fixed_at: row.try_get("fixed_at")?,
        fixed_by: row.try_get("fixed_by")?,
    })
}
