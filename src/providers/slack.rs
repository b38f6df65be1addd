//! Slack, as a bot (<https://docs.slack.dev/reference/methods/chat.postMessage/>).
//!
//! **Proof of delivery**: a 2xx whose body has `"ok": true`, and `channel` and `ts` of the
//! message. `"ok": false` is a refusal; `slack_words` has the meaning of its error code.
//!
//! At-least-once: Slack documents no key that dedupes messages of an app. (`client_msg_id` is for
//! its own clients; its developers advise others not to rely on it:
//! <https://github.com/slackapi/java-slack-sdk/issues/852>.)

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{Method, Url};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Rendered, decode,
};
use super::http::{HttpClient, HttpRequest};
use super::http_fault::{Provider, provider, retry_after};
use super::slack_words::refusal;
use super::text::{Capped, cut, unlinked, visible};
use crate::job::EffectClass;

static SLACK: Provider = provider!("slack");
/// The limit that the vendor recommends; it truncates text of 40,000 characters and more itself.
const TEXT_CHARACTERS: usize = 4000;
const TITLE_CHARACTERS: usize = 256;
const RIGHT: &str = r#"{"channel": "C0123456789"}"#;

/// A channel that posts messages of a bot to Slack.
#[derive(Debug)]
pub struct Slack {
    http: HttpClient,
    api: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

/// The answer to every call: `ok` is the result, with any HTTP status.
#[derive(Deserialize)]
struct Posted {
    ok: bool,
    #[serde(default)]
    error: Option<String>,
    /// The missing scope.
    #[serde(default)]
    needed: Option<String>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    ts: Option<String>,
}

impl Slack {
    /// Creates a channel that uses the Web API at `api` (`https://slack.com/api`).
    #[must_use]
    pub fn new(http: HttpClient, api: &str) -> Self {
        Self {
            http,
            api: api.to_owned(),
        }
    }

    /// Returns the URL that messages are posted to, the channel's id, and the bot's token.
    fn target<'c>(
        &self,
        config: &'c ChannelConfig,
    ) -> Result<(Url, Cow<'c, str>, &'c SecretString), BadConfig> {
        let Settings { channel } = decode(&config.public, RIGHT)?;
        let is_id = channel.starts_with(['C', 'D', 'G'])
            && (2..=32).contains(&channel.len())
            && channel
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if !is_id {
            return Err(BadConfig(
                "`channel` must be a Slack id such as C0123456789, not a name".to_owned(),
            ));
        }
        let mut url = self
            .http
            .parse_url(&self.api)
            .map_err(|why| BadConfig(format!("the API's address is invalid: {why}")))?;
        let mut path = url
            .path_segments_mut()
            .map_err(|()| BadConfig("the API's address must have a path".to_owned()))?;
        path.pop_if_empty().push("chat.postMessage");
        drop(path);
        let token = config
            .secret
            .as_ref()
            .ok_or_else(|| BadConfig("the bot's token must be given as the secret".to_owned()))?;
        Ok((url, channel, token))
    }

    async fn post_message(&self, delivery: Delivery<'_>) -> Result<Delivered, ChannelFault> {
        let bad = |problem| ChannelFault::Config {
            provider: &SLACK,
            problem,
        };
        let (url, channel, token) = self.target(delivery.config).map_err(bad)?;
        // Disables markup, link previews and mentions in the text.
        let body = json!({
            "channel": channel,
            "text": delivery.rendered.0,
            "mrkdwn": false,
            "parse": "none",
            "link_names": false,
            "unfurl_links": false,
            "unfurl_media": false,
        });
        let call = HttpRequest::new(&SLACK, Method::POST, url, delivery.deadline)
            .authorization("Bearer", token)?
            .json("application/json; charset=utf-8", &body)?;
        let answer = self.http.send(call).await?.success()?;
        let posted: Posted = answer.json()?;
        match posted {
            Posted {
                ok: true,
                channel: Some(channel),
                ts: Some(ts),
                ..
            } => Ok(Delivered::whole(Some(format!("{channel}/{ts}")))),
            Posted { ok: true, .. } => {
                Err(answer.malformed("`ok` without `channel` and `ts`").into())
            }
            Posted {
                error: Some(word),
                needed,
                ..
            } => {
                let patience = retry_after(&answer.headers, SystemTime::now());
                Err(refusal(&SLACK, &word, needed.as_deref(), patience).into())
            }
            Posted { error: None, .. } => {
                Err(answer.malformed("`ok` is false without an `error`").into())
            }
        }
    }
}

impl Channel for Slack {
    fn kind(&self) -> &'static str {
        SLACK.name
    }

    fn class(&self, _: &ChannelConfig) -> EffectClass {
        EffectClass::AtLeastOnce
    }

    fn keyed_for(&self, _: &ChannelConfig) -> Option<Duration> {
        None
    }

    fn render(&self, message: &Message) -> Rendered {
        let mut text = Capped::new(TEXT_CHARACTERS);
        text.push_all(escape(&cut(&message.title, TITLE_CHARACTERS)));
        for line in &message.lines {
            text.push("\n");
            text.push_all(escape(line));
        }
        Rendered(text.finish())
    }

    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig> {
        self.target(config).map(|_| ())
    }

    fn deliver<'a>(
        &'a self,
        delivery: Delivery<'a>,
    ) -> BoxFuture<'a, Result<Delivered, ChannelFault>> {
        self.post_message(delivery).boxed()
    }
}

/// Returns one line of plain text as pieces, with Slack's control sequences (`<!channel>`,
/// `<@U1>`, `<https://…|text>`) escaped, see
/// <https://docs.slack.dev/messaging/formatting-message-text/#escaping>.
///
/// Bare links are broken up, too: `parse` controls only the server, not the apps that show a text.
fn escape(line: &str) -> Vec<String> {
    let piece = |character| match character {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        c => visible(c).to_string(),
    };
    unlinked(line).chars().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::fault::{Certainty, Class, Fault};
    use crate::providers::scripted::{Reply, Scripted, client, json as ok, reply, soon};

    fn slack(api: &str) -> Slack {
        Slack::new(client(), api)
    }

    fn message(title: &str, lines: &[&str]) -> Message {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        Message {
            event: "x".into(),
            happened_at: None,
            title: title.into(),
            lines,
            details: Value::Null,
        }
    }

    fn config(public: Value) -> ChannelConfig {
        ChannelConfig {
            public,
            secret: Some("canary-slack".into()),
            previous_secret: None,
        }
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
        let limited = Class::RateLimited {
            retry_after: Some(Duration::from_secs(7)),
        };
        let transient = || Class::Transient { retry_after: None };
        for (word, header, code, class, certainty) in [
            (
                "ratelimited",
                "retry-after: 7\r\n",
                "slack.rate_limited",
                limited,
                Certainty::NotDone,
            ),
            (
                "internal_error",
                "",
                "slack.server_error",
                transient(),
                Certainty::Unknown,
            ),
            (
                "fatal_error",
                "",
                "slack.server_error",
                transient(),
                Certainty::Unknown,
            ),
            (
                "request_timeout",
                "",
                "slack.try_later",
                transient(),
                Certainty::NotDone,
            ),
            (
                "channel_not_found",
                "",
                "slack.channel_not_found",
                Class::Permanent,
                Certainty::NotDone,
            ),
            (
                "not_in_channel",
                "",
                "slack.not_in_channel",
                Class::Permanent,
                Certainty::NotDone,
            ),
            (
                "token_revoked",
                "",
                "slack.token_revoked",
                Class::Permanent,
                Certainty::NotDone,
            ),
            (
                "msg_too_long",
                "",
                "slack.msg_too_long",
                Class::Permanent,
                Certainty::NotDone,
            ),
            (
                "external_channel_migrating",
                "",
                "slack.try_later",
                transient(),
                Certainty::NotDone,
            ),
            (
                "something_new",
                "",
                "slack.unrecognized",
                Class::Unrecognized,
                Certainty::NotDone,
            ),
        ] {
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
}
