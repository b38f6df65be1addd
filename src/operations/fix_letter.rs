//! Replaces the body of a dead letter by a corrected one, and has a worker publish it. The new body
//! is checked as a worker checks a message, and names the source and the organization that the
//! original named.

use serde_json::{Value, json};

use super::OperationError;
use super::ask_for_replay::{letter, resolved};
use super::diff::{PathChange, diff};
use super::would_accept::{Candidate, would_accept};
use crate::broker::KEY_JOB;
use crate::job::JobId;
use crate::message::{AboutJob, Intake, Named, Refusal, SCHEMA, Sender, decode_intake, read_body};
use crate::secrets::Keyring;
use crate::store::{
    Action, Actor, AuditedChange, DeadLetter, FixedLetter, NotReplayable, Store, StoreError,
    fix_letter,
};

/// A correction of a dead letter.
#[derive(Debug)]
pub struct LetterFix {
    /// What differs from the original, as it was sent; from nothing, if the original cannot be
    /// read. Both may contain secrets and personal data.
    pub diff: Vec<PathChange>,
    /// Whether the original can be read.
    pub original_is_readable: bool,
    /// What the audit log says before and after.
    pub states: (Value, Value),
}

/// A corrected message that was checked.
struct Checked {
    diff: Vec<PathChange>,
    original_is_readable: bool,
    source: String,
    dedupe_key: String,
}

/// Returns what a correction would change. Changes nothing.
///
/// # Errors
/// As [`fix_dead_letter`].
pub async fn preview_letter_fix(
    store: &Store,
    keyring: &Keyring,
    id: i64,
    body: &str,
) -> Result<LetterFix, OperationError> {
    let letter = letter(store, keyring, id).await?;
    let checked = checked(store, keyring, &letter, body).await?;
    Ok(LetterFix {
        diff: checked.diff,
        original_is_readable: checked.original_is_readable,
        states: (Value::Null, json!({"dead_letter_id": id})),
    })
}

/// Replaces the body of an open dead letter and asks a worker to publish it.
///
/// # Errors
/// [`OperationError::Invalid`] for a body that is refused or that names something else than the
/// original, [`OperationError::Unknown`], [`OperationError::NotPossible`] and
/// [`OperationError::Store`].
pub async fn fix_dead_letter(
    store: &Store,
    keyring: &Keyring,
    actor: &Actor,
    id: i64,
    body: &str,
) -> Result<LetterFix, OperationError> {
    actor.permit(Action::FixDeadLetter)?;
    let letter = letter(store, keyring, id).await?;
    let checked = checked(store, keyring, &letter, body).await?;
    let fixed = FixedLetter {
        id,
        replaces: &letter.body_sha256,
        body: body.as_bytes(),
        source: &checked.source,
        dedupe_key: &checked.dedupe_key,
    };
    let (states, _) = store
        .audited(actor, Action::FixDeadLetter, async |tx| {
            let states = fix_letter(tx, keyring, actor, &fixed).await?;
            Ok::<_, StoreError>(AuditedChange {
                answer: states.clone(),
                audit: states,
                gone: None,
            })
        })
        .await?;
    let states = states.ok_or_else(|| {
        OperationError::NotPossible(
            "expected the letter as it was when it was read; somebody else has changed it; look at it again".to_owned(),
        )
    })?;
    Ok(LetterFix {
        diff: checked.diff,
        original_is_readable: checked.original_is_readable,
        states,
    })
}

async fn checked(
    store: &Store,
    keyring: &Keyring,
    letter: &DeadLetter,
    body: &str,
) -> Result<Checked, OperationError> {
    if let Some(why) = resolved(letter).or_else(|| obstacle(letter)) {
        return Err(OperationError::NotPossible(why));
    }
    let mut candidate = Candidate::of(letter, body.as_bytes());
    candidate.envelope.content_type = Some("application/json".to_owned());
    candidate.envelope.content_encoding = None;
    let decoded = decode_intake(
        body.as_bytes(),
        &candidate.envelope,
        keyring,
        JobId::fresh(),
    );
    let intake = decoded.map_err(|refusal| OperationError::Invalid(refusal.to_string()))?;
    if let Intake::Newer(newer) = &intake {
        return Err(OperationError::Invalid(format!(
            "at `schema`: expected {SCHEMA}, got {}; a correction is for this version",
            newer.schema
        )));
    }
    let about = intake.about();
    let original = letter
        .whole_body()
        .ok()
        .and_then(read_body)
        .filter(Value::is_object);
    keeps_names(store, letter, original.as_ref(), &about).await?;
    let verdict = would_accept(store, keyring, &candidate).await?;
    if let Some(detail) = verdict.detail {
        return Err(OperationError::Invalid(detail));
    }
    let new = read_body(body.as_bytes()).unwrap_or_default();
    Ok(Checked {
        diff: diff(original.as_ref().unwrap_or(&json!({})), &new),
        original_is_readable: original.is_some(),
        source: about.source.to_owned(),
        dedupe_key: about.dedupe_key.to_owned(),
    })
}

/// Returns why an open letter cannot be corrected.
fn obstacle(letter: &DeadLetter) -> Option<String> {
    // A worker needs the headers too, and a correction is compared with the original.
    if let Some(why) = &letter.sealed {
        return Some(NotReplayable::Sealed(why.clone()).to_string());
    }
    let key = letter.row.routing_key.as_str();
    if key != KEY_JOB {
        return Some(format!(
            "expected a message with the routing key {KEY_JOB}, got {key:?}; only the message of a job can be corrected"
        ));
    }
    let is_wanted = letter.row.replay_wanted_at.is_some();
    is_wanted.then(|| {
        "expected a letter that nobody wants to be replayed; a worker is about to publish this one; look at it again in a minute"
            .to_owned()
    })
}

/// Checks that the new message names the source and the organization of the original. As far as the
/// original names none, its producer must be permitted to use them.
async fn keeps_names(
    store: &Store,
    letter: &DeadLetter,
    original: Option<&Value>,
    new: &AboutJob<'_>,
) -> Result<(), OperationError> {
    let text = |name: &str| original.and_then(|body| body.get(name)?.as_str());
    let source = text("source").or(letter.row.source.as_deref());
    let organization = text("organization");
    let names = [
        ("source", source, new.source),
        ("organization", organization, new.organization),
    ];
    for (path, old, new) in names {
        if let Some(old) = old.filter(|old| *old != new) {
            return Err(OperationError::Invalid(format!(
                "at `{path}`: expected {old:?} as in the original message, got {new:?}; a correction may not change it"
            )));
        }
    }
    if source.is_some() && organization.is_some() {
        return Ok(());
    }
    let unreadable = |why: String| {
        OperationError::Invalid(format!(
            "the original message names no source or no organization that can be read, so its producer must be registered for \
             those of the correction: {why}"
        ))
    };
    let name = letter.row.producer.as_deref();
    let name = name.ok_or_else(|| unreadable("its producer is not known".to_owned()))?;
    let producer = store.producer(name).await?;
    let producer = producer
        .ok_or_else(|| unreadable(Refusal::UnknownProducer(name.to_owned()).to_string()))?;
    Sender::Known(producer.into())
        .may_name(&[
            Named::Source(new.source),
            Named::Organization(new.organization),
        ])
        .map_err(|refusal| unreadable(refusal.to_string()))
}
