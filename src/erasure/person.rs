//! Erases a person: deletes their own rows; the history of groups stays, with a pseudonym or no
//! user in their place.

use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::Json;

use super::passes::RowEdit;
use super::words::Words;
use super::{Erasure, ErasureError, Whose};
use crate::secrets::Place;
use crate::tracker::email_key;

/// Finds users by id or by an address; a verified address belongs to one user.
const FIND: &str = "
    SELECT id FROM users WHERE id::text = $1
    UNION
    SELECT e.user_id FROM user_emails e WHERE e.email = $2
        AND (e.verified OR NOT EXISTS (SELECT FROM user_emails v WHERE v.email = e.email AND v.verified))
    ORDER BY id LIMIT 10";

/// Selects the person's name with a flag whether another user has it too, and the addresses that
/// no other user has verified.
const NAMES: &str = "
    SELECT u.name AS name, EXISTS (SELECT FROM users o WHERE o.id <> u.id AND lower(o.name) = lower(u.name)) AS is_shared
        FROM users u WHERE u.id = $1
    UNION ALL
    SELECT e.email, false FROM user_emails e WHERE e.user_id = $1
        AND NOT EXISTS (SELECT FROM user_emails v WHERE v.email = e.email AND v.verified AND v.user_id <> e.user_id)";

/// Selects the identities whose whole name names the person: their tokens are the person's.
const IDENTITIES: &str = "SELECT id FROM identities WHERE regexp_replace(name, $1, '', 'i') = ''";
const FORGET_TOKENS: &str = "
    UPDATE identities SET access_token = $2, refresh_token = NULL, token_expires_at = now(), version = version + 1,
        refreshing_until = NULL, imported_sha256 = NULL
    WHERE id = $1";

const DESTINATIONS: &str =
    "SELECT id, config FROM destinations WHERE config::text ~* $1 ORDER BY id";
const RECONFIGURE: &str =
    "UPDATE destinations SET config = $2, disabled = disabled OR $3 WHERE id = $1";

/// Deletes the row that identifies the person.
const FORGET: &str = "WITH addresses AS (DELETE FROM user_emails WHERE user_id = $1) DELETE FROM users WHERE id = $1";

/// Finds the person and the names to search for.
pub(super) async fn find(client: &Client, key: &str) -> Result<(Whose, Words), ErasureError> {
    let rows = client.query(FIND, &[&key.trim(), &email_key(key)]).await?;
    let ids = rows
        .iter()
        .map(|row| Ok(row.try_get("id")?))
        .collect::<Result<Vec<i64>, ErasureError>>()?;
    let id = match ids.as_slice() {
        [id] => *id,
        [] => {
            return Err(ErasureError::Unknown {
                kind: "user",
                name: key.to_owned(),
                instead: "a user's id or e-mail address",
            });
        }
        _ => return Err(ErasureError::Ambiguous { ids }),
    };
    let (mut texts, mut shared) = (Vec::new(), Vec::new());
    for row in client.query(NAMES, &[&id]).await? {
        let name: String = row.try_get("name")?;
        if row.try_get("is_shared")? {
            shared.push(name)
        } else {
            texts.push(name)
        }
    }
    let mut words = Words::of(texts).ok_or(ErasureError::TooMany)?;
    words.left_out.extend(shared);
    Ok((Whose::Person { id }, words))
}

impl Erasure<'_> {
    pub(super) async fn person(&mut self, id: i64) -> Result<(), ErasureError> {
        self.no_live_jobs_naming().await?;
        self.identities().await?;
        self.destinations().await?;
        self.texts().await?;
        self.sealed_payloads().await?;
        let letters = self.letters().await?;
        self.delete_letters(&letters).await?;
        self.audit(&letters).await?;
        self.in_groups(id).await?;
        for table in ["group_subscriptions", "team_members", "project_members"] {
            self.pass(table, RowEdit::Delete, "t.user_id = $1", &[&id])
                .await?;
        }
        if self.is_dry {
            self.pass("user_emails", RowEdit::Delete, "t.user_id = $1", &[&id])
                .await?;
        } else {
            self.client.execute(FORGET, &[&id]).await?;
        }
        self.count("users", 1);
        Ok(())
    }

    /// Removes the person from the feeds, the history and the assignments of groups.
    async fn in_groups(&mut self, id: i64) -> Result<(), ErasureError> {
        let (as_text, pseudonym) = (id.to_string(), self.pseudonym.clone());
        self.pass(
            "activities",
            RowEdit::Set("user_id = NULL"),
            "t.user_id = $1",
            &[&id],
        )
        .await?;
        self.pass(
            "group_history",
            RowEdit::Set("before = CASE before WHEN $1 THEN $2 ELSE before END, after = CASE after WHEN $1 THEN $2 ELSE after END"),
            "t.field = 'assignee' AND $2::text IS NOT NULL AND (t.before = $1 OR t.after = $1)",
            &[&as_text, &pseudonym],
        )
        .await?;
        self.pass(
            "group_assignees",
            RowEdit::Set("user_id = NULL"),
            "t.user_id = $1",
            &[&id],
        )
        .await
    }

    /// Deletes the tokens of the person's identities. Jobs that act as such an identity wait until
    /// somebody signs in.
    async fn identities(&mut self) -> Result<(), ErasureError> {
        for row in self.client.query(IDENTITIES, &[&self.pattern]).await? {
            let id: i64 = row.try_get("id")?;
            if !self.is_dry {
                let place = Place {
                    table: "identities",
                    column: "access_token",
                    row: &id.to_string(),
                };
                self.client
                    .execute(FORGET_TOKENS, &[&id, &self.keyring.seal(place, b"")])
                    .await?;
            }
        }
        Ok(())
    }

    /// Removes the person's addresses from lists of recipients. A destination whose list becomes
    /// empty is disabled.
    async fn destinations(&mut self) -> Result<(), ErasureError> {
        let rows = self.client.query(DESTINATIONS, &[&self.pattern]).await?;
        for row in &rows {
            let (id, Json(mut config)): (i64, Json<Value>) =
                (row.try_get("id")?, row.try_get("config")?);
            let is_empty = self.without(&mut config);
            if !self.is_dry {
                self.client
                    .execute(RECONFIGURE, &[&id, &Json(config), &is_empty])
                    .await?;
            }
        }
        self.count("destinations", rows.len() as u64);
        Ok(())
    }

    /// Removes texts that name the person from lists, and replaces other such texts by the
    /// pseudonym. Returns whether a list became empty or a text was replaced.
    fn without(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) if self.words.is_in(text) => {
                text.clone_from(&self.pseudonym);
                true
            }
            Value::Array(values) => {
                let before = values.len();
                values.retain(|value| !value.as_str().is_some_and(|text| self.words.is_in(text)));
                let is_empty = values.is_empty() && before > 0;
                values
                    .iter_mut()
                    .filter_map(|value| self.without(value).then_some(()))
                    .count()
                    > 0
                    || is_empty
            }
            // `count`, unlike `any`, visits every member.
            Value::Object(members) => {
                members
                    .values_mut()
                    .filter_map(|value| self.without(value).then_some(()))
                    .count()
                    > 0
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
}
