//! Tests of the channel of Slack, against a scripted server.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::fault::{Certainty, Class, Fault};
use crate::providers::fuzz;
use crate::providers::scripted::{
    Reply, Scripted, channel_config, client, json as ok, message, reply, soon,
};

fn slack(api: &str) -> Slack {
    Slack::new(client(), api)
}

fn config(public: Value) -> ChannelConfig {
    channel_config(public, Some("canary-slack"))
}

async fn deliver(answer: Reply) -> (Result<Delivered, ChannelFault>, Scripted) {
    let server = Scripted::start(vec![answer]);
    let slack = slack(&format!("{}/api", server.url));
    let config = config(json!({"channel": "C042"}));
    let rendered = slack.render(&message("Hello", &["there"]));
    let delivery = Delivery::first(&config, &rendered, "k", EffectClass::AtLeastOnce, soon());
    let result = slack.deliver(delivery).await;
    (result, server)
}

#[tokio::test]
async fn a_message_is_posted_without_markup_links_or_mentions() {
    let (delivered, server) = deliver(ok(
        &json!({"ok": true, "channel": "C042", "ts": "1503435956.000247"}),
    ))
    .await;
    assert_eq!(
        delivered.unwrap().provider_ref.as_deref(),
        Some("C042/1503435956.000247")
    );
    let request = server.received().remove(0);
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/api/chat.postMessage")
    );
    assert_eq!(request.header("authorization"), Some("Bearer canary-slack"));
    assert_eq!(
        request.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    let expected = json!({
        "channel": "C042", "text": "Hello\nthere", "mrkdwn": false, "parse": "none", "link_names": false,
        "unfurl_links": false, "unfurl_media": false,
    });
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn a_refusal_inside_a_200_is_classified_by_its_error_code() {
    use Certainty::{NotDone, Unknown};

    let limited = Class::RateLimited {
        retry_after: Some(Duration::from_secs(7)),
    };
    let transient = Class::Transient { retry_after: None };
    let groups = [
        (
            limited,
            NotDone,
            &[("ratelimited", "slack.rate_limited")][..],
        ),
        (
            transient.clone(),
            Unknown,
            &[
                ("internal_error", "slack.server_error"),
                ("fatal_error", "slack.server_error"),
            ],
        ),
        (
            transient,
            NotDone,
            &[
                ("request_timeout", "slack.try_later"),
                ("external_channel_migrating", "slack.try_later"),
            ],
        ),
        (
            Class::Permanent,
            NotDone,
            &[
                ("channel_not_found", "slack.channel_not_found"),
                ("not_in_channel", "slack.not_in_channel"),
                ("token_revoked", "slack.token_revoked"),
                ("msg_too_long", "slack.msg_too_long"),
            ],
        ),
        (
            Class::Unrecognized,
            NotDone,
            &[("something_new", "slack.unrecognized")],
        ),
    ];
    let rows = groups.into_iter().flat_map(|(class, certainty, rows)| {
        let expected = move |(word, code)| (word, code, class.clone(), certainty);
        rows.iter().copied().map(expected)
    });
    for (word, code, class, certainty) in rows {
        let header = match class {
            Class::RateLimited { .. } => "retry-after: 7\r\n",
            _ => "",
        };
        let body = json!({"ok": false, "error": word}).to_string();
        let fault = deliver(reply(200, header, &body)).await.0.unwrap_err();
        assert_eq!(
            (fault.code(), fault.class(), fault.certainty()),
            (code, class, certainty),
            "{word}"
        );
        assert!(fault.to_string().contains(word), "{fault}");
    }
}

#[tokio::test]
async fn http_failures_and_unexpected_answers_prove_nothing_except_a_429() {
    for (answer, code, certainty) in [
        (
            reply(429, "retry-after: 3\r\n", ""),
            "slack.rate_limited",
            Certainty::NotDone,
        ),
        (
            reply(503, "", "oops"),
            "slack.server_error",
            Certainty::Unknown,
        ),
        (
            reply(200, "", "<html>"),
            "slack.malformed_answer",
            Certainty::Unknown,
        ),
        (
            ok(&json!({"ok": true})),
            "slack.malformed_answer",
            Certainty::Unknown,
        ),
        (
            ok(&json!({"ok": false})),
            "slack.malformed_answer",
            Certainty::Unknown,
        ),
        (Reply::Lose, "slack.connection_lost", Certainty::Unknown),
    ] {
        let fault = deliver(answer).await.0.unwrap_err();
        assert_eq!((fault.code(), fault.certainty()), (code, certainty));
    }
}

#[test]
fn control_sequences_are_escaped() {
    let lines = [
        "<!channel> <@U1> @everyone",
        "<https://x|click> &lt;",
        "a\r\nb",
    ];
    let Rendered(text) = slack("https://slack.com/api").render(&message("<#C1>", &lines));
    let expected = "&lt;#C1&gt;\n&lt;!channel&gt; &lt;\u{200a}@U1&gt; @everyone\n&lt;https\u{200a}://x|click&gt; &amp;lt;\na  b";
    assert_eq!(text, expected);
}

#[test]
fn the_fault_of_bad_settings_states_what_is_expected_and_no_secret() {
    let slack = slack("https://slack.com/api");
    for (public, part) in [
        (json!({}), "channel"),
        (json!({"channel": "#general"}), "not a name"),
        (json!({"channel": "c042"}), "id such as"),
        (json!({"channel": "C042", "icon": "x"}), "icon"),
    ] {
        let BadConfig(why) = slack.check_config(&config(public)).unwrap_err();
        assert!(why.contains(part) && !why.contains("canary"), "{why}");
    }
    let mut config = config(json!({"channel": "C042"}));
    assert_eq!(slack.check_config(&config), Ok(()));
    config.secret = None;
    assert!(slack.check_config(&config).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_message_fits_and_no_entity_is_split(lines in prop::collection::vec("[&<é🦀a]{0,900}", 0..8)) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let Rendered(text) = slack("https://slack.com/api").render(&message("T", &lines));
        prop_assert!(text.chars().count() <= TEXT_CHARACTERS);
        let entities = text.matches("&amp;").count() + text.matches("&lt;").count();
        prop_assert_eq!(text.matches('&').count(), entities);
    }
}

#[test]
fn every_fuzzed_answer_is_a_proof_or_a_fault_with_a_text() {
    let posted = br#"{"ok":true,"channel":"C1","ts":"1700000000.000100","message":{"text":"x"}}"#;
    let refused = br#"{"ok":false,"error":"missing_scope","needed":"chat:write","warning":"x"}"#;
    fuzz::answers(&SLACK, &[posted, refused], |answer| {
        let outcome = answer.success().map_err(Into::into);
        let outcome = outcome.and_then(|answer| super::outcome(&answer));
        outcome.err().map(|fault| fault.to_string())
    });
}
