//! Erases sealed messages: dead letters, and the payloads of jobs with an unknown schema. They are
//! opened in small pages to find whom they name.

use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::words::{parsed, readable};
use super::{Erasure, ErasureError, Whose};
use crate::job::JobId;
use crate::message::sealed_place;
use crate::secrets::Place;

/// The number of messages in one statement; each has up to 1 MiB.
const PAGE: i64 = 16;
/// The number of rows deleted in one statement.
const DELETED: usize = 1_000;

const LETTERS: &str = "
    SELECT id, sealed_body, sealed_headers, concat_ws(' ', detail, source, dedupe_key, message_id, reply_to, correlation_id, app_id,
        headers, resolved_by, resolved_reason, replay_wanted_by, replay_wanted_reason, replay_error, fixed_by) AS plain
    FROM dead_letters WHERE id > $1 ORDER BY id LIMIT $2";

const DELETE_LETTERS: &str = "DELETE FROM dead_letters WHERE id = ANY ($1)";

/// Deletes the events about dead letters.
const DELETE_REFUSALS: &str = r#"
    DELETE FROM announcements WHERE job_id IS NULL
        AND substring(body::text from '"dead_letter_id"\s*:\s*(\d{1,18})')::bigint = ANY ($1)"#;

const PAYLOADS: &str = "
    SELECT id, sealed_payload FROM jobs
    WHERE id > $1 AND sealed_payload IS NOT NULL AND state IN ('succeeded', 'cancelled') ORDER BY id LIMIT $2";

const EMPTY_PAYLOAD: &str = "UPDATE jobs SET sealed_payload = NULL, payload = $2 WHERE id = $1";

impl Erasure<'_> {
    /// Returns the dead letters of the subject: for a person, those that name the person; for an
    /// organization, those of its jobs, and those that cannot be parsed and name it.
    pub(super) async fn letters(&self) -> Result<Vec<i64>, ErasureError> {
        let (mut after, mut theirs) = (0, Vec::new());
        loop {
            let rows = self.client.query(LETTERS, &[&after, &PAGE]).await?;
            for row in &rows {
                after = row.try_get("id")?;
                if self.is_theirs(after, row)? {
                    theirs.push(after);
                }
            }
            if i64::try_from(rows.len()) != Ok(PAGE) {
                return Ok(theirs);
            }
        }
    }

    fn is_theirs(&self, id: i64, row: &Row) -> Result<bool, ErasureError> {
        let id = id.to_string();
        let opened = |column: &'static str| -> Result<Vec<u8>, ErasureError> {
            let Some(sealed) = row
                .try_get::<_, Option<&str>>(column)?
                .filter(|sealed| !sealed.is_empty())
            else {
                return Ok(Vec::new());
            };
            let place = Place {
                table: "dead_letters",
                column,
                row: &id,
            };
            Ok(self.keyring.open(place, sealed)?)
        };
        let (body, headers) = (opened("sealed_body")?, opened("sealed_headers")?);
        if let Whose::Organization { slug, .. } = &self.whose
            && let Some(Value::Object(body)) = parsed(&body)
            && let Some(of) = body.get("organization").and_then(Value::as_str)
        {
            return Ok(of == slug);
        }
        let texts = [row.try_get("plain")?, readable(&headers), readable(&body)];
        Ok(texts.iter().any(|text| self.words.is_in(text)))
    }

    /// Deletes dead letters and the events about them.
    pub(super) async fn delete_letters(&mut self, letters: &[i64]) -> Result<(), ErasureError> {
        for some in letters.chunks(DELETED) {
            if self.is_dry {
                self.count("dead_letters", some.len() as u64);
                continue;
            }
            let refusals = self.client.execute(DELETE_REFUSALS, &[&some]).await?;
            self.count("announcements", refusals);
            let deleted = self.client.execute(DELETE_LETTERS, &[&some]).await?;
            self.count("dead_letters", deleted);
        }
        Ok(())
    }

    /// Empties the sealed payloads of finished jobs that name the person.
    pub(super) async fn sealed_payloads(&mut self) -> Result<(), ErasureError> {
        let mut after = Uuid::nil();
        loop {
            let rows = self.client.query(PAYLOADS, &[&after, &PAGE]).await?;
            for row in &rows {
                after = row.try_get("id")?;
                let id = JobId(after).to_string();
                let opened = self
                    .keyring
                    .open(sealed_place(&id), row.try_get("sealed_payload")?)?;
                if !self.words.is_in(&readable(&opened)) {
                    continue;
                }
                self.count("jobs", 1);
                if !self.is_dry {
                    self.client
                        .execute(
                            EMPTY_PAYLOAD,
                            &[&after, &Json(json!({"erased": self.pseudonym}))],
                        )
                        .await?;
                }
            }
            if i64::try_from(rows.len()) != Ok(PAGE) {
                return Ok(());
            }
        }
    }
}
