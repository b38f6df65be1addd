//! The input of a job that a person edits: the stored request without its secrets, checked as an
//! intake message is. An edit keeps the secrets and everything that says for whom, as whom and
//! where the job acts.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::intake::{Envelope, decode_again};
use super::{HookEvent, Refusal, Request};

/// Why an edited input is refused.
#[derive(Debug, thiserror::Error)]
pub enum NotEdited {
    /// It is no valid message.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It names something that the job's own input does not.
    #[error("`{field}` differs from the job's own input; an edit keeps it. {instead}")]
    Names {
        /// Path of the field.
        field: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The stored input or the document cannot be read.
    #[error("the input cannot be read as a job: {0}")]
    Unreadable(#[from] serde_json::Error),
}

const PUBLISH: &str = "Publish another job for that.";
/// A token that passes the check of intake; the stored one is kept.
const UNCHANGED: &str = "unchanged";

/// Returns a stored request as a person may see and edit it: without the token of its interaction
/// and without the hashes of secrets.
///
/// # Errors
/// An error if it is no JSON.
pub fn without_secrets(payload: &str) -> Result<Value, serde_json::Error> {
    let mut shown: Value = serde_json::from_str(payload)?;
    if let Some(interaction) = shown.get_mut("interaction").and_then(Value::as_object_mut) {
        interaction.remove("sealed_token");
    }
    let events = shown.get_mut("events").and_then(Value::as_array_mut);
    for event in events
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        event.remove("secret_sha256");
    }
    Ok(shown)
}

/// Returns a stored request as it is kept when another one replaces it: without the token of its
/// interaction, which stays sealed in the job's own payload.
///
/// # Errors
/// An error if it is no JSON.
pub fn kept(payload: &str) -> Result<Value, serde_json::Error> {
    let mut kept: Value = serde_json::from_str(payload)?;
    if let Some(token) = kept.pointer_mut("/interaction/sealed_token") {
        *token = json!("");
    }
    Ok(kept)
}

/// The inputs that an edited one is compared with, as JSON.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The present one.
    pub present: &'a str,
    /// The one that the job was accepted with: an edit names nothing that it does not.
    pub own: &'a str,
    /// The one whose secrets are taken.
    pub secrets: &'a str,
}

/// Decodes an edited document of the form of [`without_secrets`]. An event with the payload of a
/// stored one has its secret; any other has that of the event at its place, unless `shared_secret`
/// gives another.
///
/// # Errors
/// [`NotEdited`].
pub fn decode_edited(inputs: Inputs<'_>, document: &Value) -> Result<Request, NotEdited> {
    let present: Request = serde_json::from_str(inputs.present)?;
    let own: Request = serde_json::from_str(inputs.own)?;
    let secrets: Request = serde_json::from_str(inputs.secrets)?;
    let mut wire = document.clone();
    keeps_interaction(&without_secrets(inputs.present)?, document)?;
    if let Some(interaction) = wire.get_mut("interaction").and_then(Value::as_object_mut) {
        interaction.insert("token".to_owned(), json!(UNCHANGED));
    }
    let envelope = Envelope {
        content_type: Some("application/json".to_owned()),
        ..Envelope::default()
    };
    let body = wire.to_string();
    let mut new = decode_again(body.as_bytes(), &envelope, present.interaction)?;
    keeps_names(&own, &new)?;
    keep_secrets(&secrets.events, &mut new.events);
    Ok(new)
}

fn keeps_interaction(shown: &Value, document: &Value) -> Result<(), NotEdited> {
    if document.get("interaction").unwrap_or(&Value::Null) == &shown["interaction"] {
        return Ok(());
    }
    Err(NotEdited::Names {
        field: "interaction",
        instead: PUBLISH,
    })
}

/// Checks that the new request names the same tenant, account, identity and producer, and no
/// destination that the old one does not. Without a list, a job has the destinations of its
/// organization.
fn keeps_names(old: &Request, new: &Request) -> Result<(), NotEdited> {
    let differs = |field, instead| Err(NotEdited::Names { field, instead });
    if new.schema != old.schema {
        return differs("schema", PUBLISH);
    }
    if new.source != old.source {
        return differs("source", PUBLISH);
    }
    if new.dedupe_key != old.dedupe_key {
        return differs("dedupe_key", PUBLISH);
    }
    if new.organization != old.organization {
        return differs("organization", PUBLISH);
    }
    if new.account != old.account {
        return differs(
            "account",
            "A job that waits for an account takes one by `dispatch jobs configure`.",
        );
    }
    if new.identity != old.identity {
        return differs("identity", PUBLISH);
    }
    let keeps_destinations = match (&old.notify, &new.notify) {
        (None, None) => true,
        (Some(_), None) => false,
        (None, Some(new)) => new.is_empty(),
        (Some(old), Some(new)) => new.iter().all(|name| old.contains(name)),
    };
    if keeps_destinations {
        Ok(())
    } else {
        differs("notify", "Names may only be left out.")
    }
}

fn keep_secrets(old: &[HookEvent], new: &mut [HookEvent]) {
    let same = |one: &RawValue, other: &RawValue| {
        serde_json::from_str::<Value>(one.get()).ok() == serde_json::from_str(other.get()).ok()
    };
    for (at, event) in new.iter_mut().enumerate() {
        if event.secret_sha256.is_some() {
            continue;
        }
        let kept = old
            .iter()
            .find(|known| same(&known.payload, &event.payload));
        let kept = kept.or_else(|| old.get(at));
        event.secret_sha256 = kept.and_then(|known| known.secret_sha256.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Value {
        json!({"schema": 1, "source": "s", "dedupe_key": "k", "organization": "acme", "account": "a", "identity": null,
            "search": null, "events": [{"payload": {"id": 1}, "secret_sha256": "one"}, {"payload": {"id": 2}, "secret_sha256": "two"}],
            "notify": ["team", "ops"],
            "interaction": {"application_id": "7", "sealed_token": "v1.x", "message_id": null}, "not_before": null, "deadline": null})
    }

    fn edited(change: impl FnOnce(&mut Value)) -> Result<Request, NotEdited> {
        let stored = stored().to_string();
        let mut document = without_secrets(&stored).unwrap();
        change(&mut document);
        let inputs = Inputs {
            present: &stored,
            own: &stored,
            secrets: &stored,
        };
        decode_edited(inputs, &document)
    }

    #[test]
    fn an_edit_keeps_the_secrets_and_shows_none() {
        let shown = without_secrets(&stored().to_string()).unwrap().to_string();
        assert!(!shown.contains("secret_sha256") && !shown.contains("sealed_token"));
        let new = edited(|document| document["notify"] = json!(["ops"])).unwrap();
        assert_eq!(new.interaction.unwrap().sealed_token, "v1.x");
        let secrets = |new: &[HookEvent]| -> Vec<Option<String>> {
            new.iter()
                .map(|event| event.secret_sha256.clone())
                .collect()
        };
        assert_eq!(
            secrets(&new.events),
            [Some("one".to_owned()), Some("two".to_owned())]
        );
        let new = edited(|document| document["events"] = json!([{"payload": {"id": 2}}])).unwrap();
        assert_eq!(secrets(&new.events), [Some("two".to_owned())]);
    }

    #[test]
    fn an_edit_that_names_something_else_is_refused() {
        for (field, value) in [
            ("organization", json!("globex")),
            ("account", json!("other")),
            ("account", Value::Null),
            ("identity", json!("boss")),
            ("notify", json!(["team", "elsewhere"])),
            ("notify", Value::Null),
            ("source", json!("other")),
            ("dedupe_key", json!("other")),
            ("interaction", Value::Null),
            (
                "interaction",
                json!({"application_id": "8", "message_id": null}),
            ),
        ] {
            let error = edited(|document| document[field] = value).unwrap_err();
            assert!(
                matches!(error, NotEdited::Names { field: at, .. } if at == field),
                "{field}: {error}"
            );
        }
    }

    #[test]
    fn an_edit_is_checked_as_a_message_is() {
        let error = edited(|document| document["search"] = json!({"text": ""})).unwrap_err();
        assert!(matches!(error, NotEdited::Refused(_)), "{error}");
        let error = edited(|document| document["surch"] = json!(1)).unwrap_err();
        assert!(matches!(error, NotEdited::Refused(_)), "{error}");
    }
}
