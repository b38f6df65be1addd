//! Binds a destination's secret to one place: the kind of channel, and the host and channel that
//! the public settings name. A change of the place requires the secret again.
//!
//! **Invariant:** a stored secret is used only at the place it was given for; a change of kind,
//! host or channel without the secret is refused, and a change with it ends the rotation of the
//! old one.

use serde_json::Value;

use super::TrackerFault;
use crate::providers::channel::CHANNELS;

/// The limit of a value that an error shows.
const SHOWN_CHARACTERS: usize = 200;

/// Kind and public settings of a destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) kind: &'a str,
    pub(super) config: &'a Value,
}

/// Serializes the transactions that write destinations: otherwise a secret could be stored in a
/// row between the check of its place and the change of the place.
pub(super) const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(7264019, 2)";

/// Refuses to keep a secret whose place changes. `name` is the destination's name; `right` is
/// where the secret can be given.
///
/// # Errors
/// [`TrackerFault::Document`] describes the change.
pub(super) fn check_same_place(
    name: &str,
    from: Target<'_>,
    to: Target<'_>,
    right: &str,
) -> Result<(), TrackerFault> {
    change(from, to).map_or(Ok(()), |change| {
        Err(TrackerFault::Document {
            at: format!("destination {name}"),
            problem: format!("expected the secret again, since {change}; use {right}"),
        })
    })
}

/// Describes the change of the place, if there is one.
fn change(from: Target<'_>, to: Target<'_>) -> Option<String> {
    if from.kind != to.kind {
        return Some(format!(
            "the kind changes from {} to {}",
            shown(&from.kind.into()),
            shown(&to.kind.into())
        ));
    }
    let (Some(before), Some(after)) = (from.config.as_object(), to.config.as_object()) else {
        return (from.config != to.config).then(|| {
            format!(
                "`config` changes from {} to {}",
                shown(from.config),
                shown(to.config)
            )
        });
    };
    let known = CHANNELS.iter().find(|kind| kind.name() == from.kind);
    let without_place = known.map_or(&[][..], |kind| kind.without_place);
    let counts = |name: &&String| !without_place.contains(&name.as_str());
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let name = before
        .keys()
        .chain(after.keys())
        .filter(counts)
        .find(differs)?;
    let [old, new] = [before, after].map(|settings| {
        settings
            .get(name)
            .map_or_else(|| "nothing".to_owned(), shown)
    });
    Some(format!("`{name}` changes from {old} to {new}"))
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(SHOWN_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the refusal of a change of kind and settings without the secret.
    fn refusal(kinds: [&str; 2], configs: [&Value; 2]) -> Option<String> {
        let [from, to] = [0, 1].map(|n| Target {
            kind: kinds[n],
            config: configs[n],
        });
        check_same_place("chat", from, to, "`secret`")
            .map_err(|fault| fault.to_string())
            .err()
    }

    #[test]
    fn a_setting_that_only_shapes_a_message_changes_without_the_secret() {
        for (kind, before, after) in [
            (
                "webhook",
                json!({"url": "https://a.example"}),
                json!({"url": "https://a.example", "honours_webhook_id": true}),
            ),
            (
                "email",
                json!({"from": "a@b.example", "to": ["c@b.example"]}),
                json!({"from": "d@b.example", "to": []}),
            ),
            ("slack", json!({"channel": "C1"}), json!({"channel": "C1"})),
        ] {
            assert_eq!(refusal([kind; 2], [&before, &after]), None, "{kind}");
        }
    }

    #[test]
    fn a_change_of_host_or_channel_requires_the_secret_again() {
        for (kind, before, after, part) in [
            (
                "webhook",
                json!({"url": "https://a.example"}),
                json!({"url": "https://b.example"}),
                "\"https://a.example\" to \"https://b",
            ),
            (
                "slack",
                json!({"channel": "C1"}),
                json!({"channel": "C2"}),
                "`channel` changes from \"C1\" to \"C2\"",
            ),
            (
                "discord",
                json!({"channel_id": "1"}),
                json!({"channel_id": "2"}),
                "`channel_id`",
            ),
            (
                "discord",
                json!({"channel_id": "1"}),
                json!({"channel_id": "1", "api_base": "https://a.example"}),
                "from nothing to",
            ),
            (
                "discord",
                json!({"channel_id": "1", "api_base": "https://a.example"}),
                json!({"channel_id": "1"}),
                "to nothing",
            ),
            (
                "of tomorrow",
                json!({"room": 1}),
                json!({"room": 2}),
                "`room` changes from 1 to 2",
            ),
            (
                "of tomorrow",
                json!([1]),
                json!({}),
                "`config` changes from [1] to {}",
            ),
        ] {
            let refusal = refusal([kind; 2], [&before, &after]).unwrap();
            assert!(
                refusal.contains(part)
                    && refusal.contains("expected the secret again")
                    && refusal.ends_with("; use `secret`"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_change_of_kind_requires_the_secret_again() {
        let refusal = refusal(["discord_webhook", "teams"], [&json!({}); 2]).unwrap();
        assert!(
            refusal.starts_with("destination chat: ")
                && refusal.contains("kind changes from \"discord_webhook\" to \"teams\""),
            "{refusal}"
        );
    }
}
