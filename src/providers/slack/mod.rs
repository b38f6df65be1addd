//! Slack, as a bot (<https://docs.slack.dev/reference/methods/chat.postMessage/>).
//!
//! **Proof of delivery**: a 2xx whose body has `"ok": true`, and `channel` and `ts` of the
//! message. `"ok": false` is a refusal; `words` has the meaning of its error code.
//!
//! At-least-once: Slack documents no key that dedupes messages of an app. (`client_msg_id` is for
//! its own clients; its developers advise others not to rely on it:
//! <https://github.com/slackapi/java-slack-sdk/issues/852>.)

#[cfg(feature = "devkit")]
mod contract;
#[cfg(feature = "devkit")]
mod simulator;
#[cfg(test)]
mod tests;
mod words;

use std::borrow::Cow;
use std::time::SystemTime;

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{Method, Url};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Rendered,
    api_url, decode,
};
use super::http::{HttpClient, HttpRequest, HttpResponse};
use super::http_fault::{Provider, provider, retry_after};
use super::kind::{ApiSetting, ChannelKind};

use self::words::refusal;
use super::text::{Capped, cut, unlinked, visible};
use crate::job::EffectClass;

/// One message a second per channel, bursts tolerated
/// (<https://docs.slack.dev/apis/web-api/rate-limits>).
static SLACK: Provider = provider!("slack", "Slack", 3 calls in 3 s);

/// The description of this channel.
pub static KIND: ChannelKind = ChannelKind {
    provider: &SLACK,
    api: Some(ApiSetting {
        variable: "DISPATCH_SLACK_URL",
        default: "https://slack.com/api",
        help: "Slack: Web API",
    }),
    without_place: &[],
    make: |parts| Box::new(Slack::new(parts.http.clone(), parts.urls.of(&KIND))),
    #[cfg(feature = "devkit")]
    requests: contract::REQUESTS,
    #[cfg(feature = "devkit")]
    simulated: Some(simulator::SIMULATED),
};

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
        let url = api_url(&self.http, &self.api, &["chat.postMessage"])?;
        let token = config.needed_secret("the bot's token must be given as the secret")?;
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
        outcome(&self.http.send(call).await?.success()?)
    }
}

/// Returns what an answer with a 2xx means.
fn outcome(answer: &HttpResponse) -> Result<Delivered, ChannelFault> {
    let posted: Posted = answer.json()?;
    match posted {
        Posted {
            ok: true,
            channel: Some(channel),
            ts: Some(ts),
            ..
        } => Ok(Delivered::whole(Some(format!("{channel}/{ts}")))),
        Posted { ok: true, .. } => Err(answer.malformed("`ok` without `channel` and `ts`").into()),
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

impl Channel for Slack {
    fn kind(&self) -> &'static str {
        SLACK.name
    }

    fn class(&self, _: &ChannelConfig) -> EffectClass {
        EffectClass::AtLeastOnce
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
