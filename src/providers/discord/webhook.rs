//! The webhook of a Discord channel
//! (<https://discord.com/developers/docs/resources/webhook#execute-webhook>).
//!
//! **Proof of delivery**: a 2xx whose body has the message's `id`, which `wait=true` requests:
//! without it, Discord answers before it creates the message.
//!
//! The whole address is the secret. At-least-once: a webhook has no nonce.

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::header::{HeaderValue, USER_AGENT};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;

use super::words::refusal;
use super::{AGENT, CALLERS_ADDRESS, Created, SUPPRESS_EMBEDS, markdown, patience};
use crate::job::EffectClass;
use crate::message::is_discord_id;
use crate::providers::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Rendered, decode,
};
use crate::providers::http::{HttpClient, HttpRequest};
use crate::providers::http_fault::{Provider, provider};
use crate::providers::kind::ChannelKind;

/// Five messages in two seconds, and thirty a minute in total, which the headers of the answers do
/// not state (<https://github.com/discord/discord-api-docs/issues/367>).
static DISCORD_WEBHOOK: Provider = provider!("discord_webhook", "Discord webhook", 5 calls in 10 s);

/// The description of this channel.
pub static KIND: ChannelKind = ChannelKind {
    provider: &DISCORD_WEBHOOK,
    api: None,
    without_place: &[],
    make: |parts| Box::new(DiscordWebhook::new(parts.http.clone())),
    #[cfg(feature = "devkit")]
    requests: super::contract::OF_WEBHOOKS,
    #[cfg(feature = "devkit")]
    simulated: None,
};

const RIGHT: &str = "{}: the webhook's address is the secret";
const RIGHT_SECRET: &str = "the secret must be the webhook's address as Discord shows it: https://discord.com/api/webhooks/ID/TOKEN";

/// A channel that posts messages through a Discord webhook.
#[derive(Debug)]
pub struct DiscordWebhook {
    http: HttpClient,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

impl DiscordWebhook {
    /// Creates a channel that sends with `http`.
    #[must_use]
    pub const fn new(http: HttpClient) -> Self {
        Self { http }
    }

    /// Returns the URL that creates messages and answers with the created message.
    fn target(&self, config: &ChannelConfig) -> Result<Url, BadConfig> {
        let Settings {} = decode(&config.public, RIGHT)?;
        let url = config.secret_address(&self.http, RIGHT_SECRET)?;
        let mut url = Some(url)
            .filter(is_webhook)
            .ok_or_else(|| BadConfig(RIGHT_SECRET.to_owned()))?;
        url.query_pairs_mut().append_pair("wait", "true");
        Ok(url)
    }

    async fn execute(&self, delivery: Delivery<'_>) -> Result<Delivered, ChannelFault> {
        let bad = |problem| ChannelFault::Config {
            provider: &DISCORD_WEBHOOK,
            problem,
        };
        let url = self.target(delivery.config).map_err(bad)?;
        let body = json!({
            "content": delivery.rendered.0,
            "allowed_mentions": {"parse": []},
            "flags": SUPPRESS_EMBEDS,
        });
        let call = HttpRequest::new(&DISCORD_WEBHOOK, Method::POST, url, delivery.deadline)
            .header(USER_AGENT, HeaderValue::from_static(AGENT))
            .json("application/json", &body)?;
        let answer = self.http.send(call).await?;
        if let Some(refusal) = refusal(&DISCORD_WEBHOOK, &answer) {
            return Err(refusal.into());
        }
        let patience = patience(&answer);
        let created: Created = answer.success_or(patience)?.json()?;
        Ok(Delivered::whole(Some(created.id)))
    }
}

impl Channel for DiscordWebhook {
    fn kind(&self) -> &'static str {
        DISCORD_WEBHOOK.name
    }

    fn class(&self, _: &ChannelConfig) -> EffectClass {
        EffectClass::AtLeastOnce
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
        self.execute(delivery).boxed()
    }
}

/// Returns whether `url` is `…/webhooks/ID/TOKEN`, optionally with a query (`thread_id`, for
/// example).
fn is_webhook(url: &Url) -> bool {
    let parts: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    matches!(parts[..], [.., "webhooks", id, token] if is_discord_id(id) && !token.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::{Certainty, Class, Fault};
    use crate::providers::scripted::{
        Reply, Scripted, channel_config, client, json as ok, reply, soon,
    };

    fn webhook() -> DiscordWebhook {
        DiscordWebhook::new(client())
    }

    async fn deliver(answer: Reply) -> (Result<Delivered, ChannelFault>, Scripted) {
        let server = Scripted::start(vec![answer]);
        let address = format!("{}/api/webhooks/42/canary-token?thread_id=7", server.url);
        let config = channel_config(json!({}), Some(&address));
        let rendered = Rendered("**Hello**".to_owned());
        let delivery = Delivery::first(&config, &rendered, "k", EffectClass::AtLeastOnce, soon());
        let result = webhook().deliver(delivery).await;
        (result, server)
    }

    #[tokio::test]
    async fn a_message_is_created_synchronously_without_mentions() {
        let (delivered, server) = deliver(ok(&json!({"id": "7001"}))).await;
        assert_eq!(delivered.unwrap().provider_ref.as_deref(), Some("7001"));
        let request = server.received().remove(0);
        assert_eq!(
            request.target,
            "/api/webhooks/42/canary-token?thread_id=7&wait=true"
        );
        let expected =
            json!({"content": "**Hello**", "allowed_mentions": {"parse": []}, "flags": 4});
        assert_eq!(
            (request.method.as_str(), request.json()),
            ("POST", expected)
        );
    }

    #[tokio::test]
    async fn a_failure_is_classified_and_does_not_show_the_address() {
        let patient = Class::RateLimited {
            retry_after: Some(Duration::from_millis(500)),
        };
        let slow = Class::Transient { retry_after: None };
        for (answer, code, class, certainty) in [
            (
                reply(429, "", r#"{"retry_after": 0.5}"#),
                "discord_webhook.rate_limited",
                patient,
                Certainty::NotDone,
            ),
            (
                Reply::Lose,
                "discord_webhook.connection_lost",
                slow.clone(),
                Certainty::Unknown,
            ),
            (
                reply(400, "", r#"{"code": 40062}"#),
                "discord_webhook.try_later",
                slow.clone(),
                Certainty::NotDone,
            ),
            (
                reply(404, "", r#"{"code": 10015}"#),
                "discord_webhook.not_found",
                Class::Permanent,
                Certainty::NotDone,
            ),
        ] {
            let fault = deliver(answer).await.0.unwrap_err();
            assert_eq!(
                (fault.code(), fault.class(), fault.certainty()),
                (code, class, certainty)
            );
            assert!(!format!("{fault:?} {}", crate::fault::chain(&fault)).contains("canary"));
        }
    }

    #[test]
    fn only_a_webhook_s_address_is_accepted_and_it_is_not_shown() {
        for good in [
            "https://discord.com/api/webhooks/42/t-o_k",
            "https://discord.com/api/v10/webhooks/42/x?thread_id=7",
        ] {
            let config = channel_config(json!({}), Some(good));
            assert_eq!(webhook().check_config(&config), Ok(()));
        }
        for (public, bad) in [
            (json!({}), "https://discord.com/api/webhooks/42/"),
            (
                json!({}),
                "https://discord.com/api/webhooks/42/canary/github",
            ),
            (json!({}), "https://discord.com/api/webhooks/general/canary"),
            (json!({}), "http://discord.com/api/webhooks/42/canary"),
            (
                json!({"channel_id": "1"}),
                "https://discord.com/api/webhooks/42/canary",
            ),
        ] {
            let config = channel_config(public, Some(bad));
            let BadConfig(why) = webhook().check_config(&config).unwrap_err();
            assert!(
                why.contains("the secret") && !why.contains("canary"),
                "{why}"
            );
        }
        let without = channel_config(json!({}), None);
        assert!(webhook().check_config(&without).is_err());
    }
}
