//! Answers to clicks in Discord
//! (<https://discord.com/developers/docs/interactions/receiving-and-responding#followup-messages>):
//! a message that only the person who clicked sees, or the edit of a known message.
//!
//! **Proof of delivery**: a 2xx whose body has the message's `id`.
//!
//! No destination has this kind: the request made from the click contains the address and the
//! token. A new message is at-least-once; an edit is compare-and-set, because a repetition gives
//! the same state.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::header::{HeaderValue, USER_AGENT};
use reqwest::{Method, Url};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::json;

use super::words::{code, refusal};
use super::{AGENT, CALLERS_ADDRESS, Created, SUPPRESS_EMBEDS, markdown, patience};
use crate::fault::{Certainty, Class};
use crate::job::EffectClass;
use crate::message::{is_discord_id, is_interaction_token};
use crate::providers::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Refusal,
    Rendered, api_url, decode,
};
use crate::providers::http::{HttpClient, HttpRequest, HttpResponse};
use crate::providers::http_fault::{Provider, provider};
use crate::providers::said::Said;

/// Each click has its own limit and gets one answer, so all clicks of an organization share the
/// limit of an application.
pub(in crate::providers) static DISCORD_INTERACTION: Provider =
    provider!("discord_interaction", "answers in Discord", 50 calls in 1 s);
/// How long the vendor accepts an interaction's token.
pub const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
/// The code of an answer after the end of its token.
pub const EXPIRED: &str = "interaction_expired";
/// The hint for such an answer.
pub const EXPIRED_HINT: &str = "Discord accepts an answer only for 15 minutes: cancel this follow-up. The job itself is not affected.";
/// "Unknown Webhook" and "Invalid Webhook Token": the codes for an expired token.
const GONE: [u32; 2] = [10015, 50027];
/// `EPHEMERAL`: only the person who clicked sees the message.
const EPHEMERAL: u32 = 1 << 6;
/// The first message that answered the click.
const ORIGINAL: &str = "@original";
const RIGHT: &str = r#"{"application_id": "123456789012345678", "message_id": null}"#;

/// A channel that answers clicks.
#[derive(Debug)]
pub struct DiscordInteraction {
    http: HttpClient,
    api: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings<'a> {
    #[serde(borrow)]
    application_id: Cow<'a, str>,
    #[serde(borrow, default)]
    message_id: Option<Cow<'a, str>>,
}

impl DiscordInteraction {
    /// Creates a channel that uses the API at `api` (`https://discord.com/api/v10`).
    #[must_use]
    pub fn new(http: HttpClient, api: &str) -> Self {
        Self {
            http,
            api: api.to_owned(),
        }
    }

    /// Returns the URL to call, and whether the call edits a message.
    fn target(&self, config: &ChannelConfig) -> Result<(Url, bool), BadConfig> {
        let settings: Settings<'_> = decode(&config.public, RIGHT)?;
        if !is_discord_id(&settings.application_id) {
            return Err(BadConfig(
                "`application_id` must be a Discord id: up to 20 digits, as text".to_owned(),
            ));
        }
        let message = settings.message_id.as_deref();
        if message.is_some_and(|id| id != ORIGINAL && !is_discord_id(id)) {
            return Err(BadConfig(format!(
                "`message_id` must be a Discord id, as text, or `{ORIGINAL}`"
            )));
        }
        let token = config
            .secret
            .as_ref()
            .map(|token| token.expose_secret())
            .unwrap_or_default();
        if !is_interaction_token(token) {
            return Err(BadConfig(
                "the interaction's token must be the one that Discord gave".to_owned(),
            ));
        }
        let mut path = vec!["webhooks", &settings.application_id, token];
        if let Some(message) = message {
            path.extend(["messages", message]);
        }
        let url = api_url(&self.http, &self.api, &path)?;
        Ok((url, message.is_some()))
    }

    async fn answer(&self, delivery: Delivery<'_>) -> Result<Delivered, ChannelFault> {
        let bad = |problem| ChannelFault::Config {
            provider: &DISCORD_INTERACTION,
            problem,
        };
        let (url, is_edit) = self.target(delivery.config).map_err(bad)?;
        let (method, flags) = if is_edit {
            (Method::PATCH, SUPPRESS_EMBEDS)
        } else {
            (Method::POST, SUPPRESS_EMBEDS | EPHEMERAL)
        };
        let body = json!({
            "content": delivery.rendered.0,
            "allowed_mentions": {"parse": []},
            "flags": flags,
        });
        let call = HttpRequest::new(&DISCORD_INTERACTION, method, url, delivery.deadline)
            .header(USER_AGENT, HeaderValue::from_static(AGENT))
            .json("application/json", &body)?;
        let answer = self.http.send(call).await?;
        if let Some(refusal) = ended(&answer).or_else(|| refusal(&DISCORD_INTERACTION, &answer)) {
            return Err(refusal.into());
        }
        let patience = patience(&answer);
        let made: Created = answer.success_or(patience)?.json()?;
        Ok(Delivered::whole(Some(made.id)))
    }
}

impl Channel for DiscordInteraction {
    fn kind(&self) -> &'static str {
        DISCORD_INTERACTION.name
    }

    fn class(&self, config: &ChannelConfig) -> EffectClass {
        match decode::<Settings<'_>>(&config.public, RIGHT) {
            Ok(Settings {
                message_id: Some(_),
                ..
            }) => EffectClass::CompareAndSet,
            Ok(Settings {
                message_id: None, ..
            })
            | Err(_) => EffectClass::AtLeastOnce,
        }
    }

    fn render(&self, message: &Message) -> Rendered {
        Rendered(markdown(message))
    }

    fn shared_limit(&self, _: &ChannelConfig) -> Option<String> {
        Some(CALLERS_ADDRESS.to_owned())
    }

    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig> {
        self.target(config).map(|_| ())
    }

    fn deliver<'a>(
        &'a self,
        delivery: Delivery<'a>,
    ) -> BoxFuture<'a, Result<Delivered, ChannelFault>> {
        self.answer(delivery).boxed()
    }
}

/// Returns the refusal of an expired token, if the answer states that.
fn ended(answer: &HttpResponse) -> Option<Refusal> {
    if !matches!(answer.status, 401 | 404) {
        return None;
    }
    code(answer).filter(|code| GONE.contains(code))?;
    Some(Refusal {
        provider: &DISCORD_INTERACTION,
        code: EXPIRED,
        said: Said::of(&answer.body).to_string(),
        class: Class::Permanent,
        certainty: Certainty::NotDone,
        hint: EXPIRED_HINT.into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fault::Fault;
    use crate::providers::scripted::{
        Reply, Scripted, channel_config, client, json as ok, reply, soon,
    };

    const TOKEN: &str = "aW50ZXJhY3Rpb246canary";

    fn interaction(api: &str) -> DiscordInteraction {
        DiscordInteraction::new(client(), api)
    }

    fn config(public: Value) -> ChannelConfig {
        channel_config(public, Some(TOKEN))
    }

    async fn deliver(
        message_id: Option<&str>,
        answer: Reply,
    ) -> (Result<Delivered, ChannelFault>, Scripted) {
        let server = Scripted::start(vec![answer]);
        let interaction = interaction(&format!("{}/api/v10", server.url));
        let config = config(json!({"application_id": "99", "message_id": message_id}));
        let rendered = Rendered("**Hello**".to_owned());
        let class = interaction.class(&config);
        let delivery = Delivery::first(&config, &rendered, "k", class, soon());
        let result = interaction.deliver(delivery).await;
        (result, server)
    }

    #[tokio::test]
    async fn a_new_answer_is_ephemeral_and_a_known_message_is_edited() {
        let path = format!("/api/v10/webhooks/99/{TOKEN}");
        for (message_id, method, target, flags) in [
            (None, "POST", path.clone(), 4 | 64),
            (Some("77"), "PATCH", format!("{path}/messages/77"), 4),
            (
                Some("@original"),
                "PATCH",
                format!("{path}/messages/@original"),
                4,
            ),
        ] {
            let (delivered, server) = deliver(message_id, ok(&json!({"id": "7001"}))).await;
            assert_eq!(delivered.unwrap().provider_ref.as_deref(), Some("7001"));
            let request = server.received().remove(0);
            assert_eq!(
                (request.method.as_str(), request.target.as_str()),
                (method, target.as_str())
            );
            let expected =
                json!({"content": "**Hello**", "allowed_mentions": {"parse": []}, "flags": flags});
            assert_eq!(
                (request.json(), request.header("authorization")),
                (expected, None)
            );
        }
    }

    #[tokio::test]
    async fn an_expired_token_is_distinguished_from_other_failures_and_never_shown() {
        for (answer, code, certainty) in [
            (
                reply(404, "", r#"{"code": 10015, "message": "Unknown Webhook"}"#),
                EXPIRED,
                Certainty::NotDone,
            ),
            (
                reply(401, "", r#"{"code": 50027}"#),
                EXPIRED,
                Certainty::NotDone,
            ),
            (
                reply(404, "", r#"{"code": 10008}"#),
                "discord_interaction.not_found",
                Certainty::NotDone,
            ),
            (
                reply(401, "", "no"),
                "discord_interaction.unauthorized",
                Certainty::NotDone,
            ),
            (
                reply(500, "", r#"{"code": 10015}"#),
                "discord_interaction.server_error",
                Certainty::Unknown,
            ),
            (
                Reply::Lose,
                "discord_interaction.connection_lost",
                Certainty::Unknown,
            ),
        ] {
            let fault = deliver(None, answer).await.0.unwrap_err();
            assert_eq!((fault.code(), fault.certainty()), (code, certainty));
            assert!(!format!("{fault:?} {}", crate::fault::chain(&fault)).contains("canary"));
        }
    }

    #[test]
    fn an_edit_is_compare_and_set_and_a_new_message_is_at_least_once() {
        let class = |public| interaction("https://discord.com/api/v10").class(&config(public));
        assert_eq!(
            class(json!({"application_id": "99", "message_id": "77"})),
            EffectClass::CompareAndSet
        );
        assert_eq!(
            class(json!({"application_id": "99"})),
            EffectClass::AtLeastOnce
        );
    }

    #[test]
    fn the_settings_of_a_request_cannot_change_the_path() {
        let interaction = interaction("https://discord.com/api/v10");
        for (public, token) in [
            (json!({"application_id": ".."}), TOKEN),
            (
                json!({"application_id": "99", "message_id": "../.."}),
                TOKEN,
            ),
            (json!({"application_id": "99", "message_id": ""}), TOKEN),
            (json!({"application_id": "99"}), ".."),
            (json!({"application_id": "99"}), "canary/messages"),
            (json!({"application_id": "99"}), ""),
        ] {
            let config = channel_config(public, Some(token));
            let BadConfig(why) = interaction.check_config(&config).unwrap_err();
            assert!(!why.contains("canary"), "{why}");
        }
        assert_eq!(
            interaction.check_config(&config(json!({"application_id": "99"}))),
            Ok(())
        );
    }
}
