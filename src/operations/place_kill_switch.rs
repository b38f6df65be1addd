//! Places a kill switch: the jobs that its matcher describes are parked or cancelled before their
//! next stage starts.

use std::time::Duration;

use serde_json::{Value, json, to_value};
use time::OffsetDateTime;

use super::{OperationError, control_terms};
use crate::pipelines;
use crate::store::{Action, Actor, AuditedChange, Matcher, Store, StoreError, query_one};
use crate::tracker::known_organization;

/// Maximum number of kill switches in force: each is compared with every stage's job.
const MOST: i64 = 100;

const IN_FORCE: &str = "
    SELECT count(*) AS number FROM controls
    WHERE NOT automatic AND kind = 'kill_switch' AND released_at IS NULL AND expires_at > now()";

const PLACE: &str = "
    INSERT INTO controls (kind, scope, matcher, reason, who, expires_at)
    VALUES ('kill_switch', $1, $2, $3, $4, now() + $5 * interval '1 second')
    RETURNING id, expires_at";

/// A matcher whose conditions are valid.
#[derive(Debug)]
pub struct CheckedKillSwitch(Matcher);

impl CheckedKillSwitch {
    /// Checks the conditions.
    ///
    /// # Errors
    /// [`OperationError::Invalid`] without a condition, with a condition that is too long, and for
    /// a pipeline that does not exist.
    pub fn new(matcher: Matcher) -> Result<Self, OperationError> {
        matcher.check().map_err(OperationError::Invalid)?;
        if let Some(pipeline) = &matcher.pipeline {
            let registry = pipelines::registry();
            if registry.get(pipeline).is_none() {
                let known: Vec<&str> = registry.iter().map(|known| known.name).collect();
                return Err(OperationError::Invalid(format!(
                    "expected a pipeline that exists, got '{pipeline}'; use one of: {}",
                    known.join(", ")
                )));
            }
        }
        Ok(Self(matcher))
    }

    /// Returns the matcher.
    #[must_use]
    pub const fn matcher(&self) -> &Matcher {
        &self.0
    }
}

/// Places a kill switch for `length` from now on. Returns its number and its end.
///
/// # Errors
/// [`OperationError::Invalid`] for a length out of bounds, and without a reason;
/// [`OperationError::Tracker`] for an organization that does not exist;
/// [`OperationError::NotPossible`] if too many are in force; [`OperationError::Store`].
pub async fn place_kill_switch(
    store: &Store,
    actor: &Actor,
    switch: &CheckedKillSwitch,
    length: Duration,
) -> Result<(i64, OffsetDateTime), OperationError> {
    let reason = control_terms(actor, length)?;
    let matcher = switch.matcher();
    let stored = to_value(matcher)?;
    let change = store.audited(actor, Action::PlaceKillSwitch, async |tx| {
        if let Some(slug) = &matcher.organization {
            known_organization(tx, slug).await?;
        }
        let row = query_one(tx, IN_FORCE, &[]).await?;
        if row.try_get::<_, i64>("number").map_err(StoreError::from)? >= MOST {
            return Err(OperationError::NotPossible(format!(
                "expected fewer than {MOST} kill switches in force; use `dispatch killswitch end` first"
            )));
        }
        let (scope, seconds) = (matcher.scope(), length.as_secs_f64());
        let row = query_one(
            tx,
            PLACE,
            &[&scope, &stored, &reason, &actor.who, &seconds],
        )
        .await?;
        let id: i64 = row.try_get("id").map_err(StoreError::from)?;
        let after = json!({"id": id, "matcher": stored, "seconds": length.as_secs()});
        Ok(AuditedChange {
            answer: (id, row.try_get("expires_at").map_err(StoreError::from)?),
            audit: Some((Value::Null, after)),
            gone: None,
        })
    });
    Ok(change.await?.0)
}
