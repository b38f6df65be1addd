//! Masks what may name a person: a value is shown if its key and its form say that it is an id, a
//! code, a time, a number or a truth value. In place of any other one stands its kind and a keyed
//! hash, such as `person·7f3a`, so that equal values look equal. Secrets are not even hashed.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::operations::PathChange;
use crate::secrets::Keyring;

/// The most values that are shown; in place of further ones stands [`MORE`].
const VALUES: usize = 2_000;
/// In place of what is not shown because there is too much.
const MORE: &str = "…";
/// In place of a secret.
const SECRET: &str = "secret";
/// The longest code that is shown, in bytes.
const CODE_LENGTH: usize = 255;
/// The longest key that is shown, in bytes.
const NAME_LENGTH: usize = 64;

/// Returns a JSON document in which nothing names a person and nothing is secret. Of documents
/// with more than 2,000 values, the first ones are shown.
#[must_use]
pub(crate) fn masked(value: &Value, keyring: &Keyring) -> Value {
    let mut mask = Mask {
        keyring,
        left: VALUES,
    };
    mask.value(Kind::Text, value)
}

/// Returns the changes with their values masked, each as a field with the last name of its path.
#[must_use]
pub(crate) fn masked_changes(changes: Vec<PathChange>, keyring: &Keyring) -> Vec<PathChange> {
    let masked = |change: PathChange| {
        let mut mask = Mask {
            keyring,
            left: VALUES,
        };
        let mut names = change.path.split(['.', '[', ']']);
        let kind = if names.any(|name| kind_of(name) == Kind::Secret) {
            Kind::Secret
        } else {
            let is_of_index = |c: char| c.is_ascii_digit() || c == '[' || c == ']';
            kind_of(change.path.trim_end_matches(is_of_index))
        };
        let is_plain = |c: char| is_of_names(c) || c == '[' || c == ']';
        PathChange {
            before: change.before.map(|value| mask.value(kind, &value)),
            after: change.after.map(|value| mask.value(kind, &value)),
            path: if change.path.chars().all(is_plain) {
                change.path
            } else {
                mask.hashed("key", &change.path)
            },
        }
    };
    changes.into_iter().map(masked).collect()
}

/// Returns the text of an error without the e-mail addresses in it: a mail server names the
/// recipients that it refuses.
#[must_use]
pub(crate) fn without_mailboxes(text: &str, keyring: &Keyring) -> String {
    let mask = Mask {
        keyring,
        left: VALUES,
    };
    let is_of_word = |c: char| c.is_alphanumeric() || "._%+-@".contains(c);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(is_of_word) {
        let (before, from) = rest.split_at(begin);
        let end = from.find(|c| !is_of_word(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        let mailbox = word.trim_end_matches(['.', '-']);
        let is_mailbox = mailbox
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'));
        shown.push_str(before);
        if is_mailbox {
            shown.push_str(&mask.hashed("address", mailbox));
            shown.push_str(&word[mailbox.len()..]);
        } else {
            shown.push_str(word);
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

struct Mask<'a> {
    keyring: &'a Keyring,
    left: usize,
}

/// What the key of a value says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A word of a program: it is shown if it has the form of one.
    Code,
    /// An id: it is shown if no person chose it.
    Id,
    Person,
    Address,
    Secret,
    Text,
}

impl Mask<'_> {
    /// The depth of recursion is that of a parsed document, which is bounded.
    fn value(&mut self, kind: Kind, value: &Value) -> Value {
        self.left = self.left.saturating_sub(1);
        match value {
            Value::Null => Value::Null,
            _ if kind == Kind::Secret => SECRET.into(),
            Value::Bool(_) => value.clone(),
            Value::Number(number) if matches!(kind, Kind::Person | Kind::Address) => {
                self.hashed(kind.word(), &number.to_string()).into()
            }
            Value::Number(_) => value.clone(),
            Value::String(text) if is_harmless(kind, text) => value.clone(),
            Value::String(text) => self.hashed(word(kind, text), text).into(),
            Value::Array(items) => self.array(kind, items),
            Value::Object(fields) => self.object(kind, fields),
        }
    }

    fn array(&mut self, kind: Kind, items: &[Value]) -> Value {
        let mut shown = Vec::new();
        for item in items {
            if self.left == 0 {
                shown.push(MORE.into());
                break;
            }
            shown.push(self.value(kind, item));
        }
        Value::Array(shown)
    }

    fn object(&mut self, kind: Kind, fields: &Map<String, Value>) -> Value {
        let mut shown = Map::new();
        for (key, value) in fields {
            if self.left == 0 {
                shown.insert(MORE.to_owned(), MORE.into());
                break;
            }
            // A service hook describes a change of a field so; what they are says the field.
            let of = if ["oldValue", "newValue"].contains(&key.as_str()) {
                kind
            } else {
                kind_of(key)
            };
            let name = if is_name(key) {
                key.clone()
            } else {
                self.hashed("key", key)
            };
            shown.insert(name, self.value(of, value));
        }
        Value::Object(shown)
    }

    fn hashed(&self, word: &str, text: &str) -> String {
        let hash = self.keyring.keyed_hash(&format!("shown {text}"));
        let short = data_encoding::HEXLOWER.encode(&hash[..2]);
        format!("{word}·{short}")
    }
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Code | Self::Text => "text",
            Self::Id => "id",
            Self::Person => "person",
            Self::Address => "address",
            Self::Secret => SECRET,
        }
    }
}

/// Returns the kind of a value by its key: `eventType`, `event_type` and `System.EventType` are the
/// same.
fn kind_of(key: &str) -> Kind {
    let last = key.rsplit(['.', '/']).next().unwrap_or(key);
    let is_id = last.eq_ignore_ascii_case("id")
        || ["_id", "_ids", "-id", "Id", "Ids", "ID", "GUID", "Guid"]
            .iter()
            .any(|end| last.ends_with(end));
    let plain: String = last
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let has = |words: &[&str]| words.iter().any(|word| plain.contains(word));
    match plain.as_str() {
        _ if has(&[
            "secret",
            "token",
            "password",
            "passwd",
            "authorization",
            "credential",
            "apikey",
            "privatekey",
            "cookie",
            "signature",
        ]) =>
        {
            Kind::Secret
        }
        "schema" | "source" | "dedupekey" | "organization" | "account" | "accountid"
        | "publisherid" | "eventtype" | "event" | "resourceversion" | "state" | "status"
        | "code" | "errorcode" | "class" | "kind" | "stage" | "pipeline" | "lane" | "version"
        | "schemaversion" | "rev" | "revision" | "notify" | "workitemtype" | "workitemtypes"
        | "states" | "messageid" | "provider" | "outcome" => Kind::Code,
        _ if has(&["mail", "address", "phone", "mobile", "upn"]) => Kind::Address,
        _ if has(&[
            "person",
            "user",
            "author",
            "assign",
            "displayname",
            "uniquename",
        ]) && !is_id
            || plain.ends_with("by")
            || ["identity", "name", "owner", "login"].contains(&plain.as_str()) =>
        {
            Kind::Person
        }
        _ if is_id => Kind::Id,
        _ => Kind::Text,
    }
}

fn is_harmless(kind: Kind, text: &str) -> bool {
    text.is_empty()
        || is_uuid(text)
        || OffsetDateTime::parse(text, &Rfc3339).is_ok()
        || match kind {
            Kind::Code => is_code(text),
            Kind::Id => is_made_id(text),
            Kind::Person | Kind::Address | Kind::Secret | Kind::Text => false,
        }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && Uuid::try_parse(text).is_ok()
}

/// Returns whether a text can be a word of a program: one word, and no address.
fn is_code(text: &str) -> bool {
    let is_of_codes = |c: char| c.is_ascii_alphanumeric() || "-_.:/#+=~|".contains(c);
    text.len() <= CODE_LENGTH && !text.contains("://") && text.chars().all(is_of_codes)
}

/// Returns whether a text can be an id that a program made: digits, or digits and capitals.
fn is_made_id(text: &str) -> bool {
    text.len() <= 32
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// Returns whether a key can be the name of a field, and no value.
fn is_name(key: &str) -> bool {
    !key.is_empty() && key.len() <= NAME_LENGTH && key.chars().all(is_of_names)
}

fn is_of_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.:/$".contains(c)
}

fn word(kind: Kind, text: &str) -> &'static str {
    let is_url = text.contains("://") && !text.contains(char::is_whitespace);
    let is_address = text.contains('@') && text.chars().count() <= CODE_LENGTH;
    match kind {
        Kind::Code | Kind::Id | Kind::Text if is_url => "url",
        Kind::Code | Kind::Id | Kind::Text if is_address => "address",
        _ => kind.word(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ring() -> Keyring {
        Keyring::parse(&Keyring::fresh_setting()).unwrap()
    }

    #[test]
    fn ids_codes_times_and_numbers_are_shown() {
        let shown = json!({"schema": 1, "source": "shop", "dedupe_key": "order-17", "organization": "acme",
            "account": "contoso", "not_before": "2026-01-02T03:04:05Z", "notify": ["team"], "events": [{"payload": {
                "eventType": "workitem.updated", "subscriptionId": "6d3b1b5e-7b35-4d3c-9f0e-3b1f7f6a2c11",
                "resource": {"id": 17, "rev": 3, "isDone": true, "workItemId": "17", "channel_id": "C024BE7LH",
                    "fields": {"System.State": {"oldValue": "New", "newValue": "Active"}, "System.Title": null}}}}]});
        assert_eq!(masked(&shown, &ring()), shown);
    }

    #[test]
    fn people_addresses_texts_and_secrets_are_not_shown() {
        let planted = json!({"source": "Anna Bauer", "organization": "anna@example.com", "identity": "Anna", "account": "https://anna.example.com/x",
            "search": {"text": "Anna"}, "dedupe_key": "Anna Bauer 17", "user_id": "Anna", "id": "anna17", "notify": ["Anna Bauer"],
            "interaction": {"token": "Anna", "application_id": "x-Anna"},
            "events": [{"shared_secret": "Anna", "payload": {"Anna Bauer": 1, "anna@example.com": {"phone": 491_701_234_567_u64},
                "revisedBy": {"displayName": "Anna Bauer", "uniqueName": "anna@example.com", "url": "https://example.com/Anna"},
                "fields": {"System.AssignedTo": {"oldValue": null, "newValue": "Anna Bauer <anna@example.com>"}},
                "secret_parts": ["Anna", {"x": "Anna"}]}}]});
        let shown = masked(&planted, &ring());
        let text = shown.to_string();
        assert!(
            !text.to_lowercase().contains("anna") && !text.contains("4917"),
            "{text}"
        );
        assert_eq!(shown["interaction"]["token"], "secret");
        let payload = &shown["events"][0]["payload"];
        assert_eq!(payload["secret_parts"], "secret");
        let starts = |value: &Value, kind: &str| value.as_str().unwrap().starts_with(kind);
        assert!(starts(&payload["revisedBy"]["displayName"], "person·"));
        assert!(starts(&payload["revisedBy"]["url"], "url·"));
        assert!(starts(&shown["search"]["text"], "text·"));
        assert!(starts(&shown["organization"], "address·"));
    }

    #[test]
    fn equal_values_look_equal_under_one_keyring() {
        let (one, other) = (ring(), ring());
        let value = json!([{"author": "Anna"}, {"author": "Anna"}, {"author": "Ben"}]);
        let shown = masked(&value, &one);
        assert_eq!(shown[0], shown[1]);
        let many: Vec<String> = (0..50).map(|n| format!("person {n}")).collect();
        assert_ne!(masked(&json!(many), &one), masked(&json!(many), &other));
    }

    #[test]
    fn no_mailbox_stands_in_the_text_of_an_error() {
        let ring = ring();
        let text =
            "not for anna@example.com, Ben <ben.x+y@mail.example>: 550 no. Ask zoë@a.example.";
        let shown = without_mailboxes(text, &ring);
        for name in ["anna", "ben.x", "mail.example", "zoë"] {
            assert!(!shown.contains(name), "{shown}");
        }
        assert!(
            shown.starts_with("not for address·") && shown.ends_with('.'),
            "{shown}"
        );
        let plain = "there is no destination `new`; @here, a@b, 10 % of 3.5 s";
        assert_eq!(without_mailboxes(plain, &ring), plain);
    }

    #[test]
    fn changes_are_masked_by_their_paths() {
        let change = |path: &str| PathChange {
            path: path.to_owned(),
            before: None,
            after: Some(json!("order-17")),
        };
        let paths = [
            "dedupe_key",
            "notify[0]",
            "search.text",
            "events[0].secret[1].x",
            "a b",
        ];
        let shown = masked_changes(paths.map(change).to_vec(), &ring());
        let after = |at: usize| shown[at].after.as_ref().unwrap().as_str().unwrap();
        assert_eq!(
            [after(0), after(1), after(3)],
            ["order-17", "order-17", SECRET]
        );
        assert!(after(2).starts_with("text·") && shown[4].path.starts_with("key·"));
    }

    #[test]
    fn of_a_large_document_the_beginning_is_shown() {
        let large = json!({"a": vec![0; 100_000], "b": 1});
        let shown = masked(&large, &ring());
        assert!(shown.to_string().len() < 4 * VALUES);
        assert_eq!(shown[MORE], MORE);
        let nested: Vec<Vec<u8>> = vec![vec![0; 1000]; 1000];
        assert!(masked(&json!(nested), &ring()).to_string().len() < 4 * VALUES);
    }
}
