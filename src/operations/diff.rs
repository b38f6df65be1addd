//! What differs between two JSON documents, by path.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A difference at one path.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PathChange {
    /// The path: `search.text`, `events[0].payload.id`.
    pub path: String,
    /// The value before; `None` if there was none, or if it is secret.
    pub before: Option<Value>,
    /// The value after; `None` if there is none, or if it is secret.
    pub after: Option<Value>,
}

/// The largest number of differences that are told apart; further ones are one at the path `…`.
const LIMIT: usize = 200;

/// Returns the differences, in the order of the paths.
#[must_use]
pub fn diff(before: &Value, after: &Value) -> Vec<PathChange> {
    let mut changes = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut changes);
    if changes.len() > LIMIT {
        changes.truncate(LIMIT);
        changes.push(PathChange {
            path: "…".to_owned(),
            before: None,
            after: None,
        });
    }
    changes
}

/// The depth of recursion is that of a message: bounded by intake.
fn compare(
    path: String,
    before: Option<&Value>,
    after: Option<&Value>,
    changes: &mut Vec<PathChange>,
) {
    if before == after || changes.len() > LIMIT {
        return;
    }
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let dot = if path.is_empty() { "" } else { "." };
                compare(
                    format!("{path}{dot}{key}"),
                    old.get(key),
                    new.get(key),
                    changes,
                );
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                compare(format!("{path}[{at}]"), old.get(at), new.get(at), changes);
            }
        }
        _ => changes.push(PathChange {
            path,
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_named_by_their_paths() {
        let before = json!({"search": {"text": "a"}, "events": [1, 2], "same": [{"x": 1}]});
        let after =
            json!({"search": {"text": "b"}, "events": [1], "same": [{"x": 1}], "new": null});
        let paths: Vec<String> = diff(&before, &after)
            .into_iter()
            .map(|one| one.path)
            .collect();
        assert_eq!(paths, ["events[1]", "search.text", "new"]);
        let many: Vec<usize> = (0..1000).collect();
        assert_eq!(diff(&json!(many), &json!([])).len(), LIMIT + 1);
    }
}
