//! Answers of channels to messages.

use std::collections::BTreeSet;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::State;
use serde_json::json;

use dispatch_worker::devkit::simulator::witness::Provider;
use dispatch_worker::providers::{slack, teams};

use super::expected::{Ask, Case, Ends, Expected, Seen, Wrong};
use super::{ANN_HAS_IT, SUCCEEDED, one_group};
use crate::providers::answers::tenant::{ANN, BOB, Tenant};
use crate::support::acme;

/// A separate bot for each tenant: a hold of a bot applies to all its channels and to no others.
const BOTS: [(&str, &str); 2] = [
    ("m08", "canary-field-bot-m08"),
    ("m13", "canary-field-bot-m13"),
];
const CHANNELS: [&str; 5] = ["3001", "5001", "5002", "5003", "5004"];
const SLACK_TOKEN: &str = "xoxb-canary-field-slack-token";
const SMTP_PASSWORD: &str = "canary-field-smtp-password";
const SIGNATURE: &str = "canary-field-signature";
/// The global hold in seconds, in Discord's format.
const GLOBAL_HOLD: f64 = 6.5;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "m01",
        has: |tenant, at| teams(tenant, &at.simulator),
        answers: |_| vec![teams_failed(429).path_contains("/teams/m01").times(2)],
        asks: &[Ask::events(&[(17, ANN)]).notifying(&["teams-1"])],
        expected: Expected {
            groups: ANN_HAS_IT,
            calls: &[("POST /teams/m01", &[200, 200, 202])],
            also: |seen, wrong| {
                wrong.equal(
                    "cards",
                    seen.providers.received(&teams::KIND, "m01").len(),
                    1,
                );
                confirmed_at_attempt(seen, 3, wrong);
            },
            ..SUCCEEDED
        },
    },
    Case {
        name: "m03",
        has: |tenant, _| {
            let config = json!({"channel": "CMIGRATE1"});
            one_group(tenant).destination("slack", &config, SLACK_TOKEN)
        },
        answers: |_| {
            let migrating = json!({"ok": false, "error": "external_channel_migrating"}).to_string();
            vec![
                FaultRule::answering(200, migrating)
                    .body_contains("CMIGRATE1")
                    .times(2),
            ]
        },
        asks: &[Ask::events(&[(17, ANN)]).notifying(&["slack-1"])],
        expected: Expected {
            calls: &[("POST /chat.postMessage", &[200; 3])],
            also: |seen, wrong| {
                wrong.equal(
                    "messages",
                    seen.providers.received(&slack::KIND, "CMIGRATE1").len(),
                    1,
                );
                confirmed_at_attempt(seen, 3, wrong);
            },
            ..SUCCEEDED
        },
    },
    Case {
        name: "m08",
        has: |tenant, _| discord(tenant, &["3001"]),
        answers: |_| {
            let gone = json!({"message": "Unknown Message", "code": 10008}).to_string();
            let at = "/channels/3001/messages";
            vec![
                FaultRule::new(FaultKind::LoseAnswer)
                    .path_contains(at)
                    .times(1),
                FaultRule::answering(404, gone).path_contains(at).times(1),
            ]
        },
        asks: &[Ask::events(&[(17, ANN)]).notifying(&["discord-1"])],
        expected: Expected {
            calls: &[("POST /channels/3001/messages", &[0, 404])],
            also: |seen, wrong| {
                wrong.equal("messages", seen.providers.discord.channels["3001"].len(), 1);
                let posts = seen
                    .calls
                    .iter()
                    .filter(|entry| entry.provider == Provider::Discord);
                let keys: BTreeSet<_> = posts.filter_map(|entry| entry.key.as_deref()).collect();
                wrong.equal("nonces", keys.len(), 1);
            },
            ..SUCCEEDED
        },
    },
    Case {
        name: "m10",
        has: |tenant, _| {
            let to = ["team@ok.example", "left@gone.example", "boss@ok.example"];
            let config = json!({"from": "d@field.example", "to": to});
            one_group(tenant).destination("email", &config, SMTP_PASSWORD)
        },
        answers: |_| {
            let unknown = FaultRule::answering(
                550,
                "550 5.1.1 The email account that you tried to reach does not exist",
            );
            vec![unknown.method("RCPT").path_contains("left@gone.example")]
        },
        asks: &[Ask::events(&[(17, ANN)]).notifying(&["email-1"])],
        expected: Expected {
            also: two_of_three_have_the_mail,
            ..SUCCEEDED
        },
    },
    Case {
        name: "m13",
        has: |tenant, _| discord(tenant, &["5001", "5002", "5003", "5004"]),
        answers: |_| {
            let body = json!({"message": "You are being rate limited.", "retry_after": GLOBAL_HOLD, "global": true});
            let limited = FaultRule::answering(429, body.to_string()).header("Retry-After", "7");
            let limited = limited
                .header("X-RateLimit-Global", "true")
                .header("X-RateLimit-Scope", "global");
            vec![limited.path_contains("/channels/5001/messages").times(1)]
        },
        asks: &[
            Ask::events(&[(17, ANN)]).notifying(&["discord-1"]),
            Ask::events(&[(17, BOB)]).notifying(&["discord-2", "discord-3", "discord-4"]),
        ],
        expected: Expected {
            also: the_bot_was_silent,
            ..SUCCEEDED
        },
    },
    Case {
        name: "m14",
        has: |tenant, at| teams(tenant, &at.simulator),
        answers: |_| vec![teams_failed(413).path_contains("/teams/m14")],
        asks: &[Ask::events(&[(17, ANN)]).notifying(&["teams-1"])],
        expected: Expected {
            groups: ANN_HAS_IT,
            also: |seen, wrong| {
                let confirmed = seen
                    .messages()
                    .flat_map(|job| &job.effects)
                    .any(|effect| effect.state == "confirmed");
                wrong.equal("confirmed", confirmed, false);
            },
            ..Expected::to(Ends::FollowUpParked {
                code: "teams.delivery_failed",
                says: "HTTP error 413",
            })
        },
    },
];

/// Returns a simulator state with these channels.
pub(super) fn providers() -> State {
    let state = State::new()
        .room(&teams::KIND, "m01", SIGNATURE)
        .room(&teams::KIND, "m14", SIGNATURE)
        .room(&slack::KIND, "CMIGRATE1", SLACK_TOKEN);
    let state = state.mail_user(acme::MAIL_USER, SMTP_PASSWORD);
    let mut state = CHANNELS
        .iter()
        .fold(state, |state, channel| state.channel(BOTS[0].1, channel));
    state
        .discord
        .tokens
        .extend(BOTS.map(|(_, token)| token.to_owned()));
    state
}

/// Returns the answer of a retired Teams connector, which reports errors with status 200.
fn teams_failed(status: u16) -> FaultRule {
    let text =
        "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error";
    FaultRule::answering(
        200,
        format!("{text} {status} with ContextId tcid=0,server=msgapi-production-eus-azsc2-4-170."),
    )
}

fn teams(tenant: Tenant, simulator: &str) -> Tenant {
    let secret = format!("{simulator}/teams/{}?sig={SIGNATURE}", tenant.name);
    one_group(tenant).destination("teams", &json!({}), &secret)
}

fn discord(tenant: Tenant, channels: &[&str]) -> Tenant {
    let token = BOTS
        .iter()
        .find(|(name, _)| *name == tenant.name)
        .map_or("", |(_, token)| token);
    let add = |tenant: Tenant, channel: &&str| {
        tenant.destination("discord", &json!({"channel_id": channel}), token)
    };
    channels.iter().fold(one_group(tenant), add)
}

/// Checks that the last attempt confirmed the only message and that all earlier attempts are
/// recorded as failed.
fn confirmed_at_attempt(seen: &Seen<'_>, last: usize, wrong: &mut Wrong) {
    let messages: Vec<_> = seen.messages().collect();
    let [message] = messages[..] else {
        return wrong.say(format_args!("{} messages", messages.len()));
    };
    let effects: Vec<_> = message
        .effects
        .iter()
        .map(|effect| (effect.state.as_str(), effect.unknowns))
        .collect();
    wrong.equal("its effect", effects, vec![("confirmed", 0)]);
    let called = message
        .attempts
        .iter()
        .filter(|attempt| attempt.error_code != "governor.held")
        .count();
    wrong.equal("attempts that delivered nothing", called, last - 1);
}

fn two_of_three_have_the_mail(seen: &Seen<'_>, wrong: &mut Wrong) {
    let mut to: Vec<&str> = seen
        .providers
        .mail
        .received
        .iter()
        .flat_map(|mail| &mail.to)
        .map(String::as_str)
        .collect();
    to.sort_unstable();
    wrong.equal(
        "who has the mail",
        to,
        vec!["boss@ok.example", "team@ok.example"],
    );
    for message in seen.messages() {
        let delivered = message
            .checkpoints
            .iter()
            .find(|checkpoint| checkpoint.stage == "deliver_message");
        let output = delivered
            .map(|checkpoint| checkpoint.output.to_string())
            .unwrap_or_default();
        wrong.contains("the output of its delivery", &output, "left@gone.example");
        if output.contains("boss@ok.example") {
            wrong.say(format_args!(
                "the output names as refused who was not: {output}"
            ));
        }
    }
}

fn the_bot_was_silent(seen: &Seen<'_>, wrong: &mut Wrong) {
    let called: Vec<_> = seen
        .calls
        .iter()
        .filter(|entry| entry.path.ends_with("/messages"))
        .collect();
    let Some(limited) = called.iter().find(|entry| entry.status == Some(429)) else {
        return wrong.say("no 429 was met");
    };
    let over = limited.at + time::Duration::seconds_f64(GLOBAL_HOLD);
    for early in called
        .iter()
        .filter(|entry| entry.at > limited.at && entry.at < over)
    {
        wrong.say(format_args!(
            "{} was called {} before it was over",
            early.path,
            over - early.at
        ));
    }
    for channel in ["5001", "5002", "5003", "5004"] {
        wrong.equal(
            &format!("messages in {channel}"),
            seen.providers.discord.channels[channel].len(),
            1,
        );
    }
}
