//! The standard small test world: the organization `acme` with one Azure DevOps account, in the
//! tracker and in the simulator.
//!
//! The group `WEB-1` is linked to two work items, so a change of one is written to the other;
//! `WEB-2` is linked to a third one only. Three destinations receive every change: a Discord
//! channel (keyed for two minutes), a webhook receiver that honours `webhook-id` (keyed) and one
//! that does not (at-least-once). Assignees are synchronized in both directions.

use dispatch_worker::devkit::simulator::state::{State, WebhookMode, stable_uuid};
use dispatch_worker::tracker::TrackerDocument;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The source of every job that tests publish.
pub(crate) const SOURCE: &str = "tests";
/// The account name in URLs.
pub(crate) const ACCOUNT: &str = "contoso";
/// A work item of group `WEB-1`.
pub(crate) const WORK_ITEM: i64 = 17;
/// The other work item of group `WEB-1`.
pub(crate) const OTHER_ITEM: i64 = 18;
/// The only work item of group `WEB-2`.
pub(crate) const LONE_ITEM: i64 = 19;
/// The e-mail address of a member.
pub(crate) const ANN: &str = "ann@acme.example";
/// The e-mail address of another member.
pub(crate) const BOB: &str = "bob@acme.example";
/// The e-mail address of the identity that the worker acts as.
pub(crate) const BOT: &str = "bot@acme.example";
/// The access token of [`BOT`].
pub(crate) const TOKEN: &str = "canary-access-token-1";
/// The current secret of the service-hook subscriptions.
pub(crate) const HOOK_SECRET: &str = "canary-hook-secret";
/// The name of the Discord destination; keyed for two minutes.
pub(crate) const DISCORD: &str = "discord";
/// The name of the webhook destination that honours `webhook-id`; keyed.
pub(crate) const KEYED: &str = "keyed";
/// The name of the webhook destination that ignores `webhook-id`; at-least-once.
pub(crate) const BLIND: &str = "blind";

/// The user that signs in to the mail server; the password is the secret of a destination.
pub(crate) const MAIL_USER: &str = "robot";

/// The path of the request of `retrieve_user`.
pub(crate) const PROFILE: &str = "/_apis/profile/profiles/me";

/// The account's project.
pub(crate) const PROJECT: &str = "Web";
const CHANNEL: &str = "1001";
const BOT_TOKEN: &str = "canary-bot-token";
/// The previous secret of the subscriptions.
const PREVIOUS_HOOK_SECRET: &str = "canary-previous-hook-secret";
/// The refresh token of an unused identity.
const REFRESH_TOKEN: &str = "canary-refresh-token";
/// The secret of an unused destination, as are the next two.
const SLACK_TOKEN: &str = "xoxb-canary-slack-token";
const SMTP_PASSWORD: &str = "canary-smtp-password";
const URL_SIGNATURE: &str = "canary-url-signature";
/// The token of the interaction in [`clicked`].
const INTERACTION_TOKEN: &str = "canary-interaction-token";

/// Every secret of this world except those of its servers. None may appear anywhere in plaintext.
/// A new secret needs a line here.
pub(super) const CANARIES: &[&str] = &[
    TOKEN,
    HOOK_SECRET,
    PREVIOUS_HOOK_SECRET,
    REFRESH_TOKEN,
    BOT_TOKEN,
    WEBHOOK_SECRET,
    WEBHOOK_KEY,
    SLACK_TOKEN,
    SMTP_PASSWORD,
    URL_SIGNATURE,
    INTERACTION_TOKEN,
];
/// `whsec_` and the base64 of 24 bytes.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_Y2FuYXJ5LXdlYmhvb2stc2VjcmV0LTAx";
/// The bytes that [`WEBHOOK_SECRET`] encodes.
const WEBHOOK_KEY: &str = "canary-webhook-secret-01";
/// The replacement of [`WEBHOOK_SECRET`] in a rotation; of the same length.
pub(crate) const NEW_WEBHOOK_SECRET: &str = "whsec_bmV3LWNhbmFyeS13ZWJob29rLXNlYy0x";

/// Returns the account id.
pub(crate) fn account_id() -> String {
    stable_uuid(&format!("account {ACCOUNT}")).to_string()
}

/// Returns the initial state of the simulator.
pub(crate) fn providers() -> State {
    State::new()
        .user("Ann", ANN)
        .user("Bob", BOB)
        .user("Bot", BOT)
        .token(TOKEN, BOT)
        .account(ACCOUNT, PROJECT)
        .bug(ACCOUNT, PROJECT, WORK_ITEM, "Login is slow", None)
        .bug(ACCOUNT, PROJECT, OTHER_ITEM, "Sessions are slow", None)
        .bug(ACCOUNT, PROJECT, LONE_ITEM, "Logout is slow", None)
        .channel(BOT_TOKEN, CHANNEL)
        .webhook(KEYED, WEBHOOK_SECRET, WebhookMode::Keyed)
        .webhook(BLIND, WEBHOOK_SECRET, WebhookMode::Blind)
}

/// Returns the tracker document; its destinations are at the simulator.
pub(crate) fn document(simulator: &str) -> TrackerDocument {
    let person = |name: &str, email: &str| json!({"name": name, "emails": [email]});
    let group = |short_id: &str, title: &str, items: &[i64]| {
        let links: Vec<Value> = items
            .iter()
            .map(|id| json!({"account_id": account_id(), "work_item_id": id}))
            .collect();
        json!({"short_id": short_id, "title": title, "links": links})
    };
    let webhook = |name: &str, keyed: bool| {
        let config =
            json!({"url": format!("{simulator}/webhook/{name}"), "honours_webhook_id": keyed});
        json!({"name": name, "kind": "webhook", "config": config, "secret": WEBHOOK_SECRET, "default": true})
    };
    let discord = json!({"name": DISCORD, "kind": "discord", "config": {"channel_id": CHANNEL}, "secret": BOT_TOKEN, "default": true});
    let groups = [
        group("WEB-1", "Login is slow", &[WORK_ITEM, OTHER_ITEM]),
        group("WEB-2", "Logout is slow", &[LONE_ITEM]),
    ];
    let everything =
        json!({"assignee_inbound": true, "assignee_outbound": true, "status_inbound": true});
    let document = json!({
        "users": [person("Ann", ANN), person("Bob", BOB)],
        "integrations": [{"account_id": account_id(), "account_name": ACCOUNT, "hook_secrets": [HOOK_SECRET, PREVIOUS_HOOK_SECRET]}],
        "organizations": [{
            "slug": "acme", "name": "Acme",
            "identities": [{"name": "bot", "access_token": TOKEN, "expires_at": "2099-01-01T00:00:00Z"}],
            "installations": [{"account_id": account_id(), "identity": "bot", "settings": everything}],
            "projects": [{
                "slug": "web", "name": "Web", "members": [ANN, BOB],
                "groups": groups
            }],
            "destinations": [discord, webhook(KEYED, true), webhook(BLIND, false)]
        }, aside()]
    });
    serde_json::from_value(document).expect("a tracker document")
}

/// Returns a permitted `not_before` in the future, as a message contains it.
pub(crate) fn later() -> Value {
    let time = OffsetDateTime::now_utc() + time::Duration::days(20);
    json!(time.format(&Rfc3339).expect("a time of this century"))
}

/// Returns an organization that does nothing: it holds the kinds of secrets that `acme` does not
/// have.
fn aside() -> Value {
    let signed = format!("https://teams.example/workflows/1?sig={URL_SIGNATURE}");
    let mail = json!({"from": "dispatch@acme.example", "to": ["team@acme.example"]});
    json!({
        "slug": "aside", "name": "Aside",
        "identities": [{
            "name": "spare", "access_token": TOKEN, "refresh_token": REFRESH_TOKEN, "expires_at": "2099-01-01T00:00:00Z"
        }],
        "destinations": [
            {"name": "slack", "kind": "slack", "config": {"channel": "C042"}, "secret": SLACK_TOKEN},
            {"name": "mail", "kind": "email", "config": mail, "secret": SMTP_PASSWORD},
            {"name": "teams", "kind": "teams", "config": {}, "secret": signed}
        ]
    })
}

/// Returns a [`job`] that comes from a click in Discord.
pub(crate) fn clicked(dedupe_key: &str, event: &Value) -> Value {
    let mut job = job(dedupe_key, event);
    job["interaction"] = json!({"application_id": "99", "token": INTERACTION_TOKEN});
    job
}

/// Returns an intake message of `acme` with one service-hook event; the caller may add or replace
/// fields.
pub(crate) fn job(dedupe_key: &str, event: &Value) -> Value {
    json!({
        "schema": 1, "source": SOURCE, "dedupe_key": dedupe_key, "organization": "acme", "account": account_id(),
        "events": [{"payload": event, "shared_secret": HOOK_SECRET}]
    })
}
