//! Discord, as a bot (<https://discord.com/developers/docs/resources/message#create-message>).
//!
//! **Proof of delivery**: a 2xx whose body has the message's `id`. For a repeated call also a 404
//! with the code 10008 ("Unknown Message"): the nonce found the message of an earlier attempt,
//! which has been deleted since. This is intended by Discord
//! (<https://github.com/discord/discord-api-docs/pull/6647>): it creates no second message.
//!
//! Keyed: with `enforce_nonce`, Discord returns the message that the bot has already created with
//! this nonce "in the past few minutes" instead of another one; the worker relies on two minutes.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use futures_util::future::{BoxFuture, FutureExt};
use reqwest::header::{HeaderValue, USER_AGENT};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Rendered, decode,
};
use super::discord_words::{UNKNOWN_MESSAGE, code, refusal};
use super::http::{HttpClient, HttpRequest, HttpResponse};
use super::http_fault::{Patience, Provider, provider, retry_after, wish};
use super::text::{Capped, cut, unlinked, visible};
use crate::job::EffectClass;
use crate::message::is_discord_id;

static DISCORD: Provider = provider!("discord");
/// Discord counts Unicode code points.
const CONTENT_CHARACTERS: usize = 2000;
const TITLE_CHARACTERS: usize = 256;
const NONCE_CHARACTERS: usize = 25;
const NONCE_KEPT_FOR: Duration = Duration::from_secs(120);
/// A link in a work item's title must not show a preview of a foreign page.
pub(super) const SUPPRESS_EMBEDS: u32 = 1 << 2;
/// The vendor requires this format, and may block others.
pub(super) const AGENT: &str = concat!(
    "DiscordBot (dispatch-worker, ",
    env!("CARGO_PKG_VERSION"),
    ")"
);
/// The shared limit of calls without a bot's token: Discord counts them by the caller's address.
pub(super) const CALLERS_ADDRESS: &str = "address";
const RIGHT: &str =
    r#"{"channel_id": "123456789012345678"}, with "api_base" for another address of the API"#;

/// A channel that posts messages of a bot to Discord.
#[derive(Debug)]
pub struct Discord {
    http: HttpClient,
    api: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings<'a> {
    #[serde(borrow)]
    channel_id: Cow<'a, str>,
    #[serde(borrow, default)]
    api_base: Option<Cow<'a, str>>,
}

/// The part that is parsed of a message that was created or edited.
#[derive(Deserialize)]
pub(super) struct Created {
    pub(super) id: String,
}

#[derive(Deserialize)]
struct RateLimited {
    #[serde(default)]
    retry_after: Option<f64>,
    #[serde(default)]
    global: bool,
}

impl Discord {
    /// Creates a channel that uses the API at `api` (`https://discord.com/api/v10`).
    #[must_use]
    pub fn new(http: HttpClient, api: &str) -> Self {
        Self {
            http,
            api: api.to_owned(),
        }
    }

    /// Returns the URL that creates messages, and the bot's token.
    fn target<'c>(&self, config: &'c ChannelConfig) -> Result<(Url, &'c SecretString), BadConfig> {
        let settings: Settings<'_> = decode(&config.public, RIGHT)?;
        let id = settings.channel_id.as_ref();
        if !is_discord_id(id) {
            return Err(BadConfig(
                "`channel_id` must be a Discord id: up to 20 digits, as text".to_owned(),
            ));
        }
        let base = settings.api_base.as_deref().unwrap_or(&self.api);
        let mut url = self
            .http
            .parse_url(base)
            .map_err(|why| BadConfig(format!("the API's address is invalid: {why}")))?;
        let mut path = url
            .path_segments_mut()
            .map_err(|()| BadConfig("the API's address must have a path".to_owned()))?;
        path.pop_if_empty().extend(["channels", id, "messages"]);
        drop(path);
        let token = config
            .secret
            .as_ref()
            .ok_or_else(|| BadConfig("the bot's token must be given as the secret".to_owned()))?;
        Ok((url, token))
    }

    async fn create_message(&self, delivery: Delivery<'_>) -> Result<Delivered, ChannelFault> {
        let bad = |problem| ChannelFault::Config {
            provider: &DISCORD,
            problem,
        };
        let (url, token) = self.target(delivery.config).map_err(bad)?;
        let body = json!({
            "content": delivery.rendered.0,
            "nonce": delivery.key.get(..NONCE_CHARACTERS).unwrap_or(delivery.key),
            "enforce_nonce": true,
            "allowed_mentions": {"parse": []},
            "flags": SUPPRESS_EMBEDS,
        });
        let call = HttpRequest::new(&DISCORD, Method::POST, url, delivery.deadline)
            .header(USER_AGENT, HeaderValue::from_static(AGENT))
            .authorization("Bot", token)?
            .json("application/json", &body)?;
        let answer = self.http.send(call).await?;
        if delivery.repeated && answer.status == 404 && code(&answer) == Some(UNKNOWN_MESSAGE) {
            return Ok(Delivered::whole(None));
        }
        if let Some(refusal) = refusal(&DISCORD, &answer) {
            return Err(refusal.into());
        }
        let patience = patience(&answer);
        let created: Created = answer.success_or(patience)?.json()?;
        Ok(Delivered::whole(Some(created.id)))
    }
}

impl Channel for Discord {
    fn kind(&self) -> &'static str {
        DISCORD.name
    }

    fn class(&self, _: &ChannelConfig) -> EffectClass {
        EffectClass::Keyed
    }

    fn keyed_for(&self, _: &ChannelConfig) -> Option<Duration> {
        Some(NONCE_KEPT_FOR)
    }

    fn render(&self, message: &Message) -> Rendered {
        Rendered(markdown(message))
    }

    fn shared_limit(&self, config: &ChannelConfig) -> Option<String> {
        config.secret.as_ref().map(name_of_bot)
    }

    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig> {
        self.target(config).map(|_| ())
    }

    fn deliver<'a>(
        &'a self,
        delivery: Delivery<'a>,
    ) -> BoxFuture<'a, Result<Delivered, ChannelFault>> {
        self.create_message(delivery).boxed()
    }
}

/// Returns the rate limit of an answer. The body states it to the millisecond, the header in whole
/// seconds. The limit of the whole bot is global
/// (<https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit>). An answer
/// without JSON comes from the edge, which blocks the caller's address
/// (<https://discord.com/developers/docs/topics/rate-limits#invalid-request-limit-aka-cloudflare-bans>).
pub(super) fn patience(answer: &HttpResponse) -> Patience {
    let by_header = retry_after(&answer.headers, SystemTime::now());
    if answer.status != 429 {
        return Patience {
            retry_after: by_header,
            with_all: false,
        };
    }
    let said = answer.json::<RateLimited>().ok();
    let seconds = said.as_ref().and_then(|body| body.retry_after);
    let exact = seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .and_then(wish);
    let has = |name, value| {
        answer
            .header(name)
            .is_some_and(|header| header.trim().eq_ignore_ascii_case(value))
    };
    let is_global = said.is_none_or(|body| body.global)
        || has("x-ratelimit-global", "true")
        || has("x-ratelimit-scope", "global");
    Patience {
        retry_after: exact.or(by_header),
        with_all: is_global,
    }
}

/// Returns the name of the limit that all destinations of a bot share, without its token.
fn name_of_bot(token: &SecretString) -> String {
    let hash = Sha256::digest(token.expose_secret().as_bytes());
    format!("bot-{}", HEXLOWER.encode(&hash[..8]))
}

/// Returns `message` in Discord's markdown, within its limit.
pub(super) fn markdown(message: &Message) -> String {
    let mut content = Capped::new(CONTENT_CHARACTERS);
    content.push("**");
    content.push_all(escape(&cut(&message.title, TITLE_CHARACTERS)));
    content.push("**");
    for line in &message.lines {
        content.push("\n");
        content.push_all(escape(line));
    }
    content.finish()
}

/// Returns one line of plain text as pieces of Discord markdown. Markup, mentions (`<@1>`,
/// `@everyone`), masked links and bare links are escaped; line breaks and other control characters
/// (also those of writing direction) become spaces.
fn escape(line: &str) -> Vec<String> {
    let mut pieces = Vec::with_capacity(line.len());
    let mut at_start = true;
    for character in unlinked(line).chars() {
        pieces.push(match character {
            '\\' | '*' | '_' | '~' | '`' | '|' | '<' | '>' | '[' | ']' | '#' => {
                format!("\\{character}")
            }
            // Only at the start do they begin a list or small print.
            '-' | '+' if at_start => format!("\\{character}"),
            // A zero-width space prevents the mention.
            '@' => "@\u{200b}".to_owned(),
            c => visible(c).to_string(),
        });
        at_start &= character.is_whitespace() || character.is_control();
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fault::{Certainty, Class, Fault};
    use crate::providers::scripted::{Reply, Scripted, client, json as ok, reply, soon};

    const KEY: &str = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";

    fn discord() -> Discord {
        Discord::new(client(), "https://discord.com/api/v10")
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
            secret: Some("canary-bot".into()),
            previous_secret: None,
        }
    }

    async fn deliver(answer: Reply) -> (Result<Delivered, ChannelFault>, Scripted) {
        attempt(answer, false).await
    }

    async fn attempt(answer: Reply, repeated: bool) -> (Result<Delivered, ChannelFault>, Scripted) {
        let server = Scripted::start(vec![answer]);
        let config =
            config(json!({"channel_id": "42", "api_base": format!("{}/api/v10", server.url)}));
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
            if let Class::Transient { retry_after: asked }
            | Class::RateLimited { retry_after: asked } = fault.class()
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
}
