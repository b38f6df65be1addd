//! Tests of the channel of the bot in Discord, against a scripted server.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fault::{Certainty, Class, Fault};
use crate::providers::fuzz;
use crate::providers::scripted::{
    Reply, Scripted, channel_config, client, json as ok, message, reply, soon,
};

const KEY: &str = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";

fn discord() -> Discord {
    Discord::new(client(), "https://discord.com/api/v10")
}

fn config(public: Value) -> ChannelConfig {
    channel_config(public, Some("canary-bot"))
}

async fn deliver(answer: Reply) -> (Result<Delivered, ChannelFault>, Scripted) {
    attempt(answer, false).await
}

async fn attempt(answer: Reply, repeated: bool) -> (Result<Delivered, ChannelFault>, Scripted) {
    let server = Scripted::start(vec![answer]);
    let config = config(json!({"channel_id": "42", "api_base": format!("{}/api/v10", server.url)}));
    let rendered = discord().render(&message("Hello", &["there"]));
    let delivery = Delivery {
        repeated,
        ..Delivery::first(&config, &rendered, KEY, EffectClass::Keyed, soon())
    };
    let result = discord().deliver(delivery).await;
    (result, server)
}

#[tokio::test]
async fn a_message_has_the_first_25_characters_of_the_key_as_nonce_and_no_mentions() {
    let (delivered, server) = deliver(ok(&json!({"id": "7001", "content": "x"}))).await;
    assert_eq!(delivered.unwrap().provider_ref.as_deref(), Some("7001"));
    let request = server.received().remove(0);
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/api/v10/channels/42/messages")
    );
    assert_eq!(request.header("authorization"), Some("Bot canary-bot"));
    assert_eq!(request.header("user-agent"), Some(AGENT));
    let expected = json!({
        "content": "**Hello**\nthere", "nonce": &KEY[..25], "enforce_nonce": true,
        "allowed_mentions": {"parse": []}, "flags": 4,
    });
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn a_rate_limit_is_parsed_from_the_body_or_else_from_the_header() {
    for (answer, seconds) in [
        (
            reply(
                429,
                "retry-after: 2\r\n",
                r#"{"message": "slow", "retry_after": 1.25, "global": false}"#,
            ),
            1.25,
        ),
        (reply(429, "retry-after: 2\r\n", "error code: 1015"), 2.0),
        (
            reply(429, "retry-after: 2\r\n", r#"{"retry_after": -1e300}"#),
            2.0,
        ),
        (
            reply(429, "retry-after: 2\r\n", r#"{"retry_after": 0.0}"#),
            2.0,
        ),
    ] {
        let fault = deliver(answer).await.0.unwrap_err();
        let retry_after = Some(Duration::from_secs_f64(seconds));
        assert_eq!(
            (fault.code(), fault.class()),
            ("discord.rate_limited", Class::RateLimited { retry_after })
        );
    }
}

#[tokio::test]
async fn a_global_limit_or_one_of_the_edge_applies_to_all_calls_of_the_bot() {
    let page = "<!DOCTYPE html><title>Access denied | discord.com used Cloudflare to restrict access</title>";
    for (answer, seconds, with_all) in [
        (
            reply(429, "", r#"{"retry_after": 6.5, "global": true}"#),
            Some(6.5),
            true,
        ),
        (
            reply(
                429,
                "x-ratelimit-global: true\r\n",
                r#"{"retry_after": 6.5}"#,
            ),
            Some(6.5),
            true,
        ),
        (
            reply(
                429,
                "x-ratelimit-scope: global\r\n",
                r#"{"retry_after": 6.5, "global": false}"#,
            ),
            Some(6.5),
            true,
        ),
        (
            reply(
                429,
                "x-ratelimit-scope: shared\r\n",
                r#"{"retry_after": 6.5, "global": false}"#,
            ),
            Some(6.5),
            false,
        ),
        (reply(429, "content-type: text/html\r\n", page), None, true),
        (reply(429, "retry-after: 30\r\n", page), Some(30.0), true),
        (reply(429, "", r#"{"message": "slow"}"#), None, false),
        (reply(503, "retry-after: 30\r\n", page), Some(30.0), false),
        (reply(403, "", page), None, false),
    ] {
        let fault = deliver(answer).await.0.unwrap_err();
        let retry_after = seconds.map(Duration::from_secs_f64);
        assert_eq!(fault.limits_all(), with_all, "{fault}");
        if let Class::Transient { retry_after: asked } | Class::RateLimited { retry_after: asked } =
            fault.class()
        {
            assert_eq!(asked, retry_after, "{fault}");
        }
    }
}

#[test]
fn destinations_of_one_bot_share_a_limit_whose_name_does_not_show_the_token() {
    let limit = |secret: &str| {
        let config = ChannelConfig {
            secret: Some(secret.into()),
            ..config(json!({"channel_id": "42"}))
        };
        discord().shared_limit(&config).expect("a bot has a limit")
    };
    // The beginning of the token's SHA-256.
    assert_eq!(limit("canary-bot"), "bot-43305de667c96e25");
    assert_ne!(limit("canary-bot"), limit("canary-bot-2"));
}

#[tokio::test]
async fn an_answer_that_proves_nothing_is_unknown() {
    for (answer, code) in [
        (Reply::Lose, "discord.connection_lost"),
        (reply(502, "", "bad gateway"), "discord.server_error"),
        (reply(200, "", "<html>"), "discord.malformed_answer"),
    ] {
        let fault = deliver(answer).await.0.unwrap_err();
        assert_eq!(
            (fault.code(), fault.certainty()),
            (code, Certainty::Unknown)
        );
    }
    let fault = deliver(reply(403, "", r#"{"code": 50013}"#))
        .await
        .0
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("discord.forbidden", Certainty::NotDone)
    );
}

#[tokio::test]
async fn a_repeated_message_that_was_deleted_is_done_and_a_first_one_is_not_found() {
    let gone = || reply(404, "", r#"{"message": "Unknown Message", "code": 10008}"#);
    assert_eq!(
        attempt(gone(), true).await.0.unwrap(),
        Delivered::whole(None)
    );
    let fault = attempt(gone(), false).await.0.unwrap_err();
    assert_eq!(
        (fault.code(), fault.class()),
        ("discord.not_found", Class::Permanent)
    );
    for other in [
        reply(404, "", r#"{"code": 10003}"#),
        reply(404, "", "nothing here"),
        reply(403, "", r#"{"code": 10008}"#),
    ] {
        assert!(
            attempt(other, true).await.0.is_err(),
            "only a 404 with this code is about the message"
        );
    }
}

#[tokio::test]
async fn a_transient_code_overrides_the_status_and_an_unknown_one_is_unrecognized() {
    let slow = || Class::Transient { retry_after: None };
    for (status, body, code, class) in [
        (
            400,
            r#"{"code": 40062, "message": "Service resource is being rate limited"}"#,
            "discord.try_later",
            slow(),
        ),
        (403, r#"{"code": 20028}"#, "discord.try_later", slow()),
        (
            409,
            r#"{"code": 999, "message": "canary"}"#,
            "discord.unrecognized",
            Class::Unrecognized,
        ),
        (409, "no code", "discord.refused", Class::Permanent),
        (
            400,
            r#"{"code": 50035}"#,
            "discord.refused",
            Class::Permanent,
        ),
        (
            403,
            r#"{"code": 999}"#,
            "discord.forbidden",
            Class::Permanent,
        ),
    ] {
        let fault = deliver(reply(status, "", body)).await.0.unwrap_err();
        let seen = (fault.code(), fault.class(), fault.certainty());
        assert_eq!(seen, (code, class, Certainty::NotDone), "{status} {body}");
        assert!(
            fault
                .to_string()
                .contains(&crate::providers::said::Said::of(body.as_bytes()).to_string()),
            "{fault}"
        );
    }
    let fault = deliver(reply(409, "", r#"{"code": 999}"#))
        .await
        .0
        .unwrap_err();
    assert!(fault.hint().contains("999"), "{}", fault.hint());
}

#[test]
fn markup_and_mentions_are_escaped() {
    let lines = [
        "@everyone <@1> `code` **b**",
        "- list",
        "  # head\n> quote",
        "[click](https://x)",
        "a-b",
    ];
    let Rendered(text) = discord().render(&message("<@&9> *t*", &lines));
    let expected = [
        "**\\<\u{200a}@\u{200b}&9\\> \\*t\\***",
        "@\u{200b}everyone \\<\u{200a}@\u{200b}1\\> \\`code\\` \\*\\*b\\*\\*",
        "\\- list",
        "  \\# head \\> quote",
        "\\[click\\](https\u{200a}://x)",
        "a-b",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_fault_of_bad_settings_states_what_is_expected() {
    for (public, part) in [
        (json!({}), "channel_id"),
        (json!({"channel_id": 7}), "; use {"),
        (json!({"channel_id": "general"}), "digits"),
        (
            json!({"channel_id": "1", "api_base": "http://example.com"}),
            "https://",
        ),
        (json!({"channel_id": "1", "color": "red"}), "color"),
    ] {
        let BadConfig(why) = discord().check_config(&config(public)).unwrap_err();
        assert!(why.contains(part), "{why}");
    }
    let mut config = config(json!({"channel_id": "1"}));
    assert_eq!(discord().check_config(&config), Ok(()));
    config.secret = None;
    assert!(discord().check_config(&config).is_err());
}

proptest! {
    #[test]
    fn a_message_fits_with_whole_escapes(title in ".{0,400}", lines in prop::collection::vec("[*@é🦀a\\\\]{0,900}", 0..5)) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let Rendered(text) = discord().render(&message(&title, &lines));
        prop_assert!(text.chars().count() <= CONTENT_CHARACTERS);
        let body = text.strip_suffix('…').unwrap_or(&text);
        let trailing = body.chars().rev().take_while(|&c| c == '\\').count();
        prop_assert_eq!(trailing % 2, 0);
    }
}

#[test]
fn every_fuzzed_answer_is_taken_or_a_refusal_with_a_text() {
    let limited = br#"{"message":"You are being rate limited.","retry_after":64.57,"global":false,"code":40062}"#;
    let refused = br#"{"message":"Unknown Channel","code":10003,"errors":{"a":[{"b":1}]}}"#;
    fuzz::answers(&DISCORD, &[limited, refused], |answer| {
        let patience = patience(&answer);
        assert!(patience.retry_after.is_none_or(|wait| !wait.is_zero()));
        let refusal = words::refusal(&DISCORD, &answer);
        refusal.map(|refusal| ChannelFault::from(refusal).to_string())
    });
}
