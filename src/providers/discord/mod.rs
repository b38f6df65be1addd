//! Discord, as a bot (<https://discord.com/developers/docs/resources/message#create-message>).
//!
//! **Proof of delivery**: a 2xx whose body has the message's `id`. For a repeated call also a 404
//! with the code 10008 ("Unknown Message"): the nonce found the message of an earlier attempt,
//! which has been deleted since. This is intended by Discord
//! (<https://github.com/discord/discord-api-docs/pull/6647>): it creates no second message.
//!
//! Keyed: with `enforce_nonce`, Discord returns the message that the bot has already created with
//! this nonce "in the past few minutes" instead of another one; the worker relies on two minutes.

#[cfg(feature = "devkit")]
mod contract;
pub mod interaction;
#[cfg(test)]
mod tests;
pub mod webhook;
mod words;

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

use self::words::{UNKNOWN_MESSAGE, code, refusal};
use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Rendered,
    api_url, decode,
};
use super::http::{HttpClient, HttpRequest, HttpResponse};
use super::http_fault::{Patience, Provider, nonzero_wait, provider, retry_after};
use super::kind::{ApiSetting, ChannelKind};
use super::text::{Capped, cut, unlinked, visible};
use crate::job::EffectClass;
use crate::message::is_discord_id;

/// Five messages in five seconds per channel, according to the headers of the vendor's answers
/// (<https://discord.com/developers/docs/topics/rate-limits>).
static DISCORD: Provider = provider!("discord", "Discord", 5 calls in 5 s);

/// The description of this channel.
pub static KIND: ChannelKind = ChannelKind {
    provider: &DISCORD,
    api: Some(ApiSetting {
        variable: "DISPATCH_DISCORD_URL",
        default: "https://discord.com/api/v10",
        help: "Discord: API",
    }),
    without_place: &[],
    make: |parts| Box::new(Discord::new(parts.http.clone(), parts.urls.of(&KIND))),
    #[cfg(feature = "devkit")]
    requests: contract::OF_THE_BOT,
    #[cfg(feature = "devkit")]
    simulated: None,
};

/// Discord counts Unicode code points.
const CONTENT_CHARACTERS: usize = 2000;
const TITLE_CHARACTERS: usize = 256;
const NONCE_CHARACTERS: usize = 25;
const NONCE_KEPT_FOR: Duration = Duration::from_secs(120);
/// A link in a work item's title must not show a preview of a foreign page.
const SUPPRESS_EMBEDS: u32 = 1 << 2;
/// The vendor requires this format, and may block others.
const AGENT: &str = concat!(
    "DiscordBot (dispatch-worker, ",
    env!("CARGO_PKG_VERSION"),
    ")"
);
/// The shared limit of calls without a bot's token: Discord counts them by the caller's address.
const CALLERS_ADDRESS: &str = "address";
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
struct Created {
    id: String,
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
        let url = api_url(&self.http, base, &["channels", id, "messages"])?;
        let token = config.needed_secret("the bot's token must be given as the secret")?;
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
fn patience(answer: &HttpResponse) -> Patience {
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
        .and_then(nonzero_wait);
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
fn markdown(message: &Message) -> String {
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
