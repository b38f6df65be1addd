//! Every control in force, for people.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::controls::LIVE;
use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::matcher::Matcher;
use super::sql::{query, query_opt};

/// Maximum number of controls in a list.
const ROWS: i64 = 200;

/// Controls in force.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ControlList {
    /// How many there are.
    pub count: CappedCount,
    /// The first 200: pause and kill switches, then what people have placed, then what lasts
    /// longest.
    pub controls: Vec<ControlRow>,
}

/// A control in force.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ControlRow {
    /// Its number.
    pub id: i64,
    /// `pause`, `hold`, `kill_switch` or `circuit`.
    pub kind: String,
    /// What it stops: a destination, `lane:…`, `stage:…`, `organization:…`, `provider:…` or `all`.
    pub scope: String,
    /// The matcher of a kill switch.
    pub matcher: Option<Value>,
    /// Whether this version understands it. Where it does not, a kill switch stops no job.
    pub is_understood: bool,
    /// The reason.
    pub reason: String,
    /// `replica 7`, or a person.
    pub who: String,
    /// Whether a worker placed it.
    pub automatic: bool,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: OffsetDateTime,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub expires_at: OffsetDateTime,
    /// Number of jobs that wait for it, up to a limit.
    pub waiting: CappedCount,
}

/// What stops every job comes first, then what people have placed, then what lasts longest. `$4` is
/// the beginning of the scope.
pub(super) const SHOWN: &str = "
    SELECT c.id, c.kind, c.scope, c.matcher::text AS matcher, c.reason, c.who, c.automatic, c.created_at, c.expires_at, c.total,
        CASE WHEN c.kind = 'kill_switch' THEN 0 ELSE (SELECT count(*) FROM (SELECT FROM jobs j
            WHERE j.state = 'waiting' AND j.wait_reason <> 'children' AND j.wait_key = 'hold:' || c.scope LIMIT $1) counted)
        END AS waiting
    FROM (
        SELECT id, kind, scope, matcher, reason, who, automatic, created_at, expires_at, count(*) OVER () AS total,
            kind NOT IN ('pause', 'kill_switch') AS is_partial
        FROM (
            SELECT id, kind, scope, matcher, reason, who, automatic, created_at, expires_at FROM controls WHERE released_at IS NULL AND expires_at > now() ORDER BY expires_at DESC LIMIT $2) live
        WHERE starts_with(scope, $4)
        ORDER BY is_partial, automatic, expires_at DESC LIMIT $3) c
    ORDER BY c.is_partial, c.automatic, c.expires_at DESC";

const KIND: &str = "
    SELECT kind, scope FROM controls WHERE id = $1 AND released_at IS NULL AND expires_at > now()";

impl Store {
    /// Returns the controls in force whose scope begins with this text: pause and kill switches
    /// first, then those of people, then the longest; at most 200.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn controls(&self, scope: &str) -> Result<ControlList, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 4] = [&CappedCount::ROWS, &LIVE, &ROWS, &scope];
        let rows = query(&self.client().await?, SHOWN, &parameters).await?;
        let total = rows.first().map(|row| row.try_get("total"));
        Ok(ControlList {
            count: CappedCount::of(total.transpose()?.unwrap_or_default()),
            controls: rows.iter().map(control_row).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the kind and the scope of a control, if it is in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn control_in_force(&self, id: i64) -> Result<Option<(String, String)>, StoreError> {
        let row = query_opt(&self.client().await?, KIND, &[&id]).await?;
        row.map(|row| Ok((row.try_get("kind")?, row.try_get("scope")?)))
            .transpose()
    }
}

fn control_row(row: &Row) -> Result<ControlRow, StoreError> {
    let kind: String = row.try_get("kind")?;
    let stored: Option<String> = row.try_get("matcher")?;
    let is_understood =
        kind != "kill_switch" || stored.as_deref().and_then(Matcher::read).is_some();
    Ok(ControlRow {
        id: row.try_get("id")?,
        kind,
        scope: row.try_get("scope")?,
        matcher: stored.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
        is_understood,
        reason: row.try_get("reason")?,
        who: row.try_get("who")?,
        automatic: row.try_get("automatic")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        waiting: CappedCount::of(row.try_get("waiting")?),
    })
}
